//! Traffic as far as it is known, as the facts that filters are asked with.

use crate::query::app_id;
use crate::record::{Direction, NetEvent};
use filter_engine::condition::ConditionValue;
use filter_engine::explain::Facts;
use filter_engine::layers::Layer;
use filter_engine::security::Sid;
use filter_engine::token::Token;
use serde::Serialize;
use std::net::IpAddr;

/// Traffic. `None` means that it is not known, and no filter is excluded by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// IP protocol.
    pub protocol: Option<u8>,
    /// This machine's address; for forwarded traffic the source.
    pub local: Option<IpAddr>,
    /// This machine's port, or the ICMP type.
    pub local_port: Option<u16>,
    /// The other machine's address; for forwarded traffic the destination.
    pub remote: Option<IpAddr>,
    /// The other machine's port, or the ICMP code.
    pub remote_port: Option<u16>,
    /// The program's NT path.
    pub app: Option<String>,
    /// The SIDs of the token.
    #[serde(serialize_with = "sids")]
    pub token: Option<Vec<Sid>>,
    /// The package's SID.
    #[serde(serialize_with = "sid")]
    pub package: Option<Sid>,
    /// Which way the packet or the connection goes.
    pub direction: Option<Direction>,
    /// From this machine to itself.
    pub loopback: Option<bool>,
    /// The interface's index.
    pub interface: Option<u32>,
    /// The interface's LUID.
    pub interface_luid: Option<u64>,
    /// The interface's type by IANA.
    pub interface_type: Option<u32>,
    /// The network's profile: 1 public, 2 private, 3 domain.
    pub profile: Option<u32>,
    /// A first, ordinary packet: no flag of FWP_CONDITION_FLAG_* is set besides IS_LOOPBACK.
    pub ordinary: bool,
}

fn sids<S: serde::Serializer>(sids: &Option<Vec<Sid>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sids.iter().flatten().map(ToString::to_string))
}

fn sid<S: serde::Serializer>(sid: &Option<Sid>, serializer: S) -> Result<S::Ok, S::Error> {
    sid.as_ref().map(ToString::to_string).serialize(serializer)
}

/// FWP_CONDITION_FLAG_IS_LOOPBACK.
const IS_LOOPBACK: u32 = 1;
/// FWP_CONDITION_FLAG_IS_WILDCARD_BIND, which the bind of any client may have.
const IS_WILDCARD_BIND: u32 = 8;

impl Traffic {
    /// What an event tells, with its ends as they stand.
    #[must_use]
    pub fn of_event(event: &NetEvent) -> Self {
        Self {
            protocol: event.protocol,
            local: event.local,
            local_port: event.local_port,
            remote: event.remote,
            remote_port: event.remote_port,
            app: event.app.clone(),
            // The event names the user, and not the groups that filters ask for.
            token: None,
            package: event.package.as_deref().and_then(Sid::from_text),
            direction: event.direction,
            loopback: event.loopback,
            interface: event.interface,
            ..Self::default()
        }
    }

    /// The same with its ends exchanged.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            local: self.remote,
            local_port: self.remote_port,
            remote: self.local,
            remote_port: self.local_port,
            ..self.clone()
        }
    }

    /// The facts at a layer.
    #[must_use]
    pub fn facts<'a>(&self, layer: &'a Layer) -> Facts<'a> {
        let mut facts = Facts::new(layer);
        let mut set = |fields: &[&str], value: Option<ConditionValue>| {
            if let Some(value) = value {
                fields.iter().for_each(|field| facts.set(field, value.clone()));
            }
        };
        let address = |address: Option<IpAddr>| {
            address.map(|address| match address {
                IpAddr::V4(v4) => ConditionValue::Uint32(v4.into()),
                IpAddr::V6(v6) => ConditionValue::ByteArray16(v6.octets()),
            })
        };
        // A bind is mostly to every address.
        if !layer.name.starts_with("ALE_RESOURCE_ASSIGNMENT") && !layer.name.starts_with("ALE_BIND_REDIRECT") {
            set(&["IP_LOCAL_ADDRESS", "IP_SOURCE_ADDRESS"], address(self.local));
        }
        set(&["IP_REMOTE_ADDRESS", "IP_DESTINATION_ADDRESS"], address(self.remote));
        set(&["IP_PROTOCOL"], self.protocol.map(ConditionValue::Uint8));
        set(&["IP_LOCAL_PORT", "ICMP_TYPE"], self.local_port.map(ConditionValue::Uint16));
        set(&["IP_REMOTE_PORT", "ICMP_CODE"], self.remote_port.map(ConditionValue::Uint16));
        set(&["ALE_APP_ID", "ALE_ORIGINAL_APP_ID"], self.app.as_ref().map(|app| ConditionValue::ByteBlob(app_id(app))));
        set(&["ALE_PACKAGE_ID"], self.package.as_ref().map(|sid| ConditionValue::Sid(sid.bytes().to_vec())));
        set(&["INTERFACE_INDEX", "ARRIVAL_INTERFACE_INDEX"], self.interface.map(ConditionValue::Uint32));
        set(&["IP_LOCAL_INTERFACE"], self.interface_luid.map(ConditionValue::Uint64));
        set(&["INTERFACE_TYPE", "ARRIVAL_INTERFACE_TYPE"], self.interface_type.map(ConditionValue::Uint32));
        set(&["CURRENT_PROFILE_ID", "ORIGINAL_PROFILE_ID"], self.profile.map(ConditionValue::Uint32));
        // FWP_DIRECTION_OUTBOUND, FWP_DIRECTION_INBOUND.
        let direction = self.direction.and_then(|direction| match direction {
            Direction::Out => Some(0),
            Direction::In => Some(1),
            Direction::Forward => None,
        });
        set(&["DIRECTION"], direction.map(ConditionValue::Uint32));
        if self.ordinary {
            let kind = |address: Option<IpAddr>| address.map(|address| ConditionValue::Uint8(address_type(address)));
            set(&["IP_LOCAL_ADDRESS_TYPE"], kind(self.local));
            set(&["IP_DESTINATION_ADDRESS_TYPE", "IP_REMOTE_ADDRESS_TYPE"], kind(self.remote));
        }
        if let Some(sids) = &self.token {
            facts.set_token("ALE_USER_ID", &Token { sids: sids.clone() });
        }
        let loopback = self.loopback.or_else(|| Some(self.remote?.is_loopback()));
        let value = if loopback == Some(true) { IS_LOOPBACK } else { 0 };
        let at_bind = layer.name.starts_with("ALE_RESOURCE_ASSIGNMENT");
        let mut known = match (self.ordinary, loopback) {
            (true, Some(_)) => u32::MAX,
            (true, None) => !IS_LOOPBACK,
            (false, Some(_)) => IS_LOOPBACK,
            (false, None) => 0,
        };
        if at_bind {
            known &= !(IS_WILDCARD_BIND | IS_LOOPBACK);
        }
        facts.set_bits("FLAGS", value, known);
        facts
    }
}

/// NL_ADDRESS_TYPE: unicast, multicast or broadcast. That of a subnet cannot be told from the address.
fn address_type(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => 4,
        address if address.is_multicast() => 3,
        _ => 1,
    }
}
