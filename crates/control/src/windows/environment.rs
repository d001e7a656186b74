//! The machine's own environment.

use super::last_error;
use super::library::system_library;
use sluice_host::HostResult;
use std::ffi::c_void;
use std::ptr::null_mut;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::core::BOOL;

system_library! { "userenv.dll";
    fn CreateEnvironmentBlock(block: *mut *mut c_void, token: HANDLE, inherit: BOOL) -> BOOL, or |_| 0;
    fn DestroyEnvironmentBlock(block: *const c_void) -> BOOL, or |_| 0;
}

/// A block of variables: `NAME=VALUE`, each ended by a NUL, and an empty one at the end.
struct Block(*mut c_void);

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: from CreateEnvironmentBlock, and destroyed only here.
        unsafe { DestroyEnvironmentBlock(self.0) };
    }
}

/// The value of a system variable, not a user's. Names are compared without case.
pub(super) fn variable(name: &str) -> HostResult<Option<String>> {
    let mut block = null_mut();
    // SAFETY: `block` outlives the call; without a token the block has the system's variables only.
    if unsafe { CreateEnvironmentBlock(&raw mut block, null_mut(), 0) } == 0 {
        return Err(last_error("CreateEnvironmentBlock"));
    }
    let block = Block(block);
    let mut at = block.0.cast::<u16>().cast_const();
    loop {
        // SAFETY: `at` is at the start of a string of the block, which is there until the end of this function; each
        // ends with a NUL, after which the next begins, until the empty one.
        let units = unsafe {
            let length = (0..).take_while(|&offset| *at.add(offset) != 0).count();
            let units = std::slice::from_raw_parts(at, length);
            at = at.add(length + 1);
            units
        };
        if units.is_empty() {
            return Ok(None);
        }
        // The names of drives' current folders begin with `=`, which ends other names.
        let text = String::from_utf16_lossy(units);
        if let Some((found, value)) = text.split_once('=')
            && found.eq_ignore_ascii_case(name)
        {
            return Ok(Some(value.to_owned()));
        }
    }
}
