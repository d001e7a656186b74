//! ALE_AUTH_CONNECT and ALE_AUTH_RECV_ACCEPT: may this connection be?

use kernel::wfp::{Callout, condition_flag, fields::Fields};
use sluice_policy::{Direction, Name, Verdict};
use sluice_protocol::{event, object::Point, status::Counter};

use super::{
    Request, fields_at, process_id,
    verdict::{self, Subject},
};
use crate::{
    SLUICE,
    flow::{FlowState, Owner},
    inspection,
    learned::Kept,
    questions::{Asked, Asking, Rule},
};

/// ALE_AUTH_CONNECT.
pub(super) struct Connect;

impl Callout for Connect {
    type Flow = FlowState;

    fn classify(request: &mut Request<'_>) {
        classify(request, const { &fields_at(Point::Connect) }, Direction::Outbound, |request, asking| {
            SLUICE.questions.ask(request, asking)
        });
    }
}

/// ALE_AUTH_RECV_ACCEPT.
pub(super) struct Accept;

impl Callout for Accept {
    type Flow = FlowState;

    fn classify(request: &mut Request<'_>) {
        classify(request, const { &fields_at(Point::Accept) }, Direction::Inbound, |_, _| {
            Asked::Now(None, event::asked::TOO_LATE)
        });
    }
}

/// Decides by the policy in force; without one everything passes, undecided. A connection whose name may still decide is
/// let through: what is kept for its flow sees to the rest. Where DNS has told the names of the address, one that is
/// blocked is refused here. IRQL <= DISPATCH_LEVEL.
fn classify(request: &mut Request<'_>, fields: &Fields, direction: Direction, ask: Ask) {
    let flags = request.u32(fields.flags).unwrap_or(0);
    if flags & condition_flag::IS_REAUTHORIZE != 0 {
        SLUICE.counters.add(request.dispatch(), Counter::Reauthorizations, 1);
    }
    let Some((key, policy)) = verdict::decidable(request, fields, direction) else { return };
    let owner = Owner::read(request, fields);
    let mut decision = key.decide(&policy, &owner, Name::Unknown);
    let mut learned = None;
    let known = Known::of(request, flags);
    let tracked = matches!(known, Known::Tracked { .. });
    if decision.needs_name && tracked {
        // Its context knows its name, or looks for it: its packets are decided by that, and by its answer.
        decision.asks = None;
    } else if decision.needs_name {
        let unreadable = known == Known::Untracked || !inspection::is_possible(&key);
        match SLUICE.learned.decide(&key, &policy, &owner, &decision) {
            Some((by_name, name)) if unreadable || by_name.verdict == Verdict::Block || by_name.asks.is_some() => {
                (decision, learned) = (by_name, Some(name));
            }
            None if unreadable => decision = key.decide(&policy, &owner, Name::Undecidable),
            // What a name permits is not asked about; its content has the last word.
            Some(_) => decision.asks = None,
            None => {}
        }
    }
    let process_id = process_id(request);
    let again = flags & condition_flag::IS_REAUTHORIZE != 0;
    if direction == Direction::Outbound && !again {
        SLUICE.questions.begins(process_id, &key);
    }
    let rule = Rule::of(&policy, &decision);
    let epoch = policy.epoch;
    drop(policy);
    let mut asked = event::asked::NO;
    if let Some(rule) = rule {
        let told = learned.or_else(|| SLUICE.learned.name_of(key.remote));
        let answer = match known {
            Known::Tracked { answered: true } => Asked::Now(Some(Verdict::Permit), event::asked::ANSWERED),
            _ => ask(request, &Asking { key: &key, process_id, owner: &owner, rule, name: told.as_ref(), again }),
        };
        match answer {
            Asked::Held => return,
            Asked::Now(verdict, why) => (decision, asked) = (decision.settled(verdict), why),
        }
    }
    if decision.verdict == Verdict::Block && !decision.needs_name && tracked {
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
    let name = learned.as_ref().map_or(&[][..], Kept::as_bytes);
    let subject = Subject { process_id, application: owner.application, name, asked, ..Subject::packet(&key) };
    verdict::give(request, &subject, epoch, decision, counter, flags);
}

/// What a layer can do where a rule asks. Only where connections are opened can they be held.
type Ask = fn(&mut Request<'_>, &Asking<'_>) -> Asked;

/// What is known of a connection from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is not established.
    New,
    /// It is, and has no context of ours: nobody will look at its content.
    Untracked,
    /// It has one, which knows its name, and whether an answer has permitted it.
    Tracked { answered: bool },
}

impl Known {
    fn of(request: &Request<'_>, flags: u32) -> Self {
        let asked_again = flags & condition_flag::IS_REAUTHORIZE != 0;
        let Some(handle) = request.flow_handle().filter(|_| asked_again) else { return Self::New };
        match SLUICE.flows.with(handle, FlowState::is_answered) {
            Some(answered) => Self::Tracked { answered },
            None => Self::Untracked,
        }
    }
}
