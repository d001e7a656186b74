//! The seam's plain values as the structures of fwpmtypes.h.

use super::wide;
use sluice_host::{
    Callout, Condition, ConditionValue, Filter, FilterAction, Guid, HostError, HostResult, Provider, Sublayer, Weight,
    code,
};
use std::any::Any;
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform as wfp;
use windows_sys::core::{GUID, PWSTR};

/// A GUID as Windows has it.
pub(super) const fn guid(guid: Guid) -> GUID {
    GUID::from_u128(guid.0)
}

/// A GUID as the seam has it.
pub(super) fn guid_back(guid: &GUID) -> Guid {
    let high = (u128::from(guid.data1) << 96) | (u128::from(guid.data2) << 80) | (u128::from(guid.data3) << 64);
    Guid(high | u128::from(u64::from_be_bytes(guid.data4)))
}

/// A filter's weight as given; `None` for a type that is not a weight.
///
/// # Safety
/// The value has the member that its type says.
pub(super) unsafe fn weight_back(value: &wfp::FWP_VALUE0) -> Option<Weight> {
    // SAFETY: the caller says so; a 64-bit weight is behind a pointer of the same object.
    unsafe {
        match value.r#type {
            wfp::FWP_EMPTY => Some(Weight::Auto),
            wfp::FWP_UINT8 => Some(Weight::Range(value.Anonymous.uint8)),
            wfp::FWP_UINT64 => value.Anonymous.uint64.as_ref().map(|&weight| Weight::Exact(weight)),
            _ => None,
        }
    }
}

/// A filter's action; `None` for one that the seam does not know.
///
/// # Safety
/// The action has the member that its type says.
pub(super) unsafe fn action_back(action: &wfp::FWPM_ACTION0) -> Option<FilterAction> {
    // SAFETY: the caller says so; every other type has a GUID in that place too.
    let key = guid_back(unsafe { &action.Anonymous.calloutKey });
    Some(match action.r#type {
        wfp::FWP_ACTION_PERMIT => FilterAction::Permit,
        wfp::FWP_ACTION_BLOCK => FilterAction::Block,
        wfp::FWP_ACTION_CALLOUT_TERMINATING => FilterAction::CalloutTerminating(key),
        wfp::FWP_ACTION_CALLOUT_INSPECTION => FilterAction::CalloutInspection(key),
        wfp::FWP_ACTION_CALLOUT_UNKNOWN => FilterAction::CalloutUnknown(key),
        _ => return None,
    })
}

/// Owns what a structure points to: the pointers it returned are valid as long as it lives.
#[derive(Default)]
pub(super) struct Arena {
    /// From `Box::into_raw`. Not boxes: moving a box would invalidate the pointers derived from it.
    kept: Vec<*mut dyn Any>,
}

impl Drop for Arena {
    fn drop(&mut self) {
        for value in self.kept.drain(..) {
            // SAFETY: from Box::into_raw in `keep`, and freed only here.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

impl Arena {
    fn keep<T: 'static>(&mut self, value: T) -> *mut T {
        let value = Box::into_raw(Box::new(value));
        self.kept.push(value);
        value
    }

    fn keep_slice<T: 'static>(&mut self, values: Vec<T>) -> *mut T {
        if values.is_empty() {
            return std::ptr::null_mut();
        }
        let kept = self.keep(values);
        // SAFETY: `kept` is the vector just kept; its elements stay where they are, for nothing grows it.
        unsafe { (*kept).as_mut_ptr() }
    }

    fn text(&mut self, operation: &str, text: &str) -> HostResult<PWSTR> {
        Ok(self.keep_slice(wide(operation, text)?))
    }

    fn guid(&mut self, key: Option<Guid>) -> *mut GUID {
        key.map_or(std::ptr::null_mut(), |key| self.keep(guid(key)))
    }

    fn display(&mut self, operation: &str, name: &str, description: &str) -> HostResult<wfp::FWPM_DISPLAY_DATA0> {
        Ok(wfp::FWPM_DISPLAY_DATA0 {
            name: self.text(operation, name)?,
            description: self.text(operation, description)?,
        })
    }

    pub(super) fn provider(&mut self, provider: &Provider) -> HostResult<wfp::FWPM_PROVIDER0> {
        const OPERATION: &str = "FwpmProviderAdd0";
        Ok(wfp::FWPM_PROVIDER0 {
            providerKey: guid(provider.key),
            displayData: self.display(OPERATION, &provider.name, &provider.description)?,
            flags: if provider.persistent { wfp::FWPM_PROVIDER_FLAG_PERSISTENT } else { 0 },
            serviceName: match &provider.service {
                Some(service) => self.text(OPERATION, service)?,
                None => std::ptr::null_mut(),
            },
            ..Default::default()
        })
    }

    pub(super) fn sublayer(&mut self, sublayer: &Sublayer) -> HostResult<wfp::FWPM_SUBLAYER0> {
        Ok(wfp::FWPM_SUBLAYER0 {
            subLayerKey: guid(sublayer.key),
            displayData: self.display("FwpmSubLayerAdd0", &sublayer.name, &sublayer.description)?,
            flags: if sublayer.persistent { wfp::FWPM_SUBLAYER_FLAG_PERSISTENT } else { 0 },
            providerKey: self.guid(sublayer.provider),
            weight: sublayer.weight,
            ..Default::default()
        })
    }

    pub(super) fn callout(&mut self, callout: &Callout) -> HostResult<wfp::FWPM_CALLOUT0> {
        Ok(wfp::FWPM_CALLOUT0 {
            calloutKey: guid(callout.key),
            displayData: self.display("FwpmCalloutAdd0", &callout.name, &callout.description)?,
            flags: if callout.persistent { wfp::FWPM_CALLOUT_FLAG_PERSISTENT } else { 0 },
            providerKey: self.guid(callout.provider),
            applicableLayer: guid(callout.layer),
            ..Default::default()
        })
    }

    pub(super) fn filter(&mut self, filter: &Filter) -> HostResult<wfp::FWPM_FILTER0> {
        const OPERATION: &str = "FwpmFilterAdd0";
        let conditions =
            filter.conditions.iter().map(|condition| self.condition(condition)).collect::<HostResult<Vec<_>>>()?;
        let count = u32::try_from(conditions.len()).map_err(|_| too_long(OPERATION))?;
        let (action, callout) = match filter.action {
            FilterAction::Permit => (wfp::FWP_ACTION_PERMIT, Guid(0)),
            FilterAction::Block => (wfp::FWP_ACTION_BLOCK, Guid(0)),
            FilterAction::CalloutTerminating(callout) => (wfp::FWP_ACTION_CALLOUT_TERMINATING, callout),
            FilterAction::CalloutInspection(callout) => (wfp::FWP_ACTION_CALLOUT_INSPECTION, callout),
            FilterAction::CalloutUnknown(callout) => (wfp::FWP_ACTION_CALLOUT_UNKNOWN, callout),
        };
        Ok(wfp::FWPM_FILTER0 {
            filterKey: guid(filter.key.unwrap_or(Guid(0))),
            displayData: self.display(OPERATION, &filter.name, &filter.description)?,
            flags: filter.flags,
            providerKey: self.guid(filter.provider),
            layerKey: guid(filter.layer),
            subLayerKey: guid(filter.sublayer),
            weight: self.weight(filter.weight),
            numFilterConditions: count,
            filterCondition: self.keep_slice(conditions),
            action: wfp::FWPM_ACTION0 { r#type: action, Anonymous: wfp::FWPM_ACTION0_0 { calloutKey: guid(callout) } },
            ..Default::default()
        })
    }

    fn weight(&mut self, weight: Weight) -> wfp::FWP_VALUE0 {
        match weight {
            Weight::Auto => wfp::FWP_VALUE0 { r#type: wfp::FWP_EMPTY, ..Default::default() },
            Weight::Range(range) => {
                wfp::FWP_VALUE0 { r#type: wfp::FWP_UINT8, Anonymous: wfp::FWP_VALUE0_0 { uint8: range } }
            }
            Weight::Exact(weight) => {
                wfp::FWP_VALUE0 { r#type: wfp::FWP_UINT64, Anonymous: wfp::FWP_VALUE0_0 { uint64: self.keep(weight) } }
            }
        }
    }

    fn condition(&mut self, condition: &Condition) -> HostResult<wfp::FWPM_FILTER_CONDITION0> {
        Ok(wfp::FWPM_FILTER_CONDITION0 {
            fieldKey: guid(condition.field),
            // The seam's enumeration has the numbers of fwptypes.h.
            matchType: condition.match_type as wfp::FWP_MATCH_TYPE,
            conditionValue: self.condition_value(&condition.value)?,
        })
    }

    fn condition_value(&mut self, value: &ConditionValue) -> HostResult<wfp::FWP_CONDITION_VALUE0> {
        use wfp::FWP_CONDITION_VALUE0_0 as Union;
        let (kind, union) = match value {
            ConditionValue::V4AddrMask { addr, mask } => {
                let value = self.keep(wfp::FWP_V4_ADDR_AND_MASK { addr: *addr, mask: *mask });
                (wfp::FWP_V4_ADDR_MASK, Union { v4AddrMask: value })
            }
            ConditionValue::V6AddrMask { addr, prefix_length } => {
                let value = self.keep(wfp::FWP_V6_ADDR_AND_MASK { addr: *addr, prefixLength: *prefix_length });
                (wfp::FWP_V6_ADDR_MASK, Union { v6AddrMask: value })
            }
            ConditionValue::Range { low, high } => {
                let range = wfp::FWP_RANGE0 { valueLow: self.value(low)?, valueHigh: self.value(high)? };
                (wfp::FWP_RANGE_TYPE, Union { rangeValue: self.keep(range) })
            }
            ConditionValue::Empty => (wfp::FWP_EMPTY, Union { uint64: std::ptr::null_mut() }),
            ConditionValue::Uint8(value) => (wfp::FWP_UINT8, Union { uint8: *value }),
            ConditionValue::Uint16(value) => (wfp::FWP_UINT16, Union { uint16: *value }),
            ConditionValue::Uint32(value) => (wfp::FWP_UINT32, Union { uint32: *value }),
            ConditionValue::Uint64(value) => (wfp::FWP_UINT64, Union { uint64: self.keep(*value) }),
            ConditionValue::ByteArray16(bytes) => {
                let value = self.keep(wfp::FWP_BYTE_ARRAY16 { byteArray16: *bytes });
                (wfp::FWP_BYTE_ARRAY16_TYPE, Union { byteArray16: value })
            }
            ConditionValue::ByteBlob(bytes) => (wfp::FWP_BYTE_BLOB_TYPE, Union { byteBlob: self.blob(bytes)? }),
            ConditionValue::Sid(bytes) => (wfp::FWP_SID, Union { sid: self.keep_slice(bytes.clone()).cast() }),
            ConditionValue::SecurityDescriptor(bytes) => {
                (wfp::FWP_SECURITY_DESCRIPTOR_TYPE, Union { sd: self.blob(bytes)? })
            }
        };
        Ok(wfp::FWP_CONDITION_VALUE0 { r#type: kind, Anonymous: union })
    }

    /// One end of a range.
    fn value(&mut self, value: &ConditionValue) -> HostResult<wfp::FWP_VALUE0> {
        use wfp::FWP_VALUE0_0 as Union;
        let (kind, union) = match value {
            ConditionValue::Empty => (wfp::FWP_EMPTY, Union { uint64: std::ptr::null_mut() }),
            ConditionValue::Uint8(value) => (wfp::FWP_UINT8, Union { uint8: *value }),
            ConditionValue::Uint16(value) => (wfp::FWP_UINT16, Union { uint16: *value }),
            ConditionValue::Uint32(value) => (wfp::FWP_UINT32, Union { uint32: *value }),
            ConditionValue::Uint64(value) => (wfp::FWP_UINT64, Union { uint64: self.keep(*value) }),
            ConditionValue::ByteArray16(bytes) => {
                let value = self.keep(wfp::FWP_BYTE_ARRAY16 { byteArray16: *bytes });
                (wfp::FWP_BYTE_ARRAY16_TYPE, Union { byteArray16: value })
            }
            ConditionValue::ByteBlob(bytes) => (wfp::FWP_BYTE_BLOB_TYPE, Union { byteBlob: self.blob(bytes)? }),
            ConditionValue::Sid(_)
            | ConditionValue::SecurityDescriptor(_)
            | ConditionValue::V4AddrMask { .. }
            | ConditionValue::V6AddrMask { .. }
            | ConditionValue::Range { .. } => {
                let what = "a range's ends are plain values that have an order";
                return Err(HostError::with_message("FwpmFilterAdd0", code::FWP_E_TYPE_MISMATCH, what));
            }
        };
        Ok(wfp::FWP_VALUE0 { r#type: kind, Anonymous: union })
    }

    fn blob(&mut self, bytes: &[u8]) -> HostResult<*mut wfp::FWP_BYTE_BLOB> {
        let size = u32::try_from(bytes.len()).map_err(|_| too_long("FwpmFilterAdd0"))?;
        let data = self.keep_slice(bytes.to_vec());
        Ok(self.keep(wfp::FWP_BYTE_BLOB { size, data }))
    }
}

fn too_long(operation: &str) -> HostError {
    HostError::with_message(operation, code::ERROR_INVALID_PARAMETER, "more than 2^32 - 1 of something")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_goes_there_and_back() {
        let key = Guid(0xc38d57d1_05a7_4c33_904f_7fbceee60e82);
        let windows = guid(key);
        assert_eq!((windows.data1, windows.data2, windows.data4[7]), (0xc38d_57d1, 0x05a7, 0x82));
        assert_eq!(guid_back(&windows), key);
    }

    #[test]
    fn a_filters_weight_and_action_go_there_and_back() {
        let key = Guid(0xc38d57d1_05a7_4c33_904f_7fbceee60e82);
        for weight in [Weight::Auto, Weight::Range(9), Weight::Exact(u64::MAX)] {
            for action in [FilterAction::Permit, FilterAction::Block, FilterAction::CalloutUnknown(key)] {
                let mut arena = Arena::default();
                let filter = Filter {
                    key: None,
                    name: String::new(),
                    description: String::new(),
                    flags: 0,
                    provider: None,
                    layer: key,
                    sublayer: key,
                    weight,
                    conditions: Vec::new(),
                    action,
                };
                let windows = arena.filter(&filter).unwrap();
                // SAFETY: made just now by the arena, which is still there.
                let back = unsafe { (weight_back(&windows.weight), action_back(&windows.action)) };
                assert_eq!(back, (Some(weight), Some(action)));
            }
        }
    }
}
