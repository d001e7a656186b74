//! The real driver among other filters: it respects the rights it is given, and others respect its decisions.
//!
//! Source of the rules: "Filter Arbitration" (win32, desktop-src/FWP/filter-arbitration.md).

mod support;
#[path = "support/wire.rs"]
mod wire;

use shim::stack::Verdict;
use sluice_host::{Filter, FilterAction, Guid, Host, Sublayer, Weight};
use sluice_protocol::object::{CALLOUTS, SUBLAYER_WEIGHT};
use support::{BLOCK_ALL, PERMIT_ALL, Rig};
use wire::Wire;

/// FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT (fwpmtypes.h).
const CLEAR_ACTION_RIGHT: u32 = 0x8;

/// A policy whose every verdict can be overridden.
const SOFT_BLOCK: &str = "[[rule]]\naction = \"block\"\nstrength = \"soft\"\n";
/// A policy whose permit cannot.
const HARD_PERMIT: &str = "[[rule]]\naction = \"permit\"\nstrength = \"hard\"\n";

/// Adds a foreign sublayer above or below ours, with one filter for outbound IPv4 connections.
fn neighbour(rig: &Rig, above: bool, action: FilterAction, flags: u32) {
    let sublayer = Guid(0x1111_2222_3333_4444_5555_6666_7777_8888);
    let weight = if above { SUBLAYER_WEIGHT + 1 } else { SUBLAYER_WEIGHT - 1 };
    let mut engine = rig.host.open_engine().expect("the engine opens");
    engine
        .add_sublayer(&Sublayer {
            key: sublayer,
            name: "neighbour".into(),
            description: String::new(),
            persistent: false,
            provider: None,
            weight,
        })
        .expect("the sublayer is added");
    engine
        .add_filter(&Filter {
            key: None,
            name: "neighbour".into(),
            description: String::new(),
            flags,
            provider: None,
            layer: Guid(CALLOUTS[0].layer),
            sublayer,
            weight: Weight::Auto,
            conditions: Vec::new(),
            action,
        })
        .expect("the filter is added");
}

/// The verdict on a connection, and the driver's counters: without right, blocked, permitted.
fn outcome(policy: &str, above: bool, action: FilterAction, flags: u32) -> (Verdict, [u64; 3]) {
    let rig = Rig::with_policy(policy);
    neighbour(&rig, above, action, flags);
    let mut wire = Wire::new(&rig.machine);
    let verdict = wire.connect("203.0.113.10", 443).0;
    wire.finish();
    let counters = ["decisions_without_right", "connects_blocked", "connects_permitted"].map(|name| rig.counter(name));
    rig.uninstall();
    (verdict, counters)
}

#[test]
fn our_block_vetoes_a_hard_permit_above() {
    let met = outcome(BLOCK_ALL, true, FilterAction::Permit, CLEAR_ACTION_RIGHT);
    assert_eq!(met, (Verdict::Refuse, [0, 1, 0]));
}

#[test]
fn our_block_overrides_a_soft_permit_above() {
    assert_eq!(outcome(BLOCK_ALL, true, FilterAction::Permit, 0), (Verdict::Refuse, [0, 1, 0]));
}

#[test]
fn our_permit_does_not_touch_a_block_above() {
    let (verdict, [_, blocked, _]) = outcome(PERMIT_ALL, true, FilterAction::Block, CLEAR_ACTION_RIGHT);
    assert_eq!((verdict, blocked), (Verdict::Refuse, 0));
}

#[test]
fn our_soft_permit_gives_way_to_a_block_below() {
    assert_eq!(outcome(PERMIT_ALL, false, FilterAction::Block, 0), (Verdict::Refuse, [0, 0, 1]));
}

#[test]
fn our_hard_permit_stands_against_a_block_filter_below() {
    // The table of actions: a hard permit "can be blocked at another sub-layer only by a callout Veto".
    assert_eq!(outcome(HARD_PERMIT, false, FilterAction::Block, 0), (Verdict::Forward, [0, 0, 1]));
}

#[test]
fn our_hard_block_stands_against_a_permit_below() {
    assert_eq!(outcome(BLOCK_ALL, false, FilterAction::Permit, 0), (Verdict::Refuse, [0, 1, 0]));
    assert_eq!(outcome(BLOCK_ALL, false, FilterAction::Permit, CLEAR_ACTION_RIGHT), (Verdict::Refuse, [0, 1, 0]));
}

#[test]
fn our_soft_block_gives_way_to_a_hard_permit_below() {
    let (verdict, [_, blocked, _]) = outcome(SOFT_BLOCK, false, FilterAction::Permit, CLEAR_ACTION_RIGHT);
    assert_eq!((verdict, blocked), (Verdict::Forward, 1));
}
