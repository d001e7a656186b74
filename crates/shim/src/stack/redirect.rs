//! Redirected connections (ALE_BIND_REDIRECT, ALE_CONNECT_REDIRECT).
//!
//! The program keeps the addresses that it knows: they are changed in every packet that it sends, before any layer sees
//! it, and changed back in every packet that it receives. On Windows the socket itself is bound or connected elsewhere.

use super::connection::is_retransmission;
use super::{Context, Stack, loopback_flag};
use crate::classifier::{Classifier, Redirect, condition_flag};
use crate::flow::FlowKey;
use crate::layer::Direction;
use crate::packet::{Packet, Quoted, Upper, tcp_flag};
use crate::rewrite::{readdress, requote};
use foldhash::HashMap;
use nt_abi::PacketBuffer;
use std::borrow::Cow;
use std::net::SocketAddr;

/// The program's keys of redirected flows, and the network's.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    by_program: HashMap<FlowKey, FlowKey>,
    by_network: HashMap<FlowKey, FlowKey>,
}

impl Redirects {
    /// Whether the flow with this network key was redirected.
    pub(super) fn leads_to(&self, key: &FlowKey) -> bool {
        !self.by_network.is_empty() && self.by_network.contains_key(key)
    }

    /// Whether outbound packets of the flow with this program key are changed.
    pub(super) fn turns(&self, program: &FlowKey, direction: Direction) -> bool {
        direction == Direction::Outbound && self.by_program.contains_key(program)
    }

    /// Redirects the current packet and its flow.
    pub(super) fn turn<C: Classifier>(&mut self, context: &mut Context<'_, C>, redirect: Redirect) {
        let old = context.key;
        let remote = redirect.remote.unwrap_or(SocketAddr::new(old.remote(), old.remote_port));
        let Some(new) = old.between(redirect.local, remote).filter(|new| *new != old) else { return };
        // It may have been redirected at its bind before its connect.
        let program = self.by_network.remove(&old).unwrap_or(old);
        self.by_program.insert(program, new);
        self.by_network.insert(new, program);
        context.packet = rewritten(context.buffer, context.packet, redirect.local, remote);
        context.key = new;
        context.flags &= !condition_flag::IS_LOOPBACK;
        context.flags |= loopback_flag(context.endpoints, &context.packet);
    }

    /// An ICMP error about a packet of a redirected flow, as one about the packet that the program sent.
    fn requoted(&self, bytes: &[u8], packet: &Packet) -> Option<Vec<u8>> {
        let quoted = Quoted::parse(bytes, packet)?;
        let is_its = |key: &FlowKey| {
            (key.protocol, key.local(), key.local_port) == (quoted.protocol, quoted.source, quoted.source_port)
                && (key.remote(), key.remote_port) == (quoted.destination, quoted.destination_port)
        };
        let (_, program) = self.by_network.iter().find(|(network, _)| is_its(network))?;
        // The host itself speaks for the one that the program knows; a router on the way for itself.
        let from = if packet.source == quoted.destination { program.remote() } else { packet.source };
        let end = |address, port| SocketAddr::new(address, port);
        let (local, remote) = (end(program.local(), program.local_port), end(program.remote(), program.remote_port));
        let mut changed = bytes.to_vec();
        requote(&mut changed, packet, from, local, remote);
        Some(changed)
    }

    /// Forgets the flow with this network key.
    pub(super) fn forget(&mut self, key: &FlowKey) {
        if let Some(program) = self.by_network.remove(key) {
            self.by_program.remove(&program);
        }
    }
}

/// Changes a packet's endpoints; returns its new description.
fn rewritten(buffer: &mut PacketBuffer, packet: Packet, source: SocketAddr, destination: SocketAddr) -> Packet {
    readdress(&mut buffer.storage_mut()[..packet.len], &packet, source, destination);
    Packet::parse(buffer.bytes()).unwrap_or(packet) // only numbers have changed
}

impl<F> Stack<F> {
    /// Redirects a packet that a program sends, if its flow is redirected; returns its description.
    pub(super) fn turned(&mut self, buffer: &mut PacketBuffer, packet: Packet, direction: Direction) -> Packet {
        if direction == Direction::Inbound || self.redirects.by_program.is_empty() {
            return packet;
        }
        let Some(&new) = self.redirects.by_program.get(&FlowKey::of(&packet, direction)) else { return packet };
        if let Upper::Tcp(tcp) = packet.upper
            && tcp.flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST) == tcp_flag::SYN
            && !self.held.is_waiting(&new)
            && !self.flows.get(&new).is_some_and(|flow| is_retransmission(flow, &tcp, direction))
        {
            self.redirects.forget(&new); // a new connection, to be authorized again
            return packet;
        }
        let (local, remote) =
            (SocketAddr::new(new.local(), new.local_port), SocketAddr::new(new.remote(), new.remote_port));
        rewritten(buffer, packet, local, remote)
    }

    /// A packet for a program of this machine, with the addresses that the program knows.
    #[must_use]
    pub fn turned_back<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.redirects.by_network.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let Ok(packet) = Packet::parse(bytes) else { return Cow::Borrowed(bytes) };
        if matches!(packet.upper, Upper::Icmp(icmp) if icmp.error) {
            return self.redirects.requoted(bytes, &packet).map_or(Cow::Borrowed(bytes), Cow::Owned);
        }
        let Some(key) = self.redirects.by_network.get(&FlowKey::of(&packet, Direction::Inbound)) else {
            return Cow::Borrowed(bytes);
        };
        let mut changed = bytes.to_vec();
        let source = SocketAddr::new(key.remote(), key.remote_port);
        readdress(&mut changed, &packet, source, SocketAddr::new(key.local(), key.local_port));
        Cow::Owned(changed)
    }
}
