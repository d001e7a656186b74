//! The `IRP` behind a request, for drivers that look at it.
//!
//! It is made when a driver asks for it, and describes the request: what a driver reads in it is right, and
//! `IoStatus.Information` that it writes is what `WdfRequestComplete` reports. It is not an IRP that could be sent on or
//! completed by the driver itself; the framework completes requests.

use core::mem::{offset_of, size_of};
use std::sync::Arc;

use super::super::abi::Handle;
use super::super::ddi::{self, Function, Globals};
use super::super::handle::Kind;
use super::super::kernel::{Allocation, TAG};
use super::{Operation, Request, buffer};
use crate::machine::Machine;
use crate::status::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[Function::dispatch("WdfRequestWdmGetIrp", get_irp as *const ())];

/// `IRP` (x64, wdm.h), with its only stack location behind it. Fields that nothing here sets are padding.
#[repr(C)]
struct Layout {
    kind: u16,
    size: u16,
    pad0: u32,
    mdl_address: usize,
    flags: u32,
    pad1: u32,
    system_buffer: usize,
    thread_list: [usize; 2],
    status: i32,
    pad2: u32,
    information: usize,
    requestor_mode: i8,
    pending_returned: u8,
    stack_count: i8,
    current_location: i8,
    cancel: u8,
    cancel_irql: u8,
    apc_environment: i8,
    allocation_flags: u8,
    user_iosb: usize,
    user_event: usize,
    overlay: [usize; 2],
    cancel_routine: usize,
    user_buffer: usize,
    driver_context: [usize; 4],
    tail_thread: u64,
    auxiliary_buffer: usize,
    list_entry: [usize; 2],
    current_stack_location: usize,
    original_file_object: usize,
    tail_end: usize,
    location: Location,
}

/// `IO_STACK_LOCATION` (x64, wdm.h).
#[repr(C)]
struct Location {
    major: u8,
    minor: u8,
    flags: u8,
    control: u8,
    pad: u32,
    parameters: [u64; 4],
    device_object: usize,
    file_object: usize,
    completion_routine: usize,
    context: usize,
}

const _: () = assert!(size_of::<Location>() == 0x48);
const _: () = assert!(offset_of!(Location, device_object) == 0x28);
const _: () = assert!(offset_of!(Layout, mdl_address) == 0x08);
const _: () = assert!(offset_of!(Layout, system_buffer) == 0x18);
const _: () = assert!(offset_of!(Layout, status) == 0x30);
const _: () = assert!(offset_of!(Layout, information) == 0x38);
const _: () = assert!(offset_of!(Layout, requestor_mode) == 0x40);
const _: () = assert!(offset_of!(Layout, cancel) == 0x44);
const _: () = assert!(offset_of!(Layout, user_buffer) == 0x70);
const _: () = assert!(offset_of!(Layout, tail_thread) == 0x98);
const _: () = assert!(offset_of!(Layout, current_stack_location) == 0xB8);
const _: () = assert!(offset_of!(Layout, location) == 0xD0);

/// `IO_TYPE_IRP`.
const TYPE: u16 = 6;
/// `UserMode`.
const USER_MODE: i8 = 1;

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
        unsafe { (&raw const (*self.pointer()).information).read_volatile() }
    }

    /// Sets `IoStatus.Information`.
    pub(crate) fn set_information(&self, information: usize) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.pointer()).information).write_volatile(information) };
    }

    /// Sets `Cancel`.
    pub(crate) fn cancelled(&self) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.pointer()).cancel).write_volatile(1) };
    }
}

fn make(machine: &Arc<Machine>, request: &Request, device_object: usize, file_object: usize) -> Option<Irp> {
    let mdl = request.direct_mdl(machine);
    let irp = Irp { block: Allocation::zeroed(machine, TAG, size_of::<Layout>())? };
    // SAFETY: the block has the layout's size, is zeroed, and is this function's alone.
    let layout = unsafe { &mut *irp.pointer() };
    layout.kind = TYPE;
    layout.size = size_of::<Layout>() as u16;
    layout.mdl_address = mdl;
    layout.system_buffer = request.system_buffer;
    layout.status = NtStatus::SUCCESS.0;
    layout.information = request.state.lock().information;
    layout.requestor_mode = USER_MODE;
    layout.stack_count = 1;
    layout.current_location = 1;
    layout.cancel = u8::from(request.is_cancelled());
    layout.user_buffer = request.user_output();
    layout.tail_thread = request.thread;
    layout.current_stack_location = irp.block.address() + offset_of!(Layout, location);
    layout.original_file_object = file_object;
    let location = &mut layout.location;
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
