//! A machine's engine, asked through the seam.

use crate::Key;
use crate::platform::Platform;
use crate::record::{
    Action, Callout, Condition, Direction, Ends, EventKind, Field, Filter, Layer, NetEvent, Provider, Sublayer, Value,
    wide,
};
use filter_engine::condition::{ConditionValue, match_type};
use filter_engine::netevent::FileTime;
use filter_engine::security::sid_text;
use filter_engine::xml::{self, FlagsOf};
use sluice_host::listing::{ListedCondition, ListedEvent, ListedFilter, ListedValue, Listing};
use sluice_host::{Engine, FilterAction, HostResult};

/// The objects of a live engine.
///
/// # Errors
/// Those of the engine.
pub fn platform(engine: &mut dyn Engine) -> HostResult<Platform> {
    Ok(listed(engine.list()?))
}

/// The objects that an engine listed.
#[must_use]
pub fn listed(listing: Listing) -> Platform {
    let flags = |kind, set| xml::flag_names(kind, set);
    let persistent = |kind, persistent: bool| flags(kind, u32::from(persistent));
    let platform = Platform {
        layers: listing
            .layers
            .into_iter()
            .map(|layer| Layer {
                key: layer.key.into(),
                name: layer.name,
                flags: flags(FlagsOf::Layer, layer.flags),
                id: layer.id,
                fields: layer
                    .fields
                    .into_iter()
                    .map(|(key, kind)| Field { key: key.into(), data_type: xml::data_type_name(kind) })
                    .collect(),
            })
            .collect(),
        providers: listing
            .providers
            .into_iter()
            .map(|(provider, set)| Provider {
                key: provider.key.into(),
                name: provider.name,
                description: provider.description,
                flags: flags(FlagsOf::Provider, set),
                service: provider.service,
            })
            .collect(),
        sublayers: listing
            .sublayers
            .into_iter()
            .map(|sublayer| Sublayer {
                key: sublayer.key.into(),
                name: sublayer.name,
                description: sublayer.description,
                flags: persistent(FlagsOf::Sublayer, sublayer.persistent),
                provider: sublayer.provider.map(Key::from),
                weight: sublayer.weight,
            })
            .collect(),
        callouts: listing
            .callouts
            .into_iter()
            .map(|listed| Callout {
                key: listed.callout.key.into(),
                name: listed.callout.name,
                description: listed.callout.description,
                flags: flags(FlagsOf::Callout, listed.flags),
                provider: listed.callout.provider.map(Key::from),
                layer: listed.callout.layer.into(),
                id: Some(listed.id),
            })
            .collect(),
        filters: listing.filters.into_iter().map(filter).collect(),
        ..Platform::default()
    };
    platform.indexed()
}

fn filter(listed: ListedFilter) -> Filter {
    let entry = listed.entry;
    let (action, callout) = match entry.action {
        Some(FilterAction::Permit) => (Action::Permit, None),
        Some(FilterAction::Block) => (Action::Block, None),
        Some(FilterAction::CalloutTerminating(key)) => (Action::CalloutTerminating, Some(key.into())),
        Some(FilterAction::CalloutInspection(key)) => (Action::CalloutInspection, Some(key.into())),
        Some(FilterAction::CalloutUnknown(key)) => (Action::CalloutUnknown, Some(key.into())),
        None => (Action::Other("unknown".to_owned()), None),
    };
    Filter {
        id: entry.id,
        key: entry.key.into(),
        name: entry.name,
        description: listed.description,
        flags: xml::flag_names(FlagsOf::Filter, entry.flags),
        provider: entry.provider.map(Key::from),
        layer: entry.layer.into(),
        sublayer: entry.sublayer.into(),
        weight: listed.effective_weight,
        conditions: listed.conditions.into_iter().map(condition).collect(),
        action,
        callout,
    }
}

fn condition(listed: ListedCondition) -> Condition {
    let kind = xml::data_type_name(listed.data_type);
    let value = match listed.value.and_then(|value| known(value, &kind)) {
        Some(value) => Value::Known(value),
        None => Value::Unknown { kind, text: String::new() },
    };
    let match_type = match_type(listed.match_type)
        .map_or_else(|| format!("FWP_MATCH_TYPE {}", listed.match_type), |one| xml::match_type_name(one).to_owned());
    Condition { field: listed.field.into(), match_type, value }
}

fn known(value: ListedValue, kind: &str) -> Option<ConditionValue> {
    use ConditionValue as C;
    Some(match value {
        ListedValue::Plain(plain) => C::from(&plain),
        ListedValue::Signed(number) => match kind {
            "FWP_INT8" => C::Int8(number.try_into().ok()?),
            "FWP_INT16" => C::Int16(number.try_into().ok()?),
            "FWP_INT32" => C::Int32(number.try_into().ok()?),
            _ => C::Int64(number),
        },
        ListedValue::Bytes6(bytes) => C::ByteArray6(bytes),
        ListedValue::Sid(bytes) => C::Sid(bytes),
        ListedValue::SecurityDescriptor(bytes) => C::SecurityDescriptor(bytes),
        ListedValue::Text(units) => C::UnicodeString(units),
    })
}

/// The net events of a live engine, oldest first.
///
/// # Errors
/// Those of the engine.
pub fn events(engine: &mut dyn Engine) -> HostResult<Vec<NetEvent>> {
    Ok(engine.net_events()?.into_iter().map(event).collect())
}

fn event(listed: ListedEvent) -> NetEvent {
    NetEvent {
        time: xml::time(FileTime(listed.time)),
        // FWPM_NET_EVENT_TYPE.
        kind: match listed.kind {
            3 => EventKind::Drop,
            6 => EventKind::Allow,
            7 => EventKind::CapabilityDrop,
            8 => EventKind::CapabilityAllow,
            other => EventKind::Other(
                [
                    "IKEEXT_MM_FAILURE",
                    "IKEEXT_QM_FAILURE",
                    "IKEEXT_EM_FAILURE",
                    "",
                    "IPSEC_KERNEL_DROP",
                    "IPSEC_DOSP_DROP",
                ]
                .get(other as usize)
                .map_or_else(|| format!("type {other}"), |name| format!("FWPM_NET_EVENT_TYPE_{name}")),
            ),
        },
        protocol: listed.protocol,
        local: listed.local,
        local_port: listed.local_port,
        remote: listed.remote,
        remote_port: listed.remote_port,
        ends: Ends::LocalRemote,
        app: listed.app_id.as_deref().and_then(wide),
        user: listed.user.as_deref().map(sid_text),
        package: listed.package.as_deref().map(sid_text).filter(|sid| sid != "S-1-0-0"),
        filter_id: listed.filter_id,
        layer_id: listed.layer_id,
        direction: match listed.direction {
            Some(0x3900) => Some(Direction::In),
            Some(0x3901) => Some(Direction::Out),
            Some(0x3902) => Some(Direction::Forward),
            _ => None,
        },
        loopback: listed.loopback,
        terminating: Vec::new(),
        origin: None,
        interface: None,
        process: None,
    }
}
