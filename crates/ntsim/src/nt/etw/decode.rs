//! TraceLogging: events that bring the names and types of their fields along.
//!
//! The provider's traits begin with their own length and the provider's name ("Provider Traits", win32 documentation). An
//! event's metadata begin with their own length, a tag of one to four bytes, of which all but the last have their top bit
//! set, and the event's name; then follows for each field its name, its type, and, where the type's top bit is set, how
//! to show it, and, where that byte's top bit is set, a tag. The data are the fields one after another. Numbers of
//! types: `InType` and `OutType` of Microsoft's `tracelogging` crate, which are those of TraceLoggingProvider.h.

use super::session::{Record, Written};
use core::fmt;
use std::net::{IpAddr, SocketAddr};

/// Whether more of a chain of bytes follows.
const CHAIN: u8 = 0x80;
/// Fields that are arrays.
const ARRAYS: u8 = 0x60;

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An unsigned number.
    Number(u64),
    /// A signed number.
    Signed(i64),
    /// A number to be shown in hexadecimal: a mask, an address, an NTSTATUS.
    Hex(u64),
    /// A text.
    Text(String),
    /// An address and port of a `SOCKADDR_IN` or `SOCKADDR_IN6`.
    Address(SocketAddr),
    /// Bytes without a meaning of their own.
    Bytes(Vec<u8>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "{value}"),
            Self::Hex(value) => write!(f, "{value:#x}"),
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => write!(f, "{address}"),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// How to show a value (`OutType`), as far as it makes a difference here.
mod shown {
    pub(super) const HEX: u8 = 4;
    pub(super) const SOCKET_ADDRESS: u8 = 10;
    pub(super) const NTSTATUS: u8 = 14;
}

/// Reads an event into `record`: its names and fields.
pub(super) fn event(written: &Written<'_>, record: &mut Record) -> Result<(), String> {
    if let Some(traits) = written.traits {
        record.provider = traits_name(traits)?;
    }
    let Some(metadata) = written.metadata else {
        record.fields.push((String::new(), Value::Bytes(written.data.to_vec())));
        return Ok(());
    };
    let mut metadata = Reader(sized(metadata, "the event's metadata")?);
    metadata.tag("the event's tag")?;
    record.event = metadata.name("the event's name")?;
    let mut data = Reader(written.data);
    while !metadata.0.is_empty() {
        let name = metadata.name("a field's name")?;
        let (kind, show) = metadata.types(&name)?;
        let value = data.value(kind, show).map_err(|why| format!("the field {name}: {why}"))?;
        record.fields.push((name, value));
    }
    match data.0.len() {
        0 => Ok(()),
        rest => Err(format!("{rest} bytes follow the last field")),
    }
}

/// The provider's name in its traits.
pub(super) fn traits_name(traits: &[u8]) -> Result<String, String> {
    let name = Reader(sized(traits, "the provider's traits")?).name("the provider's name")?;
    if name.is_empty() { Err("the provider's name is empty".to_owned()) } else { Ok(name) }
}

/// What follows a length that counts itself and must be that of the whole.
fn sized<'a>(whole: &'a [u8], what: &str) -> Result<&'a [u8], String> {
    let (length, rest) = whole.split_first_chunk().ok_or_else(|| format!("{what} have no length"))?;
    let length = usize::from(u16::from_le_bytes(*length));
    if length == whole.len() { Ok(rest) } else { Err(format!("{what} say {length} bytes and have {}", whole.len())) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| format!("{what} is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &str) -> Result<u8, String> {
        Ok(self.bytes(1, what)?[0])
    }

    fn tag(&mut self, what: &str) -> Result<(), String> {
        for _ in 0..4 {
            if self.byte(what)? & CHAIN == 0 {
                return Ok(());
            }
        }
        Err(format!("{what} is longer than four bytes"))
    }

    /// UTF-8 up to a NUL.
    fn name(&mut self, what: &str) -> Result<String, String> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or_else(|| format!("{what} has no end"))?;
        let name = self.bytes(end, what)?;
        self.0 = &self.0[1..];
        String::from_utf8(name.to_vec()).map_err(|_| format!("{what} is not UTF-8"))
    }

    /// A field's type, and how to show it.
    fn types(&mut self, name: &str) -> Result<(u8, u8), String> {
        let kind = self.byte(name)?;
        if kind & CHAIN == 0 {
            return Ok((kind, 0));
        }
        let show = self.byte(name)?;
        if show & CHAIN != 0 {
            self.tag(name)?;
        }
        Ok((kind & !CHAIN, show & !CHAIN))
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        let taken = self.bytes(bytes, "its value")?;
        Ok(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, bytes: usize) -> Result<Value, String> {
        let unused = 64 - 8 * bytes as u32;
        Ok(Value::Signed((self.number(bytes)? << unused).cast_signed() >> unused))
    }

    fn counted(&mut self) -> Result<&'a [u8], String> {
        let count = self.number(2)? as usize;
        self.bytes(count, "its value")
    }

    /// UTF-16 up to a NUL.
    fn terminated_utf16(&mut self) -> Result<Value, String> {
        let mut units = Vec::new();
        loop {
            match self.number(2)? as u16 {
                0 => return Ok(Value::Text(String::from_utf16_lossy(&units))),
                unit => units.push(unit),
            }
        }
    }

    fn value(&mut self, kind: u8, show: u8) -> Result<Value, String> {
        let unsigned = |number| {
            if matches!(show, shown::HEX | shown::NTSTATUS) { Value::Hex(number) } else { Value::Number(number) }
        };
        Ok(match kind {
            1 => self.terminated_utf16()?,
            2 => Value::Text(self.name("its value")?),
            3 => self.signed(1)?,
            4 => unsigned(self.number(1)?),
            5 => self.signed(2)?,
            6 => unsigned(self.number(2)?),
            7 => self.signed(4)?,
            8 | 13 => unsigned(self.number(4)?),
            9 => self.signed(8)?,
            10 | 17 => unsigned(self.number(8)?),
            14 | 25 if show == shown::SOCKET_ADDRESS => Value::Address(socket_address(self.counted()?)?),
            14 | 25 => Value::Bytes(self.counted()?.to_vec()),
            15 => Value::Bytes(self.bytes(16, "its value")?.to_vec()),
            20 => Value::Hex(self.number(4)?),
            21 => Value::Hex(self.number(8)?),
            22 => {
                let units = self.counted()?;
                let (pairs, []) = units.as_chunks() else { return Err("half a UTF-16 unit".to_owned()) };
                let units: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
                Value::Text(String::from_utf16_lossy(&units))
            }
            23 => Value::Text(String::from_utf8_lossy(self.counted()?).into_owned()),
            _ if kind & ARRAYS != 0 => return Err(format!("type {kind:#x} is an array, which ntsim does not decode")),
            _ => return Err(format!("type {kind} is none that ntsim decodes")),
        })
    }
}

/// Reads a `SOCKADDR_IN` or `SOCKADDR_IN6` (ws2def.h, ws2ipdef.h).
fn socket_address(bytes: &[u8]) -> Result<SocketAddr, String> {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 23;
    let word = |at: usize| bytes.get(at..at + 2).map(|two| [two[0], two[1]]);
    let (family, port) = word(0).zip(word(2)).ok_or("a socket address without family or port")?;
    let port = u16::from_be_bytes(port);
    let address = match (u16::from_le_bytes(family), bytes.len()) {
        (AF_INET, 16) => bytes[4..].first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        (AF_INET6, 28) => bytes[8..].first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        (family, length) => return Err(format!("a socket address of family {family} with {length} bytes")),
    };
    address.map(|address| SocketAddr::new(address, port)).ok_or_else(|| "a socket address cut short".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nt_abi::Irql;

    fn decoded(metadata: &[u8], data: &[u8]) -> Record {
        let mut record = Record {
            provider: String::new(),
            event: String::new(),
            channel: 11,
            level: 4,
            keyword: 1,
            irql: Irql::PASSIVE,
            fields: Vec::new(),
            fault: None,
        };
        let metadata = [&(metadata.len() as u16 + 2).to_le_bytes(), metadata].concat();
        let traits = b"\x07\0Test\0";
        let written =
            Written { channel: 11, level: 4, keyword: 1, traits: Some(traits), metadata: Some(&metadata), data };
        record.fault = event(&written, &mut record).err();
        record
    }

    #[test]
    fn the_names_and_values_of_fields_are_read() {
        let metadata = b"\0Met\0One\0\x04Two\0\x88\x0eThree\0\x17Four\0\x07Five\0\x8e\x0aSix\0\x02Seven\0\x16";
        let data = b"\x07\x34\x00\x00\xc0\x02\0ab\xff\xff\xff\xff\x10\0\x02\0\x01\xbb\xcb\0\x71\x42\0\0\0\0\0\0\0\0text\0\x02\0a\0";
        let record = decoded(metadata, data);
        assert_eq!(record.fault, None);
        assert_eq!((record.provider.as_str(), record.event.as_str()), ("Test", "Met"));
        let shown: Vec<String> = record.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let wanted = ["One=7", "Two=0xc0000034", "Three=ab", "Four=-1", "Five=203.0.113.66:443", "Six=text", "Seven=a"];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn tags_are_passed_over() {
        let record = decoded(b"\x81\x01E\0Field\0\x84\x84\x81\x01", b"\x2a");
        assert_eq!((record.fault, record.event.as_str()), (None, "E"));
        assert_eq!(record.fields, [("Field".to_owned(), Value::Hex(42))]);
    }

    #[test]
    fn what_no_tool_could_decode_is_said() {
        let fault = |metadata: &[u8], data: &[u8]| decoded(metadata, data).fault.unwrap_or_default();
        assert_eq!(fault(b"\0E\0F\0\x08", b"\x01\x02\x03"), "the field F: its value is cut short");
        assert_eq!(fault(b"\0E\0F\0\x04", b"\x01\x02"), "1 bytes follow the last field");
        assert_eq!(fault(b"\0E\0F\0\x44", b"\x01"), "the field F: type 0x44 is an array, which ntsim does not decode");
        assert_eq!(fault(b"\0E", b""), "the event's name has no end");
        assert_eq!(
            fault(b"\0E\0F\0\x8e\x0a", b"\x03\0\x02\0\0"),
            "the field F: a socket address without family or port"
        );
        let short =
            Written { channel: 11, level: 4, keyword: 1, traits: Some(b"\x05\0a\0"), metadata: None, data: b"" };
        let mut record = decoded(b"\0E\0", b"");
        assert_eq!(event(&short, &mut record), Err("the provider's traits say 5 bytes and have 4".to_owned()));
    }
}
