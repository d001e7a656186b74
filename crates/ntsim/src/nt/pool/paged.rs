//! Paged pool that is away when it may not be touched.
//!
//! Below DISPATCH_LEVEL a touch of paged memory that was paged out brings it back; at or above it is bugcheck 0xD1. On
//! a machine with memory to spare it never is paged out, so Driver Verifier's forced IRQL checking trims it whenever a
//! driver raises the level. So does this, in the special pool: the blocks are in one range of addresses whose pages are
//! made inaccessible when a processor reaches DISPATCH_LEVEL, and accessible again by the fault of a thread below.
//!
//! As there, a page that another processor brings back meanwhile can be touched unnoticed.

use core::ptr;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use parking_lot::Mutex;
use std::collections::BTreeMap;

const PAGE: usize = 4096;
/// Address space for one machine's paged blocks; freed ranges are used again for blocks of as many pages.
const SIZE: usize = 4 << 30;

/// What a page is.
mod page {
    /// No block's: a guard, free, or freed.
    pub(super) const NONE: u8 = 0;
    /// A block's, accessible.
    pub(super) const RESIDENT: u8 = 1;
    /// A block's, trimmed.
    pub(super) const TRIMMED: u8 = 2;
}

/// The address space of one machine's paged special pool.
#[derive(Debug)]
pub(super) struct Arena {
    base: usize,
    pages: Box<[AtomicU8]>,
    /// Pages below this one were handed out.
    used: AtomicUsize,
    resident: AtomicUsize,
    free: Mutex<BTreeMap<usize, Vec<usize>>>,
}

impl Arena {
    /// Reserves the address space; None when the host refuses.
    pub(super) fn new() -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping, nobody's memory before.
        let base = unsafe { libc::mmap(ptr::null_mut(), SIZE, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let pages = (0..SIZE / PAGE).map(|_| AtomicU8::new(page::NONE)).collect();
        let (used, resident) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Some(Self { base: base as usize, pages, used, resident, free: Mutex::default() })
    }

    /// `count` accessible, zeroed pages followed by an inaccessible one; None when there is no room.
    pub(super) fn allocate(&self, count: usize) -> Option<*mut u8> {
        let taken = self.free.lock().get_mut(&count).and_then(Vec::pop);
        let first = match taken {
            Some(first) => first,
            None => {
                let grow = |used: usize| used.checked_add(count + 1).filter(|&end| end <= self.pages.len());
                self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow).ok()?
            }
        };
        if !self.protect(first, count, libc::PROT_READ | libc::PROT_WRITE) {
            self.free.lock().entry(count).or_default().push(first);
            return None;
        }
        for state in &self.pages[first..first + count] {
            state.store(page::RESIDENT, Ordering::Release);
        }
        self.resident.fetch_add(count, Ordering::AcqRel);
        Some((self.base + first * PAGE) as *mut u8)
    }

    /// The block of `count` pages at `base` is freed and becomes inaccessible.
    pub(super) fn spoil(&self, base: *mut u8, count: usize) {
        let first = (base as usize - self.base) / PAGE;
        for state in &self.pages[first..first + count] {
            if state.swap(page::NONE, Ordering::AcqRel) == page::RESIDENT {
                self.resident.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.protect(first, count, libc::PROT_NONE);
    }

    /// Its addresses may be used again.
    pub(super) fn release(&self, base: *mut u8, count: usize) {
        self.spoil(base, count);
        // SAFETY: pages of this arena that no block has; what was in them is to be forgotten.
        unsafe { libc::madvise(base.cast(), count * PAGE, libc::MADV_DONTNEED) };
        self.free.lock().entry(count).or_default().push((base as usize - self.base) / PAGE);
    }

    /// A processor has reached DISPATCH_LEVEL.
    pub(super) fn trim(&self) {
        if self.resident.load(Ordering::Acquire) == 0 {
            return;
        }
        for (number, state) in self.pages[..self.used.load(Ordering::Acquire)].iter().enumerate() {
            let change = state.compare_exchange(page::RESIDENT, page::TRIMMED, Ordering::AcqRel, Ordering::Relaxed);
            if change.is_ok() {
                self.resident.fetch_sub(1, Ordering::AcqRel);
                self.protect(number, 1, libc::PROT_NONE);
            }
        }
    }

    /// A thread below DISPATCH_LEVEL touched `address`: brings the page back, if it is a block's. Async-signal-safe.
    pub(super) fn bring_back(&self, address: usize) -> bool {
        let Some(number) = address.checked_sub(self.base).map(|offset| offset / PAGE) else { return false };
        let Some(state) = self.pages.get(number) else { return false };
        if state.load(Ordering::Acquire) == page::NONE {
            return false;
        }
        // A processor that trims meanwhile makes the access fault once more.
        self.protect(number, 1, libc::PROT_READ | libc::PROT_WRITE);
        let change = state.compare_exchange(page::TRIMMED, page::RESIDENT, Ordering::AcqRel, Ordering::Relaxed);
        if change.is_ok() {
            self.resident.fetch_add(1, Ordering::AcqRel);
        }
        true
    }

    fn protect(&self, first: usize, count: usize, protection: libc::c_int) -> bool {
        // SAFETY: pages of this arena's own mapping.
        unsafe { libc::mprotect((self.base + first * PAGE) as *mut libc::c_void, count * PAGE, protection) == 0 }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` and unmapped once; the blocks hold the arena, so none is left.
        unsafe { libc::munmap(self.base as *mut libc::c_void, SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_until_they_are_freed() {
        let arena = Arena::new().unwrap();
        let block = arena.allocate(2).unwrap();
        let address = block as usize;

        // SAFETY: two pages of the arena, accessible.
        unsafe { block.add(5000).write(7) };
        arena.trim();
        assert_eq!(arena.resident.load(Ordering::Acquire), 0);
        assert!(arena.bring_back(address + 5000));
        assert_eq!(arena.resident.load(Ordering::Acquire), 1);
        // SAFETY: brought back.
        assert_eq!(unsafe { block.add(5000).read() }, 7);
        assert!(!arena.bring_back(address + 2 * PAGE), "the guard is no block's");
        assert!(!arena.bring_back(address - 1) && !arena.bring_back(address + SIZE));
        arena.spoil(block, 2);
        assert!(!arena.bring_back(address));
        arena.release(block, 2);
        let again = arena.allocate(2).unwrap();
        assert_eq!(again, block);
        // SAFETY: accessible again.
        assert_eq!(unsafe { again.add(5000).read() }, 0, "nothing is left of the block before");
    }
}
