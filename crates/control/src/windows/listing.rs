//! The objects of the Base Filtering Engine as the seam has them. Every function reads an object that an Fwpm function
//! returned and that has not been freed; what it points to is of the same allocation.

use super::convert::{action_back, guid_back, weight_back};
use sluice_host::listing::{ListedCallout, ListedCondition, ListedFilter, ListedLayer, ListedValue};
use sluice_host::{Callout, Condition, ConditionValue, FilterEntry, MatchType, Provider, Sublayer};
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform as wfp;
use windows_sys::Win32::Security::{GetLengthSid, IsValidSid, SID};
use windows_sys::core::PWSTR;

pub(super) fn provider(object: &wfp::FWPM_PROVIDER0) -> Provider {
    // SAFETY: the names are null or NUL-terminated strings of the object.
    unsafe {
        Provider {
            key: guid_back(&object.providerKey),
            name: text(object.displayData.name),
            description: text(object.displayData.description),
            persistent: object.flags & wfp::FWPM_PROVIDER_FLAG_PERSISTENT != 0,
            service: (!object.serviceName.is_null()).then(|| text(object.serviceName)),
        }
    }
}

pub(super) fn sublayer(object: &wfp::FWPM_SUBLAYER0) -> Sublayer {
    // SAFETY: the names are null or NUL-terminated strings of the object; providerKey is null or points to a GUID of it.
    unsafe {
        Sublayer {
            key: guid_back(&object.subLayerKey),
            name: text(object.displayData.name),
            description: text(object.displayData.description),
            persistent: object.flags & wfp::FWPM_SUBLAYER_FLAG_PERSISTENT != 0,
            provider: object.providerKey.as_ref().map(guid_back),
            weight: object.weight,
        }
    }
}

pub(super) fn callout(object: &wfp::FWPM_CALLOUT0) -> Callout {
    // SAFETY: as for a sublayer.
    unsafe {
        Callout {
            key: guid_back(&object.calloutKey),
            name: text(object.displayData.name),
            description: text(object.displayData.description),
            persistent: object.flags & wfp::FWPM_CALLOUT_FLAG_PERSISTENT != 0,
            provider: object.providerKey.as_ref().map(guid_back),
            layer: guid_back(&object.applicableLayer),
        }
    }
}

pub(super) fn listed_callout(object: &wfp::FWPM_CALLOUT0) -> ListedCallout {
    ListedCallout { callout: callout(object), id: object.calloutId, flags: object.flags }
}

pub(super) fn layer(object: &wfp::FWPM_LAYER0) -> ListedLayer {
    let fields = slice(object.field, object.numFields).iter().filter_map(|field| {
        // SAFETY: fieldKey is null or points to a GUID of the object.
        let key = unsafe { field.fieldKey.as_ref() }?;
        Some((guid_back(key), field.dataType as u32))
    });
    ListedLayer {
        key: guid_back(&object.layerKey),
        // SAFETY: the name is null or a NUL-terminated string of the object.
        name: unsafe { text(object.displayData.name) },
        flags: object.flags,
        id: object.layerId,
        fields: fields.collect(),
    }
}

pub(super) fn entry(filter: &wfp::FWPM_FILTER0) -> FilterEntry {
    // SAFETY: providerKey is null or points to a GUID of the object, the name is null or a NUL-terminated string of it,
    // and weight and action have the members that their types say.
    unsafe {
        FilterEntry {
            key: guid_back(&filter.filterKey),
            id: filter.filterId,
            name: text(filter.displayData.name),
            layer: guid_back(&filter.layerKey),
            provider: filter.providerKey.as_ref().map(guid_back),
            sublayer: guid_back(&filter.subLayerKey),
            flags: filter.flags,
            weight: weight_back(&filter.weight),
            conditions: slice(filter.filterCondition, filter.numFilterConditions).iter().map(known).collect(),
            action: action_back(&filter.action),
        }
    }
}

pub(super) fn filter(filter: &wfp::FWPM_FILTER0) -> ListedFilter {
    let weight = &filter.effectiveWeight;
    let effective_weight = match weight.r#type {
        // SAFETY: the type says that this member is set; it is null or points into the object.
        wfp::FWP_UINT64 => unsafe { weight.Anonymous.uint64.as_ref() }.copied(),
        _ => None,
    };
    ListedFilter {
        entry: entry(filter),
        // SAFETY: the description is null or a NUL-terminated string of the object.
        description: unsafe { text(filter.displayData.description) },
        effective_weight,
        conditions: slice(filter.filterCondition, filter.numFilterConditions).iter().map(condition).collect(),
    }
}

/// A condition as the seam's filters have it; `None` for another.
fn known(condition: &wfp::FWPM_FILTER_CONDITION0) -> Option<Condition> {
    let value = match condition_value(&condition.conditionValue)? {
        ListedValue::Plain(plain) => plain,
        ListedValue::Sid(sid) => ConditionValue::Sid(sid),
        ListedValue::SecurityDescriptor(descriptor) => ConditionValue::SecurityDescriptor(descriptor),
        ListedValue::Signed(_) | ListedValue::Bytes6(_) | ListedValue::Text(_) => return None,
    };
    let match_type = MatchType::from_number(condition.matchType as u32)?;
    Some(Condition { field: guid_back(&condition.fieldKey), match_type, value })
}

fn condition(condition: &wfp::FWPM_FILTER_CONDITION0) -> ListedCondition {
    let value = &condition.conditionValue;
    ListedCondition {
        field: guid_back(&condition.fieldKey),
        match_type: condition.matchType as u32,
        data_type: value.r#type as u32,
        value: condition_value(value),
    }
}

/// A condition's value; `None` for a type that the seam does not list.
fn condition_value(value: &wfp::FWP_CONDITION_VALUE0) -> Option<ListedValue> {
    let union = &value.Anonymous;
    // SAFETY: the type says which member is set; a pointer is null or points into the object, and a mask or range has
    // the form of its type.
    unsafe {
        Some(match value.r#type {
            wfp::FWP_V4_ADDR_MASK => {
                let mask = union.v4AddrMask.as_ref()?;
                ListedValue::Plain(ConditionValue::V4AddrMask { addr: mask.addr, mask: mask.mask })
            }
            wfp::FWP_V6_ADDR_MASK => {
                let mask = union.v6AddrMask.as_ref()?;
                ListedValue::Plain(ConditionValue::V6AddrMask { addr: mask.addr, prefix_length: mask.prefixLength })
            }
            wfp::FWP_RANGE_TYPE => {
                let range = union.rangeValue.as_ref()?;
                let end = |value| match single(value)? {
                    ListedValue::Plain(plain) => Some(Box::new(plain)),
                    _ => None,
                };
                let (low, high) = (end(&range.valueLow)?, end(&range.valueHigh)?);
                ListedValue::Plain(ConditionValue::Range { low, high })
            }
            kind => single(&wfp::FWP_VALUE0 {
                r#type: kind,
                // Every other member is at most a pointer wide, and the same in both unions.
                Anonymous: wfp::FWP_VALUE0_0 { uint64: union.uint64 },
            })?,
        })
    }
}

/// A value of a type that both FWP_VALUE0 and FWP_CONDITION_VALUE0 have.
///
/// # Safety
/// The value has the member that its type says.
unsafe fn single(value: &wfp::FWP_VALUE0) -> Option<ListedValue> {
    let union = &value.Anonymous;
    // SAFETY: the caller says so; a pointer is null or points into the object.
    unsafe {
        let plain = match value.r#type {
            wfp::FWP_EMPTY => ConditionValue::Empty,
            wfp::FWP_UINT8 => ConditionValue::Uint8(union.uint8),
            wfp::FWP_UINT16 => ConditionValue::Uint16(union.uint16),
            wfp::FWP_UINT32 => ConditionValue::Uint32(union.uint32),
            wfp::FWP_UINT64 => ConditionValue::Uint64(*union.uint64.as_ref()?),
            wfp::FWP_BYTE_ARRAY16_TYPE => ConditionValue::ByteArray16(union.byteArray16.as_ref()?.byteArray16),
            wfp::FWP_BYTE_BLOB_TYPE => ConditionValue::ByteBlob(blob(union.byteBlob.as_ref()?)),
            wfp::FWP_INT8 => return Some(ListedValue::Signed(union.int8.into())),
            wfp::FWP_INT16 => return Some(ListedValue::Signed(union.int16.into())),
            wfp::FWP_INT32 => return Some(ListedValue::Signed(union.int32.into())),
            wfp::FWP_INT64 => return Some(ListedValue::Signed(*union.int64.as_ref()?)),
            wfp::FWP_BYTE_ARRAY6_TYPE => return Some(ListedValue::Bytes6(union.byteArray6.as_ref()?.byteArray6)),
            wfp::FWP_SID => return sid(union.sid).map(ListedValue::Sid),
            wfp::FWP_SECURITY_DESCRIPTOR_TYPE => {
                return Some(ListedValue::SecurityDescriptor(blob(union.sd.as_ref()?)));
            }
            wfp::FWP_UNICODE_STRING_TYPE => {
                return Some(ListedValue::Text(units(union.unicodeString)));
            }
            _ => return None,
        };
        Some(ListedValue::Plain(plain))
    }
}

/// A copy of a blob's bytes.
pub(super) fn blob(blob: &wfp::FWP_BYTE_BLOB) -> Vec<u8> {
    slice(blob.data, blob.size).to_vec()
}

/// A copy of a SID.
///
/// # Safety
/// `sid` is null or points to a SID.
pub(super) unsafe fn sid(sid: *const SID) -> Option<Vec<u8>> {
    // SAFETY: the caller says so; a valid SID is as long as GetLengthSid says.
    unsafe {
        if sid.is_null() || IsValidSid(sid.cast_mut().cast()) == 0 {
            return None;
        }
        let length = GetLengthSid(sid.cast_mut().cast()) as usize;
        Some(std::slice::from_raw_parts(sid.cast(), length).to_vec())
    }
}

/// `count` elements at `start`.
fn slice<'a, T>(start: *const T, count: u32) -> &'a [T] {
    if start.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the callers pass a pointer and a count of one object that an Fwpm function returned, and use the slice
    // while that object lives.
    unsafe { std::slice::from_raw_parts(start, count as usize) }
}

/// The UTF-16 units at `start`, without the NUL.
///
/// # Safety
/// `start` is null or points to a NUL-terminated string.
unsafe fn units(start: PWSTR) -> Vec<u16> {
    if start.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller says that the string ends with a NUL, and the walk stops there.
    unsafe {
        let length = (0..).take_while(|&at| *start.add(at) != 0).count();
        std::slice::from_raw_parts(start, length).to_vec()
    }
}

/// The text at `start`.
///
/// # Safety
/// As for [`units`].
unsafe fn text(start: PWSTR) -> String {
    // SAFETY: the caller's contract is the same.
    String::from_utf16_lossy(&unsafe { units(start) })
}
