//! Pool memory: what `ExAllocatePool*` hands out, and who still has it.

use crate::cpu::{self, Frame, code};
use crate::irql::Irql;
use core::fmt;
use parking_lot::Mutex;
use serde::Serialize;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;

/// Every pool block is aligned to this (MEMORY_ALLOCATION_ALIGNMENT on x64).
pub const ALIGNMENT: usize = 16;
const PAGE: usize = 4096;

/// A pool tag: four characters, read as a little-endian number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Tag(pub u32);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.to_le_bytes() {
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

/// A block that has been allocated and not freed.
#[derive(Clone, Debug, Serialize)]
pub struct Block {
    /// Its address.
    pub address: u64,
    /// The size that was asked for, in bytes.
    pub size: usize,
    /// Its tag.
    pub tag: Tag,
    /// Its pool.
    pub kind: Kind,
    /// Who asked for it: the return address of the import.
    pub allocated_by: Frame,
    #[serde(skip)]
    owner: u64,
    #[serde(skip)]
    layout: Option<Layout>,
}

/// The pool of one machine.
#[derive(Debug, Default)]
pub struct Pool {
    blocks: Mutex<HashMap<u64, Block>>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates `size` zeroed bytes, or null when there is no memory.
    ///
    /// Blocks of a page or more begin on a page, smaller ones do not cross a page boundary's alignment rules of
    /// Windows: 16 bytes. For ntsim's own allocations on behalf of a driver, and under the `Ex` exports.
    pub fn allocate(&self, tag: u32, size: usize, kind: Kind) -> *mut u8 {
        let align = if size >= PAGE { PAGE } else { ALIGNMENT };
        let Ok(layout) = Layout::from_size_align(size.max(1), align) else { return core::ptr::null_mut() };
        // SAFETY: the layout has a non-zero size.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            return address;
        }
        let caller = cpu::caller();
        let block = Block {
            address: address as u64,
            size,
            tag: Tag(tag),
            kind,
            allocated_by: cpu::frame_of(caller),
            owner: cpu::module_base(caller),
            layout: Some(layout),
        };
        self.blocks.lock().insert(address as u64, block);
        address
    }

    /// Frees a block; `tag` 0 matches any.
    ///
    /// Stops the machine for an address that is no block of this pool, and for a wrong tag.
    pub fn free(&self, address: *mut u8, tag: u32) {
        let found = self.blocks.lock().get(&(address as u64)).map(|b| (b.tag, b.layout, b.kind));
        let Some((found, layout, kind)) = found else {
            cpu::bugcheck(
                code::BAD_POOL_CALLER,
                [0x7, 0, 0, address as u64],
                format!("{address:p} was freed but is no allocated pool block: freed twice, or never allocated"),
            );
        };
        if tag != 0 && found != Tag(tag) {
            cpu::bugcheck(
                code::BAD_POOL_CALLER,
                [0xA, address as u64, u64::from(found.0), u64::from(tag)],
                format!("{address:p} was allocated with tag {found:?} and freed with {:?}", Tag(tag)),
            );
        }
        if kind == Kind::Paged && cpu::irql() > Irql::APC {
            cpu::bugcheck(
                code::BAD_POOL_CALLER,
                [0x9, u64::from(cpu::irql().0), 1, address as u64],
                format!("paged pool {address:p} was freed at {}", cpu::irql()),
            );
        }
        self.blocks.lock().remove(&(address as u64));
        if let Some(layout) = layout {
            // SAFETY: allocated by `allocate` with this layout; removed from the table, so freed once.
            unsafe { dealloc(address, layout) };
        }
    }

    /// The blocks not freed that code of the module loaded at `base` allocated.
    #[must_use]
    pub fn leaks_of(&self, base: u64) -> Vec<Block> {
        let mut blocks: Vec<Block> = self.blocks.lock().values().filter(|b| b.owner == base).cloned().collect();
        blocks.sort_by_key(|b| b.address);
        blocks
    }
}
