//! Injection at the network layer.

use super::rig::*;
use crate::fwpkclnt::stack::NOT_READY;
use filter_engine::layers::LayerId;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::{
    FWPS_PACKET_INJECTED_BY_OTHER as BY_OTHER, FWPS_PACKET_INJECTED_BY_SELF as BY_SELF,
    FWPS_PACKET_NOT_INJECTED as NOT, FWPS_PACKET_PREVIOUSLY_INJECTED_BY_SELF as PREVIOUSLY, FWPS_RIGHT_ACTION_WRITE,
};
use parking_lot::Mutex;
use shim::layer::Direction::{self, Inbound, Outbound};
use shim::stack::Verdict;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// INBOUND_IPPACKET (0, 2) or OUTBOUND_IPPACKET (4, 6).
fn ip_layer(v6: bool, direction: Direction) -> LayerId {
    LayerId(if direction == Outbound { 4 } else { 0 } + if v6 { 2 } else { 0 })
}

fn header_len(v6: bool) -> u32 {
    if v6 { 40 } else { 20 }
}

/// `FWPS_PACKET_INJECTION_STATE` of each packet seen, and the context.
type States = Arc<Mutex<Vec<(u32, u64)>>>;

/// Absorbs every packet at the network layer and injects a clone of it; returns the injector and the states it saw.
fn divert(rig: &mut Rig, v6: bool, direction: Direction, context: u64) -> (Arc<Injector>, States) {
    let injector = Injector::network(rig, v6);
    let seen = States::default();
    let (by, states) = (injector.clone(), seen.clone());
    rig.callout(ip_layer(v6, direction), move |call| {
        if call.out.rights & FWPS_RIGHT_ACTION_WRITE == 0 {
            return; // a heavier callout has absorbed it
        }
        let list = call.list();
        let state = by.state(list);
        states.lock().push(state);
        if state.0 == BY_SELF || state.0 == PREVIOUSLY {
            return call.permit();
        }
        let status = match direction {
            Outbound => by.send_clone(list, context),
            // At the inbound layer the data begins behind the IP header; what is injected begins at it.
            Inbound => retreated(list, header_len(v6), || by.receive_clone(list, context)),
        };
        assert_eq!(status, NtStatus::SUCCESS);
        call.absorb();
    });
    (injector, seen)
}

#[test]
fn a_diverted_packet_arrives_once_and_is_known_again() {
    for v6 in [false, true] {
        for direction in [Outbound, Inbound] {
            let mut rig = Rig::new();
            let (injector, seen) = divert(&mut rig, v6, direction, 0xC0);
            let packet = udp(v6, direction, b"question");
            let blocks = rig.machine.pool.usage();
            assert_eq!(rig.pass(direction, &packet).verdict, Verdict::Drop, "taken out");
            assert!(rig.sides.remote.is_empty() && rig.sides.local.is_empty());
            assert_eq!(rig.woken.load(Ordering::Relaxed), 1);
            assert!(injector.done.lock().is_empty(), "not inside classify");
            rig.serve();
            assert_eq!(*seen.lock(), [(NOT, 0), (BY_SELF, 0xC0)]);
            assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS]);
            assert_eq!(rig.verdicts.totals.injected, 1);
            injector.destroy(&rig);
            let (sides, machine) = rig.finish();
            let (there, elsewhere) = match direction {
                Outbound => (sides.remote, sides.local),
                Inbound => (sides.local, sides.remote),
            };
            assert_eq!(there, [packet], "v6: {v6}, {direction:?}");
            assert!(elsewhere.is_empty());
            assert_eq!(machine.wfp.engine.events.to_vec().len(), 0, "absorbed silently");
            assert_eq!(machine.pool.usage(), blocks, "the clones were given back");
        }
    }
}

#[test]
fn an_inbound_injection_passes_every_layer_above_once() {
    let mut rig = Rig::new();
    let asked: Arc<Mutex<Vec<u16>>> = Arc::default();
    for layer in [12, 24, 44, 52] {
        // INBOUND_TRANSPORT, DATAGRAM_DATA, ALE_AUTH_RECV_ACCEPT, ALE_FLOW_ESTABLISHED
        let asked = asked.clone();
        rig.callout(LayerId(layer), move |_| asked.lock().push(layer));
    }
    let (_, seen) = divert(&mut rig, false, Inbound, 1);
    rig.inward(&udp(false, Inbound, b"hello"));
    assert_eq!(*asked.lock(), [12, 44, 52, 24]);
    assert_eq!(seen.lock().len(), 2);
}

#[test]
fn what_is_taken_out_and_not_injected_never_arrives() {
    for direction in [Outbound, Inbound] {
        let mut rig = Rig::new();
        rig.callout(ip_layer(false, direction), |call| call.absorb());
        rig.pass(direction, &udp(false, direction, b"lost"));
        rig.serve();
        assert!(rig.sides.remote.is_empty() && rig.sides.local.is_empty());
    }
}

#[test]
fn a_connection_lives_and_ends_while_every_packet_is_diverted() {
    for v6 in [false, true] {
        let mut rig = Rig::new();
        let (out, _) = divert(&mut rig, v6, Outbound, 1);
        let (inward, _) = divert(&mut rig, v6, Inbound, 2);
        let stream: Arc<Mutex<Vec<u64>>> = Arc::default();
        let lengths = stream.clone();
        rig.callout(LayerId(if v6 { 22 } else { 20 }), move |call| {
            // SAFETY: the layer data of the stream layer.
            let data = unsafe { &*(*call.layer_data.cast::<nt_abi::fwp::FwpsStreamCalloutIoPacket0>()).stream_data };
            lengths.lock().push(data.data_length as u64);
        });
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
        let mut expected = (Vec::new(), Vec::new());
        for (i, (direction, flags, sequence, acknowledgment, data)) in conversation.into_iter().enumerate() {
            let packet = tcp(v6, direction, flags, sequence, acknowledgment, data);
            rig.pass(direction, &packet);
            rig.serve();
            match direction {
                Outbound => expected.0.push(packet),
                Inbound => expected.1.push(packet),
            }
            let flows = rig.machine.wfp.engine.flows.len();
            assert_eq!(flows, usize::from((1..7).contains(&i)), "flows of the engine after packet {i}");
        }
        assert_eq!((&rig.sides.remote, &rig.sides.local), (&expected.0, &expected.1));
        assert_eq!(*stream.lock(), [8, 5, 0, 0], "each byte once, then the disconnects");
        assert_eq!((out.done.lock().len(), inward.done.lock().len()), (5, 3));
    }
}

#[test]
fn each_driver_knows_its_own_packets() {
    let mut rig = Rig::new();
    // Each diverts what it has not seen yet, so each packet goes round twice.
    let (one, first) = divert(&mut rig, false, Outbound, 0xA);
    let (two, second) = divert(&mut rig, false, Outbound, 0xB);
    let packet = udp(false, Outbound, b"x");
    rig.out(&packet);
    assert_eq!(*first.lock(), [(NOT, 0), (BY_SELF, 0xA), (PREVIOUSLY, 0xA)]);
    assert_eq!(*second.lock(), [(BY_OTHER, 0), (BY_SELF, 0xB)]);
    assert_eq!((one.done.lock().len(), two.done.lock().len()), (1, 1));
    assert_eq!(rig.sides.remote, [packet]);
}

#[test]
fn injected_packets_obey_filters_like_any_other() {
    let mut rig = Rig::new();
    let injector = Injector::network(&rig, false);
    rig.block(ip_layer(false, Outbound));
    rig.run(|| assert_eq!(injector.inject(Outbound, &udp(false, Outbound, b"x")), NtStatus::SUCCESS));
    rig.serve();
    assert!(rig.sides.remote.is_empty());
    assert_eq!(*injector.done.lock(), [NtStatus::DATA_NOT_ACCEPTED]);
    assert_eq!(rig.machine.wfp.engine.events.to_vec().len(), 1);
}

#[test]
fn what_is_no_packet_of_the_family_is_given_back() {
    let mut rig = Rig::new();
    let injector = Injector::network(&rig, false);
    for bad in [udp(true, Outbound, b"x"), vec![0x45; 7], vec![]] {
        for direction in [Outbound, Inbound] {
            rig.run(|| assert_eq!(injector.inject(direction, &bad), NtStatus::SUCCESS));
        }
    }
    rig.serve();
    assert!(rig.sides.remote.is_empty() && rig.sides.local.is_empty());
    assert_eq!(*injector.done.lock(), [NtStatus::INVALID_PARAMETER; 6]);
}

#[test]
fn a_machine_off_the_network_takes_no_injections_and_returns_what_waits() {
    let rig = Rig::new();
    let injector = Injector::network(&rig, false);
    let packet = udp(false, Outbound, b"x");
    rig.run(|| assert_eq!(injector.inject(Outbound, &packet), NtStatus::SUCCESS));
    let (sides, machine) = rig.finish();
    assert!(sides.remote.is_empty());
    assert_eq!(*injector.done.lock(), [NtStatus::CANCELLED]);
    let refused = crate::cpu::enter(&machine, nt_abi::Irql::PASSIVE, || injector.inject(Outbound, &packet));
    assert_eq!(refused.unwrap(), NOT_READY);
    assert_eq!(injector.done.lock().len(), 1, "not called for a failed injection");
}

#[test]
fn a_kept_list_remembers_who_injected_it() {
    let mut rig = Rig::new();
    let injector = Injector::network(&rig, false);
    let kept: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (by, keep) = (injector.clone(), kept.clone());
    rig.callout(ip_layer(false, Outbound), move |call| {
        if by.state(call.list()).0 == BY_SELF && keep.lock().is_empty() {
            // SAFETY: a live list.
            unsafe {
                import!(FwpsReferenceNetBufferList0(*mut nt_abi::NetBufferList, u8))(call.list(), 0);
            }
            keep.lock().push(call.list().addr());
            call.absorb();
        }
    });
    let states: Arc<Mutex<Vec<u32>>> = Arc::default();
    let other = Injector::network(&rig, false);
    let (first, seen) = (injector.clone(), states.clone());
    rig.callout(ip_layer(false, Outbound), move |call| seen.lock().push(first.state(call.list()).0));
    let packet = udp(false, Outbound, b"x");
    rig.run(|| injector.inject(Outbound, &packet));
    rig.serve();
    assert!(rig.sides.remote.is_empty());
    // Other packets travel meanwhile, in buffers of their own.
    rig.out(&udp(false, Outbound, b"another"));
    let list = kept.lock()[0] as *mut nt_abi::NetBufferList;
    rig.run(|| {
        assert_eq!(injector.state(list).0, BY_SELF, "long after");
        assert_eq!(other.send_clone(list, 0), NtStatus::SUCCESS);
        // SAFETY: the reference taken above.
        unsafe { import!(FwpsDereferenceNetBufferList0(*mut nt_abi::NetBufferList, u8))(list, 0) };
    });
    rig.serve();
    assert_eq!(*states.lock(), [BY_SELF, NOT, PREVIOUSLY]);
    assert_eq!(rig.sides.remote, [udp(false, Outbound, b"another"), packet]);
}

#[test]
fn pieces_of_a_datagram_are_diverted_one_by_one() {
    let mut rig = Rig::new();
    let (injector, seen) = divert(&mut rig, false, Inbound, 1);
    let whole = udp(false, Inbound, &[7; 40]);
    let piece = |offset: usize, len: usize, more: bool| {
        let mut header = etherparse::Ipv4Header::from_slice(&whole).unwrap().0;
        header.identification = 9;
        header.more_fragments = more;
        header.fragment_offset = etherparse::IpFragOffset::try_new((offset / 8) as u16).unwrap();
        header.set_payload_len(len).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&whole[20 + offset..20 + offset + len]);
        bytes
    };
    let pieces = [piece(0, 24, true), piece(24, 24, false)];
    for piece in &pieces {
        rig.inward(piece);
    }
    // Each piece is shown twice, the whole datagram once more and as injected.
    assert_eq!(seen.lock().iter().map(|seen| seen.0).collect::<Vec<_>>(), [NOT, BY_SELF, NOT, BY_SELF, BY_SELF]);
    assert_eq!(rig.sides.local, pieces);
    assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS; 2]);
}
