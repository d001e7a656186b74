//! The layers FLOW and SOCKET: what they tell of real programs, and a connection that one of them refuses.

use crate::divert::{Address, Endpoint, Filter, Handle, Layer, event, flag};
use crate::rig::{CURL, PATIENCE, QUIET, Rig};
use std::net::IpAddr;

const SERVERS: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];

fn url(server: &str) -> String {
    if server.contains(':') { format!("http://[{server}]/") } else { format!("http://{server}/") }
}

fn client_address(server: IpAddr) -> IpAddr {
    if server.is_ipv4() { "10.77.0.2".parse().unwrap() } else { "fd77::2".parse().unwrap() }
}

/// The events until one of this kind, which is the last.
fn until(handle: &Handle, last: u8) -> Vec<Address> {
    let mut events: Vec<Address> = Vec::new();
    while events.last().is_none_or(|event| event.event != last) {
        events.push(handle.receive(PATIENCE).unwrap_or_else(|| panic!("event {last} after {events:?}")).1);
    }
    events
}

#[test]
fn flows_of_curl_are_told_from_beginning_to_end() {
    let Some(rig) = Rig::new() else { return };
    let filter = Filter::all().remote_port(80);
    let handle = Handle::open(&rig.machine, &filter, Layer::Flow, 0, flag::SNIFF | flag::RECV_ONLY).unwrap();
    for server in SERVERS {
        let curl = rig.client(&format!("exec {CURL} '{}'", url(server)));
        let process = curl.id();
        assert_eq!(curl.prints(), "this is /\n");
        let server: IpAddr = server.parse().unwrap();
        let events = until(&handle, event::FLOW_DELETED);
        assert_eq!(
            events.iter().map(|event| event.event).collect::<Vec<_>>(),
            [event::FLOW_ESTABLISHED, event::FLOW_DELETED]
        );
        for event in &events {
            let told = event.endpoint();
            let local = (client_address(server), told.local.1);
            let expected = Endpoint { process, local, remote: (server, 80), protocol: 6 };
            assert_eq!(told, expected);
            assert!(told.local.1 != 0 && event.is_outbound() && event.is_sniffed());
            assert_eq!(event.is_ipv6(), server.is_ipv6());
        }
    }
    drop(handle);
    rig.end();
}

#[test]
fn closing_with_flows_alive_gives_their_contexts_back() {
    let Some(rig) = Rig::new() else { return };
    let handle = Handle::open(&rig.machine, &Filter::all(), Layer::Flow, 0, flag::SNIFF | flag::RECV_ONLY).unwrap();
    // The connection is open until sleep ends.
    let client = rig.client("exec bash -c 'exec 3<>/dev/tcp/203.0.113.10/80; echo open; exec sleep 3'");
    let (_, established) = handle.receive(PATIENCE).expect("a flow");
    assert_eq!(established.event, event::FLOW_ESTABLISHED);
    drop(handle);
    assert_eq!(client.prints(), "open\n");
    rig.end();
}

#[test]
fn sockets_of_curl_are_told() {
    let Some(rig) = Rig::new() else { return };
    let flags = flag::SNIFF | flag::RECV_ONLY;
    let handle = Handle::open(&rig.machine, &Filter::all(), Layer::Socket, 0, flags).unwrap();
    for server in SERVERS {
        let curl = rig.client(&format!("exec {CURL} '{}'", url(server)));
        let process = curl.id();
        assert_eq!(curl.prints(), "this is /\n");
        let server: IpAddr = server.parse().unwrap();
        // The end of an endpoint is told twice: at ALE_ENDPOINT_CLOSURE, which knows the remote side, and at
        // ALE_RESOURCE_RELEASE.
        let events: Vec<Address> =
            (0..4).map(|at| handle.receive(PATIENCE).unwrap_or_else(|| panic!("event {at}")).1).collect();
        let kinds: Vec<u8> = events.iter().map(|told| told.event).collect();
        assert_eq!(kinds, [event::SOCKET_BIND, event::SOCKET_CONNECT, event::SOCKET_CLOSE, event::SOCKET_CLOSE]);
        let endpoints: Vec<Endpoint> = events.iter().map(Address::endpoint).collect();
        let connected = &endpoints[1];
        assert_eq!((connected.remote, connected.local.0), ((server, 80), client_address(server)));
        for told in &endpoints {
            assert_eq!((told.process, told.local.1, told.protocol), (process, connected.local.1, 6), "{endpoints:?}");
        }
        assert_eq!(endpoints.iter().filter(|told| told.remote == (server, 80)).count(), 2, "{endpoints:?}");
    }
    assert!(handle.receive(QUIET).is_none(), "nothing else is told");
    drop(handle);
    rig.end();
}

#[test]
fn the_socket_layer_refuses_a_connection() {
    let Some(rig) = Rig::new() else { return };
    let filter = Filter::all().remote_port(80);
    let handle = Handle::open(&rig.machine, &filter, Layer::Socket, 0, flag::RECV_ONLY).unwrap();
    for server in SERVERS {
        let wire = rig.tap_server();
        let output = rig.client(&format!("exec {CURL} --connect-timeout 2 '{}'", url(server))).output();
        // The callout blocks with FWPS_CLASSIFY_OUT_FLAG_ABSORB. What connect() answers then on Windows is documented
        // nowhere; ntsim takes the flag at its word and tells nobody.
        assert_eq!(output.status.code(), Some(28), "curl's word for a timeout: {output:?}");
        assert_eq!(wire.rest(|_| true), Vec::<Vec<u8>>::new(), "nothing arrives");
        let events = until(&handle, event::SOCKET_CONNECT);
        assert!(!events.last().expect("one").is_sniffed());
    }
    drop(handle);
    assert_eq!(rig.client(&format!("exec {CURL} '{}'", url(SERVERS[0]))).prints(), "this is /\n");
    rig.end();
}
