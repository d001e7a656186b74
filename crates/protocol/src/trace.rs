//! What the driver tells Event Tracing for Windows: its provider, and every event with its fields, as one table.
//!
//! The events are TraceLogging events: each brings the names and types of its fields along, so tools need no manifest.
//! This module makes those bytes. Their form, by TraceLoggingProvider.h and "Provider Traits" (win32 documentation): a
//! length that counts itself; for an event a tag, here none; the name; for each field its name, its type, and, where the
//! type's top bit is set, how to show it.

mod table;

pub use table::{DECISION_FIELDS, EVENTS, METADATA, TraceEvent};

/// The provider's name.
pub const PROVIDER: &str = "Sluicegate";

/// The provider's GUID, which tools derive from its name: SHA-1 of a fixed namespace and the name in upper case and
/// UTF-16BE, cut to a GUID of version 5. `tracelog -guid *Sluicegate` and the like find it by that.
pub const PROVIDER_ID: u128 = 0x5707a1fc_de6f_5890_a761_edd98108d4d7;

/// The provider's traits: its name.
pub const TRAITS: &[u8] = &{
    let mut traits = [0; PROVIDER.len() + 3];
    let end = put(&mut traits, 2, PROVIDER);
    finish(traits, end)
};

/// What an event is about; a session names those that it wants, and gets every event if it names none.
pub mod keyword {
    /// The driver was loaded or unloaded.
    pub const DRIVER: u64 = 0x1;
    /// A policy was put in force or refused.
    pub const POLICY: u64 = 0x2;
    /// Something did not work.
    pub const ERROR: u64 = 0x4;
    /// Each decision on a connection or packet.
    pub const DECISION: u64 = 0x8;

    /// Every keyword, with its name.
    pub const ALL: &[(u64, &str)] = &[(DRIVER, "driver"), (POLICY, "policy"), (ERROR, "error"), (DECISION, "decision")];
}

/// How severe an event is (winmeta.h); a session gets those of its level and of smaller ones.
pub mod level {
    /// Something does not work.
    pub const ERROR: u8 = 2;
    /// Something works, but not as it should.
    pub const WARNING: u8 = 3;
    /// What is done now and then.
    pub const INFORMATION: u8 = 4;
    /// What is done all the time.
    pub const VERBOSE: u8 = 5;

    /// Every level, with its name.
    pub const ALL: &[(u8, &str)] =
        &[(ERROR, "error"), (WARNING, "warning"), (INFORMATION, "information"), (VERBOSE, "verbose")];
}

/// One kind of event.
#[derive(Clone, Copy, Debug)]
pub struct EventType {
    /// Its name.
    pub name: &'static str,
    /// [`level`].
    pub level: u8,
    /// [`keyword`].
    pub keyword: u64,
    /// Its fields, in the order of its data.
    pub fields: &'static [Field],
}

/// A field of an event.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What its bytes are.
    pub kind: Kind,
    /// What it says.
    pub about: &'static str,
}

/// What a field's bytes are, all little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1 byte.
    U8,
    /// 2 bytes.
    U16,
    /// 2 bytes, shown in hexadecimal.
    Hex16,
    /// 4 bytes.
    U32,
    /// 4 bytes, shown as an NTSTATUS.
    Status,
    /// 4 bytes, shown as a process id.
    Process,
    /// 8 bytes.
    U64,
    /// ASCII and a NUL.
    Word,
    /// The number of bytes in 2 bytes, then UTF-8.
    Text,
    /// The number of bytes in 2 bytes, then UTF-16.
    Path,
    /// The number of bytes in 2 bytes, then a `SOCKADDR_IN` or `SOCKADDR_IN6`: address and port.
    Address,
}

/// Set in a field's type when how to show it follows.
const SHOWN: u8 = 0x80;

impl Kind {
    /// The field's type (`TlgIn`), and how to show it (`TlgOut`); 0 for as usual.
    const fn encoded(self) -> [u8; 2] {
        match self {
            Self::U8 => [4, 0],
            Self::U16 => [6, 0],
            Self::Hex16 => [6, 4],
            Self::U32 => [8, 0],
            Self::Status => [8, 14],
            Self::Process => [8, 5],
            Self::U64 => [10, 0],
            Self::Word => [2, 0],
            Self::Text => [23, 35],
            Self::Path => [22, 0],
            Self::Address => [14, 10],
        }
    }
}

impl EventType {
    /// How many bytes its metadata have.
    #[must_use]
    pub const fn metadata_bytes(&self) -> usize {
        let (mut bytes, mut at) = (3 + self.name.len() + 1, 0);
        while at < self.fields.len() {
            let [_, shown] = self.fields[at].kind.encoded();
            bytes += self.fields[at].name.len() + 2 + (shown != 0) as usize;
            at += 1;
        }
        bytes
    }

    /// Its metadata; `N` is [`Self::metadata_bytes`].
    const fn metadata<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        let (mut end, mut at) = (put(&mut bytes, 3, self.name), 0);
        while at < self.fields.len() {
            end = put(&mut bytes, end, self.fields[at].name);
            let [kind, shown] = self.fields[at].kind.encoded();
            bytes[end] = kind;
            end += 1;
            if shown != 0 {
                bytes[end - 1] |= SHOWN;
                bytes[end] = shown;
                end += 1;
            }
            at += 1;
        }
        finish(bytes, end)
    }
}

/// Puts a name and its NUL at `at`; where they end.
const fn put<const N: usize>(bytes: &mut [u8; N], at: usize, name: &str) -> usize {
    let (name, mut done) = (name.as_bytes(), 0);
    while done < name.len() {
        assert!(name[done] != 0 && name[done].is_ascii(), "names are ASCII");
        bytes[at + done] = name[done];
        done += 1;
    }
    at + done + 1
}

/// Puts the length at the front.
const fn finish<const N: usize>(mut bytes: [u8; N], end: usize) -> [u8; N] {
    assert!(end == N && N <= u16::MAX as usize, "N is the number of bytes");
    let [low, high] = (N as u16).to_le_bytes();
    (bytes[0], bytes[1]) = (low, high);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sha1::{Digest, Sha1};

    use super::*;

    /// As TraceLogging derives it.
    fn id_of(name: &str) -> u128 {
        const NAMESPACE: u128 = 0x482C2DB2_C390_47C8_87F8_1A15BFC130FB;
        let mut hash = Sha1::new();
        hash.update(NAMESPACE.to_be_bytes());
        for unit in name.to_uppercase().encode_utf16() {
            hash.update(unit.to_be_bytes());
        }
        let mut id = *hash.finalize().first_chunk::<16>().unwrap();
        id[7] = id[7] & 0x0f | 0x50;
        // The first three members of a GUID are little-endian numbers.
        id[..4].reverse();
        id[4..6].reverse();
        id[6..8].reverse();
        u128::from_be_bytes(id)
    }

    #[test]
    fn the_providers_guid_is_that_of_its_name() {
        // The example of Microsoft's `tracelogging` crate.
        assert_eq!(id_of("MyProvider"), 0xb3864c38_4273_58c5_545b_8b3608343471);
        assert_eq!(id_of(PROVIDER), PROVIDER_ID);
    }

    #[test]
    fn the_bytes_are_those_of_tracelogging() {
        assert_eq!(TRAITS, b"\x0d\0Sluicegate\0");
        const FIELDS: &[Field] = &[
            Field { name: "Rules", kind: Kind::U32, about: "" },
            Field { name: "Status", kind: Kind::Status, about: "" },
        ];
        const EVENT: EventType = EventType { name: "Met", level: 4, keyword: 1, fields: FIELDS };
        assert_eq!(&EVENT.metadata::<{ EVENT.metadata_bytes() }>(), b"\x17\0\0Met\0Rules\0\x08Status\0\x88\x0e");
    }

    #[test]
    fn the_table_is_sound() {
        for (event, metadata) in EVENTS.iter().zip(METADATA) {
            assert_eq!(metadata.len(), event.metadata_bytes(), "{}", event.name);
            assert!(keyword::ALL.iter().any(|(keyword, _)| *keyword == event.keyword), "{}", event.name);
            assert!(level::ALL.iter().any(|(level, _)| *level == event.level), "{}", event.name);
            let names: BTreeSet<_> = event.fields.iter().map(|field| field.name).collect();
            assert_eq!(names.len(), event.fields.len(), "{}: two fields of one name", event.name);
        }
        let names: BTreeSet<_> = EVENTS.iter().map(|event| event.name).collect();
        assert_eq!(names.len(), EVENTS.len());
    }
}
