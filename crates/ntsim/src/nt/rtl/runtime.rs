//! What compilers call, and what version this is.

#![allow(non_snake_case, non_upper_case_globals, reason = "exports have their Windows names")]

use crate::export::{Export, exports};
use core::ffi::c_void;
use nt_abi::NtStatus;

exports! {
    "ntoskrnl.exe";
    __chkstk: HIGH,
    RtlGetVersion: PASSIVE,
    RtlIsNtDdiVersionAvailable: PASSIVE,
    RtlIsServicePackVersionInstalled: PASSIVE,
    PsGetVersion: PASSIVE,
}

/// Variables.
pub const VARIABLES: &[Export] =
    &[Export::variable("ntoskrnl.exe", "NtBuildNumber", (&raw const NtBuildNumber).cast::<()>())];

/// Windows 10 22H2; the upper bits say "free build".
static NtBuildNumber: u32 = 0xf000_0000 | BUILD;
const MAJOR: u32 = 10;
const MINOR: u32 = 0;
pub(crate) const BUILD: u32 = 19045;
/// NTDDI_WIN10_CO has 0x0A00000B; 22H2 still reports that of 2004 (0x0A000008).
const NTDDI: u32 = 0x0a00_0008;

/// Touches every page of the next `rax` bytes of stack, so that an overflow faults in the guard. Changes nothing.
#[unsafe(naked)]
unsafe extern "win64" fn __chkstk() {
    core::arch::naked_asm!(
        "push rcx",
        "push rax",
        "lea rcx, [rsp + 24]",
        "2:",
        "cmp rax, 0x1000",
        "jb 3f",
        "sub rcx, 0x1000",
        "test byte ptr [rcx], 0",
        "sub rax, 0x1000",
        "jmp 2b",
        "3:",
        "sub rcx, rax",
        "test byte ptr [rcx], 0",
        "pop rax",
        "pop rcx",
        "ret",
    )
}

/// `RTL_OSVERSIONINFOW` and, when the driver says it is longer, `RTL_OSVERSIONINFOEXW`.
unsafe extern "win64" fn RtlGetVersion(info: *mut u32) -> NtStatus {
    /// Offset of wServicePackMajor; after it the minor, the suite mask, and wProductType.
    const EX: usize = 276;
    const VER_NT_WORKSTATION: u8 = 1;
    // SAFETY: the page demands an RTL_OSVERSIONINFOW with its size in the first member; the members of
    // RTL_OSVERSIONINFOEXW are written only if that size has them.
    unsafe {
        let length = info.read() as usize;
        for (index, value) in [MAJOR, MINOR, BUILD, 2 /* VER_PLATFORM_WIN32_NT */].into_iter().enumerate() {
            info.add(1 + index).write(value);
        }
        info.add(5).cast::<u16>().write(0);
        if length >= EX + 8 {
            let tail = info.cast::<u8>().add(EX);
            tail.write_bytes(0, 8);
            tail.add(6).write(VER_NT_WORKSTATION);
        }
    }
    NtStatus::SUCCESS
}

extern "win64" fn RtlIsNtDdiVersionAvailable(version: u32) -> u8 {
    u8::from(version <= NTDDI)
}

extern "win64" fn RtlIsServicePackVersionInstalled(version: u32) -> u8 {
    u8::from(version <= NTDDI)
}

unsafe extern "win64" fn PsGetVersion(
    major: *mut u32,
    minor: *mut u32,
    build: *mut u32,
    service_pack: *mut c_void,
) -> u8 {
    for (to, value) in [(major, MAJOR), (minor, MINOR), (build, BUILD)] {
        if !to.is_null() {
            // SAFETY: null is checked; the page demands a ULONG to write.
            unsafe { to.write(value) };
        }
    }
    if !service_pack.is_null() {
        // SAFETY: null is checked; the page demands a UNICODE_STRING to write, whose length becomes 0: there is no
        // service pack.
        unsafe { service_pack.cast::<u16>().write(0) };
    }
    // Not a checked build.
    0
}
