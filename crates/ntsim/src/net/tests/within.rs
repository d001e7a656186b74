//! Programs of one machine that speak with each other, and sockets that close.

use super::*;
use shim::packet::protocol::{TCP, UDP};
use std::collections::BTreeSet;

const CONNECT: [LayerId; 2] = [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6];
const ACCEPT: [LayerId; 2] = [LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6];
/// What programs call their own machine.
const OWN: [&str; 5] = ["127.0.0.1", "127.0.0.9", "10.77.0.2", "::1", "fd77::2"];

/// The network, if its loopback traffic can be seen, or a word why there is none.
fn network_within() -> Option<Network> {
    let network = network()?;
    if network.loopback.is_none() {
        eprintln!("skipped: the kernel does not lead loopback traffic to a TUN device");
        return None;
    }
    Some(network)
}

/// Sends over a connection and has it sent back.
fn exchange(own: &str) {
    let listener = TcpListener::bind((own, 0)).unwrap_or_else(|error| panic!("{own}: {error}"));
    let to = listener.local_addr().expect("an address");
    let sent: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let server = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().expect("somebody connects");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("everything comes");
        stream.write_all(&bytes).expect("the stream is open");
        from
    });
    let mut stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{own}: {error}"));
    stream.write_all(&sent).expect("the stream is open");
    stream.shutdown(std::net::Shutdown::Write).expect("it stands");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("everything comes back");
    assert!(received == sent, "{own}: the bytes are the same");
    assert_eq!(stream.local_addr().expect("it stands"), server.join().expect("it served"), "{own}: nobody is renamed");

    let (server, client) = (UdpSocket::bind((own, 0)), UdpSocket::bind((own, 0)));
    let (server, client) = (server.expect("a socket"), client.expect("a socket"));
    for len in [5, 30_000] {
        client.send_to(&vec![7; len], server.local_addr().expect("bound")).expect("it is sent");
        let (got, from) = server.recv_from(&mut [0; 40_000]).expect("it comes");
        assert_eq!((got, from), (len, client.local_addr().expect("bound")), "{own}");
    }
}

/// "Indicates that the network traffic is loopback traffic" (FWP_CONDITION_FLAG_IS_LOOPBACK, "Filtering condition flags",
/// windows-driver-docs network/filtering-condition-flags.md), at both ends.
#[test]
fn programs_of_one_machine_are_asked_at_both_ends() {
    let Some(network) = network_within() else { return };
    let machine = Machine::new();
    machine.wfp.engine.events.set_collect_allow(true);
    let loopback = [("FLAGS", ConditionValue::Uint32(1))];
    for layer in CONNECT.into_iter().chain(ACCEPT) {
        filter(&machine, layer, FilterAction::Permit, &loopback);
    }
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, || OWN.into_iter().for_each(exchange)).join().expect("the client's assertions hold");
    running.stop().expect("the wire was there").expect("no bugcheck");

    let this = crate::host::nt_path(&std::env::current_exe().expect("a path"));
    let app_id: Vec<u8> = this.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut asked = BTreeSet::new();
    for event in machine.wfp.engine.events.to_vec() {
        assert!(event.loopback && event.app_id.as_ref() == Some(&app_id), "{event:?}");
        // The loopback pseudo-interface has index 1.
        assert_eq!(event.interface == 1, event.local.is_some_and(|local| local.is_loopback()), "{event:?}");
        asked.insert((event.protocol.expect("known"), event.layer, event.local, event.remote));
    }
    for own in OWN {
        let own: IpAddr = own.parse().expect("an address");
        let version = usize::from(own.is_ipv6());
        // Linux gives a connection to 127.0.0.9 the source 127.0.0.1.
        let source = if own.is_loopback() && own.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { own };
        for (protocol, source) in [(TCP, source), (UDP, own)] {
            assert!(asked.contains(&(protocol, CONNECT[version], Some(source), Some(own))), "{own}: {asked:?}");
            assert!(asked.contains(&(protocol, ACCEPT[version], Some(own), Some(source))), "{own}: {asked:?}");
        }
    }
    assert_eq!(machine.wfp.engine.flows.len(), 0, "no flow outlives the network");
}

#[test]
fn either_end_of_loopback_may_be_blocked() {
    let Some(network) = network_within() else { return };
    let machine = Machine::new();
    let port = |number| [("IP_REMOTE_PORT", ConditionValue::Uint16(number))];
    let mut filters = Vec::new();
    for layer in CONNECT {
        filters.push(filter(&machine, layer, FilterAction::Block, &port(66)));
    }
    for layer in ACCEPT {
        filters.push(filter(&machine, layer, FilterAction::Block, &port(77)));
    }
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, || {
        for own in OWN {
            let _listener = TcpListener::bind((own, 66)).expect("port 66 is free here");
            let error = TcpStream::connect((own, 66)).expect_err("blocked");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{own}");
            // Datagrams keep their order, so the first that arrives says what became of the one before.
            let [server, blocked, permitted] =
                [0, 77, 0].map(|port| UdpSocket::bind((own, port)).expect("the port is free here"));
            let to = server.local_addr().expect("bound");
            for socket in [&blocked, &permitted] {
                socket.send_to(b"question", to).expect("it is sent");
            }
            let (_, from) = server.recv_from(&mut [0; 64]).expect("one arrives");
            assert_eq!(from, permitted.local_addr().expect("bound"), "{own}");
        }
    })
    .join()
    .expect("the client's assertions hold");
    let verdicts = running.stop().expect("the wire was there").expect("no bugcheck");
    // A SYN may be sent again before its refusal arrives.
    assert!(verdicts.totals.refused >= 5 && verdicts.totals.dropped == 5, "{:?}", verdicts.totals);
    let events = machine.wfp.engine.events.to_vec();
    assert!(events.iter().all(|event| event.loopback), "{events:?}");
    let by: BTreeSet<u64> = events.iter().map(|event| event.filter_id).collect();
    assert_eq!(by, filters.into_iter().collect());
}

/// Linux has let the server listen by then, and the machine takes the socket away from the network.
#[test]
fn a_server_is_asked_about_and_one_that_may_not_listen_is_not_reached() {
    let Some(network) = network_within() else { return };
    let machine = Machine::new();
    machine.wfp.engine.events.set_collect_allow(true);
    let port = |number| [("IP_LOCAL_PORT", ConditionValue::Uint16(number))];
    for layer in [LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_AUTH_LISTEN_V6] {
        filter(&machine, layer, FilterAction::Block, &port(66));
        filter(&machine, layer, FilterAction::Permit, &port(67));
    }
    for layer in [LayerId::ALE_RESOURCE_ASSIGNMENT_V4, LayerId::ALE_RESOURCE_ASSIGNMENT_V6] {
        filter(&machine, layer, FilterAction::Block, &port(68));
    }
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, || {
        for own in OWN {
            let [refused, served, datagrams] = [
                TcpListener::bind((own, 66)).map(|_listener| TcpStream::connect((own, 66)).map(drop)),
                TcpListener::bind((own, 67)).map(|_listener| TcpStream::connect((own, 67)).map(drop)),
                UdpSocket::bind((own, 68)).map(|socket| {
                    let client = UdpSocket::bind((own, 0)).expect("a port");
                    client.send_to(b"question", (own, 68)).expect("it is sent");
                    socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a time");
                    socket.recv(&mut [0; 64]).map(drop)
                }),
            ]
            .map(|ran| ran.unwrap_or_else(|error| panic!("{own}: {error}")));
            assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused), "{own}");
            assert!(served.is_ok(), "{own}: {served:?}");
            assert_eq!(datagrams.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "{own}");
        }
    })
    .join()
    .expect("the client's assertions hold");
    running.stop().expect("the wire was there").expect("no bugcheck");
    let asked: BTreeSet<_> =
        machine.wfp.engine.events.to_vec().iter().map(|event| (event.layer, event.local, event.local_port)).collect();
    for own in OWN {
        let own: IpAddr = own.parse().expect("an address");
        let [listen, bind] = match own {
            IpAddr::V4(_) => [LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_RESOURCE_ASSIGNMENT_V4],
            IpAddr::V6(_) => [LayerId::ALE_AUTH_LISTEN_V6, LayerId::ALE_RESOURCE_ASSIGNMENT_V6],
        };
        for (layer, port) in [(listen, 66), (listen, 67), (bind, 68)] {
            assert!(asked.contains(&(layer, Some(own), Some(port))), "{own}, {port}: {asked:?}");
        }
    }
}

/// A proxy on the machine itself, to which a callout leads what was meant for others.
#[test]
fn a_connection_is_led_to_a_program_of_the_same_machine() {
    let Some(network) = network_within() else { return };
    let machine = Machine::new();
    let mut driver = Driver::new(&machine);
    driver.callout(LayerId(66), leads(128, "127.0.0.1:8080".parse().expect("an address")));
    machine.wfp.engine.events.set_collect_allow(true);
    for layer in [CONNECT[0], ACCEPT[0]] {
        filter(&machine, layer, FilterAction::Permit, &[]);
    }
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, || {
        let proxy = TcpListener::bind("127.0.0.1:8080").expect("port 8080 is free here");
        let serving = std::thread::spawn(move || {
            let (mut stream, from) = proxy.accept().expect("somebody connects");
            stream.write_all(b"this is the proxy").expect("the stream is open");
            from
        });
        let mut stream = TcpStream::connect("203.0.113.10:80").expect("led elsewhere");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert_eq!(text, "this is the proxy");
        assert_eq!(stream.peer_addr().expect("it stands").to_string(), "203.0.113.10:80");
        let program = stream.local_addr().expect("it stands");
        assert_eq!(serving.join().expect("it served").port(), program.port());
    })
    .join()
    .expect("the client's assertions hold");
    running.stop().expect("the wire was there").expect("no bugcheck");
    assert_eq!(machine.wfp.engine.flows.len(), 0);
    let asked: Vec<_> =
        machine.wfp.engine.events.to_vec().iter().map(|e| (e.layer, e.remote_port, e.local_port, e.loopback)).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!((asked[0].0, asked[0].1, asked[0].3), (CONNECT[0], Some(8080), true), "{asked:?}");
    assert_eq!((asked[1].0, asked[1].2, asked[1].3), (ACCEPT[0], Some(8080), true), "{asked:?}");
}

/// "When the local UDP socket is closed, all the ALE flows associated with it will be deleted" ("ALE Stateful Filtering").
/// Of two sockets that are silent for as long, the flow of the closed one ends.
#[test]
fn a_flow_ends_with_its_real_socket() {
    let Some(network) = network() else { return };
    let machine = Machine::new();
    let flows = machine.clone();
    // Bound to its address, the server answers from it.
    let server = inside(&network.server, || UdpSocket::bind("203.0.113.10:53").expect("port 53 is free here"));
    let server = server.join().expect("it is bound");
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((len, from)) = server.recv_from(&mut bytes) {
            let _ = server.send_to(&bytes[..len], from);
        }
    });
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, move || {
        let sockets = [0, 1].map(|_| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
        let ask = |socket: &UdpSocket| {
            socket.send_to(b"question", "203.0.113.10:53").expect("it is sent");
            socket.recv(&mut [0; 64]).expect("it comes back");
        };
        let [stays, closes] = sockets;
        ask(&stays);
        ask(&closes);
        assert_eq!(flows.wfp.engine.flows.len(), 2);
        drop(closes);
        while flows.wfp.engine.flows.len() == 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        ask(&stays);
    })
    .join()
    .expect("the client's assertions hold");
    let verdicts = running.stop().expect("the wire was there").expect("no bugcheck");
    assert_eq!(verdicts.totals.flows, 2, "the open socket's was not opened again: {:?}", verdicts.totals);
}
