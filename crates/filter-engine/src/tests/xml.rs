//! The XML forms, read back.

use super::rig::{LAYER, Rig, Script};
use crate::bfe::Provider;
use crate::condition::ConditionValue;
use crate::netevent::FileTime;
use crate::xml;
use crate::{security::Sid, token::Token};
use nt_abi::fwp::consts::*;
use nt_abi::fwp::value::{Blob, Incoming};
use quick_xml::Reader;
use quick_xml::events::Event;
use sluice_host::{MatchType, Weight};
use std::sync::Arc;

/// Every leaf as `path = text`, in order; self-closed elements have no text.
fn leaves(document: &str) -> Vec<String> {
    let mut reader = Reader::from_str(document.strip_prefix('\u{FEFF}').expect("a byte order mark"));
    reader.config_mut().expand_empty_elements = false;
    let (mut path, mut text, mut out) = (Vec::<String>::new(), None::<String>, Vec::new());
    loop {
        match reader.read_event().expect("well formed") {
            Event::Start(start) => {
                path.push(String::from_utf8(start.name().as_ref().to_vec()).expect("UTF-8"));
                text = None;
            }
            Event::Empty(empty) => {
                let name = String::from_utf8(empty.name().as_ref().to_vec()).expect("UTF-8");
                out.push(format!("{}/{name} =", path.join("/")));
                text = None;
            }
            Event::Text(t) => {
                let piece = t.decode().expect("UTF-8");
                if !piece.trim().is_empty() {
                    text.get_or_insert_default().push_str(&piece);
                }
            }
            Event::GeneralRef(r) => {
                let entity = r.decode().expect("UTF-8");
                text.get_or_insert_default().push_str(&format!("&{entity};"));
            }
            Event::End(_) => {
                if let Some(text) = text.take() {
                    out.push(format!("{} = {text}", path.join("/")));
                }
                path.pop();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(path.is_empty());
    out
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).expect("memory does not fail");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn a_drop_is_written_as_netsh_writes_it() {
    let rig = Rig::new();
    let session = rig.session();
    let callout = rig.callout(&session);
    let sublayer = rig.sublayer(&session, 0x9000);
    let mut veto = rig.filter(FWP_ACTION_CALLOUT_UNKNOWN);
    (veto.action_key, veto.sublayer) = (callout, sublayer);
    veto.context = rig.script(&Script::insists(FWP_ACTION_BLOCK));
    let block = rig.add(&session, veto);
    let permit = rig.add(&session, rig.filter(FWP_ACTION_PERMIT));
    let layer = rig.engine.layers().get(LAYER).expect("there");
    let mut incoming = Incoming::new(layer.fields.len());
    let at = |name| layer.field_index(name).expect("a field of the layer");
    incoming.blob(at("ALE_APP_ID"), Arc::new(Blob::app_id(r"\device\harddiskvolume1\a&b")));
    incoming.token(at("ALE_USER_ID"), Arc::new(Token { sids: vec![Sid::local_system()] }.to_blob()));
    incoming.u32(at("IP_LOCAL_ADDRESS"), 0x0A00_0001);
    incoming.u16(at("IP_LOCAL_PORT"), 50_000);
    incoming.u32(at("IP_REMOTE_ADDRESS"), 0xC000_0201);
    incoming.u16(at("IP_REMOTE_PORT"), 443);
    incoming.u8(at("IP_PROTOCOL"), 6);
    incoming.u32(at("FLAGS"), FWP_CONDITION_FLAG_IS_LOOPBACK);
    incoming.u32(at("INTERFACE_INDEX"), 7);
    rig.engine.events.set_time(Some(FileTime(10_000)));
    rig.classify_values(LAYER, incoming.values(), None);
    let text = written(|out| xml::net_events(&rig.engine, out));
    let app_id: String =
        r"\device\harddiskvolume1\a&b".chars().chain(['\0']).map(|c| format!("{:02x}00", c as u32)).collect();
    let expected = [
        "header/timeStamp = 1601-01-01T00:00:00.001Z".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_IP_PROTOCOL_SET".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_LOCAL_ADDR_SET".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_REMOTE_ADDR_SET".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_LOCAL_PORT_SET".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_REMOTE_PORT_SET".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_APP_ID_SET".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_USER_ID_SET".to_owned(),
        "header/flags/item = FWPM_NET_EVENT_FLAG_IP_VERSION_SET".to_owned(),
        "header/ipVersion = FWP_IP_VERSION_V4".to_owned(),
        "header/ipProtocol = 6".to_owned(),
        "header/localAddrV4 = 10.0.0.1".to_owned(),
        "header/remoteAddrV4 = 192.0.2.1".to_owned(),
        "header/localPort = 50000".to_owned(),
        "header/remotePort = 443".to_owned(),
        "header/scopeId = 0".to_owned(),
        format!("header/appId/data = {app_id}"),
        r"header/appId/asString = \.d.e.v.i.c.e.\.h.a.r.d.d.i.s.k.v.o.l.u.m.e.1.\.a...b...".to_owned(),
        "header/userId = S-1-5-18".to_owned(),
        "header/addressFamily = FWP_AF_INET".to_owned(),
        "header/packageSid = S-1-0-0".to_owned(),
        "header/enterpriseId =".to_owned(),
        "header/policyFlags = 0".to_owned(),
        "header/effectiveName =".to_owned(),
        "type = FWPM_NET_EVENT_TYPE_CLASSIFY_DROP".to_owned(),
        format!("classifyDrop/filterId = {block}"),
        "classifyDrop/layerId = 48".to_owned(),
        "classifyDrop/reauthReason = 0".to_owned(),
        "classifyDrop/originalProfile = 0".to_owned(),
        "classifyDrop/currentProfile = 0".to_owned(),
        "classifyDrop/msFwpDirection = MS_FWP_DIRECTION_OUT".to_owned(),
        "classifyDrop/isLoopback = true".to_owned(),
        "classifyDrop/vSwitchId =".to_owned(),
        "classifyDrop/vSwitchSourcePort = 0".to_owned(),
        "classifyDrop/vSwitchDestinationPort = 0".to_owned(),
        "internalFields/internalFlags =".to_owned(),
        "internalFields/capabilities =".to_owned(),
        "internalFields/fqbnVersion = 0".to_owned(),
        "internalFields/fqbnName =".to_owned(),
        format!("internalFields/terminatingFiltersInfo/item/filterId = {block}"),
        format!("internalFields/terminatingFiltersInfo/item/subLayer = {{{sublayer}}}"),
        "internalFields/terminatingFiltersInfo/item/actionType = FWP_ACTION_BLOCK".to_owned(),
        format!("internalFields/terminatingFiltersInfo/item/filterId = {permit}"),
        "internalFields/terminatingFiltersInfo/item/subLayer = FWPM_SUBLAYER_UNIVERSAL".to_owned(),
        "internalFields/terminatingFiltersInfo/item/actionType = FWP_ACTION_PERMIT".to_owned(),
        "internalFields/filterOrigin =".to_owned(),
        "internalFields/interfaceIndex = 7".to_owned(),
    ];
    assert_eq!(leaves(&text), expected.map(|line| format!("netEvents/item/{line}")));
    assert!(text.contains("\n\t\t<header>\n\t\t\t<timeStamp>"), "one element per line, tabs:\n{text}");
    assert!(text.contains("<terminatingFiltersInfo numItems=\"2\">"));
}

#[test]
fn no_event_is_an_empty_document() {
    let rig = Rig::new();
    let text = written(|out| xml::net_events(&rig.engine, out));
    assert!(text.ends_with("?>\n<netEvents/>\n"), "{text}");
}

#[test]
fn allows_are_recorded_when_asked_for_and_absorrig_blocks_never() {
    let rig = Rig::new();
    let session = rig.session();
    let events = &rig.engine.events;
    let permit = rig.add(&session, rig.filter(FWP_ACTION_PERMIT));
    rig.classify();
    assert_eq!(events.take().len(), 0);
    events.set_collect_allow(true);
    rig.classify();
    let text = written(|out| xml::net_events(&rig.engine, out));
    assert!(text.contains("<type>FWPM_NET_EVENT_TYPE_CLASSIFY_ALLOW</type>"));
    assert!(
        text.contains(&format!("<classifyAllow>\n\t\t\t<filterId>{permit}</filterId>\n\t\t\t<layerId>48</layerId>"))
    );
    let _ = events.take();
    session.delete_filter_by_id(permit).expect("there");
    let callout = rig.callout(&session);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_TERMINATING);
    filter.action_key = callout;
    let absorb = Script { action: Some(FWP_ACTION_BLOCK), flags: FWPS_CLASSIFY_OUT_FLAG_ABSORB, ..Script::default() };
    filter.context = rig.script(&Arc::new(absorb));
    rig.add(&session, filter);
    assert!(rig.classify().absorb);
    assert_eq!(events.take().len(), 0);
}

#[test]
fn filters_and_state_are_written_with_every_kind_of_value() {
    let rig = Rig::new();
    let session = rig.session();
    let key = rig.key();
    let display = crate::bfe::DisplayData::new("Firm & Sons", "makes filters");
    let provider =
        Provider { key, display, flags: FWPM_PROVIDER_FLAG_PERSISTENT, data: b"a\0".to_vec(), service: None };
    session.add_provider(provider).expect("new");
    let callout = rig.callout(&session);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_TERMINATING);
    (filter.provider, filter.action_key, filter.weight) = (Some(key), callout, Weight::Range(3));
    filter.flags = FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT | FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED;
    let range = ConditionValue::Range {
        low: Box::new(ConditionValue::Uint32(0x0A00_0000)),
        high: Box::new(ConditionValue::Uint32(0x0AFF_FFFF)),
    };
    filter.conditions = vec![
        rig.condition("IP_REMOTE_ADDRESS", MatchType::Range, range),
        rig.condition("IP_REMOTE_PORT", MatchType::NotEqual, ConditionValue::Uint16(25)),
    ];
    filter.context = rig.script(&Script::silent());
    let id = rig.add(&session, filter);
    let text = written(|out| xml::filters(&rig.engine, out));
    let lines = leaves(&text);
    let item = "wfpdiag/filters/item";
    let at = |line: String| lines.iter().position(|l| *l == line).unwrap_or_else(|| panic!("{line} in {lines:#?}"));
    let order = [
        format!("{item}/flags/item = FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT"),
        format!("{item}/providerKey = {{{key}}}"),
        format!("{item}/providerData ="),
        format!("{item}/layerKey = FWPM_LAYER_ALE_AUTH_CONNECT_V4"),
        format!("{item}/subLayerKey = FWPM_SUBLAYER_UNIVERSAL"),
        format!("{item}/weight/uint8 = 3"),
        format!("{item}/filterCondition/item/fieldKey = FWPM_CONDITION_IP_REMOTE_ADDRESS"),
        format!("{item}/filterCondition/item/conditionValue/rangeValue/valueHigh/uint32 = 10.255.255.255"),
        format!("{item}/filterCondition/item/matchType = FWP_MATCH_NOT_EQUAL"),
        format!("{item}/filterCondition/item/conditionValue/uint16 = 25"),
        format!("{item}/action/type = FWP_ACTION_CALLOUT_TERMINATING"),
        format!("{item}/action/filterType = {{{callout}}}"),
        format!("{item}/filterId = {id}"),
        "wfpdiag/providers/item/displayData/name = Firm &amp; Sons".to_owned(),
        "wfpdiag/providers/item/providerData/data = 6100".to_owned(),
        "wfpdiag/providers/item/providerData/asString = a.".to_owned(),
        "wfpdiag/providers/item/serviceName =".to_owned(),
    ];
    let places: Vec<usize> = order.into_iter().map(at).collect();
    assert!(places.is_sorted(), "{places:?}");

    let text = written(|out| xml::state(&rig.engine, out));
    let (state, firewall) = text.split_once("<firewallState>").expect("two top-level elements");
    let lines = leaves(state);
    assert_eq!(lines.iter().filter(|l| l.starts_with("wfpstate/layers/item/layer/layerId =")).count(), 99);
    assert!(lines.contains(&"wfpstate/layers/item/callouts/item/flags/item = FWPM_CALLOUT_FLAG_REGISTERED".to_owned()));
    assert!(lines.contains(&format!("wfpstate/layers/item/filters/item/filterId = {id}")));
    assert!(lines.contains(&"wfpstate/sessions/item/kernelMode = false".to_owned()));
    assert!(firewall.contains("<dynamicKeywordAddresses/>"));
}

/// The elements of the wfpstate.xml in keploy/keploy, in its order, as far as the state here has them. A name that ends
/// with `#` stands for an array, which says how many items it has when it has any.
const SAMPLE: &[(&str, &[&str])] = &[
    ("timeStamp", &[]),
    (
        "sessions#",
        &[
            "sessionKey",
            "displayData/name",
            "displayData/description",
            "flags#",
            "txnWaitTimeoutInMSec",
            "processId",
            "sid",
            "username",
            "kernelMode",
        ],
    ),
    (
        "layers#",
        &[
            "layer/layerKey",
            "layer/displayData/name",
            "layer/displayData/description",
            "layer/flags#",
            "layer/field#",
            "layer/defaultSubLayerKey",
            "layer/layerId",
            "callouts#",
            "filters#",
        ],
    ),
    (
        "layers#/callouts#",
        &[
            "calloutKey",
            "displayData/name",
            "displayData/description",
            "flags#",
            "providerKey",
            "providerData",
            "applicableLayer",
            "calloutId",
        ],
    ),
    (
        "layers#/filters#",
        &[
            "filterKey",
            "displayData/name",
            "displayData/description",
            "flags#",
            "providerKey",
            "providerData",
            "layerKey",
            "subLayerKey",
            "weight/type",
            "weight/uint8",
            "filterCondition#",
            "action/type",
            "action/filterType",
            "rawContext",
            "reserved",
            "filterId",
            "effectiveWeight/type",
            "effectiveWeight/uint64",
        ],
    ),
    ("layers#/layer/field#", &["fieldKey", "type", "dataType"]),
    ("layers#/filters#/filterCondition#", &["fieldKey", "matchType", "conditionValue/type", "conditionValue/uint16"]),
    (
        "subLayers#",
        &[
            "subLayerKey",
            "displayData/name",
            "displayData/description",
            "flags#",
            "providerKey",
            "providerData",
            "weight",
        ],
    ),
];

/// What follows subLayers in the sample.
const SAMPLE_END: &[&str] = &[
    "subscriptions/calloutSubscriptions",
    "subscriptions/filterSubscriptions",
    "subscriptions/netEventSubscriptions",
    "subscriptions/providerSubscriptions",
    "subscriptions/providerContextSubscriptions",
    "subscriptions/subLayerSubscriptions",
    "ipsecSaContexts",
    "aleConnectedEndpoints",
    "ikeextStatistics",
    "ipsecStatistics",
    "ikeextSas",
];

#[test]
fn the_state_has_the_samples_elements_in_the_samples_order() {
    let rig = Rig::new();
    let session = rig.session();
    let callout = rig.callout(&session);
    rig.sublayer(&session, 7);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_TERMINATING);
    (filter.action_key, filter.weight, filter.context) = (callout, Weight::Range(3), rig.script(&Script::silent()));
    filter.conditions = vec![rig.condition("IP_REMOTE_PORT", MatchType::Equal, ConditionValue::Uint16(25))];
    rig.add(&session, filter);
    let text = written(|out| xml::state(&rig.engine, out));
    let (state, _) = text.split_once("<firewallState>").expect("two top-level elements");
    let paths: Vec<String> = leaves(state)
        .iter()
        .map(|line| line.split(" =").next().expect("a path").strip_prefix("wfpstate/").expect("the root").to_owned())
        .collect();
    let plain = |path: &str| path.replace('#', "/item");
    for (of, names) in SAMPLE {
        // The items of this array, each without what belongs to arrays within.
        let item = if of.ends_with('#') { format!("{}/", plain(of)) } else { String::new() };
        let mut seen: Vec<&str> = Vec::new();
        for path in paths.iter().filter_map(|path| path.strip_prefix(&item)) {
            let one = path.split("/item").next().expect("a part");
            if seen.last() != Some(&one) {
                seen.push(one);
            }
        }
        let wanted: Vec<String> = match names {
            [] => vec![(*of).to_owned()],
            names => names.iter().map(|name| name.trim_end_matches('#').to_owned()).collect(),
        };
        let one_of_each = seen.windows(wanted.len()).any(|window| window.iter().eq(wanted.iter()));
        assert!(one_of_each, "{of}: {wanted:?} in {seen:?}");
        assert!(names.is_empty() || seen.iter().all(|path| wanted.iter().any(|name| name == path)), "{of}: {seen:?}");
    }
    assert_eq!(paths[paths.len() - SAMPLE_END.len()..], *SAMPLE_END);
    // Arrays say how many items they have; empty ones say nothing.
    for array in ["sessions", "layers", "callouts", "filters", "filterCondition", "field", "flags", "subLayers"] {
        assert!(state.contains(&format!("<{array} numItems=\"")), "{array}");
        assert!(
            !state.contains(&format!("<{array} numItems=\"0\"")) && !state.contains(&format!("<{array}>")),
            "{array}"
        );
    }
}
