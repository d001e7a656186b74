//! Builds the structures that drivers get.

use crate::bfe::{
    DisplayData, FilterContext, Provider, ProviderContext, Stored, StoredCallout, StoredFilter, Sublayer,
};
use crate::layers::Layer;
use crate::names::SUBLAYER_UNIVERSAL;
use nt_abi::fwp::arena::Arena;
use nt_abi::fwp::{
    FilterContext as RawContext, FwpValue0, FwpmAction0, FwpmCallout0, FwpmDisplayData0, FwpmField0, FwpmFilter0,
    FwpmFilterCondition0, FwpmLayer0, FwpmProvider0, FwpmProviderContext0, FwpmSublayer0, RawGuid, ValueUnion, consts,
};
use sluice_host::Weight;

fn text(arena: &mut Arena, text: Option<&str>) -> *const u16 {
    text.map_or(core::ptr::null(), |text| arena.wide(text))
}

fn display(arena: &mut Arena, display: &DisplayData) -> FwpmDisplayData0 {
    FwpmDisplayData0 {
        name: text(arena, display.name.as_deref()),
        description: text(arena, display.description.as_deref()),
    }
}

/// `FWPM_PROVIDER0`, its pointers into `arena`.
pub fn provider(arena: &mut Arena, provider: &Provider) -> FwpmProvider0 {
    FwpmProvider0 {
        provider_key: provider.key.into(),
        display_data: display(arena, &provider.display),
        flags: provider.flags,
        provider_data: arena.blob(&provider.data),
        service_name: text(arena, provider.service.as_deref()),
    }
}

/// `FWPM_SUBLAYER0`, its pointers into `arena`.
pub fn sublayer(arena: &mut Arena, sublayer: &Sublayer) -> FwpmSublayer0 {
    FwpmSublayer0 {
        sub_layer_key: sublayer.key.into(),
        display_data: display(arena, &sublayer.display),
        flags: sublayer.flags,
        provider_key: arena.guid(sublayer.provider),
        provider_data: arena.blob(&sublayer.data),
        weight: sublayer.weight,
    }
}

/// `FWPM_CALLOUT0`, its pointers into `arena`.
pub fn callout(arena: &mut Arena, stored: &StoredCallout) -> FwpmCallout0 {
    let callout = &stored.stored.object;
    FwpmCallout0 {
        callout_key: callout.key.into(),
        display_data: display(arena, &callout.display),
        flags: callout.flags | stored.slot.registered_flags(),
        provider_key: arena.guid(callout.provider),
        provider_data: arena.blob(&callout.data),
        applicable_layer: callout.layer.into(),
        callout_id: stored.slot.id(),
    }
}

/// `FWPM_PROVIDER_CONTEXT0`; also what a filter's `FWPS_FILTER.providerContext` points to.
pub fn provider_context(arena: &mut Arena, stored: &Stored<ProviderContext>) -> FwpmProviderContext0 {
    let context = &stored.object;
    let buffer = arena.blob(&context.buffer);
    FwpmProviderContext0 {
        provider_context_key: context.key.into(),
        display_data: display(arena, &context.display),
        flags: context.flags,
        provider_key: arena.guid(context.provider),
        provider_data: arena.blob(&context.data),
        kind: consts::FWPM_GENERAL_CONTEXT,
        data: arena.put(buffer).cast_const().cast(),
        provider_context_id: stored.order,
    }
}

/// `FWPM_FILTER0`, its pointers into `arena`.
pub fn filter(arena: &mut Arena, stored: &StoredFilter) -> FwpmFilter0 {
    let filter = &stored.filter;
    let conditions: Vec<FwpmFilterCondition0> = filter
        .conditions
        .iter()
        .map(|condition| FwpmFilterCondition0 {
            field_key: condition.field.into(),
            match_type: condition.match_type as u32,
            condition_value: condition.value.put(arena),
        })
        .collect();
    let filter_condition =
        if conditions.is_empty() { core::ptr::null() } else { arena.put_slice(&conditions).cast_const() };
    let (flag, context) = match filter.context {
        FilterContext::Raw(raw) => (0, RawContext { bytes: [raw, 0] }),
        FilterContext::Provider(key) => {
            (consts::FWPM_FILTER_FLAG_HAS_PROVIDER_CONTEXT, RawContext { provider_context_key: RawGuid::from(key) })
        }
    };
    FwpmFilter0 {
        filter_key: filter.key.into(),
        display_data: display(arena, &filter.display),
        flags: filter.flags | flag,
        provider_key: arena.guid(filter.provider),
        provider_data: arena.blob(&filter.data),
        layer_key: filter.layer.into(),
        sub_layer_key: filter.sublayer.into(),
        weight: match filter.weight {
            Weight::Auto => FwpValue0::EMPTY,
            Weight::Range(range) => FwpValue0 { kind: consts::FWP_UINT8, value: ValueUnion { raw: range.into() } },
            Weight::Exact(weight) => arena.uint64(weight),
        },
        num_filter_conditions: conditions.len() as u32,
        filter_condition,
        action: FwpmAction0 { kind: filter.action, key: filter.action_key.into() },
        context,
        reserved: core::ptr::null(),
        filter_id: stored.id,
        effective_weight: arena.uint64(stored.effective_weight),
    }
}

/// `FWPM_LAYER0`, its pointers into `arena`.
pub fn layer(arena: &mut Arena, layer: &Layer) -> FwpmLayer0 {
    let fields: Vec<FwpmField0> = layer
        .listed()
        .iter()
        .map(|field| FwpmField0 {
            field_key: arena.guid(Some(field.key)),
            kind: field.kind as u32,
            data_type: field.data_type as u32,
        })
        .collect();
    FwpmLayer0 {
        layer_key: layer.key.into(),
        display_data: FwpmDisplayData0 { name: arena.wide(layer.name), description: core::ptr::null() },
        flags: layer.flags,
        num_fields: fields.len() as u32,
        field: arena.put_slice(&fields),
        default_sub_layer_key: SUBLAYER_UNIVERSAL.into(),
        layer_id: layer.id.0,
    }
}
