//! Data flows and the contexts that callouts hang on them.

use super::abi::FlowDeleteFn;
use super::callout::CalloutSlot;
use super::layers::LayerId;
use crate::status::NtStatus;
use crate::trace::{self, Argument, Callback};
use crate::verifier::callback;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// One data flow: what a connection is to the filter engine.
pub struct Flow {
    id: u64,
    aborted: AtomicBool,
    /// How many contexts there are, readable without the lock: most flows have none at most layers.
    count: AtomicUsize,
    /// Whether `allowed` holds anything, readable without the lock.
    any_allowed: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ended: bool,
    contexts: Vec<Context>,
    /// Callouts that let the rest of the stream pass uninspected (FWPS_STREAM_ACTION_ALLOW_CONNECTION).
    allowed: Vec<u32>,
}

struct Context {
    layer: LayerId,
    callout: Arc<CalloutSlot>,
    value: u64,
    flow_delete: FlowDeleteFn,
    /// How many classify calls of this callout are running on this flow at this layer.
    classifying: u32,
    /// The context goes as soon as nobody classifies: a removal was asked for, or the flow ended.
    removed: bool,
}

impl Context {
    fn is(&self, layer: LayerId, callout_id: u32) -> bool {
        self.layer == layer && self.callout.id() == callout_id
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("id", &self.id)
            .field("contexts", &self.count.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// A context handed to a classifyFn; given back with [`Flow::leave`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) value: u64,
    layer: LayerId,
    callout_id: u32,
}

/// A flowDeleteFn to call, once no lock is held.
pub(super) struct Deletion {
    layer: LayerId,
    callout: Arc<CalloutSlot>,
    value: u64,
    flow_delete: FlowDeleteFn,
}

impl Deletion {
    fn of(context: Context) -> Self {
        let Context { layer, callout, value, flow_delete, .. } = context;
        Self { layer, callout, value, flow_delete }
    }

    /// Calls the driver. Must run on a simulated processor.
    ///
    /// The callout counts as carrying the context until its flowDeleteFn has returned, so that a driver cannot be gone
    /// while it runs.
    pub(super) fn run(self) {
        let Self { layer, callout, value, flow_delete } = self;
        let id = callout.id();
        // An abandoned stack drops nothing, so the callout is borrowed, not owned, while the driver runs.
        let callout: *const CalloutSlot = Arc::into_raw(callout);
        let name = callback::At("flowDeleteFn", flow_delete as usize as u64);
        // SAFETY: the driver registered this function for its flow contexts, and cannot unload before the count below
        // has fallen (unregistering answers DEVICE_BUSY until then).
        let call = || callback::call(&name, || unsafe { flow_delete(layer.0, id, value) });
        let describe = || {
            let arguments = vec![
                Argument::new("layer", format_args!("{layer:?}")),
                Argument::new("calloutId", id),
                Argument::new("flowContext", format_args!("{value:#x}")),
            ];
            Callback::new("flowDeleteFn", flow_delete as *const () as u64, arguments)
        };
        trace::callback(describe, call, |()| String::new());
        // SAFETY: from `into_raw` above, taken back once.
        unsafe { Arc::from_raw(callout) }.count_flow_context(false);
    }
}

impl Flow {
    /// The handle: `flowHandle` in the metadata.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether a callout aborted the flow (FwpsFlowAbort0); whoever carries the connection must reset it.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Whether a stream callout has said that it need not see the rest of the stream.
    pub(super) fn is_allowed(&self, callout_id: u32) -> bool {
        self.any_allowed.load(Ordering::Acquire) && self.inner.lock().allowed.contains(&callout_id)
    }

    pub(super) fn allow(&self, callout_id: u32) {
        let mut inner = self.inner.lock();
        if !inner.allowed.contains(&callout_id) {
            inner.allowed.push(callout_id);
            self.any_allowed.store(true, Ordering::Release);
        }
    }

    /// How many contexts callouts have with this flow.
    #[must_use]
    pub fn context_count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The context of a callout, held until [`Self::leave`].
    #[inline]
    pub(super) fn enter(&self, layer: LayerId, callout_id: u32) -> Option<Lease> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut inner = self.inner.lock();
        let context = inner.contexts.iter_mut().find(|c| c.is(layer, callout_id) && !c.removed)?;
        context.classifying += 1;
        Some(Lease { value: context.value, layer, callout_id })
    }

    /// Gives a context back; what it returns must be run.
    #[must_use]
    pub(super) fn leave(&self, lease: Lease) -> Option<Deletion> {
        let mut inner = self.inner.lock();
        // A context that was removed while it was leased and a new one for the same callout may both be here: the
        // leased one is known by its value too.
        let leased = |c: &Context| c.is(lease.layer, lease.callout_id) && c.value == lease.value && c.classifying > 0;
        let index = inner.contexts.iter().position(leased)?;
        let context = &mut inner.contexts[index];
        context.classifying -= 1;
        (context.removed && context.classifying == 0).then(|| self.take(&mut inner, index))
    }

    fn take(&self, inner: &mut Inner, index: usize) -> Deletion {
        self.count.fetch_sub(1, Ordering::AcqRel);
        Deletion::of(inner.contexts.swap_remove(index))
    }
}

/// The flows of a machine.
#[derive(Debug)]
pub struct Flows {
    by_id: RwLock<HashMap<u64, Arc<Flow>>>,
    next_id: AtomicU64,
}

impl Default for Flows {
    fn default() -> Self {
        // Handles use all 64 bits on Windows, and so here: a driver that cuts one to 32 must fail.
        Self { by_id: RwLock::default(), next_id: AtomicU64::new(0x0001_0000_0000_0001) }
    }
}

impl Flows {
    /// A new flow.
    #[must_use]
    pub fn create(&self) -> Arc<Flow> {
        let flow = Arc::new(Flow {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            aborted: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            any_allowed: AtomicBool::new(false),
            inner: Mutex::default(),
        });
        self.by_id.write().insert(flow.id, flow.clone());
        flow
    }

    /// A flow by its handle.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Flow>> {
        self.by_id.read().get(&id).cloned()
    }

    /// How many flows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.read().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a flow: every callout with a context is told through its flowDeleteFn, at once or, if it is classifying on
    /// this flow, when it is done.
    ///
    /// Must run on a simulated processor, at DISPATCH_LEVEL or below.
    pub fn terminate(&self, flow: &Arc<Flow>) {
        self.by_id.write().remove(&flow.id);
        flow.inner.lock().ended = true;
        loop {
            // One at a time: between two calls into drivers nothing is owned that an abandoned stack would leak.
            let deletion = {
                let mut inner = flow.inner.lock();
                for context in &mut inner.contexts {
                    context.removed = true;
                }
                let idle = inner.contexts.iter().position(|context| context.classifying == 0);
                idle.map(|index| flow.take(&mut inner, index))
            };
            match deletion {
                Some(deletion) => deletion.run(),
                None => break,
            }
        }
    }

    /// FwpsFlowAssociateContext0. The statuses are those of its documentation, which does not say what an unknown flow
    /// gets; it is `INVALID_PARAMETER` here.
    pub(super) fn associate(&self, id: u64, layer: LayerId, callout: Option<Arc<CalloutSlot>>, value: u64) -> NtStatus {
        let Some(callout) = callout else { return NtStatus::INVALID_PARAMETER };
        let Some(entered) = callout.enter() else { return NtStatus::INVALID_PARAMETER };
        let flow_delete = entered.registration.flow_delete;
        let status = match (flow_delete, self.get(id)) {
            (Some(flow_delete), Some(flow)) if value != 0 => {
                let mut inner = flow.inner.lock();
                if inner.ended {
                    NtStatus::INVALID_PARAMETER
                } else if inner.contexts.iter().any(|c| c.is(layer, callout.id()) && !c.removed) {
                    NtStatus::OBJECT_NAME_EXISTS
                } else {
                    callout.count_flow_context(true);
                    flow.count.fetch_add(1, Ordering::AcqRel);
                    let callout = callout.clone();
                    inner.contexts.push(Context { layer, callout, value, flow_delete, classifying: 0, removed: false });
                    NtStatus::SUCCESS
                }
            }
            _ => NtStatus::INVALID_PARAMETER,
        };
        entered.leave();
        status
    }

    /// FwpsFlowRemoveContext0: `SUCCESS` when flowDeleteFn has been called, `PENDING` when it will be, once the callout
    /// is done classifying on the flow, `UNSUCCESSFUL` when there is no context.
    ///
    /// Must run on a simulated processor.
    pub(super) fn remove(&self, id: u64, layer: LayerId, callout_id: u32) -> NtStatus {
        let Some(flow) = self.get(id) else { return NtStatus::UNSUCCESSFUL };
        let deletion = {
            let mut inner = flow.inner.lock();
            let found = inner.contexts.iter().position(|c| c.is(layer, callout_id) && !c.removed);
            let Some(index) = found else { return NtStatus::UNSUCCESSFUL };
            inner.contexts[index].removed = true;
            (inner.contexts[index].classifying == 0).then(|| flow.take(&mut inner, index))
        };
        match deletion {
            Some(deletion) => {
                deletion.run();
                NtStatus::SUCCESS
            }
            None => NtStatus::PENDING,
        }
    }

    /// FwpsFlowAbort0.
    pub(super) fn abort(&self, id: u64) -> NtStatus {
        match self.get(id) {
            Some(flow) => {
                flow.aborted.store(true, Ordering::Release);
                NtStatus::SUCCESS
            }
            None => NtStatus::INVALID_PARAMETER,
        }
    }

    /// How many contexts all flows carry.
    #[must_use]
    pub fn context_count(&self) -> usize {
        self.by_id.read().values().map(|flow| flow.context_count()).sum()
    }
}
