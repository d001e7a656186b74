//! Elements as records.

use super::ReadError;
use super::tree::Node;
use crate::Key;
use crate::record::{Action, Callout, Condition, Field, Filter, Layer, Provider, Sublayer, Value};
use filter_engine::condition::ConditionValue;
use filter_engine::security::{SecurityDescriptor, Sid};
use std::net::{Ipv4Addr, Ipv6Addr};

/// displayData: name and description.
fn display(node: &Node) -> (String, String) {
    let shown = node.child("displayData");
    let text = |name: &str| shown.map(|shown| shown.owned(name)).unwrap_or_default();
    (text("name"), text("description"))
}

fn key(node: &Node, name: &str) -> Result<Key, ReadError> {
    node.require_text(name).map(Key::parse)
}

fn provider_of(node: &Node) -> Option<Key> {
    node.text_of("providerKey").map(Key::parse)
}

pub(super) fn provider(node: &Node) -> Result<Provider, ReadError> {
    let (name, description) = display(node);
    let service = node.text_of("serviceName").map(str::to_owned);
    Ok(Provider { key: key(node, "providerKey")?, name, description, flags: node.items_of("flags"), service })
}

pub(super) fn sublayer(node: &Node) -> Result<Sublayer, ReadError> {
    let (name, description) = display(node);
    Ok(Sublayer {
        key: key(node, "subLayerKey")?,
        name,
        description,
        flags: node.items_of("flags"),
        provider: provider_of(node),
        weight: node.require_number("weight")?,
    })
}

pub(super) fn callout(node: &Node) -> Result<Callout, ReadError> {
    let (name, description) = display(node);
    Ok(Callout {
        key: key(node, "calloutKey")?,
        name,
        description,
        flags: node.items_of("flags"),
        provider: provider_of(node),
        layer: key(node, "applicableLayer")?,
        id: node.number_of("calloutId")?,
    })
}

pub(super) fn layer(node: &Node) -> Result<Layer, ReadError> {
    let fields = node.child("field").map(|fields| fields.children.as_slice()).unwrap_or_default();
    Ok(Layer {
        key: key(node, "layerKey")?,
        name: display(node).0,
        flags: node.items_of("flags"),
        id: node.require_number("layerId")?,
        fields: fields
            .iter()
            .map(|field| Ok(Field { key: key(field, "fieldKey")?, data_type: field.owned("dataType") }))
            .collect::<Result<_, ReadError>>()?,
    })
}

pub(super) fn filter(node: &Node) -> Result<Filter, ReadError> {
    let (name, description) = display(node);
    let conditions = node.child("filterCondition").map(|all| all.children.as_slice()).unwrap_or_default();
    let action = node.require("action")?;
    let kind = Action::parse(action.require_text("type")?);
    // netsh prints a callout's key as filterType; others' readers also know a calloutKey.
    let callout = action.text_of("filterType").or_else(|| action.text_of("calloutKey")).map(Key::parse);
    let weight = match node.child("effectiveWeight") {
        Some(weight) => weight.number_of("uint64")?,
        None => None,
    };
    Ok(Filter {
        id: node.require_number("filterId")?,
        key: key(node, "filterKey")?,
        name,
        description,
        flags: node.items_of("flags"),
        provider: provider_of(node),
        layer: key(node, "layerKey")?,
        sublayer: key(node, "subLayerKey")?,
        weight,
        conditions: conditions.iter().map(condition).collect::<Result<_, _>>()?,
        callout: callout.filter(|_| kind.asks_callout()),
        action: kind,
    })
}

fn condition(node: &Node) -> Result<Condition, ReadError> {
    Ok(Condition {
        field: key(node, "fieldKey")?,
        match_type: node.require_text("matchType")?.to_owned(),
        value: value(node.require("conditionValue")?)?,
    })
}

/// A value by its type. One of a type that is not known here stays what it is.
fn value(node: &Node) -> Result<Value, ReadError> {
    let kind = node.require_text("type")?;
    let member = |name: &str| node.require(name);
    let known = match kind {
        "FWP_EMPTY" => ConditionValue::Empty,
        "FWP_UINT8" => ConditionValue::Uint8(member("uint8")?.number()?),
        "FWP_UINT16" => ConditionValue::Uint16(member("uint16")?.number()?),
        "FWP_UINT32" => ConditionValue::Uint32(number_or_address(member("uint32")?)?),
        "FWP_UINT64" => ConditionValue::Uint64(member("uint64")?.number()?),
        "FWP_INT8" => ConditionValue::Int8(member("int8")?.number()?),
        "FWP_INT16" => ConditionValue::Int16(member("int16")?.number()?),
        "FWP_INT32" => ConditionValue::Int32(member("int32")?.number()?),
        "FWP_INT64" => ConditionValue::Int64(member("int64")?.number()?),
        "FWP_FLOAT" => ConditionValue::Float(member("float32")?.number()?),
        "FWP_DOUBLE" => ConditionValue::Double(member("double64")?.number()?),
        "FWP_BYTE_ARRAY16_TYPE" => ConditionValue::ByteArray16(v6(member("byteArray16")?)?.octets()),
        "FWP_BYTE_ARRAY6_TYPE" => {
            let member = member("byteArray6")?;
            let bytes = hex(member)?;
            let bytes = bytes.try_into().map_err(|_| malformed(member, "twelve hexadecimal digits"))?;
            ConditionValue::ByteArray6(bytes)
        }
        "FWP_BYTE_BLOB_TYPE" => {
            // An empty blob has no parts.
            let blob = member("byteBlob")?;
            ConditionValue::ByteBlob(blob.child("data").map(hex).transpose()?.unwrap_or_default())
        }
        "FWP_SID" => {
            let member = member("sid")?;
            match Sid::from_text(member.text.trim()) {
                Some(sid) => ConditionValue::Sid(sid.bytes().to_vec()),
                None => return Err(malformed(member, "a SID, as in S-1-5-18,")),
            }
        }
        "FWP_SECURITY_DESCRIPTOR_TYPE" => {
            let text = member("sd")?.text.trim();
            match SecurityDescriptor::from_sddl(text) {
                Some(bytes) => ConditionValue::SecurityDescriptor(bytes),
                None => return Ok(Value::Unknown { kind: kind.to_owned(), text: text.to_owned() }),
            }
        }
        "FWP_UNICODE_STRING_TYPE" => {
            ConditionValue::UnicodeString(member("unicodeString")?.text.encode_utf16().collect())
        }
        "FWP_V4_ADDR_MASK" => {
            let both = member("v4AddrMask")?;
            let part = |name: &str| both.require(name).and_then(number_or_address);
            ConditionValue::V4AddrMask { addr: part("addr")?, mask: part("mask")? }
        }
        "FWP_V6_ADDR_MASK" => {
            let both = member("v6AddrMask")?;
            let addr = v6(both.require("addr")?)?.octets();
            ConditionValue::V6AddrMask { addr, prefix_length: both.require_number("prefixLength")? }
        }
        "FWP_RANGE_TYPE" => {
            let range = member("rangeValue")?;
            let end = |name: &str| match value(range.require(name)?)? {
                Value::Known(ConditionValue::Range { .. }) => Err(malformed(range, "two values that are no ranges")),
                value => Ok(value),
            };
            match (end("valueLow")?, end("valueHigh")?) {
                (Value::Known(low), Value::Known(high)) => {
                    ConditionValue::Range { low: Box::new(low), high: Box::new(high) }
                }
                _ => return Ok(Value::Unknown { kind: kind.to_owned(), text: String::new() }),
            }
        }
        other => {
            let text = node.children.iter().find(|child| &*child.name != "type").map(|child| child.text.trim());
            return Ok(Value::Unknown { kind: other.to_owned(), text: text.unwrap_or_default().to_owned() });
        }
    };
    Ok(Value::Known(known))
}

fn malformed(node: &Node, expected: &str) -> ReadError {
    let shown: String = node.text.trim().chars().take(60).collect();
    ReadError::at(node.line, format!("<{}> is {shown:?}: {expected} was expected", node.name))
}

/// A UINT32, which is dotted where the field is an address.
fn number_or_address(node: &Node) -> Result<u32, ReadError> {
    let text = node.text.trim();
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => text.parse().map_err(|_| malformed(node, "a number or an IPv4 address")),
    }
}

fn v6(node: &Node) -> Result<Ipv6Addr, ReadError> {
    node.text.trim().parse().map_err(|_| malformed(node, "an IPv6 address"))
}

/// Hexadecimal digits as bytes.
pub(super) fn hex(node: &Node) -> Result<Vec<u8>, ReadError> {
    let digits = node.text.trim().as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let pairs = digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?));
    pairs.collect::<Option<_>>().ok_or_else(|| malformed(node, "an even number of hexadecimal digits"))
}
