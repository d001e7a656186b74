//! The buffers of a request: as addresses, as memory objects, as MDLs.

use core::ffi::c_void;
use std::sync::Arc;

use super::super::abi::Handle;
use super::super::ddi::{self, Function, Globals};
use super::super::handle::Kind;
use super::super::kernel::Allocation;
use super::super::memory::Memory;
use super::super::object::{Attributes, Object};
use super::super::status;
use super::super::violation::Fault;
use super::{Method, Operation, Owner, Request};
use crate::machine::Machine;
use crate::nt::mm::mdl;
use crate::nt::rtl::copy;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfRequestRetrieveInputBuffer", retrieve_input_buffer as *const ()),
    Function::dispatch("WdfRequestRetrieveOutputBuffer", retrieve_output_buffer as *const ()),
    Function::dispatch("WdfRequestRetrieveInputMemory", retrieve_input_memory as *const ()),
    Function::dispatch("WdfRequestRetrieveOutputMemory", retrieve_output_memory as *const ()),
    Function::dispatch("WdfRequestRetrieveInputWdmMdl", retrieve_input_mdl as *const ()),
    Function::dispatch("WdfRequestRetrieveOutputWdmMdl", retrieve_output_mdl as *const ()),
    Function::passive("WdfRequestRetrieveUnsafeUserInputBuffer", unsafe_input_buffer as *const ()),
    Function::passive("WdfRequestRetrieveUnsafeUserOutputBuffer", unsafe_output_buffer as *const ()),
    Function::passive("WdfRequestProbeAndLockUserBufferForRead", probe_for_read as *const ()),
    Function::passive("WdfRequestProbeAndLockUserBufferForWrite", probe_for_write as *const ()),
];

/// Which of a request's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Input,
    Output,
}

/// What was made of a request's buffers so far: one of each, for all callers.
#[derive(Default)]
pub(crate) struct Views {
    memory: [Option<Arc<Object>>; 2],
    mdl: [Option<Allocation>; 2],
}

impl Request {
    /// Address and length of a buffer.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` when the request has none in that direction or the framework may not give it
    /// out (METHOD_NEITHER), `STATUS_BUFFER_TOO_SMALL` when it has no bytes.
    fn buffer(&self, direction: Direction) -> Result<(usize, usize), NtStatus> {
        let (address, length) = match (self.operation, direction) {
            (Operation::Write(length), Direction::Input) | (Operation::Read(length), Direction::Output) => {
                (self.system_buffer, length)
            }
            (Operation::Control { .. }, _) if self.operation.method() == Some(Method::Neither) => {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            }
            (Operation::Control { input, .. }, Direction::Input) => (self.system_buffer, input),
            (Operation::Control { output, .. }, Direction::Output) => (self.output_address(), output),
            (Operation::Create | Operation::Read(_) | Operation::Write(_), _) => {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            }
        };
        if length == 0 { Err(NtStatus::BUFFER_TOO_SMALL) } else { Ok((address, length)) }
    }

    fn output_address(&self) -> usize {
        self.direct.as_ref().map_or(self.system_buffer, |direct| direct.address())
    }
}

/// Writes a buffer's address and length to where the driver wants them.
///
/// # Safety
/// `buffer` and `length` are null or writable.
unsafe fn retrieve(
    machine: &Machine,
    handle: Handle,
    required: usize,
    buffer: *mut usize,
    length: *mut usize,
    direction: Direction,
) -> Result<(), Fault> {
    let object = ddi::object(machine, handle, Kind::Request)?;
    ddi::not_null(buffer, "WdfRequestRetrieveBuffer", "Buffer")?;
    // SAFETY: not null; the length is written only when it is not.
    unsafe {
        buffer.write(0);
        if !length.is_null() {
            length.write(0);
        }
    }
    let request = ddi::body::<Request>(&object)?;
    request.expect_driver(handle, "WdfRequestRetrieveBuffer")?;
    let (address, bytes) = request.buffer(direction)?;
    if bytes < required {
        return Err(NtStatus::BUFFER_TOO_SMALL.into());
    }
    // SAFETY: as above.
    unsafe {
        buffer.write(address);
        if !length.is_null() {
            length.write(bytes);
        }
    }
    Ok(())
}

extern "win64" fn retrieve_input_buffer(
    _: Globals,
    request: Handle,
    required: usize,
    buffer: *mut usize,
    length: *mut usize,
) -> NtStatus {
    // SAFETY: the driver passes pointers as the function documents them.
    ddi::status(|machine| unsafe { retrieve(machine, request, required, buffer, length, Direction::Input) })
}

extern "win64" fn retrieve_output_buffer(
    _: Globals,
    request: Handle,
    required: usize,
    buffer: *mut usize,
    length: *mut usize,
) -> NtStatus {
    // SAFETY: the driver passes pointers as the function documents them.
    ddi::status(|machine| unsafe { retrieve(machine, request, required, buffer, length, Direction::Output) })
}

/// The memory object of a buffer: a child of the request, deleted when the request is completed.
fn memory(machine: &Arc<Machine>, handle: Handle, out: *mut Handle, direction: Direction) -> Result<(), Fault> {
    let object = ddi::object(machine, handle, Kind::Request)?;
    ddi::not_null(out, "WdfRequestRetrieveMemory", "Memory")?;
    let request = ddi::body::<Request>(&object)?;
    request.expect_driver(handle, "WdfRequestRetrieveMemory")?;
    let (address, length) = request.buffer(direction)?;
    let mut views = request.views.lock();
    let view = match &views.memory[direction as usize] {
        Some(view) => Arc::clone(view),
        None => {
            let body = Box::new(Memory::of_request(address, length));
            let view = Object::create(machine, object.client(), Some(&object), &Attributes::default(), body)?;
            views.memory[direction as usize] = Some(Arc::clone(&view));
            view
        }
    };
    drop(views);
    // SAFETY: not null.
    unsafe { out.write(view.handle) };
    Ok(())
}

extern "win64" fn retrieve_input_memory(_: Globals, request: Handle, out: *mut Handle) -> NtStatus {
    ddi::status(|machine| memory(machine, request, out, Direction::Input))
}

extern "win64" fn retrieve_output_memory(_: Globals, request: Handle, out: *mut Handle) -> NtStatus {
    ddi::status(|machine| memory(machine, request, out, Direction::Output))
}

/// The address of a buffer's MDL, made when first asked for; the request frees it.
///
/// # Errors
/// As [`Request::buffer`], and `STATUS_INSUFFICIENT_RESOURCES`.
pub(super) fn mdl_of(machine: &Arc<Machine>, request: &Request, direction: Direction) -> Result<usize, NtStatus> {
    let (address, length) = request.buffer(direction)?;
    let mut views = request.views.lock();
    let slot = &mut views.mdl[direction as usize];
    if let Some(block) = slot {
        return Ok(block.address());
    }
    let block = Allocation::zeroed(machine, super::super::kernel::TAG, mdl::size_for(address, length));
    let block = block.ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    // SAFETY: the block has the size for it.
    unsafe { mdl::describe(block.address() as *mut _, address, length) };
    let address = block.address();
    *slot = Some(block);
    Ok(address)
}

/// Gives the driver the MDL of a buffer.
fn mdl(machine: &Arc<Machine>, handle: Handle, out: *mut usize, direction: Direction) -> Result<(), Fault> {
    let object = ddi::object(machine, handle, Kind::Request)?;
    ddi::not_null(out, "WdfRequestRetrieveWdmMdl", "Mdl")?;
    let request = ddi::body::<Request>(&object)?;
    request.expect_driver(handle, "WdfRequestRetrieveWdmMdl")?;
    let address = mdl_of(machine, request, direction)?;
    // SAFETY: not null.
    unsafe { out.write(address) };
    Ok(())
}

extern "win64" fn retrieve_input_mdl(_: Globals, request: Handle, out: *mut usize) -> NtStatus {
    ddi::status(|machine| mdl(machine, request, out, Direction::Input))
}

extern "win64" fn retrieve_output_mdl(_: Globals, request: Handle, out: *mut usize) -> NtStatus {
    ddi::status(|machine| mdl(machine, request, out, Direction::Output))
}

/// The caller's own addresses, of METHOD_NEITHER controls only (reads and writes of a device are always buffered or
/// direct here), and only in `EvtIoInCallerContext`.
///
/// # Safety
/// `buffer` and `length` are null or writable.
unsafe fn user_buffer(
    machine: &Machine,
    handle: Handle,
    required: usize,
    buffer: *mut usize,
    length: *mut usize,
    direction: Direction,
) -> Result<(), Fault> {
    let object = ddi::object(machine, handle, Kind::Request)?;
    ddi::not_null(buffer, "WdfRequestRetrieveUnsafeUserBuffer", "Buffer")?;
    let request = ddi::body::<Request>(&object)?;
    super::expect_owner(&request.state.lock(), handle, "WdfRequestRetrieveUnsafeUserBuffer", Owner::InCaller)?;
    // SAFETY: not null; the length is written only when it is not.
    unsafe { buffer.write(0) };
    if request.operation.method() != Some(Method::Neither) {
        return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
    }
    let Operation::Control { input, output, .. } = request.operation else {
        return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
    };
    let (address, bytes) = match direction {
        Direction::Input => (request.system_buffer, input),
        Direction::Output => (request.output_address(), output),
    };
    if bytes < required {
        return Err(NtStatus::BUFFER_TOO_SMALL.into());
    }
    // SAFETY: as above.
    unsafe {
        buffer.write(if bytes == 0 { 0 } else { address });
        if !length.is_null() {
            length.write(bytes);
        }
    }
    Ok(())
}

extern "win64" fn unsafe_input_buffer(
    _: Globals,
    request: Handle,
    required: usize,
    buffer: *mut usize,
    length: *mut usize,
) -> NtStatus {
    // SAFETY: the driver passes pointers as the function documents them.
    ddi::status(|machine| unsafe { user_buffer(machine, request, required, buffer, length, Direction::Input) })
}

extern "win64" fn unsafe_output_buffer(
    _: Globals,
    request: Handle,
    required: usize,
    buffer: *mut usize,
    length: *mut usize,
) -> NtStatus {
    // SAFETY: the driver passes pointers as the function documents them.
    ddi::status(|machine| unsafe { user_buffer(machine, request, required, buffer, length, Direction::Output) })
}

/// Locks the caller's memory and describes it: the caller lives in this process, so its addresses are the system's.
fn probe(
    machine: &Arc<Machine>,
    handle: Handle,
    buffer: *mut c_void,
    length: usize,
    out: *mut Handle,
    writable: bool,
) -> Result<(), Fault> {
    let object = ddi::object(machine, handle, Kind::Request)?;
    ddi::not_null(out, "WdfRequestProbeAndLockUserBuffer", "MemoryObject")?;
    let request = ddi::body::<Request>(&object)?;
    super::expect_owner(&request.state.lock(), handle, "WdfRequestProbeAndLockUserBuffer", Owner::InCaller)?;
    if length == 0 {
        return Err(status::INVALID_USER_BUFFER.into());
    }
    if copy::first_inaccessible(buffer as usize, length, writable).is_some() {
        return Err(NtStatus::ACCESS_VIOLATION.into());
    }
    let body = Box::new(Memory::of_request(buffer as usize, length));
    let view = Object::create(machine, object.client(), Some(&object), &Attributes::default(), body)?;
    // SAFETY: not null.
    unsafe { out.write(view.handle) };
    Ok(())
}

extern "win64" fn probe_for_read(
    _: Globals,
    request: Handle,
    buffer: *mut c_void,
    length: usize,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| probe(machine, request, buffer, length, out, false))
}

extern "win64" fn probe_for_write(
    _: Globals,
    request: Handle,
    buffer: *mut c_void,
    length: usize,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| probe(machine, request, buffer, length, out, true))
}
