//! ALE_AUTH_CONNECT and ALE_AUTH_RECV_ACCEPT: may this connection be?

use kernel::wfp::{Callout, condition_flag, fields::Fields};
use sluice_policy::{Direction, Name, Verdict};
use sluice_protocol::{object::Point, status::Counter};

use super::{
    Request, fields_at, process_id,
    verdict::{self, Subject},
};
use crate::{
    SLUICE,
    flow::{FlowState, Owner},
    inspection,
    learned::Kept,
};

/// ALE_AUTH_CONNECT.
pub(super) struct Connect;

impl Callout for Connect {
    type Flow = FlowState;

    fn classify(request: &mut Request<'_>) {
        classify(request, const { &fields_at(Point::Connect) }, Direction::Outbound);
    }
}

/// ALE_AUTH_RECV_ACCEPT.
pub(super) struct Accept;

impl Callout for Accept {
    type Flow = FlowState;

    fn classify(request: &mut Request<'_>) {
        classify(request, const { &fields_at(Point::Accept) }, Direction::Inbound);
    }
}

/// Decides by the policy in force; without one everything passes, undecided. A connection whose name may still decide is
/// let through: what is kept for its flow sees to the rest. Where DNS has told the names of the address, one that is
/// blocked is refused here. IRQL <= DISPATCH_LEVEL.
fn classify(request: &mut Request<'_>, fields: &Fields, direction: Direction) {
    let flags = request.u32(fields.flags).unwrap_or(0);
    if flags & condition_flag::IS_REAUTHORIZE != 0 {
        SLUICE.counters.add(request.dispatch(), Counter::Reauthorizations, 1);
    }
    let Some((key, policy)) = verdict::decidable(request, fields, direction) else { return };
    let owner = Owner::read(request, fields);
    let mut decision = key.decide(&policy, &owner, Name::Unknown);
    let mut learned = None;
    let tracked = is_tracked(request, flags);
    if decision.needs_name && tracked != Some(true) {
        let unreadable = tracked == Some(false) || !inspection::is_possible(&key);
        let by_name = SLUICE.learned.decide(&key, &policy, &owner, &decision);
        match by_name.filter(|(by_name, _)| unreadable || by_name.verdict == Verdict::Block) {
            Some((by_name, name)) => (decision, learned) = (by_name, Some(name)),
            None if unreadable => decision = key.decide(&policy, &owner, Name::Undecidable),
            None => {}
        }
    }
    let epoch = policy.epoch;
    drop(policy);
    if decision.verdict == Verdict::Block && !decision.needs_name && tracked == Some(true) {
        // Windows ends the flow before a packet of it could be decided again.
        SLUICE.counters.add(request.dispatch(), Counter::FlowsRevoked, 1);
    }
    if decision.needs_name {
        SLUICE.counters.add(request.dispatch(), Counter::NamesAwaited, 1);
        let hard = decision.hard && decision.verdict == Verdict::Permit;
        // Recorded when it is decided.
        (decision.verdict, decision.hard, decision.silent, decision.log) = (Verdict::Permit, hard, false, false);
    }
    let counter = match (direction, decision.verdict) {
        (Direction::Outbound, Verdict::Permit) => Counter::ConnectsPermitted,
        (Direction::Outbound, Verdict::Block) => Counter::ConnectsBlocked,
        (_, Verdict::Permit) => Counter::AcceptsPermitted,
        (_, Verdict::Block) => Counter::AcceptsBlocked,
    };
    let process_id = process_id(request);
    let name = learned.as_ref().map_or(&[][..], Kept::as_bytes);
    let subject = Subject { process_id, application: owner.application, name, ..Subject::packet(&key) };
    verdict::give(request, &subject, epoch, decision, counter, flags);
}

/// Whether an established flow that Windows asks about again has a context of ours, which knows its name; where it has
/// none, nobody will look at its content. None for one that is not established.
fn is_tracked(request: &Request<'_>, flags: u32) -> Option<bool> {
    let asked_again = flags & condition_flag::IS_REAUTHORIZE != 0;
    request.flow_handle().filter(|_| asked_again).map(|handle| SLUICE.flows.has(handle))
}
