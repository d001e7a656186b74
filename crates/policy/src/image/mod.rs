//! The compiled policy: flat, versioned, little-endian bytes with offsets only.

pub(crate) mod budget;
pub(crate) mod forest;
pub(crate) mod identifiers;
mod lanes;
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "only the compiler writes these numbers"))]
pub(crate) mod layout;
mod matcher;
pub(crate) mod members;
pub(crate) mod names;
#[cfg(feature = "fuzz")]
mod put_right;
pub(crate) mod sources;
pub(crate) mod table;
pub(crate) mod v4;
pub(crate) mod v6;
mod validate;

use crate::flow::{Decision, Direction, Flow};
use layout::{Header, OPTION_SHARED_PERMIT, RULE_PERMIT, RuleRecord, Tree, View};

pub use budget::{LONGEST_PATH, MOST_SIDS, MOST_STEPS};
#[cfg(feature = "fuzz")]
pub use put_right::put_right;
#[cfg(feature = "std")]
pub use sources::Origin;
pub use sources::{Source, SourceKind};
pub use validate::{InvalidImage, SlowPart};
/// The version of the layout that [`Image::validate`] accepts.
pub const VERSION: u32 = layout::VERSION;
/// What every image begins with.
pub const MAGIC: [u8; 8] = layout::MAGIC;
#[cfg(feature = "std")]
pub(crate) use validate::checksum;
#[cfg(test)]
pub(crate) use validate::validate_v6;

mod sealed {
    pub trait Sealed {}
    impl Sealed for &[u8] {}
    impl Sealed for alloc::boxed::Box<[u8]> {}
    impl Sealed for alloc::vec::Vec<u8> {}
}

/// Bytes that do not change after validation: no interior mutability, the same slice at every call.
pub trait StableBytes: sealed::Sealed {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

impl StableBytes for &[u8] {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl StableBytes for alloc::boxed::Box<[u8]> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl StableBytes for alloc::vec::Vec<u8> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A compiled policy whose bytes have been validated. Nothing it does can fail.
#[derive(Clone, Debug)]
pub struct Image<B> {
    bytes: B,
    header: Header,
}

impl<B: StableBytes> Image<B> {
    /// Checks every offset, bound and order in `bytes` that the matcher relies on, in time linear in their length.
    ///
    /// # Errors
    /// [`InvalidImage`] says what is wrong and where. Bytes of any kind may be passed.
    pub fn validate(bytes: B) -> Result<Self, InvalidImage> {
        let header = validate::validate(bytes.bytes())?;
        Ok(Self { bytes, header })
    }

    /// Decides a flow: by the first rule that matches, or by the direction's default.
    #[must_use]
    pub fn decide(&self, flow: &Flow<'_>) -> Decision {
        matcher::decide(self.bytes.bytes(), &self.header, flow).0
    }

    /// Decides a flow and says how many steps that took.
    #[doc(hidden)]
    #[must_use]
    pub fn decide_counting(&self, flow: &Flow<'_>) -> (Decision, u64) {
        matcher::decide(self.bytes.bytes(), &self.header, flow)
    }

    /// The most steps of a decision, at most [`MOST_STEPS`]. It holds for flows whose path is no longer than
    /// [`LONGEST_PATH`], and whose owner has no more than [`MOST_SIDS`] SIDs, each passed once.
    #[must_use]
    pub fn most_steps(&self) -> u32 {
        self.header.most_steps
    }

    /// The class of the sets a remote address is in; 0 if in none. One step of a decision, for benchmarks.
    #[doc(hidden)]
    #[must_use]
    pub fn remote_class(&self, remote: core::net::IpAddr) -> u32 {
        matcher::remote_class(self.bytes.bytes(), &self.header, remote)
    }

    /// The class of the sets a name is in; 0 if in none. One step of a decision, for benchmarks.
    #[doc(hidden)]
    #[must_use]
    pub fn name_class(&self, name: &[u8]) -> u32 {
        names::class(self.bytes.bytes(), &self.header, name)
    }

    /// The key of its hashes. A policy that is compiled again with it is the same image if nothing has changed.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn key(&self) -> [u8; 16] {
        let mut key = [0; 16];
        let (low, high) = key.split_at_mut(8);
        low.copy_from_slice(&self.header.key[0].to_le_bytes());
        high.copy_from_slice(&self.header.key[1].to_le_bytes());
        key
    }

    /// Whether a rule asks for a program, a user, a group, a service or a package.
    #[must_use]
    pub fn asks_for_owners(&self) -> bool {
        let sections = &self.header.sections;
        sections.application_slots.length != 0 || sections.user_slots.length != 0
    }

    /// Whether a rule asks for a name.
    #[must_use]
    pub fn asks_for_names(&self) -> bool {
        let waits = |view| [Tree::OutboundWaiting, Tree::InboundWaiting].map(|tree| self.header.root(view, tree) != 0);
        [View::V4, View::V6].map(waits) != [[false; 2]; 2]
    }

    /// Whether a rule asks.
    #[must_use]
    pub fn asks(&self) -> bool {
        let bytes = self.bytes.bytes();
        (0..self.rule_count()).any(|rule| {
            let record = self.header.sections.rules.record::<{ RuleRecord::SIZE }>(bytes, rule).map(RuleRecord::read);
            record.is_some_and(|record| record.flags & layout::RULE_ASKS != 0)
        })
    }

    /// Whether a direction has rules, or a default that does not permit: of others there is nothing to decide.
    #[must_use]
    pub fn speaks_of(&self, direction: Direction) -> bool {
        let tree = match direction {
            Direction::Outbound => Tree::Outbound,
            Direction::Inbound => Tree::Inbound,
            Direction::Forward => Tree::Forward,
            Direction::Listen => Tree::Listen,
            Direction::Bind => Tree::Bind,
        };
        let has_rules = [View::V4, View::Inside, View::V6].into_iter().any(|view| self.header.root(view, tree) != 0);
        has_rules || self.header.default_of(direction) & RULE_PERMIT == 0
    }

    /// Numbers that nobody foretells: the key of its hashes, which is random for every image in use.
    #[must_use]
    pub fn seed(&self) -> [u64; 2] {
        self.header.key
    }

    /// Whether an address with names of several rules follows one that permits, and not one that blocks.
    #[must_use]
    pub fn shared_addresses_permit(&self) -> bool {
        self.header.options & OPTION_SHARED_PERMIT != 0
    }

    /// How many rules the policy has, including those that are disabled or out of schedule.
    #[must_use]
    pub fn rule_count(&self) -> u32 {
        self.header.sections.rules.count::<{ RuleRecord::SIZE }>()
    }

    /// The name of a rule, by the number [`Decision::rule`] gives.
    #[must_use]
    pub fn rule_name(&self, rule: u32) -> Option<&str> {
        let bytes = self.bytes.bytes();
        let record = RuleRecord::read(self.header.sections.rules.record::<{ RuleRecord::SIZE }>(bytes, rule)?);
        let names = self.header.sections.rule_names.of(bytes);
        core::str::from_utf8(names.get(record.name as usize..)?.get(..record.name_length as usize)?).ok()
    }

    /// The bytes that were validated.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    /// Identifies these bytes: equal images have equal identities. It guards against damage and mix-ups, not against
    /// deliberate collisions.
    #[must_use]
    pub fn identity(&self) -> [u8; 16] {
        self.header.checksum
    }
}
