//! The stream layer: what callouts ask for beside their action.

use super::rig::{Functions, Rig};
use crate::callout::ClassifyCall;
use crate::flow::Flow;
use crate::layers::LayerId;
use crate::{Classify, LayerData, Outcome, StreamAction, StreamOutcome, Verdict};
use core::cell::Cell;
use core::ptr::null_mut;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{FwpsClassifyOut0, FwpsIncomingMetadataValues0, FwpsStreamCalloutIoPacket0};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const STREAM: LayerId = LayerId::STREAM_V4;

/// What a stream callout answers.
#[derive(Default)]
struct Answer {
    action: u32,
    stream: u32,
    required: u32,
    enforced: usize,
    calls: AtomicU32,
}

impl Answer {
    fn calls(&self) -> u32 {
        self.calls.load(Relaxed)
    }

    fn give(&self, call: &ClassifyCall<'_>, out: &mut FwpsClassifyOut0) {
        let LayerData::Stream(cell, _) = call.classify.layer_data else { panic!("a stream packet at this layer") };
        let mut packet = cell.get();
        assert_eq!((packet.stream_action, packet.count_bytes_required, packet.count_bytes_enforced), (0, 0, 0));
        self.calls.fetch_add(1, Relaxed);
        packet.stream_action = self.stream;
        packet.count_bytes_required = self.required;
        packet.count_bytes_enforced = self.enforced;
        cell.set(packet);
        out.action_type = self.action;
    }
}

/// Sublayers with one filter each, from the heaviest to the lightest: its action and what its callout answers.
fn policy(rig: &Rig, filters: &[(u32, &Arc<Answer>)]) {
    let session = rig.session();
    for (i, (action, answer)) in filters.iter().enumerate() {
        let key = rig.key();
        let classify = {
            let answer = Arc::clone(answer);
            Box::new(move |call: &ClassifyCall<'_>, out: &mut FwpsClassifyOut0| answer.give(call, out))
        };
        rig.register(key, 0, Functions { classify, ..rig.functions() }).expect("new");
        rig.add_callout(&session, key, STREAM);
        let mut filter = rig.filter(*action);
        (filter.layer, filter.action_key) = (rig.layer_key(STREAM), key);
        filter.sublayer = rig.sublayer(&session, 100 - i as u16);
        rig.add(&session, filter);
    }
}

/// Indicates 100 bytes.
fn indicate(rig: &Rig, flow: &Arc<Flow>) -> (Outcome, StreamOutcome) {
    let packet = Cell::new(FwpsStreamCalloutIoPacket0 {
        stream_data: null_mut(),
        missed_bytes: 0,
        count_bytes_required: 7,
        count_bytes_enforced: 7,
        stream_action: 7,
    });
    let metadata = FwpsIncomingMetadataValues0::default();
    let layer_data = LayerData::Stream(&packet, 100);
    let c = Classify { layer: STREAM, values: &[], metadata: &metadata, layer_data, flow: Some(flow), request: None };
    let outcome = rig.engine.classify(&c);
    let stream = outcome.stream.expect("a stream layer");
    (outcome, stream)
}

const UNKNOWN: u32 = FWP_ACTION_CALLOUT_UNKNOWN;
const INSPECTION: u32 = FWP_ACTION_CALLOUT_INSPECTION;

#[test]
fn a_stream_action_other_than_none_ends_the_evaluation_and_voids_the_action() {
    for (asked, expected) in [
        (FWPS_STREAM_ACTION_NEED_MORE_DATA, StreamAction::NeedMoreData),
        (FWPS_STREAM_ACTION_DROP_CONNECTION, StreamAction::DropConnection),
        (FWPS_STREAM_ACTION_DEFER, StreamAction::Defer),
    ] {
        let rig = Rig::new();
        let asks = Arc::new(Answer { action: FWP_ACTION_BLOCK, stream: asked, required: 12, ..Answer::default() });
        let after = Arc::new(Answer { action: FWP_ACTION_BLOCK, ..Answer::default() });
        policy(&rig, &[(UNKNOWN, &asks), (UNKNOWN, &after)]);
        let flow = rig.engine.flows.create();
        let (outcome, stream) = indicate(&rig, &flow);
        assert_eq!((outcome.verdict, outcome.decided), (Verdict::Permit, false), "{expected:?}");
        assert_eq!((stream.action, stream.bytes_required), (expected, 12));
        assert_eq!(after.calls(), 0);
    }
}

#[test]
fn an_inspecting_callout_can_ask_for_data_but_not_drop_the_connection() {
    let rig = Rig::new();
    let drops = Arc::new(Answer { stream: FWPS_STREAM_ACTION_DROP_CONNECTION, ..Answer::default() });
    let wants = Arc::new(Answer { stream: FWPS_STREAM_ACTION_NEED_MORE_DATA, required: 1, ..Answer::default() });
    policy(&rig, &[(INSPECTION, &drops), (INSPECTION, &wants)]);
    let flow = rig.engine.flows.create();
    assert_eq!(indicate(&rig, &flow).1.action, StreamAction::NeedMoreData);
    assert_eq!((drops.calls(), wants.calls()), (1, 1));
}

#[test]
fn a_callout_that_allows_the_connection_is_not_called_again_on_that_flow() {
    let rig = Rig::new();
    let allows =
        Arc::new(Answer { action: FWP_ACTION_BLOCK, stream: FWPS_STREAM_ACTION_ALLOW_CONNECTION, ..Answer::default() });
    let other = Arc::new(Answer { action: FWP_ACTION_PERMIT, ..Answer::default() });
    policy(&rig, &[(UNKNOWN, &allows), (UNKNOWN, &other)]);
    let (flow, another) = (rig.engine.flows.create(), rig.engine.flows.create());
    for _ in 0..3 {
        let (outcome, stream) = indicate(&rig, &flow);
        assert_eq!((outcome.verdict, stream.action), (Verdict::Permit, StreamAction::None));
    }
    assert_eq!((allows.calls(), other.calls()), (1, 3));
    indicate(&rig, &another);
    assert_eq!(allows.calls(), 2, "another flow is another matter");
}

#[test]
fn the_verdict_covers_the_shortest_part_that_was_decided_about() {
    let rig = Rig::new();
    let some = Arc::new(Answer { action: FWP_ACTION_PERMIT, enforced: 60, ..Answer::default() });
    let fewer = Arc::new(Answer { action: FWP_ACTION_PERMIT, enforced: 40, ..Answer::default() });
    let looks = Arc::new(Answer { enforced: 5, ..Answer::default() });
    let all = Arc::new(Answer { action: FWP_ACTION_PERMIT, enforced: 100, ..Answer::default() });
    policy(&rig, &[(UNKNOWN, &all), (UNKNOWN, &some), (INSPECTION, &looks), (UNKNOWN, &fewer)]);
    let flow = rig.engine.flows.create();
    let (outcome, stream) = indicate(&rig, &flow);
    assert_eq!((outcome.verdict, stream.bytes_enforced), (Verdict::Permit, 40));
    let whole = Rig::new();
    policy(&whole, &[(UNKNOWN, &all)]);
    let flow = whole.engine.flows.create();
    assert_eq!(indicate(&whole, &flow).1.bytes_enforced, 0, "zero says: about everything");
}
