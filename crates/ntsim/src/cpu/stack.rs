//! Kernel stacks.

use std::io;
use std::ptr;

/// The size of a kernel stack, without its guard page.
///
/// Windows gives a thread 24 KiB on x64. Here the frames of ntsim's own exports are on the same stack, in debug builds
/// too, so that limit is not modelled; a driver with endless recursion still hits the guard.
pub(super) const SIZE: usize = 512 * 1024;
const GUARD: usize = 64 * 1024;

/// One mapped kernel stack with an inaccessible guard below it.
#[derive(Debug)]
pub(super) struct KernelStack {
    base: *mut u8,
}

impl KernelStack {
    /// Maps a stack.
    ///
    /// # Errors
    /// The error of mmap or mprotect.
    pub(super) fn map() -> io::Result<Self> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                GUARD + SIZE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base: base.cast() };
        // SAFETY: the range is inside the mapping made above, to which nothing else points.
        let done = unsafe { libc::mprotect(stack.base.add(GUARD).cast(), SIZE, libc::PROT_READ | libc::PROT_WRITE) };
        if done == 0 { Ok(stack) } else { Err(io::Error::last_os_error()) }
    }

    /// The first address after the stack; 16-byte aligned.
    pub(super) fn top(&self) -> *mut u8 {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.add(GUARD + SIZE) }
    }

    /// The addresses a driver may use.
    pub(super) fn range(&self) -> core::ops::Range<u64> {
        let end = self.top() as u64;
        end - SIZE as u64..end
    }

    /// The addresses below, which fault.
    pub(super) fn guard(&self) -> core::ops::Range<u64> {
        let start = self.base as u64;
        start..start + GUARD as u64
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` and is unmapped once; an abandoned stack is leaked, not dropped.
        unsafe { libc::munmap(self.base.cast(), GUARD + SIZE) };
    }
}
