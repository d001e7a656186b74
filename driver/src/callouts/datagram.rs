//! DATAGRAM_DATA: datagrams of flows whose name may decide. Nobody else's come here, as at [`super::stream`].

use kernel::wfp::{Answer, Callout, DIRECTION_INBOUND, Flow, PacketList};
use sluice_policy::{Direction, Name, Verdict};
use sluice_protocol::{object::Point, status::Counter};

use super::{Request, asks_for_names, fields_at, let_go, verdict};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Standing},
    inspection::{
        datagram::{Found, Reader},
        dns::{self, teaches},
        is_dns,
    },
};

/// DATAGRAM_DATA.
pub(super) struct Datagrams;

/// The size of UDP's header, which outbound data begins with.
const UDP_HEADER: u32 = 8;

impl Callout for Datagrams {
    type Flow = FlowState;

    /// A datagram cannot be kept back. One that does not tell the name passes if the flow would without a name, and is
    /// dropped otherwise: QUIC sends it again.
    fn classify(request: &mut Request<'_>) {
        let Some(flow) = request.flow() else {
            request.answer(Answer::Continue);
            return;
        };
        let (key, seen) = (flow.key(), Seen::of(request));
        let verdict = match verdict::standing(request, flow) {
            Standing::Awaited(without_name) => look_at(request, flow, &key, seen, without_name),
            Standing::Permitted if teaches(&key) && asks_for_names() => Verdict::Permit,
            Standing::Permitted => {
                // What was not found until now is not looked for any more.
                flow.content().end(None);
                let_go(flow);
                Verdict::Permit
            }
            Standing::Revoked => Verdict::Block,
        };
        if verdict == Verdict::Permit && teaches(&key) {
            learn(request, flow, &key, seen);
        }
        match verdict {
            Verdict::Permit => request.answer(Answer::Continue),
            Verdict::Block => request.answer(Answer::Block { hard: true }),
        };
    }
}

/// Which way the datagrams go, and how many bytes come before their data.
#[derive(Clone, Copy)]
struct Seen {
    direction: Direction,
    header: u32,
}

impl Seen {
    fn of(request: &Request<'_>) -> Self {
        let fields = const { &fields_at(Point::Datagrams) };
        match request.u32(fields.direction) {
            Some(DIRECTION_INBOUND) => Self { direction: Direction::Inbound, header: 0 },
            _ => Self { direction: Direction::Outbound, header: request.transport_header_size().unwrap_or(UDP_HEADER) },
        }
    }
}

/// Notes questions, and learns from answers of the server that was asked.
fn learn(request: &Request<'_>, flow: &Flow<FlowState>, key: &FlowKey, Seen { direction, header }: Seen) {
    let fields = const { &fields_at(Point::Datagrams) };
    let server = request.address(fields.remote_address).zip(request.u16(fields.remote_port));
    if server != Some((key.remote, key.remote_port)) {
        return;
    }
    for packet in request.packets().into_iter().flat_map(PacketList::iter) {
        match direction {
            Direction::Inbound => dns::answer(flow.content(), request.dispatch(), packet),
            _ => dns::ask(flow.content(), packet, header),
        }
    }
}

/// The verdict on the datagrams of a flow whose name is not known.
fn look_at(
    request: &Request<'_>,
    flow: &Flow<FlowState>,
    key: &FlowKey,
    Seen { direction, header }: Seen,
    without_name: Verdict,
) -> Verdict {
    if direction != key.direction {
        return without_name; // an answer
    }
    let mut verdict = Verdict::Permit;
    for packet in request.packets().into_iter().flat_map(PacketList::iter) {
        let mut reader = Reader::default();
        if is_dns(key) {
            let found = reader.ask_dns(packet, header);
            count(request, found);
            if verdict::decide_datagram(request, flow, reader.name()) == Verdict::Block {
                return Verdict::Block;
            }
            continue;
        }
        let found = reader.look(flow.content(), packet, header);
        count(request, found);
        match found {
            // The next of them may tell the rest.
            Found::NotYet => verdict = without_name,
            Found::All | Found::Unreadable => return decide(request, flow, reader.name()),
        }
    }
    verdict
}

fn count(request: &Request<'_>, found: Found) {
    if found == Found::Unreadable {
        SLUICE.counters.add(request.dispatch(), Counter::NamesNotLookedFor, 1);
    }
}

/// Decides the flow, once for all of its datagrams.
fn decide(request: &Request<'_>, flow: &Flow<FlowState>, name: Name<'_>) -> Verdict {
    match verdict::decide_by_content(request, flow, name) {
        Standing::Revoked | Standing::Awaited(Verdict::Block) => Verdict::Block,
        Standing::Permitted | Standing::Awaited(Verdict::Permit) => {
            let_go(flow);
            Verdict::Permit
        }
    }
}
