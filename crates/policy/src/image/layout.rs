//! The layout of an image. All numbers are little-endian; sections follow the header in the order of
//! [`Sections`], each on a 64-byte boundary, with nothing in between.
//!
//! ```text
//! 0    magic "SLUICEPI"                         8
//! 8    version                                  4
//! 12   length of the image                      4
//! 16   XXH3-128 of bytes 32..                   16
//! 32   defaults: outbound, inbound, forward     3 (rule flags, and whether essential traffic is beyond them)
//! 35   options                                  1
//! 36   defaults: listen, bind                   2, zero 2
//! 40   key of the hashes                        16
//! 56   roots of the forests                     ROOTS x 8
//! 320  class of an undecidable name             4
//! 324  how many labels listed names have        4: bit N for N labels, bit 31 for more
//! 328  section table                            SECTIONS x (offset 4, length 4)
//! ```

use super::{
    names::hash::Points,
    table::{Section, u16_at, u32_at, u64_at, u128_at},
    v4, v6,
};
use crate::flow::Direction;

/// The first eight bytes of every image.
pub(crate) const MAGIC: [u8; 8] = *b"SLUICEPI";
/// Changes with every change of the layout or of its meaning.
pub(crate) const VERSION: u32 = 9;
/// The offset of the roots.
pub(crate) const ROOT_TABLE: usize = 56;
/// A tree of a family's forest: the rules that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub(crate) enum Tree {
    /// Those of outbound flows.
    Outbound,
    /// Those of inbound flows.
    Inbound,
    /// Those of outbound flows that wait for a name.
    OutboundWaiting,
    /// Those of inbound flows that wait for a name.
    InboundWaiting,
    /// Of those that wait in outbound flows, the ones that permit.
    OutboundPermitting,
    /// Of those that wait in inbound flows, the ones that permit.
    InboundPermitting,
    /// Those of forwarded packets.
    Forward,
    /// Those of forwarded packets whose ports cannot be read.
    ForwardNoPorts,
    /// Those of forwarded packets whose protocol cannot be read.
    ForwardNoProtocol,
    /// Those of who listens.
    Listen,
    /// Those of who binds.
    Bind,
}
/// How many there are.
pub(crate) const TREES: usize = 11;
/// As what a flow's addresses are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum View {
    /// As IPv4.
    V4,
    /// As the IPv4 address inside a remote IPv6 one. Rules with local addresses are not in these trees.
    Inside,
    /// As IPv6.
    V6,
}
/// How many there are.
pub(crate) const VIEWS: usize = 3;
/// Per view, the roots of its trees: the first two are of the IPv4 forest.
pub(crate) const ROOTS: usize = VIEWS * TREES;
/// Where the roots of the IPv6 forest begin.
pub(crate) const ROOTS_V6: usize = View::V6 as usize * TREES;
/// The option that IPv4 addresses inside remote IPv6 ones are looked at.
pub(crate) const OPTION_EMBEDDED: u8 = 1;
/// The option that an address with names of several rules follows one that permits.
pub(crate) const OPTION_SHARED_PERMIT: u8 = 2;
/// All options.
pub(crate) const OPTIONS: u8 = OPTION_EMBEDDED | OPTION_SHARED_PERMIT;
/// Where the class of undecidable names stands.
pub(crate) const UNDECIDABLE: usize = ROOT_TABLE + ROOTS * 8;
/// Where the numbers of labels stand.
pub(crate) const NAME_DEPTHS: usize = UNDECIDABLE + 4;
/// Where the section table begins.
pub(crate) const SECTION_TABLE: usize = NAME_DEPTHS + 4;
/// The header's length: fixed part and section table, rounded up to a section boundary.
pub(crate) const HEADER_LENGTH: usize = (SECTION_TABLE + SECTIONS * 8).next_multiple_of(SECTION_ALIGNMENT);
/// Every section begins at a multiple of this.
pub(crate) const SECTION_ALIGNMENT: usize = 64;

/// The verdict is permit.
pub(crate) const RULE_PERMIT: u8 = 1;
/// The verdict is hard.
pub(crate) const RULE_HARD: u8 = 2;
/// A block is silent.
pub(crate) const RULE_SILENT: u8 = 4;
/// An event is requested.
pub(crate) const RULE_LOG: u8 = 8;
/// It asks; the verdict is what holds without an answer.
pub(crate) const RULE_ASKS: u8 = 32;
/// All flags of a rule.
pub(crate) const RULE_FLAGS: u8 = DECIDER_FLAGS | RULE_ASKS;
/// Those that a default has too.
const DECIDER_FLAGS: u8 = 15;

/// Of a default: it does not decide what is [`crate::essential`].
pub(crate) const DEFAULT_SPARES_ESSENTIAL: u8 = 16;
/// All flags of a default.
pub(crate) const DEFAULT_FLAGS: u8 = DECIDER_FLAGS | DEFAULT_SPARES_ESSENTIAL;

/// The entry matches every protocol.
pub(crate) const ENTRY_ANY_PROTOCOL: u8 = 1;
/// The rule has conditions beyond what the entry holds.
pub(crate) const ENTRY_CONDITIONS: u8 = 2;

/// The numbers a flow is reduced to. Addresses, programs, users or names in the same sets share a class; 0 is the class
/// of those in no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Dimension {
    /// v4: the remote address. v6: its upper half.
    Remote = 0,
    /// v4: the local address. v6: its upper half.
    Local = 1,
    /// The remote port, or the ICMP code.
    RemotePort = 2,
    /// The local port, or the ICMP type.
    LocalPort = 3,
    /// The IP protocol.
    Protocol = 4,
    /// Class of the application.
    Application = 5,
    /// A set of identities the flow's owner is in, its number plus one (see [`super::members`]); 0 in the search for
    /// rules without identities.
    User = 6,
    /// The interface's LUID; 0 where it is not known.
    Interface = 7,
    /// Class of the name.
    Name = 8,
    /// Class of the remote address among the sets.
    RemoteSet = 9,
    /// Class of the local address among the sets.
    LocalSet = 10,
    /// v6: the lower half of the remote address.
    RemoteLow = 11,
    /// v6: the lower half of the local address.
    LocalLow = 12,
}

/// The size of a key: a power of two, so that any index can be masked to fit.
pub(crate) const DIMENSIONS: usize = 16;
/// Dimensions in use.
pub(crate) const DIMENSION_LIMIT: u32 = 13;

/// A flow as numbers, indexed by [`Dimension`].
pub(crate) type Key = [u64; DIMENSIONS];

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident: $size:expr,)*) => {
        /// The parts of an image, in order.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Sections {
            $($(#[$doc])* pub(crate) $name: Section,)*
        }

        impl Sections {
            /// The sections in order.
            pub(crate) fn all(&self) -> [Section; SECTIONS] {
                [$(self.$name),*]
            }

            fn read(bytes: &[u8]) -> Self {
                let mut at = SECTION_TABLE;
                let mut next = || {
                    at += 8;
                    Section { offset: u32_at(bytes, at - 8), length: u32_at(bytes, at - 4) }
                };
                Self { $($name: next()),* }
            }
        }

        /// How many sections there are.
        pub(crate) const SECTIONS: usize = [$(stringify!($name)),*].len();
        /// The size of a record of each, in bytes.
        pub(crate) const RECORD_SIZES: [usize; SECTIONS] = [$($size),*];
        /// The name of each.
        pub(crate) const SECTION_NAMES: [&str; SECTIONS] = [$(stringify!($name)),*];

        /// The bytes of each section of an image under construction.
        #[cfg(feature = "std")]
        #[derive(Debug, Default)]
        pub(crate) struct Parts {
            $($(#[$doc])* pub(crate) $name: Vec<u8>,)*
        }

        #[cfg(feature = "std")]
        impl Parts {
            /// The bytes in order.
            pub(crate) fn all(self) -> [Vec<u8>; SECTIONS] {
                [$(self.$name),*]
            }
        }
    };
}

sections! {
    /// [`RuleRecord`]s in the file's order.
    rules: RuleRecord::SIZE,
    /// The rules' names, UTF-8, one after the other.
    rule_names: 1,
    /// [`ConditionRecord`]s, those of each rule together, in the rules' order.
    conditions: ConditionRecord::SIZE,
    /// Where each range list ends, in ranges: u32.
    lists: 4,
    /// Ranges: first and last, u64 each.
    ranges: 16,
    /// [`Entry4`]s.
    entries4: Entry4::SIZE,
    /// [`Entry6`]s.
    entries6: Entry6::SIZE,
    /// The words of the IPv4 forest (see [`super::forest`]).
    forest4: 8,
    /// The words of the IPv6 forest.
    forest6: 8,
    /// The most steps from each cut of the IPv4 forest on, in the cuts' order: u32. The matcher does not read them.
    steps4: 4,
    /// The same for the IPv6 forest.
    steps6: 4,
    /// Classes of remote IPv4 addresses (see [`super::v4`]).
    remote4: 4,
    /// Classes of local IPv4 addresses.
    local4: 4,
    /// Classes of remote IPv6 addresses (see [`super::v6`]).
    remote6: 4,
    /// Classes of local IPv6 addresses.
    local6: 4,
    /// The filter of the names' hashes (see [`super::names`]).
    name_filter: 8,
    /// The pilots of groups of names.
    name_pilots: 1,
    /// The names' tags, and the numbers of their records.
    name_tags: super::names::LINE,
    /// The record of each place, if lines of tags have no room for it: u32.
    name_places: 4,
    /// Classes of a name itself and of those below: u32 each.
    name_records: 8,
    /// Hash table of applications: u32, a record's number plus one (see [`super::identifiers`]).
    application_slots: 4,
    /// Applications.
    application_records: 8,
    /// The lengths of the directories among them, in bytes, longest first: u32.
    directory_lengths: 4,
    /// Hash table of identities: users, groups, services and packages.
    user_slots: 4,
    /// Identities; in place of a class the number of the list of sets it is in, plus one.
    user_records: 8,
    /// The bytes of applications, then of users.
    strings: 1,
    /// What the image was made of (see [`super::sources`]).
    sources: super::sources::RECORD,
    /// The names and values of sources.
    source_text: 1,
}

/// What validation read from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) checksum: [u8; 16],
    /// In the order of [`Direction::ALL`].
    pub(crate) defaults: [u8; 5],
    pub(crate) options: u8,
    pub(crate) key: [u64; 2],
    pub(crate) roots: [u64; ROOTS],
    pub(crate) undecidable: u32,
    pub(crate) name_depths: u32,
    /// The classes of the only record of names: of a name itself, and of those below it.
    pub(crate) only_names: Option<[u32; 2]>,
    /// Their class, if both have the same.
    pub(crate) only_name: Option<u32>,
    /// Derived from the key.
    pub(crate) points: Points,
    /// The first words of the IPv6 maps, remote and local.
    pub(crate) maps6: [v6::Map; 2],
    pub(crate) sections: Sections,
    /// The most steps of a decision, computed by validation.
    pub(crate) most_steps: u32,
    /// The headers of the IPv4 maps of remote and local addresses.
    pub(crate) shapes4: [v4::Shape; 2],
}

impl Header {
    /// The root of a tree.
    #[inline]
    pub(crate) fn root(&self, view: View, tree: Tree) -> u64 {
        self.roots.get(view as usize * TREES + tree as usize).copied().unwrap_or_default()
    }

    /// The flags of a direction's default.
    #[inline]
    pub(crate) fn default_of(&self, direction: Direction) -> u8 {
        let [outbound, inbound, forward, listen, bind] = self.defaults;
        match direction {
            Direction::Outbound => outbound,
            Direction::Inbound => inbound,
            Direction::Forward => forward,
            Direction::Listen => listen,
            Direction::Bind => bind,
        }
    }

    /// Reads a header; the caller made sure that [`HEADER_LENGTH`] bytes are there.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let [outbound, inbound, forward, options] = u32_at(bytes, 32).to_le_bytes();
        let [listen, bind, ..] = u32_at(bytes, 36).to_le_bytes();
        let sections = Sections::read(bytes);
        let names = sections.name_records.of(bytes);
        let only_names = (names.len() == 8).then(|| [u32_at(names, 0), u32_at(names, 4)]);
        Self {
            checksum: u128_at(bytes, 16).to_le_bytes(),
            defaults: [outbound, inbound, forward, listen, bind],
            options,
            key: [u64_at(bytes, 40), u64_at(bytes, 48)],
            points: Points::new([u64_at(bytes, 40), u64_at(bytes, 48)]),
            roots: core::array::from_fn(|index| u64_at(bytes, ROOT_TABLE + index * 8)),
            undecidable: u32_at(bytes, UNDECIDABLE),
            name_depths: u32_at(bytes, NAME_DEPTHS),
            shapes4: [sections.remote4, sections.local4].map(|map| v4::Shape::read(bytes, map)),
            maps6: [sections.remote6, sections.local6].map(|map| v6::Map::read(map.of(bytes))),
            only_names,
            only_name: only_names.filter(|[exact, below]| exact == below).map(|[exact, _]| exact),
            sections,
            most_steps: 0,
        }
    }
}

/// A rule: the place of its name, how many seconds an answer may take (0 if it does not ask), its flags, the place of its
/// conditions and the most steps these take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleRecord {
    pub(crate) name: u32,
    pub(crate) name_length: u8,
    pub(crate) answer_seconds: u8,
    pub(crate) flags: u8,
    pub(crate) conditions: u32,
    pub(crate) condition_count: u8,
    pub(crate) steps: u32,
}

impl RuleRecord {
    pub(crate) const SIZE: usize = 16;

    #[inline]
    pub(crate) fn read(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            name: u32_at(bytes, 0),
            name_length: bytes[4],
            answer_seconds: bytes[5],
            flags: bytes[6],
            condition_count: bytes[7],
            conditions: u32_at(bytes, 8),
            steps: u32_at(bytes, 12),
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend(self.name.to_le_bytes());
        out.extend([self.name_length, self.answer_seconds, self.flags, self.condition_count]);
        out.extend(self.conditions.to_le_bytes());
        out.extend(self.steps.to_le_bytes());
    }
}

/// A condition: the dimension's number must be in a range, or in one of a list of ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConditionRecord {
    pub(crate) dimension: u32,
    pub(crate) within: Within,
}

/// The range or list that must contain a condition's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    /// First and last.
    Range(u32, u32),
    /// A list's number.
    List(u32),
}

impl ConditionRecord {
    pub(crate) const SIZE: usize = 12;
    const LIST: u32 = 1 << 31;

    #[inline]
    pub(crate) fn read(bytes: &[u8; Self::SIZE]) -> Self {
        let (tagged, a, b) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8));
        let within = if tagged & Self::LIST != 0 { Within::List(a) } else { Within::Range(a, b) };
        Self { dimension: tagged & !Self::LIST, within }
    }

    #[cfg(feature = "std")]
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (tag, a, b) = match self.within {
            Within::Range(low, high) => (0, low, high),
            Within::List(list) => (Self::LIST, list, 0),
        };
        for word in [self.dimension | tag, a, b] {
            out.extend(word.to_le_bytes());
        }
    }
}

/// The part of every entry besides addresses: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryTail {
    pub(crate) remote_port: (u16, u16),
    pub(crate) local_port: (u16, u16),
    pub(crate) remote_length: u8,
    pub(crate) local_length: u8,
    pub(crate) protocol: u8,
    pub(crate) flags: u8,
    pub(crate) rule: u32,
}

impl EntryTail {
    #[inline]
    fn read(bytes: &[u8], at: usize) -> Self {
        let [remote_length, local_length, protocol, flags] = u32_at(bytes, at + 8).to_le_bytes();
        Self {
            remote_port: (u16_at(bytes, at), u16_at(bytes, at + 2)),
            local_port: (u16_at(bytes, at + 4), u16_at(bytes, at + 6)),
            remote_length,
            local_length,
            protocol,
            flags,
            rule: u32_at(bytes, at + 12),
        }
    }

    #[cfg(feature = "std")]
    fn write(self, out: &mut Vec<u8>) {
        for port in [self.remote_port.0, self.remote_port.1, self.local_port.0, self.local_port.1] {
            out.extend(port.to_le_bytes());
        }
        out.extend([self.remote_length, self.local_length, self.protocol, self.flags]);
        out.extend(self.rule.to_le_bytes());
    }
}

/// An IPv4 box of a rule: 24 bytes. Addresses are numbers, prefix lengths 0 to 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry4 {
    pub(crate) remote: u32,
    pub(crate) local: u32,
    pub(crate) tail: EntryTail,
}

impl Entry4 {
    pub(crate) const SIZE: usize = 24;

    #[inline]
    pub(crate) fn read(bytes: &[u8; Self::SIZE]) -> Self {
        Self { remote: u32_at(bytes, 0), local: u32_at(bytes, 4), tail: EntryTail::read(bytes, 8) }
    }

    #[cfg(feature = "std")]
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend(self.remote.to_le_bytes());
        out.extend(self.local.to_le_bytes());
        self.tail.write(out);
    }
}

/// An IPv6 box of a rule: 48 bytes. Prefix lengths 0 to 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry6 {
    pub(crate) remote: u128,
    pub(crate) local: u128,
    pub(crate) tail: EntryTail,
}

impl Entry6 {
    pub(crate) const SIZE: usize = 48;

    #[inline]
    pub(crate) fn read(bytes: &[u8; Self::SIZE]) -> Self {
        Self { remote: u128_at(bytes, 0), local: u128_at(bytes, 16), tail: EntryTail::read(bytes, 32) }
    }

    #[cfg(feature = "std")]
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend(self.remote.to_le_bytes());
        out.extend(self.local.to_le_bytes());
        self.tail.write(out);
    }
}

/// The first and last number of range `index`.
#[inline]
pub(crate) fn range(ranges: &[u8], index: u32) -> (u64, u64) {
    let at = index as usize * 16;
    (u64_at(ranges, at), u64_at(ranges, at + 8))
}
