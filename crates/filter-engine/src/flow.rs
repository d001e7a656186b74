//! Data flows and the contexts that callouts associate with them.

use crate::callout::{CalloutFunctions, CalloutSlot};
use crate::layers::LayerId;
use nt_abi::NtStatus;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The most contexts of one flow; the next association fails with INSUFFICIENT_RESOURCES. Windows documents no limit.
const SLOTS: usize = 24;

/// One data flow: a connection, to the filter engine.
///
/// A classify call borrows a callout's context with one atomic addition and returns it with one subtraction; the lock
/// is for associating and removing.
pub struct Flow {
    id: u64,
    aborted: AtomicBool,
    /// How many slots were ever used; there is no context beyond them.
    used: AtomicUsize,
    slots: [Slot; SLOTS],
    /// Whether `allowed` is not empty, readable without the lock.
    any_allowed: AtomicBool,
    inner: Mutex<Inner>,
}

/// A context's slot, readable without the lock.
#[derive(Default)]
struct Slot {
    /// The layer and the callout's id; 0 when the slot is free.
    key: AtomicU64,
    value: AtomicU64,
    /// [`LIVE`], [`REMOVED`] and how many classify calls have, or are trying to get, the context.
    state: AtomicU32,
}

/// A context is in the slot.
const LIVE: u32 = 1 << 31;
/// To be deleted when no call has it: its removal was requested, or the flow ended.
const REMOVED: u32 = 1 << 30;
/// The bits of the count.
const COUNT: u32 = REMOVED - 1;

#[derive(Default)]
struct Inner {
    ended: bool,
    /// The owner of the context in each slot.
    owners: [Option<Owner>; SLOTS],
    /// Callouts that let the rest of the stream pass uninspected (FWPS_STREAM_ACTION_ALLOW_CONNECTION).
    allowed: Vec<u32>,
}

struct Owner {
    layer: LayerId,
    callout: Arc<CalloutSlot>,
    functions: Arc<dyn CalloutFunctions>,
}

/// Layer and callout as one number. A callout's id is never 0, so neither is this.
fn key_of(layer: LayerId, callout_id: u32) -> u64 {
    u64::from(layer.0) << 32 | u64::from(callout_id)
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("id", &self.id).field("contexts", &self.context_count()).finish_non_exhaustive()
    }
}

/// A context handed to a classifyFn; returned with [`Flow::leave`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) value: u64,
    slot: usize,
}

/// A flowDeleteFn to call, once no lock is held.
pub(crate) struct Deletion {
    owner: Owner,
    value: u64,
}

impl Deletion {
    /// Calls the driver.
    ///
    /// The callout keeps the context until its flowDeleteFn has returned, so that the driver cannot unload while it
    /// runs.
    pub(crate) fn run(self) {
        let Self { owner: Owner { layer, callout, functions }, value } = self;
        functions.delete_flow_context(layer, callout.id(), value);
        callout.count_flow_context(false);
    }
}

impl Flow {
    fn new(id: u64) -> Self {
        Self {
            id,
            aborted: AtomicBool::new(false),
            used: AtomicUsize::new(0),
            slots: Default::default(),
            any_allowed: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }

    /// The handle: `flowHandle` in the metadata.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether a callout aborted the flow (FwpsFlowAbort0); the carrier of the connection must reset it.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Whether a stream callout has allowed the rest of the stream uninspected.
    pub(crate) fn is_allowed(&self, callout_id: u32) -> bool {
        self.any_allowed.load(Ordering::Acquire) && self.inner.lock().allowed.contains(&callout_id)
    }

    pub(crate) fn allow(&self, callout_id: u32) {
        let mut inner = self.inner.lock();
        if !inner.allowed.contains(&callout_id) {
            inner.allowed.push(callout_id);
            self.any_allowed.store(true, Ordering::Release);
        }
    }

    fn slots(&self) -> &[Slot] {
        &self.slots[..self.used.load(Ordering::Acquire)]
    }

    /// How many contexts this flow has.
    #[must_use]
    pub fn context_count(&self) -> usize {
        self.slots().iter().filter(|slot| slot.state.load(Ordering::Acquire) & LIVE != 0).count()
    }

    /// The context of a callout, held until [`Self::leave`].
    #[inline]
    pub(crate) fn enter(&self, layer: LayerId, callout_id: u32) -> Option<Lease> {
        let key = key_of(layer, callout_id);
        let slot = self.slots().iter().position(|slot| slot.key.load(Ordering::Acquire) == key)?;
        self.enter_slot(slot, key)
    }

    /// Whether the flow carries a context of this callout.
    pub(crate) fn carries(&self, layer: LayerId, callout_id: u32) -> bool {
        let key = key_of(layer, callout_id);
        let live = |state: &AtomicU32| state.load(Ordering::Acquire) & (LIVE | REMOVED) == LIVE;
        self.slots().iter().any(|slot| slot.key.load(Ordering::Acquire) == key && live(&slot.state))
    }

    #[inline]
    fn enter_slot(&self, index: usize, key: u64) -> Option<Lease> {
        let slot = &self.slots[index];
        let before = slot.state.fetch_add(1, Ordering::AcqRel);
        // Counted now, so the slot keeps its owner until `leave`; but the owner may have changed before.
        if before & (LIVE | REMOVED) == LIVE && slot.key.load(Ordering::Acquire) == key {
            return Some(Lease { value: slot.value.load(Ordering::Acquire), slot: index });
        }
        if let Some(deletion) = self.leave_slot(index) {
            deletion.run();
        }
        None
    }

    /// Returns a context; the result must be run.
    #[must_use]
    #[inline]
    pub(crate) fn leave(&self, lease: Lease) -> Option<Deletion> {
        self.leave_slot(lease.slot)
    }

    #[inline]
    fn leave_slot(&self, index: usize) -> Option<Deletion> {
        let after = self.slots[index].state.fetch_sub(1, Ordering::AcqRel) - 1;
        if after == LIVE | REMOVED { self.take_if_idle(index) } else { None }
    }

    /// Takes a removed context out of its slot, unless a call has it or another thread took it.
    #[cold]
    fn take_if_idle(&self, index: usize) -> Option<Deletion> {
        let mut inner = self.inner.lock();
        let idle = self.slots[index].state.load(Ordering::Acquire) == LIVE | REMOVED;
        if idle { self.take(&mut inner, index) } else { None }
    }

    /// Takes a removed context out of its slot. A call that still tries the slot only decrements the count again.
    fn take(&self, inner: &mut Inner, index: usize) -> Option<Deletion> {
        let slot = &self.slots[index];
        let owner = inner.owners[index].take()?;
        let value = slot.value.load(Ordering::Acquire);
        slot.key.store(0, Ordering::Release);
        slot.state.fetch_and(COUNT, Ordering::AcqRel);
        Some(Deletion { owner, value })
    }

    /// Marks the context in a slot as removed; it is taken at once when no call has it.
    fn remove_slot(&self, inner: &mut Inner, index: usize) -> Option<Deletion> {
        let before = self.slots[index].state.fetch_or(REMOVED, Ordering::AcqRel);
        if before & COUNT == 0 { self.take(inner, index) } else { None }
    }

    /// The slot of a context that has not been removed.
    fn find(&self, layer: LayerId, callout_id: u32) -> Option<usize> {
        let key = key_of(layer, callout_id);
        self.slots().iter().position(|slot| {
            slot.key.load(Ordering::Acquire) == key && slot.state.load(Ordering::Acquire) & (LIVE | REMOVED) == LIVE
        })
    }

    fn insert(&self, owner: Owner, value: u64) -> NtStatus {
        let mut inner = self.inner.lock();
        if inner.ended {
            return NtStatus::INVALID_PARAMETER;
        }
        let (layer, id) = (owner.layer, owner.callout.id());
        if self.find(layer, id).is_some() {
            return NtStatus::OBJECT_NAME_EXISTS;
        }
        let Some(index) = inner.owners.iter().position(Option::is_none) else {
            return NtStatus::INSUFFICIENT_RESOURCES;
        };
        owner.callout.count_flow_context(true);
        inner.owners[index] = Some(owner);
        let slot = &self.slots[index];
        slot.value.store(value, Ordering::Release);
        slot.key.store(key_of(layer, id), Ordering::Release);
        // Last, so that the context is not live before it is written.
        slot.state.fetch_or(LIVE, Ordering::AcqRel);
        self.used.fetch_max(index + 1, Ordering::AcqRel);
        NtStatus::SUCCESS
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
        // Handles use all 64 bits, as on Windows: a driver that truncates one to 32 bits must fail.
        Self { by_id: RwLock::default(), next_id: AtomicU64::new(0x0001_0000_0000_0001) }
    }
}

impl Flows {
    /// A new flow.
    #[must_use]
    pub fn create(&self) -> Arc<Flow> {
        let flow = Arc::new(Flow::new(self.next_id.fetch_add(1, Ordering::Relaxed)));
        self.by_id.write().insert(flow.id, flow.clone());
        flow
    }

    /// A flow by its handle.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Flow>> {
        self.by_id.read().get(&id).cloned()
    }

    /// The number of flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.read().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a flow: calls the flowDeleteFn of every callout with a context, at once or, if it is classifying on this
    /// flow, when it is done.
    ///
    /// Must run where the callouts' functions can, at DISPATCH_LEVEL or below.
    pub fn terminate(&self, flow: &Arc<Flow>) {
        self.by_id.write().remove(&flow.id);
        flow.inner.lock().ended = true;
        for index in 0..flow.slots().len() {
            // One at a time: during a call into a driver nothing is owned that an abandoned stack would leak.
            let deletion = {
                let mut inner = flow.inner.lock();
                if inner.owners[index].is_some() { flow.remove_slot(&mut inner, index) } else { None }
            };
            if let Some(deletion) = deletion {
                deletion.run();
            }
        }
    }

    /// FwpsFlowAssociateContext0. The statuses are those of its documentation, which names none for an unknown flow;
    /// here it is `INVALID_PARAMETER`.
    pub fn associate(&self, id: u64, layer: LayerId, callout: Option<Arc<CalloutSlot>>, value: u64) -> NtStatus {
        let Some(callout) = callout else { return NtStatus::INVALID_PARAMETER };
        let status = callout.enter(|registration| match self.get(id) {
            Some(flow) if value != 0 && registration.has_flow_delete => {
                let functions = registration.functions.clone();
                flow.insert(Owner { layer, callout: callout.clone(), functions }, value)
            }
            _ => NtStatus::INVALID_PARAMETER,
        });
        status.unwrap_or(NtStatus::INVALID_PARAMETER)
    }

    /// FwpsFlowRemoveContext0: `SUCCESS` when flowDeleteFn has been called, `PENDING` when it will be, once the callout
    /// is done classifying on the flow, `UNSUCCESSFUL` when there is no context.
    ///
    /// Must run where the callouts' functions can, at DISPATCH_LEVEL or below.
    pub fn remove(&self, id: u64, layer: LayerId, callout_id: u32) -> NtStatus {
        let Some(flow) = self.get(id) else { return NtStatus::UNSUCCESSFUL };
        let deletion = {
            let mut inner = flow.inner.lock();
            let Some(index) = flow.find(layer, callout_id) else { return NtStatus::UNSUCCESSFUL };
            flow.remove_slot(&mut inner, index)
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
    pub fn abort(&self, id: u64) -> NtStatus {
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
