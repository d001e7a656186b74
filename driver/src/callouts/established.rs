//! ALE_FLOW_ESTABLISHED: the flow gets its context, which WFP passes along at the stream and transport layers.

use kernel::{
    status::{NtResult, NtStatus},
    wfp::{Answer, Callout, fields::Fields, protocol},
};
use sluice_protocol::{object::Point, status::Counter};

use super::{Request, fields_at, flow_callouts, is_closing};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Owner},
};

/// ALE_FLOW_ESTABLISHED.
pub(super) struct Established;

impl Callout for Established {
    type Flow = FlowState;

    /// Observes only. A flow that cannot be tracked passes uncounted and keeps the verdict of its connection.
    fn classify(request: &mut Request<'_>) {
        request.answer(Answer::Continue);
        if !is_closing() && track(request, const { &fields_at(Point::Established) }).is_err() {
            SLUICE.counters.add(request.dispatch(), Counter::FlowsUntracked, 1);
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
    let flow = SLUICE.flows.create(handle, FlowState::new(key, &owner, process_id)?)?;
    for place in flow_callouts(ip_version, is_tcp) {
        // One association that fails takes the others along: half a flow would be counted wrong.
        if let Err(status) = flow.associate(place) {
            flow.remove_associations();
            return Err(status);
        }
    }
    Ok(())
}
