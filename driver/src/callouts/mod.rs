//! The callouts: one per place in the stack and IP version, registered as [`sluice_protocol::object::CALLOUTS`] lists
//! them.
//!
//! | place | file | what it does |
//! |---|---|---|
//! | ALE_AUTH_CONNECT, ALE_AUTH_RECV_ACCEPT | [`connection`] | decides a connection |
//! | ALE_FLOW_ESTABLISHED | [`established`] | makes the flow context |
//! | STREAM | [`stream`] | counts TCP data, drops revoked connections |
//! | OUTBOUND_TRANSPORT, INBOUND_TRANSPORT | [`transport`] | counts packets, drops those of revoked flows, decides packets that have no flow |

mod connection;
mod established;
mod stream;
mod transport;

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kernel::wdf::ControlDevice;
use kernel::{
    status::NtResult,
    wfp::{Callout, CalloutEntry, CalloutId, Callouts, Classify, fields},
};
use sluice_policy::Direction;
use sluice_protocol::object::{CALLOUTS, CalloutObject, Point};

use crate::{SLUICE, device::Device, flow::FlowState};

/// A classify of ours.
type Request<'a> = Classify<'a, FlowState>;

/// The callout at place `N` of the list.
struct Site<const N: usize>;

impl<const N: usize> Callout for Site<N> {
    type Flow = FlowState;
    const KEY: u128 = CALLOUTS[N].callout;
    const LAYER: u16 = CALLOUTS[N].layer_id;
    const FLAGS: u32 = match CALLOUTS[N].point {
        // Only flows that have a context of ours are shown at the stream layer: the rest pay nothing.
        Point::Stream => kernel::wfp::callout_flag::CONDITIONAL_ON_FLOW,
        _ => 0,
    };

    fn classify(request: &mut Request<'_>) {
        const { assert!(N < CALLOUTS.len()) };
        match CALLOUTS[N].point {
            Point::Connect => connection::classify(request, &fields::ALE_AUTH_CONNECT, Direction::Outbound),
            Point::Accept => connection::classify(request, &fields::ALE_AUTH_RECV_ACCEPT, Direction::Inbound),
            Point::Established => established::classify(request, &fields::ALE_FLOW_ESTABLISHED),
            Point::Stream => stream::classify(request),
            Point::OutboundTransport => {
                transport::classify(request, &fields::OUTBOUND_TRANSPORT, Direction::Outbound);
            }
            Point::InboundTransport => transport::classify(request, &fields::INBOUND_TRANSPORT, Direction::Inbound),
        }
    }
}

const ENTRIES: [CalloutEntry; CALLOUTS.len()] = [
    CalloutEntry::of::<Site<0>>(),
    CalloutEntry::of::<Site<1>>(),
    CalloutEntry::of::<Site<2>>(),
    CalloutEntry::of::<Site<3>>(),
    CalloutEntry::of::<Site<4>>(),
    CalloutEntry::of::<Site<5>>(),
    CalloutEntry::of::<Site<6>>(),
    CalloutEntry::of::<Site<7>>(),
    CalloutEntry::of::<Site<8>>(),
    CalloutEntry::of::<Site<9>>(),
    CalloutEntry::of::<Site<10>>(),
    CalloutEntry::of::<Site<11>>(),
];

/// The run-time ids of the registered callouts, 0 before registration, in the list's order.
static IDS: [AtomicU32; CALLOUTS.len()] = [const { AtomicU32::new(0) }; CALLOUTS.len()];
/// Set on the way out: no new flow context is made.
static CLOSING: AtomicBool = AtomicBool::new(false);

/// Registers every callout. PASSIVE_LEVEL.
pub(crate) fn register(device: &ControlDevice<Device>) -> NtResult<Callouts<{ CALLOUTS.len() }>> {
    let callouts = Callouts::register(device, &ENTRIES, release_flows)?;
    for (slot, callout) in IDS.iter().zip(callouts.ids()) {
        slot.store(callout.id, Ordering::Release);
    }
    Ok(callouts)
}

/// Stops making flow contexts and gives back those there are, before the callouts are unregistered. PASSIVE_LEVEL.
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

/// The registered callouts that a flow is associated with.
fn flow_callouts(ip_version: u8, has_stream: bool) -> impl Iterator<Item = CalloutId> {
    let wanted = move |object: &CalloutObject| {
        object.ip_version == ip_version
            && match object.point {
                Point::Stream => has_stream,
                Point::OutboundTransport | Point::InboundTransport => true,
                Point::Connect | Point::Accept | Point::Established => false,
            }
    };
    CALLOUTS
        .iter()
        .zip(&IDS)
        .filter(move |(object, _)| wanted(object))
        .map(|(object, id)| CalloutId { layer: object.layer_id, id: id.load(Ordering::Acquire) })
}
