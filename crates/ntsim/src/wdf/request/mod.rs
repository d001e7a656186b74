//! I/O requests: whose they are, how they are cancelled, how they end.
//!
//! A request belongs to the framework while it waits in a queue, to the driver from the moment it is presented or
//! retrieved until the driver completes it or gives it to another queue. Every function that a driver may only call for
//! a request it owns checks that; what the real framework's verifier would stop at stops the machine here.
//!
//! Locking: a request's state is locked alone, never together with its queue's. Cancellation sets the flag first and
//! then looks for the request in its queue; insertion puts it into the queue first and then looks at the flag. So at
//! least one of two that meet finds it, and removal from the queue decides which.

mod buffer;
mod ddi;
mod irp;
mod operation;
#[cfg(test)]
mod tests;

use core::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::abi::Handle;
use super::activity::Activity;
use super::handle::Kind;
use super::kernel::Allocation;
use super::object::{self, Body, Object};
use super::queue;
use super::violation::Violation;
use crate::machine::Machine;
use crate::nt::io::{FileId, IrpRequest};
use nt_abi::NtStatus;

pub(crate) use buffer::FUNCTIONS as BUFFER_FUNCTIONS;
pub(crate) use ddi::{FUNCTIONS, enqueue_from_caller};
pub(crate) use irp::FUNCTIONS as IRP_FUNCTIONS;
pub(crate) use operation::{Method, Operation};

/// `EvtRequestCancel`.
pub(crate) type CancelCallback = unsafe extern "win64" fn(Handle);

/// The answer to a create request, for the caller that waits for the open.
#[derive(Debug, Default)]
pub(crate) struct CreateAnswer {
    status: Mutex<Option<NtStatus>>,
    changed: Activity,
}

impl CreateAnswer {
    fn give(&self, status: NtStatus) {
        *self.status.lock() = Some(status);
        self.changed.notify();
    }

    /// Waits for the answer.
    #[must_use]
    pub(crate) fn wait(&self) -> NtStatus {
        self.changed.wait(|| self.status.lock().is_some());
        // Present: that is what was waited for.
        self.status.lock().unwrap_or(NtStatus::UNSUCCESSFUL)
    }
}

/// What is answered when the request ends.
#[derive(Debug)]
pub(crate) enum Irp {
    /// A read, write or control request of the I/O manager.
    Io(IrpRequest),
    /// An open.
    Create(Arc<CreateAnswer>),
}

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It waits in a queue, or is on its way.
    Framework,
    /// It was presented to the driver or retrieved by it.
    Driver,
    /// The driver has it in `EvtIoInCallerContext`; it is in no queue yet.
    InCaller,
    /// It is completed.
    Nobody,
}

/// The cancellation state of a driver-owned request.
#[derive(Clone, Copy)]
enum Cancel {
    /// The driver has not marked it.
    Unmarked,
    /// `WdfRequestMarkCancelable`.
    Marked(CancelCallback),
    /// Cancelled while marked: the callback is to be called.
    Due(CancelCallback),
    /// The callback was called; completing is the driver's business again.
    Called,
}

struct State {
    owner: Owner,
    queue: Option<Arc<Object>>,
    cancel: Cancel,
    cancelled: bool,
    presented: bool,
    information: usize,
}

/// `WDFREQUEST`.
pub(crate) struct Request {
    operation: Operation,
    file: Option<FileId>,
    file_object: Option<Arc<Object>>,
    system_buffer: usize,
    /// The `KTHREAD` that sent it.
    thread: u64,
    /// The buffer that a direct or neither request's output goes to, apart from its input.
    direct: Option<Allocation>,
    irp: Mutex<Option<Irp>>,
    state: Mutex<State>,
    /// `WDFMEMORY` and MDL of each direction, made when asked for.
    views: Mutex<buffer::Views>,
    /// The IRP, once the driver has asked for it.
    irp_view: Mutex<Option<irp::Irp>>,
}

impl Body for Request {
    fn kind(&self) -> Kind {
        Kind::Request
    }

    fn deletable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl queue::Item for Arc<Object> {
    fn id(&self) -> u64 {
        self.serial()
    }
}

/// What a cancelled mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// The request is cancelable now.
    Yes,
    /// It is cancelled already.
    Cancelled,
}

impl Request {
    /// A request on its way to a queue.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` without memory for a buffer.
    pub(crate) fn new(
        machine: &Arc<Machine>,
        operation: Operation,
        irp: Irp,
        file: Option<FileId>,
        file_object: Option<Arc<Object>>,
    ) -> Result<Self, (NtStatus, Irp)> {
        let apart = operation.method().is_some_and(|method| method != Method::Buffered);
        let mut direct = None;
        if apart && operation.output_length() != 0 {
            direct = Allocation::zeroed(machine, super::kernel::TAG, operation.output_length());
            if direct.is_none() {
                return Err((NtStatus::INSUFFICIENT_RESOURCES, irp));
            }
            if let (Some(direct), Irp::Io(irp)) = (&direct, &irp) {
                let data = irp.direct_data();
                let length = data.len().min(direct.size());
                // SAFETY: the allocation is at least that long and nobody else has it yet.
                unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), direct.address() as *mut u8, length) };
            }
        }
        let system_buffer = match &irp {
            Irp::Io(irp) => irp.system_buffer() as usize,
            Irp::Create(_) => 0,
        };
        Ok(Self {
            operation,
            file,
            file_object,
            system_buffer,
            thread: crate::cpu::current_processor().thread(),
            direct,
            irp: Mutex::new(Some(irp)),
            state: Mutex::new(State {
                owner: Owner::Framework,
                queue: None,
                cancel: Cancel::Unmarked,
                cancelled: false,
                presented: false,
                information: 0,
            }),
            views: Mutex::new(buffer::Views::default()),
            irp_view: Mutex::new(None),
        })
    }

    /// What it asks for.
    #[must_use]
    pub(crate) fn operation(&self) -> Operation {
        self.operation
    }

    /// The file it was sent to.
    #[must_use]
    pub(crate) fn file(&self) -> Option<FileId> {
        self.file
    }

    /// The framework's object of that file, where there is one.
    #[must_use]
    pub(crate) fn file_object(&self) -> Option<&Arc<Object>> {
        self.file_object.as_ref()
    }

    /// The queue it is in or was presented from.
    #[must_use]
    pub(crate) fn queue(&self) -> Option<Arc<Object>> {
        self.state.lock().queue.clone()
    }

    /// It goes into a queue: the framework has it.
    pub(crate) fn entering(&self, queue: &Arc<Object>) {
        let mut state = self.state.lock();
        state.owner = Owner::Framework;
        state.queue = Some(Arc::clone(queue));
    }

    /// It goes to the driver.
    pub(crate) fn presented(&self) {
        let mut state = self.state.lock();
        state.owner = Owner::Driver;
        state.presented = true;
        state.cancel = Cancel::Unmarked;
    }

    /// It goes to the driver because it was cancelled in its queue; only the queue's canceled-on-queue callback knows.
    pub(crate) fn presented_cancelled(&self) {
        let mut state = self.state.lock();
        state.owner = Owner::Driver;
        state.cancel = Cancel::Called;
    }

    /// It goes to the driver's `EvtIoInCallerContext`.
    pub(crate) fn presented_in_caller(&self) {
        self.state.lock().owner = Owner::InCaller;
    }

    /// Whether the driver ever saw it.
    #[must_use]
    pub(crate) fn was_presented(&self) -> bool {
        self.state.lock().presented
    }

    /// Whether somebody cancelled it.
    #[must_use]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.lock().cancelled
    }

    /// It comes back from the driver on its way to a queue. Undone by [`Self::returned`].
    fn leaving(&self, handle: Handle, function: &str, from: Owner) -> Result<Option<Arc<Object>>, Box<Violation>> {
        let mut state = self.state.lock();
        expect_owner(&state, handle, function, from)?;
        if let Cancel::Marked(_) | Cancel::Due(_) = state.cancel {
            let why = format!("{function}: WDFREQUEST {handle:?} is still marked cancelable");
            return Err(Violation::request(handle, why));
        }
        state.owner = Owner::Framework;
        Ok(state.queue.clone())
    }

    /// The queue it was meant for did not take it: it is the driver's again.
    fn returned(&self, queue: Option<Arc<Object>>, to: Owner) {
        let mut state = self.state.lock();
        state.owner = to;
        state.queue = queue;
    }

    /// `WdfRequestMarkCancelable(Ex)`. A request that is cancelled already stays unmarked, unless `call_if_cancelled`
    /// makes its callback due at once.
    fn mark(
        &self,
        handle: Handle,
        callback: CancelCallback,
        call_if_cancelled: bool,
    ) -> Result<Marked, Box<Violation>> {
        let mut state = self.state.lock();
        expect_owner(&state, handle, "WdfRequestMarkCancelable", Owner::Driver)?;
        if let Cancel::Marked(_) | Cancel::Due(_) = state.cancel {
            let why = format!("WdfRequestMarkCancelable: WDFREQUEST {handle:?} is marked cancelable already");
            return Err(Violation::request(handle, why));
        }
        if !state.cancelled {
            state.cancel = Cancel::Marked(callback);
            return Ok(Marked::Yes);
        }
        if call_if_cancelled {
            state.cancel = Cancel::Due(callback);
        }
        Ok(Marked::Cancelled)
    }

    /// `WdfRequestUnmarkCancelable`: `STATUS_CANCELLED` once cancellation has taken the callback.
    fn unmark(&self, handle: Handle) -> Result<NtStatus, Box<Violation>> {
        let mut state = self.state.lock();
        expect_owner(&state, handle, "WdfRequestUnmarkCancelable", Owner::Driver)?;
        match state.cancel {
            Cancel::Marked(_) => {
                state.cancel = Cancel::Unmarked;
                Ok(NtStatus::SUCCESS)
            }
            Cancel::Due(_) | Cancel::Called => Ok(NtStatus::CANCELLED),
            Cancel::Unmarked => {
                let why = format!("WdfRequestUnmarkCancelable: WDFREQUEST {handle:?} is not marked cancelable");
                Err(Violation::request(handle, why))
            }
        }
    }

    /// Somebody cancels it. Whether the driver's callback is due because of that.
    fn set_cancelled(&self) -> bool {
        if let Some(irp) = &*self.irp_view.lock() {
            irp.cancelled();
        }
        let mut state = self.state.lock();
        state.cancelled = true;
        let Cancel::Marked(callback) = state.cancel else { return false };
        state.cancel = Cancel::Due(callback);
        true
    }

    /// It is cancelled while it waits: no callback is needed.
    pub(crate) fn mark_cancelled(&self) {
        self.state.lock().cancelled = true;
    }

    /// A purge cancels what the driver owns and marked. Whether the driver's callback is due because of that; a request
    /// that is not marked is not touched.
    #[must_use]
    pub(crate) fn cancel_if_marked(&self) -> bool {
        let mut state = self.state.lock();
        let Cancel::Marked(callback) = state.cancel else { return false };
        state.cancelled = true;
        state.cancel = Cancel::Due(callback);
        true
    }

    /// The due callback, which is now being called.
    pub(crate) fn take_due_cancel(&self) -> Option<CancelCallback> {
        let mut state = self.state.lock();
        let Cancel::Due(callback) = state.cancel else { return None };
        state.cancel = Cancel::Called;
        Some(callback)
    }

    /// Ends the driver's ownership for completion: the queue it came from.
    fn complete_by_driver(&self, handle: Handle) -> Result<Option<Arc<Object>>, Box<Violation>> {
        let mut state = self.state.lock();
        if !matches!(state.owner, Owner::Driver | Owner::InCaller) {
            expect_owner(&state, handle, "WdfRequestComplete", Owner::Driver)?;
        }
        match state.cancel {
            Cancel::Marked(_) => {
                let why = format!(
                    "WDFREQUEST {handle:?} is completed while it is marked cancelable; WdfRequestUnmarkCancelable first"
                );
                return Err(Violation::request(handle, why));
            }
            Cancel::Due(_) => {
                let why = format!(
                    "WDFREQUEST {handle:?} is completed although it was cancelled and its EvtRequestCancel is about to run"
                );
                return Err(Violation::request(handle, why));
            }
            Cancel::Unmarked | Cancel::Called => {}
        }
        let in_queue = state.owner == Owner::Driver;
        state.owner = Owner::Nobody;
        Ok(state.queue.take().filter(|_| in_queue))
    }

    fn set_information(&self, information: usize) {
        self.state.lock().information = information;
        if let Some(irp) = &*self.irp_view.lock() {
            irp.set_information(information);
        }
    }

    /// What the driver said, here or in the IRP.
    fn information(&self) -> usize {
        let in_irp = self.irp_view.lock().as_ref().map(irp::Irp::information);
        in_irp.unwrap_or_else(|| self.state.lock().information)
    }

    /// Where METHOD_NEITHER input is; 0 for other requests.
    fn user_input(&self) -> usize {
        if self.operation.method() == Some(Method::Neither) { self.system_buffer } else { 0 }
    }

    /// Where METHOD_NEITHER output goes; 0 for other requests.
    fn user_output(&self) -> usize {
        match &self.direct {
            Some(direct) if self.operation.method() == Some(Method::Neither) => direct.address(),
            _ => 0,
        }
    }

    /// Checks that the driver owns it, for functions that read or change it.
    fn expect_driver(&self, handle: Handle, function: &str) -> Result<(), Box<Violation>> {
        let state = self.state.lock();
        if matches!(state.owner, Owner::Driver | Owner::InCaller) {
            return Ok(());
        }
        expect_owner(&state, handle, function, Owner::Driver)
    }

    /// Copies a direct request's output buffer to where the I/O manager takes it from: all of it, since the driver
    /// writes to the caller's own memory on Windows, and `Information` only says how much of that counts.
    fn copy_out(&self) {
        let Some(direct) = &self.direct else { return };
        let length = direct.size();
        // SAFETY: the system buffer is at least as long as the output, and the two are different allocations.
        unsafe {
            core::ptr::copy_nonoverlapping(direct.address() as *const u8, self.system_buffer as *mut u8, length);
        }
    }
}

fn expect_owner(state: &State, handle: Handle, function: &str, wanted: Owner) -> Result<(), Box<Violation>> {
    if state.owner == wanted {
        return Ok(());
    }
    let whose = match state.owner {
        Owner::Framework => "waits in a queue; the driver does not own it",
        Owner::Driver => "was presented from a queue",
        Owner::InCaller => "is still in EvtIoInCallerContext",
        Owner::Nobody => "is completed already",
    };
    Err(Violation::request(handle, format!("{function}: WDFREQUEST {handle:?} {whose}")))
}

/// Completes a request for the driver.
///
/// # Errors
/// A violation when the driver may not, or for more output than there is room for.
pub(crate) fn complete(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    status: NtStatus,
    information: usize,
) -> Result<(), Box<Violation>> {
    let request = super::ddi::body::<Request>(object)?;
    if let Some(limit) = request.operation.most_information()
        && status.is_success()
        && information > limit
    {
        return Err(Violation::information(object.handle, information, limit));
    }
    let queue = request.complete_by_driver(object.handle)?;
    finish(machine, object, request, status, information)?;
    match queue {
        Some(queue) => queue::released(machine, &queue, object),
        None => Ok(()),
    }
}

/// Completes a request that the driver does not own: it never saw it, or it is taken from it.
///
/// # Errors
/// A violation of the request's cleanup callbacks.
pub(crate) fn complete_unowned(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    status: NtStatus,
) -> Result<(), Box<Violation>> {
    let request = super::ddi::body::<Request>(object)?;
    request.state.lock().owner = Owner::Nobody;
    finish(machine, object, request, status, 0)
}

/// Cleanup callbacks, then the answer, then the end of the object. The object's buffers are valid in the callbacks.
fn finish(
    machine: &Arc<Machine>,
    object: &Arc<Object>,
    request: &Request,
    status: NtStatus,
    information: usize,
) -> Result<(), Box<Violation>> {
    object::dispose(machine, object)?;
    request.copy_out();
    let irp = request.irp.lock().take();
    match irp {
        Some(Irp::Io(irp)) => irp.complete(status, information),
        Some(Irp::Create(answer)) => answer.give(status),
        None => {}
    }
    object::delete_subtree(machine, object)
}

/// The I/O manager, or a queue that is purged, cancels a request.
///
/// # Errors
/// A violation in a callback.
pub(crate) fn cancel(machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let request = super::ddi::body::<Request>(object)?;
    let due = request.set_cancelled();
    let Some(queue) = request.queue() else { return Ok(()) };
    if due { queue::cancel_due(machine, &queue, object) } else { queue::cancel_waiting(machine, &queue, object) }
}
