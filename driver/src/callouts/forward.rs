//! IPFORWARD: packets that this machine passes on between others, each decided by itself.

use kernel::{
    swap::Guard,
    wfp::{Answer, Callout, PacketList, fields::Fields},
};
use sluice_policy::{Decision, Direction, Verdict, packet::Outline};
use sluice_protocol::{object::Point, status::Counter};

use super::{
    Request, fields_at,
    verdict::{self, Subject},
};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState},
    policy::Policy,
};

/// IPFORWARD.
pub(super) struct Forward;

/// How much of a packet is looked at: an IPv6 header and 27 extension headers of the least size.
const HEADERS: usize = 256;

impl Callout for Forward {
    type Flow = FlowState;

    /// The data begins at the IP header ("Data offset positions"). Fragments are shown as they come; when Windows is
    /// told to group them they are shown again together, and decided again.
    fn classify(request: &mut Request<'_>) {
        let fields = const { &fields_at(Point::Forward) };
        let policy = SLUICE.policy.read();
        let Some(policy) = policy else {
            request.answer(Answer::Continue);
            return;
        };
        let Some((key, decision)) = decide(request, fields, &policy) else {
            SLUICE.counters.add(request.dispatch(), Counter::FieldsMissing, 1);
            request.answer(Answer::Continue);
            return;
        };
        let epoch = policy.epoch;
        drop(policy);
        let counter = match decision.verdict {
            Verdict::Permit => Counter::ForwardsPermitted,
            Verdict::Block => Counter::ForwardsBlocked,
        };
        let flags = request.u32(fields.flags).unwrap_or(0);
        let subject = Subject::packet(&key);
        verdict::give(request, &subject, epoch, decision, counter, flags);
    }
}

/// Decides every packet of the list: one that is blocked takes the others with it. Where none is shown, nothing but the
/// addresses is known. None when the layer does not tell these.
fn decide(request: &Request<'_>, fields: &Fields, policy: &Guard<'_, Policy>) -> Option<(FlowKey, Decision)> {
    let (local, remote) = (request.address(fields.local_address)?, request.address(fields.remote_address)?);
    let one = |outline: Outline| {
        let Outline { protocol, local_port, remote_port, headers } = outline;
        let (direction, loopback) = (Direction::Forward, false);
        let key = FlowKey { direction, protocol, local, local_port, remote, remote_port, loopback };
        (key, policy.image.decide(&key.flow().with_headers(headers)))
    };
    let mut decided = None;
    for packet in request.packets().into_iter().flat_map(PacketList::iter) {
        let mut room = [0; HEADERS];
        let (key, decision) = one(Outline::of(packet.beginning(&mut room)));
        decided = decided.or(Some((key, decision)));
        if decision.verdict == Verdict::Block {
            decided = Some((key, decision));
            break;
        }
    }
    decided.or_else(|| Some(one(Outline::of(&[]))))
}
