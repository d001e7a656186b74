//! Event tracing: ETW, WPP and the WPP recorder.
//!
//! No trace session ever runs on a simulated machine. What a provider does then is documented: registering succeeds,
//! nothing is enabled, and events are discarded. Registrations are counted, because a driver that unloads with one
//! crashes Windows.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::{Export, exports};
use crate::nt::violation;
use core::ffi::c_void;
use core::ops::Range;
use nt_abi::Irql;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use std::collections::BTreeMap;

exports! {
    "ntoskrnl.exe";
    EtwRegister: PASSIVE,
    EtwUnregister: PASSIVE,
    EtwSetInformation: PASSIVE,
    EtwWrite: HIGH,
    EtwWriteEx: HIGH,
    EtwWriteTransfer: HIGH,
    EtwWriteString: HIGH,
    EtwEventEnabled: HIGH,
    EtwProviderEnabled: HIGH,
    EtwActivityIdControl: HIGH,
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

/// The providers of one machine.
#[derive(Debug, Default)]
pub struct Tracing {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// Handle to who registered it.
    providers: BTreeMap<u64, u64>,
    /// Device objects registered for WMI, and who did.
    wmi: BTreeMap<u64, u64>,
}

impl Tracing {
    /// Registrations of code within `range` that were not undone.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let state = self.state.lock();
        let line = |what: &str, by: u64| format!("{what} registration, made by {}", cpu::frame_of(by));
        let theirs = |map: &BTreeMap<u64, u64>, what: &str| {
            map.values().filter(|by| range.contains(by)).map(|by| line(what, *by)).collect::<Vec<_>>()
        };
        let mut left = theirs(&state.providers, "ETW");
        left.extend(theirs(&state.wmi, "WMI"));
        left
    }
}

/// The enable callback is never called: nothing is ever enabled.
unsafe extern "win64" fn EtwRegister(
    _provider: *const c_void,
    _callback: *const c_void,
    _context: *mut c_void,
    handle: *mut u64,
) -> NtStatus {
    let by = cpu::caller();
    let registered = cpu::with_machine(|machine| {
        if machine.low_resources.fails("EtwRegister") {
            return None;
        }
        let mut state = machine.executive.tracing.state.lock();
        state.last += 1;
        let handle = state.last;
        state.providers.insert(handle, by);
        Some(handle)
    });
    let Some(registered) = registered else { return NtStatus::INSUFFICIENT_RESOURCES };
    // SAFETY: the page demands a variable for the REGHANDLE. The driver ends the registration with EtwUnregister; else
    // it is in the leak report.
    unsafe { handle.write(registered) };
    NtStatus::SUCCESS
}

extern "win64" fn EtwUnregister(handle: u64) -> NtStatus {
    let known = cpu::with_machine(|machine| machine.executive.tracing.state.lock().providers.remove(&handle).is_some());
    if !known {
        violation([0xDC, handle, 0, 0], format!("EtwUnregister was given {handle:#x}, which is not a registration"));
    }
    NtStatus::SUCCESS
}

extern "win64" fn EtwSetInformation(_handle: u64, _class: u32, _data: *const c_void, _length: u32) -> NtStatus {
    NtStatus::SUCCESS
}

extern "win64" fn EtwEventEnabled(_handle: u64, _event: *const c_void) -> u8 {
    0
}

extern "win64" fn EtwProviderEnabled(_handle: u64, _level: u8, _keyword: u64) -> u8 {
    0
}

// The arguments of the writing functions are not read: nothing is enabled. The win64 ABI lets a function leave out
// arguments.
extern "win64" fn EtwWrite(_handle: u64) -> NtStatus {
    NtStatus::SUCCESS
}
extern "win64" fn EtwWriteEx(_handle: u64) -> NtStatus {
    NtStatus::SUCCESS
}
extern "win64" fn EtwWriteTransfer(_handle: u64) -> NtStatus {
    NtStatus::SUCCESS
}
extern "win64" fn EtwWriteString(_handle: u64) -> NtStatus {
    NtStatus::SUCCESS
}

/// Makes identifiers; a thread has no activity to get or set.
unsafe extern "win64" fn EtwActivityIdControl(control: u32, id: *mut [u8; 16]) -> NtStatus {
    const CREATE: u32 = 3;
    match control {
        1 => {
            // SAFETY: the page makes `ActivityId` a GUID to write for this control code.
            unsafe { id.write([0; 16]) };
            NtStatus::SUCCESS
        }
        2 => NtStatus::SUCCESS,
        CREATE => {
            // SAFETY: the page makes `ActivityId` a GUID to write for this control code.
            unsafe { id.write(super::ex::uuid::random()) };
            NtStatus::SUCCESS
        }
        _ => NtStatus::INVALID_PARAMETER,
    }
}

/// WMIREG_ACTION_*: register, deregister, reregister, update, block IRPs. The action's upper bits are flags.
extern "win64" fn IoWMIRegistrationControl(device: u64, action: u32) -> NtStatus {
    let by = cpu::caller();
    cpu::with_machine(|machine| {
        let mut state = machine.executive.tracing.state.lock();
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
        super::violation(
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
    use core::ptr;

    #[test]
    fn registrations_are_counted_until_undone() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let mut handle = 0;
            // SAFETY: the output is ours.
            let status = unsafe { EtwRegister(ptr::null(), ptr::null(), ptr::null_mut(), &mut handle) };
            assert_eq!(status, NtStatus::SUCCESS);
            assert_eq!((EtwProviderEnabled(handle, 1, 0), EtwEventEnabled(handle, ptr::null())), (0, 0));
            assert_eq!(machine.executive.tracing.left_by(&(0..u64::MAX)).len(), 1);
            assert_eq!(EtwUnregister(handle), NtStatus::SUCCESS);
            assert_eq!(IoWMIRegistrationControl(0x1000, 1), NtStatus::SUCCESS);
            assert_eq!(IoWMIRegistrationControl(0x1000, 2), NtStatus::SUCCESS);
            assert_eq!(IoWMIRegistrationControl(0x1000, 2), NtStatus::INVALID_PARAMETER);
            assert!(machine.executive.tracing.left_by(&(0..u64::MAX)).is_empty());
        })
        .unwrap();
        let twice = cpu::enter(&machine, Irql::PASSIVE, || EtwUnregister(1)).unwrap_err();
        assert_eq!(twice.parameters[0], 0xDC);
    }

    #[test]
    fn new_activities_differ() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        // SAFETY: the outputs are ours.
        unsafe {
            assert_eq!(EtwActivityIdControl(3, &mut a), NtStatus::SUCCESS);
            assert_eq!(EtwActivityIdControl(3, &mut b), NtStatus::SUCCESS);
            assert_eq!(EtwActivityIdControl(9, &mut b), NtStatus::INVALID_PARAMETER);
        }
        assert_ne!(a, b);
    }
}
