//! Fallible allocation: the kernel's pool can run out, and a driver that then stops the machine is worse than none.

use alloc::{boxed::Box, vec::Vec};
use core::{alloc::Layout, mem::MaybeUninit};

use crate::status::{NtResult, NtStatus};

/// The pool's alignment on 64-bit Windows (MEMORY_ALLOCATION_ALIGNMENT).
const POOL_ALIGNMENT: usize = 16;

/// How much memory the machine has, in Windows' classes (MM_SYSTEMSIZE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemSize {
    /// MmSmallSystem.
    Small,
    /// MmMediumSystem.
    Medium,
    /// MmLargeSystem.
    Large,
}

/// How much memory the machine has. IRQL <= APC_LEVEL.
#[must_use]
pub fn system_size() -> SystemSize {
    // SAFETY: MmQuerySystemSize takes nothing and may be called below DISPATCH_LEVEL (wdm.h).
    match unsafe { wdk_sys::ntddk::MmQuerySystemSize() } {
        wdk_sys::_MM_SYSTEM_SIZE::MmSmallSystem => SystemSize::Small,
        wdk_sys::_MM_SYSTEM_SIZE::MmMediumSystem => SystemSize::Medium,
        _ => SystemSize::Large,
    }
}

/// `Box::new` that reports exhaustion. IRQL <= DISPATCH_LEVEL.
///
/// # Errors
/// STATUS_INSUFFICIENT_RESOURCES.
pub fn try_box<T>(value: T) -> NtResult<Box<T>> {
    try_box_with(|| value)
}

/// [`try_box`] for what is large: it is made where it stays, not on the stack. IRQL <= DISPATCH_LEVEL.
///
/// # Errors
/// STATUS_INSUFFICIENT_RESOURCES.
#[inline]
pub fn try_box_with<T>(make: impl FnOnce() -> T) -> NtResult<Box<T>> {
    let mut place = try_box_uninit::<T>()?;
    place.write(make());
    // SAFETY: written above.
    Ok(unsafe { place.assume_init() })
}

fn try_box_uninit<T>() -> NtResult<Box<MaybeUninit<T>>> {
    const {
        assert!(align_of::<T>() <= POOL_ALIGNMENT, "the pool aligns to 16 bytes");
        assert!(size_of::<T>() > 0, "nothing to allocate");
    }
    // SAFETY: the layout's size is not zero, as asserted above.
    let memory = unsafe { alloc::alloc::alloc(Layout::new::<T>()) }.cast::<MaybeUninit<T>>();
    if memory.is_null() {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    // SAFETY: `memory` is fresh from the global allocator with T's layout (its alignment is one the pool guarantees).
    Ok(unsafe { Box::from_raw(memory) })
}

/// An empty vector with room for that many bytes. IRQL <= DISPATCH_LEVEL.
///
/// # Errors
/// STATUS_INSUFFICIENT_RESOURCES.
pub fn try_reserve(length: usize) -> NtResult<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(length).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
    Ok(room)
}

/// So many zeros. IRQL <= DISPATCH_LEVEL.
///
/// # Errors
/// STATUS_INSUFFICIENT_RESOURCES.
pub fn try_zeroed(length: usize) -> NtResult<Vec<u8>> {
    let mut zeros = try_reserve(length)?;
    zeros.resize(length, 0);
    Ok(zeros)
}

/// Appends bytes. Within the room that was reserved it allocates nothing. IRQL <= DISPATCH_LEVEL.
///
/// # Errors
/// STATUS_INSUFFICIENT_RESOURCES.
pub fn try_append(to: &mut Vec<u8>, bytes: &[u8]) -> NtResult<()> {
    to.try_reserve_exact(bytes.len()).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
    to.extend_from_slice(bytes);
    Ok(())
}

/// A copy of `bytes` in pool. IRQL <= DISPATCH_LEVEL.
///
/// # Errors
/// STATUS_INSUFFICIENT_RESOURCES.
pub fn try_copy(bytes: &[u8]) -> NtResult<Vec<u8>> {
    let mut copy = try_reserve(bytes.len())?;
    try_append(&mut copy, bytes)?;
    Ok(copy)
}
