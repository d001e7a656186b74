//! What callouts decide later: pended ALE operations, classify handles, pended classify requests and writable layer
//! data.

use super::handle::Handles;
use core::cell::OnceCell;
use core::ffi::c_void;
use filter_engine::ClassifyRequest;
use filter_engine::layers::LayerId;
use nt_abi::NtStatus;
use nt_abi::fwp::arena::Arena;
use nt_abi::fwp::{FwpsBindRequest0, FwpsClassifyOut0, FwpsConnectRequest0, RedirectRequest, consts};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// An operation that a callout may pend, by its completion handle.
#[derive(Debug)]
struct Operation {
    token: u64,
    reauthorize: bool,
    stage: Stage,
    /// The classify call that offered it has ended.
    settled: bool,
}

/// The state of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Offered,
    Pended,
    /// Completed while the classify call was still in progress.
    Completed,
}

/// The ALE operations that callouts may pend (FwpsPendOperation0).
#[derive(Debug, Default)]
pub struct Operations {
    inner: Mutex<Offers>,
}

#[derive(Debug)]
struct Offers {
    by_handle: HashMap<u64, Operation>,
    next: u64,
}

impl Default for Offers {
    fn default() -> Self {
        Self { by_handle: HashMap::new(), next: 0xFFFF_E300_0000_1000 }
    }
}

impl Operations {
    /// Offers an operation for pending: the result is the `completionHandle` of the metadata. `token` is the stack's
    /// own number for it; `reauthorize` says that FWP_CONDITION_FLAG_IS_REAUTHORIZE is set, which forbids pending.
    #[must_use]
    pub fn offer(&self, token: u64, reauthorize: bool) -> *mut c_void {
        let mut inner = self.inner.lock();
        let handle = inner.next;
        inner.next += 8;
        inner.by_handle.insert(handle, Operation { token, reauthorize, stage: Stage::Offered, settled: false });
        handle as *mut c_void
    }

    /// Ends the offer, after the classify call; whether a callout pended the operation. If so, the stack is called at
    /// its completion; if not, the handle becomes invalid.
    #[must_use]
    pub fn settle(&self, handle: *mut c_void) -> bool {
        let mut inner = self.inner.lock();
        let stage = inner.by_handle.get_mut(&(handle as u64)).map_or(Stage::Offered, |operation| {
            operation.settled = true;
            operation.stage
        });
        if stage != Stage::Pended {
            inner.by_handle.remove(&(handle as u64));
        }
        stage != Stage::Offered
    }

    /// FwpsPendOperation0; the completion context is the handle itself.
    pub(super) fn pend(&self, handle: *mut c_void) -> NtStatus {
        let mut inner = self.inner.lock();
        match inner.by_handle.get_mut(&(handle as u64)) {
            None => NtStatus::FWP_NULL_POINTER,
            Some(operation) if operation.reauthorize || operation.stage != Stage::Offered => NtStatus::FWP_CANNOT_PEND,
            Some(operation) => {
                operation.stage = Stage::Pended;
                NtStatus::SUCCESS
            }
        }
    }

    /// FwpsCompleteOperation0: the token of the pended operation.
    pub(super) fn complete(&self, context: *mut c_void) -> Option<u64> {
        let mut inner = self.inner.lock();
        let operation = inner.by_handle.get_mut(&(context as u64)).filter(|one| one.stage == Stage::Pended)?;
        let (token, settled) = (operation.token, operation.settled);
        operation.stage = Stage::Completed;
        if settled {
            inner.by_handle.remove(&(context as u64));
        }
        Some(token)
    }

    /// How many operations are pended and not completed.
    pub(crate) fn pended(&self) -> usize {
        self.inner.lock().by_handle.values().filter(|operation| operation.stage == Stage::Pended).count()
    }
}

/// The final decision about a pended request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `FWP_ACTION_*` that the callout wrote.
    pub action: u32,
    /// Whether it kept FWPS_RIGHT_ACTION_WRITE.
    pub soft: bool,
}

/// A classify request that outlives its classify call, because a callout holds a handle to it.
#[derive(Debug)]
pub(super) struct Request {
    layer: LayerId,
    token: u64,
    inner: Mutex<RequestState>,
}

#[derive(Debug, Default)]
struct RequestState {
    /// The versions of the layer data, the newest last; drivers hold pointers to them.
    versions: Vec<Version>,
    original: Option<Box<RedirectRequest>>,
    arena: Arena,
    pended: bool,
    /// It was pended in its classify call; it may have been completed there too.
    was_pended: bool,
}

#[derive(Debug)]
struct Version {
    data: *mut c_void,
    applied: bool,
}

// SAFETY: the pointers point into the arena of this structure, which moves with it and is not tied to a thread.
unsafe impl Send for RequestState {}

impl Request {
    /// The last applied version of the data; `None` when nothing was applied.
    fn result(&self) -> Option<Box<RedirectRequest>> {
        let inner = self.inner.lock();
        let newest = inner.versions.iter().rev().find(|version| version.applied)?;
        // SAFETY: `writable` made the version in the arena, as a copy of `original`, so it has its type. The driver
        // writes plain integers into it.
        unsafe {
            Some(Box::new(match **inner.original.as_ref()? {
                RedirectRequest::Connect(_) => RedirectRequest::Connect(*newest.data.cast()),
                RedirectRequest::Bind(_) => RedirectRequest::Bind(*newest.data.cast()),
            }))
        }
    }

    fn was_pended(&self) -> bool {
        self.inner.lock().was_pended
    }
}

/// What `classifyContext` points to during one classify call.
#[derive(Debug)]
pub(super) struct ClassifyContext {
    /// Tells a context from any other pointer that a driver may pass.
    magic: u64,
    layer: LayerId,
    token: u64,
    redirect: Option<Box<RedirectRequest>>,
    /// Made when a callout asks for a handle.
    request: OnceCell<Arc<Request>>,
}

const MAGIC: u64 = 0x7466_6c43_7066_774e;

impl ClassifyContext {
    pub(super) fn new(layer: LayerId, token: u64, redirect: Option<Box<RedirectRequest>>) -> Self {
        Self { magic: MAGIC, layer, token, redirect, request: OnceCell::new() }
    }

    /// The pointer the driver gets; opaque to it.
    pub(super) fn as_ptr(&self) -> *const c_void {
        core::ptr::from_ref(self).cast()
    }

    /// Reads a context back from a driver's pointer.
    ///
    /// # Safety
    /// `pointer` is null or readable for the size of a context, as it is during the classify call that passed it.
    unsafe fn read<'a>(pointer: *const c_void) -> Option<&'a Self> {
        // SAFETY: readable by this function's contract; the magic number tells whether it is a context.
        unsafe { pointer.cast::<Self>().as_ref() }.filter(|context| context.magic == MAGIC)
    }
}

impl ClassifyRequest for ClassifyContext {
    fn context(&self) -> *const c_void {
        self.as_ptr()
    }

    fn outcome(&self) -> (bool, Option<Box<RedirectRequest>>) {
        self.request.get().map_or((false, None), |request| (request.was_pended(), request.result()))
    }
}

/// A classify handle; several may name one request.
#[derive(Debug)]
struct Hold {
    request: Arc<Request>,
    references: Mutex<u32>,
}

/// The classify handles of a machine.
#[derive(Debug)]
pub(super) struct ClassifyHandles(Handles<Hold>);

impl Default for ClassifyHandles {
    fn default() -> Self {
        Self(Handles::new(0xFFFF_E400_0000_1000))
    }
}

/// The redirect layers, where layer data can be changed and a classification pended.
fn redirects(layer: LayerId) -> bool {
    matches!(
        layer,
        LayerId::ALE_CONNECT_REDIRECT_V4
            | LayerId::ALE_CONNECT_REDIRECT_V6
            | LayerId::ALE_BIND_REDIRECT_V4
            | LayerId::ALE_BIND_REDIRECT_V6
    )
}

impl ClassifyHandles {
    /// FwpsAcquireClassifyHandle0.
    ///
    /// # Safety
    /// `context` is null or readable; see [`ClassifyContext::read`].
    pub(super) unsafe fn acquire(&self, context: *const c_void) -> Result<u64, NtStatus> {
        // SAFETY: the caller's promise.
        let context = unsafe { ClassifyContext::read(context) }.ok_or(NtStatus::INVALID_PARAMETER)?;
        let request = context.request.get_or_init(|| {
            let inner = RequestState { original: context.redirect.clone(), ..RequestState::default() };
            Arc::new(Request { layer: context.layer, token: context.token, inner: Mutex::new(inner) })
        });
        Ok(self.0.add(Hold { request: request.clone(), references: Mutex::new(1) }))
    }

    /// FwpsReleaseClassifyHandle0; false when the handle is not valid.
    pub(super) fn release(&self, handle: u64) -> bool {
        let Some(hold) = self.0.get(handle) else { return false };
        let mut references = hold.references.lock();
        *references = references.saturating_sub(1);
        if *references == 0 {
            self.0.remove(handle);
        }
        true
    }

    /// FwpsAcquireWritableLayerDataPointer0: a new version of the layer data, copied from the newest.
    pub(super) fn writable(
        &self,
        handle: u64,
        filter_id: u64,
        out: Option<&mut FwpsClassifyOut0>,
    ) -> Result<*mut c_void, NtStatus> {
        let hold = self.0.get(handle).ok_or(NtStatus::INVALID_PARAMETER)?;
        let mut inner = hold.request.inner.lock();
        let inner = &mut *inner;
        let original = inner.original.as_deref().ok_or(NtStatus::INVALID_PARAMETER)?;
        let newest = inner.versions.last().map(|version| version.data);
        // SAFETY: a version has the type of the original and is in the arena, which lives as long as the request.
        let data: *mut c_void = unsafe {
            match original {
                RedirectRequest::Connect(original) => {
                    let previous = newest.map_or(core::ptr::null_mut(), <*mut c_void>::cast::<FwpsConnectRequest0>);
                    let mut next = previous.as_ref().copied().unwrap_or(*original);
                    (next.previous_version, next.modifier_filter_id) = (previous, filter_id);
                    inner.arena.put(next).cast()
                }
                RedirectRequest::Bind(original) => {
                    let previous = newest.map_or(core::ptr::null_mut(), <*mut c_void>::cast::<FwpsBindRequest0>);
                    let mut next = previous.as_ref().copied().unwrap_or(*original);
                    (next.previous_version, next.modifier_filter_id) = (previous, filter_id);
                    inner.arena.put(next).cast()
                }
            }
        };
        inner.versions.push(Version { data, applied: false });
        if let Some(out) = out {
            // Until the callout sets another action (FwpsAcquireWritableLayerDataPointer0 documentation).
            out.action_type = consts::FWP_ACTION_BLOCK;
            out.rights &= !consts::FWPS_RIGHT_ACTION_WRITE;
        }
        Ok(data)
    }

    /// FwpsApplyModifiedLayerData0; false when the pointer was not acquired through this handle, or was applied before.
    pub(super) fn apply(&self, handle: u64, data: *mut c_void) -> bool {
        let Some(hold) = self.0.get(handle) else { return false };
        let mut inner = hold.request.inner.lock();
        match inner.versions.iter_mut().find(|version| version.data == data && !version.applied) {
            Some(version) => {
                version.applied = true;
                true
            }
            None => false,
        }
    }

    /// FwpsPendClassify0.
    pub(super) fn pend(&self, handle: u64, out: Option<&mut FwpsClassifyOut0>) -> NtStatus {
        let Some(hold) = self.0.get(handle) else { return NtStatus::INVALID_PARAMETER };
        if !redirects(hold.request.layer) {
            return NtStatus::FWP_CANNOT_PEND;
        }
        let Some(out) = out else { return NtStatus::INVALID_PARAMETER };
        if std::mem::replace(&mut hold.request.inner.lock().pended, true) {
            return NtStatus::FWP_CANNOT_PEND;
        }
        hold.request.inner.lock().was_pended = true;
        *hold.references.lock() += 1;
        out.action_type = consts::FWP_ACTION_BLOCK;
        out.rights &= !consts::FWPS_RIGHT_ACTION_WRITE;
        out.flags |= consts::FWPS_CLASSIFY_OUT_FLAG_ABSORB;
        NtStatus::SUCCESS
    }

    /// FwpsCompleteClassify0: the token of the pended request and its layer data.
    pub(super) fn complete(&self, handle: u64) -> Option<(u64, Option<Box<RedirectRequest>>)> {
        let hold = self.0.get(handle)?;
        std::mem::take(&mut hold.request.inner.lock().pended).then_some(())?;
        let result = (hold.request.token, hold.request.result());
        // The reference that pending took.
        self.release(handle);
        Some(result)
    }

    /// The number of handles.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
