//! OUTBOUND_TRANSPORT and INBOUND_TRANSPORT: every packet of the machine passes here.

use kernel::wfp::{
    Answer, Call, Callout, PacketTotals, Way,
    fields::Fields,
    protocol::{TCP, UDP},
};
use sluice_policy::{Decision, Direction, Name, Verdict};
use sluice_protocol::{object::Point, status::Counter};

use super::{
    Request, fields_at,
    verdict::{self, Subject},
};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Owner, Standing},
};

/// OUTBOUND_TRANSPORT.
pub(super) struct Outbound;

impl Callout for Outbound {
    type Flow = FlowState;

    fn at_once(call: &mut Call<'_, FlowState>) -> bool {
        pass(call, Way::Out)
    }

    fn classify(request: &mut Request<'_>) {
        classify(request, const { &fields_at(Point::OutboundTransport) }, Direction::Outbound, Way::Out);
    }
}

/// INBOUND_TRANSPORT.
pub(super) struct Inbound;

impl Callout for Inbound {
    type Flow = FlowState;

    fn at_once(call: &mut Call<'_, FlowState>) -> bool {
        pass(call, Way::In)
    }

    fn classify(request: &mut Request<'_>) {
        classify(request, const { &fields_at(Point::InboundTransport) }, Direction::Inbound, Way::In);
    }
}

/// A packet of a flow that the policy in force is known to permit: counts it and lets it pass. False for all others.
#[inline(always)]
fn pass(call: &mut Call<'_, FlowState>, way: Way) -> bool {
    let Some(flow) = call.flow().filter(|flow| flow.known_standing() == Some(Standing::Permitted)) else {
        return false;
    };
    flow.count(way, totals(call, way));
    call.answer(Answer::Continue);
    true
}

/// What a call shows, without transport headers. Outbound data starts at the transport header, inbound data after it
/// (documentation of the data offsets at each layer).
fn totals(call: &Call<'_, FlowState>, way: Way) -> PacketTotals {
    let PacketTotals { packets, bytes } = call.packets().map_or_else(PacketTotals::default, |list| list.totals());
    let header = match way {
        Way::Out => u64::from(call.transport_header_size().unwrap_or(0)),
        Way::In => 0,
    };
    PacketTotals { packets, bytes: bytes.saturating_sub(header * packets) }
}

/// A packet of a flow with a context is counted, and dropped when the flow is revoked. One without is left to the ALE
/// layers if it is TCP or UDP (always decided there), and decided here otherwise. DISPATCH_LEVEL.
fn classify(request: &mut Request<'_>, fields: &Fields, direction: Direction, way: Way) {
    let Some(flow) = request.flow() else { return without_flow(request, fields, direction) };
    let totals = totals(request, way);
    flow.count(way, totals);
    match verdict::standing(request, flow) {
        Standing::Permitted | Standing::Awaited(_) => {
            request.answer(Answer::Continue);
        }
        Standing::Revoked => {
            SLUICE.counters.add(request.dispatch(), Counter::RevokedPackets, totals.packets);
            request.answer(Answer::Block { hard: true });
            // Both ends should learn that the connection is over, instead of retransmitting.
            flow.abort();
        }
    }
}

/// A packet whose flow has no context of ours.
fn without_flow(request: &mut Request<'_>, fields: &Fields, direction: Direction) {
    if matches!(request.u8(fields.protocol), Some(TCP | UDP)) {
        return untracked(request, fields, direction);
    }
    let Some((key, policy)) = verdict::decidable(request, fields, direction) else { return };
    let decision = key.decide(&policy, &Owner::read(request, fields), Name::Unknown);
    let (decision, asked) = verdict::settle(&policy, decision, 0, false);
    let epoch = policy.epoch;
    drop(policy);
    let counter = match decision.verdict {
        Verdict::Permit => Counter::PacketsPermitted,
        Verdict::Block => Counter::PacketsBlocked,
    };
    let flags = request.u32(fields.flags).unwrap_or(0);
    let subject = Subject { asked, ..Subject::packet(&key) };
    verdict::give(request, &subject, epoch, decision, counter, flags);
}

/// A packet of TCP or UDP without a context of ours. Before its flow is established the ALE layers decide. An established
/// flow that was refused a context is decided by its key at each packet, as far as that tells: who owns it and who opened
/// it is not known here, so a policy that asks for owners is left to the ALE layers, where Windows asks again after a
/// swap, and the flow must be forbidden whoever opened it. Nobody looks at its content, so its name is undecidable.
fn untracked(request: &mut Request<'_>, fields: &Fields, direction: Direction) {
    match request.flow_handle().and_then(|_| forbidden(request, fields, direction)) {
        Some((key, epoch, decision)) => {
            let flags = request.u32(fields.flags).unwrap_or(0);
            let subject = Subject::packet(&key);
            verdict::give(request, &subject, epoch, decision, Counter::RevokedPackets, flags);
        }
        None => {
            request.answer(Answer::Continue);
        }
    }
}

/// The decision that forbids a flow whoever owns it and whichever side opened it, and the generation of its policy.
fn forbidden(request: &Request<'_>, fields: &Fields, direction: Direction) -> Option<(FlowKey, u32, Decision)> {
    let policy = SLUICE.policy.read().filter(|policy| !policy.image.asks_for_owners())?;
    let key = FlowKey::read(request, fields, Some(direction))?;
    let owner = Owner::read(request, fields);
    let [outbound, inbound] = [Direction::Outbound, Direction::Inbound]
        .map(|direction| FlowKey { direction, ..key }.decide(&policy, &owner, Name::Undecidable));
    let decision = if direction == Direction::Outbound { outbound } else { inbound };
    // One that a rule asks about may have been permitted.
    let forbidden = outbound.verdict == Verdict::Block && outbound.asks.is_none() && inbound.verdict == Verdict::Block;
    forbidden.then_some((key, policy.epoch, decision))
}
