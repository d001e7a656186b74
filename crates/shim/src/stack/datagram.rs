//! UDP, ICMP and every other protocol: "all non-TCP packet flows follow the same pattern as UDP packet flows".

use super::{By, Context, Decision, FlowView, Kind, Position, Resumed, Stack, Verdict, Waits};
use crate::classifier::Classifier;
use crate::flow::FlowKey;
use crate::layer::{Direction, Layer};
use crate::packet::protocol;

impl<F> Stack<F> {
    pub(super) fn datagram<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>) -> Decision {
        self.datagram_from(context, None)
    }

    /// [`Self::datagram`], for the first one of a flow that waited at a layer.
    pub(super) fn datagram_from<C: Classifier<Flow = F>>(
        &mut self,
        context: &mut Context<'_, C>,
        resumed: Option<Resumed<F>>,
    ) -> Decision {
        match self.pass_datagram(context, resumed) {
            Ok(opened) => Decision { verdict: Verdict::Forward, by: opened, opened: opened.is_some() },
            // A datagram has no connection to reset: an abort ends the flow.
            Err(stopped) if stopped.verdict == Verdict::Abort => {
                self.forget(context.classifier, &context.key);
                Decision { verdict: Verdict::Drop, ..stopped }
            }
            Err(stopped) => {
                // The callout that stopped the packet may also have aborted the flow.
                let aborted = self.flows.get(&context.key).is_some_and(|f| context.check_aborted(&f.head).is_err());
                if aborted {
                    self.forget(context.classifier, &context.key);
                }
                stopped
            }
        }
    }

    fn pass_datagram<C: Classifier<Flow = F>>(
        &mut self,
        context: &mut Context<'_, C>,
        resumed: Option<Resumed<F>>,
    ) -> Result<Option<By>, Decision> {
        let direction = context.direction;
        let key = self.flow_of(context);
        let opens = !self.flows.contains_key(&key);
        let begins = opens && direction == Direction::Inbound && context.packet.protocol == protocol::UDP;
        let waits = if begins { self.waits(context) } else { Waits::Yes };
        let known = self.flows.get_mut(&key);
        if direction == Direction::Inbound {
            let (view, authorize) = match &known {
                Some(flow) => (flow.head.view(), context.is_stale(&flow.head)),
                None => (FlowView::none(direction), waits == Waits::Yes),
            };
            context.arrive(view, authorize)?;
            if waits != Waits::Yes {
                context.discard();
                let refused = Decision { verdict: Verdict::Drop, by: None, opened: false };
                return if waits == Waits::Refused { Err(refused) } else { Ok(None) };
            }
        }
        let mut opened = None;
        let flow = if let Some(flow) = known {
            if key == context.key {
                flow.last = context.now; // an answer to a multicast does not keep the flow alive
            }
            if let Err(stopped) = context.reauthorize(&mut flow.head) {
                // "tear down an ALE flow when reauthorization requests for the ALE flow arrive"
                self.forget(context.classifier, &key);
                return Err(stopped);
            }
            flow
        } else {
            let (flow, by) = match direction {
                Direction::Outbound => self.connect(context, Kind::of_datagrams_to(key.remote()), resumed)?,
                Direction::Inbound => self.accept(context, Kind::Datagram)?,
            };
            opened = Some(by);
            self.ledger.insert(&mut self.flows, key, flow)
        };
        if matches!(flow.kind, Kind::Group) && direction == Direction::Outbound {
            self.groups.insert(key.local_endpoint(), key);
        }
        if opens {
            context.establish(&mut flow.head)?;
        }
        context.check_aborted(&flow.head)?;
        let position = Position::by_direction(direction);
        context.pass(Layer::DatagramData, position, flow.head.view(), Verdict::Drop)?;
        if direction == Direction::Outbound {
            context.leave(flow.head.view())?;
        }
        Ok(opened)
    }

    /// The current packet's flow: its own, or that of a multicast or broadcast which it answers ("the authorization of
    /// an outbound multicast or broadcast ALE packet will permit inbound traffic, whether unicast, multicast, or
    /// broadcast, from any remote address"). From any port too: the documentation only mentions addresses, and devices
    /// answer from other ports than the one asked (SSDP).
    fn flow_of<C: Classifier<Flow = F>>(&self, context: &Context<'_, C>) -> FlowKey {
        let own = context.key;
        if context.direction == Direction::Outbound || self.groups.is_empty() || self.flows.contains_key(&own) {
            return own;
        }
        self.groups.get(&own.local_endpoint()).copied().unwrap_or(own)
    }

    /// An ICMP error belongs to no flow of its own: ALE sees non-error messages only.
    pub(super) fn icmp_error<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>) -> Decision {
        let none = FlowView::none(context.direction);
        let passed = match context.direction {
            Direction::Outbound => context
                .pass(Layer::OutboundIcmpError, Position::TransportHeader, none, Verdict::Drop)
                .and_then(|_| context.leave(none)),
            Direction::Inbound => context.arrive(none, false).and_then(|()| {
                context.pass(Layer::InboundIcmpError, Position::Quoted, none, Verdict::Drop).map(|_| ())
            }),
        };
        passed.err().unwrap_or(Decision::FORWARD)
    }
}
