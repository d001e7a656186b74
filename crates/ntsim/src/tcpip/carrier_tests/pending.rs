//! Operations that callouts pend.

use super::rig::*;
use super::transport::server;
use crate::cpu;
use core::ffi::c_void;
use core::ptr::null_mut;
use filter_engine::layers::LayerId;
use nt_abi::Irql;
use nt_abi::NetBufferList;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::FWPS_PACKET_INJECTED_BY_SELF as BY_SELF;
use parking_lot::Mutex;
use shim::classifier::{REASON_COMPLETION, condition_flag};
use shim::layer::Direction::{Inbound, Outbound};
use shim::stack::Verdict;
use std::sync::Arc;

/// What a callout that pends everything has seen.
#[derive(Default)]
struct Pends {
    /// Completion contexts of operations under way.
    contexts: Mutex<Vec<usize>>,
    /// Flags and reason of each call.
    calls: Mutex<Vec<(u32, u32)>>,
    /// What FwpsPendOperation0 returned during a reauthorization.
    again: Mutex<Vec<NtStatus>>,
    /// Clones of the packets, with their endpoints.
    clones: Mutex<Vec<(usize, u64)>>,
}

/// Pends the first authorization at a layer, and answers the second with `permit`.
fn pends_at(rig: &mut Rig, layer: u16, permit: bool, injector: Option<Arc<Injector>>) -> Arc<Pends> {
    let pends: Arc<Pends> = Arc::default();
    let seen = pends.clone();
    rig.callout(LayerId(layer), move |call| {
        seen.calls.lock().push((call.flags & condition_flag::IS_REAUTHORIZE, call.reason));
        let injected = injector.as_ref().is_some_and(|by| by.state(call.list()).0 == BY_SELF);
        let pend = import!(FwpsPendOperation0(*mut c_void, *mut *mut c_void) -> NtStatus);
        let mut context = null_mut();
        // SAFETY: the completion handle of this call.
        let status = unsafe { pend(call.metadata.completion_handle, &raw mut context) };
        if call.flags & condition_flag::IS_REAUTHORIZE != 0 {
            seen.again.lock().push(status);
            return if permit { call.permit() } else { call.block() };
        }
        assert_eq!(status, NtStatus::SUCCESS);
        assert!(!injected);
        seen.contexts.lock().push(context.addr());
        if !call.layer_data.is_null() && injector.is_some() {
            let headers = match layer {
                44 | 46 => call.metadata.ip_header_size + call.metadata.transport_header_size,
                _ => 0,
            };
            let clone = retreated(call.list(), headers, || Injector::clone_of(call.list()));
            seen.clones.lock().push((clone.addr(), call.metadata.transport_endpoint_handle));
        }
        call.absorb();
    });
    pends
}

impl Pends {
    /// Completes the operation that was pended last.
    fn complete(&self) {
        let complete = import!(FwpsCompleteOperation0(*mut c_void, *mut NetBufferList));
        let context = self.contexts.lock().pop().expect("an operation that was pended");
        // SAFETY: the context of a pended operation.
        unsafe { complete(context as *mut c_void, null_mut()) };
    }
}

#[test]
fn a_connect_that_was_put_off_goes_on_when_it_is_completed() {
    for v6 in [false, true] {
        let mut rig = Rig::new();
        let pends = pends_at(&mut rig, if v6 { 50 } else { 48 }, true, None);
        let syn = tcp(v6, Outbound, "S", 100, 0, b"");
        assert_eq!(rig.pass(Outbound, &syn).verdict, Verdict::Hold);
        assert_eq!(rig.pass(Outbound, &syn).verdict, Verdict::Hold, "sent again, without another call");
        rig.serve();
        assert!(rig.sides.remote.is_empty() && rig.sides.local.is_empty());
        assert_eq!(pends.calls.lock().len(), 1);
        rig.run(|| pends.complete());
        rig.serve();
        assert_eq!(*pends.calls.lock(), [(0, 0), (condition_flag::IS_REAUTHORIZE, REASON_COMPLETION)]);
        assert_eq!(*pends.again.lock(), [NtStatus::FWP_CANNOT_PEND]);
        assert_eq!(rig.sides.remote, [syn]);
        rig.inward(&tcp(v6, Inbound, "SA", 500, 101, b""));
        assert_eq!(rig.machine.wfp.engine.flows.len(), 1, "established");
        assert_eq!(rig.machine.wfp.leaks(), [("registered callouts", 1)], "no operation is left");
    }
}

#[test]
fn an_operation_that_is_completed_before_the_callout_returns_goes_on_too() {
    for layer in [36, 48] {
        let mut rig = Rig::new();
        let calls: Arc<Mutex<u32>> = Arc::default();
        let count = calls.clone();
        rig.callout(LayerId(layer), move |call| {
            *count.lock() += 1;
            if call.flags & condition_flag::IS_REAUTHORIZE != 0 {
                return call.permit();
            }
            let pend = import!(FwpsPendOperation0(*mut c_void, *mut *mut c_void) -> NtStatus);
            let complete = import!(FwpsCompleteOperation0(*mut c_void, *mut NetBufferList));
            let mut context = null_mut();
            // SAFETY: the completion handle of this call, and the context that pending returned.
            unsafe {
                assert_eq!(pend(call.metadata.completion_handle, &raw mut context), NtStatus::SUCCESS);
                complete(context, null_mut());
            }
            call.absorb();
        });
        let syn = tcp(false, Outbound, "S", 100, 0, b"");
        assert_eq!(rig.pass(Outbound, &syn).verdict, Verdict::Hold);
        rig.serve();
        assert_eq!((*calls.lock(), &rig.sides.remote[..]), (2, &[syn][..]));
        assert_eq!(rig.machine.wfp.leaks(), [("registered callouts", 1)]);
    }
}

#[test]
fn a_connect_that_was_put_off_can_still_be_refused() {
    let mut rig = Rig::new();
    let pends = pends_at(&mut rig, 48, false, None);
    rig.out(&tcp(false, Outbound, "S", 100, 0, b""));
    rig.run(|| pends.complete());
    rig.serve();
    assert!(rig.sides.remote.is_empty());
    assert_eq!(rig.sides.local.len(), 1, "a reset");
    assert_eq!(rig.machine.wfp.engine.events.to_vec().len(), 1);
    // The next attempt is a new one.
    rig.out(&tcp(false, Outbound, "S", 900, 0, b""));
    assert_eq!(pends.calls.lock().len(), 3);
}

#[test]
fn completing_a_datagrams_flow_makes_a_state_entry_and_the_data_is_the_callouts() {
    let mut rig = Rig::new();
    let injector = Injector::transport(&rig);
    let pends = pends_at(&mut rig, 48, true, Some(injector.clone()));
    let established: Arc<Mutex<u32>> = Arc::default();
    let count = established.clone();
    rig.callout(LayerId(52), move |_| *count.lock() += 1);
    rig.out(&udp(false, Outbound, b"first"));
    rig.run(|| pends.complete());
    rig.serve();
    assert!(rig.sides.remote.is_empty(), "flushed");
    assert_eq!((*established.lock(), rig.machine.wfp.engine.flows.len()), (1, 1));
    let (clone, endpoint) = pends.clones.lock().pop().expect("the callout kept a clone");
    rig.run(|| injector.send_transport(clone as *mut NetBufferList, None, endpoint, server(false)));
    rig.serve();
    rig.out(&udp(false, Outbound, b"second"));
    assert_eq!(rig.sides.remote.len(), 2);
    assert!(rig.sides.remote[0].ends_with(b"first") && rig.sides.remote[1].ends_with(b"second"));
    assert_eq!(pends.calls.lock().len(), 2, "the flow is authorized");
    assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS]);
}

#[test]
fn a_bind_that_was_put_off_holds_what_comes_after_it() {
    let mut rig = Rig::new();
    let pends = pends_at(&mut rig, 36, true, None);
    let packet = udp(false, Outbound, b"question");
    assert_eq!(rig.pass(Outbound, &packet).verdict, Verdict::Hold);
    rig.run(|| pends.complete());
    rig.serve();
    assert_eq!(rig.sides.remote, [packet]);
    assert_eq!(rig.machine.wfp.engine.flows.len(), 1);
}

#[test]
fn an_accept_that_was_put_off_goes_on_with_the_packet_that_is_injected() {
    for v6 in [false, true] {
        for stream in [false, true] {
            let mut rig = Rig::new();
            let injector = Injector::transport(&rig);
            let pends = pends_at(&mut rig, if v6 { 46 } else { 44 }, true, Some(injector.clone()));
            let packet = match stream {
                true => tcp(v6, Inbound, "S", 100, 0, b""),
                false => udp(v6, Inbound, b"hello"),
            };
            rig.inward(&packet);
            rig.inward(&packet);
            assert!(rig.sides.local.is_empty());
            let (clone, _) = pends.clones.lock().pop().expect("the callout kept a clone");
            rig.run(|| {
                pends.complete();
                assert_eq!(injector.receive_transport(clone as *mut NetBufferList, v6), NtStatus::SUCCESS);
            });
            rig.serve();
            assert_eq!(rig.sides.local, [packet]);
            assert_eq!(*pends.calls.lock(), [(0, 0), (condition_flag::IS_REAUTHORIZE, REASON_COMPLETION)]);
            assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS]);
        }
    }
}

#[test]
fn whoever_pends_without_absorbing_has_not_put_it_off() {
    let mut rig = Rig::new();
    let context: Arc<Mutex<usize>> = Arc::default();
    let kept = context.clone();
    rig.callout(LayerId(48), move |call| {
        let pend = import!(FwpsPendOperation0(*mut c_void, *mut *mut c_void) -> NtStatus);
        let mut context = null_mut();
        // SAFETY: the completion handle of this call.
        assert_eq!(unsafe { pend(call.metadata.completion_handle, &raw mut context) }, NtStatus::SUCCESS);
        *kept.lock() = context.addr();
        call.permit();
    });
    let syn = tcp(false, Outbound, "S", 100, 0, b"");
    assert_eq!(rig.pass(Outbound, &syn).verdict, Verdict::Forward);
    let complete = import!(FwpsCompleteOperation0(*mut c_void, *mut NetBufferList));
    // SAFETY: the context of a pended operation.
    rig.run(|| unsafe { complete(*context.lock() as *mut c_void, null_mut()) });
    rig.serve();
    assert_eq!(rig.sides.remote, [syn], "once");
}

#[test]
fn a_machine_that_leaves_the_network_forgets_what_waits() {
    let mut rig = Rig::new();
    let pends = pends_at(&mut rig, 48, true, None);
    rig.out(&tcp(false, Outbound, "S", 100, 0, b""));
    rig.out(&udp(false, Outbound, b"x"));
    assert_eq!(rig.carrier.stack().held_count(), 2);
    let (sides, machine) = rig.finish();
    for _ in 0..2 {
        cpu::enter(&machine, Irql::PASSIVE, || pends.complete()).expect("no bugcheck");
    }
    assert!(sides.remote.is_empty());
    assert_eq!(machine.wfp.leaks(), [("registered callouts", 1)]);
}
