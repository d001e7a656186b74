//! What the layers share: a verdict is written as far as the rights allow, counted and recorded, and a flow's standing
//! follows the policy in force.

use kernel::{
    swap::Guard,
    wfp::{Answer, Flow, Outcome, condition_flag, fields::Fields},
};
use sluice_policy::{Decision, Direction, Name, Verdict};
use sluice_protocol::{Event, event, status::Counter};

use super::{Request, trim_nul};
use crate::{
    SLUICE,
    budget::Source,
    events::set_decision,
    flow::{FlowKey, FlowState, Standing},
    learned::Kept,
    policy::Policy,
    questions::Rule,
};

/// What a decision is about, as far as an event shows it.
pub(super) struct Subject<'a> {
    pub(super) key: &'a FlowKey,
    /// 0 when not known.
    pub(super) process_id: u32,
    /// The application's path as ALE_APP_ID gives it.
    pub(super) application: Option<&'a [u8]>,
    /// The name that its content asks for; empty when not known.
    pub(super) name: &'a [u8],
    /// What became of asking ([`event::asked`]).
    pub(super) asked: u8,
}

impl<'a> Subject<'a> {
    /// A packet of which nothing but its headers is known.
    pub(super) const fn packet(key: &'a FlowKey) -> Self {
        Self { key, process_id: 0, application: None, name: &[], asked: event::asked::NO }
    }

    /// An established flow.
    fn of(flow: &'a FlowState, key: &'a FlowKey) -> Self {
        Self { key, process_id: flow.process_id(), application: flow.owner().application, ..Self::packet(key) }
    }

    /// Records a decision under the policy of generation `epoch`, taken for `request`, if it is to be recorded.
    fn record(&self, request: &Request<'_>, epoch: u32, decision: Decision, flags: u16) {
        if SLUICE.trace.wants_decisions() {
            let mut event = Event::zeroed();
            self.write(&mut event, request, epoch, decision, flags);
            SLUICE.trace.decision(&event);
        }
        let source = match (self.key.direction, self.process_id) {
            (Direction::Outbound | Direction::Listen | Direction::Bind, process @ 1..) => Source::Process(process),
            (Direction::Forward, _) => Source::Remote(self.key.local),
            _ => Source::Remote(self.key.remote),
        };
        SLUICE.events.record(request.dispatch(), decision.log, source, |event| {
            self.write(event, request, epoch, decision, flags);
        });
    }

    /// Says in an event of zeros what was decided.
    fn write(&self, event: &mut Event, request: &Request<'_>, epoch: u32, decision: Decision, flags: u16) {
        self.key.write(event);
        event.filter_id = request.filter_id();
        event.flow = request.flow().map(Flow::handle).or_else(|| request.flow_handle()).unwrap_or(0);
        event.process_id = self.process_id;
        event.epoch = epoch;
        event.layer = request.layer();
        event.asked = self.asked;
        event.flags = flags | if decision.hard { event::flags::HARD } else { 0 };
        set_decision(event, &decision);
        event.set_name(self.name);
        event.set_application(trim_nul(self.application.unwrap_or_default()));
    }
}

/// What to decide and by which policy. Without a policy everything passes, undecided. So does a classify without
/// protocol or addresses, which is counted. In both cases the answer has been written.
pub(super) fn decidable<'a>(
    request: &mut Request<'a>,
    fields: &Fields,
    direction: Direction,
) -> Option<(FlowKey, Guard<'static, Policy>)> {
    let policy = SLUICE.policy.read_at(request.dispatch());
    let key = FlowKey::read(request, fields, Some(direction));
    if key.is_none() && policy.is_some() {
        SLUICE.counters.add(request.dispatch(), Counter::FieldsMissing, 1);
    }
    let decidable = key.zip(policy);
    if decidable.is_none() {
        request.answer(Answer::Continue);
    }
    decidable
}

/// Writes the verdict as far as the rights allow, and counts and records the decision. `conditions` is the value of the
/// FLAGS field.
pub(super) fn give(
    request: &mut Request<'_>,
    subject: &Subject<'_>,
    epoch: u32,
    decision: Decision,
    counter: Counter,
    conditions: u32,
) {
    give_noting(request, subject, epoch, decision, counter, conditions, 0);
}

/// The same, with flags of the event of the caller's own.
pub(super) fn give_noting(
    request: &mut Request<'_>,
    subject: &Subject<'_>,
    epoch: u32,
    decision: Decision,
    counter: Counter,
    conditions: u32,
    noted: u16,
) {
    let answer = match decision.verdict {
        Verdict::Permit => Answer::Permit { hard: decision.hard },
        Verdict::Block => Answer::Block { hard: decision.hard },
    };
    let outcome = request.answer(answer);
    let (counter, mut flags) = match outcome {
        Outcome::Written => (counter, noted),
        Outcome::Veto => (counter, noted | event::flags::VETO),
        Outcome::NoRight => (Counter::DecisionsWithoutRight, noted | event::flags::NO_RIGHT),
    };
    SLUICE.counters.add(request.dispatch(), counter, 1);
    // Another's block stays as loud as it is.
    if decision.silent && outcome != Outcome::NoRight {
        request.absorb();
    }
    if decision.needs_name {
        flags |= event::flags::AWAITS_NAME;
    }
    if !subject.name.is_empty() {
        SLUICE.counters.add(request.dispatch(), Counter::DecidedByLearnedName, 1);
        flags |= event::flags::LEARNED;
    }
    if conditions & condition_flag::IS_REAUTHORIZE != 0 {
        flags |= event::flags::REAUTHORIZE;
    }
    if conditions & condition_flag::IS_LOOPBACK != 0 {
        flags |= event::flags::LOOPBACK;
    }
    subject.record(request, epoch, decision, flags);
}

/// How a flow stands under the policy in force, for the packet of `request`. It is decided again only when the policy
/// has changed since; if the new one forbids it, that is counted and recorded once. IRQL <= DISPATCH_LEVEL.
pub(super) fn standing(request: &Request<'_>, flow: &FlowState) -> Standing {
    if let Some(standing) = flow.known_standing() {
        return standing;
    }
    let (last, token) = flow.last_standing();
    let Some(policy) = SLUICE.policy.read_at(request.dispatch()) else { return last };
    let key = flow.key();
    let owner = flow.owner();
    let decision = match flow.name() {
        Name::Undecidable => SLUICE.learned.or_undecidable(&key, &policy, &owner).0,
        name => key.decide(&policy, &owner, name),
    };
    let (decision, asked) = settle(&policy, decision, flow.process_id(), flow.is_answered());
    let epoch = policy.epoch;
    drop(policy);
    let (standing, ours) = flow.replace_standing(token, epoch, Standing::of(&decision));
    if ours && standing == Standing::Revoked && last != Standing::Revoked {
        SLUICE.counters.add(request.dispatch(), Counter::FlowsRevoked, 1);
        Subject { asked, ..Subject::of(flow, &key) }.record(request, epoch, decision, event::flags::FLOW_REVOKED);
    }
    standing
}

/// Decides a flow by what its content asks for, which is known now, and records that. Without a policy it is permitted.
/// IRQL <= DISPATCH_LEVEL.
pub(super) fn decide_by_content(request: &Request<'_>, flow: &FlowState, name: Name<'_>) -> Standing {
    let decided = by_content(request, flow, name);
    // What DNS told is forgotten while the flow goes on.
    let learned = decided.as_ref().and_then(|(_, _, learned)| learned.as_ref());
    flow.set_name(learned.map_or(name, |learned| Name::Known(learned.as_bytes())));
    stands(request, flow, decided)
}

/// The same for a connection that goes on to be looked at, by the first that it asks for. IRQL <= DISPATCH_LEVEL.
pub(super) fn decide_and_go_on(request: &Request<'_>, flow: &FlowState, name: Name<'_>) -> Standing {
    stands(request, flow, by_content(request, flow, name))
}

fn stands(request: &Request<'_>, flow: &FlowState, decided: Option<Decided>) -> Standing {
    let Some((decision, epoch, _)) = decided else { return Standing::Permitted };
    let standing = Standing::of(&decision);
    if flow.set_standing(epoch, standing) != Standing::Revoked && standing == Standing::Revoked {
        SLUICE.counters.add(request.dispatch(), Counter::FlowsBlockedByName, 1);
    }
    standing
}

/// The same for one datagram of a flow that goes on to be looked at. When it is permitted, so are answers.
/// IRQL <= DISPATCH_LEVEL.
pub(super) fn decide_datagram(request: &Request<'_>, flow: &FlowState, name: Name<'_>) -> Verdict {
    let Some((decision, epoch, _)) = by_content(request, flow, name) else { return Verdict::Permit };
    match decision.verdict {
        Verdict::Permit => {
            flow.set_standing(epoch, Standing::Awaited(Verdict::Permit));
        }
        Verdict::Block => SLUICE.counters.add(request.dispatch(), Counter::DatagramsBlockedByName, 1),
    }
    decision.verdict
}

/// A decision, the generation of its policy, and the name that DNS told, if that decided.
type Decided = (Decision, u32, Option<Kept>);

/// The decision by what content asks for, counted and recorded.
fn by_content(request: &Request<'_>, flow: &FlowState, name: Name<'_>) -> Option<Decided> {
    let policy = SLUICE.policy.read_at(request.dispatch())?;
    let (key, owner) = (flow.key(), flow.owner());
    let (decision, learned) = match name {
        Name::Undecidable => SLUICE.learned.or_undecidable(&key, &policy, &owner),
        name => (key.decide(&policy, &owner, name), None),
    };
    let (decision, asked) = settle(&policy, decision, flow.process_id(), flow.is_answered());
    let epoch = policy.epoch;
    drop(policy);
    let found = if matches!(name, Name::Known(_)) { Counter::NamesFound } else { Counter::NamesUndecidable };
    SLUICE.counters.add(request.dispatch(), found, 1);
    let mut flags = event::flags::BY_CONTENT;
    let name = match (name, &learned) {
        (Name::Known(name), _) => name,
        (_, Some(learned)) => {
            SLUICE.counters.add(request.dispatch(), Counter::DecidedByLearnedName, 1);
            flags |= event::flags::LEARNED;
            learned.as_bytes()
        }
        (_, None) => &[],
    };
    Subject { name, asked, ..Subject::of(flow, &key) }.record(request, epoch, decision, flags);
    Some((decision, epoch, learned))
}

/// The decision about what is established, or cannot be held, under a rule that asks: by the answer that permitted it
/// (`answered`), by one for the life of its process, or as the rule says of none. Any IRQL.
#[inline(never)] // it is seldom needed, and asked about in many places
pub(crate) fn settle(policy: &Policy, decision: Decision, process_id: u32, answered: bool) -> (Decision, u8) {
    let Some(rule) = Rule::of(policy, &decision) else { return (decision, event::asked::NO) };
    if answered {
        return (decision.settled(Some(Verdict::Permit)), event::asked::ANSWERED);
    }
    match SLUICE.questions.remembered(process_id, rule.tag) {
        Some(verdict) => (decision.settled(Some(verdict)), event::asked::REMEMBERED),
        None => (decision.settled(None), event::asked::TOO_LATE),
    }
}
