//! Flow contexts: who may have one, who is told when it goes, and when.

use super::rig::{Functions, LAYER, Rig, Script};
use crate::bfe::Session;
use crate::callout::ClassifyCall;
use crate::flow::Flow;
use crate::layers::LayerId;
use crate::offload::{Offload, Refusal};
use crate::{Classify, LayerData, Verdict};
use nt_abi::NtStatus;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{FwpsClassifyOut0, FwpsIncomingMetadataValues0};
use parking_lot::Mutex;
use sluice_host::Guid;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Weak};

/// An indication at [`LAYER`] without values.
fn indication<'a>(metadata: &'a FwpsIncomingMetadataValues0, flow: &'a Arc<Flow>) -> Classify<'a> {
    let layer_data = LayerData::None;
    Classify { layer: LAYER, values: &[], metadata, layer_data, flow: Some(flow), request: None }
}

/// A flow context of the tests: flowDeleteFn writes down that it was called.
#[derive(Debug, Default)]
pub(super) struct Tracked(Mutex<Vec<(u16, u32)>>);

impl Tracked {
    fn deletions(&self) -> Vec<(u16, u32)> {
        self.0.lock().clone()
    }

    fn context(self: &Arc<Self>) -> u64 {
        let context = Arc::as_ptr(self).addr() as u64;
        ALL.lock().insert(context, Arc::downgrade(self));
        context
    }
}

/// Where contexts lead.
static ALL: LazyLock<Mutex<HashMap<u64, Weak<Tracked>>>> = LazyLock::new(Mutex::default);

fn tracked(context: u64) -> Arc<Tracked> {
    ALL.lock().get(&context).and_then(Weak::upgrade).expect("the test keeps its contexts")
}

/// flowDeleteFn.
pub(super) fn deleted(layer: LayerId, callout_id: u32, context: u64) {
    tracked(context).0.lock().push((layer.0, callout_id));
}

/// A callout on the connect layer with a filter that permits, and its id.
fn callout(rig: &Rig, session: &Session, flags: u32, script: &Arc<Script>) -> (Guid, u32) {
    let key = rig.callout_at(session, LAYER, flags);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_TERMINATING);
    filter.action_key = key;
    filter.context = rig.script(script);
    rig.add(session, filter);
    (key, rig.engine.callouts.by_key(key).expect("registered").id())
}

#[test]
fn a_context_reaches_classify_and_its_deletion_the_driver() {
    let rig = Rig::new();
    let session = rig.session();
    let script = Script::says(FWP_ACTION_PERMIT);
    let (_, id) = callout(&rig, &session, 0, &script);
    let engine = &rig.engine;
    let flow = engine.flows.create();
    let tracked = Arc::new(Tracked::default());
    let slot = || engine.callouts.by_id(id);
    assert_eq!(engine.flows.associate(flow.id(), LAYER, slot(), tracked.context()), NtStatus::SUCCESS);
    rig.classify_flow(LAYER, Some(&flow));
    rig.classify_flow(LAYER, None);
    let contexts: Vec<u64> = script.seen.lock().iter().map(|seen| seen.flow_context).collect();
    assert_eq!(contexts, [tracked.context(), 0]);
    assert_eq!(tracked.deletions(), []);
    engine.flows.terminate(&flow);
    assert_eq!(tracked.deletions(), [(LAYER.0, id)]);
    assert_eq!((engine.flows.len(), flow.context_count()), (0, 0));
    let late = engine.flows.associate(flow.id(), LAYER, slot(), tracked.context());
    assert_eq!(late, NtStatus::INVALID_PARAMETER, "the flow has ended");
}

#[test]
fn association_has_its_documented_statuses() {
    let rig = Rig::new();
    let session = rig.session();
    let (_, id) = callout(&rig, &session, 0, &Script::silent());
    let engine = &rig.engine;
    let flow = engine.flows.create();
    let tracked = Arc::new(Tracked::default());
    let associate = |layer, id, context| engine.flows.associate(flow.id(), layer, engine.callouts.by_id(id), context);
    assert_eq!(associate(LAYER, id, 0), NtStatus::INVALID_PARAMETER, "a context of zero is none");
    assert_eq!(associate(LAYER, id + 1, 1), NtStatus::INVALID_PARAMETER, "no such callout");
    assert_eq!(associate(LAYER, id, tracked.context()), NtStatus::SUCCESS);
    assert_eq!(associate(LAYER, id, tracked.context()), NtStatus::OBJECT_NAME_EXISTS);
    let other = LayerId::STREAM_V4;
    assert_eq!(associate(other, id, tracked.context()), NtStatus::SUCCESS, "one per flow, layer and callout");

    let mute = rig.key();
    let functions = Functions { deleted: None, ..rig.functions() };
    let mute = rig.register(mute, 0, functions).expect("flowDeleteFn is optional");
    assert_eq!(associate(LAYER, mute, 1), NtStatus::INVALID_PARAMETER, "without flowDeleteFn there are no contexts");
    engine.flows.terminate(&flow);
    assert_eq!(tracked.deletions().len(), 2);
}

#[test]
fn removal_tells_the_driver_at_once_when_nobody_classifies() {
    let rig = Rig::new();
    let session = rig.session();
    let (_, id) = callout(&rig, &session, 0, &Script::silent());
    let engine = &rig.engine;
    let flow = engine.flows.create();
    let tracked = Arc::new(Tracked::default());
    engine.flows.associate(flow.id(), LAYER, engine.callouts.by_id(id), tracked.context());
    let remove = || engine.flows.remove(flow.id(), LAYER, id);
    assert_eq!(remove(), NtStatus::SUCCESS);
    assert_eq!(tracked.deletions(), [(LAYER.0, id)]);
    assert_eq!(remove(), NtStatus::UNSUCCESSFUL, "there is none any more");
}

#[test]
fn removal_is_pending_while_the_callout_classifies_on_the_flow() {
    let rig = Rig::new();
    let session = rig.session();
    let key = rig.key();
    let answers: Arc<Mutex<Vec<(NtStatus, usize)>>> = Arc::default();
    // Removes its own flow context from inside classifyFn, and writes the status down.
    let removes_itself = {
        let (engine, answers) = (rig.engine.clone(), answers.clone());
        move |call: &ClassifyCall<'_>, _: &mut FwpsClassifyOut0| {
            let layer = LayerId(call.fixed.layer_id);
            let callout = call.filter.callout().expect("it names one").id();
            let status = engine.flows.remove(call.classify.metadata.flow_handle, layer, callout);
            answers.lock().push((status, tracked(call.flow_context).deletions().len()));
        }
    };
    let id = rig.register(key, 0, Functions { classify: Box::new(removes_itself), ..rig.functions() }).expect("good");
    rig.add_callout(&session, key, LAYER);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_INSPECTION);
    filter.action_key = key;
    rig.add(&session, filter);
    let engine = &rig.engine;
    let flow = engine.flows.create();
    let tracked = Arc::new(Tracked::default());
    engine.flows.associate(flow.id(), LAYER, engine.callouts.by_id(id), tracked.context());
    let metadata = FwpsIncomingMetadataValues0 { flow_handle: flow.id(), ..FwpsIncomingMetadataValues0::default() };
    rig.engine.classify(&indication(&metadata, &flow));
    assert_eq!(*answers.lock(), [(NtStatus::PENDING, 0)]);
    assert_eq!(tracked.deletions(), [(LAYER.0, id)], "after classifyFn has returned");
    assert_eq!(flow.context_count(), 0);
}

#[test]
fn a_callout_conditional_on_flow_is_called_only_where_it_has_a_context() {
    let rig = Rig::new();
    let session = rig.session();
    let script = Script::says(FWP_ACTION_BLOCK);
    let (_, id) = callout(&rig, &session, FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW, &script);
    let engine = &rig.engine;
    let flow = engine.flows.create();
    assert_eq!(rig.classify_flow(LAYER, Some(&flow)).verdict, Verdict::Permit);
    assert_eq!(script.calls(), 0);
    assert!(engine.has_filters(LAYER) && !engine.concerns(LAYER, &flow));
    let tracked = Arc::new(Tracked::default());
    engine.flows.associate(flow.id(), LAYER, engine.callouts.by_id(id), tracked.context());
    assert!(engine.concerns(LAYER, &flow));
    assert_eq!(rig.classify_flow(LAYER, Some(&flow)).verdict, Verdict::Block);
    engine.flows.remove(flow.id(), LAYER, id);
    assert!(!engine.concerns(LAYER, &flow));
    rig.add(&session, rig.filter(FWP_ACTION_PERMIT));
    assert!(engine.concerns(LAYER, &flow), "a filter without a callout concerns every flow");
    engine.flows.terminate(&flow);
}

#[test]
fn a_callout_disables_the_offloads_that_it_does_not_allow() {
    let rig = Rig::new();
    let session = rig.session();
    assert_eq!(rig.engine.refused_offloads(), []);
    let script = Script::says(FWP_ACTION_PERMIT);
    let all = Offload::ALL.iter().fold(0, |flags, (_, flag)| flags | flag);
    callout(&rig, &session, all, &script);
    assert_eq!(rig.engine.refused_offloads(), []);
    let (key, _) = callout(&rig, &session, FWP_CALLOUT_FLAG_ALLOW_OFFLOAD | FWP_CALLOUT_FLAG_ALLOW_USO, &script);
    let refusal = |offload| Refusal { offload, layer: LAYER, callout: key };
    assert_eq!(rig.engine.refused_offloads(), [Offload::TcpReceive, Offload::UdpReceive].map(refusal));
    let engine = &rig.engine;
    engine.callouts.unregister(engine.callouts.by_key(key), || {}).expect("it was registered");
    assert_eq!(engine.refused_offloads(), [], "what is not registered is not called");
}

#[test]
fn unregistering_is_refused_while_flows_carry_contexts() {
    let rig = Rig::new();
    let session = rig.session();
    let (key, id) = callout(&rig, &session, 0, &Script::says(FWP_ACTION_PERMIT));
    let engine = &rig.engine;
    let flow = engine.flows.create();
    let tracked = Arc::new(Tracked::default());
    engine.flows.associate(flow.id(), LAYER, engine.callouts.by_id(id), tracked.context());
    let unregister = || engine.callouts.unregister(engine.callouts.by_key(key), || {}).map_err(|error| error.status);
    assert_eq!(unregister(), Err(NtStatus::DEVICE_BUSY));
    assert_eq!(rig.classify().verdict, Verdict::Permit, "it is still registered");
    engine.flows.terminate(&flow);
    assert_eq!(unregister(), Ok(()));
    assert_eq!(unregister(), Err(NtStatus::FWP_CALLOUT_NOT_FOUND));
    assert_eq!(rig.classify().verdict, Verdict::Block, "an unregistered terminating callout blocks");
}

#[test]
fn flows_that_end_under_classification_delete_every_context_once() {
    let rig = Rig::new();
    let session = rig.session();
    let (_, id) = callout(&rig, &session, 0, &Script::says(FWP_ACTION_PERMIT));
    let engine = &rig.engine;
    for _ in 0..200 {
        let flow = engine.flows.create();
        let tracked = Arc::new(Tracked::default());
        engine.flows.associate(flow.id(), LAYER, engine.callouts.by_id(id), tracked.context());
        std::thread::scope(|scope| {
            let classifier = scope.spawn(|| {
                for _ in 0..50 {
                    rig.classify_flow(LAYER, Some(&flow));
                }
            });
            engine.flows.terminate(&flow);
            classifier.join().expect("no panic");
        });
        assert_eq!(tracked.deletions(), [(LAYER.0, id)]);
    }
    assert_eq!(engine.callouts.by_id(id).expect("registered").flow_contexts(), 0);
}

#[test]
fn a_flow_carries_many_contexts_and_says_when_it_is_full() {
    let rig = Rig::new();
    let engine = &rig.engine;
    let flow = engine.flows.create();
    let tracked = Arc::new(Tracked::default());
    let ids: Vec<u32> = (0..25).map(|_| rig.register(rig.key(), 0, rig.functions()).expect("new")).collect();
    let associate = |id: u32| engine.flows.associate(flow.id(), LAYER, engine.callouts.by_id(id), tracked.context());
    assert!(ids[..24].iter().all(|id| associate(*id) == NtStatus::SUCCESS));
    assert_eq!(associate(ids[24]), NtStatus::INSUFFICIENT_RESOURCES);
    assert_eq!(engine.flows.remove(flow.id(), LAYER, ids[7]), NtStatus::SUCCESS);
    assert_eq!(associate(ids[24]), NtStatus::SUCCESS, "the room is used again");
    engine.flows.terminate(&flow);
    let mut deleted: Vec<u32> = tracked.deletions().iter().map(|(_, id)| *id).collect();
    deleted.sort_unstable();
    assert_eq!(deleted, ids);
}

#[test]
fn contexts_that_come_and_go_under_classification_are_never_mixed_up() {
    // Miri is some thousand times slower.
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 3000 };
    // Of each context, whether it is still associated.
    let live: Arc<[AtomicBool]> = (0..=ROUNDS).map(|_| AtomicBool::new(true)).collect();
    let late = Arc::new(AtomicU64::new(0));
    let rig = Rig::new();
    let session = rig.session();
    let key = rig.key();
    let functions = Functions {
        classify: Box::new({
            let (live, late) = (live.clone(), late.clone());
            move |call, _| {
                // 0 is no context.
                for _ in 0..if call.flow_context == 0 { 0 } else { 10 } {
                    late.fetch_add(u64::from(!live[call.flow_context as usize].load(SeqCst)), SeqCst);
                }
            }
        }),
        deleted: Some(Box::new({
            let live = live.clone();
            move |_, _, context| live[context as usize].store(false, SeqCst)
        })),
        ..rig.functions()
    };
    let id = rig.register(key, 0, functions).expect("new");
    rig.add_callout(&session, key, LAYER);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_INSPECTION);
    filter.action_key = key;
    rig.add(&session, filter);
    let engine = &rig.engine;
    let flow = engine.flows.create();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let metadata = FwpsIncomingMetadataValues0::default();
                let c = indication(&metadata, &flow);
                while !stop.load(SeqCst) {
                    rig.engine.classify(&c);
                }
            });
        }
        for context in 1..=ROUNDS {
            let associated = engine.flows.associate(flow.id(), LAYER, engine.callouts.by_id(id), context as u64);
            assert_eq!(associated, NtStatus::SUCCESS);
            match engine.flows.remove(flow.id(), LAYER, id) {
                NtStatus::SUCCESS => assert!(!live[context].load(SeqCst)),
                status => {
                    assert_eq!(status, NtStatus::PENDING);
                    while live[context].load(SeqCst) {
                        std::thread::yield_now();
                    }
                }
            }
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(late.load(SeqCst), 0);
    engine.flows.terminate(&flow);
    assert_eq!((flow.context_count(), engine.callouts.by_id(id).expect("registered").flow_contexts()), (0, 0));
}
