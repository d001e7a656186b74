//! Callouts at run time: the functions that a driver registered, and the calls in progress.

use crate::classify::Classify;
use crate::error::{BfeError, BfeResult};
use crate::filter::CompiledFilter;
use crate::flow::Flow;
use crate::layers::LayerId;
use hazard::Slot;
use nt_abi::NtStatus;
use nt_abi::fwp::{FwpsClassifyOut0, FwpsIncomingValues0, consts};
use parking_lot::Mutex;
use sluice_host::Guid;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// One call of a classifyFn.
#[derive(Clone, Copy, Debug)]
pub struct ClassifyCall<'a> {
    /// The indication.
    pub classify: &'a Classify<'a>,
    /// inFixedValues.
    pub fixed: &'a FwpsIncomingValues0,
    /// The filter that names the callout.
    pub filter: &'a CompiledFilter,
    /// flowContext, 0 when the callout has none for the flow.
    pub flow_context: u64,
}

/// The functions of a callout, as the engine calls them. What runs drivers implements this; a call never returns when
/// the driver stops its machine.
pub trait CalloutFunctions: Send + Sync {
    /// classifyFn. `out` is passed to the callout, which changes it.
    fn classify(&self, call: &ClassifyCall<'_>, out: &mut FwpsClassifyOut0);

    /// notifyFn: `kind` is `FWPS_CALLOUT_NOTIFY_*`, `key` the filter's, which is absent with a deletion. The callout
    /// may write the filter's context, which is not read before the filter is in force or after it is removed.
    fn notify(&self, kind: u32, key: Option<Guid>, filter: &CompiledFilter) -> NtStatus;

    /// flowDeleteFn.
    fn delete_flow_context(&self, layer: LayerId, callout_id: u32, context: u64);

    /// The address of classifyFn, for whoever looks at a driver's code; None where it is not a driver's.
    fn classify_address(&self) -> Option<u64> {
        None
    }
}

/// The arguments of FwpsCalloutRegister.
#[derive(Clone)]
pub struct Registration {
    /// FWP_CALLOUT_FLAG_*.
    pub flags: u32,
    /// Whether there is a flowDeleteFn; without one a callout can have no flow contexts.
    pub has_flow_delete: bool,
    /// The functions.
    pub functions: Arc<dyn CalloutFunctions>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("flags", &self.flags).finish_non_exhaustive()
    }
}

impl Registration {
    /// Whether the callout is called only for flows with a context of its own.
    pub(crate) fn conditional_on_flow(&self) -> bool {
        self.flags & consts::FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW != 0
    }
}

/// A callout known to the engine: BFE has the object, a driver has registered it, or both.
pub struct CalloutSlot {
    key: Guid,
    id: u32,
    /// A classify call in progress may still use an old registration.
    registration: Slot<Registration>,
    /// Set while a thread registers or unregisters the callout.
    changing: AtomicBool,
    flow_contexts: AtomicUsize,
}

impl fmt::Debug for CalloutSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CalloutSlot")
            .field("key", &self.key)
            .field("id", &self.id)
            .field("registered", &self.is_registered())
            .finish_non_exhaustive()
    }
}

impl CalloutSlot {
    fn new(key: Guid, id: u32) -> Self {
        Self {
            key,
            id,
            registration: Slot::default(),
            changing: AtomicBool::new(false),
            flow_contexts: AtomicUsize::new(0),
        }
    }

    /// calloutKey.
    #[must_use]
    pub fn key(&self) -> Guid {
        self.key
    }

    /// The run-time id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether a driver has registered it.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registration.is_filled()
    }

    /// The flags of its registration, with FWPM_CALLOUT_FLAG_REGISTERED; 0 while it is not registered.
    #[must_use]
    pub fn registered_flags(&self) -> u32 {
        self.enter(|registration| registration.flags | consts::FWPM_CALLOUT_FLAG_REGISTERED).unwrap_or(0)
    }

    /// The address of its classifyFn, if a driver has registered it.
    #[must_use]
    pub fn classify_address(&self) -> Option<u64> {
        self.enter(|registration| registration.functions.classify_address()).flatten()
    }

    /// Whether what a flow carries at `layer` can come to this callout; without a registration the filter itself decides.
    pub(crate) fn is_called_for(&self, layer: LayerId, flow: &Flow) -> bool {
        let conditional = self.enter(Registration::conditional_on_flow).unwrap_or(false);
        !conditional || flow.carries(layer, self.id)
    }

    /// How many flows carry a context of this callout.
    #[must_use]
    pub fn flow_contexts(&self) -> usize {
        self.flow_contexts.load(Ordering::Acquire)
    }

    pub(crate) fn count_flow_context(&self, added: bool) {
        if added {
            self.flow_contexts.fetch_add(1, Ordering::AcqRel);
        } else {
            self.flow_contexts.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Runs `inside` with the registration, which stays meanwhile; `None` when the callout is not registered.
    #[inline]
    pub(crate) fn enter<R>(&self, inside: impl FnOnce(&Registration) -> R) -> Option<R> {
        self.registration.enter(inside)
    }

    fn register(&self, registration: Registration) -> BfeResult<()> {
        let _changing = self.change()?;
        if self.is_registered() {
            let what = format!("callout {} is already registered", self.key);
            return Err(BfeError::new(NtStatus::FWP_ALREADY_EXISTS, what));
        }
        self.registration.fill(registration);
        Ok(())
    }

    fn unregister(&self, pause: fn()) -> BfeResult<()> {
        let _changing = self.change()?;
        let fail = |status, why: &str| Err(BfeError::new(status, format!("callout {}: {why}", self.key)));
        if !self.is_registered() {
            return fail(NtStatus::FWP_CALLOUT_NOT_FOUND, "is not registered");
        }
        if self.flow_contexts() > 0 {
            return fail(NtStatus::DEVICE_BUSY, "flows still carry its contexts");
        }
        let Some(taken) = self.registration.take() else {
            return fail(NtStatus::FWP_CALLOUT_NOT_FOUND, "is not registered");
        };
        // The driver may unload once this returns, so no call may be in progress. Ten seconds are far beyond any
        // classifyFn; the only way to get there is to unregister a callout from its own classifyFn.
        let patience = Instant::now() + Duration::from_secs(10);
        while self.registration.is_entered() {
            if Instant::now() > patience {
                taken.put_back();
                return fail(NtStatus::DEVICE_BUSY, "its classifyFn has been running for ten seconds");
            }
            pause();
            std::thread::yield_now();
        }
        if self.flow_contexts() > 0 {
            // A classifyFn that was still running associated one.
            taken.put_back();
            return fail(NtStatus::DEVICE_BUSY, "flows still carry its contexts");
        }
        Ok(())
    }

    fn change(&self) -> BfeResult<Changing<'_>> {
        if self.changing.swap(true, Ordering::Acquire) {
            let what = format!("callout {} is being registered or unregistered on another thread", self.key);
            return Err(BfeError::new(NtStatus::FWP_IN_USE, what));
        }
        Ok(Changing(&self.changing))
    }
}

/// No other thread registers or unregisters the callout while this lives.
struct Changing<'a>(&'a AtomicBool);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// All callouts known to the engine.
#[derive(Debug, Default)]
pub struct Callouts {
    inner: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    by_key: HashMap<Guid, Arc<CalloutSlot>>,
    next_id: u32,
}

impl Default for Known {
    fn default() -> Self {
        // The built-in callouts of a live machine have the ids below.
        Self { by_key: HashMap::new(), next_id: 256 }
    }
}

impl Callouts {
    /// The slot of a callout; a new one, with a new run-time id, if there is none.
    pub(crate) fn slot(&self, key: Guid) -> Arc<CalloutSlot> {
        let mut inner = self.inner.lock();
        if let Some(slot) = inner.by_key.get(&key) {
            return slot.clone();
        }
        let slot = Arc::new(CalloutSlot::new(key, inner.next_id));
        inner.next_id += 1;
        inner.by_key.insert(key, slot.clone());
        slot
    }

    /// The slot of a callout, if there is one.
    #[must_use]
    pub fn by_key(&self, key: Guid) -> Option<Arc<CalloutSlot>> {
        self.inner.lock().by_key.get(&key).cloned()
    }

    /// The slot of a callout by run-time id.
    #[must_use]
    pub fn by_id(&self, id: u32) -> Option<Arc<CalloutSlot>> {
        self.inner.lock().by_key.values().find(|slot| slot.id == id).cloned()
    }

    /// The callouts that drivers have registered.
    #[must_use]
    pub fn registered(&self) -> Vec<Arc<CalloutSlot>> {
        let mut found: Vec<_> =
            self.inner.lock().by_key.values().filter(|slot| slot.is_registered()).cloned().collect();
        found.sort_by_key(|slot| slot.id);
        found
    }

    /// FwpsCalloutRegister; returns the run-time id.
    ///
    /// notifyFn is not called for filters that already name the callout: the engine only notifies it of filters added
    /// after it registered (notifyFn1 documentation).
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a zero key, `FWP_ALREADY_EXISTS` when it is registered, `FWP_IN_USE` while another
    /// thread registers or unregisters it.
    pub fn register(&self, key: Guid, registration: Registration) -> BfeResult<u32> {
        if key == Guid(0) {
            return Err(BfeError::new(NtStatus::INVALID_PARAMETER, "FWPS_CALLOUT.calloutKey is zero"));
        }
        let slot = self.slot(key);
        slot.register(registration)?;
        Ok(slot.id)
    }

    /// FwpsCalloutUnregisterByKey0 and ById0. `pause` is called while a classifyFn is still running.
    ///
    /// # Errors
    /// `FWP_CALLOUT_NOT_FOUND`, `DEVICE_BUSY` while flows carry its contexts, `FWP_IN_USE`.
    pub fn unregister(&self, slot: Option<Arc<CalloutSlot>>, pause: fn()) -> BfeResult<()> {
        let not_found = || BfeError::new(NtStatus::FWP_CALLOUT_NOT_FOUND, "no such callout");
        slot.ok_or_else(not_found)?.unregister(pause)
    }

    /// Removes slots that neither BFE (`keep`) nor a driver uses; their ids are not reused.
    pub(crate) fn prune(&self, keep: impl Fn(Guid) -> bool) {
        self.inner.lock().by_key.retain(|key, slot| slot.is_registered() || keep(*key));
    }
}
