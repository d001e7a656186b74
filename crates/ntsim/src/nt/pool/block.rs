//! The memory of one block and its guards.

use super::paged::Arena;
use core::fmt;
use core::ops::Range;
use core::ptr;
use serde::Serialize;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;

const PAGE: usize = 4096;
/// Guard bytes after a block, and before one that is smaller than a page.
const GUARD: usize = super::ALIGNMENT;
const GUARD_BYTE: u8 = 0xfd;
/// What freed memory is filled with.
pub(super) const FREED_BYTE: u8 = 0xdd;

/// A pool tag: four characters, read as a little-endian number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Tag(pub u32);

impl Tag {
    /// PROTECTED_POOL, the bit that some drivers set on one side only, does not count.
    pub(super) fn without_protection(self) -> u32 {
        self.0 & 0x7fff_ffff
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.without_protection().to_le_bytes() {
            let shown = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
            write!(f, "{shown}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{self}'")
    }
}

/// Which pool a block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Kind {
    /// Always resident, not executable.
    NonPaged,
    /// Always resident and executable.
    NonPagedExecute,
    /// May only be touched below DISPATCH_LEVEL.
    Paged,
}

/// Where a guard was overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Before,
    After,
}

/// The memory of one block, freed when dropped.
#[derive(Debug)]
pub(super) struct Memory {
    /// Where the allocation begins, guards included.
    base: *mut u8,
    /// Where the block begins.
    offset: usize,
    size: usize,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Heap(Layout),
    /// A mapping of this many bytes, the last page of which is inaccessible.
    Pages(usize),
    /// The same in the range that is away at DISPATCH_LEVEL.
    Paged(usize, Arc<Arena>),
}

/// Whether a block is in more than one page.
fn crosses_page(address: usize, size: usize) -> bool {
    address % PAGE + size > PAGE
}

// SAFETY: the memory belongs to this value alone as far as Rust is concerned; the driver's use of it is by address.
unsafe impl Send for Memory {}

impl Memory {
    /// Zeroed memory for a block; None when there is no memory. `paged` is where special paged blocks are.
    pub(super) fn allocate(size: usize, kind: Kind, special: bool, paged: Option<&Arc<Arena>>) -> Option<Self> {
        if let Some(arena) = paged.filter(|_| kind == Kind::Paged) {
            return Self::take_paged(size, arena);
        }
        if special || kind == Kind::NonPagedExecute { Self::map(size, kind) } else { Self::take(size) }
    }

    fn take(size: usize) -> Option<Self> {
        // A block that fits into a page with the guard before it shares the page; others begin on a page of their own.
        let offset = if size > PAGE - GUARD { PAGE } else { GUARD };
        let total = offset.checked_add(size)?.checked_add(GUARD)?;
        let mut layout = Layout::from_size_align(total, offset).ok()?;
        // SAFETY: the layout has a non-zero size.
        let mut base = unsafe { alloc_zeroed(layout) };
        if size < PAGE && !base.is_null() && crosses_page(base as usize + offset, size) {
            // SAFETY: allocated just now with this layout, and nobody has its address.
            unsafe { dealloc(base, layout) };
            // Aligned to the power of two that holds guard and block, which divides a page.
            layout = layout.align_to((offset + size).next_power_of_two()).ok()?;
            // SAFETY: as above.
            base = unsafe { alloc_zeroed(layout) };
        }
        if base.is_null() {
            return None;
        }
        let memory = Self { base, offset, size, backing: Backing::Heap(layout) };
        // SAFETY: the guards are inside the allocation, on either side of the block.
        unsafe {
            memory.address().sub(GUARD).write_bytes(GUARD_BYTE, GUARD);
            memory.address().add(size).write_bytes(GUARD_BYTE, GUARD);
        }
        Some(memory)
    }

    fn take_paged(size: usize, arena: &Arc<Arena>) -> Option<Self> {
        let pages = size.max(1).checked_next_multiple_of(PAGE)?;
        let base = arena.allocate(pages / PAGE)?;
        Some(Self::before_guard(base, pages, size, Backing::Paged(pages + PAGE, Arc::clone(arena))))
    }

    fn map(size: usize, kind: Kind) -> Option<Self> {
        let pages = size.max(1).checked_next_multiple_of(PAGE)?;
        let total = pages.checked_add(PAGE)?;
        let mut protection = libc::PROT_READ | libc::PROT_WRITE;
        if kind == Kind::NonPagedExecute {
            protection |= libc::PROT_EXEC;
        }
        // SAFETY: a fresh anonymous mapping; its last page is made inaccessible before anybody has it.
        let base: *mut u8 = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(ptr::null_mut(), total, protection, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return None;
            }
            libc::mprotect(base.add(pages), PAGE, libc::PROT_NONE);
            base.cast()
        };
        Some(Self::before_guard(base, pages, size, Backing::Pages(total)))
    }

    /// A block in the accessible bytes at `base`, `pages` of them, with its guard bytes written.
    fn before_guard(base: *mut u8, pages: usize, size: usize, backing: Backing) -> Self {
        // The block ends at the guard page, up to its alignment; blocks of whole pages begin on a page.
        let offset = if size >= PAGE { 0 } else { (pages - size) & !(super::ALIGNMENT - 1) };
        let memory = Self { base, offset, size, backing };
        let (before, after) = memory.slack();
        // SAFETY: both are inside the accessible pages, on either side of the block.
        unsafe {
            base.add(before.start).write_bytes(GUARD_BYTE, before.len());
            base.add(after.start).write_bytes(GUARD_BYTE, after.len());
        }
        memory
    }

    /// The guard bytes before and after, as offsets from `base`.
    fn slack(&self) -> (Range<usize>, Range<usize>) {
        let end = self.offset + self.size;
        match self.backing {
            Backing::Heap(_) => (self.offset - GUARD..self.offset, end..end + GUARD),
            Backing::Pages(total) | Backing::Paged(total, _) => {
                (self.offset - self.offset.min(GUARD)..self.offset, end..total - PAGE)
            }
        }
    }

    /// Where the block begins.
    pub(super) fn address(&self) -> *mut u8 {
        // SAFETY: inside the allocation.
        unsafe { self.base.add(self.offset) }
    }

    /// The size that was asked for.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Everything around the block that is its own, guards included.
    pub(super) fn extent(&self) -> Range<u64> {
        let total = match self.backing {
            Backing::Heap(layout) => layout.size(),
            Backing::Pages(total) | Backing::Paged(total, _) => total,
        };
        self.base as u64..self.base as u64 + total as u64
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        // SAFETY: inside the accessible part of the allocation, as the callers' ranges are; a driver that writes
        // meanwhile tears what is only compared.
        unsafe { core::slice::from_raw_parts(self.base.add(range.start), range.len()) }
    }

    /// Looks at the guards.
    pub(super) fn check(&self) -> Result<(), Damage> {
        let (before, after) = self.slack();
        let intact = |range| self.bytes(range).iter().all(|&b| b == GUARD_BYTE);
        if !intact(before) {
            return Err(Damage::Before);
        }
        if intact(after) { Ok(()) } else { Err(Damage::After) }
    }

    /// Makes the memory useless to code that still has its address.
    pub(super) fn spoil(&self) {
        match &self.backing {
            // SAFETY: the block's own memory.
            Backing::Heap(_) => unsafe { self.address().write_bytes(FREED_BYTE, self.size) },
            // SAFETY: this block's own mapping.
            Backing::Pages(total) => unsafe {
                libc::mprotect(self.base.cast(), *total, libc::PROT_NONE);
            },
            Backing::Paged(total, arena) => arena.spoil(self.base, total / PAGE - 1),
        }
    }

    /// Whether it is unchanged since [`Self::spoil`].
    pub(super) fn is_unspoiled(&self) -> bool {
        match self.backing {
            Backing::Heap(_) => self.bytes(self.offset..self.offset + self.size).iter().all(|&b| b == FREED_BYTE),
            Backing::Pages(_) | Backing::Paged(..) => true,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.backing {
            // SAFETY: allocated with this layout and dropped once.
            Backing::Heap(layout) => unsafe { dealloc(self.base, *layout) },
            // SAFETY: mapped with this length and dropped once.
            Backing::Pages(total) => unsafe {
                libc::munmap(self.base.cast(), *total);
            },
            Backing::Paged(total, arena) => arena.release(self.base, total / PAGE - 1),
        }
    }
}
