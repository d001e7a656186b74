//! `netsh wfp show filters`: filters and providers.

use super::{Xml, flags, value};
use crate::FilterEngine;
use crate::bfe::{FilterContext, Provider, StoredFilter};
use crate::layers::{FieldKind, LayerTable};
use crate::names::Named;
use nt_abi::fwp::consts;
use sluice_host::Weight;
use std::io::{self, Write};

/// Writes the filters and providers.
///
/// # Errors
/// Those of `out`.
pub fn filters(engine: &FilterEngine, out: impl Write) -> io::Result<()> {
    let objects = engine.bfe.objects();
    let table = engine.layers();
    let mut xml = Xml::new(out)?;
    xml.element("wfpdiag", |xml| {
        // These two have no numItems, unlike every other array.
        xml.element("filters", |xml| {
            objects.filters.values().try_for_each(|f| xml.element("item", |xml| filter(xml, f, table)))
        })?;
        xml.element("providers", |xml| {
            objects.providers.values().try_for_each(|p| xml.element("item", |xml| provider(xml, &p.object)))
        })
    })?;
    xml.finish()
}

pub(super) fn filter<W: Write>(xml: &mut Xml<W>, stored: &StoredFilter, table: &LayerTable) -> io::Result<()> {
    let filter = &stored.filter;
    let layer = table.get(stored.layer);
    xml.text("filterKey", Named(filter.key))?;
    let display = &filter.display;
    xml.display(display.name.as_deref().unwrap_or(""), display.description.as_deref().unwrap_or(""))?;
    let has_context = matches!(filter.context, FilterContext::Provider(_));
    let implied = if has_context { consts::FWPM_FILTER_FLAG_HAS_PROVIDER_CONTEXT } else { 0 };
    xml.flags("flags", filter.flags | implied, flags::FILTER)?;
    xml.text("providerKey", filter.provider.map(|key| Named(key).to_string()).unwrap_or_default())?;
    xml.blob("providerData", &filter.data, value::printable)?;
    xml.text("layerKey", Named(filter.layer))?;
    xml.text("subLayerKey", Named(filter.sublayer))?;
    xml.element("weight", |xml| match filter.weight {
        Weight::Auto => xml.text("type", "FWP_EMPTY"),
        Weight::Range(range) => {
            xml.text("type", "FWP_UINT8")?;
            xml.text("uint8", range)
        }
        Weight::Exact(weight) => {
            xml.text("type", "FWP_UINT64")?;
            xml.text("uint64", weight)
        }
    })?;
    xml.items("filterCondition", &filter.conditions, |xml, condition| {
        let field = layer.and_then(|layer| layer.fields.get(layer.field_by_key(condition.field)?));
        let address = field.is_some_and(|field| field.kind == FieldKind::IpAddress);
        xml.element("item", |xml| {
            xml.text("fieldKey", Named(condition.field))?;
            xml.text("matchType", value::match_type_name(condition.match_type))?;
            xml.element("conditionValue", |xml| xml.value(&condition.value, address))
        })
    })?;
    xml.element("action", |xml| {
        xml.text("type", action_name(filter.action))?;
        // A callout's key is printed here too; there is no calloutKey element.
        let key = (filter.action_key.0 != 0).then(|| Named(filter.action_key).to_string());
        xml.text("filterType", key.unwrap_or_default())
    })?;
    match filter.context {
        FilterContext::Raw(raw) => xml.text("rawContext", raw)?,
        FilterContext::Provider(key) => xml.text("providerContextKey", Named(key))?,
    }
    xml.empty("reserved")?;
    xml.text("filterId", stored.id)?;
    xml.element("effectiveWeight", |xml| {
        xml.text("type", "FWP_UINT64")?;
        xml.text("uint64", stored.effective_weight)
    })
}

pub(super) fn provider<W: Write>(xml: &mut Xml<W>, provider: &Provider) -> io::Result<()> {
    xml.text("providerKey", Named(provider.key))?;
    let display = &provider.display;
    xml.display(display.name.as_deref().unwrap_or(""), display.description.as_deref().unwrap_or(""))?;
    xml.flags("flags", provider.flags, flags::PROVIDER)?;
    xml.blob("providerData", &provider.data, value::printable)?;
    xml.text("serviceName", provider.service.as_deref().unwrap_or(""))
}

/// `FWP_ACTION_*`.
#[must_use]
pub fn action_name(action: u32) -> &'static str {
    match action {
        consts::FWP_ACTION_PERMIT => "FWP_ACTION_PERMIT",
        consts::FWP_ACTION_BLOCK => "FWP_ACTION_BLOCK",
        consts::FWP_ACTION_CALLOUT_TERMINATING => "FWP_ACTION_CALLOUT_TERMINATING",
        consts::FWP_ACTION_CALLOUT_INSPECTION => "FWP_ACTION_CALLOUT_INSPECTION",
        _ => "FWP_ACTION_CALLOUT_UNKNOWN",
    }
}
