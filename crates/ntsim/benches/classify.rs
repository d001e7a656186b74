//! What the filter engine adds to a callout: the time of a classify call over that of the callout function alone.
//!
//! `cargo bench -p ntsim --bench classify` prints a table. The callout is empty, so that the engine is measured: the
//! snapshot, the conditions, the arbitration and the call. The cases take turns within each round, so that other load
//! affects them all; the medians of the rounds are printed.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use core::ffi::c_void;
use core::hint::black_box;
use core::ptr::{null, null_mut};
use filter_engine::flow::Flow;
use filter_engine::layers::LayerId;
use filter_engine::{Classify, LayerData};
use nt_abi::Irql;
use nt_abi::fwp::value::{Incoming, Value};
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0, RawGuid,
};
use ntsim::cpu;
use ntsim::export::{Entry, all};
use ntsim::fwpkclnt::UserSession;
use ntsim::fwpkclnt::fwps::callout::ClassifyFn1;
use ntsim::machine::Machine;
use sluice_host::{
    Callout, Condition, ConditionValue, Engine, Filter, FilterAction, Guid, MatchType, Sublayer, Weight,
};
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 61;
const CALLS: u32 = 20_000;
const LAYER: LayerId = LayerId::OUTBOUND_TRANSPORT_V4;

unsafe extern "win64" fn empty(
    _fixed: *const FwpsIncomingValues0,
    _metadata: *const FwpsIncomingMetadataValues0,
    _layer_data: *mut c_void,
    _context: *const c_void,
    _filter: *const FwpsFilter0,
    _flow_context: u64,
    _out: *mut FwpsClassifyOut0,
) {
}

extern "win64" fn notify(_: u32, _: *const RawGuid, _: *mut FwpsFilter0) -> i32 {
    0
}

extern "win64" fn flow_delete(_: u16, _: u32, _: u64) {}

fn export(name: &str) -> *const () {
    let found = all().find(|export| export.name == name).expect("an export of fwpkclnt.sys");
    match found.entry {
        Entry::Function(address) => address,
        Entry::Variable(_) => panic!("{name} is a function"),
    }
}

/// A machine with sublayers that hold one callout filter each.
struct Case {
    name: &'static str,
    machine: Arc<Machine>,
    flow: Option<Arc<Flow>>,
}

fn case(name: &'static str, sublayers: u16, conditions: &[Condition], with_context: bool) -> Case {
    let machine = Machine::new();
    let layer = machine.wfp.engine.layers().get(LAYER).expect("a layer of the table").key;
    let key = Guid(1);
    let raw = FwpsCallout0 {
        callout_key: key.into(),
        flags: 0,
        classify_fn: empty as *const c_void,
        notify_fn: notify as *const c_void,
        flow_delete_fn: flow_delete as *const c_void,
    };
    let mut callout_id = 0u32;
    let flow = with_context.then(|| machine.wfp.engine.flows.create());
    cpu::enter(&machine, Irql::PASSIVE, || {
        // SAFETY: the prototypes of the two imports; the structures live for the calls.
        unsafe {
            let register: extern "win64" fn(*mut c_void, *const FwpsCallout0, *mut u32) -> i32 =
                core::mem::transmute(export("FwpsCalloutRegister3"));
            assert_eq!(register(null_mut(), &raw, &mut callout_id), 0);
            if let Some(flow) = &flow {
                let associate: extern "win64" fn(u64, u16, u32, u64) -> i32 =
                    core::mem::transmute(export("FwpsFlowAssociateContext0"));
                assert_eq!(associate(flow.id(), LAYER.0, callout_id, 1), 0);
            }
        }
    })
    .expect("no bugcheck");
    let mut session = UserSession::open(&machine, false);
    let named = |name: &str| (name.to_owned(), String::new());
    let (text, description) = named("bench");
    let callout =
        Callout { key, name: text.clone(), description: description.clone(), persistent: false, provider: None, layer };
    session.add_callout(&callout).expect("a good callout");
    for i in 0..sublayers {
        let sublayer = Guid(100 + u128::from(i));
        let new = Sublayer {
            key: sublayer,
            name: text.clone(),
            description: description.clone(),
            persistent: false,
            provider: None,
            weight: 100 + i,
        };
        session.add_sublayer(&new).expect("a good sublayer");
        let filter = Filter {
            key: None,
            name: text.clone(),
            description: description.clone(),
            flags: 0,
            provider: None,
            layer,
            sublayer,
            weight: Weight::Auto,
            conditions: conditions.to_vec(),
            action: FilterAction::CalloutUnknown(key),
        };
        session.add_filter(&filter).expect("a good filter");
    }
    Case { name, machine, flow }
}

fn condition(name: &str, match_type: MatchType, value: ConditionValue) -> Condition {
    Condition { field: filter_engine::layers::condition(name).expect("a condition of the table"), match_type, value }
}

/// Nanoseconds per call of `CALLS` calls.
fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn bare(values: &[Value<'_>], metadata: &FwpsIncomingMetadataValues0) -> f64 {
    let function: ClassifyFn1 = black_box(empty);
    let fixed = FwpsIncomingValues0 {
        layer_id: LAYER.0,
        value_count: values.len() as u32,
        incoming_value: values.as_ptr().cast(),
    };
    let mut out = FwpsClassifyOut0::default();
    // SAFETY: the function reads and writes nothing.
    time(|| unsafe { function(&fixed, metadata, null_mut(), null(), null(), 0, black_box(&mut out)) })
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    let range = ConditionValue::Range {
        low: Box::new(ConditionValue::Uint16(1)),
        high: Box::new(ConditionValue::Uint16(1024)),
    };
    let four = [
        condition("IP_PROTOCOL", MatchType::Equal, ConditionValue::Uint8(6)),
        condition(
            "IP_REMOTE_ADDRESS",
            MatchType::Equal,
            ConditionValue::V4AddrMask { addr: 0xC000_0200, mask: 0xFFFF_FF00 },
        ),
        condition("IP_REMOTE_PORT", MatchType::Range, range),
        condition("IP_LOCAL_PORT", MatchType::Greater, ConditionValue::Uint16(1024)),
    ];
    let cases = [
        case("one filter", 1, &[], false),
        case("one filter, four conditions", 1, &four, false),
        case("one filter, flow context", 1, &[], true),
        case("four sublayers", 4, &[], false),
    ];
    let table = cases[0].machine.wfp.engine.layers().get(LAYER).expect("a layer of the table");
    let mut incoming = Incoming::new(table.fields.len());
    let at = |name| table.field_index(name).expect("a field of the layer");
    incoming.u8(at("IP_PROTOCOL"), 6);
    incoming.u32(at("IP_REMOTE_ADDRESS"), 0xC000_0207);
    incoming.u16(at("IP_REMOTE_PORT"), 443);
    incoming.u16(at("IP_LOCAL_PORT"), 50_000);
    let metadata = FwpsIncomingMetadataValues0::default();
    let mut bare_samples = Vec::new();
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        bare_samples.push(bare(incoming.values(), &metadata));
        for (case, samples) in cases.iter().zip(&mut samples) {
            let c = Classify {
                layer: LAYER,
                values: incoming.values(),
                metadata: &metadata,
                layer_data: LayerData::None,
                flow: case.flow.as_ref(),
                request: None,
            };
            let elapsed = cpu::enter(&case.machine, Irql::DISPATCH, || {
                time(|| {
                    black_box(&case.machine.wfp.classify(black_box(&c), 0, None));
                })
            });
            samples.push(elapsed.expect("no bugcheck"));
        }
    }
    let bare = median(bare_samples);
    println!("{:<32} {:>8} {:>12}", "case", "ns/call", "over bare");
    println!("{:<32} {bare:>8.1} {:>12}", "the callout alone", "");
    for (case, samples) in cases.iter().zip(samples) {
        let total = median(samples);
        println!("{:<32} {total:>8.1} {:>12.1}", case.name, total - bare);
    }
}
