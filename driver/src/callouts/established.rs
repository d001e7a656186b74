//! ALE_FLOW_ESTABLISHED: the flow gets its context, which WFP passes along at the stream and transport layers.

use kernel::{
    status::{NtResult, NtStatus},
    wfp::{Answer, fields::Fields},
};
use sluice_protocol::status::Counter;

use super::{Request, flow_callouts, is_closing};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Owner},
};

/// IPPROTO_TCP.
const TCP: u8 = 6;

/// Observes only. A flow that cannot be tracked passes uncounted and keeps the verdict of its connection.
/// IRQL <= DISPATCH_LEVEL.
pub(super) fn classify(request: &mut Request<'_>, fields: &Fields) {
    request.answer(Answer::Continue);
    if !is_closing() && track(request, fields).is_err() {
        SLUICE.counters.add(Counter::FlowsUntracked, 1);
    }
}

fn track(request: &Request<'_>, fields: &Fields) -> NtResult<()> {
    let key = FlowKey::read(request, fields, None).ok_or(NtStatus::INVALID_PARAMETER)?;
    let handle = request.flow_handle().ok_or(NtStatus::INVALID_PARAMETER)?;
    let owner = Owner::read(request, fields);
    let process_id = request.process_id().map_or(0, |id| id as u32);
    let ip_version = if key.local.is_ipv4() { 4 } else { 6 };
    let protocol = key.protocol;
    let flow = SLUICE.flows.create(handle, FlowState::new(key, &owner, process_id)?)?;
    for callout in flow_callouts(ip_version, protocol == TCP) {
        // One association that fails takes the others along: half a flow would be counted wrong.
        if let Err(status) = flow.associate(callout) {
            flow.remove_associations();
            return Err(status);
        }
    }
    Ok(())
}
