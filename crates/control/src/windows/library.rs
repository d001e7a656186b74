//! Functions of Windows' own libraries, from System32 and nowhere else.
//!
//! A library in a program's import table is searched for beside the program first, unless it is a KnownDLL. sluice.exe
//! runs with an administrator's rights from whatever folder it was copied to, so only KnownDLLs may be in its import
//! table: other libraries are loaded with LOAD_LIBRARY_SEARCH_SYSTEM32 at the first call. That is also sound before
//! Windows 10, which ignores an image's DependentLoadFlags.

use std::ffi::CStr;
use windows_sys::Win32::Foundation::{FARPROC, GetLastError};
use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LOAD_LIBRARY_SEARCH_SYSTEM32, LoadLibraryExW};

/// The address of a function in System32's `library`, or the error of the call that failed.
pub(super) fn find(library: &str, function: &CStr) -> Result<unsafe extern "system" fn() -> isize, u32> {
    let name: Vec<u16> = library.encode_utf16().chain([0]).collect();
    // SAFETY: `name` is NUL-terminated and outlives the call; the reserved handle is null.
    let module = unsafe { LoadLibraryExW(name.as_ptr(), std::ptr::null_mut(), LOAD_LIBRARY_SEARCH_SYSTEM32) };
    let address: FARPROC = if module.is_null() {
        None
    } else {
        // SAFETY: the module is loaded, and nobody unloads it; the name is NUL-terminated.
        unsafe { GetProcAddress(module, function.as_ptr().cast()) }
    };
    // SAFETY: the thread's own value, set by the call that returned no address.
    address.ok_or_else(|| unsafe { GetLastError() })
}

/// Declares functions of one library as windows-sys does, with what each returns when it cannot be found.
macro_rules! system_library {
    ($library:literal; $(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty, or $missing:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of ", $library, ".\n\n# Safety\nWhat its documentation asks.")]
            #[allow(non_snake_case, reason = "the names are those of the Windows headers")]
            pub(super) unsafe fn $name($($argument: $kind),*) -> $result {
                type Function = unsafe extern "system" fn($($kind),*) -> $result;
                static FOUND: std::sync::OnceLock<Result<Function, u32>> = std::sync::OnceLock::new();
                let found = FOUND.get_or_init(|| {
                    let name = const {
                        match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                            Ok(name) => name,
                            Err(_) => panic!("a name without NUL"),
                        }
                    };
                    let address = $crate::windows::library::find($library, name)?;
                    // SAFETY: the export of this name has this signature by its documentation.
                    Ok(unsafe { std::mem::transmute::<unsafe extern "system" fn() -> isize, Function>(address) })
                });
                match found {
                    // SAFETY: the caller keeps the function's contract.
                    Ok(function) => unsafe { function($($argument),*) },
                    Err(code) => $missing(*code),
                }
            }
        )*
    };
}
pub(super) use system_library;
