//! Packets that drivers inject below the transport layer's own path.

use super::connection::sent_again;
use super::{Context, Decision, FlowView, Position, Stack, Verdict};
use crate::ndis::PacketBuffer;
use crate::shim::classifier::{Classifier, condition_flag};
use crate::shim::flow::{Endpoints, FlowKey};
use crate::shim::layer::{Direction, Layer};
use crate::shim::packet::{Packet, Upper};
use std::time::Duration;

impl<F> Stack<F> {
    /// Passes a packet that a driver sends at the network layer (`FwpsInjectNetworkSendAsync0`): OUTBOUND_IPPACKET is
    /// asked again ("Because injected packet data can be reclassified against the callout that injected it",
    /// FwpsQueryPacketInjectionState0 documentation), and no layer above it. One that is injected into the receive path
    /// comes up through all of them and goes to [`Stack::process`].
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
        let direction = Direction::Outbound;
        let mut flags = if packet.source == packet.destination { condition_flag::IS_LOOPBACK } else { 0 };
        if packet.fragment.is_some() {
            flags |= condition_flag::IS_FRAGMENT;
        }
        let key = FlowKey::of(&packet, direction);
        let mut context = Context { classifier, endpoints, buffer, packet: &packet, key, direction, flags, now };
        let Self { flows, ledger, .. } = self;
        let mut flow = flows.get_mut(&key);
        let view = flow.as_ref().map_or(FlowView::none(direction), |flow| flow.head.view());
        if let Err(stopped) = context.pass(Layer::OutboundIpPacket, Position::IpHeader, view, Verdict::Drop) {
            return stopped;
        }
        if let (Upper::Tcp(tcp), Some(flow)) = (packet.upper, &mut flow) {
            sent_again(ledger, &mut context, flow, &tcp);
        }
        Decision::FORWARD
    }
}
