//! Connections that wait for a decision.
//!
//! Source: the documentation of FwpsPendOperation0 and FwpsCompleteOperation0.

use core::{
    ffi::c_void,
    ptr::{NonNull, null_mut},
};

use wfp_sys::{
    FWP_ACTION_BLOCK, FWPS_CLASSIFY_OUT_FLAG_ABSORB, FWPS_METADATA_FIELD_COMPLETION_HANDLE, FWPS_RIGHT_ACTION_WRITE,
    FwpsCompleteOperation0, FwpsPendOperation0,
};

use super::Classify;
use crate::status::{NtResult, NtStatus};

/// A connection that waits. Completing it, and nothing else, lets Windows go on: it asks again about the connection, and that
/// is when it is decided. Dropping it completes it. IRQL <= DISPATCH_LEVEL, without a lock that a classify takes: Windows may
/// ask before completing returns.
#[derive(Debug)]
#[must_use = "somebody's connect() waits"]
pub struct Pended(NonNull<c_void>);

// SAFETY: an operation may be completed on any thread.
unsafe impl Send for Pended {}

impl Pended {
    /// Completes it.
    pub fn complete(self) {
        drop(self);
    }
}

impl Drop for Pended {
    fn drop(&mut self) {
        // SAFETY: the context that pending gave, completed once, because `self` is gone after. At ALE_AUTH_CONNECT there is no
        // packet to pass on ("netBufferList [in, optional]"). IRQL <= DISPATCH_LEVEL by the contract of the type.
        unsafe { FwpsCompleteOperation0(self.0.as_ptr(), null_mut()) };
    }
}

impl<F: 'static> Classify<'_, F> {
    /// Whether the connection may be pended here: it has what that takes, and no earlier filter has kept the right to decide.
    #[must_use]
    pub fn can_pend(&self) -> bool {
        self.metadata.currentMetadataValues & FWPS_METADATA_FIELD_COMPLETION_HANDLE != 0
            && self.out.rights & FWPS_RIGHT_ACTION_WRITE != 0
    }

    /// Pends the connection: until it is completed, nothing of it passes. At ALE_AUTH_CONNECT only, and not when Windows
    /// asks again.
    ///
    /// # Errors
    /// The status of FwpsPendOperation0, or STATUS_INVALID_PARAMETER where [`Self::can_pend`] is false; the answer is still
    /// to be written.
    pub fn pend(&mut self) -> NtResult<Pended> {
        if !self.can_pend() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let mut context: *mut c_void = null_mut();
        // SAFETY: the metadata say that the handle is there; the context is written. IRQL = DISPATCH_LEVEL, by the type.
        let status = unsafe { FwpsPendOperation0(self.metadata.completionHandle, &raw mut context) };
        NtStatus::check(status)?;
        let context = NonNull::new(context).ok_or(NtStatus::UNSUCCESSFUL)?;
        let call = &mut self.call;
        // What pending asks for; and no other filter may permit what waits.
        call.out.actionType = FWP_ACTION_BLOCK;
        call.out.flags |= FWPS_CLASSIFY_OUT_FLAG_ABSORB;
        call.out.rights &= !FWPS_RIGHT_ACTION_WRITE;
        Ok(Pended(context))
    }
}
