//! What the memory manager says about the system and its addresses.

#![allow(non_snake_case, non_upper_case_globals, reason = "exports have their Windows names")]

use crate::cpu::seh::{
    self,
    entry::raising,
    record::{Context, NONCONTINUABLE},
};
use crate::export::{Export, exports};
use crate::nt::rtl::copy;
use crate::pe::gate::Catalogue;
use core::ffi::c_void;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;

exports! {
    "ntoskrnl.exe";
    MmGetSystemRoutineAddress: PASSIVE,
    MmIsAddressValid: DISPATCH,
    MmIsDriverVerifying: APC,
    MmIsDriverVerifyingByAddress: APC,
    MmIsThisAnNtAsSystem: APC,
    MmQuerySystemSize: APC,
    MmLockPagableDataSection: APC,
    MmLockPagableSectionByHandle: APC,
    MmUnlockPagableImageSection: APC,
    MmPageEntireDriver: APC,
    MmResetDriverPaging: APC,
    ProbeForRead: APC,
    ProbeForWrite: APC,
}

/// The variables: the limits between user and system addresses of x64 Windows with 47-bit user space.
pub const VARIABLES: &[Export] = &[
    Export::variable("ntoskrnl.exe", "MmHighestUserAddress", (&raw const MmHighestUserAddress).cast()),
    Export::variable("ntoskrnl.exe", "MmUserProbeAddress", (&raw const MmUserProbeAddress).cast()),
    Export::variable("ntoskrnl.exe", "MmSystemRangeStart", (&raw const MmSystemRangeStart).cast()),
];

static MmHighestUserAddress: u64 = 0x7fff_fffe_ffff;
static MmUserProbeAddress: u64 = 0x7fff_ffff_0000;
static MmSystemRangeStart: u64 = 0xffff_8000_0000_0000;

/// Looks through ntoskrnl.exe and HAL.dll, as Windows does, and gives the same gate an import would get.
unsafe extern "win64" fn MmGetSystemRoutineAddress(name: *const UnicodeString) -> *const () {
    // SAFETY: the page demands a UNICODE_STRING, which is copied.
    let name = unsafe { UnicodeString::read(name) };
    let found = crate::cpu::with_machine(|machine| Catalogue::get().find_for(machine, "ntoskrnl.exe", &name));
    if found.is_none() {
        tracing::debug!(name, "MmGetSystemRoutineAddress: ntsim has no such routine");
    }
    found.map_or(core::ptr::null(), |(_, address)| address)
}

/// Whether the host can read a byte there.
extern "win64" fn MmIsAddressValid(address: *const c_void) -> u8 {
    u8::from(copy::first_inaccessible(address as usize, 1, false).is_none())
}

/// Drivers ask this to be lenient under Driver Verifier, which is not wanted here.
extern "win64" fn MmIsDriverVerifying(_driver: *const c_void) -> u32 {
    0
}

extern "win64" fn MmIsDriverVerifyingByAddress(_address: *const c_void) -> u32 {
    0
}

/// A workstation.
extern "win64" fn MmIsThisAnNtAsSystem() -> u8 {
    0
}

/// MmLargeSystem.
extern "win64" fn MmQuerySystemSize() -> u32 {
    2
}

// Nothing is paged out, so what these are documented to do is done from the start.
extern "win64" fn MmLockPagableDataSection(address: *mut c_void) -> *mut c_void {
    address
}
extern "win64" fn MmLockPagableSectionByHandle(_section: *mut c_void) {}
extern "win64" fn MmUnlockPagableImageSection(_section: *mut c_void) {}
extern "win64" fn MmPageEntireDriver(address: *mut c_void) -> *mut c_void {
    address
}
extern "win64" fn MmResetDriverPaging(_address: *mut c_void) {}

raising! {
    /// Raises where the memory cannot be a user's.
    fn ProbeForRead(address: usize, length: usize, alignment: u32) => probe_for_read
}
raising! {
    /// The same, and where it cannot be written.
    fn ProbeForWrite(address: usize, length: usize, alignment: u32) => probe_for_write
}

unsafe extern "win64" fn probe_for_read(address: usize, length: usize, alignment: u32, context: *mut Context) {
    // SAFETY: `raising` passes a context in its own frame, and nothing here must be dropped.
    unsafe { probe("ProbeForRead", address, length, alignment, context) }
}

unsafe extern "win64" fn probe_for_write(address: usize, length: usize, alignment: u32, context: *mut Context) {
    // SAFETY: `raising` passes a context in its own frame, and nothing here must be dropped.
    unsafe { probe("ProbeForWrite", address, length, alignment, context) }
    if let Some(at) = copy::first_inaccessible(address, length, true) {
        // SAFETY: called by `raising`; nothing here owns anything.
        unsafe {
            seh::raise(context, NtStatus::ACCESS_VIOLATION, 0, &[1, at as u64], || {
                format!("ProbeForWrite: {at:#x} cannot be written, and nobody handled the exception")
            });
        }
    }
}

/// # Safety
/// As [`seh::raise`].
unsafe fn probe(what: &str, address: usize, length: usize, alignment: u32, context: *mut Context) {
    if length == 0 {
        return;
    }
    let end = (address as u64).checked_add(length as u64);
    let (status, why) = if alignment.is_power_of_two() && !address.is_multiple_of(alignment as usize) {
        (NtStatus::DATATYPE_MISALIGNMENT, "is not aligned as asked")
    } else if end.is_none_or(|end| end > MmUserProbeAddress) {
        (NtStatus::ACCESS_VIOLATION, "is not user-mode memory")
    } else {
        return;
    };
    // SAFETY: by this function's contract; nothing here owns anything.
    unsafe {
        seh::raise(context, status, NONCONTINUABLE, &[], || {
            format!("{what}: {length} bytes at {address:#x} {why}, and nobody handled the exception")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::machine::Machine;
    use nt_abi::Irql;
    use nt_abi::OwnedUnicodeString;

    #[test]
    fn routines_are_found_by_name_in_both_modules() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            // SAFETY: the strings are ours.
            let find = |name: &str| unsafe { MmGetSystemRoutineAddress(OwnedUnicodeString::new(name).as_ptr()) };
            assert!(!find("ExAllocatePool2").is_null());
            assert!(!find("KeQueryPerformanceCounter").is_null());
            assert!(find("ExNoSuchRoutine").is_null());
            assert!(find("FwpsCalloutRegister3").is_null(), "not the kernel's");
            // SAFETY: the gate of a function without parameters.
            let irql: extern "win64" fn() -> u8 = unsafe { core::mem::transmute(find("KeGetCurrentIrql")) };
            assert_eq!(irql(), 0);
        })
        .unwrap();
    }

    #[test]
    fn an_address_is_valid_when_it_can_be_read() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let byte = 1_u8;
            assert_eq!(MmIsAddressValid((&raw const byte).cast()), 1);
            assert_eq!(MmIsAddressValid(8 as *const c_void), 0);
            assert_eq!(MmIsAddressValid(core::ptr::null()), 0);
        })
        .unwrap();
    }

    #[test]
    fn probing_refuses_system_addresses_and_bad_alignment() {
        let probe = |address, alignment| {
            // SAFETY: a probe touches nothing.
            cpu::enter(&Machine::new(), Irql::PASSIVE, || unsafe { ProbeForRead(address, 4, alignment) })
        };
        assert!(probe(0x1001, 1).is_ok());
        assert!(probe(0x1001, 4).unwrap_err().why.contains("aligned"));
        assert!(probe(0xffff_8000_0000_0000, 4).unwrap_err().why.contains("not user-mode memory"));
        assert!(probe(usize::MAX - 3, 4).unwrap_err().why.contains("not user-mode memory"));
    }
}
