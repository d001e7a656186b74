//! Authorizes flows before they exist.

use super::{By, Context, Decision, Flow, Kind, Output, Position, Resumed, Stack, Verdict};
use crate::classifier::{Classifier, Outcome, REASON_COMPLETION, condition_flag};
use crate::layer::{Direction, Layer};
use crate::packet::protocol;
use crate::reply;

impl<F> Stack<F> {
    /// Opens the local port of an outbound flow and authorizes it: what `bind`, `connect` and the first `sendto` do.
    /// `resumed` is a flow whose decision a callout had pended.
    pub(super) fn connect<C: Classifier<Flow = F>>(
        &mut self,
        context: &mut Context<'_, C>,
        kind: Kind,
        resumed: Option<Resumed<F>>,
    ) -> Result<(Flow<F>, By), Decision> {
        const ORDER: [Layer; 4] =
            [Layer::AleBindRedirect, Layer::AleResourceAssignment, Layer::AleConnectRedirect, Layer::AleAuthConnect];
        let (mut flow, from, settled) = match resumed {
            Some(Resumed { flow, layer, settled }) => (flow, Some(layer), settled),
            None => (self.ledger.flow(context, Direction::Outbound, kind), None, false),
        };
        self.output.owner.clone_from(&flow.head.owner);
        let first = from.and_then(|from| ORDER.iter().position(|layer| *layer == from)).unwrap_or(0);
        let mut by = By { layer: Layer::AleAuthConnect, filter_id: 0 };
        for &layer in &ORDER[first + usize::from(settled)..] {
            let reason = if from == Some(layer) { REASON_COMPLETION } else { 0 };
            let redirects = matches!(layer, Layer::AleBindRedirect | Layer::AleConnectRedirect);
            if redirects && !matches!(context.packet.protocol, protocol::TCP | protocol::UDP) {
                continue; // there are no ports to redirect
            }
            if layer == Layer::AleBindRedirect && reason == 0 && self.ledger.is_bound(&context.key) {
                continue;
            }
            if layer == Layer::AleResourceAssignment && reason == 0 {
                flow.bound = true;
                if !self.ledger.bind(&context.key) {
                    continue; // already open
                }
            }
            let flags = match layer {
                Layer::AleResourceAssignment => condition_flag::IS_WILDCARD_BIND,
                Layer::AleAuthConnect if self.redirects.leads_to(&context.key) => {
                    condition_flag::IS_CONNECTION_REDIRECTED
                }
                _ => 0,
            };
            let position = if layer == by.layer { context.authority_position() } else { Position::Nothing };
            let outcome = context.ask_because(layer, position, flags, reason, flow.head.view());
            if is_put_off(outcome) {
                return Err(self.hold(context, flow, layer, outcome));
            }
            if outcome.blocked {
                let decision = refuse(&mut self.output, context, layer, outcome);
                if layer == Layer::AleResourceAssignment {
                    self.ledger.unbind(&context.key); // the open failed
                } else {
                    self.ledger.close(context.classifier, &context.key, &mut flow);
                }
                return Err(decision);
            }
            if let Some(redirect) = outcome.redirect {
                self.redirects.turn(context, redirect);
            }
            by.filter_id = outcome.filter_id;
        }
        Ok((flow, by))
    }

    /// Authorizes an inbound flow, whose first packet passed the transport layer.
    pub(super) fn accept<C: Classifier<Flow = F>>(
        &mut self,
        context: &mut Context<'_, C>,
        kind: Kind,
    ) -> Result<(Flow<F>, By), Decision> {
        let layer = Layer::AleAuthRecvAccept;
        let (flow, reason) = match self.held.take_completed(&context.key) {
            Some(flow) => (Flow { kind, last: context.now, ..flow }, REASON_COMPLETION),
            None => (self.ledger.flow(context, Direction::Inbound, kind), 0),
        };
        self.output.owner.clone_from(&flow.head.owner);
        let outcome = context.ask_because(layer, Position::Payload, 0, reason, flow.head.view());
        if is_put_off(outcome) {
            return Err(self.hold(context, flow, layer, outcome));
        }
        if outcome.blocked {
            return Err(Decision::stopped(Verdict::Drop, layer, outcome));
        }
        Ok((flow, By { layer, filter_id: outcome.filter_id }))
    }
}

/// Whether a callout has pended its decision in the required way: "set the actionType member to FWP_ACTION_BLOCK and
/// the Flags member to FWPS_CLASSIFY_OUT_FLAG_ABSORB" (FwpsPendOperation0 documentation). Otherwise another callout's
/// decision is in force.
const fn is_put_off(outcome: Outcome) -> bool {
    outcome.pended && outcome.blocked && outcome.absorbed
}

/// Reports the refusal to the local sender, unless the block is silent.
pub(super) fn refuse<C: Classifier>(
    output: &mut Output,
    context: &Context<'_, C>,
    layer: Layer,
    outcome: Outcome,
) -> Decision {
    if outcome.absorbed {
        return Decision::stopped(Verdict::Drop, layer, outcome);
    }
    match context.packet.protocol {
        protocol::TCP => reply::refuse_tcp(&mut output.to_local, &context.packet),
        _ => reply::refuse_datagram(&mut output.to_local, context.buffer.bytes(), &context.packet),
    }
    Decision::stopped(Verdict::Refuse, layer, outcome)
}
