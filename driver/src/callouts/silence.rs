//! INBOUND_TRANSPORT_DISCARD and OUTBOUND_ICMP_ERROR: what tells a stranger that a port is closed.
//!
//! A packet that no socket wants reaches no ALE layer. TCP answers it with a reset unless a callout at
//! INBOUND_TRANSPORT_DISCARD absorbs it; UDP has "port unreachable" sent, which passes OUTBOUND_ICMP_ERROR. These are the
//! two layers of "Preventing Port Scanning" (win32 desktop-src/FWP/preventing-port-scanning.md). Here the policy decides:
//! where it would drop the packet as an inbound one, nothing answers; where it would permit or `block` it, Windows does
//! as it does.

use kernel::wfp::{Answer, Callout, condition_flag};
use sluice_policy::{Decision, Direction, Name, Verdict, packet};
use sluice_protocol::{object::Point, status::Counter};

use super::{
    Request, fields_at,
    verdict::{self, Subject},
};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Owner},
};

/// How much of an ICMP error is looked at: its header, and those of the packet that it quotes.
const QUOTE: usize = 256;
/// The ICMP and ICMPv6 header of an error.
const ICMP_HEADER: usize = 8;

/// Whether the policy has the packet vanish without a word.
const fn vanishes(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Block) && decision.silent
}

/// INBOUND_TRANSPORT_DISCARD.
pub(super) struct Discard;

impl Callout for Discard {
    type Flow = FlowState;

    /// A packet from this machine to itself may be answered, as on that page.
    fn classify(request: &mut Request<'_>) {
        let fields = const { &fields_at(Point::InboundDiscard) };
        let flags = request.u32(fields.flags).unwrap_or(0);
        if flags & condition_flag::IS_LOOPBACK != 0 {
            request.answer(Answer::Continue);
            return;
        }
        let Some((key, policy)) = verdict::decidable(request, fields, Direction::Inbound) else { return };
        let decision = key.decide(&policy, &Owner::read(request, fields), Name::Unknown);
        let epoch = policy.epoch;
        drop(policy);
        if !vanishes(&decision) {
            request.answer(Answer::Continue);
        } else if request.is_discarded_by_a_filter() {
            // Decided, counted and recorded where that filter is; only the answer is still to be kept back.
            request.answer(Answer::Block { hard: decision.hard });
            request.absorb();
        } else {
            let subject = Subject::packet(&key);
            verdict::give(request, &subject, epoch, decision, Counter::DiscardsSilenced, flags);
        }
    }
}

/// OUTBOUND_ICMP_ERROR.
pub(super) struct IcmpError;

impl Callout for IcmpError {
    type Flow = FlowState;

    /// An error about a packet to this machine that the policy drops is not sent. What the error says is no matter: each
    /// tells that somebody is here. Errors about packets that are passed on quote another destination than their sender.
    fn classify(request: &mut Request<'_>) {
        let fields = const { &fields_at(Point::OutboundIcmpError) };
        let silenced = quoted(request).is_some_and(|key| {
            let to_this_machine = request.address(fields.local_address) == Some(key.local);
            let Some(policy) = SLUICE.policy.read().filter(|_| to_this_machine) else { return false };
            vanishes(&key.decide(&policy, &Owner::read(request, fields), Name::Unknown))
        });
        if silenced {
            SLUICE.counters.add(request.dispatch(), Counter::IcmpErrorsSilenced, 1);
            request.answer(Answer::Block { hard: true });
        } else {
            request.answer(Answer::Continue);
        }
    }
}

/// The inbound packet that an ICMP error is about. The data begins at the ICMP header ("Data offset positions").
fn quoted(request: &Request<'_>) -> Option<FlowKey> {
    let mut room = [0; QUOTE];
    let quote = request.packets()?.iter().next()?.beginning(&mut room).get(ICMP_HEADER..)?;
    let (remote, local) = packet::addresses(quote)?;
    let outline = packet::Outline::of(quote);
    Some(FlowKey {
        direction: Direction::Inbound,
        protocol: outline.protocol,
        local,
        local_port: if outline.is_icmp() { outline.local_port } else { outline.remote_port },
        remote,
        remote_port: if outline.is_icmp() { outline.remote_port } else { outline.local_port },
        loopback: false,
    })
}
