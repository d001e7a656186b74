//! Real sockets on both sides of the simulated machine, with plain filters in place of a driver.

use super::*;
use crate::fwpkclnt::UserSession;
use crate::tcpip::carrier_tests::redirect::leads;
use crate::tcpip::carrier_tests::rig::{Driver, Injector};
use crate::tcpip::carrier_tests::streams::shown;
use core::ptr::null_mut;
use filter_engine::layers::{LayerId, condition};
use filter_engine::netevent::NetEventKind;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::FWPS_INJECTION_TYPE_STREAM;
use sluice_host::{Condition, ConditionValue, Engine as _, Filter, FilterAction, Guid, MatchType, Weight};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

mod within;

const SUBLAYER_UNIVERSAL: Guid = Guid(0xeebe_cc03_ced4_4380_819a_2734_397b_2b74);

/// Far below the 130 seconds that an unanswered connect takes, and more than a busy machine needs.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The network; prints why when it cannot be made.
fn network() -> Option<Network> {
    match Network::new(&["192.88.99.5".parse().expect("an address")]) {
        Ok(network) => Some(network),
        Err(error @ (NetError::Namespaces { .. } | NetError::Tun { .. })) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs `f` on a thread inside `namespace`.
fn inside<R: Send + 'static>(namespace: &Namespace, f: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    let namespace = namespace.clone();
    std::thread::spawn(move || {
        namespace.join().expect("the namespace was made here");
        f()
    })
}

fn block(machine: &Arc<Machine>, address: SocketAddr) -> u64 {
    let (layer, value) = match address.ip() {
        IpAddr::V4(v4) => (LayerId::ALE_AUTH_CONNECT_V4, ConditionValue::Uint32(v4.to_bits())),
        IpAddr::V6(v6) => (LayerId::ALE_AUTH_CONNECT_V6, ConditionValue::ByteArray16(v6.octets())),
    };
    filter(machine, layer, FilterAction::Block, &[("IP_REMOTE_ADDRESS", value)])
}

/// Adds a filter; every value of `conditions` must be equal to the field's.
fn filter(machine: &Arc<Machine>, layer: LayerId, action: FilterAction, conditions: &[(&str, ConditionValue)]) -> u64 {
    let conditions = conditions.iter().map(|(name, value)| Condition {
        field: condition(name).expect("known"),
        match_type: MatchType::Equal,
        value: value.clone(),
    });
    let filter = Filter {
        key: None,
        name: format!("{action:?}"),
        description: String::new(),
        flags: 0,
        provider: None,
        layer: machine.wfp.engine.layers().get(layer).expect("a layer").key,
        sublayer: SUBLAYER_UNIVERSAL,
        weight: Weight::Auto,
        conditions: conditions.collect(),
        action,
    };
    UserSession::open(machine, false).add_filter(&filter).expect("a good filter")
}

/// Echoes every connection and every datagram, on every address of the server side.
fn serve(network: &Network) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    inside(&network.server, move || {
        let tcp = TcpListener::bind("[::]:80").expect("port 80 is free here");
        let udp = UdpSocket::bind("[::]:53").expect("port 53 is free here");
        ready.send(()).expect("the test waits");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((len, from)) = udp.recv_from(&mut bytes) {
                let _ = udp.send_to(&bytes[..len], from);
            }
        });
        for mut stream in tcp.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(len @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..len]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    is_ready.recv().expect("the server is ready");
}

const PERMITTED: [&str; 3] = ["203.0.113.10:80", "[2001:db8::10]:80", "192.88.99.5:80"];
const BLOCKED: [&str; 2] = ["203.0.113.66:80", "[2001:db8::66]:80"];

#[test]
fn permitted_connections_carry_data_and_blocked_ones_fail_at_once() {
    let Some(network) = network() else { return };
    let machine = Machine::new();
    machine.wfp.engine.events.set_collect_allow(true);
    let blocked: Vec<SocketAddr> = BLOCKED.iter().map(|a| a.parse().expect("an address")).collect();
    let filters: Vec<u64> = blocked.iter().map(|address| block(&machine, *address)).collect();
    serve(&network);
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");

    inside(&network.client, move || {
        for address in PERMITTED {
            let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
            let sent: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
            let mut writer = stream.try_clone().expect("a second handle");
            let expected = sent.clone();
            let writing = std::thread::spawn(move || writer.write_all(&sent).expect("the stream is open"));
            let mut received = vec![0; expected.len()];
            stream.read_exact(&mut received).expect("everything comes back");
            writing.join().expect("written");
            assert!(received == expected, "{address}: the bytes are the same");
        }
        for address in blocked {
            let started = Instant::now();
            let error = TcpStream::connect(address).expect_err("blocked");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            assert!(started.elapsed() < AT_ONCE, "{address}: {:?}", started.elapsed());

            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a socket");
            socket.connect((address.ip(), 53)).expect("UDP connects locally");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            socket.send(b"question").expect("it is sent");
            let error = socket.recv(&mut [0; 64]).expect_err("blocked");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
        }
        for nowhere in ["1.2.3.4:80", "[2a00::1]:80"] {
            let started = Instant::now();
            TcpStream::connect(nowhere).expect_err("it is unreachable");
            assert!(started.elapsed() < AT_ONCE, "{nowhere}: {:?}", started.elapsed());
        }
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        for len in [5, 4000] {
            // 4000 bytes travel in fragments.
            socket.send_to(&vec![7; len], "203.0.113.10:53").expect("it is sent");
            let mut bytes = [0; 4096];
            assert_eq!(socket.recv(&mut bytes).expect("it comes back"), len);
        }
    })
    .join()
    .expect("the client's assertions hold");

    let verdicts = running.stop().expect("the wire was there").expect("no bugcheck");
    assert_eq!(verdicts.totals.refused, 4, "{:?}", verdicts.totals);
    let events = machine.wfp.engine.events.to_vec();
    let this = crate::host::nt_path(&std::env::current_exe().expect("a path"));
    for filter in filters {
        let event = events.iter().find(|event| event.filter_id == filter).expect("a drop is recorded");
        assert_eq!(event.kind, NetEventKind::ClassifyDrop);
        let app: Vec<u16> = event.app_id.as_ref().expect("an app id").chunks(2).map(|c| c[0].into()).collect();
        assert_eq!(String::from_utf16_lossy(&app).trim_end_matches('\0'), this);
    }
    assert_eq!(machine.wfp.engine.flows.len(), 0, "no flow outlives the network");
}

#[test]
fn a_new_filter_cuts_a_connection_at_its_next_packet() {
    let Some(network) = network() else { return };
    let machine = Machine::new();
    serve(&network);
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, move || {
        let mut stream = TcpStream::connect("203.0.113.10:80").expect("permitted");
        stream.write_all(b"before").expect("written");
        stream.read_exact(&mut [0; 6]).expect("echoed");
        block(&machine, "203.0.113.10:80".parse().expect("an address"));
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.write_all(b"after").expect("the kernel takes it");
        let error = stream.read(&mut [0; 6]).expect_err("the connection is gone");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    })
    .join()
    .expect("the client's assertions hold");
    let verdicts = running.stop().expect("the wire was there").expect("no bugcheck");
    assert_eq!(verdicts.totals.aborted, 1, "{:?}", verdicts.totals);
}

#[test]
fn servers_are_awaited_and_ended() {
    let Some(network) = network() else { return };
    let error = network.spawn_servers(&["exit 3".to_owned()]).expect_err("it ends at once");
    assert!(matches!(&error, NetError::ServerEnded { status, .. } if status.code() == Some(3)), "{error}");
    let line = "exec python3 -m http.server -b 203.0.113.10 80 >/dev/null 2>&1".to_owned();
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let servers = network.spawn_servers(&[line]).expect("it listens");
    let pid = servers.children[0].1.id();
    drop(servers);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn what_programs_leave_running_ends_with_the_network() {
    let Some(network) = network() else { return };
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 100 >/dev/null 2>&1 & echo $!"]).stdout(std::process::Stdio::piped());
    let output = network.spawn_client(&mut shell).expect("sh runs").wait_with_output().expect("it ends");
    let pid: i32 = String::from_utf8(output.stdout).expect("a number").trim().parse().expect("a number");
    let is_sleeping = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    assert!(is_sleeping());
    drop(network);
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_sleeping() {
        assert!(Instant::now() < deadline, "it still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A callout in place of a driver changes the data between real programs.
#[test]
fn a_stream_callout_rewrites_what_real_programs_say() {
    const SECRET: &[u8] = b"secret";
    const PUBLIC: &[u8] = b"open to everybody";
    let Some(network) = network() else { return };
    let machine = Machine::new();
    let mut driver = Driver::new(&machine);
    let injector = Injector::on(&machine, 0, FWPS_INJECTION_TYPE_STREAM);
    let (by, id) = (injector.clone(), Arc::new(AtomicU32::new(0)));
    let own = id.clone();
    let callout = driver.callout(
        LayerId(20),
        shown(move |shown| {
            if shown.data.is_empty() || shown.direction() == shim::layer::Direction::Inbound {
                return;
            }
            let there = shown.data.len();
            let begins = |at: usize| SECRET.starts_with(&shown.data[at..there.min(at + SECRET.len())]);
            match (0..there).find(|&at| begins(at)) {
                Some(0) if there < SECRET.len() && shown.flags & 0x8_0000 == 0 => shown.needs(1),
                Some(0) if there >= SECRET.len() => {
                    let status = by.put(shown.flow, own.load(Ordering::Relaxed), 0x1_0000, null_mut(), PUBLIC);
                    assert_eq!(status, NtStatus::SUCCESS);
                    shown.decides(SECRET.len(), false);
                }
                Some(at) if at > 0 => shown.decides(at, true),
                _ => shown.call.permit(),
            }
        }),
    );
    id.store(callout, Ordering::Relaxed);
    serve(&network);
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    let text: Vec<u8> = (0..30_000u32).flat_map(|i| format!("{i} is no secret, or s{i}e; ").into_bytes()).collect();
    let expected: Vec<u8> =
        String::from_utf8(text.clone()).expect("ASCII").replace("secret", "open to everybody").into();
    inside(&network.client, move || {
        let mut stream = TcpStream::connect("203.0.113.10:80").expect("permitted");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut writer = stream.try_clone().expect("a second handle");
        let writing = std::thread::spawn(move || {
            for (i, part) in text.chunks(4093).enumerate() {
                writer.write_all(part).expect("the stream is open");
                if i % 16 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            writer.shutdown(std::net::Shutdown::Write).expect("it stands");
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("everything comes back, and then the end");
        writing.join().expect("written");
        assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
    })
    .join()
    .expect("the client's assertions hold");
    let verdicts = running.stop().expect("the wire was there").expect("no bugcheck");
    assert!(verdicts.totals.relayed > 100, "{:?}", verdicts.totals);
    assert_eq!(injector.done.lock().len(), 30_000);
    assert_eq!(machine.wfp.engine.flows.len(), 0);
}

#[test]
fn a_redirected_connection_reaches_another_server() {
    let Some(network) = network() else { return };
    let machine = Machine::new();
    let mut driver = Driver::new(&machine);
    for (layer, to) in [(66, "192.0.2.7:8080"), (67, "[2001:db8::77]:8080")] {
        driver.callout(LayerId(layer), leads(128, to.parse().expect("an address")));
    }
    let (ready, is_ready) = std::sync::mpsc::channel();
    inside(&network.server, move || {
        let listener = TcpListener::bind("[::]:8080").expect("port 8080 is free here");
        ready.send(()).expect("the test waits");
        for mut stream in listener.incoming().flatten() {
            let here = stream.local_addr().expect("an address").ip().to_canonical();
            let _ = stream.write_all(format!("this is {here}").as_bytes());
        }
    });
    is_ready.recv().expect("the server is ready");
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, || {
        for (asked, reached) in [("203.0.113.10:80", "192.0.2.7"), ("[2001:db8::10]:80", "2001:db8::77")] {
            let mut stream = TcpStream::connect(asked).unwrap_or_else(|error| panic!("{asked}: {error}"));
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("an answer");
            assert_eq!(text, format!("this is {reached}"));
            assert_eq!(stream.peer_addr().expect("it stands").to_string(), asked, "the program does not notice");
        }
    })
    .join()
    .expect("the client's assertions hold");
    running.stop().expect("the wire was there").expect("no bugcheck");
    assert_eq!(machine.wfp.engine.flows.len(), 0);
}

#[test]
fn an_error_about_a_redirected_packet_reaches_who_sent_it() {
    let Some(network) = network() else { return };
    let machine = Machine::new();
    let mut driver = Driver::new(&machine);
    for (layer, to) in [(66, "192.0.2.7:9"), (67, "[2001:db8::77]:9")] {
        driver.callout(LayerId(layer), leads(128, to.parse().expect("an address")));
    }
    let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
    inside(&network.client, || {
        for (any, asked) in [("0.0.0.0:0", "203.0.113.10:53"), ("[::]:0", "[2001:db8::10]:53")] {
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.connect(asked).expect("UDP connects locally");
            socket.set_read_timeout(Some(AT_ONCE)).expect("a timeout");
            socket.send(b"question").expect("it is sent");
            let error = socket.recv(&mut [0; 64]).expect_err("nobody listens where it was led to");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{asked}");
        }
    })
    .join()
    .expect("the client's assertions hold");
    running.stop().expect("the wire was there").expect("no bugcheck");
}
