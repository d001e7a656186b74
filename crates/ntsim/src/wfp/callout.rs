//! Callouts at run time: the functions a driver registered, and who is inside them.

use super::error::{BfeError, BfeResult};
use super::readers::{self, Held};
use core::ffi::c_void;
use nt_abi::NtStatus;
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0, RawGuid, consts,
};
use parking_lot::Mutex;
use sluice_host::Guid;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `FWPS_CALLOUT_CLASSIFY_FN0`.
pub type ClassifyFn0 = unsafe extern "win64" fn(
    *const FwpsIncomingValues0,
    *const FwpsIncomingMetadataValues0,
    *mut c_void,
    *const FwpsFilter0,
    u64,
    *mut FwpsClassifyOut0,
);

/// `FWPS_CALLOUT_CLASSIFY_FN1` to `FWPS_CALLOUT_CLASSIFY_FN3`: with the classify context.
pub type ClassifyFn1 = unsafe extern "win64" fn(
    *const FwpsIncomingValues0,
    *const FwpsIncomingMetadataValues0,
    *mut c_void,
    *const c_void,
    *const FwpsFilter0,
    u64,
    *mut FwpsClassifyOut0,
);

/// `FWPS_CALLOUT_NOTIFY_FN0` to `FWPS_CALLOUT_NOTIFY_FN3`.
pub type NotifyFn = unsafe extern "win64" fn(u32, *const RawGuid, *mut FwpsFilter0) -> i32;

/// `FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0`.
pub type FlowDeleteFn = unsafe extern "win64" fn(u16, u32, u64);

/// A classifyFn of whichever version it was registered with.
#[derive(Clone, Copy)]
pub(super) enum Classify {
    /// FwpsCalloutRegister0: no classify context.
    V0(ClassifyFn0),
    /// FwpsCalloutRegister1 to 3.
    V1(ClassifyFn1),
}

impl Classify {
    /// Where it is.
    pub(super) fn address(self) -> u64 {
        match self {
            Self::V0(f) => f as usize as u64,
            Self::V1(f) => f as usize as u64,
        }
    }
}

/// What FwpsCalloutRegister was given.
pub(super) struct Registration {
    /// FWP_CALLOUT_FLAG_*.
    pub(super) flags: u32,
    pub(super) classify: Classify,
    pub(super) notify: NotifyFn,
    pub(super) flow_delete: Option<FlowDeleteFn>,
}

impl Registration {
    /// Reads the structure a driver passed to FwpsCalloutRegister0 (`version` 0) to 3.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` when a function that must be there is not.
    ///
    /// # Safety
    /// `callout`'s functions are of the types that `version` has.
    pub(super) unsafe fn read(callout: &FwpsCallout0, version: u32) -> BfeResult<Self> {
        let missing =
            |name| BfeError::new(NtStatus::INVALID_PARAMETER, format!("FWPS_CALLOUT{version}.{name} is null"));
        if callout.classify_fn.is_null() {
            return Err(missing("classifyFn"));
        }
        if callout.notify_fn.is_null() {
            return Err(missing("notifyFn"));
        }
        // SAFETY: not null, and by the caller's promise functions of these types; pointers to code and to data have the
        // same size on x64.
        unsafe {
            use core::mem::transmute;
            Ok(Self {
                flags: callout.flags,
                classify: if version == 0 {
                    Classify::V0(transmute::<*const core::ffi::c_void, ClassifyFn0>(callout.classify_fn))
                } else {
                    Classify::V1(transmute::<*const core::ffi::c_void, ClassifyFn1>(callout.classify_fn))
                },
                notify: transmute::<*const core::ffi::c_void, NotifyFn>(callout.notify_fn),
                flow_delete: transmute::<*const core::ffi::c_void, Option<FlowDeleteFn>>(callout.flow_delete_fn),
            })
        }
    }

    /// Whether the callout wants to be called only for flows it has a context with.
    pub(super) fn conditional_on_flow(&self) -> bool {
        self.flags & consts::FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW != 0
    }
}

/// A callout known to the engine, because BFE has the object, because a driver has registered it, or both.
pub struct CalloutSlot {
    key: Guid,
    id: u32,
    current: AtomicPtr<Registration>,
    /// Every registration there ever was: a classify that is under way may still use an old one's flags.
    #[expect(clippy::vec_box, reason = "`current` points to them, so they must not move when the vector grows")]
    registrations: Mutex<Vec<Box<Registration>>>,
    /// Set while a registration or its removal is under way on some thread.
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
            current: AtomicPtr::default(),
            registrations: Mutex::default(),
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
        !self.current.load(Ordering::Acquire).is_null()
    }

    /// The flags its registration brought, with FWPM_CALLOUT_FLAG_REGISTERED; 0 while nobody has registered it.
    #[must_use]
    pub fn registered_flags(&self) -> u32 {
        self.enter().map_or(0, |entered| {
            let flags = entered.registration.flags | consts::FWPM_CALLOUT_FLAG_REGISTERED;
            entered.leave();
            flags
        })
    }

    /// How many flows carry a context of this callout.
    #[must_use]
    pub fn flow_contexts(&self) -> usize {
        self.flow_contexts.load(Ordering::Acquire)
    }

    pub(super) fn count_flow_context(&self, added: bool) {
        if added {
            self.flow_contexts.fetch_add(1, Ordering::AcqRel);
        } else {
            self.flow_contexts.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Announces the caller and gives it the registration; `None` when nobody has registered the callout. The caller
    /// takes itself back with [`Entered::leave`].
    #[inline]
    pub(super) fn enter(&self) -> Option<Entered<'_>> {
        let held = readers::hold(self);
        let registration = self.current.load(Ordering::Acquire);
        // SAFETY: a registration lives in `registrations` as long as this slot; null is `None`.
        match unsafe { registration.as_ref() } {
            Some(registration) => Some(Entered { registration, held }),
            None => {
                held.release();
                None
            }
        }
    }

    fn register(&self, registration: Registration) -> BfeResult<()> {
        let _changing = self.change()?;
        if self.is_registered() {
            let what = format!("callout {} is registered already", self.key);
            return Err(BfeError::new(NtStatus::FWP_ALREADY_EXISTS, what));
        }
        let mut registrations = self.registrations.lock();
        registrations.push(Box::new(registration));
        let newest: *const Registration = &**registrations.last().expect("one was pushed");
        self.current.store(newest.cast_mut(), Ordering::SeqCst);
        Ok(())
    }

    fn unregister(&self) -> BfeResult<()> {
        let _changing = self.change()?;
        let fail = |status, why: &str| Err(BfeError::new(status, format!("callout {}: {why}", self.key)));
        let registration = self.current.load(Ordering::SeqCst);
        if registration.is_null() {
            return fail(NtStatus::FWP_CALLOUT_NOT_FOUND, "is not registered");
        }
        if self.flow_contexts() > 0 {
            return fail(NtStatus::DEVICE_BUSY, "flows still carry its contexts");
        }
        self.current.store(core::ptr::null_mut(), Ordering::SeqCst);
        // The driver may free its code once this returns, so nobody may be inside any more. Ten seconds are far beyond
        // any classifyFn; the one way to get there is to unregister a callout from within its own classifyFn.
        let patience = Instant::now() + Duration::from_secs(10);
        while readers::is_held(self) {
            if Instant::now() > patience {
                self.current.store(registration, Ordering::SeqCst);
                return fail(NtStatus::DEVICE_BUSY, "its classifyFn has been running for ten seconds");
            }
            if crate::cpu::inside() {
                crate::cpu::leave_if_stopped();
            }
            std::thread::yield_now();
        }
        if self.flow_contexts() > 0 {
            // A classifyFn that was still running made one.
            self.current.store(registration, Ordering::SeqCst);
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

/// Nobody else registers or unregisters the callout while this lives.
struct Changing<'a>(&'a AtomicBool);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A caller inside a callout. Not dropped but left: an abandoned stack must not look like one that returned.
pub(super) struct Entered<'a> {
    pub(super) registration: &'a Registration,
    held: Held,
}

impl Entered<'_> {
    pub(super) fn leave(self) {
        self.held.release();
    }
}

/// Every callout the engine knows.
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
        // The built-in callouts of a live machine take the ids below.
        Self { by_key: HashMap::new(), next_id: 256 }
    }
}

impl Callouts {
    /// The slot of a callout; made, with a new run-time id, when there is none.
    pub(super) fn slot(&self, key: Guid) -> Arc<CalloutSlot> {
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
    /// notifyFn is not called for filters that name the callout already: the engine tells a callout only of filters
    /// added after it registered (notifyFn1 documentation).
    pub(super) fn register(&self, key: Guid, registration: Registration) -> BfeResult<u32> {
        if key == Guid(0) {
            return Err(BfeError::new(NtStatus::INVALID_PARAMETER, "FWPS_CALLOUT.calloutKey is zero"));
        }
        let slot = self.slot(key);
        slot.register(registration)?;
        Ok(slot.id)
    }

    /// FwpsCalloutUnregisterByKey0 and ById0.
    ///
    /// # Errors
    /// `FWP_CALLOUT_NOT_FOUND`, `DEVICE_BUSY` while flows carry its contexts, `FWP_IN_USE`.
    pub(super) fn unregister(&self, slot: Option<Arc<CalloutSlot>>) -> BfeResult<()> {
        let not_found = || BfeError::new(NtStatus::FWP_CALLOUT_NOT_FOUND, "no such callout");
        slot.ok_or_else(not_found)?.unregister()
    }

    /// Forgets slots that neither BFE (`keep`) nor a driver wants; their ids are never given again.
    pub(super) fn prune(&self, keep: impl Fn(Guid) -> bool) {
        self.inner.lock().by_key.retain(|key, slot| slot.is_registered() || keep(*key));
    }
}
