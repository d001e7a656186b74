//! Identifiers and random numbers that need no seed.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::export::exports;
use nt_abi::NtStatus;

exports! {
    "ntoskrnl.exe";
    ExUuidCreate: PASSIVE,
}

/// A random UUID (version 4, RFC 9562), in the byte order of a `GUID` in memory.
pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // SAFETY: writes at most as many bytes as are left.
        let got = unsafe { libc::getrandom(bytes[filled..].as_mut_ptr().cast(), bytes.len() - filled, 0) };
        filled += usize::try_from(got).unwrap_or(0);
    }
    // Data3 is a little-endian number whose top four bits are the version.
    bytes[7] = bytes[7] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

unsafe extern "win64" fn ExUuidCreate(uuid: *mut [u8; 16]) -> NtStatus {
    // SAFETY: the page demands a UUID to write.
    unsafe { uuid.write(random()) };
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_version_4_and_differ() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        // SAFETY: the outputs are ours.
        unsafe {
            assert_eq!(ExUuidCreate(&mut a), NtStatus::SUCCESS);
            ExUuidCreate(&mut b);
        }
        assert_ne!(a, b);
        assert_eq!((a[7] >> 4, a[8] >> 6), (4, 2));
    }
}
