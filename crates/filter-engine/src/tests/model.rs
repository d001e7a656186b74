//! The engine against a naive model on random policies.
//!
//! The model is written from the text of "Filter Arbitration" and FWPM_FILTER0 and shares no code with the engine: it
//! sorts at every question, compares values as signed 128-bit numbers, and keeps the current action as the page tells it.

use super::rig::{LAYER, Rig, Script};
use crate::Verdict;
use crate::condition::{Condition, ConditionValue};
use crate::explain::{Act, Answer, Candidate, Facts, Standing, explain};
use nt_abi::fwp::consts::*;
use nt_abi::fwp::value::{Blob, Incoming};
use proptest::prelude::*;
use sluice_host::{MatchType, Weight};
use std::sync::Arc;

/// A field by name, and how a number becomes a value of it.
type FieldOf = (&'static str, fn(u8) -> ConditionValue);

/// The fields the policies are about.
const FIELDS: [FieldOf; 5] = [
    ("IP_REMOTE_PORT", |n| ConditionValue::Uint16(n.into())),
    ("IP_PROTOCOL", |n| ConditionValue::Uint8(n)),
    ("IP_REMOTE_ADDRESS", |n| ConditionValue::Uint32(n.into())),
    ("IP_LOCAL_INTERFACE", |n| ConditionValue::Uint64(n.into())),
    ("ALE_APP_ID", |n| ConditionValue::ByteBlob(vec![n])),
];
const BLOB_FIELD: usize = 4;
const ADDRESS_FIELD: usize = 2;

#[derive(Clone, Debug)]
enum Ask {
    Equal(u8),
    NotEqual(u8),
    Greater(u8),
    Less(u8),
    AtLeast(u8),
    AtMost(u8),
    Between(u8, u8),
    /// Not for blobs; `Equal` is asked instead.
    AllOf(u8),
    AnyOf(u8),
    NoneOf(u8),
    /// The number of low bits that do not count; for addresses only, `Equal` elsewhere.
    Masked(u8, u8),
}

impl Ask {
    fn as_condition(&self, rig: &Rig, field: usize) -> Condition {
        let (name, make) = FIELDS[field];
        let number = |n: &u8| make(*n);
        let (match_type, value) = match self {
            Self::Equal(n) => (MatchType::Equal, number(n)),
            Self::NotEqual(n) => (MatchType::NotEqual, number(n)),
            Self::Greater(n) => (MatchType::Greater, number(n)),
            Self::Less(n) => (MatchType::Less, number(n)),
            Self::AtLeast(n) => (MatchType::GreaterOrEqual, number(n)),
            Self::AtMost(n) => (MatchType::LessOrEqual, number(n)),
            Self::Between(a, b) => {
                let (low, high) = (Box::new(number(a.min(b))), Box::new(number(a.max(b))));
                (MatchType::Range, ConditionValue::Range { low, high })
            }
            Self::AllOf(n) | Self::AnyOf(n) | Self::NoneOf(n) if field == BLOB_FIELD => (MatchType::Equal, number(n)),
            Self::AllOf(n) => (MatchType::FlagsAllSet, number(n)),
            Self::AnyOf(n) => (MatchType::FlagsAnySet, number(n)),
            Self::NoneOf(n) => (MatchType::FlagsNoneSet, number(n)),
            Self::Masked(n, bits) if field == ADDRESS_FIELD => {
                (MatchType::Equal, ConditionValue::V4AddrMask { addr: (*n).into(), mask: u32::MAX << bits })
            }
            Self::Masked(n, _) => (MatchType::Equal, number(n)),
        };
        rig.condition(name, match_type, value)
    }

    /// The same question to the model.
    fn holds(&self, field: usize, value: Option<u8>) -> bool {
        let Some(value) = value.map(i128::from) else { return false };
        let n = |n: &u8| i128::from(*n);
        match self {
            Self::Equal(a) => value == n(a),
            Self::NotEqual(a) => value != n(a),
            Self::Greater(a) => value > n(a),
            Self::Less(a) => value < n(a),
            Self::AtLeast(a) => value >= n(a),
            Self::AtMost(a) => value <= n(a),
            Self::Between(a, b) => n(a).min(n(b)) <= value && value <= n(a).max(n(b)),
            Self::AllOf(a) | Self::AnyOf(a) | Self::NoneOf(a) if field == BLOB_FIELD => value == n(a),
            Self::AllOf(a) => !value & n(a) == 0,
            Self::AnyOf(a) => (0..8).any(|bit| value >> bit & 1 == 1 && n(a) >> bit & 1 == 1),
            Self::NoneOf(a) => (0..8).all(|bit| value >> bit & 1 == 0 || n(a) >> bit & 1 == 0),
            Self::Masked(a, bits) if field == ADDRESS_FIELD => value >> bits == n(a) >> bits,
            Self::Masked(a, _) => value == n(a),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Permit,
    HardPermit,
    Block,
    Terminating,
    Unknown,
    Inspection,
}

#[derive(Clone, Debug)]
struct FilterPlan {
    sublayer: usize,
    weight: u8,
    asks: Vec<(usize, Ask)>,
    kind: Kind,
    registered: bool,
    permit_if_unregistered: bool,
    says: Option<Verdict>,
    insists: bool,
}

type Packet = [Option<u8>; FIELDS.len()];

/// The model: what becomes of a packet, and whether anybody decided.
fn model(sublayer_weights: &[u8], filters: &[FilterPlan], packet: &Packet) -> (Verdict, bool) {
    let mut order: Vec<usize> = (0..sublayer_weights.len()).collect();
    order.sort_by_key(|s| std::cmp::Reverse(sublayer_weights[*s]));
    let mut action: Option<Verdict> = None;
    let mut overridable = true;
    for sublayer in order {
        let mut matching: Vec<&FilterPlan> =
            filters.iter().filter(|f| f.sublayer == sublayer && all_hold(&f.asks, packet)).collect();
        matching.sort_by_key(|f| std::cmp::Reverse(f.weight));
        for filter in matching {
            // (the action, whether it is a callout's, whether it leaves the right)
            let answer = match filter.kind {
                Kind::Permit => Some((Verdict::Permit, false, true)),
                Kind::HardPermit => Some((Verdict::Permit, false, false)),
                Kind::Block => Some((Verdict::Block, false, false)),
                Kind::Inspection => None,
                _ if !filter.registered && filter.permit_if_unregistered => Some((Verdict::Permit, false, true)),
                _ if !filter.registered => Some((Verdict::Block, false, false)),
                _ => filter.says.map(|says| (says, true, !filter.insists)),
            };
            let Some((says, callout, leaves_right)) = answer else { continue };
            if overridable {
                (action, overridable) = (Some(says), leaves_right);
            } else if callout {
                // Without the right a callout can only veto; anything else it writes does not count, and the next
                // filter of the sublayer is asked.
                if action == Some(Verdict::Permit) && says == Verdict::Block {
                    action = Some(Verdict::Block);
                } else {
                    continue;
                }
            }
            break;
        }
    }
    (action.unwrap_or(Verdict::Permit), action.is_some())
}

/// "All must be true"; consecutive conditions on one field are alternatives.
fn all_hold(asks: &[(usize, Ask)], packet: &Packet) -> bool {
    let mut i = 0;
    while i < asks.len() {
        let field = asks[i].0;
        let mut any = false;
        while i < asks.len() && asks[i].0 == field {
            any |= asks[i].1.holds(field, packet[field]);
            i += 1;
        }
        if !any {
            return false;
        }
    }
    true
}

fn ask() -> impl Strategy<Value = Ask> {
    // A small domain, so that conditions hold often enough to matter.
    let n = || 0u8..8;
    prop_oneof![
        n().prop_map(Ask::Equal),
        n().prop_map(Ask::Equal),
        n().prop_map(Ask::NotEqual),
        n().prop_map(Ask::Greater),
        n().prop_map(Ask::Less),
        n().prop_map(Ask::AtLeast),
        n().prop_map(Ask::AtMost),
        (n(), n()).prop_map(|(a, b)| Ask::Between(a, b)),
        n().prop_map(Ask::AllOf),
        n().prop_map(Ask::AnyOf),
        n().prop_map(Ask::NoneOf),
        (n(), 0u8..4).prop_map(|(n, bits)| Ask::Masked(n, bits)),
    ]
}

fn filter(sublayers: usize) -> impl Strategy<Value = FilterPlan> {
    let kind = prop_oneof![
        Just(Kind::Permit),
        Just(Kind::HardPermit),
        Just(Kind::Block),
        Just(Kind::Terminating),
        Just(Kind::Unknown),
        Just(Kind::Unknown),
        Just(Kind::Inspection),
    ];
    let says = prop_oneof![Just(None), Just(Some(Verdict::Permit)), Just(Some(Verdict::Block))];
    let asks = proptest::collection::vec((0..FIELDS.len(), ask()), 0..4);
    let bools = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>());
    (0..sublayers, asks, kind, bools, says).prop_map(|(sublayer, asks, kind, bools, says)| {
        let (registered, permit_if_unregistered, insists) = bools;
        FilterPlan { sublayer, weight: 0, asks, kind, registered, permit_if_unregistered, says, insists }
    })
}

/// Sublayers of distinct weights, and filters of distinct weights: equal ones have no documented order.
fn policy() -> impl Strategy<Value = (Vec<u8>, Vec<FilterPlan>)> {
    let weights = proptest::sample::subsequence((1u8..=9).collect::<Vec<_>>(), 1..=4).prop_shuffle();
    weights.prop_flat_map(|weights| {
        let filters = proptest::collection::vec(filter(weights.len()), 0..12);
        (Just(weights), filters, any::<u64>()).prop_map(|(weights, mut filters, seed)| {
            for (i, filter) in filters.iter_mut().enumerate() {
                // A permutation: odd multipliers modulo 256.
                filter.weight = (i as u8).wrapping_mul((seed | 1) as u8);
            }
            (weights, filters)
        })
    })
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let value = prop::option::weighted(0.9, 0u8..8);
    proptest::collection::vec(proptest::array::uniform5(value), 1..8)
}

/// The policy in a real platform.
fn build(rig: &Rig, weights: &[u8], filters: &[FilterPlan]) {
    let session = rig.session();
    let registered = rig.callout(&session);
    let unregistered = rig.key();
    rig.add_callout(&session, unregistered, LAYER);
    session.begin(false).expect("nobody else");
    let sublayers: Vec<_> = weights.iter().map(|weight| rig.sublayer(&session, (*weight).into())).collect();
    for plan in filters {
        let mut filter = rig.filter(match plan.kind {
            Kind::Permit | Kind::HardPermit => FWP_ACTION_PERMIT,
            Kind::Block => FWP_ACTION_BLOCK,
            Kind::Terminating => FWP_ACTION_CALLOUT_TERMINATING,
            Kind::Unknown => FWP_ACTION_CALLOUT_UNKNOWN,
            Kind::Inspection => FWP_ACTION_CALLOUT_INSPECTION,
        });
        filter.sublayer = sublayers[plan.sublayer];
        filter.weight = Weight::Exact(plan.weight.into());
        filter.conditions = plan.asks.iter().map(|(field, ask)| ask.as_condition(rig, *field)).collect();
        if plan.kind == Kind::HardPermit {
            filter.flags = FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT;
        }
        if matches!(plan.kind, Kind::Terminating | Kind::Unknown | Kind::Inspection) {
            filter.action_key = if plan.registered { registered } else { unregistered };
            if plan.permit_if_unregistered && plan.kind != Kind::Inspection {
                filter.flags = FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED;
            }
            let action = plan.says.map(|says| match says {
                Verdict::Permit => FWP_ACTION_PERMIT,
                Verdict::Block => FWP_ACTION_BLOCK,
            });
            let script = Script { action, clear_right: plan.insists, ..Script::default() };
            filter.context = rig.script(&Arc::new(script));
        }
        rig.add(&session, filter);
    }
    session.commit().expect("nothing refuses");
}

fn ask_engine(rig: &Rig, packet: &Packet) -> (Verdict, bool) {
    let layer = rig.engine.layers().get(LAYER).expect("there");
    let mut incoming = Incoming::new(layer.fields.len());
    for ((name, _), value) in FIELDS.iter().zip(packet) {
        let index = layer.field_index(name).expect("a field of the layer");
        let Some(value) = *value else { continue };
        match *name {
            "IP_REMOTE_PORT" => incoming.u16(index, value.into()),
            "IP_PROTOCOL" => incoming.u8(index, value),
            "IP_REMOTE_ADDRESS" => incoming.u32(index, value.into()),
            "IP_LOCAL_INTERFACE" => incoming.u64(index, value.into()),
            _ => incoming.blob(index, Arc::new(Blob::new(vec![value]))),
        }
    }
    let outcome = rig.classify_values(LAYER, incoming.values(), None);
    (outcome.verdict, outcome.decided)
}

/// What [`explain`] finds for a packet. With `open`, the fields and callouts whose bit is set in it are not known.
fn explained(rig: &Rig, weights: &[u8], plans: &[FilterPlan], packet: &Packet, open: Option<u32>) -> Vec<Standing> {
    let hidden = |bit: usize| open.is_some_and(|open| open >> bit & 1 == 1);
    let mut facts = Facts::new(rig.engine.layers().get(LAYER).expect("there"));
    for (bit, ((name, make), value)) in FIELDS.iter().zip(packet).enumerate() {
        match value {
            _ if hidden(bit) => {}
            Some(value) => facts.set(name, make(*value)),
            None => facts.set_empty(name),
        }
    }
    let candidate = |bit: usize, plan: &FilterPlan| Candidate {
        conditions: plan.asks.iter().map(|(field, ask)| Some(ask.as_condition(rig, *field))).collect(),
        clears_right: plan.kind == Kind::HardPermit,
        permits_unregistered: plan.permit_if_unregistered,
        act: match plan.kind {
            Kind::Permit | Kind::HardPermit => Act::Permit,
            Kind::Block => Act::Block,
            kind => Act::Callout {
                inspection: kind == Kind::Inspection,
                answer: match plan.says {
                    _ if !plan.registered => Answer::Unregistered,
                    _ if hidden(bit + FIELDS.len()) => Answer::Unknown,
                    None => Answer::Nothing,
                    Some(verdict) => Answer::Decides { verdict, hard: plan.insists },
                },
            },
        },
    };
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|s| std::cmp::Reverse(weights[*s]));
    let sublayers: Vec<Vec<Candidate>> = order
        .iter()
        .map(|s| {
            let mut own: Vec<(usize, &FilterPlan)> =
                plans.iter().enumerate().filter(|(_, f)| f.sublayer == *s).collect();
            own.sort_by_key(|(_, plan)| std::cmp::Reverse(plan.weight));
            own.into_iter().map(|(bit, plan)| candidate(bit, plan)).collect()
        })
        .collect();
    explain(&facts, &sublayers).pop().map_or_else(|| vec![Standing::default()], |last| last.after)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 400 }, ..ProptestConfig::default() })]
    #[test]
    fn the_engine_agrees_with_the_model((weights, filters) in policy(), packets in packets()) {
        let rig = Rig::new();
        build(&rig, &weights, &filters);
        for packet in &packets {
            prop_assert_eq!(ask_engine(&rig, packet), model(&weights, &filters, packet), "packet {:?}", packet);
        }
    }

    /// With all known there is one outcome, the engine's; with less known it is among those that are possible.
    #[test]
    fn what_is_explained_is_what_the_engine_does(
        (weights, filters) in policy(),
        packets in packets(),
        open in any::<u32>(),
    ) {
        let rig = Rig::new();
        build(&rig, &weights, &filters);
        for packet in &packets {
            let happens = ask_engine(&rig, packet);
            let of = |one: &Standing| (one.verdict, one.decided);
            let known = explained(&rig, &weights, &filters, packet, None);
            prop_assert_eq!(known.iter().map(of).collect::<Vec<_>>(), vec![happens], "packet {:?}", packet);
            let possible = explained(&rig, &weights, &filters, packet, Some(open));
            prop_assert!(possible.iter().any(|one| of(one) == happens), "{:?} not in {:?}", happens, possible);
        }
    }
}
