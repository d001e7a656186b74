//! Pool memory: what `ExAllocatePool*` hands out, who still has it, and what was done to it.
//!
//! Every block is between guards. In the ordinary pool these are bytes that are checked when the block is freed;
//! in the special pool (as Driver Verifier's) the block ends at an inaccessible page, so that an overrun faults at the
//! instruction that does it, and freed memory stays inaccessible. Freed blocks wait in a quarantine either way: a
//! second free and a use after free are found and named.
//!
//! "If NumberOfBytes is PAGE_SIZE or greater, a page-aligned buffer is allocated", and smaller blocks never cross a
//! page boundary (ExAllocatePoolWithTag, WDK): drivers, KMDF among them, build one-page MDLs on it.

mod block;
mod paged;
mod quarantine;

pub use block::{Kind, Tag};

use crate::cpu::{self, Frame, code};
use block::{Damage, Memory};
use crossbeam_utils::CachePadded;
use nt_abi::Irql;
use paged::Arena;
use parking_lot::Mutex;
use quarantine::Quarantine;
use serde::Serialize;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Every block is aligned to this (MEMORY_ALLOCATION_ALIGNMENT on x64); blocks of a page or more begin on a page.
pub const ALIGNMENT: usize = 16;

const SHARDS: usize = 16;

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
}

/// What the pool keeps of a block.
#[derive(Debug)]
struct Entry {
    memory: Memory,
    tag: Tag,
    kind: Kind,
    caller: u64,
}

/// The pool of one machine.
#[derive(Debug)]
pub struct Pool {
    shards: [CachePadded<Mutex<HashMap<u64, Entry>>>; SHARDS],
    quarantine: Mutex<Quarantine>,
    special: bool,
    /// Where the paged blocks of a special pool are.
    paged: Option<Arc<Arena>>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Pool {
    /// An empty pool; `special` puts every block before a guard page, and takes paged blocks away at DISPATCH_LEVEL.
    #[must_use]
    pub fn new(special: bool) -> Self {
        let paged = if special { Arena::new().map(Arc::new) } else { None };
        Self { shards: Default::default(), quarantine: Mutex::default(), special, paged }
    }

    /// Whether every block is before a guard page.
    #[must_use]
    pub fn is_special(&self) -> bool {
        self.special
    }

    /// A processor has reached DISPATCH_LEVEL, where paged pool may not be touched.
    #[inline]
    pub(crate) fn reached_dispatch(&self) {
        if let Some(paged) = &self.paged {
            paged.trim();
        }
    }

    /// A thread below DISPATCH_LEVEL touched `address`, which is inaccessible: whether it may try again.
    /// Async-signal-safe.
    pub(crate) fn bring_back(&self, address: u64) -> bool {
        self.paged.as_ref().is_some_and(|paged| paged.bring_back(address as usize))
    }

    /// The pool of the block that begins at `address`; None when none does.
    #[must_use]
    pub fn kind_at(&self, address: u64) -> Option<Kind> {
        self.shard(address).lock().get(&address).map(|entry| entry.kind)
    }

    /// The size of the block that begins at `address`; None when none does.
    #[must_use]
    pub fn size_at(&self, address: u64) -> Option<usize> {
        self.shard(address).lock().get(&address).map(|entry| entry.memory.size())
    }

    fn shard(&self, address: u64) -> &Mutex<HashMap<u64, Entry>> {
        &self.shards[(address >> 4) as usize % SHARDS]
    }

    /// Allocates `size` zeroed bytes for the driver code that last called through an import gate. Null when there is
    /// no memory.
    pub fn allocate(&self, tag: u32, size: usize, kind: Kind) -> *mut u8 {
        self.allocate_for(cpu::caller(), tag, size, kind)
    }

    /// Allocates `size` zeroed bytes in the name of the code at `caller`, 0 for ntsim itself.
    pub fn allocate_for(&self, caller: u64, tag: u32, size: usize, kind: Kind) -> *mut u8 {
        let Some(memory) = Memory::allocate(size, kind, self.special, self.paged.as_ref()) else {
            return core::ptr::null_mut();
        };
        let address = memory.address();
        let entry = Entry { memory, tag: Tag(tag), kind, caller };
        self.shard(address as u64).lock().insert(address as u64, entry);
        address
    }

    /// Frees a block; `tag` 0 matches any.
    ///
    /// Stops the machine for an address that is no block of this pool, a wrong tag, a block whose guards were
    /// overwritten, and for paged pool at DISPATCH_LEVEL. Called inside [`cpu::enter`], with no lock held.
    pub fn free(&self, address: *mut u8, tag: u32) {
        if let Some(timer) = self.forget_objects_in(address as u64) {
            cpu::bugcheck(
                code::TIMER_OR_DPC_INVALID,
                [0, timer, address as u64, 0],
                format!("the pool block at {address:p} was freed, and the timer in it at {timer:#x} is set"),
            );
        }
        match self.try_free(address as u64, Tag(tag)) {
            Ok(None) => {}
            Ok(Some(spoiled)) => cpu::bugcheck(
                code::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [0x98, spoiled.0, 0, 0],
                format!("a freed pool block was written to: {}", spoiled.1),
            ),
            Err(Misuse { kind, parameters, why }) => cpu::bugcheck(kind, parameters, why),
        }
    }

    /// A block that is about to be freed may hold objects that others know by their address: a timer that is set is
    /// returned; locks are forgotten.
    fn forget_objects_in(&self, address: u64) -> Option<u64> {
        let size = self.shard(address).lock().get(&address)?.memory.size() as u64;
        if !cpu::inside() {
            return None; // a machine that is taken down
        }
        let block = address..address + size;
        cpu::with_machine(|machine| {
            machine.lock_order.forget(&block);
            machine.timers.set_within(block).first().copied()
        })
    }

    fn try_free(&self, address: u64, tag: Tag) -> Result<Option<(u64, String)>, Misuse> {
        let mut shard = self.shard(address).lock();
        let Some(entry) = shard.get(&address) else {
            drop(shard);
            return Err(self.not_allocated(address));
        };
        if tag.0 != 0 && entry.tag.without_protection() != tag.without_protection() {
            let why = format!("{} was freed with tag {tag:?}", entry.describe());
            return Err(Misuse {
                kind: code::BAD_POOL_CALLER,
                parameters: [0xA, address, u64::from(entry.tag.0), u64::from(tag.0)],
                why,
            });
        }
        let irql = cpu::irql();
        if entry.kind == Kind::Paged && irql > Irql::APC {
            let why = format!("{} was freed at {irql}", entry.describe());
            return Err(Misuse { kind: code::BAD_POOL_CALLER, parameters: [0x9, u64::from(irql.0), 1, address], why });
        }
        if let Err(damage) = entry.memory.check() {
            let (where_, subcode) = match damage {
                Damage::Before => ("before its beginning", 0x21),
                Damage::After => ("past its end", 0x22),
            };
            let why = format!("{} was written to {where_}, as was found when it was freed", entry.describe());
            return Err(Misuse { kind: code::BAD_POOL_HEADER, parameters: [subcode, address, 0, 0], why });
        }
        let Some(entry) = shard.remove(&address) else { return Ok(None) };
        drop(shard);
        let freed_by = cpu::caller();
        let spoiled = self.quarantine.lock().put(entry, freed_by);
        Ok(spoiled)
    }

    /// Frees a block of ntsim's own without checks.
    pub(crate) fn discard(&self, address: *mut u8) {
        self.shard(address as u64).lock().remove(&(address as u64));
    }

    /// Why an address that is no allocated block cannot be freed.
    fn not_allocated(&self, address: u64) -> Misuse {
        let freed = self.quarantine.lock().find(address);
        let inside = self.find(address).map(|(at, what)| (address - at, what));
        let why = match (freed, inside) {
            (Some(what), _) => format!("{address:#x} was freed twice: {what}"),
            (None, Some((offset, what))) => format!("{address:#x} was freed, which is {offset} bytes into {what}"),
            (None, None) => format!("{address:#x} was freed, which is not a pool block"),
        };
        Misuse { kind: code::BAD_POOL_CALLER, parameters: [0x7, 0, 0, address], why }
    }

    /// The allocated block an address is in or just behind.
    fn find(&self, address: u64) -> Option<(u64, String)> {
        for shard in &self.shards {
            let shard = shard.lock();
            let found = shard.iter().find(|(_, e)| e.memory.extent().contains(&address));
            if let Some((&at, entry)) = found {
                return Some((at, entry.describe()));
            }
        }
        None
    }

    /// What a faulting address has to do with the pool, for the sentence of a bugcheck.
    pub(crate) fn explain(&self, address: u64) -> Option<String> {
        if let Some(what) = self.quarantine.lock().find_extent(address) {
            return Some(format!("inside {what}"));
        }
        let (at, what) = self.find(address)?;
        Some(if address < at {
            format!("{} bytes before {what}", at - address)
        } else {
            format!("{} bytes from the beginning of {what}", address - at)
        })
    }

    /// The blocks not freed that code within `range` (a driver's image) allocated.
    #[must_use]
    pub fn leaks_of(&self, range: &Range<u64>) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let theirs = shard.iter().filter(|(_, e)| range.contains(&e.caller));
            blocks.extend(theirs.map(|(&address, e)| Block {
                address,
                size: e.memory.size(),
                tag: e.tag,
                kind: e.kind,
                allocated_by: cpu::frame_of(e.caller),
            }));
        }
        blocks.sort_by_key(|b| b.address);
        blocks
    }

    /// Looks whether a freed block that is still kept was written to: its address and description.
    #[must_use]
    pub fn inspect_freed(&self) -> Option<(u64, String)> {
        self.quarantine.lock().inspect()
    }

    /// How many blocks and bytes are allocated.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let count = |shard: &CachePadded<Mutex<HashMap<u64, Entry>>>| {
            let shard = shard.lock();
            (shard.len(), shard.values().map(|e| e.memory.size()).sum::<usize>())
        };
        self.shards.iter().map(count).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }
}

/// A violation found with a lock held, to be raised without it.
struct Misuse {
    kind: u32,
    parameters: [u64; 4],
    why: String,
}

impl Entry {
    fn describe(&self) -> String {
        let by = cpu::frame_of(self.caller);
        let paged = if self.kind == Kind::Paged { "paged " } else { "" };
        format!("the {}-byte {paged}block with tag {:?} allocated by {by}", self.memory.size(), self.tag)
    }
}

#[cfg(test)]
mod tests;
