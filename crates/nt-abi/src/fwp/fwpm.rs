//! Management structures (fwpmk.h, fwpmtypes.h).

use super::{FwpByteBlob, FwpValue0, RawGuid, layout};
use core::ffi::c_void;

/// `FWPM_DISPLAY_DATA0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmDisplayData0 {
    pub name: *const u16,
    pub description: *const u16,
}
layout!(FwpmDisplayData0, 16, 8, { name: 0, description: 8 });

/// `FWPM_SESSION0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmSession0 {
    pub session_key: RawGuid,
    pub display_data: FwpmDisplayData0,
    pub flags: u32,
    pub txn_wait_timeout_in_m_sec: u32,
    pub process_id: u32,
    pub sid: *const u8,
    pub username: *const u16,
    pub kernel_mode: i32,
}
layout!(FwpmSession0, 72, 8, {
    session_key: 0, display_data: 16, flags: 32, txn_wait_timeout_in_m_sec: 36, process_id: 40, sid: 48,
    username: 56, kernel_mode: 64,
});

/// `FWPM_PROVIDER0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmProvider0 {
    pub provider_key: RawGuid,
    pub display_data: FwpmDisplayData0,
    pub flags: u32,
    pub provider_data: FwpByteBlob,
    pub service_name: *const u16,
}
layout!(FwpmProvider0, 64, 8, { provider_key: 0, display_data: 16, flags: 32, provider_data: 40, service_name: 56 });

/// `FWPM_SUBLAYER0`.
///
/// mingw-w64 10.0 declares `flags` 16 bits wide; Microsoft's headers and windows-sys have 32, which is used here.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmSublayer0 {
    pub sub_layer_key: RawGuid,
    pub display_data: FwpmDisplayData0,
    pub flags: u32,
    pub provider_key: *const RawGuid,
    pub provider_data: FwpByteBlob,
    pub weight: u16,
}
layout!(FwpmSublayer0, 72, 8, {
    sub_layer_key: 0, display_data: 16, flags: 32, provider_key: 40, provider_data: 48, weight: 64,
});

/// `FWPM_CALLOUT0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmCallout0 {
    pub callout_key: RawGuid,
    pub display_data: FwpmDisplayData0,
    pub flags: u32,
    pub provider_key: *const RawGuid,
    pub provider_data: FwpByteBlob,
    pub applicable_layer: RawGuid,
    pub callout_id: u32,
}
layout!(FwpmCallout0, 88, 8, {
    callout_key: 0, display_data: 16, flags: 32, provider_key: 40, provider_data: 48, applicable_layer: 64,
    callout_id: 80,
});

/// `FWPM_ACTION0`. `key` is `filterType` or, for the callout actions, `calloutKey`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FwpmAction0 {
    pub kind: u32,
    pub key: RawGuid,
}
layout!(FwpmAction0, 20, 4, { kind: 0, key: 4 });

/// `FWPM_FILTER_CONDITION0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmFilterCondition0 {
    pub field_key: RawGuid,
    pub match_type: u32,
    pub condition_value: FwpValue0,
}
layout!(FwpmFilterCondition0, 40, 8, { field_key: 0, match_type: 16, condition_value: 24 });

/// `FWPM_FILTER0`. `context` is `rawContext` (its first half) or `providerContextKey`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmFilter0 {
    pub filter_key: RawGuid,
    pub display_data: FwpmDisplayData0,
    pub flags: u32,
    pub provider_key: *const RawGuid,
    pub provider_data: FwpByteBlob,
    pub layer_key: RawGuid,
    pub sub_layer_key: RawGuid,
    pub weight: FwpValue0,
    pub num_filter_conditions: u32,
    pub filter_condition: *const FwpmFilterCondition0,
    pub action: FwpmAction0,
    pub context: FilterContext,
    pub reserved: *const RawGuid,
    pub filter_id: u64,
    pub effective_weight: FwpValue0,
}
layout!(FwpmFilter0, 200, 8, {
    filter_key: 0, display_data: 16, flags: 32, provider_key: 40, provider_data: 48, layer_key: 64,
    sub_layer_key: 80, weight: 96, num_filter_conditions: 112, filter_condition: 120, action: 128, context: 152,
    reserved: 168, filter_id: 176, effective_weight: 184,
});

/// The union of `rawContext` and `providerContextKey` in `FWPM_FILTER0`.
#[repr(C)]
#[derive(Clone, Copy)]
pub union FilterContext {
    pub raw_context: u64,
    pub provider_context_key: RawGuid,
    pub bytes: [u64; 2],
}
const _: () = assert!(size_of::<FilterContext>() == 16 && align_of::<FilterContext>() == 8);

impl core::fmt::Debug for FilterContext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // SAFETY: any sixteen bytes are two u64, and every constructor initialises all sixteen.
        let bytes = unsafe { self.bytes };
        write!(f, "{bytes:x?}")
    }
}

/// `FWPM_FIELD0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmField0 {
    pub field_key: *const RawGuid,
    pub kind: u32,
    pub data_type: u32,
}
layout!(FwpmField0, 16, 8, { field_key: 0, kind: 8, data_type: 12 });

/// `FWPM_LAYER0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmLayer0 {
    pub layer_key: RawGuid,
    pub display_data: FwpmDisplayData0,
    pub flags: u32,
    pub num_fields: u32,
    pub field: *const FwpmField0,
    pub default_sub_layer_key: RawGuid,
    pub layer_id: u16,
}
layout!(FwpmLayer0, 72, 8, {
    layer_key: 0, display_data: 16, flags: 32, num_fields: 36, field: 40, default_sub_layer_key: 48, layer_id: 64,
});

/// `FWPM_PROVIDER_CONTEXT0` to `FWPM_PROVIDER_CONTEXT3`: they differ in what `data` may point to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmProviderContext0 {
    pub provider_context_key: RawGuid,
    pub display_data: FwpmDisplayData0,
    pub flags: u32,
    pub provider_key: *const RawGuid,
    pub provider_data: FwpByteBlob,
    pub kind: u32,
    pub data: *const c_void,
    pub provider_context_id: u64,
}
layout!(FwpmProviderContext0, 88, 8, {
    provider_context_key: 0, display_data: 16, flags: 32, provider_key: 40, provider_data: 48, kind: 64, data: 72,
    provider_context_id: 80,
});

/// `FWPM_FILTER_ENUM_TEMPLATE0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmFilterEnumTemplate0 {
    pub provider_key: *const RawGuid,
    pub layer_key: RawGuid,
    pub enum_type: u32,
    pub flags: u32,
    pub provider_context_template: *const c_void,
    pub num_filter_conditions: u32,
    pub filter_condition: *const FwpmFilterCondition0,
    pub action_mask: u32,
    pub callout_key: *const RawGuid,
}
layout!(FwpmFilterEnumTemplate0, 72, 8, {
    provider_key: 0, layer_key: 8, enum_type: 24, flags: 28, provider_context_template: 32,
    num_filter_conditions: 40, filter_condition: 48, action_mask: 56, callout_key: 64,
});

/// `FWPM_CALLOUT_ENUM_TEMPLATE0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmCalloutEnumTemplate0 {
    pub provider_key: *const RawGuid,
    pub layer_key: RawGuid,
}
layout!(FwpmCalloutEnumTemplate0, 24, 8, { provider_key: 0, layer_key: 8 });

/// `FWPM_SUBLAYER_ENUM_TEMPLATE0`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpmSublayerEnumTemplate0 {
    pub provider_key: *const RawGuid,
}
layout!(FwpmSublayerEnumTemplate0, 8, 8, { provider_key: 0 });
