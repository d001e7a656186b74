//! Net events as the seam has them.

use super::listing::{blob, sid};
use sluice_host::listing::ListedEvent;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform as wfp;

/// What an event's body tells.
#[derive(Default)]
struct Body {
    filter_id: Option<u64>,
    layer_id: Option<u16>,
    direction: Option<u32>,
    loopback: Option<bool>,
}

/// An event that FwpmNetEventEnum2 returned and that has not been freed.
pub(super) fn event(event: &wfp::FWPM_NET_EVENT2) -> ListedEvent {
    let header = &event.header;
    let set = |flag: u32| header.flags & flag != 0;
    let version = if set(wfp::FWPM_NET_EVENT_FLAG_IP_VERSION_SET) { header.ipVersion } else { -1 };
    // SAFETY: the version says which member of the unions is set.
    let (local, remote) = unsafe {
        match version {
            wfp::FWP_IP_VERSION_V4 => (
                Some(IpAddr::V4(Ipv4Addr::from(header.Anonymous1.localAddrV4))),
                Some(IpAddr::V4(Ipv4Addr::from(header.Anonymous2.remoteAddrV4))),
            ),
            wfp::FWP_IP_VERSION_V6 => (
                Some(IpAddr::V6(Ipv6Addr::from(header.Anonymous1.localAddrV6.byteArray16))),
                Some(IpAddr::V6(Ipv6Addr::from(header.Anonymous2.remoteAddrV6.byteArray16))),
            ),
            _ => (None, None),
        }
    };
    let Body { filter_id, layer_id, direction, loopback } = body(event);
    ListedEvent {
        time: u64::from(header.timeStamp.dwHighDateTime) << 32 | u64::from(header.timeStamp.dwLowDateTime),
        kind: event.r#type as u32,
        protocol: set(wfp::FWPM_NET_EVENT_FLAG_IP_PROTOCOL_SET).then_some(header.ipProtocol),
        local: local.filter(|_| set(wfp::FWPM_NET_EVENT_FLAG_LOCAL_ADDR_SET)),
        local_port: set(wfp::FWPM_NET_EVENT_FLAG_LOCAL_PORT_SET).then_some(header.localPort),
        remote: remote.filter(|_| set(wfp::FWPM_NET_EVENT_FLAG_REMOTE_ADDR_SET)),
        remote_port: set(wfp::FWPM_NET_EVENT_FLAG_REMOTE_PORT_SET).then_some(header.remotePort),
        app_id: set(wfp::FWPM_NET_EVENT_FLAG_APP_ID_SET).then(|| blob(&header.appId)),
        // SAFETY: a SID that is set is null or points into the event.
        user: if set(wfp::FWPM_NET_EVENT_FLAG_USER_ID_SET) { unsafe { sid(header.userId) } } else { None },
        package: if set(wfp::FWPM_NET_EVENT_FLAG_PACKAGE_ID_SET) {
            // SAFETY: as above.
            unsafe { sid(header.packageSid) }
        } else {
            None
        },
        filter_id,
        layer_id,
        direction,
        loopback,
    }
}

/// The body, of the types that filters cause.
fn body(event: &wfp::FWPM_NET_EVENT2) -> Body {
    let body = &event.Anonymous;
    // SAFETY: the type says which member is set; it is null or points into the event.
    let found = unsafe {
        match event.r#type {
            wfp::FWPM_NET_EVENT_TYPE_CLASSIFY_DROP => body.classifyDrop.as_ref().map(|drop| Body {
                filter_id: Some(drop.filterId),
                layer_id: Some(drop.layerId),
                direction: Some(drop.msFwpDirection),
                loopback: Some(drop.isLoopback != 0),
            }),
            wfp::FWPM_NET_EVENT_TYPE_CLASSIFY_ALLOW => body.classifyAllow.as_ref().map(|allow| Body {
                filter_id: Some(allow.filterId),
                layer_id: Some(allow.layerId),
                direction: Some(allow.msFwpDirection),
                loopback: Some(allow.isLoopback != 0),
            }),
            wfp::FWPM_NET_EVENT_TYPE_CAPABILITY_DROP => body.capabilityDrop.as_ref().map(|drop| Body {
                filter_id: Some(drop.filterId),
                loopback: Some(drop.isLoopback != 0),
                ..Body::default()
            }),
            wfp::FWPM_NET_EVENT_TYPE_CAPABILITY_ALLOW => body.capabilityAllow.as_ref().map(|allow| Body {
                filter_id: Some(allow.filterId),
                loopback: Some(allow.isLoopback != 0),
                ..Body::default()
            }),
            _ => None,
        }
    };
    found.unwrap_or_default()
}
