//! Net events: a bounded record of what the engine dropped and, on request, allowed.

use crate::FilterEngine;
use crate::layers::{Layer, LayerId};
use crate::security::Sid;
use crate::token::Token;
use crate::{Classify, Outcome, TerminatingFilter, Verdict};
use nt_abi::fwp::consts;
use nt_abi::fwp::value::Read;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A `FILETIME`: 100-nanosecond intervals since 1601-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime(pub u64);

/// Seconds from 1601 to 1970.
const EPOCHS_APART: u64 = 11_644_473_600;

impl FileTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Seconds and 100-nanosecond intervals since 1970; `None` before.
    #[must_use]
    pub fn unix(self) -> Option<(u64, u32)> {
        let since = self.0.checked_sub(EPOCHS_APART * 10_000_000)?;
        Some((since / 10_000_000, (since % 10_000_000) as u32))
    }
}

impl From<SystemTime> for FileTime {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self((EPOCHS_APART + since.as_secs()) * 10_000_000 + u64::from(since.subsec_nanos()) / 100)
    }
}

/// The `FWPM_NET_EVENT_TYPE`s that the engine produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEventKind {
    /// FWPM_NET_EVENT_TYPE_CLASSIFY_DROP.
    ClassifyDrop,
    /// FWPM_NET_EVENT_TYPE_CLASSIFY_ALLOW.
    ClassifyAllow,
}

/// The direction of the traffic (`msFwpDirection`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Inbound.
    In,
    /// Outbound.
    Out,
    /// Forwarded.
    Forward,
}

/// One event: `FWPM_NET_EVENT_HEADER3` and the drop or allow structure.
#[derive(Clone, Debug, PartialEq)]
pub struct NetEvent {
    /// timeStamp.
    pub time: FileTime,
    /// What happened.
    pub kind: NetEventKind,
    /// ipProtocol.
    pub protocol: Option<u8>,
    /// localAddrV4 or localAddrV6.
    pub local: Option<IpAddr>,
    /// remoteAddrV4 or remoteAddrV6.
    pub remote: Option<IpAddr>,
    /// localPort; for ICMP the type.
    pub local_port: Option<u16>,
    /// remotePort; for ICMP the code.
    pub remote_port: Option<u16>,
    /// scopeId.
    pub scope_id: Option<u32>,
    /// appId: UTF-16 with a terminating NUL.
    pub app_id: Option<Vec<u8>>,
    /// userId.
    pub user: Option<Sid>,
    /// packageSid.
    pub package: Option<Sid>,
    /// filterId.
    pub filter_id: u64,
    /// layerId.
    pub layer: LayerId,
    /// reauthReason.
    pub reauth_reason: u32,
    /// originalProfile.
    pub original_profile: u32,
    /// currentProfile.
    pub current_profile: u32,
    /// msFwpDirection.
    pub direction: Direction,
    /// isLoopback.
    pub loopback: bool,
    /// interfaceIndex; 0 where the layer tells of no interface.
    pub interface: u32,
    /// terminatingFiltersInfo: the filter that decided for each sublayer.
    pub terminating: Vec<TerminatingFilter>,
}

impl NetEvent {
    /// `FWPM_NET_EVENT_FLAG_*`: which members of the header are set.
    #[must_use]
    pub fn flags(&self) -> u32 {
        [
            (self.protocol.is_some(), consts::FWPM_NET_EVENT_FLAG_IP_PROTOCOL_SET),
            (self.local.is_some(), consts::FWPM_NET_EVENT_FLAG_LOCAL_ADDR_SET),
            (self.remote.is_some(), consts::FWPM_NET_EVENT_FLAG_REMOTE_ADDR_SET),
            (self.local_port.is_some(), consts::FWPM_NET_EVENT_FLAG_LOCAL_PORT_SET),
            (self.remote_port.is_some(), consts::FWPM_NET_EVENT_FLAG_REMOTE_PORT_SET),
            (self.app_id.is_some(), consts::FWPM_NET_EVENT_FLAG_APP_ID_SET),
            (self.user.is_some(), consts::FWPM_NET_EVENT_FLAG_USER_ID_SET),
            (self.scope_id.is_some(), consts::FWPM_NET_EVENT_FLAG_SCOPE_ID_SET),
            (self.local.or(self.remote).is_some(), consts::FWPM_NET_EVENT_FLAG_IP_VERSION_SET),
            (self.reauth_reason != 0, consts::FWPM_NET_EVENT_FLAG_REAUTH_REASON_SET),
            (self.package.is_some(), consts::FWPM_NET_EVENT_FLAG_PACKAGE_ID_SET),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

/// The last events; the newest replaces the oldest.
#[derive(Debug)]
pub struct EventStore {
    ring: Mutex<VecDeque<NetEvent>>,
    capacity: usize,
    lost: AtomicU64,
    collect: AtomicBool,
    collect_allow: AtomicBool,
    /// A fixed time for the events, when not zero.
    time: AtomicU64,
}

impl Default for EventStore {
    fn default() -> Self {
        Self::with_capacity(16 * 1024)
    }
}

impl EventStore {
    /// A store of at most `capacity` events.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            ring: Mutex::default(),
            capacity,
            lost: AtomicU64::new(0),
            collect: AtomicBool::new(true),
            collect_allow: AtomicBool::new(false),
            time: AtomicU64::new(0),
        }
    }

    /// The events, oldest first.
    #[must_use]
    pub fn to_vec(&self) -> Vec<NetEvent> {
        self.ring.lock().iter().cloned().collect()
    }

    /// Takes the events out.
    #[must_use]
    pub fn take(&self) -> Vec<NetEvent> {
        std::mem::take(&mut *self.ring.lock()).into()
    }

    /// How many events were replaced.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Switches the collection on or off (`netsh wfp set options netevents=`); it is on by default.
    pub fn set_collect(&self, on: bool) {
        self.collect.store(on, Ordering::Relaxed);
    }

    /// Whether allows are recorded too (`FWPM_NET_EVENT_KEYWORD_CLASSIFY_ALLOW`); they are not by default.
    pub fn set_collect_allow(&self, on: bool) {
        self.collect_allow.store(on, Ordering::Relaxed);
    }

    /// Whether events are collected.
    #[must_use]
    pub fn collects(&self) -> bool {
        self.collect.load(Ordering::Relaxed)
    }

    /// Whether allows are recorded too.
    #[must_use]
    pub fn collects_allow(&self) -> bool {
        self.collect_allow.load(Ordering::Relaxed)
    }

    /// Stamps further events with this time, e.g. that of a packet in a capture; `None` means now.
    pub fn set_time(&self, time: Option<FileTime>) {
        self.time.store(time.unwrap_or_default().0, Ordering::Relaxed);
    }

    fn time(&self) -> FileTime {
        match self.time.load(Ordering::Relaxed) {
            0 => FileTime::now(),
            fixed => FileTime(fixed),
        }
    }

    /// Whether a permit at this layer is an event: the authorization of a connection or an endpoint is, a permit per
    /// packet is not.
    pub(crate) fn wants_allow(&self, layer: LayerId, outcome: &Outcome) -> bool {
        self.collect_allow.load(Ordering::Relaxed)
            && outcome.decided
            && outcome.verdict == Verdict::Permit
            && matches!(
                layer,
                LayerId::ALE_AUTH_CONNECT_V4
                    | LayerId::ALE_AUTH_CONNECT_V6
                    | LayerId::ALE_AUTH_RECV_ACCEPT_V4
                    | LayerId::ALE_AUTH_RECV_ACCEPT_V6
                    | LayerId::ALE_AUTH_LISTEN_V4
                    | LayerId::ALE_AUTH_LISTEN_V6
                    | LayerId::ALE_RESOURCE_ASSIGNMENT_V4
                    | LayerId::ALE_RESOURCE_ASSIGNMENT_V6
            )
    }

    fn push(&self, event: NetEvent) {
        let mut ring = self.ring.lock();
        if ring.len() >= self.capacity {
            ring.pop_front();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        ring.push_back(event);
    }
}

/// Records the outcome of a classify call.
pub(crate) fn record(engine: &FilterEngine, c: &Classify<'_>, outcome: &Outcome) {
    let store = &engine.events;
    if !store.collect.load(Ordering::Relaxed) {
        return;
    }
    let Some(layer) = engine.layers().get(c.layer) else { return };
    let read =
        |name: &str| layer.field_index(name).and_then(|index| c.values.get(index)).map(nt_abi::fwp::value::Value::read);
    let number = |name: &str| match read(name) {
        Some(Read::Unsigned(_, value)) => Some(value),
        _ => None,
    };
    let address = |name: &str| match read(name) {
        Some(Read::Unsigned(_, v4)) => Some(IpAddr::V4(Ipv4Addr::from(v4 as u32))),
        Some(Read::Bytes16(v6)) => Some(IpAddr::V6(Ipv6Addr::from(*v6))),
        _ => None,
    };
    let bytes = |name: &str| match read(name) {
        Some(Read::Bytes(_, bytes)) => Some(bytes),
        _ => None,
    };
    let metadata = c.metadata;
    let scoped = metadata.current_metadata_values & consts::FWPS_METADATA_FIELD_REMOTE_SCOPE_ID != 0;
    store.push(NetEvent {
        time: store.time(),
        kind: match outcome.verdict {
            Verdict::Block => NetEventKind::ClassifyDrop,
            Verdict::Permit => NetEventKind::ClassifyAllow,
        },
        protocol: number("IP_PROTOCOL").map(|v| v as u8),
        local: address("IP_LOCAL_ADDRESS").or_else(|| address("IP_SOURCE_ADDRESS")),
        remote: address("IP_REMOTE_ADDRESS").or_else(|| address("IP_DESTINATION_ADDRESS")),
        local_port: number("IP_LOCAL_PORT").map(|v| v as u16),
        remote_port: number("IP_REMOTE_PORT").map(|v| v as u16),
        scope_id: scoped.then_some(metadata.remote_scope_id),
        app_id: bytes("ALE_APP_ID").map(<[u8]>::to_vec),
        user: bytes("ALE_USER_ID").and_then(Token::user),
        package: bytes("ALE_PACKAGE_ID").and_then(Sid::parse),
        filter_id: outcome.filter_id,
        layer: c.layer,
        reauth_reason: number("REAUTHORIZE_REASON").unwrap_or(0) as u32,
        original_profile: number("ORIGINAL_PROFILE_ID").unwrap_or(0) as u32,
        current_profile: number("CURRENT_PROFILE_ID").unwrap_or(0) as u32,
        direction: direction(layer, number("DIRECTION"), c),
        interface: number("INTERFACE_INDEX").or_else(|| number("ARRIVAL_INTERFACE_INDEX")).unwrap_or(0) as u32,
        loopback: number("FLAGS").is_some_and(|flags| flags as u32 & consts::FWP_CONDITION_FLAG_IS_LOOPBACK != 0),
        terminating: outcome.terminating.to_vec(),
    });
}

fn direction(layer: &Layer, field: Option<u64>, c: &Classify<'_>) -> Direction {
    let of = |direction: u32| if direction == consts::FWP_DIRECTION_INBOUND { Direction::In } else { Direction::Out };
    let known = c.metadata.current_metadata_values & consts::FWPS_METADATA_FIELD_PACKET_DIRECTION != 0;
    match layer.name {
        name if name.starts_with("INBOUND_") => Direction::In,
        name if name.starts_with("OUTBOUND_") => Direction::Out,
        name if name.starts_with("IPFORWARD_") => Direction::Forward,
        // A bind, a listen and an accept are about inbound traffic.
        name if name.starts_with("ALE_AUTH_RECV_ACCEPT_") || name.starts_with("ALE_AUTH_LISTEN_") => Direction::In,
        name if name.starts_with("ALE_RESOURCE_ASSIGNMENT_") => Direction::In,
        name if name.starts_with("ALE_AUTH_CONNECT_") => Direction::Out,
        _ => match field {
            Some(direction) => of(direction as u32),
            None if known => of(c.metadata.packet_direction),
            None => Direction::Out,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_give_way() {
        let store = EventStore::with_capacity(2);
        for filter_id in 1..=5 {
            store.push(NetEvent {
                time: FileTime(filter_id),
                kind: NetEventKind::ClassifyDrop,
                protocol: None,
                local: None,
                remote: None,
                local_port: None,
                remote_port: None,
                scope_id: None,
                app_id: None,
                user: None,
                package: None,
                filter_id,
                layer: LayerId::INBOUND_IPPACKET_V4,
                reauth_reason: 0,
                original_profile: 0,
                current_profile: 0,
                direction: Direction::In,
                loopback: false,
                interface: 0,
                terminating: Vec::new(),
            });
        }
        assert_eq!(store.to_vec().iter().map(|event| event.filter_id).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(store.dropped(), 3);
        assert_eq!(store.take().iter().map(NetEvent::flags).collect::<Vec<_>>(), [0, 0]);
        assert!(store.to_vec().is_empty());
    }

    #[test]
    fn a_file_time_counts_from_1601() {
        let time = FileTime::from(UNIX_EPOCH + std::time::Duration::new(1, 200));
        assert_eq!(time, FileTime(116_444_736_010_000_002));
        assert_eq!(time.unix(), Some((1, 2)));
        assert_eq!(FileTime(5).unix(), None);
    }
}
