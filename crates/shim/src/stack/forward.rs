//! Packets that this machine passes on between others.

use super::{Context, Decision, Entry, FlowView, Position, Stack, Verdict};
use crate::classifier::{Classifier, condition_flag};
use crate::flow::{Endpoints, FlowKey};
use crate::layer::{Direction, Layer};
use crate::packet::Packet;
use nt_abi::PacketBuffer;
use std::time::Duration;

impl<F> Stack<F> {
    /// Passes on a packet of which neither end is this machine's.
    ///
    /// "IP packets or fragments that do not originate from, or are not destined for, an address that is assigned to the
    /// local computer are available for inspection at the forwarding layer" ("Packet Inspection Points"), which names no
    /// other layer for them. Fragments are indicated as they come: fragment grouping "is disabled by default" ("WFP Layer
    /// Requirements and Restrictions", windows-driver-docs network/wfp-layer-requirements-and-restrictions.md). Nothing
    /// is remembered, and nobody is told of a block.
    pub fn forward<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        buffer: &mut PacketBuffer,
        now: Duration,
    ) -> Decision {
        self.output.clear();
        // A router looks no further than the IP header.
        let packet = match Packet::parse_ip(buffer.bytes()) {
            Ok(packet) => packet,
            Err(malformed) => {
                return Decision { verdict: Verdict::Malformed(malformed), by: None, opened: false };
            }
        };
        let direction = Direction::Outbound; // the source stands where local ends do
        let key = FlowKey::of(&packet, direction);
        let flags = if packet.fragment.is_some() { condition_flag::IS_FRAGMENT } else { 0 };
        let mut context =
            Context { classifier, endpoints, buffer, packet, key, direction, flags, entry: Entry::Edge, now };
        let passed = context.pass(Layer::IpForward, Position::IpHeader, FlowView::none(direction), Verdict::Drop);
        passed.err().unwrap_or(Decision::FORWARD)
    }
}
