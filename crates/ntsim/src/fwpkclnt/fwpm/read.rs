//! Reads the structures that drivers pass.

use super::null;
use filter_engine::bfe::{Callout, DisplayData, Filter, FilterContext, Provider, ProviderContext, Sublayer};
use filter_engine::condition::{Condition, ConditionValue, match_type};
use filter_engine::{BfeError, BfeResult};
use nt_abi::NtStatus;
use nt_abi::fwp::value::{blob_bytes, sid_bytes, wide};
use nt_abi::fwp::{
    FwpByteBlob, FwpValue0, FwpmCallout0, FwpmDisplayData0, FwpmFilter0, FwpmProvider0, FwpmProviderContext0,
    FwpmSublayer0, RawGuid, consts,
};
use sluice_host::{Guid, Weight};

/// A GUID, unless it is zero.
pub(super) fn nonzero(guid: RawGuid) -> Option<Guid> {
    Some(Guid::from(guid)).filter(|guid| *guid != Guid(0))
}

/// # Safety
/// The strings are null or NUL-terminated.
unsafe fn text(text: *const u16) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| String::from_utf16_lossy(unsafe { wide(text) }))
}

/// # Safety
/// The strings are null or NUL-terminated.
pub(super) unsafe fn display(raw: &FwpmDisplayData0) -> DisplayData {
    // SAFETY: the caller's promise.
    unsafe { DisplayData { name: text(raw.name), description: text(raw.description) } }
}

/// # Safety
/// The key is null or a GUID.
unsafe fn optional(key: *const RawGuid) -> Option<Guid> {
    // SAFETY: the caller's promise.
    unsafe { key.as_ref() }.map(|key| Guid::from(*key))
}

/// # Safety
/// The blob's data is readable.
unsafe fn bytes(blob: &FwpByteBlob) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe { blob_bytes(blob) }.to_vec()
}

/// # Safety
/// As FwpmProviderAdd0 asks of a driver.
pub(super) unsafe fn provider(raw: &FwpmProvider0) -> Provider {
    // SAFETY: the caller's promise.
    unsafe {
        Provider {
            key: raw.provider_key.into(),
            display: display(&raw.display_data),
            flags: raw.flags,
            data: bytes(&raw.provider_data),
            service: text(raw.service_name),
        }
    }
}

/// # Safety
/// As FwpmSubLayerAdd0 asks of a driver.
pub(super) unsafe fn sublayer(raw: &FwpmSublayer0) -> Sublayer {
    // SAFETY: the caller's promise.
    unsafe {
        Sublayer {
            key: raw.sub_layer_key.into(),
            display: display(&raw.display_data),
            flags: raw.flags,
            provider: optional(raw.provider_key),
            data: bytes(&raw.provider_data),
            weight: raw.weight,
        }
    }
}

/// # Safety
/// As FwpmCalloutAdd0 asks of a driver.
pub(super) unsafe fn callout(raw: &FwpmCallout0) -> Callout {
    // SAFETY: the caller's promise.
    unsafe {
        Callout {
            key: raw.callout_key.into(),
            display: display(&raw.display_data),
            flags: raw.flags,
            provider: optional(raw.provider_key),
            data: bytes(&raw.provider_data),
            layer: raw.applicable_layer.into(),
        }
    }
}

/// # Safety
/// As FwpmProviderContextAdd0 asks of a driver.
pub(super) unsafe fn provider_context(raw: &FwpmProviderContext0) -> BfeResult<ProviderContext> {
    if raw.kind != consts::FWPM_GENERAL_CONTEXT {
        let what = format!("provider context of type {}: only FWPM_GENERAL_CONTEXT is supported", raw.kind);
        return Err(BfeError::new(NtStatus::NOT_SUPPORTED, what));
    }
    // SAFETY: valid by this function's contract; the data of an FWPM_GENERAL_CONTEXT, checked above, is a blob. All of
    // it is copied.
    unsafe {
        Ok(ProviderContext {
            key: raw.provider_context_key.into(),
            display: display(&raw.display_data),
            flags: raw.flags,
            provider: optional(raw.provider_key),
            data: bytes(&raw.provider_data),
            buffer: blob_bytes(raw.data.cast()).to_vec(),
        })
    }
}

/// # Safety
/// As FwpmFilterAdd0 asks of a driver.
pub(super) unsafe fn filter(raw: &FwpmFilter0) -> BfeResult<Filter> {
    // SAFETY: by this function's contract the type and the flags say which union member is set, and `filter_condition`
    // has as many conditions as the count says; null is checked. All of it is copied.
    unsafe {
        let weight = match raw.weight.kind {
            consts::FWP_EMPTY => Weight::Auto,
            consts::FWP_UINT8 => Weight::Range(raw.weight.value.uint8),
            consts::FWP_UINT64 => {
                Weight::Exact(*raw.weight.value.uint64.as_ref().ok_or_else(|| null("weight.uint64"))?)
            }
            other => {
                let what = format!("a weight of type {other}: FWP_EMPTY, FWP_UINT8 or FWP_UINT64 are allowed");
                return Err(BfeError::new(NtStatus::FWP_INVALID_WEIGHT, what));
            }
        };
        let conditions = match raw.num_filter_conditions {
            0 => &[],
            _ if raw.filter_condition.is_null() => return Err(null("filterCondition")),
            count => core::slice::from_raw_parts(raw.filter_condition, count as usize),
        };
        let mut read = Vec::with_capacity(conditions.len());
        for condition in conditions {
            read.push(Condition {
                field: condition.field_key.into(),
                match_type: match_type(condition.match_type).ok_or_else(|| {
                    let what = format!("match type {}", condition.match_type);
                    BfeError::new(NtStatus::FWP_MATCH_TYPE_MISMATCH, what)
                })?,
                value: value(&condition.condition_value)?,
            });
        }
        let has_context = raw.flags & consts::FWPM_FILTER_FLAG_HAS_PROVIDER_CONTEXT != 0;
        Ok(Filter {
            key: raw.filter_key.into(),
            display: display(&raw.display_data),
            flags: raw.flags,
            provider: optional(raw.provider_key),
            data: bytes(&raw.provider_data),
            layer: raw.layer_key.into(),
            sublayer: raw.sub_layer_key.into(),
            weight,
            conditions: read,
            action: raw.action.kind,
            action_key: raw.action.key.into(),
            context: match has_context {
                true => FilterContext::Provider(raw.context.provider_context_key.into()),
                false => FilterContext::Raw(raw.context.raw_context),
            },
        })
    }
}

/// Reads an `FWP_CONDITION_VALUE0`.
///
/// # Safety
/// The member that the type selects is set; a pointer is null or points to its type.
unsafe fn value(raw: &FwpValue0) -> BfeResult<ConditionValue> {
    use ConditionValue as C;
    let FwpValue0 { kind, value } = *raw;
    // SAFETY: the caller's promise.
    unsafe {
        let by_pointer = kind > consts::FWP_UINT32 && !(consts::FWP_INT8..=consts::FWP_INT32).contains(&kind);
        if by_pointer && kind != consts::FWP_FLOAT && value.raw == 0 {
            return Err(null("a condition's value"));
        }
        Ok(match kind {
            consts::FWP_EMPTY => C::Empty,
            consts::FWP_UINT8 => C::Uint8(value.uint8),
            consts::FWP_UINT16 => C::Uint16(value.uint16),
            consts::FWP_UINT32 => C::Uint32(value.uint32),
            consts::FWP_UINT64 => C::Uint64(*value.uint64),
            consts::FWP_INT8 => C::Int8(value.int8),
            consts::FWP_INT16 => C::Int16(value.int16),
            consts::FWP_INT32 => C::Int32(value.int32),
            consts::FWP_INT64 => C::Int64(*value.int64),
            consts::FWP_FLOAT => C::Float(value.float32),
            consts::FWP_DOUBLE => C::Double(*value.double64),
            consts::FWP_BYTE_ARRAY16_TYPE => C::ByteArray16(*value.byte_array16),
            consts::FWP_BYTE_ARRAY6_TYPE => C::ByteArray6(*value.byte_array6),
            consts::FWP_BYTE_BLOB_TYPE => C::ByteBlob(blob_bytes(value.byte_blob).to_vec()),
            consts::FWP_SID => C::Sid(sid_bytes(value.sid).to_vec()),
            consts::FWP_SECURITY_DESCRIPTOR_TYPE => C::SecurityDescriptor(blob_bytes(value.sd).to_vec()),
            consts::FWP_UNICODE_STRING_TYPE => C::UnicodeString(wide(value.unicode_string).to_vec()),
            consts::FWP_V4_ADDR_MASK => {
                let mask = *value.v4_addr_mask;
                C::V4AddrMask { addr: mask.addr, mask: mask.mask }
            }
            consts::FWP_V6_ADDR_MASK => {
                let mask = *value.v6_addr_mask;
                C::V6AddrMask { addr: mask.addr, prefix_length: mask.prefix_length }
            }
            consts::FWP_RANGE_TYPE => {
                let range = &*value.range;
                // The ends are single values; a range of ranges would let a driver choose the depth of this recursion.
                if range.value_low.kind == consts::FWP_RANGE_TYPE || range.value_high.kind == consts::FWP_RANGE_TYPE {
                    return Err(BfeError::new(NtStatus::FWP_TYPE_MISMATCH, "a range of ranges"));
                }
                let (low, high) = (self::value(&range.value_low)?, self::value(&range.value_high)?);
                C::Range { low: Box::new(low), high: Box::new(high) }
            }
            other => return Err(BfeError::new(NtStatus::FWP_TYPE_MISMATCH, format!("a condition of type {other}"))),
        })
    }
}
