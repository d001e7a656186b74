//! Binds and connections that callouts redirect.

use super::cut;
use super::rig::*;
use core::ffi::c_void;
use core::ptr::null_mut;
use filter_engine::layers::LayerId;
use nt_abi::NtStatus;
use nt_abi::fwp::{FwpsClassifyOut0, consts};
use parking_lot::Mutex;
use shim::classifier::condition_flag::IS_CONNECTION_REDIRECTED;
use shim::layer::Direction::{self, Inbound, Outbound};
use shim::packet::Packet;
use shim::rewrite::readdress;
use shim::stack::{DATAGRAM_TIMEOUT, Verdict};
use std::net::SocketAddr;
use std::sync::Arc;

fn elsewhere(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8::77]:8443" } else { "192.0.2.7:8443" }.parse().expect("an address")
}

/// Writes a `SOCKADDR`.
///
/// # Safety
/// `at` is writable for 28 bytes.
unsafe fn write_address(at: *mut u8, address: SocketAddr) {
    let mut bytes = vec![if address.is_ipv6() { 23 } else { 2 }, 0];
    bytes.extend_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => bytes.extend_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => {
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&v6.ip().octets());
        }
    }
    // SAFETY: `at` is writable for 28 bytes (this function's contract), `bytes` is no longer.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
}

/// Acquires a classify handle.
fn handle_of(context: *const c_void) -> u64 {
    let acquire = import!(FwpsAcquireClassifyHandle0(*const c_void, u32, *mut u64) -> NtStatus);
    let mut handle = 0;
    // SAFETY: the context of a classify call under way.
    assert_eq!(unsafe { acquire(context, 0, &raw mut handle) }, NtStatus::SUCCESS);
    handle
}

fn release(handle: u64) {
    // SAFETY: the handle was acquired and not released.
    unsafe { import!(FwpsReleaseClassifyHandle0(u64))(handle) };
}

/// Changes the address at `offset` of the layer data: 0 is the local one, 128 that of the remote end.
fn change(handle: u64, offset: usize, to: SocketAddr, out: *mut FwpsClassifyOut0) {
    let writable = import!(
        FwpsAcquireWritableLayerDataPointer0(u64, u64, u32, *mut *mut c_void, *mut FwpsClassifyOut0) -> NtStatus
    );
    let apply = import!(FwpsApplyModifiedLayerData0(u64, *mut c_void, u32));
    let mut data = null_mut();
    // SAFETY: the handle is held; the data is a request with an address of 128 bytes at `offset`.
    unsafe {
        assert_eq!(writable(handle, 1, 0, &raw mut data, out), NtStatus::SUCCESS);
        write_address(data.cast::<u8>().add(offset), to);
        apply(handle, data, 0);
    }
}

/// Redirects every request at a layer.
fn redirects(rig: &mut Rig, layer: u16, offset: usize, to: SocketAddr) {
    rig.callout(LayerId(layer), leads(offset, to));
}

/// A callout that changes the address at `offset` of a request: 0 is the local one, 128 that of the remote end.
pub(crate) fn leads(offset: usize, to: SocketAddr) -> impl Fn(&mut Call<'_>) + Send + Sync + 'static {
    move |call| {
        let handle = handle_of(call.context);
        change(handle, offset, to, &raw mut *call.out);
        call.permit();
        release(handle);
    }
}

/// The packet, between other endpoints.
fn between(packet: &[u8], source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let described = Packet::parse(packet).expect("a packet");
    let (from, to) = described.ports();
    let source = source.unwrap_or(SocketAddr::new(described.source, from));
    readdress(&mut bytes, &described, source, destination.unwrap_or(SocketAddr::new(described.destination, to)));
    bytes
}

#[test]
fn a_redirected_connection_goes_elsewhere_and_the_program_does_not_notice() {
    for v6 in [false, true] {
        let mut rig = Rig::new();
        let proxy = elsewhere(v6);
        redirects(&mut rig, if v6 { 67 } else { 66 }, 128, proxy);
        let seen: Arc<Mutex<Vec<(u32, u32)>>> = Arc::default();
        let log = seen.clone();
        rig.callout(LayerId(if v6 { 50 } else { 48 }), move |call| log.lock().push((call.ports.1, call.flags)));
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
            // As the program sees it, and as the network does.
            let near = tcp(v6, direction, flags, sequence, acknowledgment, data);
            let far = match direction {
                Outbound => between(&near, None, Some(proxy)),
                Inbound => between(&near, Some(proxy), None),
            };
            match direction {
                Outbound => {
                    assert_eq!(rig.pass(direction, &near).verdict, Verdict::Forward);
                    assert_eq!(rig.sides.remote.pop(), Some(far));
                }
                Inbound => {
                    assert_eq!(rig.pass(direction, &far).verdict, Verdict::Forward);
                    assert_eq!(rig.sides.local.pop(), Some(near));
                }
            }
        }
        assert_eq!(*seen.lock(), [(8443, IS_CONNECTION_REDIRECTED)]);
        assert_eq!(rig.machine.wfp.engine.flows.len(), 0);
        // The same ports make a new connection, which is authorized again.
        rig.pass(Outbound, &tcp(v6, Outbound, "S", 90_000, 0, b""));
        assert_eq!(seen.lock().len(), 2);
    }
}

#[test]
fn datagrams_are_redirected_until_their_flow_ends() {
    for v6 in [false, true] {
        let mut rig = Rig::new();
        let proxy = elsewhere(v6);
        redirects(&mut rig, if v6 { 67 } else { 66 }, 128, proxy);
        let (question, reply) = (udp(v6, Outbound, b"question"), udp(v6, Inbound, b"reply"));
        for _ in 0..2 {
            rig.out(&question);
            rig.inward(&between(&reply, Some(proxy), None));
        }
        let far = between(&question, None, Some(proxy));
        assert_eq!(
            (&rig.sides.remote[..], &rig.sides.local[..]),
            (&[far.clone(), far][..], &[reply.clone(), reply][..])
        );
        rig.now += DATAGRAM_TIMEOUT;
        rig.tick();
        assert_eq!(rig.carrier.stack().flow_count(), 0);
        let stray = between(&udp(v6, Inbound, b"late"), Some(proxy), None);
        rig.inward(&stray);
        assert_eq!(rig.sides.local.last(), Some(&stray), "forgotten");
    }
}

#[test]
fn a_redirected_bind_has_another_source() {
    for v6 in [false, true] {
        let mut rig = Rig::new();
        let own: SocketAddr = if v6 { "[fd77::9]:5000" } else { "10.77.0.9:5000" }.parse().expect("an address");
        let seen: Arc<Mutex<Vec<(u32, u32)>>> = Arc::default();
        let log = seen.clone();
        redirects(&mut rig, if v6 { 69 } else { 68 }, 0, own);
        rig.callout(LayerId(if v6 { 38 } else { 36 }), move |call| log.lock().push(call.ports));
        let (question, reply) = (udp(v6, Outbound, b"question"), udp(v6, Inbound, b"reply"));
        rig.out(&question);
        rig.inward(&between(&reply, None, Some(own)));
        assert_eq!(rig.sides.remote, [between(&question, Some(own), None)]);
        assert_eq!(rig.sides.local, [reply]);
        assert_eq!(seen.lock()[0].0, 5000, "ALE_RESOURCE_ASSIGNMENT sees what is bound");
    }
}

#[test]
fn bound_and_connected_elsewhere_is_both() {
    let mut rig = Rig::new();
    let own: SocketAddr = "10.77.0.9:5000".parse().expect("an address");
    redirects(&mut rig, 68, 0, own);
    redirects(&mut rig, 66, 128, elsewhere(false));
    let (question, reply) = (udp(false, Outbound, b"question"), udp(false, Inbound, b"reply"));
    rig.out(&question);
    rig.inward(&between(&reply, Some(elsewhere(false)), Some(own)));
    rig.out(&question);
    let far = between(&question, Some(own), Some(elsewhere(false)));
    assert_eq!((&rig.sides.remote[..], &rig.sides.local[..]), (&[far.clone(), far][..], &[reply][..]));
}

#[test]
fn a_refusal_of_the_new_end_comes_from_the_old_one() {
    let mut rig = Rig::new();
    redirects(&mut rig, 66, 128, elsewhere(false));
    rig.block(LayerId(48));
    let syn = tcp(false, Outbound, "S", 100, 0, b"");
    assert_eq!(rig.pass(Outbound, &syn).verdict, Verdict::Refuse);
    let reset = Packet::parse(&rig.sides.local[0]).expect("a packet");
    assert_eq!((reset.source.to_string(), reset.ports()), ("203.0.113.10".to_owned(), (443, 40000)));
    assert_eq!(rig.machine.wfp.engine.events.to_vec()[0].remote, Some(elsewhere(false).ip()));
}

#[test]
fn data_that_is_not_applied_changes_nothing_and_what_is_not_permitted_is_blocked() {
    let mut rig = Rig::new();
    let permits = Arc::new(Mutex::new(true));
    let says = permits.clone();
    rig.callout(LayerId(66), move |call| {
        let writable = import!(
            FwpsAcquireWritableLayerDataPointer0(u64, u64, u32, *mut *mut c_void, *mut FwpsClassifyOut0) -> NtStatus
        );
        let handle = handle_of(call.context);
        let mut data = null_mut();
        // SAFETY: the handle was acquired and not released.
        unsafe {
            assert_eq!(writable(handle, 1, 0, &raw mut data, &raw mut *call.out), NtStatus::SUCCESS);
            write_address(data.cast::<u8>().add(128), elsewhere(false));
        }
        if *says.lock() {
            call.permit();
        }
        release(handle);
    });
    let packet = udp(false, Outbound, b"x");
    rig.out(&packet);
    assert_eq!(rig.sides.remote, [packet]);
    *permits.lock() = false;
    assert_eq!(rig.pass(Outbound, &tcp(false, Outbound, "S", 100, 0, b"")).verdict, Verdict::Refuse);
}

#[test]
fn a_large_datagram_is_redirected_in_one_piece() {
    let mut rig = Rig::new();
    redirects(&mut rig, 66, 128, elsewhere(false));
    let whole = udp(false, Outbound, &[7; 2000]);
    for piece in cut::cut(&whole, 1480, 9) {
        rig.out(&piece);
    }
    assert_eq!(rig.sides.remote.len(), 1);
    let (sent, right) = (&rig.sides.remote[0], between(&whole, None, Some(elsewhere(false))));
    assert_eq!(sent[20..], right[20..], "behind the IP header, the checksum too");
}

/// How a request that was pended is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completes {
    Permits,
    Blocks,
    AsksAgain,
}

#[test]
fn a_connect_that_is_pended_at_the_redirect_layer_waits_for_its_completion() {
    for stream in [false, true] {
        for how in [Completes::Permits, Completes::Blocks, Completes::AsksAgain] {
            let mut rig = Rig::new();
            let kept: Arc<Mutex<Vec<u64>>> = Arc::default();
            let keep = kept.clone();
            rig.callout(LayerId(66), move |call| {
                let pend = import!(FwpsPendClassify0(u64, u64, u32, *mut FwpsClassifyOut0) -> NtStatus);
                if !keep.lock().is_empty() {
                    return call.permit();
                }
                let handle = handle_of(call.context);
                // SAFETY: the handle is held, and `out` is the classifyOut of this call.
                assert_eq!(unsafe { pend(handle, 1, 0, &raw mut *call.out) }, NtStatus::SUCCESS);
                keep.lock().push(handle);
            });
            let packet = match stream {
                true => tcp(false, Outbound, "S", 100, 0, b""),
                false => udp(false, Outbound, b"question"),
            };
            assert_eq!(rig.pass(Outbound, &packet).verdict, Verdict::Hold);
            assert_eq!(rig.pass(Outbound, &packet).verdict, Verdict::Hold);
            assert!(rig.sides.remote.is_empty());
            let handle = kept.lock()[0];
            rig.run(|| complete(handle, how));
            rig.serve();
            match how {
                Completes::Permits => assert_eq!(rig.sides.remote, [between(&packet, None, Some(elsewhere(false)))]),
                Completes::AsksAgain => assert_eq!(rig.sides.remote, [packet]),
                Completes::Blocks => {
                    assert!(rig.sides.remote.is_empty());
                    assert_eq!(rig.sides.local.len(), 1, "the program gets an answer");
                }
            }
            assert_eq!(rig.carrier.stack().held_count(), 0);
            assert_eq!(rig.machine.wfp.leaks(), [("registered callouts", 1)]);
        }
    }
}

fn complete(handle: u64, how: Completes) {
    let complete = import!(FwpsCompleteClassify0(u64, u32, *const FwpsClassifyOut0));
    let mut out = FwpsClassifyOut0 { rights: consts::FWPS_RIGHT_ACTION_WRITE, ..FwpsClassifyOut0::default() };
    out.action_type = match how {
        Completes::Blocks => consts::FWP_ACTION_BLOCK,
        _ => consts::FWP_ACTION_PERMIT,
    };
    if how == Completes::Permits {
        change(handle, 128, elsewhere(false), null_mut());
    }
    let out = if how == Completes::AsksAgain { core::ptr::null() } else { &raw const out };
    // SAFETY: the handle is that of a pended request.
    unsafe { complete(handle, 0, out) };
    release(handle);
}

#[test]
fn nobody_is_asked_at_a_redirect_layer_about_what_comes_in() {
    let mut rig = Rig::new();
    let calls: Arc<Mutex<u32>> = Arc::default();
    for layer in [66, 68] {
        let count = calls.clone();
        rig.callout(LayerId(layer), move |_| *count.lock() += 1);
    }
    rig.pass(Direction::Inbound, &tcp(false, Inbound, "S", 100, 0, b""));
    rig.pass(Direction::Inbound, &udp(false, Inbound, b"x"));
    assert_eq!(*calls.lock(), 0);
    rig.out(&tcp(false, Outbound, "S", 100, 0, b""));
    assert_eq!(*calls.lock(), 2);
}
