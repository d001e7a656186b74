//! ALE_AUTH_CONNECT and ALE_AUTH_RECV_ACCEPT: may this connection be?

use kernel::wfp::{Callout, condition_flag, fields::Fields};
use sluice_policy::{Direction, Verdict};
use sluice_protocol::{object::Point, status::Counter};

use super::{
    Request, fields_at,
    verdict::{self, Subject},
};
use crate::{
    SLUICE,
    flow::{FlowState, Owner},
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

/// Decides by the policy in force; without one everything passes, undecided. IRQL <= DISPATCH_LEVEL.
fn classify(request: &mut Request<'_>, fields: &Fields, direction: Direction) {
    let flags = request.u32(fields.flags).unwrap_or(0);
    if flags & condition_flag::IS_REAUTHORIZE != 0 {
        SLUICE.counters.add(request.dispatch(), Counter::Reauthorizations, 1);
    }
    let Some((key, policy)) = verdict::decidable(request, fields, direction) else { return };
    let owner = Owner::read(request, fields);
    let decision = key.decide(&policy, &owner);
    let epoch = policy.epoch;
    drop(policy);
    let counter = match (direction, decision.verdict) {
        (Direction::Outbound, Verdict::Permit) => Counter::ConnectsPermitted,
        (Direction::Outbound, Verdict::Block) => Counter::ConnectsBlocked,
        (_, Verdict::Permit) => Counter::AcceptsPermitted,
        (_, Verdict::Block) => Counter::AcceptsBlocked,
    };
    let process_id = request.process_id().map_or(0, |id| id as u32);
    let subject = Subject { key: &key, process_id, application: owner.application };
    verdict::give(request, &subject, epoch, decision, counter, flags);
}
