//! Events of relayed streams without a packet: injections, resumed streams, retransmissions.

use super::connection::reset_both;
use super::relay::Relay;
use super::stream::{Asker, send_segments, stand_between};
use super::{Decision, Flow, Head, Kind, Stack};
use crate::classifier::{Classifier, Injected};
use crate::flow::{Endpoints, FlowKey};
use crate::layer::Direction;
use crate::tcp::Phase;
use std::time::Duration;

impl<F> Stack<F> {
    /// The established connection with the flow handle `flow`.
    fn by_number<C: Classifier<Flow = F>>(&self, classifier: &C, flow: u64) -> Option<FlowKey> {
        let is = |known: &Flow<F>| known.head.handle.as_ref().is_some_and(|handle| classifier.flow_id(handle) == flow);
        let standing = |known: &Flow<F>| matches!(&known.kind, Kind::Tcp(tcp) if tcp.phase == Phase::Established);
        self.flows.iter().find(|(_, known)| is(known) && standing(known)).map(|(key, _)| *key)
    }

    /// FwpsStreamInjectAsync0 from outside classify: adds data to one direction of the connection `flow`, after what
    /// has passed; false when there is no such connection. What is sent now is in [`Output::relayed`].
    pub fn inject_stream<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        flow: u64,
        direction: Direction,
        injected: Injected,
        now: Duration,
    ) -> bool {
        self.on_relay(classifier, endpoints, flow, now, |asker, head, relay| {
            asker.put_in(head, relay, direction, vec![injected])
        })
    }

    /// FwpsStreamContinue0: resumes the inbound stream of `flow`, which a callout had deferred; false when this callout
    /// did not defer it.
    pub fn stream_continue<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        flow: u64,
        callout_id: u32,
        now: Duration,
    ) -> bool {
        let waits = |flow: &Flow<F>| {
            flow.relay.as_ref().is_some_and(|relay| relay.deferred(Direction::Inbound) == Some(callout_id))
        };
        let known = self.by_number(classifier, flow).and_then(|key| self.flows.get(&key));
        if !known.is_some_and(waits) {
            return false;
        }
        self.on_relay(classifier, endpoints, flow, now, |asker, head, relay| {
            relay.half(Direction::Inbound).deferred = None;
            asker.decide(head, relay, Direction::Inbound, false).map(|_| ())
        })
    }

    /// Calls `f` with the relay of a connection, which it makes if needed, and sends what there is to send then.
    fn on_relay<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        flow: u64,
        now: Duration,
        f: impl FnOnce(&mut Asker<'_, C>, &Head<F>, &mut Relay) -> Result<(), Decision>,
    ) -> bool {
        self.output.clear();
        let Some(key) = self.by_number(classifier, flow) else { return false };
        let live = !self.config.pick_up;
        let Self { flows, ledger, output, relays, .. } = self;
        let Some(flow) = flows.get_mut(&key) else { return false };
        let Flow { head, kind: Kind::Tcp(connection), relay, .. } = flow else { return false };
        if relay.is_none() {
            let mut next = |direction| connection.half(direction).next;
            let (Some(out), Some(back)) = (next(Direction::Outbound), next(Direction::Inbound)) else { return false };
            *relay = Some(Box::new(stand_between(connection, Direction::Outbound, out, back, live, now)));
            relays.push(key);
        }
        let Some(relay) = relay else { return false };
        let mut asker = Asker { classifier, key: &key, flags: 0 };
        if f(&mut asker, head, relay).is_err() {
            reset_both(output, &key, connection, Some(relay), None);
            ledger.close(classifier, &key, flow);
            return true;
        }
        let segments = relay.send(&key, now);
        send_segments(output, classifier, endpoints, head, key, 0, now, segments);
        if relay.is_over() {
            ledger.close(classifier, &key, flow);
        }
        true
    }

    /// Retransmits what the hosts of relayed connections have not answered in time; whether there are such connections.
    pub fn retry<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        now: Duration,
    ) -> bool {
        self.output.clear();
        let Self { flows, output, relays, .. } = self;
        relays.retain(|key| {
            let Some(Flow { head, relay: Some(relay), .. }) = flows.get_mut(key) else { return false };
            if relay.retry(now) {
                let segments = relay.send(key, now);
                send_segments(output, classifier, &mut *endpoints, head, *key, 0, now, segments);
            }
            true
        });
        !relays.is_empty()
    }
}
