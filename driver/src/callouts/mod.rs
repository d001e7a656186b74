//! The callouts: one per layer and IP version, registered as [`sluice_protocol::object::LAYERS`] lists them.
//!
//! | layer | file | what it does |
//! |---|---|---|
//! | ALE_AUTH_CONNECT, ALE_AUTH_RECV_ACCEPT | [`connection`] | decides a connection |
//! | ALE_RESOURCE_ASSIGNMENT, ALE_AUTH_LISTEN | [`endpoint`] | decides who may have a port, and listen on it |
//! | ALE_FLOW_ESTABLISHED | [`established`] | makes the flow context |
//! | STREAM | [`stream`] | asks TCP data for a name, where the policy does, and decides by it |
//! | DATAGRAM_DATA | [`datagram`] | the same for UDP |
//! | OUTBOUND_TRANSPORT, INBOUND_TRANSPORT | [`transport`] | counts packets, drops those of revoked flows, decides packets that have no flow |
//! | INBOUND_TRANSPORT_DISCARD, OUTBOUND_ICMP_ERROR | [`silence`] | keeps resets and ICMP errors from telling which ports are closed |
//! | IPFORWARD | [`forward`] | decides packets that are passed on between other machines |
//!
//! What they share is in [`verdict`]. A new layer is a row there, a file here, and the arm of [`entry`] that the compiler
//! then asks for.

mod connection;
mod datagram;
mod endpoint;
mod established;
mod forward;
mod silence;
mod stream;
mod transport;
mod verdict;

use core::sync::atomic::{AtomicBool, Ordering};

use kernel::wdf::ControlDevice;
use kernel::{
    status::NtResult,
    wfp::{Callout, CalloutEntry, Callouts, Classify, Flow, callout_flag, fields, fields::Fields, protocol},
};
use sluice_protocol::object::{self, CALLOUTS, CalloutObject, Carried, Point};

use crate::{
    SLUICE,
    device::Device,
    flow::{FlowKey, FlowState},
};

pub(crate) use verdict::settle;

/// One of our classify functions.
pub(crate) type Request<'a> = Classify<'a, FlowState>;

/// The callout that a row of the table asks for.
const fn entry(object: &CalloutObject) -> CalloutEntry {
    match object.point {
        Point::Connect => of::<connection::Connect>(object),
        Point::Accept => of::<connection::Accept>(object),
        Point::Established => of::<established::Established>(object),
        Point::Stream => of::<stream::Stream>(object),
        Point::OutboundTransport => of::<transport::Outbound>(object),
        Point::InboundTransport => of::<transport::Inbound>(object),
        Point::Forward => of::<forward::Forward>(object),
        Point::InboundDiscard => of::<silence::Discard>(object),
        Point::OutboundIcmpError => of::<silence::IcmpError>(object),
        Point::Datagrams => of::<datagram::Datagrams>(object),
        Point::Bind => of::<endpoint::Bind>(object),
        Point::Listen => of::<endpoint::Listen>(object),
    }
}

const fn of<C: Callout>(object: &CalloutObject) -> CalloutEntry {
    assert!(fields::is_layer(object.layer_id, object.name), "the row gives the layer another id than the headers");
    let conditional = match object.carried {
        // Only flows with a context of ours are classified there: the rest pay nothing.
        Carried::LookedAtTcp | Carried::LookedAtUdp => callout_flag::CONDITIONAL_ON_FLOW,
        Carried::None | Carried::EveryFlow => 0,
    };
    CalloutEntry::of::<C>(object.layer_id, object.callout, conditional | OFFLOADS)
}

/// The network card may put segments and datagrams together and cut them: packets are only counted, and [`datagram`] takes
/// several in one for what they are. A callout that does not allow it disables it for everything that its filters match
/// (FWPS_CALLOUT3, flags).
const OFFLOADS: u32 =
    callout_flag::ALLOW_OFFLOAD | callout_flag::ALLOW_RSC | callout_flag::ALLOW_USO | callout_flag::ALLOW_URO;

/// The process that a call is about; 0 when the layer does not report it.
fn process_id(request: &Request<'_>) -> u32 {
    request.process_id().map_or(0, |id| id as u32)
}

/// The field indices of a place's layer.
const fn fields_at(point: Point) -> Fields {
    let layer = object::layer(point);
    Fields::of(layer.v4.id, layer.v6.id)
}

const ENTRIES: [CalloutEntry; CALLOUTS.len()] = {
    let mut entries = [entry(&CALLOUTS[0]); CALLOUTS.len()];
    let mut at = 1;
    while at < entries.len() {
        entries[at] = entry(&CALLOUTS[at]);
        at += 1;
    }
    entries
};

/// Set during unload: no new flow context is made.
static CLOSING: AtomicBool = AtomicBool::new(false);

/// Registers every callout, those last that let a connection through for the others to see to. PASSIVE_LEVEL.
pub(crate) fn register(device: &ControlDevice<Device>) -> NtResult<Callouts<{ CALLOUTS.len() }>> {
    Callouts::register(device, &ENTRIES, |place, callout| SLUICE.flows.set_callout(place, callout), release_flows)
}

/// Stops making flow contexts and removes the existing ones, before the callouts are unregistered. PASSIVE_LEVEL.
pub(crate) fn close() {
    CLOSING.store(true, Ordering::SeqCst);
    release_flows();
}

fn release_flows() {
    SLUICE.flows.for_each(kernel::wfp::Flow::remove_associations);
}

fn is_closing() -> bool {
    CLOSING.load(Ordering::SeqCst)
}

/// The indices in the list of the callouts that a flow carries its context to.
fn flow_callouts(key: &FlowKey, looked_at: bool) -> impl Iterator<Item = usize> {
    let (ip_version, protocol) = (if key.local.is_ipv4() { 4 } else { 6 }, key.protocol);
    CALLOUTS.iter().enumerate().filter_map(move |(place, object)| {
        let carried = match object.carried {
            Carried::None => false,
            Carried::EveryFlow => true,
            Carried::LookedAtTcp => looked_at && protocol == protocol::TCP,
            Carried::LookedAtUdp => looked_at && protocol == protocol::UDP,
        };
        (carried && object.ip_version == ip_version).then_some(place)
    })
}

/// A UTF-16 path without its terminating NUL.
pub(crate) fn trim_nul(path: &[u8]) -> &[u8] {
    path.strip_suffix(&[0, 0]).unwrap_or(path)
}

/// Whether the policy in force has a use for names: then answers of DNS are read.
fn asks_for_names() -> bool {
    SLUICE.policy.read().is_some_and(|policy| policy.wants_names())
}

/// Ends the looking at a flow's content: the layers that only do that are not called for it again.
fn let_go(flow: &Flow<FlowState>) {
    CALLOUTS
        .iter()
        .enumerate()
        .filter(|(_, object)| matches!(object.carried, Carried::LookedAtTcp | Carried::LookedAtUdp))
        .for_each(|(place, _)| flow.remove_association(place));
}
