//! Flows whose decision a callout has pended (`FwpsPendOperation0`, `FwpsPendClassify0`).
//!
//! The packet is treated as the FwpsPendOperation0 and FwpsCompleteOperation0 documentation says: a TCP connection is
//! made once the operation is completed and authorized again, so its SYN waits here (`connect` has not returned yet);
//! for any other protocol "any pended packet data is flushed", and completing only makes a state entry. At
//! ALE_RESOURCE_ASSIGNMENT the binding waits, and with it the packet, which represents a later call. At
//! ALE_AUTH_RECV_ACCEPT the callout keeps a clone and injects it after completing; until then packets of the flow are
//! held, and the first one after is authorized again. At the redirect layers the packet represents the waiting call,
//! and waits with it.

use super::authorize::refuse;
use super::{
    Context, Decision, Entry, Flow, FlowView, HANDSHAKE_TIMEOUT, Kind, Layer, Position, Stack, Verdict, loopback_flag,
};
use crate::classifier::{Classifier, Outcome, REASON_COMPLETION, Redirect};
use crate::flow::{Endpoints, FlowKey};
use crate::layer::Direction;
use crate::packet::{Packet, Upper, protocol};
use crate::tcp::Connection;
use foldhash::HashMap;
use nt_abi::PacketBuffer;
use std::time::Duration;

/// A flow that waits.
#[derive(Debug)]
struct Held<F> {
    flow: Flow<F>,
    /// Where it waits.
    layer: Layer,
    /// The packet that asked for it.
    packet: Vec<u8>,
    /// The callout has completed it.
    completed: bool,
}

/// A flow that resumes where it waited.
#[derive(Debug)]
pub(super) struct Resumed<F> {
    pub(super) flow: Flow<F>,
    pub(super) layer: Layer,
    /// The layer need not be called again.
    pub(super) settled: bool,
}

/// The flows that wait.
#[derive(Debug)]
pub(super) struct Waiting<F> {
    by_key: HashMap<FlowKey, Held<F>>,
    /// By the number of their endpoints.
    keys: HashMap<u64, FlowKey>,
}

// Not derived: that would require `F: Default`.
impl<F> Default for Waiting<F> {
    fn default() -> Self {
        Self { by_key: HashMap::default(), keys: HashMap::default() }
    }
}

impl<F> Waiting<F> {
    /// Whether a flow waits for its callout.
    pub(super) fn is_waiting(&self, key: &FlowKey) -> bool {
        !self.by_key.is_empty() && self.by_key.get(key).is_some_and(|held| !held.completed)
    }

    /// The inbound flow that its callout has completed.
    pub(super) fn take_completed(&mut self, key: &FlowKey) -> Option<Flow<F>> {
        self.by_key.get(key).filter(|held| held.completed)?;
        self.by_key.remove(key).map(|held| held.flow)
    }

    /// Takes out an inbound flow that was completed too long ago to be waited for.
    pub(super) fn take_forgotten(&mut self, now: Duration) -> Option<(FlowKey, Flow<F>)> {
        let forgotten = |held: &Held<F>| held.completed && held.flow.last + HANDSHAKE_TIMEOUT <= now;
        let key = *self.by_key.iter().find(|(_, held)| forgotten(held))?.0;
        self.by_key.remove(&key).map(|held| (key, held.flow))
    }

    /// All of them.
    pub(super) fn drain(&mut self) -> Vec<(FlowKey, Flow<F>)> {
        self.keys.clear();
        self.by_key.drain().map(|(key, held)| (key, held.flow)).collect()
    }
}

/// The decision of FwpsCompleteClassify0 about a request.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Blocked; permitted otherwise.
    pub blocked: bool,
    /// The endpoints to which callouts redirect it.
    pub redirect: Option<Redirect>,
}

impl<F> Stack<F> {
    /// How many flows wait for their callouts.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held.by_key.values().filter(|held| !held.completed).count()
    }

    /// Lets a flow wait.
    pub(super) fn hold<C: Classifier<Flow = F>>(
        &mut self,
        context: &Context<'_, C>,
        flow: Flow<F>,
        layer: Layer,
        outcome: Outcome,
    ) -> Decision {
        let packet = context.buffer.bytes()[..context.packet.len].to_vec();
        self.held.keys.insert(flow.head.endpoint, context.key);
        self.held.by_key.insert(context.key, Held { flow, layer, packet, completed: false });
        Decision::stopped(Verdict::Hold, layer, outcome)
    }

    /// A packet of a flow that waits: a retransmission, or a further datagram.
    pub(super) fn held_back<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>) -> Decision {
        if context.direction == Direction::Inbound
            && let Err(stopped) = context.arrive(FlowView::none(context.direction), true)
        {
            return stopped;
        }
        Decision { verdict: Verdict::Hold, by: None, opened: false }
    }

    /// FwpsCompleteOperation0: resumes the operation of the endpoint `token`. Returns the decision about the packet
    /// that waited, and the packet; `None` when none waited.
    ///
    /// Must run where [`Stack::process`] may.
    pub fn complete_operation<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        token: u64,
        now: Duration,
    ) -> Option<(Decision, PacketBuffer)> {
        self.output.clear();
        let key = *self.held.keys.get(&token)?;
        match self.held.by_key.get_mut(&key)?.layer {
            Layer::AleConnectRedirect | Layer::AleBindRedirect => return None, // FwpsCompleteClassify0 completes those
            Layer::AleAuthRecvAccept => {
                self.held.keys.remove(&token);
                let held = self.held.by_key.get_mut(&key)?;
                (held.completed, held.flow.last) = (true, now);
                return None;
            }
            _ => {}
        }
        let held = self.take_held(token)?;
        self.go_on(classifier, endpoints, held, None, now)
    }

    /// FwpsCompleteClassify0: resumes the request of the endpoint `token` at a redirect layer. `blocked` is the final
    /// decision; without one the layer is called again.
    ///
    /// Must run where [`Stack::process`] may.
    pub fn complete_classify<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        token: u64,
        settled: Option<Settled>,
        now: Duration,
    ) -> Option<(Decision, PacketBuffer)> {
        self.output.clear();
        let layer = self.held.by_key.get(self.held.keys.get(&token)?)?.layer;
        if !matches!(layer, Layer::AleConnectRedirect | Layer::AleBindRedirect) {
            return None;
        }
        let held = self.take_held(token)?;
        self.go_on(classifier, endpoints, held, settled, now)
    }

    fn take_held(&mut self, token: u64) -> Option<Held<F>> {
        let key = self.held.keys.remove(&token)?;
        self.held.by_key.remove(&key)
    }

    /// Resumes a flow where it waited.
    fn go_on<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        held: Held<F>,
        settled: Option<Settled>,
        now: Duration,
    ) -> Option<(Decision, PacketBuffer)> {
        let Held { mut flow, layer, packet: bytes, .. } = held;
        flow.last = now;
        let mut buffer = PacketBuffer::copy_of(&bytes);
        let packet = Packet::parse(&bytes).ok()?; // it was parsed before
        let flags = loopback_flag(endpoints, &packet);
        let (direction, entry) = (Direction::Outbound, Entry::Edge);
        let key = FlowKey::of(&packet, direction);
        let mut context =
            Context { classifier, endpoints, buffer: &mut buffer, packet, key, direction, flags, entry, now };
        if let Some(Settled { blocked, redirect }) = settled {
            if blocked {
                let outcome = Outcome { blocked, ..Outcome::default() };
                let decision = refuse(&mut self.output, &context, layer, outcome);
                self.ledger.close(context.classifier, &context.key, &mut flow);
                return Some((decision, buffer));
            }
            if let Some(redirect) = redirect {
                self.redirects.turn(&mut context, redirect);
            }
        }
        let resumed = Resumed { flow, layer, settled: settled.is_some() };
        let decision = match (context.packet.upper, layer) {
            (Upper::Tcp(tcp), _) => {
                let kind = Kind::Tcp(Box::new(Connection::opening(&tcp, direction)));
                self.connect(&mut context, kind, Some(resumed))
                    .and_then(|(flow, by)| self.opened(&mut context, &tcp, flow, by))
                    .unwrap_or_else(|stopped| stopped)
            }
            (_, Layer::AleAuthConnect) => {
                self.enter_state(&mut context, resumed.flow);
                return None;
            }
            _ => self.datagram_from(&mut context, Some(resumed)),
        };
        Some((decision, buffer))
    }

    /// Authorizes a flow of datagrams again, without a packet, and keeps it if it is permitted.
    fn enter_state<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>, mut flow: Flow<F>) {
        debug_assert_ne!(context.packet.protocol, protocol::TCP);
        let layer = Layer::AleAuthConnect;
        let outcome = context.ask_because(layer, Position::Nothing, 0, REASON_COMPLETION, flow.head.view());
        if outcome.blocked {
            self.ledger.close(context.classifier, &context.key, &mut flow);
            return;
        }
        // A block at ALE_FLOW_ESTABLISHED ends the flow, as with a packet.
        let established = context.establish_from(&mut flow.head, Position::Nothing);
        let flow = self.ledger.insert(&mut self.flows, context.key, flow);
        if established.is_err() {
            self.ledger.close(context.classifier, &context.key, flow);
            self.flows.remove(&context.key);
        }
    }
}
