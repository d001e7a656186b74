//! `WdfRequest...`: everything but the buffers.

use std::sync::Arc;

use super::super::abi::{Handle, RequestParameters};
use super::super::ddi::{self, Function, Globals};
use super::super::handle::Kind;
use super::super::object::Object;
use super::super::queue;
use super::super::status;
use super::super::violation::{Fault, Violation};
use super::{CancelCallback, Marked, Owner, Request, complete};
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfRequestComplete", complete_request as *const ()),
    Function::dispatch("WdfRequestCompleteWithInformation", complete_with_information as *const ()),
    Function::dispatch("WdfRequestCompleteWithPriorityBoost", complete_with_boost as *const ()),
    Function::dispatch("WdfRequestSetInformation", set_information as *const ()),
    Function::dispatch("WdfRequestGetInformation", get_information as *const ()),
    Function::dispatch("WdfRequestGetStatus", get_status as *const ()),
    Function::dispatch("WdfRequestGetParameters", get_parameters as *const ()),
    Function::dispatch("WdfRequestGetFileObject", get_file_object as *const ()),
    Function::dispatch("WdfRequestGetIoQueue", get_queue as *const ()),
    Function::dispatch("WdfRequestGetRequestorMode", get_requestor_mode as *const ()),
    Function::dispatch("WdfRequestIsFrom32BitProcess", is_from_32_bit as *const ()),
    Function::dispatch("WdfRequestIsReserved", is_reserved as *const ()),
    Function::dispatch("WdfRequestIsCanceled", is_canceled as *const ()),
    Function::dispatch("WdfRequestMarkCancelable", mark_cancelable as *const ()),
    Function::dispatch("WdfRequestMarkCancelableEx", mark_cancelable_ex as *const ()),
    Function::dispatch("WdfRequestUnmarkCancelable", unmark_cancelable as *const ()),
    Function::dispatch("WdfRequestForwardToIoQueue", forward as *const ()),
    Function::dispatch("WdfRequestRequeue", requeue as *const ()),
];

/// The request behind a handle, which the driver must own.
fn owned(machine: &Machine, handle: Handle, function: &str) -> Result<Arc<Object>, Box<Violation>> {
    let object = ddi::object(machine, handle, Kind::Request)?;
    ddi::body::<Request>(&object)?.expect_driver(handle, function)?;
    Ok(object)
}

extern "win64" fn complete_request(_: Globals, request: Handle, status: NtStatus) {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        let information = ddi::body::<Request>(&object)?.information();
        complete(machine, &object, status, information)
    });
}

extern "win64" fn complete_with_information(_: Globals, request: Handle, status: NtStatus, information: usize) {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        complete(machine, &object, status, information)
    });
}

/// The boost is for the scheduler, which is the host's here.
extern "win64" fn complete_with_boost(globals: Globals, request: Handle, status: NtStatus, _boost: i8) {
    complete_request(globals, request, status);
}

extern "win64" fn set_information(_: Globals, request: Handle, information: usize) {
    ddi::run(|machine| {
        let object = owned(machine, request, "WdfRequestSetInformation")?;
        ddi::body::<Request>(&object)?.set_information(information);
        Ok(())
    });
}

extern "win64" fn get_information(_: Globals, request: Handle) -> usize {
    ddi::run(|machine| {
        let object = owned(machine, request, "WdfRequestGetInformation")?;
        Ok(ddi::body::<Request>(&object)?.information())
    })
}

/// The status of a request that was never sent on is that of a new IRP.
extern "win64" fn get_status(_: Globals, request: Handle) -> NtStatus {
    ddi::run(|machine| owned(machine, request, "WdfRequestGetStatus").map(|_| NtStatus::SUCCESS))
}

extern "win64" fn get_parameters(_: Globals, request: Handle, out: *mut RequestParameters) {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        ddi::not_null(out, "WdfRequestGetParameters", "Parameters")?;
        // SAFETY: not null; the first field is the size that the driver gives.
        let size = unsafe { out.cast::<u16>().read_unaligned() };
        if usize::from(size) != size_of::<RequestParameters>() {
            let why = format!("WdfRequestGetParameters: WDF_REQUEST_PARAMETERS.Size is {size}, 40 is expected");
            return Err(Violation::request(request, why));
        }
        let parameters = ddi::body::<Request>(&object)?.operation().parameters();
        // SAFETY: not null, and of the checked size.
        unsafe { out.write_unaligned(parameters) };
        Ok(())
    });
}

extern "win64" fn get_file_object(_: Globals, request: Handle) -> Handle {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        Ok(ddi::body::<Request>(&object)?.file_object().map_or(Handle::NULL, |file| file.handle))
    })
}

extern "win64" fn get_queue(_: Globals, request: Handle) -> Handle {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        Ok(ddi::body::<Request>(&object)?.queue().map_or(Handle::NULL, |queue| queue.handle))
    })
}

/// `UserMode`: every request here comes from a user-mode program.
extern "win64" fn get_requestor_mode(_: Globals, request: Handle) -> i8 {
    ddi::run(|machine| ddi::object(machine, request, Kind::Request).map(|_| 1))
}

extern "win64" fn is_from_32_bit(_: Globals, request: Handle) -> u8 {
    ddi::run(|machine| ddi::object(machine, request, Kind::Request).map(|_| 0))
}

/// Reserved requests belong to forward-progress queues, which are absent.
extern "win64" fn is_reserved(_: Globals, request: Handle) -> u8 {
    ddi::run(|machine| ddi::object(machine, request, Kind::Request).map(|_| 0))
}

extern "win64" fn is_canceled(_: Globals, request: Handle) -> u8 {
    ddi::run(|machine| {
        let object = owned(machine, request, "WdfRequestIsCanceled")?;
        Ok(u8::from(ddi::body::<Request>(&object)?.is_cancelled()))
    })
}

/// A request that is cancelled already gets its callback: now, or when the callback that this is called from returns.
extern "win64" fn mark_cancelable(_: Globals, request: Handle, callback: Option<CancelCallback>) {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        let callback = callback.ok_or_else(|| Violation::null("WdfRequestMarkCancelable", "EvtRequestCancel"))?;
        let body = ddi::body::<Request>(&object)?;
        match (body.mark(request, callback, true)?, body.queue()) {
            (Marked::Cancelled, Some(queue)) => queue::cancel_due(machine, &queue, &object),
            _ => Ok(()),
        }
    });
}

extern "win64" fn mark_cancelable_ex(_: Globals, request: Handle, callback: Option<CancelCallback>) -> NtStatus {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        let callback = callback.ok_or_else(|| Violation::null("WdfRequestMarkCancelableEx", "EvtRequestCancel"))?;
        Ok(match ddi::body::<Request>(&object)?.mark(request, callback, false)? {
            Marked::Yes => NtStatus::SUCCESS,
            Marked::Cancelled => NtStatus::CANCELLED,
        })
    })
}

extern "win64" fn unmark_cancelable(_: Globals, request: Handle) -> NtStatus {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        ddi::body::<Request>(&object)?.unmark(request)
    })
}

extern "win64" fn forward(_: Globals, request: Handle, destination: Handle) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        let to = ddi::object(machine, destination, Kind::Queue)?;
        let body = ddi::body::<Request>(&object)?;
        body.expect_driver(request, "WdfRequestForwardToIoQueue")?;
        let from = body.queue();
        let same_device = match (&from, to.ancestor(Kind::Device)) {
            (Some(from), Some(device)) => from.ancestor(Kind::Device).is_some_and(|other| Arc::ptr_eq(&other, &device)),
            _ => false,
        };
        if !same_device || from.as_ref().is_some_and(|from| Arc::ptr_eq(from, &to)) {
            return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
        }
        let from = body.leaving(request, "WdfRequestForwardToIoQueue", Owner::Driver)?;
        body.entering(&to);
        if !queue::insert(machine, &to, &object)? {
            body.returned(from, Owner::Driver);
            return Err(status::WDF_BUSY.into());
        }
        match from {
            Some(from) => Ok(queue::released(machine, &from, &object)?),
            None => Ok(()),
        }
    })
}

/// To the head of the manual queue it came from.
extern "win64" fn requeue(_: Globals, request: Handle) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        let body = ddi::body::<Request>(&object)?;
        body.expect_driver(request, "WdfRequestRequeue")?;
        let queue = body.queue().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
        if !queue::is_manual(&queue)? {
            return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
        }
        body.leaving(request, "WdfRequestRequeue", Owner::Driver)?;
        Ok(queue::requeue(machine, &queue, &object)?)
    })
}

/// `WdfDeviceEnqueueRequest`'s part: a request leaves `EvtIoInCallerContext` for a queue.
///
/// # Errors
/// `STATUS_WDF_BUSY` when the queue does not accept it: the driver still has it. A violation when it is not there.
pub(crate) fn enqueue_from_caller(machine: &Arc<Machine>, object: &Arc<Object>, to: &Arc<Object>) -> Result<(), Fault> {
    let body = ddi::body::<Request>(object)?;
    body.leaving(object.handle, "WdfDeviceEnqueueRequest", Owner::InCaller)?;
    body.entering(to);
    if !queue::insert(machine, to, object)? {
        body.returned(None, Owner::InCaller);
        return Err(status::WDF_BUSY.into());
    }
    Ok(())
}
