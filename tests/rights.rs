//! Every combination of what an earlier sublayer decided, and what the policy says, at each layer that decides packets
//! and connections by their fields: the real driver's answer, against the tables of "Filter Arbitration" (win32,
//! desktop-src/FWP/filter-arbitration.md) written down once more.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use filter_engine::{Classify, LayerData, Verdict, layers::LayerId};
use nt_abi::{
    Irql,
    fwp::{FwpsIncomingMetadataValues0, value::Incoming},
};
use ntsim::cpu;
use sluice_host::{Filter, FilterAction, Guid, Host, Sublayer, Weight};
use sluice_protocol::object::{LAYERS, LayerForm, Point, SUBLAYER_WEIGHT};
use support::Rig;

/// FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT (fwpmtypes.h).
const CLEAR_ACTION_RIGHT: u32 = 0x8;
/// An earlier sublayer's filters.
const EARLIER: Guid = Guid(0x1111_2222_3333_4444_5555_6666_7777_8888);

/// What the earlier sublayer decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Permit { hard: bool },
    Block,
}

/// What the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    Nothing,
    Permit { hard: bool },
    Block { hard: bool, silent: bool },
}

/// What comes of it: the verdict, whether it is hard, a veto, and silent.
type Met = (Verdict, bool, bool, bool);

/// The tables: a soft decision can be replaced, a hard permit only by a block (a veto), a hard block by nothing.
fn expected(before: Before, ours: Ours, absorbs: bool) -> Met {
    use Verdict::{Block, Permit};
    match (before, ours) {
        (Before::Nothing, Ours::Nothing) => (Permit, false, false, false),
        (Before::Permit { hard }, Ours::Nothing) => (Permit, hard, false, false),
        (Before::Block, _) => (Block, true, false, false),
        (Before::Permit { hard: true }, Ours::Permit { .. }) => (Permit, true, false, false),
        (_, Ours::Permit { hard }) => (Permit, hard, false, false),
        (Before::Permit { hard: true }, Ours::Block { silent, .. }) => (Block, true, true, silent && absorbs),
        (_, Ours::Block { hard, silent }) => (Block, hard, false, silent && absorbs),
    }
}

fn policy(ours: Ours, direction: &str) -> String {
    let (action, strength) = match ours {
        Ours::Nothing => return String::new(),
        Ours::Permit { hard } => ("permit", hard),
        Ours::Block { hard, silent: true } => ("drop", hard),
        Ours::Block { hard, silent: false } => ("block", hard),
    };
    let strength = if strength { "hard" } else { "soft" };
    format!("[[rule]]\naction = \"{action}\"\nstrength = \"{strength}\"\ndirection = \"{direction}\"\n")
}

fn earlier_filter(rig: &Rig, form: &LayerForm, before: Before) {
    let (action, flags) = match before {
        Before::Nothing => return,
        Before::Permit { hard } => (FilterAction::Permit, if hard { CLEAR_ACTION_RIGHT } else { 0 }),
        Before::Block => (FilterAction::Block, CLEAR_ACTION_RIGHT),
    };
    let mut engine = rig.host.open_engine().expect("the engine opens");
    let filter = Filter {
        key: None,
        name: "earlier".into(),
        description: String::new(),
        flags,
        provider: None,
        layer: Guid(form.key),
        sublayer: EARLIER,
        weight: Weight::Auto,
        conditions: Vec::new(),
        action,
    };
    engine.add_filter(&filter).expect("the filter is added");
}

/// One packet or connection, without a flow, as the engine decides it.
fn classify(rig: &Rig, form: &LayerForm) -> (Met, u32) {
    let layer = LayerId(form.id);
    let table = rig.machine.wfp.engine.layers().get(layer).expect("a layer of the table");
    let mut values = Incoming::new(table.fields.len());
    let mut set = |name: &str, fill: &dyn Fn(&mut Incoming, usize)| {
        if let Some(field) = table.field_index(name) {
            fill(&mut values, field);
        }
    };
    // What has no connection is decided at the transport layers.
    set("IP_PROTOCOL", &|values, field| values.u8(field, if form.name.contains("TRANSPORT") { 47 } else { 6 }));
    let ipv6 = form.name.contains("_V6");
    let sides = [("LOCAL", 1), ("REMOTE", 2), ("SOURCE", 1), ("DESTINATION", 2)];
    for (side, last) in sides {
        let address = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        set(&format!("IP_{side}_ADDRESS"), &|values, field| {
            if ipv6 { values.bytes16(field, address) } else { values.u32(field, 0xCB00_7100 | u32::from(last)) }
        });
        set(&format!("IP_{side}_PORT"), &|values, field| values.u16(field, 4000 + u16::from(last)));
    }
    set("FLAGS", &|values, field| values.u32(field, 0));
    let metadata = FwpsIncomingMetadataValues0::default();
    let data = LayerData::None;
    let call =
        Classify { layer, values: values.values(), metadata: &metadata, layer_data: data, flow: None, request: None };
    let outcome = cpu::enter(&rig.machine, Irql::DISPATCH, || rig.machine.wfp.classify(&call, 0, None));
    let outcome = outcome.expect("no bugcheck");
    ((outcome.verdict, outcome.hard, outcome.vetoed, outcome.absorb), outcome.rights_violations)
}

#[test]
fn rights_are_honoured_in_every_combination() {
    let befores = [Before::Nothing, Before::Permit { hard: false }, Before::Permit { hard: true }, Before::Block];
    let hardness = [false, true];
    let blocks = hardness.into_iter().flat_map(|hard| hardness.map(|silent| Ours::Block { hard, silent }));
    let ours: Vec<_> =
        hardness.map(|hard| Ours::Permit { hard }).into_iter().chain(blocks).chain([Ours::Nothing]).collect();
    let mut combinations = 0;
    for layer in &LAYERS {
        let (direction, absorbs) = match layer.point {
            Point::Connect => ("outbound", false),
            Point::Accept => ("inbound", false),
            Point::OutboundTransport => ("outbound", true),
            Point::InboundTransport => ("inbound", true),
            Point::Forward => ("forward", false),
            Point::Bind => ("bind", false),
            Point::Listen => ("listen", false),
            // Observes; decides by content or by what a packet quotes (tests of names, tests/attack).
            Point::Established
            | Point::Stream
            | Point::Datagrams
            | Point::InboundDiscard
            | Point::OutboundIcmpError => {
                continue;
            }
        };
        for form in [&layer.v4, &layer.v6] {
            for before in befores {
                let rig = Rig::install();
                let sublayer = Sublayer {
                    key: EARLIER,
                    name: "earlier".into(),
                    description: String::new(),
                    persistent: false,
                    provider: None,
                    weight: SUBLAYER_WEIGHT + 1,
                };
                rig.host.open_engine().expect("the engine opens").add_sublayer(&sublayer).expect("it is added");
                earlier_filter(&rig, form, before);
                // Without a policy first: afterwards there is one.
                for ours in ours.iter().rev().copied() {
                    if ours != Ours::Nothing {
                        rig.load(&policy(ours, direction));
                    }
                    let (met, violations) = classify(&rig, form);
                    assert_eq!(met, expected(before, ours, absorbs), "{}: {before:?}, then {ours:?}", form.name);
                    assert_eq!(violations, 0, "{}: {before:?}, then {ours:?}", form.name);
                    combinations += 1;
                }
                rig.uninstall();
            }
        }
    }
    assert_eq!(combinations, 7 * 2 * 4 * 7);
}
