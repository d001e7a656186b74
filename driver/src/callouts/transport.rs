//! OUTBOUND_TRANSPORT and INBOUND_TRANSPORT: every packet of the machine passes here.

use kernel::wfp::{Answer, PacketTotals, fields::Fields};
use sluice_policy::{Direction, Verdict};
use sluice_protocol::status::Counter;

use super::{Request, connection};
use crate::{
    SLUICE,
    flow::{FlowKey, Owner, Standing},
};

/// IPPROTO_TCP and IPPROTO_UDP: always decided at the ALE layers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet of a flow with a context is counted, and dropped when the flow is revoked. One without is left to the ALE
/// layers if it is TCP or UDP, and decided here otherwise. IRQL <= DISPATCH_LEVEL.
pub(super) fn classify(request: &mut Request<'_>, fields: &Fields, direction: Direction) {
    let Some(flow) = request.flow() else { return without_flow(request, fields, direction) };
    let totals = request.packets().map_or_else(PacketTotals::default, |packets| packets.totals());
    // Outbound data starts at the transport header, inbound data behind it (documentation of the data offsets at each
    // layer).
    let header = match direction {
        Direction::Outbound => u64::from(request.transport_header_size().unwrap_or(0)),
        Direction::Inbound => 0,
    };
    let bytes = totals.bytes.saturating_sub(header * totals.packets);
    let (packets_counter, bytes_counter) = match direction {
        Direction::Outbound => (Counter::PacketsOut, Counter::BytesOut),
        Direction::Inbound => (Counter::PacketsIn, Counter::BytesIn),
    };
    SLUICE.counters.add(packets_counter, totals.packets);
    SLUICE.counters.add(bytes_counter, bytes);
    match flow.standing(request) {
        Standing::Permitted => {
            request.answer(Answer::Continue);
        }
        Standing::Revoked => {
            SLUICE.counters.add(Counter::RevokedPackets, totals.packets);
            request.answer(Answer::Block { hard: true });
            // Both ends should learn that it is over, instead of sending again and again.
            flow.reference().abort();
        }
    }
}

/// A packet whose flow has no context of ours.
fn without_flow(request: &mut Request<'_>, fields: &Fields, direction: Direction) {
    let key = FlowKey::read(request, fields, Some(direction)).filter(|key| !matches!(key.protocol, TCP | UDP));
    let (Some(key), Some(policy)) = (key, SLUICE.policy.read()) else {
        request.answer(Answer::Continue);
        return;
    };
    let decision = key.decide(&policy, &Owner::read(request, fields));
    let event = key.event(&policy, decision);
    drop(policy);
    let counter = match decision.verdict {
        Verdict::Permit => Counter::PacketsPermitted,
        Verdict::Block => Counter::PacketsBlocked,
    };
    let flags = request.u32(fields.flags).unwrap_or(0);
    connection::finish(request, decision, event, counter, flags);
}
