//! ALE_FLOW_ESTABLISHED: the flow gets its context, which WFP passes along at the stream and transport layers.

use kernel::{
    status::{NtResult, NtStatus},
    wfp::{Answer, Callout, Flow, fields::Fields, protocol},
};
use sluice_protocol::{object::Point, status::Counter};

use super::{Request, fields_at, flow_callouts, is_closing};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Owner},
    identity::Identity,
};

/// ALE_FLOW_ESTABLISHED.
pub(super) struct Established;

impl Callout for Established {
    type Flow = FlowState;

    /// Only observes. A flow that cannot be tracked passes uncounted and keeps the verdict of its connection until
    /// Windows reauthorizes it, which a new policy triggers.
    fn classify(request: &mut Request<'_>) {
        request.answer(Answer::Continue);
        if is_closing() {
            return;
        }
        let Err(status) = track(request, const { &fields_at(Point::Established) }) else { return };
        SLUICE.counters.add(request.dispatch(), Counter::FlowsUntracked, 1);
        if status == NtStatus::QUOTA_EXCEEDED {
            SLUICE.counters.add(request.dispatch(), Counter::FlowsRefused, 1);
        }
    }
}

fn track(request: &Request<'_>, fields: &Fields) -> NtResult<()> {
    let key = FlowKey::read(request, fields, None).ok_or(NtStatus::INVALID_PARAMETER)?;
    let handle = request.flow_handle().ok_or(NtStatus::INVALID_PARAMETER)?;
    let owner = Owner::read(request, fields);
    let process_id = request.process_id().map_or(0, |id| id as u32);
    let ip_version = if key.local.is_ipv4() { 4 } else { 6 };
    let is_tcp = key.protocol == protocol::TCP;
    let state = FlowState::new(&key, Identity::of(process_id, &owner)?);
    let flow = Flow::create(handle, state, SLUICE.limits.flows() as usize)?;
    for place in flow_callouts(ip_version, is_tcp) {
        // If one association fails, the others are removed: half a flow would be counted wrong.
        if let Err(status) = flow.associate(place) {
            flow.remove_associations();
            return Err(status);
        }
    }
    Ok(())
}
