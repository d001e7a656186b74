//! WMI, and the macros of WPP: `IoWMI*`, `Wmi*` and WppRecorder.sys.
//!
//! Nobody asks for their events on a simulated machine. WMI registrations are counted, because a driver that unloads with
//! one crashes Windows.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::{Export, exports};
use core::ffi::c_void;
use nt_abi::{Irql, NtStatus};

exports! {
    "ntoskrnl.exe";
    IoWMIRegistrationControl: PASSIVE,
    IoWMIWriteEvent: HIGH,
    WmiTraceMessage: HIGH,
    WmiTraceMessageVa: HIGH,
    WmiQueryTraceInformation: HIGH,
}

/// WppRecorder.sys. Drivers name the functions behind its import library with the prefix `imp_`.
pub const RECORDER: &[Export] = &[
    recorder("WppAutoLogStart", Irql::PASSIVE, WppAutoLogStart as *const ()),
    recorder("WppAutoLogStop", Irql::PASSIVE, WppAutoLogStop as *const ()),
    recorder("WppAutoLogTrace", Irql::HIGH, succeed as *const ()),
    recorder("imp_WppRecorderReplay", Irql::PASSIVE, succeed as *const ()),
    recorder("imp_WppRecorderConfigure", Irql::PASSIVE, succeed as *const ()),
    recorder("imp_WppRecorderLogCreate", Irql::PASSIVE, LogCreate as *const ()),
    recorder("imp_WppRecorderLogDelete", Irql::PASSIVE, succeed as *const ()),
    recorder("imp_WppRecorderLogGetDefault", Irql::DISPATCH, LogGetDefault as *const ()),
    recorder("imp_WppRecorderIsDefaultLogAvailable", Irql::DISPATCH, IsDefaultLogAvailable as *const ()),
    recorder("imp_WppRecorderLogSetIdentifier", Irql::DISPATCH, succeed as *const ()),
    recorder("imp_WppRecorderLogDumpLiveData", Irql::PASSIVE, refuse as *const ()),
    recorder("imp_WppRecorderDumpLiveDriverData", Irql::PASSIVE, refuse as *const ()),
];

const fn recorder(name: &'static str, max_irql: Irql, entry: *const ()) -> Export {
    Export::function("WppRecorder.sys", name, max_irql, entry)
}

/// WMIREG_ACTION_*: register, deregister, reregister, update, block IRPs. The action's upper bits are flags.
extern "win64" fn IoWMIRegistrationControl(device: u64, action: u32) -> NtStatus {
    let by = cpu::caller();
    cpu::with_machine(|machine| {
        let mut state = machine.executive.tracing.state.write();
        match action & 0xf {
            1 => drop(state.wmi.insert(device, by)),
            2 if state.wmi.remove(&device).is_none() => return NtStatus::INVALID_PARAMETER,
            2..=5 => {}
            _ => return NtStatus::INVALID_PARAMETER,
        }
        NtStatus::SUCCESS
    })
}

/// The kernel frees an event that it accepts, the caller one that it refuses. It is refused here, without consumers.
///
/// An event that goes to a trace may be written at any IRQL, one for WMI only up to APC_LEVEL (routine's page).
unsafe extern "win64" fn IoWMIWriteEvent(event: *const c_void) -> NtStatus {
    /// Offset of `WNODE_HEADER.Flags` and WNODE_FLAG_TRACED_GUID (wmistr.h).
    const FLAGS: usize = 0x2c;
    const TRACED_GUID: u32 = 0x0002_0000;
    // SAFETY: the page demands an event in nonpaged pool that begins with a WNODE_HEADER; only its flags are read.
    let flags = unsafe { event.byte_add(FLAGS).cast::<u32>().read_unaligned() };
    let irql = cpu::irql();
    if flags & TRACED_GUID == 0 && irql > Irql::APC {
        crate::nt::violation(
            [0x2_0000, u64::from(irql.0), 1, 0],
            format!(
                "IoWMIWriteEvent was called at {irql} with an event that is not a trace; it may be called at APC_LEVEL at most"
            ),
        );
    }
    NtStatus::UNSUCCESSFUL
}

extern "win64" fn WmiTraceMessage() -> NtStatus {
    NtStatus::SUCCESS
}

extern "win64" fn WmiTraceMessageVa() -> NtStatus {
    NtStatus::SUCCESS
}

/// There is no session.
extern "win64" fn WmiQueryTraceInformation() -> NtStatus {
    NtStatus::NOT_FOUND
}

extern "win64" fn WppAutoLogStart(_control: *mut c_void, _driver: *mut c_void, _path: *const c_void) {}

extern "win64" fn WppAutoLogStop(_control: *mut c_void, _driver: *mut c_void) {}

extern "win64" fn succeed() -> NtStatus {
    NtStatus::SUCCESS
}

extern "win64" fn refuse() -> NtStatus {
    NtStatus::NOT_SUPPORTED
}

/// No recorder log is available, as on a system without memory; drivers then do not log.
unsafe extern "win64" fn LogCreate(
    _control: *mut c_void,
    _parameters: *const c_void,
    log: *mut *mut c_void,
) -> NtStatus {
    // SAFETY: the import library passes the address of its log handle.
    unsafe { log.write(core::ptr::null_mut()) };
    NtStatus::INSUFFICIENT_RESOURCES
}

extern "win64" fn LogGetDefault(_control: *mut c_void) -> *mut c_void {
    core::ptr::null_mut()
}

extern "win64" fn IsDefaultLogAvailable(_control: *mut c_void) -> u8 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn wmi_registrations_are_counted_until_undone() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            assert_eq!(IoWMIRegistrationControl(0x1000, 1), NtStatus::SUCCESS);
            assert_eq!(machine.executive.tracing.left_by(&(0..u64::MAX)).len(), 1);
            assert_eq!(IoWMIRegistrationControl(0x1000, 2), NtStatus::SUCCESS);
            assert_eq!(IoWMIRegistrationControl(0x1000, 2), NtStatus::INVALID_PARAMETER);
            assert!(machine.executive.tracing.left_by(&(0..u64::MAX)).is_empty());
        })
        .unwrap();
    }
}
