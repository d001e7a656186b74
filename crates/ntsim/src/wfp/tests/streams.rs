//! The stream layer: what callouts ask for beside their action.

use super::bed::{Bed, notify_ok};
use crate::wfp::bfe::FilterContext;
use crate::wfp::engine::{Classify, Outcome, StreamAction, StreamOutcome, Verdict, classify};
use crate::wfp::flow::Flow;
use crate::wfp::layers::LayerId;
use core::ffi::c_void;
use core::ptr::null_mut;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0,
    FwpsStreamCalloutIoPacket0, FwpsStreamData0, FwpsStreamDataOffset0,
};
use std::cell::Cell;
use std::sync::Arc;

const STREAM: LayerId = LayerId::STREAM_V4;

/// What a stream callout answers; its filter's context points to it.
#[derive(Default)]
struct Answer {
    action: u32,
    stream: u32,
    required: u32,
    enforced: usize,
    calls: Cell<u32>,
}

unsafe extern "win64" fn answers(
    _fixed: *const FwpsIncomingValues0,
    _metadata: *const FwpsIncomingMetadataValues0,
    layer_data: *mut c_void,
    _context: *const c_void,
    filter: *const FwpsFilter0,
    _flow_context: u64,
    out: *mut FwpsClassifyOut0,
) {
    // SAFETY: the engine passes valid structures, at this layer a stream packet; the filter's context is the test's.
    unsafe {
        let packet = &mut *layer_data.cast::<FwpsStreamCalloutIoPacket0>();
        assert_eq!((packet.stream_action, packet.count_bytes_required, packet.count_bytes_enforced), (0, 0, 0));
        let answer = &*((*filter).context as *const Answer);
        answer.calls.set(answer.calls.get() + 1);
        packet.stream_action = answer.stream;
        packet.count_bytes_required = answer.required;
        packet.count_bytes_enforced = answer.enforced;
        (*out).action_type = answer.action;
    }
}

/// Sublayers with one filter each, from the heaviest to the lightest: its action and what its callout answers.
fn policy(bed: &Bed, filters: &[(u32, &Answer)]) {
    let session = bed.session();
    for (i, (action, answer)) in filters.iter().enumerate() {
        let key = bed.key();
        let raw = FwpsCallout0 {
            callout_key: key.into(),
            flags: 0,
            classify_fn: answers as *const c_void,
            notify_fn: notify_ok as *const c_void,
            flow_delete_fn: core::ptr::null(),
        };
        bed.register(&raw).expect("new");
        bed.add_callout(&session, key, STREAM);
        let mut filter = bed.filter(*action);
        (filter.layer, filter.action_key) = (bed.layer_key(STREAM), key);
        filter.sublayer = bed.sublayer(&session, 100 - i as u16);
        filter.context = FilterContext::Raw(std::ptr::from_ref(*answer) as u64);
        bed.add(&session, filter);
    }
}

/// Indicates 100 bytes.
fn indicate(bed: &Bed, flow: &Arc<Flow>) -> (Outcome, StreamOutcome) {
    let data_offset = FwpsStreamDataOffset0 {
        net_buffer_list: null_mut(),
        net_buffer: null_mut(),
        mdl: null_mut(),
        mdl_offset: 0,
        net_buffer_offset: 0,
        stream_data_offset: 0,
    };
    let flags = FWPS_STREAM_FLAG_RECEIVE;
    let mut data = FwpsStreamData0 { flags, data_offset, data_length: 100, net_buffer_list_chain: null_mut() };
    let mut packet = FwpsStreamCalloutIoPacket0 {
        stream_data: &mut data,
        missed_bytes: 0,
        count_bytes_required: 7,
        count_bytes_enforced: 7,
        stream_action: 7,
    };
    let metadata = FwpsIncomingMetadataValues0::default();
    let layer_data = (&raw mut packet).cast();
    let c = Classify { layer: STREAM, values: &[], metadata: &metadata, layer_data, flow: Some(flow) };
    let outcome = bed.run(|| classify(&bed.machine, &c));
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
        let bed = Bed::new();
        let asks = Answer { action: FWP_ACTION_BLOCK, stream: asked, required: 12, ..Answer::default() };
        let after = Answer { action: FWP_ACTION_BLOCK, ..Answer::default() };
        policy(&bed, &[(UNKNOWN, &asks), (UNKNOWN, &after)]);
        let flow = bed.machine.wfp.flows.create();
        let (outcome, stream) = indicate(&bed, &flow);
        assert_eq!((outcome.verdict, outcome.decided), (Verdict::Permit, false), "{expected:?}");
        assert_eq!((stream.action, stream.bytes_required), (expected, 12));
        assert_eq!(after.calls.get(), 0);
    }
}

#[test]
fn an_inspecting_callout_can_ask_for_data_but_not_drop_the_connection() {
    let bed = Bed::new();
    let drops = Answer { stream: FWPS_STREAM_ACTION_DROP_CONNECTION, ..Answer::default() };
    let wants = Answer { stream: FWPS_STREAM_ACTION_NEED_MORE_DATA, required: 1, ..Answer::default() };
    policy(&bed, &[(INSPECTION, &drops), (INSPECTION, &wants)]);
    let flow = bed.machine.wfp.flows.create();
    assert_eq!(indicate(&bed, &flow).1.action, StreamAction::NeedMoreData);
    assert_eq!((drops.calls.get(), wants.calls.get()), (1, 1));
}

#[test]
fn a_callout_that_allows_the_connection_is_not_called_again_on_that_flow() {
    let bed = Bed::new();
    let allows = Answer { action: FWP_ACTION_BLOCK, stream: FWPS_STREAM_ACTION_ALLOW_CONNECTION, ..Answer::default() };
    let other = Answer { action: FWP_ACTION_PERMIT, ..Answer::default() };
    policy(&bed, &[(UNKNOWN, &allows), (UNKNOWN, &other)]);
    let (flow, another) = (bed.machine.wfp.flows.create(), bed.machine.wfp.flows.create());
    for _ in 0..3 {
        let (outcome, stream) = indicate(&bed, &flow);
        assert_eq!((outcome.verdict, stream.action), (Verdict::Permit, StreamAction::None));
    }
    assert_eq!((allows.calls.get(), other.calls.get()), (1, 3));
    indicate(&bed, &another);
    assert_eq!(allows.calls.get(), 2, "another flow is another matter");
}

#[test]
fn the_verdict_covers_the_shortest_part_that_was_decided_about() {
    let bed = Bed::new();
    let some = Answer { action: FWP_ACTION_PERMIT, enforced: 60, ..Answer::default() };
    let fewer = Answer { action: FWP_ACTION_PERMIT, enforced: 40, ..Answer::default() };
    let looks = Answer { enforced: 5, ..Answer::default() };
    let all = Answer { action: FWP_ACTION_PERMIT, enforced: 100, ..Answer::default() };
    policy(&bed, &[(UNKNOWN, &all), (UNKNOWN, &some), (INSPECTION, &looks), (UNKNOWN, &fewer)]);
    let flow = bed.machine.wfp.flows.create();
    let (outcome, stream) = indicate(&bed, &flow);
    assert_eq!((outcome.verdict, stream.bytes_enforced), (Verdict::Permit, 40));
    let whole = Bed::new();
    policy(&whole, &[(UNKNOWN, &all)]);
    let flow = whole.machine.wfp.flows.create();
    assert_eq!(indicate(&whole, &flow).1.bytes_enforced, 0, "zero says: about everything");
}
