//! Pended operations, redirects and injections.

use super::rig::{Rig, notify_ok};
use crate::cpu;
use crate::fwpkclnt::inject::{Injection, InjectionPath, InjectionRequest, InjectionState};
use crate::fwpkclnt::pend::Decision;
use crate::fwpkclnt::stack::Stack;
use core::ffi::c_void;
use core::ptr::null_mut;
use filter_engine::bfe::FilterContext;
use filter_engine::error::{FWP_INJECT_HANDLE_STALE, FWP_TCPIP_NOT_READY};
use filter_engine::layers::LayerId;
use filter_engine::{Classify, LayerData, Outcome, Verdict};
use nt_abi::NetBufferList;
use nt_abi::NtStatus;
use nt_abi::fwp::RedirectRequest;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsConnectRequest0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0,
    SockaddrStorage,
};
use parking_lot::Mutex;
use std::sync::Arc;

const REDIRECT: LayerId = LayerId::ALE_CONNECT_REDIRECT_V4;

/// The token, the decision and the redirect target of a completed classification.
type Completed = (u64, Option<Decision>, Option<u32>);

/// A stack that records its calls.
#[derive(Default)]
struct Recorder {
    #[expect(clippy::vec_box, reason = "kept as the stack gets them")]
    injected: Mutex<Vec<Box<Injection>>>,
    operations: Mutex<Vec<u64>>,
    classifies: Mutex<Vec<Completed>>,
}

struct Recording(Arc<Recorder>);

impl Stack for Recording {
    fn inject(&self, injection: Box<Injection>) -> Result<(), (NtStatus, Box<Injection>)> {
        self.0.injected.lock().push(injection);
        Ok(())
    }

    fn complete_operation(&self, token: u64, _packet: *mut NetBufferList) {
        self.0.operations.lock().push(token);
    }

    fn complete_classify(&self, token: u64, decision: Option<Decision>, redirect: Option<Box<RedirectRequest>>) {
        self.0.classifies.lock().push((token, decision, redirect.map(|redirect| target(&redirect))));
    }
}

fn recorder(rig: &Rig) -> Arc<Recorder> {
    let recorder = Arc::new(Recorder::default());
    rig.machine.wfp.set_stack(Box::new(Recording(recorder.clone())));
    recorder
}

/// The redirect target's process id, the only member that the tests change.
fn target(request: &RedirectRequest) -> u32 {
    match request {
        RedirectRequest::Connect(connect) => connect.local_redirect_target_pid,
        RedirectRequest::Bind(_) => panic!("a bind"),
    }
}

fn connect_request(pid: u32) -> Box<RedirectRequest> {
    Box::new(RedirectRequest::Connect(FwpsConnectRequest0 {
        local_address_and_port: SockaddrStorage([0; 128]),
        remote_address_and_port: SockaddrStorage([7; 128]),
        port_reservation_token: 0,
        local_redirect_target_pid: pid,
        previous_version: null_mut(),
        modifier_filter_id: 0,
        local_redirect_handle: null_mut(),
        local_redirect_context: null_mut(),
        local_redirect_context_size: 0,
    }))
}

/// What the redirecting callout does; its filter's context points to it.
#[derive(Default)]
struct Plan {
    set_pid: Option<u32>,
    apply: bool,
    pend: bool,
    handle: Mutex<u64>,
    answers: Mutex<Vec<NtStatus>>,
}

unsafe extern "win64" fn redirects(
    _fixed: *const FwpsIncomingValues0,
    _metadata: *const FwpsIncomingMetadataValues0,
    _layer_data: *mut c_void,
    context: *const c_void,
    filter: *const FwpsFilter0,
    _flow_context: u64,
    out: *mut FwpsClassifyOut0,
) {
    cpu::with_machine(|machine| {
        let handles = &machine.wfp.classify_handles;
        // SAFETY: the engine passes valid structures, and the filter's context is a plan that the test keeps alive.
        unsafe {
            let plan = &*((*filter).context as *const Plan);
            let handle = handles.acquire(context).expect("the context of this call");
            if let Some(pid) = plan.set_pid {
                let data = handles.writable(handle, (*filter).filter_id, out.as_mut()).expect("a redirect layer");
                let request = data.cast::<FwpsConnectRequest0>();
                assert_eq!((*request).modifier_filter_id, (*filter).filter_id);
                (*request).local_redirect_target_pid += pid;
                if plan.apply {
                    assert!(handles.apply(handle, data));
                    assert!(!handles.apply(handle, data), "once");
                }
                (*out).action_type = FWP_ACTION_PERMIT;
            }
            if plan.pend {
                plan.answers.lock().push(handles.pend(handle, out.as_mut()));
                *plan.handle.lock() = handle;
            }
            assert!(handles.release(handle));
        }
    });
}

fn redirecting(rig: &Rig, layer: LayerId, plans: &[&Plan]) {
    let session = rig.session();
    let key = rig.key();
    let raw = FwpsCallout0 {
        callout_key: key.into(),
        flags: 0,
        classify_fn: redirects as *const c_void,
        notify_fn: notify_ok as *const c_void,
        flow_delete_fn: core::ptr::null(),
    };
    rig.register(&raw).expect("good");
    rig.add_callout(&session, key, layer);
    for (i, plan) in plans.iter().enumerate() {
        let mut filter = rig.filter(FWP_ACTION_CALLOUT_UNKNOWN);
        (filter.layer, filter.action_key) = (rig.layer_key(layer), key);
        filter.sublayer = rig.sublayer(&session, 100 - i as u16);
        filter.context = FilterContext::Raw(std::ptr::from_ref(*plan) as u64);
        rig.add(&session, filter);
    }
}

fn ask(rig: &Rig, layer: LayerId, token: u64) -> Outcome {
    let metadata = FwpsIncomingMetadataValues0::default();
    let layer_data = LayerData::None;
    let c = Classify { layer, values: &[], metadata: &metadata, layer_data, flow: None, request: None };
    rig.run(|| rig.machine.wfp.classify(&c, token, Some(connect_request(1000))))
}

#[test]
fn a_redirect_is_what_was_applied_last() {
    let rig = Rig::new();
    let first = Plan { set_pid: Some(1), apply: true, ..Plan::default() };
    let second = Plan { set_pid: Some(10), apply: true, ..Plan::default() };
    redirecting(&rig, REDIRECT, &[&first, &second]);
    let outcome = ask(&rig, REDIRECT, 1);
    assert_eq!(outcome.redirect.as_deref().map(target), Some(1011), "the second builds on the first");
    let forgotten = Rig::new();
    let unapplied = Plan { set_pid: Some(1), ..Plan::default() };
    redirecting(&forgotten, REDIRECT, &[&unapplied]);
    assert!(ask(&forgotten, REDIRECT, 1).redirect.is_none(), "what is not applied does not count");
    assert_eq!(rig.machine.wfp.leaks(), [("registered callouts", 1)], "every handle is released");
}

#[test]
fn a_classification_is_pended_and_completed_with_a_decision_or_anew() {
    for (decision, expected) in
        [(Some((FWP_ACTION_PERMIT, 0)), Some(Decision { action: FWP_ACTION_PERMIT, soft: false })), (None, None)]
    {
        let rig = Rig::new();
        let stack = recorder(&rig);
        let plan = Plan { set_pid: Some(5), apply: true, pend: true, ..Plan::default() };
        redirecting(&rig, REDIRECT, &[&plan]);
        let outcome = ask(&rig, REDIRECT, 77);
        assert_eq!((outcome.pended, outcome.verdict, outcome.absorb), (true, Verdict::Block, true));
        assert_eq!(rig.machine.wfp.engine.events.to_vec().len(), 0, "a pended request is not a drop");
        assert_eq!(*plan.answers.lock(), [NtStatus::SUCCESS]);
        let handle = *plan.handle.lock();
        let out = decision.map(|(action_type, rights)| FwpsClassifyOut0 {
            action_type,
            rights,
            ..FwpsClassifyOut0::default()
        });
        let completed = rig.run(|| rig.machine.wfp.classify_handles.complete(handle));
        let (token, redirect) = completed.expect("it was pended");
        assert_eq!((token, redirect.as_deref().map(target)), (77, Some(1005)));
        let decided = out.map(|out| Decision { action: out.action_type, soft: out.rights != 0 });
        rig.machine.wfp.stack.load().complete_classify(token, decided, redirect);
        assert_eq!(*stack.classifies.lock(), [(77, expected, Some(1005))]);
        assert!(rig.machine.wfp.classify_handles.complete(handle).is_none(), "once");
        assert_eq!(rig.machine.wfp.leaks(), [("registered callouts", 1)]);
    }
}

#[test]
fn classification_cannot_be_pended_at_other_layers() {
    let rig = Rig::new();
    let plan = Plan { pend: true, ..Plan::default() };
    redirecting(&rig, LayerId::ALE_AUTH_CONNECT_V4, &[&plan]);
    let outcome = ask(&rig, LayerId::ALE_AUTH_CONNECT_V4, 1);
    assert_eq!(*plan.answers.lock(), [NtStatus::FWP_CANNOT_PEND]);
    assert_eq!((outcome.pended, outcome.decided), (false, false));
}

#[test]
fn an_operation_is_pended_once_and_completed_once() {
    let rig = Rig::new();
    let operations = &rig.machine.wfp.operations;
    let handle = operations.offer(42, false);
    assert!(operations.complete(handle).is_none(), "it is not pended yet");
    assert_eq!(operations.pend(handle), NtStatus::SUCCESS);
    assert_eq!(operations.pend(handle), NtStatus::FWP_CANNOT_PEND);
    assert!(operations.settle(handle));
    assert_eq!(rig.machine.wfp.leaks(), [("pended operations", 1)]);
    assert_eq!(operations.complete(handle), Some(42));
    assert_eq!(operations.complete(handle), None);
    let left = operations.offer(43, false);
    assert!(!operations.settle(left));
    assert_eq!(operations.pend(left), NtStatus::FWP_NULL_POINTER, "the offer is over");
    let again = operations.offer(44, true);
    assert_eq!(operations.pend(again), NtStatus::FWP_CANNOT_PEND, "a reauthorization cannot be pended");
}

/// A completion function that writes the list's status where its context points.
unsafe extern "win64" fn completed(context: *mut c_void, list: *mut NetBufferList, _dispatch: u8) {
    // SAFETY: the context is the test's; the list is alive until this returns.
    unsafe { (*context.cast::<Mutex<Vec<i32>>>()).lock().push((*list).status) };
}

fn request(
    handle: u64,
    injection_context: u64,
    path: InjectionPath,
    list: *mut NetBufferList,
    context: *mut c_void,
) -> InjectionRequest {
    InjectionRequest { handle, injection_context, path, list, completion: Some(completed), context }
}

fn empty_list() -> Box<NetBufferList> {
    // SAFETY: a list is made of integers and raw pointers, of which zero is a value.
    Box::new(unsafe { core::mem::zeroed() })
}

#[test]
fn a_packet_knows_who_injected_it() {
    let rig = Rig::new();
    let stack = recorder(&rig);
    let injections = &rig.machine.wfp.injections;
    let network = |family| injections.create(family, FWPS_INJECTION_TYPE_NETWORK).expect("good");
    let (one, two, three) = (network(2), network(2), network(2));
    let done: Mutex<Vec<i32>> = Mutex::default();
    let context: *mut c_void = (&raw const done).cast_mut().cast();
    let path = InjectionPath::NetworkSend { compartment: 1 };
    let inject = |handle, own: u64, list: &mut NetBufferList| {
        let load = rig.machine.wfp.stack.load();
        // SAFETY: the list outlives the injection, which is completed below.
        rig.run(|| unsafe { injections.inject(&***load, request(handle, own, path.clone(), list, context)) })
    };
    // SAFETY: the lists are alive.
    let state = |handle, list: &NetBufferList| unsafe { injections.state(handle, list) };

    let mut first = empty_list();
    assert_eq!(state(one, &first), (InjectionState::NotInjected, 0));
    assert_eq!(inject(one, 0xA, &mut first), NtStatus::SUCCESS);
    let injection = stack.injected.lock().pop().expect("it came through");
    // The stack carries the packet on in its own list, which callouts see.
    let indicated = empty_list();
    injections.mark(&*indicated, injection.mark());
    assert_eq!(state(one, &indicated), (InjectionState::InjectedBySelf, 0xA));
    assert_eq!(state(two, &indicated), (InjectionState::InjectedByOther, 0));

    // The second callout clones the packet and injects the clone.
    let mut clone = empty_list();
    clone.parent_net_buffer_list = (&raw const *indicated).cast_mut();
    assert_eq!(inject(two, 0xB, &mut clone), NtStatus::SUCCESS);
    let second = stack.injected.lock().pop().expect("it came through");
    let again = empty_list();
    injections.mark(&*again, second.mark());
    assert_eq!(state(one, &again), (InjectionState::PreviouslyInjectedBySelf, 0xA));
    assert_eq!(state(two, &again), (InjectionState::InjectedBySelf, 0xB));
    assert_eq!(state(three, &again), (InjectionState::InjectedByOther, 0));
    injections.unmark(&*again);
    assert_eq!(state(two, &again), (InjectionState::NotInjected, 0));

    rig.run(|| {
        injection.complete(NtStatus::SUCCESS);
        second.complete(NtStatus::UNSUCCESSFUL);
    });
    assert_eq!(*done.lock(), [NtStatus::SUCCESS.0, NtStatus::UNSUCCESSFUL.0]);
    for handle in [one, two, three] {
        assert_eq!(rig.run(|| injections.destroy(handle)), NtStatus::SUCCESS);
        assert_eq!(rig.run(|| injections.destroy(handle)), NtStatus::INVALID_HANDLE);
    }
}

#[test]
fn destroying_a_handle_waits_for_what_was_injected_with_it() {
    let rig = Rig::new();
    let stack = recorder(&rig);
    let injections = &rig.machine.wfp.injections;
    let handle = injections.create(2, FWPS_INJECTION_TYPE_NETWORK).expect("good");
    let done: Mutex<Vec<i32>> = Mutex::default();
    let context: *mut c_void = (&raw const done).cast_mut().cast();
    let mut list = empty_list();
    let list_pointer: *mut NetBufferList = &mut *list;
    let path = InjectionPath::NetworkSend { compartment: 1 };
    let load = rig.machine.wfp.stack.load();
    // SAFETY: the list outlives the injection, which is completed below.
    let status = rig.run(|| unsafe { injections.inject(&***load, request(handle, 0, path, list_pointer, context)) });
    assert_eq!(status, NtStatus::SUCCESS);
    std::thread::scope(|scope| {
        let destroyer = scope.spawn(|| rig.run(|| injections.destroy(handle)));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!destroyer.is_finished());
        let injection = stack.injected.lock().pop().expect("it came through");
        rig.run(|| injection.complete(NtStatus::SUCCESS));
        assert_eq!(destroyer.join().expect("no panic"), NtStatus::SUCCESS);
    });
    assert_eq!(done.lock().len(), 1);
}

#[test]
fn injection_is_refused_with_the_wrong_handle_or_without_a_stack() {
    let rig = Rig::new();
    let injections = &rig.machine.wfp.injections;
    assert_eq!(injections.create(0, FWPS_INJECTION_TYPE_NETWORK), Err(NtStatus::INVALID_PARAMETER), "which family?");
    assert_eq!(injections.create(2, 0x8000), Err(NtStatus::INVALID_PARAMETER));
    let transport = injections.create(0, 0).expect("zero means transport, stream and forward");
    let done: Mutex<Vec<i32>> = Mutex::default();
    let context: *mut c_void = (&raw const done).cast_mut().cast();
    let mut list = empty_list();
    let list_pointer: *mut NetBufferList = &mut *list;
    let load = rig.machine.wfp.stack.load();
    let inject = |handle, path| {
        // SAFETY: the injections are refused, so the list stays ours.
        rig.run(|| unsafe { injections.inject(&***load, request(handle, 0, path, list_pointer, context)) })
    };
    let network = InjectionPath::NetworkSend { compartment: 1 };
    let forward = InjectionPath::Forward { family: 2, compartment: 1, interface: 1 };
    assert_eq!(inject(transport, network.clone()), FWP_INJECT_HANDLE_STALE);
    assert_eq!(inject(12345, network), FWP_INJECT_HANDLE_STALE);
    assert_eq!(inject(transport, forward), FWP_TCPIP_NOT_READY, "there is no stack");
    assert_eq!(done.lock().len(), 0, "the completion function is not called for a failed injection");
    assert_eq!(rig.run(|| injections.destroy(transport)), NtStatus::SUCCESS, "nothing is pending");
}
