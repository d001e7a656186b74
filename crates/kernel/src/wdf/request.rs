//! A request, and its one system buffer.

use core::{mem::ManuallyDrop, num::NonZeroUsize, ptr::null_mut, slice};

use wdk_sys::{PVOID, WDFFILEOBJECT, WDFREQUEST, call_unsafe_wdf_function_binding, ntddk::IoGetRequestorProcessId};

use crate::status::{NtResult, NtStatus};

/// A request that this driver owns and must complete. If dropped, it is completed with STATUS_UNSUCCESSFUL, so that no
/// caller waits forever. IRQL <= DISPATCH_LEVEL.
#[derive(Debug)]
#[must_use = "somebody waits for the answer"]
pub struct Request(WDFREQUEST);

// SAFETY: a WDFREQUEST may be completed on any thread.
unsafe impl Send for Request {}

impl Request {
    /// # Safety
    /// `request` is a live request that nobody else will complete, forward or touch.
    pub(super) const unsafe fn own(request: WDFREQUEST) -> Self {
        Self(request)
    }

    /// Gives the handle to somebody who completes the request.
    pub(super) fn into_raw(self) -> WDFREQUEST {
        ManuallyDrop::new(self).0
    }

    /// Its file object; None for a request without one.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        // SAFETY: the request is ours and not completed.
        let file = unsafe { call_unsafe_wdf_function_binding!(WdfRequestGetFileObject, self.0) };
        FileId::of(file)
    }

    /// The process whose thread sent it; None when that is not known.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        // SAFETY: the request is ours and not completed, and so is its IRP; IRQL <= DISPATCH_LEVEL.
        let id = unsafe { IoGetRequestorProcessId(call_unsafe_wdf_function_binding!(WdfRequestWdmGetIrp, self.0)) };
        (id != 0).then_some(id)
    }

    /// The caller's input, copied by the I/O manager (METHOD_BUFFERED); empty when there is none.
    pub fn input(&mut self) -> &[u8] {
        let mut buffer: PVOID = null_mut();
        let mut length = 0;
        // SAFETY: the request is ours and not completed; the pointers are valid for the call.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(
                WdfRequestRetrieveInputBuffer,
                self.0,
                0,
                &raw mut buffer,
                &raw mut length
            )
        };
        if NtStatus::check(status).is_err() || buffer.is_null() {
            return &[];
        }
        // SAFETY: the framework gave the system buffer and its length; it lives until completion, which takes `self`
        // by value, and input and output borrow `self` mutably, so nothing writes to it meanwhile.
        unsafe { slice::from_raw_parts(buffer.cast(), length) }
    }

    /// The output buffer, of at least `minimum` bytes.
    ///
    /// # Errors
    /// STATUS_BUFFER_TOO_SMALL when the caller gave less.
    pub fn output(&mut self, minimum: usize) -> NtResult<Output<'_>> {
        let mut buffer: PVOID = null_mut();
        let mut length = 0;
        // SAFETY: as in `input`.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(
                WdfRequestRetrieveOutputBuffer,
                self.0,
                minimum as _,
                &raw mut buffer,
                &raw mut length
            )
        };
        NtStatus::check(status)?;
        if buffer.is_null() || length < minimum {
            return Err(NtStatus::BUFFER_TOO_SMALL);
        }
        // SAFETY: the framework gave the system buffer, whose bytes the I/O manager filled with the input and zeros or
        // pool contents; bytes have no invalid values. Aliasing: as in `input`.
        Ok(Output { space: unsafe { slice::from_raw_parts_mut(buffer.cast(), length) }, written: 0 })
    }

    /// Completes it with a status and no data.
    pub fn complete(self, status: NtStatus) {
        // SAFETY: the request is ours and is completed once, because `self` is gone after.
        unsafe { call_unsafe_wdf_function_binding!(WdfRequestComplete, self.into_raw(), status.raw()) };
    }

    /// Completes it with success and the first `bytes` bytes of the output.
    pub fn complete_with(self, bytes: usize) {
        // SAFETY: as in `complete`.
        unsafe {
            call_unsafe_wdf_function_binding!(
                WdfRequestCompleteWithInformation,
                self.into_raw(),
                NtStatus::SUCCESS.raw(),
                bytes as _
            );
        }
    }

    /// Completes it with that many bytes of the output, or with the status.
    pub fn answer(self, written: NtResult<usize>) {
        match written {
            Ok(written) => self.complete_with(written),
            Err(status) => self.complete(status),
        }
    }

    /// Completes it with one record, or with STATUS_BUFFER_TOO_SMALL.
    pub fn complete_with_bytes(mut self, bytes: &[u8]) {
        let written = self.output(bytes.len()).map(|mut output| {
            output.push(bytes);
            output.written()
        });
        self.answer(written);
    }
}

/// The identity of a file opened on the device: unique until [`super::DeviceEvents::closed`] is called with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(NonZeroUsize);

impl FileId {
    pub(super) fn of(file: WDFFILEOBJECT) -> Option<Self> {
        NonZeroUsize::new(file as usize).map(Self)
    }

    /// As a number, never 0.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0.get()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: still ours, since completing consumes `self` without dropping it.
        unsafe { call_unsafe_wdf_function_binding!(WdfRequestComplete, self.0, NtStatus::UNSUCCESSFUL.raw()) };
    }
}

/// The output part of a request's buffer, filled from the front. IRQL <= DISPATCH_LEVEL, as its request.
#[derive(Debug)]
pub struct Output<'a> {
    space: &'a mut [u8],
    written: usize,
}

impl Output<'_> {
    /// How many more bytes fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.space.len() - self.written
    }

    /// Appends `bytes` if they fit; returns whether they did.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        match self.space.get_mut(self.written..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(space) => {
                space.copy_from_slice(bytes);
                self.written += bytes.len();
                true
            }
            None => false,
        }
    }

    /// How many bytes were appended.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.written
    }
}
