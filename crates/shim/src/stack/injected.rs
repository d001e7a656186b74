//! Packets that drivers inject, each kind at its place in the stack.

use super::connection::sent_again;
use super::{Context, Decision, Entry, FlowView, Position, Stack, Verdict, loopback_flag};
use crate::classifier::{Classifier, condition_flag};
use crate::flow::{Endpoints, FlowKey};
use crate::layer::{Direction, Layer};
use crate::packet::{Packet, Upper, protocol};
use nt_abi::PacketBuffer;
use std::time::Duration;

impl<F> Stack<F> {
    /// Passes a packet that a driver sends at the network layer (`FwpsInjectNetworkSendAsync0`): OUTBOUND_IPPACKET is
    /// called again ("Because injected packet data can be reclassified against the callout that injected it",
    /// FwpsQueryPacketInjectionState0 documentation), and no layer above it. One that is injected into the receive path
    /// passes all of them, through [`Stack::process`].
    pub fn send_network<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        buffer: &mut PacketBuffer,
        now: Duration,
    ) -> Decision {
        self.output.clear();
        self.expire(classifier, now);
        let packet = match Packet::parse(buffer.bytes()) {
            Ok(packet) => packet,
            Err(malformed) => {
                return Decision { verdict: Verdict::Malformed(malformed), by: None, opened: false };
            }
        };
        self.send_again(classifier, endpoints, buffer, packet, now, |context, view| {
            context.pass(Layer::OutboundIpPacket, Position::IpHeader, view, Verdict::Drop).map(drop)
        })
    }

    /// Passes a packet that a driver sends at the transport layer (`FwpsInjectTransportSendAsync0`), with the IP header
    /// that was added. A TCP segment passes OUTBOUND_TRANSPORT and what is below it. Anything else passes the layers of
    /// a sent datagram: which layers see it again is not documented, but Microsoft's samples `ddproxy` (at
    /// DATAGRAM_DATA) and `inspect` (at ALE_AUTH_CONNECT and the transport layers) permit what they have injected
    /// themselves when they see it there.
    pub fn send_transport<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        buffer: &mut PacketBuffer,
        now: Duration,
    ) -> Decision {
        let packet = match Packet::parse(buffer.bytes()) {
            Ok(packet) if packet.fragment.is_none() && packet.protocol == protocol::TCP => packet,
            _ => return self.take_in(classifier, endpoints, buffer, Direction::Outbound, Entry::Edge, now),
        };
        self.output.clear();
        self.expire(classifier, now);
        self.send_again(classifier, endpoints, buffer, packet, now, |context, view| context.leave(view))
    }

    /// Calls the layers of `pass` for a packet that a driver sends, and updates its flow with a segment that passes.
    fn send_again<'a, C: Classifier<Flow = F>>(
        &mut self,
        classifier: &'a mut C,
        endpoints: &'a mut dyn Endpoints,
        buffer: &'a mut PacketBuffer,
        packet: Packet,
        now: Duration,
        pass: impl FnOnce(&mut Context<'a, C>, FlowView<'_, F>) -> Result<(), Decision>,
    ) -> Decision {
        let (direction, entry) = (Direction::Outbound, Entry::Edge);
        let mut flags = loopback_flag(endpoints, &packet);
        if packet.fragment.is_some() {
            flags |= condition_flag::IS_FRAGMENT;
        }
        let key = FlowKey::of(&packet, direction);
        let mut context = Context { classifier, endpoints, buffer, packet, key, direction, flags, entry, now };
        let Self { flows, ledger, .. } = self;
        let mut flow = flows.get_mut(&key);
        let view = flow.as_ref().map_or(FlowView::none(direction), |flow| flow.head.view());
        if let Err(stopped) = pass(&mut context, view) {
            return stopped;
        }
        if let (Upper::Tcp(tcp), Some(flow)) = (packet.upper, &mut flow) {
            sent_again(ledger, &mut context, flow, &tcp);
        }
        Decision::FORWARD
    }

    /// Passes a packet that a driver injects into the receive path above the IP layer
    /// (`FwpsInjectTransportReceiveAsync0`): INBOUND_TRANSPORT and every layer above it.
    pub fn receive_transport<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        buffer: &mut PacketBuffer,
        now: Duration,
    ) -> Decision {
        self.take_in(classifier, endpoints, buffer, Direction::Inbound, Entry::Transport, now)
    }

    /// The flow of an endpoint (`transportEndpointHandle`) that is in use.
    #[must_use]
    pub fn endpoint(&self, endpoint: u64) -> Option<FlowKey> {
        self.flows.iter().find(|(_, flow)| flow.head.endpoint == endpoint).map(|(key, _)| *key)
    }
}
