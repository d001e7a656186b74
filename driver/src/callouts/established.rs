//! ALE_FLOW_ESTABLISHED: the flow gets its context, which WFP passes along at the stream and transport layers.

use kernel::{
    status::{NtResult, NtStatus},
    wfp::{Answer, Callout, Flow, abort},
};
use sluice_policy::{Direction, Name, Verdict};
use sluice_protocol::{object::Point, status::Counter};

use super::{Request, fields_at, flow_callouts, is_closing, process_id, verdict};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Owner},
    identity::Identity,
    inspection,
};

/// ALE_FLOW_ESTABLISHED.
pub(super) struct Established;

impl Callout for Established {
    type Flow = FlowState;

    /// A flow that cannot be tracked passes uncounted and keeps the verdict of its connection until Windows reauthorizes
    /// it, which a new policy triggers; so does one that begins while the driver goes. If it was let through only to ask
    /// for its name, nobody will: it is decided as one without.
    fn classify(request: &mut Request<'_>) {
        request.answer(Answer::Continue);
        let fields = const { &fields_at(Point::Established) };
        let Some(key) = FlowKey::read(request, fields, None) else {
            return untracked(request, NtStatus::INVALID_PARAMETER);
        };
        let owner = Owner::read(request, fields);
        let (awaits_name, learns) = purposes(&key, &owner);
        let answered = key.direction == Direction::Outbound && SLUICE.questions.established(process_id(request), &key);
        let tracked = if is_closing() {
            Err(NtStatus::DEVICE_BUSY)
        } else {
            track(request, key, &owner, awaits_name || learns, answered)
        };
        let Err(status) = tracked else { return };
        untracked(request, status);
        if !awaits_name {
            return;
        }
        SLUICE.counters.add(request.dispatch(), Counter::NamesNotLookedFor, 1);
        SLUICE.counters.add(request.dispatch(), Counter::NamesUndecidable, 1);
        let Some(policy) = SLUICE.policy.read() else { return };
        let decision = SLUICE.learned.or_undecidable(&key, &policy, &owner).0;
        let (decision, _) = verdict::settle(&policy, decision, process_id(request), answered);
        if decision.verdict == Verdict::Block
            && let Some(handle) = request.flow_handle()
        {
            SLUICE.counters.add(request.dispatch(), Counter::FlowsBlockedByName, 1);
            abort(handle);
        }
    }
}

/// Whether the flow's name may decide and can be looked for; and whether names can be learned from it.
fn purposes(key: &FlowKey, owner: &Owner<'_>) -> (bool, bool) {
    let policy = SLUICE.policy.read().filter(|policy| policy.wants_names() && inspection::is_possible(key));
    policy.map_or((false, false), |policy| {
        (key.decide(&policy, owner, Name::Unknown).needs_name, inspection::dns::teaches(key))
    })
}

fn untracked(request: &Request<'_>, status: NtStatus) {
    SLUICE.counters.add(request.dispatch(), Counter::FlowsUntracked, 1);
    SLUICE.trace.flow_untracked(status, process_id(request));
    if status == NtStatus::QUOTA_EXCEEDED {
        SLUICE.counters.add(request.dispatch(), Counter::FlowsRefused, 1);
    }
}

fn track(request: &Request<'_>, key: FlowKey, owner: &Owner<'_>, looked_at: bool, answered: bool) -> NtResult<()> {
    let handle = request.flow_handle().ok_or(NtStatus::INVALID_PARAMETER)?;
    let process_id = process_id(request);
    let state = FlowState::new(&key, Identity::of(process_id, owner)?, looked_at, answered);
    let flow = Flow::create(handle, state, SLUICE.limits.flows() as usize)?;
    for place in flow_callouts(&key, looked_at) {
        // If one association fails, the others are removed: half a flow would be counted wrong.
        if let Err(status) = flow.associate(place) {
            flow.remove_associations();
            return Err(status);
        }
    }
    Ok(())
}
