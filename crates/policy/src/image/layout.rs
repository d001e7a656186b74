//! Where everything lies in an image. All numbers are little-endian; sections follow the header in the order of
//! [`Header::sections`], each on a 64-byte boundary, and lie nowhere else.
//!
//! ```text
//! 0    magic "SLUICEPI"        8
//! 8    version                 4
//! 12   length of the image     4
//! 16   XXH3-128 of bytes 32..  16
//! 32   defaults: outbound, inbound (rule flags)  2, zero 6
//! 40   key of the hashes       16
//! 56   forest roots            4 x 8 (see Root)
//! 88   section table           SECTIONS x (offset 4, length 4)
//! ```

use super::table::{Section, u16_at, u32_at, u64_at, u128_at};

/// The first eight bytes of every image.
pub(crate) const MAGIC: [u8; 8] = *b"SLUICEPI";
/// Changes with every change of the layout or of its meaning.
pub(crate) const VERSION: u32 = 1;
/// Where the section table begins.
pub(crate) const SECTION_TABLE: usize = 88;
/// How many sections there are.
pub(crate) const SECTIONS: usize = 10;
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
/// An event is wanted.
pub(crate) const RULE_LOG: u8 = 8;
/// All flags of a rule.
pub(crate) const RULE_FLAGS: u8 = 15;

/// The entry matches every protocol.
pub(crate) const ENTRY_ANY_PROTOCOL: u8 = 1;
/// The rule has conditions beyond what the entry holds.
pub(crate) const ENTRY_CONDITIONS: u8 = 2;

/// The numbers a flow is reduced to; a condition is ranges of one of them.
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
    /// Rank of the application; 0 where it is not known, 1 where no rule names it.
    Application = 5,
    /// Number of the user; 0 where it is not known, 1 where no rule names it.
    User = 6,
    /// The interface's LUID; 0 where it is not known.
    Interface = 7,
}

/// How many dimensions a key has room for: a power of two, so that any number can be masked into it.
pub(crate) const DIMENSIONS: usize = 16;
/// Dimensions in use.
pub(crate) const DIMENSION_LIMIT: u32 = 8;

/// What validation read from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) checksum: [u8; 16],
    pub(crate) defaults: [u8; 2],
    pub(crate) key: [u8; 16],
    pub(crate) roots: [Root; 4],
    /// [`RuleRecord`]s in the file's order.
    pub(crate) rules: Section,
    /// The rules' names, UTF-8, one after the other.
    pub(crate) rule_names: Section,
    /// [`ConditionRecord`]s, those of each rule together, in the rules' order.
    pub(crate) conditions: Section,
    /// Where each range list ends, in ranges: u32.
    pub(crate) lists: Section,
    /// Ranges: first and last, u64 each.
    pub(crate) ranges: Section,
    /// [`Entry4`]s.
    pub(crate) entries4: Section,
    /// [`Entry6`]s.
    pub(crate) entries6: Section,
    /// Applications and users in byte order: u32 end of the bytes, u32 number.
    pub(crate) applications: Section,
    pub(crate) users: Section,
    /// The bytes of applications, then of users.
    pub(crate) strings: Section,
}

impl Header {
    /// Reads a header; the caller made sure that [`HEADER_LENGTH`] bytes are there.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let section = |index: usize| Section {
            offset: u32_at(bytes, SECTION_TABLE + index * 8),
            length: u32_at(bytes, SECTION_TABLE + index * 8 + 4),
        };
        let root = |index: usize| Root { first: u32_at(bytes, 56 + index * 8), count: u32_at(bytes, 60 + index * 8) };
        let [outbound, inbound] = u16_at(bytes, 32).to_le_bytes();
        Self {
            checksum: u128_at(bytes, 16).to_le_bytes(),
            defaults: [outbound, inbound],
            key: u128_at(bytes, 40).to_le_bytes(),
            roots: [root(0), root(1), root(2), root(3)],
            rules: section(0),
            rule_names: section(1),
            conditions: section(2),
            lists: section(3),
            ranges: section(4),
            entries4: section(5),
            entries6: section(6),
            applications: section(7),
            users: section(8),
            strings: section(9),
        }
    }

    /// The sections in the order of the table and of the image.
    pub(crate) fn sections(&self) -> [Section; SECTIONS] {
        [
            self.rules,
            self.rule_names,
            self.conditions,
            self.lists,
            self.ranges,
            self.entries4,
            self.entries6,
            self.applications,
            self.users,
            self.strings,
        ]
    }
}

/// Where the entries of one (direction, family) lie: outbound v4, inbound v4, outbound v6, inbound v6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// A rule: where its name lies, what it says, where its conditions lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleRecord {
    pub(crate) name: u32,
    pub(crate) name_length: u16,
    pub(crate) flags: u8,
    pub(crate) conditions: u32,
    pub(crate) condition_count: u8,
}

impl RuleRecord {
    pub(crate) const SIZE: usize = 12;

    #[inline]
    pub(crate) fn read(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            name: u32_at(bytes, 0),
            name_length: u16_at(bytes, 4),
            flags: bytes[6],
            condition_count: bytes[7],
            conditions: u32_at(bytes, 8),
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend(self.name.to_le_bytes());
        out.extend(self.name_length.to_le_bytes());
        out.extend([self.flags, self.condition_count]);
        out.extend(self.conditions.to_le_bytes());
    }
}

/// A condition: the dimension's number must lie in a range list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConditionRecord {
    pub(crate) dimension: u32,
    pub(crate) list: u32,
}

impl ConditionRecord {
    pub(crate) const SIZE: usize = 8;

    #[inline]
    pub(crate) fn read(bytes: &[u8; Self::SIZE]) -> Self {
        Self { dimension: u32_at(bytes, 0), list: u32_at(bytes, 4) }
    }

    #[cfg(feature = "std")]
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend(self.dimension.to_le_bytes());
        out.extend(self.list.to_le_bytes());
    }
}

/// What every entry holds besides addresses: 16 bytes.
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
