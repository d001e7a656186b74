//! Condition values and their parts.

use super::Xml;
use crate::condition::ConditionValue;
use crate::security::{SecurityDescriptor, sid_text};
use nt_abi::fwp::consts;
use sluice_host::MatchType;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Lower-case hexadecimal digits without separators.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A blob that holds a UTF-16 string, without its terminating NUL: how a condition's reads.
pub(super) fn wide(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(units.strip_suffix(&[0]).unwrap_or(&units))
}

/// One character per byte: a printable byte as it is, any other as a dot: how every other blob reads.
pub(super) fn printable(bytes: &[u8]) -> String {
    let plain = |byte: u8| matches!(byte, 0x20..=0x7E) && !matches!(byte, b'&' | b'<' | b'>');
    bytes.iter().map(|byte| if plain(*byte) { char::from(*byte) } else { '.' }).collect()
}

/// The name of an `FWP_DATA_TYPE`, or its number.
#[must_use]
pub fn data_type_name(data_type: u32) -> String {
    let name = match data_type {
        consts::FWP_EMPTY => "EMPTY",
        consts::FWP_UINT8 => "UINT8",
        consts::FWP_UINT16 => "UINT16",
        consts::FWP_UINT32 => "UINT32",
        consts::FWP_UINT64 => "UINT64",
        consts::FWP_INT8 => "INT8",
        consts::FWP_INT16 => "INT16",
        consts::FWP_INT32 => "INT32",
        consts::FWP_INT64 => "INT64",
        consts::FWP_FLOAT => "FLOAT",
        consts::FWP_DOUBLE => "DOUBLE",
        consts::FWP_BYTE_ARRAY16_TYPE => "BYTE_ARRAY16_TYPE",
        consts::FWP_BYTE_BLOB_TYPE => "BYTE_BLOB_TYPE",
        consts::FWP_SID => "SID",
        consts::FWP_SECURITY_DESCRIPTOR_TYPE => "SECURITY_DESCRIPTOR_TYPE",
        consts::FWP_TOKEN_ACCESS_INFORMATION_TYPE => "TOKEN_ACCESS_INFORMATION_TYPE",
        consts::FWP_UNICODE_STRING_TYPE => "UNICODE_STRING_TYPE",
        consts::FWP_BYTE_ARRAY6_TYPE => "BYTE_ARRAY6_TYPE",
        consts::FWP_V4_ADDR_MASK => "V4_ADDR_MASK",
        consts::FWP_V6_ADDR_MASK => "V6_ADDR_MASK",
        consts::FWP_RANGE_TYPE => "RANGE_TYPE",
        other => return format!("FWP_DATA_TYPE {other}"),
    };
    format!("FWP_{name}")
}

/// `FWP_MATCH_*`.
#[must_use]
pub fn match_type_name(match_type: MatchType) -> &'static str {
    match match_type {
        MatchType::Equal => "FWP_MATCH_EQUAL",
        MatchType::Greater => "FWP_MATCH_GREATER",
        MatchType::Less => "FWP_MATCH_LESS",
        MatchType::GreaterOrEqual => "FWP_MATCH_GREATER_OR_EQUAL",
        MatchType::LessOrEqual => "FWP_MATCH_LESS_OR_EQUAL",
        MatchType::Range => "FWP_MATCH_RANGE",
        MatchType::FlagsAllSet => "FWP_MATCH_FLAGS_ALL_SET",
        MatchType::FlagsAnySet => "FWP_MATCH_FLAGS_ANY_SET",
        MatchType::FlagsNoneSet => "FWP_MATCH_FLAGS_NONE_SET",
        MatchType::EqualCaseInsensitive => "FWP_MATCH_EQUAL_CASE_INSENSITIVE",
        MatchType::NotEqual => "FWP_MATCH_NOT_EQUAL",
        MatchType::Prefix => "FWP_MATCH_PREFIX",
        MatchType::NotPrefix => "FWP_MATCH_NOT_PREFIX",
    }
}

impl<W: Write> Xml<W> {
    /// The type and the member it selects; `address` when the field is an IP address, whose UINT32 is dotted.
    pub(super) fn value(&mut self, value: &ConditionValue, address: bool) -> io::Result<()> {
        use ConditionValue as C;
        let named = |xml: &mut Self, kind: &str, member: &str, text: String| {
            xml.text("type", kind)?;
            xml.text(member, text)
        };
        match value {
            C::Empty => self.text("type", "FWP_EMPTY"),
            C::Uint8(v) => named(self, "FWP_UINT8", "uint8", v.to_string()),
            C::Uint16(v) => named(self, "FWP_UINT16", "uint16", v.to_string()),
            C::Uint32(v) if address => named(self, "FWP_UINT32", "uint32", Ipv4Addr::from(*v).to_string()),
            C::Uint32(v) => named(self, "FWP_UINT32", "uint32", v.to_string()),
            C::Uint64(v) => named(self, "FWP_UINT64", "uint64", v.to_string()),
            C::Int8(v) => named(self, "FWP_INT8", "int8", v.to_string()),
            C::Int16(v) => named(self, "FWP_INT16", "int16", v.to_string()),
            C::Int32(v) => named(self, "FWP_INT32", "int32", v.to_string()),
            C::Int64(v) => named(self, "FWP_INT64", "int64", v.to_string()),
            C::Float(v) => named(self, "FWP_FLOAT", "float32", v.to_string()),
            C::Double(v) => named(self, "FWP_DOUBLE", "double64", v.to_string()),
            C::ByteArray16(v) => named(self, "FWP_BYTE_ARRAY16_TYPE", "byteArray16", Ipv6Addr::from(*v).to_string()),
            C::ByteArray6(v) => named(self, "FWP_BYTE_ARRAY6_TYPE", "byteArray6", hex(v)),
            C::ByteBlob(v) => {
                self.text("type", "FWP_BYTE_BLOB_TYPE")?;
                self.blob("byteBlob", v, wide)
            }
            C::Sid(v) => named(self, "FWP_SID", "sid", sid_text(v)),
            C::SecurityDescriptor(v) => {
                let sddl = SecurityDescriptor::parse(v).map_or_else(|| hex(v), |descriptor| descriptor.sddl());
                named(self, "FWP_SECURITY_DESCRIPTOR_TYPE", "sd", sddl)
            }
            C::UnicodeString(v) => named(self, "FWP_UNICODE_STRING_TYPE", "unicodeString", String::from_utf16_lossy(v)),
            C::V4AddrMask { addr, mask } => {
                self.text("type", "FWP_V4_ADDR_MASK")?;
                self.element("v4AddrMask", |xml| {
                    xml.text("addr", Ipv4Addr::from(*addr))?;
                    xml.text("mask", Ipv4Addr::from(*mask))
                })
            }
            C::V6AddrMask { addr, prefix_length } => {
                self.text("type", "FWP_V6_ADDR_MASK")?;
                self.element("v6AddrMask", |xml| {
                    xml.text("addr", Ipv6Addr::from(*addr))?;
                    xml.text("prefixLength", prefix_length)
                })
            }
            C::Range { low, high } => {
                self.text("type", "FWP_RANGE_TYPE")?;
                self.element("rangeValue", |xml| {
                    xml.element("valueLow", |xml| xml.value(low, address))?;
                    xml.element("valueHigh", |xml| xml.value(high, address))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_the_two_rules_say() {
        assert_eq!(wide(&[b'a', 0, b'b', 0, 0, 0]), "ab");
        assert_eq!(printable(b"a<\x00&~\x7F"), "a...~.");
        assert_eq!(hex(&[0, 0xAB]), "00ab");
    }
}
