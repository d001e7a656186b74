//! Flow contexts: who may have one, who is told when it goes, and when.

use super::bed::{Bed, LAYER, Script};
use crate::wfp::bfe::Session;
use crate::wfp::engine::Verdict;
use crate::wfp::layers::LayerId;
use core::ffi::c_void;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0};
use parking_lot::Mutex;
use sluice_host::Guid;
use std::sync::Arc;

/// A flow context of the tests: flowDeleteFn writes down that it was called.
#[derive(Debug, Default)]
pub(super) struct Tracked(Mutex<Vec<(u16, u32)>>);

impl Tracked {
    fn deletions(&self) -> Vec<(u16, u32)> {
        self.0.lock().clone()
    }

    fn context(self: &Arc<Self>) -> u64 {
        Arc::as_ptr(self) as u64
    }
}

pub(super) unsafe extern "win64" fn flow_delete(layer: u16, callout_id: u32, context: u64) {
    // SAFETY: every flow context of these tests is a `Tracked` that the test keeps alive.
    unsafe { (*(context as *const Tracked)).0.lock().push((layer, callout_id)) };
}

/// A callout on the connect layer with a filter that permits, and its id.
fn callout(bed: &Bed, session: &Session, flags: u32, script: &Arc<Script>) -> (Guid, u32) {
    let key = bed.callout_at(session, LAYER, flags);
    let mut filter = bed.filter(FWP_ACTION_CALLOUT_TERMINATING);
    filter.action_key = key;
    filter.context = bed.script(script);
    bed.add(session, filter);
    (key, bed.machine.wfp.callouts.by_key(key).expect("registered").id())
}

#[test]
fn a_context_reaches_classify_and_its_deletion_the_driver() {
    let bed = Bed::new();
    let session = bed.session();
    let script = Script::says(FWP_ACTION_PERMIT);
    let (_, id) = callout(&bed, &session, 0, &script);
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    let tracked = Arc::new(Tracked::default());
    let slot = || wfp.callouts.by_id(id);
    assert_eq!(wfp.flows.associate(flow.id(), LAYER, slot(), tracked.context()), NtStatus::SUCCESS);
    bed.classify_flow(LAYER, Some(&flow));
    bed.classify_flow(LAYER, None);
    let contexts: Vec<u64> = script.seen.lock().iter().map(|seen| seen.flow_context).collect();
    assert_eq!(contexts, [tracked.context(), 0]);
    assert_eq!(tracked.deletions(), []);
    bed.run(|| wfp.flows.terminate(&flow));
    assert_eq!(tracked.deletions(), [(LAYER.0, id)]);
    assert_eq!((wfp.flows.len(), flow.context_count()), (0, 0));
    let late = wfp.flows.associate(flow.id(), LAYER, slot(), tracked.context());
    assert_eq!(late, NtStatus::INVALID_PARAMETER, "the flow has ended");
}

#[test]
fn association_has_its_documented_statuses() {
    let bed = Bed::new();
    let session = bed.session();
    let (_, id) = callout(&bed, &session, 0, &Script::silent());
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    let tracked = Arc::new(Tracked::default());
    let associate = |layer, id, context| wfp.flows.associate(flow.id(), layer, wfp.callouts.by_id(id), context);
    assert_eq!(associate(LAYER, id, 0), NtStatus::INVALID_PARAMETER, "a context of zero is none");
    assert_eq!(associate(LAYER, id + 1, 1), NtStatus::INVALID_PARAMETER, "no such callout");
    assert_eq!(associate(LAYER, id, tracked.context()), NtStatus::SUCCESS);
    assert_eq!(associate(LAYER, id, tracked.context()), NtStatus::OBJECT_NAME_EXISTS);
    let other = LayerId::STREAM_V4;
    assert_eq!(associate(other, id, tracked.context()), NtStatus::SUCCESS, "one per flow, layer and callout");

    let mute = bed.key();
    let mut raw = Bed::raw_callout(mute, 0);
    raw.flow_delete_fn = core::ptr::null();
    let mute = bed.register(&raw).expect("flowDeleteFn is optional");
    assert_eq!(associate(LAYER, mute, 1), NtStatus::INVALID_PARAMETER, "without flowDeleteFn there are no contexts");
    bed.run(|| wfp.flows.terminate(&flow));
    assert_eq!(tracked.deletions().len(), 2);
}

#[test]
fn removal_tells_the_driver_at_once_when_nobody_classifies() {
    let bed = Bed::new();
    let session = bed.session();
    let (_, id) = callout(&bed, &session, 0, &Script::silent());
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    let tracked = Arc::new(Tracked::default());
    wfp.flows.associate(flow.id(), LAYER, wfp.callouts.by_id(id), tracked.context());
    let remove = || bed.run(|| wfp.flows.remove(flow.id(), LAYER, id));
    assert_eq!(remove(), NtStatus::SUCCESS);
    assert_eq!(tracked.deletions(), [(LAYER.0, id)]);
    assert_eq!(remove(), NtStatus::UNSUCCESSFUL, "there is none any more");
}

/// Removes its own flow context from inside classifyFn, and writes the status where the filter's context says.
unsafe extern "win64" fn removes_itself(
    fixed: *const FwpsIncomingValues0,
    metadata: *const FwpsIncomingMetadataValues0,
    _layer_data: *mut c_void,
    _context: *const c_void,
    filter: *const FwpsFilter0,
    flow_context: u64,
    _out: *mut FwpsClassifyOut0,
) {
    crate::cpu::with_machine(|machine| {
        // SAFETY: the engine passes valid structures; the contexts are the test's, which outlive the call.
        unsafe {
            let (layer, callout_id) = (LayerId((*fixed).layer_id), (*filter).action.callout_id);
            let status = machine.wfp.flows.remove((*metadata).flow_handle, layer, callout_id);
            let tracked = &*(flow_context as *const Tracked);
            let answers = &*((*filter).context as *const Mutex<Vec<(NtStatus, usize)>>);
            answers.lock().push((status, tracked.deletions().len()));
        }
    });
}

#[test]
fn removal_is_pending_while_the_callout_classifies_on_the_flow() {
    let bed = Bed::new();
    let session = bed.session();
    let key = bed.key();
    let mut raw = Bed::raw_callout(key, 0);
    raw.classify_fn = removes_itself as *const c_void;
    let id = bed.register(&raw).expect("good");
    bed.add_callout(&session, key, LAYER);
    let answers: Mutex<Vec<(NtStatus, usize)>> = Mutex::default();
    let mut filter = bed.filter(FWP_ACTION_CALLOUT_INSPECTION);
    filter.action_key = key;
    filter.context = crate::wfp::bfe::FilterContext::Raw(&raw const answers as u64);
    bed.add(&session, filter);
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    let tracked = Arc::new(Tracked::default());
    wfp.flows.associate(flow.id(), LAYER, wfp.callouts.by_id(id), tracked.context());
    let metadata = FwpsIncomingMetadataValues0 { flow_handle: flow.id(), ..FwpsIncomingMetadataValues0::default() };
    let c = crate::wfp::engine::Classify {
        layer: LAYER,
        values: &[],
        metadata: &metadata,
        layer_data: core::ptr::null_mut(),
        flow: Some(&flow),
    };
    bed.run(|| crate::wfp::engine::classify(&bed.machine, &c));
    assert_eq!(*answers.lock(), [(NtStatus::PENDING, 0)]);
    assert_eq!(tracked.deletions(), [(LAYER.0, id)], "after classifyFn has returned");
    assert_eq!(flow.context_count(), 0);
}

#[test]
fn a_callout_conditional_on_flow_is_called_only_where_it_has_a_context() {
    let bed = Bed::new();
    let session = bed.session();
    let script = Script::says(FWP_ACTION_BLOCK);
    let (_, id) = callout(&bed, &session, FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW, &script);
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    assert_eq!(bed.classify_flow(LAYER, Some(&flow)).verdict, Verdict::Permit);
    assert_eq!(script.calls(), 0);
    let tracked = Arc::new(Tracked::default());
    wfp.flows.associate(flow.id(), LAYER, wfp.callouts.by_id(id), tracked.context());
    assert_eq!(bed.classify_flow(LAYER, Some(&flow)).verdict, Verdict::Block);
    bed.run(|| wfp.flows.terminate(&flow));
}

#[test]
fn unregistering_is_refused_while_flows_carry_contexts() {
    let bed = Bed::new();
    let session = bed.session();
    let (key, id) = callout(&bed, &session, 0, &Script::says(FWP_ACTION_PERMIT));
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    let tracked = Arc::new(Tracked::default());
    wfp.flows.associate(flow.id(), LAYER, wfp.callouts.by_id(id), tracked.context());
    let unregister = || wfp.callouts.unregister(wfp.callouts.by_key(key)).map_err(|error| error.status);
    assert_eq!(unregister(), Err(NtStatus::DEVICE_BUSY));
    assert_eq!(bed.classify().verdict, Verdict::Permit, "it is still registered");
    bed.run(|| wfp.flows.terminate(&flow));
    assert_eq!(unregister(), Ok(()));
    assert_eq!(unregister(), Err(NtStatus::FWP_CALLOUT_NOT_FOUND));
    assert_eq!(bed.classify().verdict, Verdict::Block, "an unregistered terminating callout blocks");
}

#[test]
fn flows_that_end_under_classification_delete_every_context_once() {
    let bed = Bed::new();
    let session = bed.session();
    let (_, id) = callout(&bed, &session, 0, &Script::says(FWP_ACTION_PERMIT));
    let wfp = &bed.machine.wfp;
    for _ in 0..200 {
        let flow = wfp.flows.create();
        let tracked = Arc::new(Tracked::default());
        wfp.flows.associate(flow.id(), LAYER, wfp.callouts.by_id(id), tracked.context());
        std::thread::scope(|scope| {
            let classifier = scope.spawn(|| {
                for _ in 0..50 {
                    bed.classify_flow(LAYER, Some(&flow));
                }
            });
            bed.run(|| wfp.flows.terminate(&flow));
            classifier.join().expect("no panic");
        });
        assert_eq!(tracked.deletions(), [(LAYER.0, id)]);
    }
    assert_eq!(wfp.callouts.by_id(id).expect("registered").flow_contexts(), 0);
}

#[test]
fn a_flow_carries_many_contexts_and_says_when_it_is_full() {
    let bed = Bed::new();
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    let tracked = Arc::new(Tracked::default());
    let ids: Vec<u32> = (0..25).map(|_| bed.register(&Bed::raw_callout(bed.key(), 0)).expect("new")).collect();
    let associate = |id: u32| wfp.flows.associate(flow.id(), LAYER, wfp.callouts.by_id(id), tracked.context());
    assert!(ids[..24].iter().all(|id| associate(*id) == NtStatus::SUCCESS));
    assert_eq!(associate(ids[24]), NtStatus::INSUFFICIENT_RESOURCES);
    assert_eq!(bed.run(|| wfp.flows.remove(flow.id(), LAYER, ids[7])), NtStatus::SUCCESS);
    assert_eq!(associate(ids[24]), NtStatus::SUCCESS, "the room is used again");
    bed.run(|| wfp.flows.terminate(&flow));
    let mut deleted: Vec<u32> = tracked.deletions().iter().map(|(_, id)| *id).collect();
    deleted.sort_unstable();
    assert_eq!(deleted, ids);
}

#[test]
fn contexts_that_come_and_go_under_classification_are_never_mixed_up() {
    /// A context that knows whether it is still associated.
    struct Live(std::sync::atomic::AtomicBool);
    static LATE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    use std::sync::atomic::Ordering::SeqCst;
    unsafe extern "win64" fn deleted(_: u16, _: u32, context: u64) {
        // SAFETY: every context of this test is a leaked `Live`.
        unsafe { (*(context as *const Live)).0.store(false, SeqCst) };
    }
    unsafe extern "win64" fn uses(
        _: *const FwpsIncomingValues0,
        _: *const FwpsIncomingMetadataValues0,
        _: *mut c_void,
        _: *const c_void,
        _: *const FwpsFilter0,
        flow_context: u64,
        _: *mut FwpsClassifyOut0,
    ) {
        // SAFETY: as above; 0 is no context.
        if let Some(live) = unsafe { (flow_context as *const Live).as_ref() } {
            for _ in 0..10 {
                LATE.fetch_add(u64::from(!live.0.load(SeqCst)), SeqCst);
            }
        }
    }
    let bed = Bed::new();
    let session = bed.session();
    let key = bed.key();
    let mut raw = Bed::raw_callout(key, 0);
    raw.classify_fn = uses as *const c_void;
    raw.flow_delete_fn = deleted as *const c_void;
    let id = bed.register(&raw).expect("new");
    bed.add_callout(&session, key, LAYER);
    let mut filter = bed.filter(FWP_ACTION_CALLOUT_INSPECTION);
    filter.action_key = key;
    bed.add(&session, filter);
    let wfp = &bed.machine.wfp;
    let flow = wfp.flows.create();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let metadata = FwpsIncomingMetadataValues0::default();
                let c = crate::wfp::engine::Classify {
                    layer: LAYER,
                    values: &[],
                    metadata: &metadata,
                    layer_data: core::ptr::null_mut(),
                    flow: Some(&flow),
                };
                bed.run(|| {
                    while !stop.load(SeqCst) {
                        crate::wfp::engine::classify(&bed.machine, &c);
                    }
                });
            });
        }
        for _ in 0..3000 {
            let live = Box::leak(Box::new(Live(std::sync::atomic::AtomicBool::new(true))));
            let context = std::ptr::from_ref(live) as u64;
            assert_eq!(wfp.flows.associate(flow.id(), LAYER, wfp.callouts.by_id(id), context), NtStatus::SUCCESS);
            match bed.run(|| wfp.flows.remove(flow.id(), LAYER, id)) {
                NtStatus::SUCCESS => assert!(!live.0.load(SeqCst)),
                status => {
                    assert_eq!(status, NtStatus::PENDING);
                    while live.0.load(SeqCst) {
                        std::thread::yield_now();
                    }
                }
            }
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(LATE.load(SeqCst), 0);
    bed.run(|| wfp.flows.terminate(&flow));
    assert_eq!((flow.context_count(), wfp.callouts.by_id(id).expect("registered").flow_contexts()), (0, 0));
}
