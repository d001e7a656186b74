//! The `IRP` behind a request, for drivers that look at it.
//!
//! It is made when a driver asks for it, and describes the request: what a driver reads in it is right, and
//! `IoStatus.Information` that it writes is what `WdfRequestComplete` reports. It is not an IRP that could be sent on
//! or completed by the driver itself; the framework completes requests.

use core::mem::{offset_of, size_of};
use std::sync::Arc;

use super::super::abi::Handle;
use super::super::ddi::{self, Function, Globals};
use super::super::handle::Kind;
use super::super::kernel::{Allocation, TAG};
use super::{Operation, Request, buffer};
use crate::machine::Machine;
use crate::nt::io::layout;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[Function::dispatch("WdfRequestWdmGetIrp", get_irp as *const ())];

/// An IRP with its only stack location.
#[repr(C)]
struct Layout {
    irp: layout::Irp,
    location: layout::StackLocation,
}

/// What a driver was given of a request.
pub(crate) struct Irp {
    block: Allocation,
}

impl Irp {
    fn pointer(&self) -> *mut Layout {
        self.block.address() as *mut Layout
    }

    /// `IoStatus.Information`, which the driver may have set.
    pub(crate) fn information(&self) -> usize {
        // SAFETY: the block is an IRP as long as this lives; the driver may write it at any time.
        unsafe { (&raw const (*self.pointer()).irp.information).read_volatile() }
    }

    /// Sets `IoStatus.Information`.
    pub(crate) fn set_information(&self, information: usize) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.pointer()).irp.information).write_volatile(information) };
    }

    /// Sets `Cancel`.
    pub(crate) fn cancelled(&self) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.pointer()).irp.cancel).write_volatile(1) };
    }
}

fn make(machine: &Arc<Machine>, request: &Request, device_object: usize, file_object: usize) -> Option<Irp> {
    let mdl = request.direct_mdl(machine);
    let irp = Irp { block: Allocation::zeroed(machine, TAG, size_of::<Layout>())? };
    // SAFETY: the block has the layout's size, is zeroed, and is this function's alone.
    let block = unsafe { &mut *irp.pointer() };
    let head = &mut block.irp;
    head.kind = layout::Irp::TYPE;
    head.size = size_of::<Layout>() as u16;
    head.mdl_address = mdl;
    head.system_buffer = request.system_buffer;
    head.status = NtStatus::SUCCESS.0;
    head.information = request.state.lock().information;
    head.requestor_mode = layout::Irp::USER_MODE;
    head.stack_count = 1;
    head.current_location = 1;
    head.cancel = u8::from(request.is_cancelled());
    head.user_buffer = request.user_output();
    head.tail_thread = request.thread;
    head.current_stack_location = irp.block.address() + offset_of!(Layout, location);
    head.original_file_object = file_object;
    let location = &mut block.location;
    location.major = request.operation.request_type() as u8;
    location.parameters = request.operation.parameters().parameters;
    if let Operation::Control { .. } = request.operation {
        location.parameters[3] = request.user_input() as u64;
    }
    location.device_object = device_object;
    location.file_object = file_object;
    Some(irp)
}

extern "win64" fn get_irp(_: Globals, request: Handle) -> usize {
    ddi::run(|machine| {
        let object = ddi::object(machine, request, Kind::Request)?;
        let body = ddi::body::<Request>(&object)?;
        body.expect_driver(request, "WdfRequestWdmGetIrp")?;
        if let Some(irp) = &*body.irp_view.lock() {
            return Ok(irp.block.address());
        }
        let device = object.ancestor(Kind::Device);
        let device_object = match &device {
            Some(device) => super::super::device::device_object(device)?,
            None => 0,
        };
        let file_object = match body.file_object() {
            Some(file) => super::super::file::file_object(file)?,
            None => 0,
        };
        // No memory: NULL, which the real framework never has to say, since there the IRP is what it began with.
        let Some(irp) = make(machine, body, device_object, file_object) else { return Ok(0) };
        let address = irp.block.address();
        *body.irp_view.lock() = Some(irp);
        Ok(address)
    })
}

impl Request {
    /// The MDL of a direct request's output; 0 for others.
    fn direct_mdl(&self, machine: &Arc<Machine>) -> usize {
        if self.direct.is_none() || self.user_output() != 0 {
            return 0;
        }
        buffer::mdl_of(machine, self, buffer::Direction::Output).unwrap_or(0)
    }
}
