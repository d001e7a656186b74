//! A machine, a session, and callouts that do what the filter's context says.

use crate::cpu;
use crate::fwpkclnt::fwps::callout;
use crate::machine::Machine;
use core::ffi::c_void;
use filter_engine::BfeResult;
use filter_engine::bfe::{Callout, DisplayData, Filter, FilterContext, Session, SessionOptions, Sublayer};
use filter_engine::flow::Flow;
use filter_engine::layers::LayerId;
use filter_engine::names::SUBLAYER_UNIVERSAL;
use filter_engine::{Classify, LayerData, Outcome};
use nt_abi::Irql;
use nt_abi::NtStatus;
use nt_abi::fwp::value::{Incoming, Value};
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0, RawGuid,
};
use parking_lot::Mutex;
use sluice_host::{Guid, Weight};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The layer most tests use.
pub(super) const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

/// What a scripted callout does, and how often it was called. A filter's context points to it.
#[derive(Debug)]
pub(super) struct Script {
    /// The action to write.
    action: u32,
    calls: AtomicU32,
}

impl Script {
    pub(super) fn says(action: u32) -> Arc<Self> {
        Arc::new(Self { action, calls: AtomicU32::new(0) })
    }

    pub(super) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn play(&self, out: &mut FwpsClassifyOut0) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        out.action_type = self.action;
    }
}

pub(super) unsafe extern "win64" fn scripted(
    fixed: *const FwpsIncomingValues0,
    _metadata: *const FwpsIncomingMetadataValues0,
    _layer_data: *mut c_void,
    context: *const c_void,
    filter: *const FwpsFilter0,
    _flow_context: u64,
    out: *mut FwpsClassifyOut0,
) {
    assert!(!context.is_null());
    // SAFETY: the engine passes valid structures, and the filter's context is a script that the test keeps alive.
    unsafe {
        assert!((*fixed).value_count > 0);
        (*((*filter).context as *const Script)).play(&mut *out);
    }
}

/// The Vista form: no classify context.
pub(super) unsafe extern "win64" fn scripted0(
    _fixed: *const FwpsIncomingValues0,
    _metadata: *const FwpsIncomingMetadataValues0,
    _layer_data: *mut c_void,
    filter: *const FwpsFilter0,
    _flow_context: u64,
    out: *mut FwpsClassifyOut0,
) {
    // SAFETY: as above.
    unsafe { (*((*filter).context as *const Script)).play(&mut *out) };
}

pub(super) unsafe extern "win64" fn flow_delete(_: u16, _: u32, _: u64) {}

pub(super) unsafe extern "win64" fn notify_ok(_: u32, _: *const RawGuid, _: *mut FwpsFilter0) -> i32 {
    NtStatus::SUCCESS.0
}

/// The machine and a session on it.
pub(super) struct Rig {
    pub(super) machine: Arc<Machine>,
    next_key: AtomicU32,
    scripts: Mutex<Vec<Arc<Script>>>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self { machine: Machine::new(), next_key: AtomicU32::new(1), scripts: Mutex::default() }
    }

    /// Runs on a simulated processor.
    pub(super) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        cpu::enter(&self.machine, Irql::PASSIVE, f).expect("no bugcheck")
    }

    pub(super) fn session(&self) -> Session {
        Session::open(&self.machine.wfp.engine, SessionOptions { wait_ms: 50, ..SessionOptions::default() })
    }

    pub(super) fn key(&self) -> Guid {
        Guid(u128::from(self.next_key.fetch_add(1, Ordering::Relaxed)) << 96)
    }

    pub(super) fn layer_key(&self, layer: LayerId) -> Guid {
        self.machine.wfp.engine.layers().get(layer).expect("a layer of the table").key
    }

    pub(super) fn sublayer(&self, session: &Session, weight: u16) -> Guid {
        let key = self.key();
        let display = DisplayData::new("sublayer", "");
        let sublayer = Sublayer { key, display, flags: 0, provider: None, data: Vec::new(), weight };
        self.run(|| session.add_sublayer(sublayer)).expect("a good sublayer");
        key
    }

    /// A filter that matches everything at [`LAYER`].
    pub(super) fn filter(&self, action: u32) -> Filter {
        Filter {
            key: Guid(0),
            display: DisplayData::new("filter", ""),
            flags: 0,
            provider: None,
            data: Vec::new(),
            layer: self.layer_key(LAYER),
            sublayer: SUBLAYER_UNIVERSAL,
            weight: Weight::Auto,
            conditions: Vec::new(),
            action,
            action_key: Guid(0),
            context: FilterContext::Raw(0),
        }
    }

    /// The run-time context of a filter whose callout plays a script.
    pub(super) fn script(&self, script: &Arc<Script>) -> FilterContext {
        self.scripts.lock().push(script.clone());
        FilterContext::Raw(Arc::as_ptr(script) as u64)
    }

    pub(super) fn raw_callout(key: Guid, flags: u32) -> FwpsCallout0 {
        FwpsCallout0 {
            callout_key: key.into(),
            flags,
            classify_fn: scripted as *const c_void,
            notify_fn: notify_ok as *const c_void,
            flow_delete_fn: flow_delete as *const c_void,
        }
    }

    /// Registers a callout as a driver does; returns its run-time id.
    pub(super) fn register(&self, raw: &FwpsCallout0) -> BfeResult<u32> {
        // SAFETY: the functions above are of version 1 and later.
        let registration = unsafe { callout::registration(raw, 3) }?;
        self.machine.wfp.engine.callouts.register(raw.callout_key.into(), registration)
    }

    pub(super) fn add_callout(&self, session: &Session, key: Guid, layer: LayerId) {
        let display = DisplayData::new("callout", "");
        let layer = self.layer_key(layer);
        let callout = Callout { key, display, flags: 0, provider: None, data: Vec::new(), layer };
        self.run(|| session.add_callout(callout)).expect("a good callout");
    }

    pub(super) fn add(&self, session: &Session, filter: Filter) -> u64 {
        self.run(|| session.add_filter(filter)).expect("a good filter")
    }

    /// Classifies a connection to 192.0.2.1:443 over TCP.
    pub(super) fn classify(&self) -> Outcome {
        self.classify_flow(LAYER, None)
    }

    pub(super) fn classify_flow(&self, layer: LayerId, flow: Option<&Arc<Flow>>) -> Outcome {
        let table = self.machine.wfp.engine.layers().get(layer).expect("a layer of the table");
        let mut incoming = Incoming::new(table.fields.len());
        let mut set = |name: &str, set: fn(&mut Incoming, usize)| {
            if let Some(index) = table.field_index(name) {
                set(&mut incoming, index);
            }
        };
        set("IP_REMOTE_ADDRESS", |i, at| i.u32(at, 0xC000_0201));
        set("IP_REMOTE_PORT", |i, at| i.u16(at, 443));
        set("IP_PROTOCOL", |i, at| i.u8(at, 6));
        set("FLAGS", |i, at| i.u32(at, 0));
        self.classify_values(layer, incoming.values(), flow)
    }

    pub(super) fn classify_values(&self, layer: LayerId, values: &[Value<'_>], flow: Option<&Arc<Flow>>) -> Outcome {
        let metadata = FwpsIncomingMetadataValues0::default();
        let c = Classify { layer, values, metadata: &metadata, layer_data: LayerData::None, flow, request: None };
        self.run(|| self.machine.wfp.classify(&c, 0, None))
    }
}
