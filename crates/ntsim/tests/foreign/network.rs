//! The layer NETWORK: packets reported and dropped, both ways, IPv4 and IPv6.

use crate::divert::{Address, Filter, Handle, Layer, flag};
use crate::rig::{CURL, DIG, Rig, has_dig};
use std::{net::IpAddr, time::Duration};

/// Everything a handle has to tell until it is quiet for a while.
fn drain(handle: &Handle) -> Vec<(Vec<u8>, Address)> {
    core::iter::from_fn(|| handle.receive(Duration::from_millis(300))).collect()
}

#[test]
fn what_is_sniffed_is_what_is_on_the_wire() {
    let Some(rig) = Rig::new() else { return };
    let handle = Handle::open(&rig.machine, &Filter::all(), Layer::Network, 0, flag::SNIFF | flag::RECV_ONLY).unwrap();
    let wire = rig.tap_client();
    let mut commands = vec![format!("{CURL} http://203.0.113.10/a"), format!("{CURL} 'http://[2001:db8:1::10]/b'")];
    if has_dig() {
        commands.extend([format!("{DIG} @10.77.0.1 a.test"), format!("{DIG} @fd77::1 b.test")]);
    }
    for command in commands {
        rig.client(&command).prints();
        let (mut told, passed) = (drain(&handle), wire.rest(|_| true));
        // The driver stamps a packet when it passes and hands it over by work items, of which two may run at once.
        told.sort_by_key(|(_, address)| address.timestamp);
        assert!(told.len() >= 2, "{command}: {} packets", told.len());
        // Each direction is in order; the driver's queue and the tap may interleave them differently.
        for outbound in [true, false] {
            let told: Vec<&Vec<u8>> =
                told.iter().filter(|(_, a)| a.is_outbound() == outbound).map(|(p, _)| p).collect();
            let passed: Vec<&Vec<u8>> = passed.iter().filter(|packet| from_client(packet) == outbound).collect();
            assert_eq!(told, passed, "{command}, outbound {outbound}");
        }
        for (packet, address) in &told {
            assert_eq!(address.interface(), (7, 0));
            assert_eq!(address.is_ipv6(), packet[0] >> 4 == 6);
            assert!(address.is_sniffed() && !address.is_impostor());
        }
    }
    drop(handle);
    rig.end();
}

/// Whether the client sent it.
fn from_client(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[12..16] == [10, 77, 0, 2],
        _ => packet[8..24] == "fd77::2".parse::<std::net::Ipv6Addr>().unwrap().octets(),
    }
}

/// Whether it is for this address.
fn is_to(packet: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => packet[0] >> 4 == 4 && packet[16..20] == v4.octets(),
        IpAddr::V6(v6) => packet[0] >> 4 == 6 && packet[24..40] == v6.octets(),
    }
}

#[test]
fn a_dropped_packet_never_arrives() {
    let Some(rig) = Rig::new() else { return };
    for (blocked, free) in [("203.0.113.66", "203.0.113.10"), ("[2001:db8:1::66]", "[2001:db8:1::10]")] {
        let address = blocked.trim_matches(['[', ']']).parse().unwrap();
        let filter = Filter::outbound().to(address);
        let handle = Handle::open(&rig.machine, &filter, Layer::Network, 0, flag::DROP).unwrap();
        let wire = rig.tap_server();
        let output = rig.client(&format!("{CURL} --connect-timeout 2 http://{blocked}/")).output();
        assert_eq!(output.status.code(), Some(28), "curl's word for a timeout: {output:?}");
        assert_eq!(wire.rest(|packet| is_to(packet, address)), Vec::<Vec<u8>>::new());
        assert_eq!(rig.client(&format!("{CURL} http://{free}/")).prints(), "this is /\n");
        drop(handle);
        // The other way: what the server answers does not reach the client.
        let handle =
            Handle::open(&rig.machine, &Filter::inbound().tcp_from(80), Layer::Network, 0, flag::DROP).unwrap();
        let wire = rig.tap_client();
        let output = rig.client(&format!("{CURL} --connect-timeout 2 http://{free}/")).output();
        assert_eq!(output.status.code(), Some(28), "{output:?}");
        assert!(wire.rest(|packet| !from_client(packet)).is_empty());
        drop(handle);
        assert_eq!(rig.client(&format!("{CURL} http://{blocked}/")).prints(), "this is /\n");
    }
    rig.end();
}
