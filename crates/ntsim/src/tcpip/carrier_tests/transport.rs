//! Injection at the transport layer.

use super::rig::*;
use filter_engine::layers::LayerId;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::{
    FWPS_PACKET_INJECTED_BY_SELF as BY_SELF, FWPS_PACKET_NOT_INJECTED as NOT, FWPS_RIGHT_ACTION_WRITE,
};
use parking_lot::Mutex;
use shim::layer::Direction::{self, Inbound, Outbound};
use shim::packet::Packet;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn server(v6: bool) -> IpAddr {
    if v6 { "2001:db8::10" } else { "203.0.113.10" }.parse().expect("an address")
}

/// Absorbs what passes a layer and injects a clone; returns the injector and the states it saw.
fn divert(rig: &mut Rig, v6: bool, layer: u16, direction: Direction) -> (Arc<Injector>, Arc<Mutex<Vec<u32>>>) {
    let injector = Injector::transport(rig);
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let (by, states) = (injector.clone(), seen.clone());
    rig.callout(LayerId(layer + if v6 { 2 } else { 0 }), move |call| {
        if call.out.rights & FWPS_RIGHT_ACTION_WRITE == 0 {
            return;
        }
        let list = call.list();
        let state = by.state(list).0;
        states.lock().push(state);
        if state == BY_SELF {
            return call.permit();
        }
        let status = match direction {
            Outbound => {
                by.send_transport(Injector::clone_of(list), None, call.metadata.transport_endpoint_handle, server(v6))
            }
            Inbound => {
                let headers = call.metadata.ip_header_size + call.metadata.transport_header_size;
                retreated(list, headers, || by.receive_transport(Injector::clone_of(list), v6))
            }
        };
        assert_eq!(status, NtStatus::SUCCESS);
        call.absorb();
    });
    (injector, seen)
}

/// Checks that two packets differ at most in their IP headers: same payload, same endpoints.
fn same(a: &[u8], b: &[u8]) {
    let (pa, pb) = (Packet::parse(a).expect("a packet"), Packet::parse(b).expect("a packet"));
    assert_eq!((pa.source, pa.destination, pa.upper), (pb.source, pb.destination, pb.upper));
    assert_eq!(a[pa.ip_header_len..pa.len], b[pb.ip_header_len..pb.len], "the checksum too");
}

#[test]
fn a_datagram_sent_from_the_transport_layer_gets_its_headers_and_arrives_once() {
    for v6 in [false, true] {
        for layer in [16, 24] {
            // OUTBOUND_TRANSPORT, DATAGRAM_DATA
            let mut rig = Rig::new();
            let (injector, seen) = divert(&mut rig, v6, layer, Outbound);
            let packet = udp(v6, Outbound, b"question");
            rig.pass(Outbound, &packet);
            assert!(rig.sides.remote.is_empty());
            rig.serve();
            assert_eq!(*seen.lock(), [NOT, BY_SELF]);
            assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS]);
            assert_eq!(rig.sides.remote.len(), 1);
            same(&rig.sides.remote[0], &packet);
            assert!(rig.sides.local.is_empty());
        }
    }
}

#[test]
fn a_changed_datagram_has_the_right_checksum() {
    for v6 in [false, true] {
        let mut rig = Rig::new();
        let injector = Injector::transport(&rig);
        let (by, headers) = (injector.clone(), if v6 { 40 } else { 20 });
        let changed = udp(v6, Outbound, b"longer than it was");
        let data = changed[headers..].to_vec();
        rig.callout(LayerId(if v6 { 18 } else { 16 }), move |call| {
            if by.state(call.list()).0 == NOT {
                let mut data = data.clone();
                data[6..8].fill(0xAA); // a wrong checksum
                let mut packet = nt_abi::PacketBuffer::copy_of(&data);
                let list = packet.list(0, 0, data.len());
                let endpoint = call.metadata.transport_endpoint_handle;
                assert_eq!(by.send_transport(list, Some(packet), endpoint, server(v6)), NtStatus::SUCCESS);
                call.absorb();
            }
        });
        rig.out(&udp(v6, Outbound, b"short"));
        assert_eq!(rig.sides.remote.len(), 1);
        same(&rig.sides.remote[0], &changed);
    }
}

#[test]
fn a_packet_received_at_the_transport_layer_passes_only_what_is_above() {
    for v6 in [false, true] {
        for layer in [12, 24] {
            // INBOUND_TRANSPORT, DATAGRAM_DATA
            let mut rig = Rig::new();
            let below: Arc<Mutex<u32>> = Arc::default();
            let count = below.clone();
            rig.callout(LayerId(if v6 { 2 } else { 0 }), move |_| *count.lock() += 1);
            let (injector, seen) = divert(&mut rig, v6, layer, Inbound);
            let packet = udp(v6, Inbound, b"reply");
            rig.inward(&packet);
            assert_eq!(*seen.lock(), [NOT, BY_SELF]);
            assert_eq!(*below.lock(), 1, "INBOUND_IPPACKET");
            assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS]);
            assert_eq!(rig.sides.local, [packet]);
        }
    }
}

#[test]
fn a_connection_lives_and_ends_while_every_segment_is_diverted() {
    for v6 in [false, true] {
        let mut rig = Rig::new();
        let (out, _) = divert(&mut rig, v6, 16, Outbound);
        let (inward, _) = divert(&mut rig, v6, 12, Inbound);
        let conversation = [
            (Outbound, "S", 100, 0, &b""[..]),
            (Inbound, "SA", 500, 101, b""),
            (Outbound, "A", 101, 501, b""),
            (Outbound, "AP", 101, 501, b"question"),
            (Inbound, "AP", 501, 109, b"reply"),
            (Outbound, "AF", 109, 506, b""),
            (Inbound, "AF", 506, 110, b""),
            (Outbound, "A", 110, 507, b""),
        ];
        for (direction, flags, sequence, acknowledgment, data) in conversation {
            let packet = tcp(v6, direction, flags, sequence, acknowledgment, data);
            rig.pass(direction, &packet);
            rig.serve();
            let arrived = match direction {
                Outbound => rig.sides.remote.pop(),
                Inbound => rig.sides.local.pop(),
            };
            same(&arrived.expect("it arrived"), &packet);
            assert!(rig.sides.remote.is_empty() && rig.sides.local.is_empty());
        }
        assert_eq!(rig.machine.wfp.engine.flows.len(), 0, "the connection is over");
        assert_eq!((out.done.lock().len(), inward.done.lock().len()), (5, 3));
    }
}

#[test]
fn an_endpoint_that_is_gone_sends_nothing() {
    let mut rig = Rig::new();
    let injector = Injector::transport(&rig);
    let data = &udp(false, Outbound, b"x")[20..];
    let mut packet = nt_abi::PacketBuffer::copy_of(data);
    let list = packet.list(0, 0, data.len());
    rig.run(|| assert_eq!(injector.send_transport(list, Some(packet), 77, server(false)), NtStatus::SUCCESS));
    rig.serve();
    assert_eq!(*injector.done.lock(), [NtStatus::INVALID_PARAMETER]);
    assert!(rig.sides.remote.is_empty());
}
