//! Which names an address has, learned from the answers to this machine's own questions.
//!
//! A table of fixed size. Each address belongs to one bucket, whose entries are one name of one address each, so an
//! address has at most as many names as a bucket has entries. A full bucket forgets the entry that would end first. Which
//! bucket is that depends on a key, so that nobody chooses addresses that push another's entries out.
//!
//! Entries end by the system time. Time that the machine sleeps counts, as it does for who told the name. When the clock is
//! set back, what would then last longer than any answer may counts as ended.
//!
//! Nobody waits. Whoever writes makes a bucket's version odd, if it is even; otherwise it leaves what it has to tell
//! untold. Whoever reads copies, and reads again if the version was odd or has changed, a few times; then the names are
//! not known. All of it is at DISPATCH_LEVEL, where a writer is not suspended. A table in which every word is atomic
//! needs no `unsafe`.

use alloc::vec::Vec;
use core::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use kernel::{
    irql::AtDispatch,
    memory::try_box,
    status::{NtResult, NtStatus},
    swap::Swap,
    time,
};
use sluice_policy::{Decision, Direction, Name, Verdict};

use crate::{
    SLUICE,
    flow::{FlowKey, Owner},
    policy::Policy,
};

/// The longest name that is kept: what fits an entry.
const LONGEST: usize = NAME_WORDS * 8;
const NAME_WORDS: usize = 13;
const _: () = assert!(LONGEST == sluice_protocol::names::LONGEST);
/// The address, the time and length, and the name: 128 bytes.
const ENTRY: usize = 3 + NAME_WORDS;
/// Entries of a bucket, and so the most names of an address.
const NAMES: usize = 8;
/// Its version, and its entries.
const BUCKET: usize = 1 + NAMES * ENTRY;
/// How often a reader tries.
const TRIES: usize = 4;
/// The least and most seconds that an answer holds. Programs use an address for longer than the answer allows.
const FLOOR: u32 = 300;
const CEILING: u32 = 86_400;

/// A name, as an entry has it.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Kept {
    /// No name.
    pub(crate) const NONE: Self = Self { bytes: [0; LONGEST], length: 0 };

    /// The name, if it fits.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        let mut kept = Self { bytes: [0; LONGEST], length: 0 };
        for (place, letter) in kept.bytes.iter_mut().zip(name) {
            *place = *letter;
            kept.length = kept.length.saturating_add(1);
        }
        (usize::from(kept.length) == name.len() && !name.is_empty()).then_some(kept)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    fn words(&self) -> [u64; NAME_WORDS] {
        let mut words = [0; NAME_WORDS];
        for (word, bytes) in words.iter_mut().zip(self.bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }
}

/// An entry that is copied out.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) address: u128,
    /// In seconds since 1601, as [`now`] counts.
    pub(crate) ends: u64,
    pub(crate) name: Kept,
}

struct Table {
    words: Vec<AtomicU64>,
    key: [u64; 2],
}

/// The table, once a policy has asked for names.
pub(crate) struct Learned {
    table: Swap<Table>,
}

/// Seconds since 1601. Any IRQL.
pub(crate) fn now() -> u64 {
    time::system_time() / 10_000_000
}

const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Learned {
    pub(crate) const fn new() -> Self {
        Self { table: Swap::new() }
    }

    /// Makes the table, unless there is one; without memory for it names are not learned. `key` is from a source of random
    /// numbers: an image has one. PASSIVE_LEVEL.
    pub(crate) fn prepare(&self, key: [u64; 2]) {
        let buckets = SLUICE.limits.learned() / NAMES;
        if buckets > 0 && self.table.read().is_none() {
            let made = Table::new(buckets, key).and_then(try_box);
            // Another load cannot do the same: there is one at a time.
            let _ = made.and_then(|table| self.table.replace(Some(table), || {}));
        }
    }

    /// Frees the table. PASSIVE_LEVEL, when no callout runs.
    pub(crate) fn clear(&self) {
        let _ = self.table.replace(None, || {});
    }

    /// An answer says for so many seconds that a name has this address. False when it could not be told.
    pub(crate) fn learn(&self, _: &AtDispatch, address: IpAddr, name: &Kept, ttl: u32) -> bool {
        let Some(table) = self.table.read() else { return false };
        let (address, now) = (number(address), now());
        let ends = now.saturating_add(ttl.clamp(FLOOR, CEILING).into());
        table.bucket(address).is_some_and(|bucket| put(bucket, now, &Entry { address, ends, name: *name }))
    }

    /// Forgets everything. PASSIVE_LEVEL.
    pub(crate) fn forget(&self) {
        let Some(table) = self.table.read() else { return };
        for bucket in table.words.as_chunks::<BUCKET>().0 {
            let _dispatch = AtDispatch::raise();
            while !write(bucket, |entries| entries.iter().for_each(|word| word.store(0, Ordering::Relaxed))) {
                core::hint::spin_loop();
            }
        }
    }

    /// Visits the entries from the one with this number on, with their numbers, until `visit` returns false.
    /// PASSIVE_LEVEL.
    pub(crate) fn list(&self, first: u64, mut visit: impl FnMut(u64, &Entry) -> bool) {
        let Some(table) = self.table.read() else { return };
        let buckets = table.words.as_chunks::<BUCKET>().0;
        let (skipped, within) = ((first / NAMES as u64) as usize, first % NAMES as u64);
        let now = now();
        for (place, bucket) in buckets.iter().enumerate().skip(skipped) {
            let mut entries = [None; NAMES];
            {
                let _dispatch = AtDispatch::raise();
                copy(bucket, &mut entries, |_, ends| holds(ends, now));
            }
            for (number, entry) in entries.iter().enumerate() {
                let number = (place * NAMES + number) as u64;
                let Some(entry) = entry.as_ref().filter(|_| place != skipped || number % NAMES as u64 >= within) else {
                    continue;
                };
                if !visit(number, entry) {
                    return;
                }
            }
        }
    }

    /// What the names of a flow's remote address come to, where `without` is the decision without a name. Of several that
    /// rules list, one that is blocked decides, or if the policy says so (`shared = "permit"`) one that is permitted. Names that no
    /// rule lists say nothing. None when nothing is known. DISPATCH_LEVEL.
    pub(crate) fn decide(
        &self,
        key: &FlowKey,
        policy: &Policy,
        owner: &Owner<'_>,
        without: &Decision,
    ) -> Option<(Decision, Kept)> {
        if key.direction != Direction::Outbound || !without.needs_name {
            return None;
        }
        let mut entries = [None; NAMES];
        {
            let table = self.table.read()?;
            let (address, now) = (number(key.remote), now());
            copy(table.bucket(address)?, &mut entries, |there, ends| there == address && holds(ends, now));
        }
        let wins = if policy.image.shared_addresses_permit() { Verdict::Permit } else { Verdict::Block };
        let mut chosen: Option<(Decision, Kept)> = None;
        for Entry { name, .. } in entries.iter().flatten() {
            let decision = key.decide(policy, owner, Name::Known(name.as_bytes()));
            // A rule before the one that decides without a name: one that asks for names.
            let listed = decision.rule.is_some_and(|rule| without.rule.is_none_or(|other| rule < other));
            let better = chosen.as_ref().is_none_or(|(chosen, _)| chosen.verdict != wins);
            if listed && better {
                chosen = Some((decision, *name));
            }
        }
        chosen
    }
}

impl Learned {
    /// A name that DNS has told of an address. DISPATCH_LEVEL.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<Kept> {
        let mut entries = [None; NAMES];
        let table = self.table.read()?;
        let (address, now) = (number(address), now());
        copy(table.bucket(address)?, &mut entries, |there, ends| there == address && ends > now);
        entries.iter().flatten().max_by_key(|entry| entry.ends).map(|entry| entry.name)
    }

    /// The decision on a flow that has no name that can be read: by the names of its address, or as one without.
    /// DISPATCH_LEVEL.
    pub(crate) fn or_undecidable(&self, key: &FlowKey, policy: &Policy, owner: &Owner<'_>) -> (Decision, Option<Kept>) {
        let without = key.decide(policy, owner, Name::Unknown);
        match self.decide(key, policy, owner, &without) {
            Some((decision, name)) => (decision, Some(name)),
            None => (key.decide(policy, owner, Name::Undecidable), None),
        }
    }
}

impl Table {
    fn new(buckets: usize, key: [u64; 2]) -> NtResult<Self> {
        let (length, mut words) = (buckets * BUCKET, Vec::new());
        words.try_reserve_exact(length).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        words.resize_with(length, || AtomicU64::new(0));
        Ok(Self { words, key })
    }

    fn bucket(&self, address: u128) -> Option<&[AtomicU64; BUCKET]> {
        let buckets = self.words.as_chunks::<BUCKET>().0;
        buckets.get(((u128::from(mix(address, self.key)) * buckets.len() as u128) >> 64) as usize)
    }
}

/// An address as a number that nobody foretells who has not the key: two multiplications with unknown numbers, of which both
/// halves of the product count.
const fn mix(address: u128, [first, second]: [u64; 2]) -> u64 {
    const fn fold(a: u64, b: u64) -> u64 {
        let product = a as u128 * b as u128;
        (product >> 64) as u64 ^ product as u64
    }
    // An odd number is never 0, which would forget the other.
    fold(fold((address >> 64) as u64 ^ second, first | 1) ^ address as u64, second | 1)
}

/// Whether an entry that ends then holds now.
const fn holds(ends: u64, now: u64) -> bool {
    ends > now && ends - now <= CEILING as u64
}

/// Changes a bucket's entries; false when somebody else does.
fn write(bucket: &[AtomicU64; BUCKET], change: impl FnOnce(&[AtomicU64])) -> bool {
    let [version, entries @ ..] = bucket;
    let before = version.load(Ordering::Relaxed);
    let odd = before & 1 != 0;
    if odd || version.compare_exchange(before, before + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    fence(Ordering::Release);
    change(entries);
    version.store(before.wrapping_add(2), Ordering::Release);
    true
}

/// Puts an entry into a bucket: where the same name of the same address is, or one that has ended, or would end first.
fn put(bucket: &[AtomicU64; BUCKET], now: u64, entry: &Entry) -> bool {
    let words = entry.name.words();
    write(bucket, |entries| {
        let places = entries.as_chunks::<ENTRY>().0;
        let same = places.iter().find(|place| {
            let [high, low, _, name @ ..] = place;
            let there = u128::from(high.load(Ordering::Relaxed)) << 64 | u128::from(low.load(Ordering::Relaxed));
            there == entry.address
                && name.iter().zip(&words).all(|(word, other)| word.load(Ordering::Relaxed) == *other)
        });
        let first = || {
            places.iter().min_by_key(|[_, _, time, ..]| {
                let ends = time.load(Ordering::Relaxed) >> 8;
                if holds(ends, now) { ends } else { 0 }
            })
        };
        let Some([high, low, time, name @ ..]) = same.or_else(first) else { return };
        high.store((entry.address >> 64) as u64, Ordering::Relaxed);
        low.store(entry.address as u64, Ordering::Relaxed);
        time.store(entry.ends << 8 | u64::from(entry.name.length), Ordering::Relaxed);
        name.iter().zip(words).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    })
}

/// Copies the entries that `wanted` picks by address and time; none when the bucket was changed all the while.
fn copy(bucket: &[AtomicU64; BUCKET], into: &mut [Option<Entry>; NAMES], wanted: impl Fn(u128, u64) -> bool) {
    let [version, entries @ ..] = bucket;
    for _ in 0..TRIES {
        let before = version.load(Ordering::Acquire);
        for (place, [high, low, time, name @ ..]) in into.iter_mut().zip(entries.as_chunks::<ENTRY>().0) {
            let address = u128::from(high.load(Ordering::Relaxed)) << 64 | u128::from(low.load(Ordering::Relaxed));
            let time = time.load(Ordering::Relaxed);
            *place = None;
            if wanted(address, time >> 8) {
                let mut kept = Kept { bytes: [0; LONGEST], length: time as u8 };
                for (bytes, word) in kept.bytes.as_chunks_mut().0.iter_mut().zip(name) {
                    *bytes = word.load(Ordering::Relaxed).to_le_bytes();
                }
                *place = Some(Entry { address, ends: time >> 8, name: kept });
            }
        }
        fence(Ordering::Acquire);
        if before & 1 == 0 && version.load(Ordering::Relaxed) == before {
            return;
        }
        core::hint::spin_loop();
    }
    *into = [None; NAMES];
}
