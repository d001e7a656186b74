//! Framework handles: opaque values that cannot be guessed, and that still tell what they were once they are stale.
//!
//! A handle is a keyed permutation of (serial number, kind), placed where kernel pointers live so that a driver which
//! dereferences one faults at once. Serial numbers are never used again; a handle that is not in the table can
//! therefore be reported as "never was one" or "was a WDFREQUEST, now deleted".

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;

use parking_lot::RwLock;

use super::abi::Handle;

/// The target of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// `WDFOBJECT` made by `WdfObjectCreate`.
    Object = 1,
    /// `WDFDRIVER`.
    Driver,
    /// `WDFDEVICE`.
    Device,
    /// `PWDFDEVICE_INIT`, not an object.
    DeviceInit,
    /// `WDFQUEUE`.
    Queue,
    /// `WDFREQUEST`.
    Request,
    /// `WDFFILEOBJECT`.
    File,
    /// `WDFDPC`.
    Dpc,
    /// `WDFTIMER`.
    Timer,
    /// `WDFWORKITEM`.
    WorkItem,
    /// `WDFWAITLOCK`.
    WaitLock,
    /// `WDFSPINLOCK`.
    SpinLock,
    /// `WDFMEMORY`.
    Memory,
    /// `WDFLOOKASIDE`.
    Lookaside,
    /// `WDFCOLLECTION`.
    Collection,
    /// `WDFKEY`.
    Key,
    /// `WDFSTRING`.
    String,
}

impl Kind {
    const ALL: [Self; 17] = [
        Self::Object,
        Self::Driver,
        Self::Device,
        Self::DeviceInit,
        Self::Queue,
        Self::Request,
        Self::File,
        Self::Dpc,
        Self::Timer,
        Self::WorkItem,
        Self::WaitLock,
        Self::SpinLock,
        Self::Memory,
        Self::Lookaside,
        Self::Collection,
        Self::Key,
        Self::String,
    ];

    const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 || bits > Self::ALL.len() as u64 { None } else { Some(Self::ALL[bits as usize - 1]) }
    }

    /// The type's name in the headers.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Object => "WDFOBJECT",
            Self::Driver => "WDFDRIVER",
            Self::Device => "WDFDEVICE",
            Self::DeviceInit => "WDFDEVICE_INIT",
            Self::Queue => "WDFQUEUE",
            Self::Request => "WDFREQUEST",
            Self::File => "WDFFILEOBJECT",
            Self::Dpc => "WDFDPC",
            Self::Timer => "WDFTIMER",
            Self::WorkItem => "WDFWORKITEM",
            Self::WaitLock => "WDFWAITLOCK",
            Self::SpinLock => "WDFSPINLOCK",
            Self::Memory => "WDFMEMORY",
            Self::Lookaside => "WDFLOOKASIDE",
            Self::Collection => "WDFCOLLECTION",
            Self::Key => "WDFKEY",
            Self::String => "WDFSTRING",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a value is not a live handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// The null handle.
    Null,
    /// No handle ever had this value.
    Unknown,
    /// The object was deleted, or is a request that was completed.
    Stale(Kind),
}

const KIND_BITS: u32 = 6;
const PAYLOAD_BITS: u32 = 44;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;
/// Bits 47 to 63: the kernel half of the address space.
const PREFIX: u64 = 0xFFFF_8000_0000_0000;
const MULTIPLIER: u64 = 0x9E3_779B_97F5;
const MULTIPLIER_INVERSE: u64 = inverse(MULTIPLIER);

/// The inverse of an odd number modulo 2^64 (Newton's iteration doubles the valid bits each time).
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut i = 0;
    while i < 6 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        i += 1;
    }
    x
}

const fn scramble(payload: u64, key: u64) -> u64 {
    let mut x = (payload ^ key) & PAYLOAD;
    x = x.wrapping_mul(MULTIPLIER) & PAYLOAD;
    x ^= x >> (PAYLOAD_BITS / 2);
    x.wrapping_mul(MULTIPLIER) & PAYLOAD
}

const fn unscramble(value: u64, key: u64) -> u64 {
    let mut x = value.wrapping_mul(MULTIPLIER_INVERSE) & PAYLOAD;
    x ^= x >> (PAYLOAD_BITS / 2);
    x = x.wrapping_mul(MULTIPLIER_INVERSE) & PAYLOAD;
    (x ^ key) & PAYLOAD
}

const SHARDS: usize = 64;

/// The live handles of one machine.
pub(crate) struct HandleTable<T> {
    key: u64,
    next: AtomicU64,
    shards: [RwLock<HashMap<u64, T>>; SHARDS],
}

impl<T: Clone> HandleTable<T> {
    /// An empty table. The key makes handle values differ between machines.
    #[must_use]
    pub(crate) fn new(key: u64) -> Self {
        Self { key, next: AtomicU64::new(1), shards: core::array::from_fn(|_| RwLock::new(HashMap::new())) }
    }

    /// A new handle value; nothing is found under it before [`Self::insert`]. Serial numbers grow in order of creation.
    #[must_use]
    pub(crate) fn reserve(&self, kind: Kind) -> (Handle, u64) {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        let value = scramble(serial << KIND_BITS | kind as u64, self.key);
        (Handle(PREFIX | value << 3), serial)
    }

    /// Makes a reserved handle valid.
    pub(crate) fn insert(&self, serial: u64, value: T) {
        self.shard(serial).write().insert(serial, value);
    }

    /// The target of a handle.
    ///
    /// # Errors
    /// [`Invalid`] when it is not valid (any more).
    pub(crate) fn get(&self, handle: Handle) -> Result<T, Invalid> {
        let (kind, serial) = self.decode(handle)?;
        self.shard(serial).read().get(&serial).cloned().ok_or(Invalid::Stale(kind))
    }

    /// Makes a handle stale.
    pub(crate) fn remove(&self, serial: u64) -> Option<T> {
        self.shard(serial).write().remove(&serial)
    }

    /// Every live value, oldest first.
    #[must_use]
    pub(crate) fn values(&self) -> Vec<T> {
        let mut all: Vec<(u64, T)> = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().iter().map(|(serial, value)| (*serial, value.clone())));
        }
        all.sort_by_key(|(serial, _)| *serial);
        all.into_iter().map(|(_, value)| value).collect()
    }

    fn decode(&self, handle: Handle) -> Result<(Kind, u64), Invalid> {
        if handle.is_null() {
            return Err(Invalid::Null);
        }
        if handle.0 & PREFIX != PREFIX || handle.0 & 7 != 0 {
            return Err(Invalid::Unknown);
        }
        let payload = unscramble(handle.0 >> 3 & PAYLOAD, self.key);
        let serial = payload >> KIND_BITS;
        let kind = Kind::from_bits(payload & ((1 << KIND_BITS) - 1)).ok_or(Invalid::Unknown)?;
        if serial == 0 || serial >= self.next.load(Ordering::Relaxed) {
            return Err(Invalid::Unknown);
        }
        Ok((kind, serial))
    }

    fn shard(&self, serial: u64) -> &RwLock<HashMap<u64, T>> {
        &self.shards[serial as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrambling_is_a_permutation() {
        for key in [0, 0x5555_5555_5555, u64::MAX] {
            for payload in (0..200_000u64).chain([PAYLOAD, PAYLOAD - 1, 1 << 43]) {
                let value = scramble(payload, key);
                assert!(value <= PAYLOAD);
                assert_eq!(unscramble(value, key), payload, "key {key:#x}");
            }
        }
    }

    #[test]
    fn a_handle_lives_until_it_is_removed_and_is_remembered_afterwards() {
        let table = HandleTable::new(7);
        let (handle, serial) = table.reserve(Kind::Request);
        assert_eq!(table.get(handle), Err(Invalid::Stale(Kind::Request)), "not yet inserted");
        table.insert(serial, "request");
        assert_eq!(table.get(handle), Ok("request"));
        assert_eq!(table.remove(serial), Some("request"));
        assert_eq!(table.get(handle), Err(Invalid::Stale(Kind::Request)));
    }

    #[test]
    fn values_that_never_were_handles_are_unknown() {
        let table: HandleTable<u8> = HandleTable::new(7);
        let (handle, serial) = table.reserve(Kind::Queue);
        table.insert(serial, 1);
        assert_eq!(table.get(Handle::NULL), Err(Invalid::Null));
        assert_eq!(table.get(Handle(1)), Err(Invalid::Unknown));
        assert_eq!(table.get(Handle(handle.0 | 1)), Err(Invalid::Unknown), "misaligned");
        let neighbours =
            (1..4096u64).filter(|i| table.get(Handle(handle.0 ^ (i << 3))) != Err(Invalid::Unknown)).count();
        assert_eq!(neighbours, 0, "no neighbour of a handle is one, live or stale");
    }

    #[test]
    fn every_kind_survives_the_round_trip() {
        let table: HandleTable<Kind> = HandleTable::new(0x1234_5678);
        for kind in Kind::ALL {
            let (handle, _) = table.reserve(kind);
            assert_eq!(table.get(handle), Err(Invalid::Stale(kind)));
        }
    }
}
