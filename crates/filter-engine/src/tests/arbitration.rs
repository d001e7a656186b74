//! Arbitration between filters, callouts and sublayers, against the tables of "Filter Arbitration" (win32 documentation).

use super::rig::{Rig, Script, Seen};
use crate::Verdict::{Block, Permit};
use crate::{Outcome, Verdict};
use nt_abi::fwp::consts::*;
use sluice_host::Weight;
use std::sync::Arc;

/// One filter of a configuration.
#[derive(Clone)]
enum F {
    Permit,
    Block,
    /// With FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT.
    HardPermit,
    Terminating(Arc<Script>),
    Unknown(Arc<Script>),
    Inspection(Arc<Script>),
}

fn soft(action: u32) -> F {
    F::Unknown(Script::says(action))
}

fn hard(action: u32) -> F {
    F::Unknown(Script::insists(action))
}

/// Sublayers from the heaviest to the lightest, each with its filters from the heaviest to the lightest.
fn arbitrate(sublayers: &[&[F]]) -> (Outcome, Vec<u64>) {
    let rig = Rig::new();
    let session = rig.session();
    let callout = rig.callout(&session);
    let mut ids = Vec::new();
    for (i, filters) in sublayers.iter().enumerate() {
        let sublayer = rig.sublayer(&session, 1000 - i as u16);
        for (j, filter) in filters.iter().enumerate() {
            let (action, flags, script) = match filter {
                F::Permit => (FWP_ACTION_PERMIT, 0, None),
                F::HardPermit => (FWP_ACTION_PERMIT, FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT, None),
                F::Block => (FWP_ACTION_BLOCK, 0, None),
                F::Terminating(script) => (FWP_ACTION_CALLOUT_TERMINATING, 0, Some(script)),
                F::Unknown(script) => (FWP_ACTION_CALLOUT_UNKNOWN, 0, Some(script)),
                F::Inspection(script) => (FWP_ACTION_CALLOUT_INSPECTION, 0, Some(script)),
            };
            let mut new = rig.filter(action);
            new.sublayer = sublayer;
            new.flags = flags;
            new.weight = Weight::Exact(1000 - j as u64);
            if let Some(script) = script {
                new.action_key = callout;
                new.context = rig.script(script);
            }
            ids.push(rig.add(&session, new));
        }
    }
    (rig.classify(), ids)
}

fn verdict(sublayers: &[&[F]]) -> Verdict {
    arbitrate(sublayers).0.verdict
}

const P: u32 = FWP_ACTION_PERMIT;
const B: u32 = FWP_ACTION_BLOCK;

#[test]
fn the_table_of_hard_and_soft_actions() {
    // (what the heavier sublayer says, what the lighter one says, what comes of it, whether it is a veto)
    let table: &[(F, F, Verdict, bool)] = &[
        // A soft permit can be blocked at another sublayer.
        (F::Permit, F::Block, Block, false),
        (F::Permit, soft(B), Block, false),
        (soft(P), F::Block, Block, false),
        (soft(P), soft(B), Block, false),
        // A hard permit can be blocked at another sublayer only by a callout's veto.
        (F::HardPermit, F::Block, Permit, false),
        (F::HardPermit, soft(B), Block, true),
        (F::HardPermit, hard(B), Block, true),
        (hard(P), F::Block, Permit, false),
        (hard(P), soft(B), Block, true),
        // A soft block can be permitted at another sublayer.
        (soft(B), F::Permit, Permit, false),
        (soft(B), soft(P), Permit, false),
        (soft(B), F::HardPermit, Permit, false),
        // A hard block cannot. A filter's block is hard by default.
        (hard(B), F::Permit, Block, false),
        (hard(B), soft(P), Block, false),
        (hard(B), hard(P), Block, false),
        (F::Block, F::Permit, Block, false),
        (F::Block, F::HardPermit, Block, false),
        (F::Block, hard(P), Block, false),
        // Agreement.
        (F::Permit, F::Permit, Permit, false),
        (F::Block, F::Block, Block, false),
    ];
    for (row, (heavy, light, expected, veto)) in table.iter().enumerate() {
        let (outcome, _) = arbitrate(&[std::slice::from_ref(heavy), std::slice::from_ref(light)]);
        assert_eq!((outcome.verdict, outcome.vetoed), (*expected, *veto), "row {row}");
    }
}

#[test]
fn within_a_sublayer_the_first_match_decides_and_the_rest_is_skipped() {
    let skipped = Script::says(B);
    let (outcome, ids) = arbitrate(&[&[F::Permit, F::Unknown(skipped.clone()), F::Block]]);
    assert_eq!((outcome.verdict, outcome.filter_id), (Permit, ids[0]));
    assert_eq!(skipped.calls(), 0);
}

#[test]
fn a_callout_that_continues_passes_the_decision_on() {
    for action in [FWP_ACTION_CONTINUE, FWP_ACTION_NONE, FWP_ACTION_NONE_NO_MATCH] {
        let (outcome, ids) = arbitrate(&[&[soft(action), F::Block]]);
        assert_eq!((outcome.verdict, outcome.filter_id), (Block, ids[1]), "{action:#x}");
    }
    assert_eq!(verdict(&[&[F::Terminating(Script::silent()), F::Block]]), Block);
}

#[test]
fn an_inspection_callout_decides_nothing() {
    let inspector = Script::insists(B);
    let (outcome, ids) = arbitrate(&[&[F::Inspection(inspector.clone()), F::Permit]]);
    assert_eq!((outcome.verdict, outcome.filter_id), (Permit, ids[1]));
    assert_eq!(inspector.calls(), 1);
}

#[test]
fn every_sublayer_is_asked_even_after_a_block() {
    let witness = Script::silent();
    let (outcome, _) = arbitrate(&[&[F::Block], &[F::Unknown(witness.clone())]]);
    assert_eq!(outcome.verdict, Block);
    // It sees that there is nothing left for it to say.
    assert_eq!(*witness.seen.lock(), [Seen { action: B, rights: 0, flow_context: 0 }]);
}

#[test]
fn a_callout_sees_the_hard_permit_it_may_veto_and_otherwise_no_decision() {
    let under_hard = Script::silent();
    let under_soft = Script::silent();
    arbitrate(&[&[F::HardPermit], &[F::Unknown(under_hard.clone())]]);
    arbitrate(&[&[F::Permit], &[F::Unknown(under_soft.clone())]]);
    assert_eq!(*under_hard.seen.lock(), [Seen { action: P, rights: 0, flow_context: 0 }]);
    let rights = FWPS_RIGHT_ACTION_WRITE;
    assert_eq!(*under_soft.seen.lock(), [Seen { action: FWP_ACTION_CONTINUE, rights, flow_context: 0 }]);
}

#[test]
fn writing_a_permit_without_the_right_is_ignored_and_counted() {
    let (outcome, ids) = arbitrate(&[&[F::Block], &[soft(P)]]);
    assert_eq!((outcome.verdict, outcome.filter_id, outcome.rights_violations), (Block, ids[0], 1));
    let (outcome, _) = arbitrate(&[&[F::HardPermit], &[soft(B)]]);
    assert_eq!((outcome.verdict, outcome.rights_violations), (Block, 0), "a veto is no violation");
}

#[test]
fn a_veto_is_final() {
    assert_eq!(verdict(&[&[F::HardPermit], &[soft(B)], &[F::Permit]]), Block);
    assert_eq!(verdict(&[&[F::HardPermit], &[soft(B)], &[hard(P)]]), Block);
}

#[test]
fn no_filter_permits_without_deciding() {
    let (outcome, _) = arbitrate(&[]);
    assert_eq!((outcome.verdict, outcome.decided, outcome.filter_id), (Permit, false, 0));
}

#[test]
fn the_filters_that_decided_for_their_sublayers_are_reported_in_order() {
    let (outcome, ids) = arbitrate(&[&[F::Permit], &[soft(FWP_ACTION_CONTINUE)], &[F::Block, F::Permit], &[soft(P)]]);
    let said: Vec<(u64, Verdict)> = outcome.terminating.iter().map(|t| (t.filter_id, t.verdict)).collect();
    assert_eq!(said, [(ids[0], Permit), (ids[2], Block)], "the last one had no right and is no decision");
}

#[test]
fn absorb_goes_with_the_block_that_stands() {
    let absorbing = Arc::new(Script {
        action: Some(B),
        clear_right: true,
        flags: FWPS_CLASSIFY_OUT_FLAG_ABSORB,
        ..Script::default()
    });
    assert!(arbitrate(&[&[F::Unknown(absorbing.clone())]]).0.absorb);
    let overruled = Arc::new(Script { action: Some(B), flags: FWPS_CLASSIFY_OUT_FLAG_ABSORB, ..Script::default() });
    assert!(!arbitrate(&[&[F::Unknown(overruled)], &[F::Permit]]).0.absorb);
}

#[test]
fn an_unregistered_callout_blocks_is_ignored_or_permits() {
    let rig = Rig::new();
    let session = rig.session();
    let callout = rig.key();
    rig.add_callout(&session, callout, super::rig::LAYER);
    for (action, flags, expected) in [
        (FWP_ACTION_CALLOUT_TERMINATING, 0, (Block, true)),
        (FWP_ACTION_CALLOUT_UNKNOWN, 0, (Block, true)),
        (FWP_ACTION_CALLOUT_INSPECTION, 0, (Permit, false)),
        (FWP_ACTION_CALLOUT_TERMINATING, FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED, (Permit, true)),
        (FWP_ACTION_CALLOUT_UNKNOWN, FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED, (Permit, true)),
    ] {
        let mut filter = rig.filter(action);
        filter.action_key = callout;
        filter.flags = flags;
        let id = rig.add(&session, filter);
        let outcome = rig.classify();
        assert_eq!((outcome.verdict, outcome.decided), expected, "{action:#x} {flags:#x}");
        session.delete_filter_by_id(id).expect("it is there");
    }
}

#[test]
fn sublayers_go_by_weight_and_not_by_age() {
    let rig = Rig::new();
    let session = rig.session();
    for (weight, action) in [(10, FWP_ACTION_BLOCK), (20, FWP_ACTION_PERMIT)] {
        let mut filter = rig.filter(action);
        filter.sublayer = rig.sublayer(&session, weight);
        if action == FWP_ACTION_PERMIT {
            filter.flags = FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT;
        }
        rig.add(&session, filter);
    }
    assert_eq!(rig.classify().verdict, Permit, "the heavier sublayer's hard permit comes first");
}

/// A filter for one remote port in a sublayer, with a script for its callout if it has one.
fn port_filter(rig: &Rig, port: Option<u16>, sublayer: sluice_host::Guid, action: u32) -> crate::bfe::Filter {
    let mut filter = rig.filter(action);
    filter.sublayer = sublayer;
    if let Some(port) = port {
        let value = crate::condition::ConditionValue::Uint16(port);
        filter.conditions = vec![rig.condition("IP_REMOTE_PORT", sluice_host::MatchType::Equal, value)];
    }
    filter
}

#[test]
fn an_exception_for_remote_administration_and_two_firewalls() {
    // "Remote administration port required to be opened even in the presence of a third-party firewall": the scenarios
    // the page tells around its rules. The traffic goes to port 443; each row says which firewall stands where.
    // (weight of the exception's sublayer, whether the exception is hard, whether the firewall blocks by a callout)
    let table: &[(u16, bool, bool, Verdict)] = &[
        // The exception stands above the firewall. Soft, it is overruled; hard, it holds, except against a veto.
        (200, false, false, Block),
        (200, true, false, Permit),
        (200, true, true, Block),
        // "In order to silently override hard permit filters a firewall has to add its filters within a higher priority
        // sub-layer": there its block is hard and the exception comes too late. A callout's soft block is overruled.
        (50, true, false, Block),
        (50, true, true, Permit),
    ];
    for (row, (weight, hard, by_callout, expected)) in table.iter().enumerate() {
        let rig = Rig::new();
        let session = rig.session();
        let callout = rig.callout(&session);
        let (exception, firewall) = (rig.sublayer(&session, *weight), rig.sublayer(&session, 100));
        let mut permit = port_filter(&rig, Some(443), exception, FWP_ACTION_PERMIT);
        permit.flags = if *hard { FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT } else { 0 };
        rig.add(&session, permit);
        let mut block = port_filter(&rig, None, firewall, FWP_ACTION_BLOCK);
        if *by_callout {
            (block.action, block.action_key) = (FWP_ACTION_CALLOUT_UNKNOWN, callout);
            block.context = rig.script(&Script::says(B));
        }
        rig.add(&session, block);
        assert_eq!(rig.classify().verdict, *expected, "row {row}");
    }
    // Two firewalls: what both permit passes, and a second one that has not been asked about a port blocks it.
    for (second_knows_port, expected) in [(true, Permit), (false, Block)] {
        let rig = Rig::new();
        let session = rig.session();
        let (one, two) = (rig.sublayer(&session, 200), rig.sublayer(&session, 100));
        let witness = Script::silent();
        let mut last = port_filter(&rig, None, rig.sublayer(&session, 1), FWP_ACTION_CALLOUT_INSPECTION);
        (last.action_key, last.context) = (rig.callout(&session), rig.script(&witness));
        rig.add(&session, last);
        for (sublayer, knows_port) in [(one, true), (two, second_knows_port)] {
            let mut permit = port_filter(&rig, Some(if knows_port { 443 } else { 80 }), sublayer, FWP_ACTION_PERMIT);
            permit.weight = Weight::Exact(10);
            let mut rest = port_filter(&rig, None, sublayer, FWP_ACTION_BLOCK);
            rest.weight = Weight::Exact(1);
            rig.add(&session, permit);
            rig.add(&session, rest);
        }
        assert_eq!(rig.classify().verdict, expected);
        // "One way of ensuring that a filter always sees all traffic within a layer is to add a sub-layer that contains
        // a single filter that matches all traffic."
        assert_eq!(witness.calls(), 1);
    }
}

#[test]
fn a_drop_lists_the_sublayers_as_the_documented_event_does() {
    // "Troubleshooting UWP App Connectivity Issues", case 2: WSH (weight 3) blocks, WF (weight 2) permits all the same.
    let rig = Rig::new();
    let session = rig.session();
    let sublayer = |name: &str| {
        let found = crate::names::builtin_sublayers().iter().find(|s| s.name == name);
        found.expect("a built-in sublayer").key
    };
    let (wsh, wf) = (sublayer("FWPM_SUBLAYER_MPSSVC_WSH"), sublayer("FWPM_SUBLAYER_MPSSVC_WF"));
    let permit = rig.add(&session, port_filter(&rig, Some(443), wf, FWP_ACTION_PERMIT));
    let block = rig.add(&session, port_filter(&rig, None, wsh, FWP_ACTION_BLOCK));
    rig.classify();
    let events = rig.engine.events.take();
    let said: Vec<_> = events[0].terminating.iter().map(|t| (t.filter_id, t.sublayer, t.verdict)).collect();
    assert_eq!((events.len(), events[0].filter_id), (1, block));
    assert_eq!(said, [(block, wsh, Block), (permit, wf, Permit)]);
}
