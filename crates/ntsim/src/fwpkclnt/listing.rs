//! What BFE lists to a program.

use filter_engine::FilterEngine;
use filter_engine::bfe::{Objects, Stored, StoredFilter};
use filter_engine::condition::{Condition, ConditionValue};
use filter_engine::netevent::{Direction, NetEvent, NetEventKind};
use nt_abi::fwp::consts;
use sluice_host::listing::{
    ListedCallout, ListedCondition, ListedEvent, ListedFilter, ListedLayer, ListedValue, Listing,
};
use sluice_host::{self as host, FilterAction, FilterEntry};

pub(super) fn listing(engine: &FilterEngine, objects: &Objects) -> Listing {
    Listing {
        layers: engine
            .layers()
            .iter()
            .map(|layer| ListedLayer {
                key: layer.key,
                name: layer.name.to_owned(),
                flags: layer.flags,
                id: layer.id.0,
                fields: layer.listed().iter().map(|field| (field.key, field.data_type as u32)).collect(),
            })
            .collect(),
        providers: objects.providers.values().map(|stored| (provider(stored), stored.object.flags)).collect(),
        sublayers: objects.sublayers.values().map(sublayer).collect(),
        callouts: objects
            .callouts
            .values()
            .map(|stored| ListedCallout {
                callout: callout(&stored.stored),
                id: stored.slot.id(),
                flags: stored.stored.object.flags | stored.slot.registered_flags(),
            })
            .collect(),
        filters: objects
            .filters
            .values()
            .map(|stored| ListedFilter {
                entry: entry(stored),
                description: stored.filter.display.description.clone().unwrap_or_default(),
                effective_weight: Some(stored.effective_weight),
                conditions: stored.filter.conditions.iter().map(condition).collect(),
            })
            .collect(),
    }
}

pub(super) fn provider(Stored { object, .. }: &Stored<filter_engine::bfe::Provider>) -> host::Provider {
    host::Provider {
        key: object.key,
        name: object.display.name.clone().unwrap_or_default(),
        description: object.display.description.clone().unwrap_or_default(),
        persistent: object.flags & consts::FWPM_PROVIDER_FLAG_PERSISTENT != 0,
        service: object.service.clone(),
    }
}

pub(super) fn sublayer(Stored { object, .. }: &Stored<filter_engine::bfe::Sublayer>) -> host::Sublayer {
    host::Sublayer {
        key: object.key,
        name: object.display.name.clone().unwrap_or_default(),
        description: object.display.description.clone().unwrap_or_default(),
        persistent: object.flags & consts::FWPM_SUBLAYER_FLAG_PERSISTENT != 0,
        provider: object.provider,
        weight: object.weight,
    }
}

pub(super) fn callout(Stored { object, .. }: &Stored<filter_engine::bfe::Callout>) -> host::Callout {
    host::Callout {
        key: object.key,
        name: object.display.name.clone().unwrap_or_default(),
        description: object.display.description.clone().unwrap_or_default(),
        persistent: object.flags & consts::FWPM_CALLOUT_FLAG_PERSISTENT != 0,
        provider: object.provider,
        layer: object.layer,
    }
}

pub(super) fn entry(stored: &StoredFilter) -> FilterEntry {
    let filter = &stored.filter;
    FilterEntry {
        key: filter.key,
        id: stored.id,
        name: filter.display.name.clone().unwrap_or_default(),
        layer: filter.layer,
        provider: filter.provider,
        sublayer: filter.sublayer,
        flags: filter.flags,
        weight: Some(filter.weight),
        conditions: filter
            .conditions
            .iter()
            .map(|one| {
                let value = plain(&one.value)?;
                Some(host::Condition { field: one.field, match_type: one.match_type, value })
            })
            .collect(),
        action: action(filter),
    }
}

/// The action as a program sets it.
fn action(filter: &filter_engine::bfe::Filter) -> Option<FilterAction> {
    Some(match filter.action {
        consts::FWP_ACTION_PERMIT => FilterAction::Permit,
        consts::FWP_ACTION_BLOCK => FilterAction::Block,
        consts::FWP_ACTION_CALLOUT_TERMINATING => FilterAction::CalloutTerminating(filter.action_key),
        consts::FWP_ACTION_CALLOUT_INSPECTION => FilterAction::CalloutInspection(filter.action_key),
        consts::FWP_ACTION_CALLOUT_UNKNOWN => FilterAction::CalloutUnknown(filter.action_key),
        _ => return None,
    })
}

fn condition(condition: &Condition) -> ListedCondition {
    ListedCondition {
        field: condition.field,
        match_type: condition.match_type as u32,
        data_type: condition.value.data_type(),
        value: value(&condition.value),
    }
}

fn value(value: &ConditionValue) -> Option<ListedValue> {
    use ConditionValue as C;
    Some(match value {
        C::Int8(v) => ListedValue::Signed((*v).into()),
        C::Int16(v) => ListedValue::Signed((*v).into()),
        C::Int32(v) => ListedValue::Signed((*v).into()),
        C::Int64(v) => ListedValue::Signed(*v),
        C::ByteArray6(v) => ListedValue::Bytes6(*v),
        C::Sid(v) => ListedValue::Sid(v.clone()),
        C::SecurityDescriptor(v) => ListedValue::SecurityDescriptor(v.clone()),
        C::UnicodeString(v) => ListedValue::Text(v.clone()),
        other => ListedValue::Plain(plain(other)?),
    })
}

/// A value of the types that the seam's filters are added with.
fn plain(value: &ConditionValue) -> Option<host::ConditionValue> {
    use ConditionValue as C;
    use host::ConditionValue as H;
    Some(match value {
        C::Empty => H::Empty,
        C::Uint8(v) => H::Uint8(*v),
        C::Uint16(v) => H::Uint16(*v),
        C::Uint32(v) => H::Uint32(*v),
        C::Uint64(v) => H::Uint64(*v),
        C::ByteArray16(v) => H::ByteArray16(*v),
        C::ByteBlob(v) => H::ByteBlob(v.clone()),
        C::Sid(v) => H::Sid(v.clone()),
        C::SecurityDescriptor(v) => H::SecurityDescriptor(v.clone()),
        C::V4AddrMask { addr, mask } => H::V4AddrMask { addr: *addr, mask: *mask },
        C::V6AddrMask { addr, prefix_length } => H::V6AddrMask { addr: *addr, prefix_length: *prefix_length },
        C::Range { low, high } => H::Range { low: Box::new(plain(low)?), high: Box::new(plain(high)?) },
        _ => return None,
    })
}

pub(super) fn event(event: &NetEvent) -> ListedEvent {
    ListedEvent {
        time: event.time.0,
        kind: match event.kind {
            NetEventKind::ClassifyDrop => 3,
            NetEventKind::ClassifyAllow => 6,
        },
        protocol: event.protocol,
        local: event.local,
        local_port: event.local_port,
        remote: event.remote,
        remote_port: event.remote_port,
        app_id: event.app_id.clone(),
        user: event.user.as_ref().map(|sid| sid.bytes().to_vec()),
        package: event.package.as_ref().map(|sid| sid.bytes().to_vec()),
        filter_id: Some(event.filter_id),
        layer_id: Some(event.layer.0),
        // MS_FWP_DIRECTION_IN, _OUT and _FORWARD.
        direction: Some(match event.direction {
            Direction::In => 0x3900,
            Direction::Out => 0x3901,
            Direction::Forward => 0x3902,
        }),
        loopback: Some(event.loopback),
    }
}
