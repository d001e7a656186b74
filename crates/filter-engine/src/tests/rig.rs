//! What the tests stand on: an engine, sessions, and callouts that do what a script says.

use crate::bfe::{Callout, DisplayData, Filter, FilterContext, Session, SessionOptions, Sublayer};
use crate::callout::{CalloutFunctions, ClassifyCall, Registration};
use crate::condition::{Condition, ConditionValue};
use crate::flow::Flow;
use crate::layers::{self, LayerId};
use crate::names::SUBLAYER_UNIVERSAL;
use crate::{BfeResult, Classify, CompiledFilter, FilterEngine, LayerData, Outcome};
use nt_abi::NtStatus;
use nt_abi::fwp::value::{Incoming, Value};
use nt_abi::fwp::{FwpsClassifyOut0, FwpsIncomingMetadataValues0, consts};
use parking_lot::Mutex;
use sluice_host::{Guid, MatchType, Weight};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The layer most tests use.
pub(super) const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

/// What a scripted callout does, and what it saw. A filter's context is its number.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// The action to write; `None` leaves classifyOut alone.
    pub(super) action: Option<u32>,
    /// Clear FWPS_RIGHT_ACTION_WRITE.
    pub(super) clear_right: bool,
    /// classifyOut.flags to set.
    pub(super) flags: u32,
    /// What classifyOut and the flow context were at each call.
    pub(super) seen: Mutex<Vec<Seen>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) action: u32,
    pub(super) rights: u32,
    pub(super) flow_context: u64,
}

impl Script {
    pub(super) fn says(action: u32) -> Arc<Self> {
        Arc::new(Self { action: Some(action), ..Self::default() })
    }

    /// Says so and takes the right to change it.
    pub(super) fn insists(action: u32) -> Arc<Self> {
        Arc::new(Self { action: Some(action), clear_right: true, ..Self::default() })
    }

    pub(super) fn silent() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn calls(&self) -> usize {
        self.seen.lock().len()
    }

    fn play(&self, flow_context: u64, out: &mut FwpsClassifyOut0) {
        self.seen.lock().push(Seen { action: out.action_type, rights: out.rights, flow_context });
        if let Some(action) = self.action {
            out.action_type = action;
        }
        if self.clear_right {
            out.rights &= !consts::FWPS_RIGHT_ACTION_WRITE;
        }
        out.flags |= self.flags;
    }
}

type Classifies = dyn Fn(&ClassifyCall<'_>, &mut FwpsClassifyOut0) + Send + Sync;
type Notified = dyn Fn(u32, Option<Guid>, &CompiledFilter) -> NtStatus + Send + Sync;
type Deletes = dyn Fn(LayerId, u32, u64) + Send + Sync;

/// A callout made of closures.
pub(super) struct Functions {
    pub(super) classify: Box<Classifies>,
    pub(super) notify: Box<Notified>,
    pub(super) deleted: Option<Box<Deletes>>,
}

impl CalloutFunctions for Functions {
    fn classify(&self, call: &ClassifyCall<'_>, out: &mut FwpsClassifyOut0) {
        (self.classify)(call, out);
    }

    fn notify(&self, kind: u32, key: Option<Guid>, filter: &CompiledFilter) -> NtStatus {
        (self.notify)(kind, key, filter)
    }

    fn delete_flow_context(&self, layer: LayerId, callout_id: u32, context: u64) {
        self.deleted.as_ref().expect("it has contexts only with one")(layer, callout_id, context);
    }
}

/// An engine and what is asked of it.
pub(super) struct Rig {
    pub(super) engine: Arc<FilterEngine>,
    next_key: AtomicU32,
    scripts: Arc<Mutex<Vec<Arc<Script>>>>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self { engine: Arc::default(), next_key: AtomicU32::new(1), scripts: Arc::default() }
    }

    pub(super) fn session(&self) -> Session {
        Session::open(&self.engine, SessionOptions { wait_ms: 50, ..SessionOptions::default() })
    }

    pub(super) fn dynamic_session(&self) -> Session {
        Session::open(&self.engine, SessionOptions { dynamic: true, wait_ms: 50, ..SessionOptions::default() })
    }

    pub(super) fn key(&self) -> Guid {
        Guid(u128::from(self.next_key.fetch_add(1, Ordering::Relaxed)) << 96)
    }

    pub(super) fn layer_key(&self, layer: LayerId) -> Guid {
        self.engine.layers().get(layer).expect("a layer of the table").key
    }

    pub(super) fn sublayer(&self, session: &Session, weight: u16) -> Guid {
        let key = self.key();
        let display = DisplayData::new("sublayer", "");
        let sublayer = Sublayer { key, display, flags: 0, provider: None, data: Vec::new(), weight };
        session.add_sublayer(sublayer).expect("a good sublayer");
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

    /// The context of a filter that a script is played for.
    pub(super) fn script(&self, script: &Arc<Script>) -> FilterContext {
        let mut scripts = self.scripts.lock();
        scripts.push(script.clone());
        FilterContext::Raw(scripts.len() as u64)
    }

    /// Functions that play the scripts of the filters, take every filter and leave flow contexts alone.
    pub(super) fn functions(&self) -> Functions {
        let scripts = self.scripts.clone();
        Functions {
            classify: Box::new(move |call, out| {
                assert!(call.fixed.value_count > 0);
                let script = scripts.lock()[call.filter.context() as usize - 1].clone();
                script.play(call.flow_context, out);
            }),
            notify: Box::new(|_, _, _| NtStatus::SUCCESS),
            deleted: Some(Box::new(super::flows::deleted)),
        }
    }

    /// Registers a callout as a driver does; returns its run-time id.
    pub(super) fn register(&self, key: Guid, flags: u32, functions: Functions) -> BfeResult<u32> {
        let has_flow_delete = functions.deleted.is_some();
        self.engine.callouts.register(key, Registration { flags, has_flow_delete, functions: Arc::new(functions) })
    }

    /// A callout of both sides at a layer: registered, with scripted functions, and added.
    pub(super) fn callout_at(&self, session: &Session, layer: LayerId, flags: u32) -> Guid {
        let key = self.key();
        self.register(key, flags, self.functions()).expect("a good registration");
        self.add_callout(session, key, layer);
        key
    }

    pub(super) fn callout(&self, session: &Session) -> Guid {
        self.callout_at(session, LAYER, 0)
    }

    pub(super) fn add_callout(&self, session: &Session, key: Guid, layer: LayerId) {
        let display = DisplayData::new("callout", "");
        let layer = self.layer_key(layer);
        let callout = Callout { key, display, flags: 0, provider: None, data: Vec::new(), layer };
        session.add_callout(callout).expect("a good callout");
    }

    pub(super) fn add(&self, session: &Session, filter: Filter) -> u64 {
        session.add_filter(filter).expect("a good filter")
    }

    /// Classifies a connection to 192.0.2.1:443 over TCP.
    pub(super) fn classify(&self) -> Outcome {
        self.classify_flow(LAYER, None)
    }

    pub(super) fn classify_flow(&self, layer: LayerId, flow: Option<&Arc<Flow>>) -> Outcome {
        let table = self.engine.layers().get(layer).expect("a layer of the table");
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
        self.engine.classify(&c)
    }

    /// A condition on a field of [`LAYER`], by name.
    pub(super) fn condition(&self, field: &str, match_type: MatchType, value: ConditionValue) -> Condition {
        let field = layers::condition(field).expect("a condition of the table");
        Condition { field, match_type, value }
    }
}
