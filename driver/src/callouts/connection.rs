//! ALE_AUTH_CONNECT and ALE_AUTH_RECV_ACCEPT: may this connection be?

use kernel::wfp::{Answer, Outcome, condition_flag, fields::Fields};
use sluice_policy::{Decision, Direction, Verdict};
use sluice_protocol::{Event, event, status::Counter};

use super::Request;
use crate::{
    SLUICE,
    flow::{FlowKey, Owner, trim_nul},
};

/// Decides by the policy in force; without one everything passes, undecided. IRQL <= DISPATCH_LEVEL.
pub(super) fn classify(request: &mut Request<'_>, fields: &Fields, direction: Direction) {
    let flags = request.u32(fields.flags).unwrap_or(0);
    if flags & condition_flag::IS_REAUTHORIZE != 0 {
        SLUICE.counters.add(Counter::Reauthorizations, 1);
    }
    let key = FlowKey::read(request, fields, Some(direction));
    let (Some(key), Some(policy)) = (key, SLUICE.policy.read()) else {
        request.answer(Answer::Continue);
        return;
    };
    let owner = Owner::read(request, fields);
    let decision = key.decide(&policy, &owner);
    let mut event = key.event(&policy, decision);
    drop(policy);
    event.process_id = request.process_id().map_or(0, |id| id as u32);
    event.set_application(trim_nul(owner.application.unwrap_or_default()));
    let counter = match (direction, decision.verdict) {
        (Direction::Outbound, Verdict::Permit) => Counter::ConnectsPermitted,
        (Direction::Outbound, Verdict::Block) => Counter::ConnectsBlocked,
        (Direction::Inbound, Verdict::Permit) => Counter::AcceptsPermitted,
        (Direction::Inbound, Verdict::Block) => Counter::AcceptsBlocked,
    };
    finish(request, decision, event, counter, flags);
}

/// Writes the verdict as far as the rights allow, and counts and records the decision.
pub(super) fn finish(request: &mut Request<'_>, decision: Decision, mut event: Event, counter: Counter, flags: u32) {
    let answer = match decision.verdict {
        Verdict::Permit => Answer::Permit { hard: decision.hard },
        Verdict::Block => Answer::Block { hard: decision.hard },
    };
    match request.answer(answer) {
        Outcome::Written => SLUICE.counters.add(counter, 1),
        Outcome::Veto => {
            SLUICE.counters.add(counter, 1);
            event.flags |= event::flags::VETO;
        }
        Outcome::NoRight => {
            SLUICE.counters.add(Counter::DecisionsWithoutRight, 1);
            event.flags |= event::flags::NO_RIGHT;
        }
    }
    if decision.silent {
        request.absorb();
    }
    if flags & condition_flag::IS_REAUTHORIZE != 0 {
        event.flags |= event::flags::REAUTHORIZE;
    }
    if flags & condition_flag::IS_LOOPBACK != 0 {
        event.flags |= event::flags::LOOPBACK;
    }
    event.layer = request.layer();
    event.filter_id = request.filter_id();
    event.flow = request.flow_handle().unwrap_or(0);
    SLUICE.events.record(event);
}
