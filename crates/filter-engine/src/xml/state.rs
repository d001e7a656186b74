//! `netsh wfp show state`: sessions, layers with their callouts and filters, and the rest of the store.
//!
//! The sample is the wfpstate.xml in keploy/keploy, which a Windows with 99 layers wrote in October 2024: its elements
//! in its order, `numItems` where an array has items, a program's id in a filter as plain text. The file has two
//! elements at its top level, so a strict parser does not accept it as a document: read the first element. Left empty
//! because nothing here has them: IPsec contexts and statistics, IKE's, subscriptions, the endpoints of ALE, sid and
//! username of a session; a layer's display name is its own name instead of Windows' words.

use super::policy::{filter, provider};
use super::{Xml, flags, time, value};
use crate::FilterEngine;
use crate::bfe::{Objects, SessionInfo, StoredCallout};
use crate::layers::{FieldKind, Layer, LayerTable};
use crate::names::{Named, SUBLAYER_UNIVERSAL};
use crate::netevent::FileTime;
use nt_abi::fwp::consts;
use std::io::{self, Write};

/// Writes the state of an engine.
///
/// # Errors
/// Those of `out`.
pub fn state(engine: &FilterEngine, out: impl Write) -> io::Result<()> {
    let bfe = &engine.bfe;
    let (objects, table) = (bfe.objects(), engine.layers());
    let mut xml = Xml::new(out)?;
    xml.element("wfpstate", |xml| {
        xml.text("timeStamp", time(FileTime::now()))?;
        xml.items("sessions", bfe.sessions(), |xml, info| xml.element("item", |xml| session(xml, &info)))?;
        xml.items("layers", table.iter(), |xml, layer| {
            xml.element("item", |xml| standing(xml, layer, &objects, table))
        })?;
        xml.items("providers", objects.providers.values(), |xml, p| {
            xml.element("item", |xml| provider(xml, &p.object))
        })?;
        xml.items("providerContexts", objects.contexts.values(), |xml, stored| {
            let context = &stored.object;
            xml.element("item", |xml| {
                xml.text("providerContextKey", Named(context.key))?;
                common(xml, &context.display)?;
                xml.flags("flags", context.flags, flags::PROVIDER_CONTEXT)?;
                owner(xml, context.provider, &context.data)?;
                xml.text("type", "FWPM_GENERAL_CONTEXT")?;
                xml.blob("dataBuffer", &context.buffer, value::printable)?;
                xml.text("providerContextId", stored.order)
            })
        })?;
        xml.items("subLayers", objects.sublayers.values(), |xml, stored| {
            let sublayer = &stored.object;
            xml.element("item", |xml| {
                xml.text("subLayerKey", Named(sublayer.key))?;
                common(xml, &sublayer.display)?;
                xml.flags("flags", sublayer.flags, flags::SUBLAYER)?;
                owner(xml, sublayer.provider, &sublayer.data)?;
                xml.text("weight", sublayer.weight)
            })
        })?;
        xml.element("subscriptions", |xml| {
            ["callout", "filter", "netEvent", "provider", "providerContext", "subLayer"]
                .iter()
                .try_for_each(|kind| xml.empty(&format!("{kind}Subscriptions")))
        })?;
        ["ipsecSaContexts", "aleConnectedEndpoints", "ikeextStatistics", "ipsecStatistics", "ikeextSas"]
            .iter()
            .try_for_each(|part| xml.empty(part))
    })?;
    xml.element("firewallState", |xml| xml.empty("dynamicKeywordAddresses"))?;
    xml.finish()
}

fn session<W: Write>(xml: &mut Xml<W>, info: &SessionInfo) -> io::Result<()> {
    let options = &info.options;
    xml.text("sessionKey", Named(info.key))?;
    common(xml, &options.display)?;
    let dynamic = if options.dynamic { consts::FWPM_SESSION_FLAG_DYNAMIC } else { 0 };
    xml.flags("flags", dynamic, flags::SESSION)?;
    xml.text("txnWaitTimeoutInMSec", if options.wait_ms == 0 { 15_000 } else { options.wait_ms })?;
    xml.text("processId", options.process_id)?;
    xml.empty("sid")?;
    xml.empty("username")?;
    xml.text("kernelMode", options.kernel_mode)
}

fn standing<W: Write>(xml: &mut Xml<W>, layer: &Layer, objects: &Objects, table: &LayerTable) -> io::Result<()> {
    xml.element("layer", |xml| {
        xml.text("layerKey", Named(layer.key))?;
        xml.display(layer.name, "")?;
        xml.flags("flags", layer.flags, flags::LAYER)?;
        xml.items("field", layer.listed(), |xml, field| {
            xml.element("item", |xml| {
                xml.text("fieldKey", Named(field.key))?;
                xml.text("type", kind(field.kind))?;
                xml.text("dataType", field.data_type.name())
            })
        })?;
        xml.text("defaultSubLayerKey", Named(SUBLAYER_UNIVERSAL))?;
        xml.text("layerId", layer.id.0)
    })?;
    let callouts = objects.callouts.values().filter(|callout| callout.stored.object.layer == layer.key);
    xml.items("callouts", callouts, |xml, stored| xml.element("item", |xml| callout(xml, stored)))?;
    let filters = objects.filters.values().filter(|filter| filter.layer == layer.id);
    xml.items("filters", filters, |xml, stored| xml.element("item", |xml| filter(xml, stored, table)))
}

fn callout<W: Write>(xml: &mut Xml<W>, stored: &StoredCallout) -> io::Result<()> {
    let callout = &stored.stored.object;
    xml.text("calloutKey", Named(callout.key))?;
    common(xml, &callout.display)?;
    xml.flags("flags", callout.flags | stored.slot.registered_flags(), flags::CALLOUT)?;
    owner(xml, callout.provider, &callout.data)?;
    xml.text("applicableLayer", Named(callout.layer))?;
    xml.text("calloutId", stored.slot.id())
}

fn common<W: Write>(xml: &mut Xml<W>, display: &crate::bfe::DisplayData) -> io::Result<()> {
    xml.display(display.name.as_deref().unwrap_or(""), display.description.as_deref().unwrap_or(""))
}

fn owner<W: Write>(xml: &mut Xml<W>, key: Option<sluice_host::Guid>, data: &[u8]) -> io::Result<()> {
    xml.text("providerKey", key.map(|key| Named(key).to_string()).unwrap_or_default())?;
    xml.blob("providerData", data, value::printable)
}

fn kind(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::RawData => "FWPM_FIELD_RAW_DATA",
        FieldKind::IpAddress => "FWPM_FIELD_IP_ADDRESS",
        FieldKind::Flags => "FWPM_FIELD_FLAGS",
    }
}
