//! IRPs on their way to a driver's dispatch routine.

use super::super::layout::{DeviceObject, Irp, StackLocation};
use super::super::{FileId, IrpKind, IrpRequest};
use super::{Block, Device, InFlight};
use crate::cpu::{self, code};
use crate::nt::driver;
use crate::nt::mm::mdl;
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, At, Keeps};
use nt_abi::NtStatus;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

/// What is asked of a driver (IRP_MJ_*, wdm.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Create,
    Cleanup,
    Close,
    Transfer(IrpKind),
}

impl Request {
    fn major(self) -> u8 {
        match self {
            Self::Create => 0x00,
            Self::Close => 0x02,
            Self::Transfer(IrpKind::Read { .. }) => 0x03,
            Self::Transfer(IrpKind::Write { .. }) => 0x04,
            Self::Transfer(IrpKind::DeviceControl { .. }) => 0x0e,
            Self::Cleanup => 0x12,
        }
    }
}

/// The name of a major function.
fn major_name(major: u8) -> &'static str {
    match major {
        0x00 => "IRP_MJ_CREATE",
        0x02 => "IRP_MJ_CLOSE",
        0x03 => "IRP_MJ_READ",
        0x04 => "IRP_MJ_WRITE",
        0x0e => "IRP_MJ_DEVICE_CONTROL",
        0x12 => "IRP_MJ_CLEANUP",
        _ => "IRP_MJ_*",
    }
}

/// The result of an IRP, for its waiter, and for the contract between what a dispatch routine does and what it returns
/// (IoMarkIrpPending, WDK).
#[derive(Default)]
pub(super) struct Answer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// What the dispatch routine of the first device returned.
    returned: Option<NtStatus>,
    /// How the IRP was completed, and whether its first location was marked pending.
    ended: Option<(NtStatus, bool)>,
}

impl State {
    /// What contradicts the contract, once both are known, or the return alone.
    fn wrong(self, pending_anywhere: bool) -> Option<String> {
        match (self.returned?, self.ended) {
            (NtStatus::PENDING, Some((_, false))) => {
                Some("returned STATUS_PENDING without IoMarkIrpPending".to_owned())
            }
            (NtStatus::PENDING, _) => None,
            (returned, Some((_, true))) => Some(format!("marked the IRP pending and returned {returned}")),
            (returned, Some((ended, _))) if returned != ended => {
                Some(format!("completed the IRP with {ended} and returned {returned}"))
            }
            (returned, None) if !pending_anywhere => Some(format!("returned {returned} and did not complete the IRP")),
            _ => None,
        }
    }
}

impl Answer {
    /// The IRP is completed. What its dispatch routine did wrong, if that has returned.
    pub(super) fn ended(&self, status: NtStatus, marked: bool) -> Option<String> {
        let mut state = self.state.lock();
        state.ended = Some((status, marked));
        self.changed.notify_all();
        state.wrong(true)
    }

    /// The dispatch routine has returned; what it did wrong, as far as is known yet.
    fn returned(&self, status: NtStatus) -> Option<String> {
        let mut state = self.state.lock();
        state.returned = Some(status);
        state.wrong(false)
    }

    fn wait(&self) -> NtStatus {
        /// Another thread may stop the machine, which completes nothing.
        const LOOK: Duration = Duration::from_millis(20);
        loop {
            {
                let mut state = self.state.lock();
                if let Some((status, _)) = state.ended {
                    return status;
                }
                self.changed.wait_for(&mut state, LOOK);
            }
            cpu::leave_if_stopped();
        }
    }
}

/// Stops the machine for a dispatch routine that broke the contract.
pub(super) fn contract_broken(irp: usize, what: &str) -> ! {
    let why = format!("a dispatch routine {what}");
    cpu::bugcheck(code::DRIVER_VERIFIER_IOMANAGER_VIOLATION, [0, irp as u64, 0, 0], why)
}

/// Sends a request that the caller waits for.
pub(super) fn send_and_wait(device: &Arc<Device>, request: Request, file: FileId) -> NtStatus {
    let Some((irp, answer)) = make(device, request, file, None) else { return NtStatus::INSUFFICIENT_RESOURCES };
    call_first(device, irp, &answer);
    answer.wait()
}

/// Sends a request of user mode, which is completed now or later.
pub(super) fn submit(device: &Arc<Device>, request: IrpRequest) {
    let (kind, file) = (request.kind(), request.file());
    let mut request = Some(request);
    match make(device, Request::Transfer(kind), file, Some(&mut request)) {
        Some((irp, answer)) => call_first(device, irp, &answer),
        None => {
            if let Some(request) = request {
                request.complete(NtStatus::INSUFFICIENT_RESOURCES, 0);
            }
        }
    }
}

/// What a transfer's buffers are in an IRP.
#[derive(Default)]
struct Buffers {
    system: usize,
    user: usize,
    type3_input: usize,
    output: Option<(Block, usize)>,
    mdl: Option<Block>,
}

/// Makes an IRP and enters it among those in flight. None when there is no memory; `request` is untouched then.
fn make(
    device: &Arc<Device>,
    request: Request,
    file: FileId,
    transfer: Option<&mut Option<IrpRequest>>,
) -> Option<(usize, Arc<Answer>)> {
    let machine = device.machine.upgrade()?;
    // SAFETY: the block is a DEVICE_OBJECT for as long as the device lives, which `device` ensures.
    let stack = unsafe { (*device.pointer()).stack_size }.max(1);
    let unsent = stack.checked_add(1)?;
    let size = size_of::<Irp>() + stack as usize * size_of::<StackLocation>();
    let block = Block::zeroed(&machine, *b"Irp ", size)?;
    let buffers = match &transfer {
        Some(Some(transfer)) => buffers(device, transfer)?,
        _ => Buffers::default(),
    };
    let address = block.address();
    let location = address + size - size_of::<StackLocation>();
    // SAFETY: the block has room for the IRP and its locations and is nobody else's yet.
    unsafe {
        let irp = &mut *(address as *mut Irp);
        irp.kind = Irp::TYPE;
        irp.size = size as u16;
        irp.requestor_mode = Irp::USER_MODE;
        irp.stack_count = stack;
        irp.tail_thread = cpu::current_processor().thread();
        irp.original_file_object = device.file_object(file);
        irp.system_buffer = buffers.system;
        irp.user_buffer = buffers.user;
        irp.mdl_address = buffers.mdl.as_ref().map_or(0, Block::address);
        // Nobody has it yet: sending it moves to the first location.
        irp.current_location = unsent;
        irp.current_stack_location = location + size_of::<StackLocation>();
        let location = &mut *(location as *mut StackLocation);
        location.major = request.major();
        location.file_object = irp.original_file_object;
        location.parameters = parameters(request, buffers.type3_input);
    }
    let answer = Arc::new(Answer::default());
    let in_flight = InFlight {
        irp: block,
        device: Arc::clone(device),
        request: transfer.and_then(Option::take),
        output: buffers.output,
        mdl: buffers.mdl,
        answer: Arc::clone(&answer),
    };
    machine.io.wdm.irps.lock().insert(address, in_flight);
    Some((address, answer))
}

/// IO_SECURITY_CONTEXT (wdm.h) of every open: for reading and writing. There is no ACCESS_STATE.
#[repr(C)]
struct SecurityContext {
    quality_of_service: usize,
    access_state: usize,
    desired_access: u32,
    full_create_options: u32,
}

static SECURITY_CONTEXT: SecurityContext = SecurityContext {
    quality_of_service: 0,
    access_state: 0,
    desired_access: super::super::access::READ_AND_WRITE,
    full_create_options: 1 << 24,
};

/// IO_STACK_LOCATION.Parameters.
fn parameters(request: Request, type3_input: usize) -> [u64; 4] {
    match request {
        // SecurityContext; Options: FILE_OPEN in the upper byte; ShareAccess: read and write.
        Request::Create => [(&raw const SECURITY_CONTEXT) as u64, 1 << 24, 3 << 16, 0],
        Request::Cleanup | Request::Close => [0; 4],
        Request::Transfer(IrpKind::Read { length } | IrpKind::Write { length }) => [length as u64, 0, 0, 0],
        Request::Transfer(IrpKind::DeviceControl { code, input, output }) => {
            [output as u64, input as u64, u64::from(code), type3_input as u64]
        }
    }
}

/// The buffers by the device's flags and the control's method ("Methods for Accessing Data Buffers", WDK).
fn buffers(device: &Device, request: &IrpRequest) -> Option<Buffers> {
    let system = request.system_buffer() as usize;
    let direct = |address: usize, length: usize| -> Option<Option<Block>> {
        if length == 0 {
            return Some(None);
        }
        let machine = device.machine.upgrade()?;
        let block = Block::zeroed(&machine, *b"Mdl ", mdl::size_for(address, length))?;
        // SAFETY: the block has the size for it.
        unsafe { mdl::describe(block.address() as *mut _, address, length) };
        Some(Some(block))
    };
    let output_of = |length: usize| -> Option<Option<(Block, usize)>> {
        if length == 0 {
            return Some(None);
        }
        let machine = device.machine.upgrade()?;
        let block = Block::zeroed(&machine, *b"Io  ", length)?;
        let data = request.direct_data();
        // SAFETY: within the block, which is new.
        unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), block.address() as *mut u8, data.len().min(length)) };
        Some(Some((block, length)))
    };
    Some(match request.kind() {
        IrpKind::Read { length } | IrpKind::Write { length } => {
            let flags = device.flags();
            if length == 0 {
                Buffers::default()
            } else if flags & DeviceObject::BUFFERED_IO != 0 {
                Buffers { system, ..Buffers::default() }
            } else if flags & DeviceObject::DIRECT_IO != 0 {
                Buffers { mdl: direct(system, length)?, ..Buffers::default() }
            } else {
                Buffers { user: system, ..Buffers::default() }
            }
        }
        IrpKind::DeviceControl { code, input, output } => match code & 3 {
            0 if input.max(output) == 0 => Buffers::default(),
            0 => Buffers { system, user: system, ..Buffers::default() },
            1 | 2 => {
                let output = output_of(output)?;
                let mdl = match &output {
                    Some((block, length)) => direct(block.address(), *length)?,
                    None => None,
                };
                Buffers { system: if input == 0 { 0 } else { system }, output, mdl, ..Buffers::default() }
            }
            _ => {
                let output = output_of(output)?;
                let user = output.as_ref().map_or(0, |(block, _)| block.address());
                Buffers { type3_input: if input == 0 { 0 } else { system }, user, output, ..Buffers::default() }
            }
        },
    })
}

/// Sends a new IRP to its device.
fn call_first(device: &Arc<Device>, irp: usize, answer: &Answer) {
    // SAFETY: the IRP was made for this device, and nothing else has it yet.
    let status = unsafe { call_driver(device.object.address(), irp) };
    if let Some(what) = answer.returned(status) {
        contract_broken(irp, &what);
    }
}

/// Goes on to the next stack location and calls the routine of the device's driver.
///
/// # Safety
/// `device` is a DEVICE_OBJECT, `irp` an IRP that the caller owns.
pub(super) unsafe fn call_driver(device: usize, irp: usize) -> NtStatus {
    let head = irp as *mut Irp;
    // SAFETY: by this function's contract.
    let (location, driver_object, major) = unsafe {
        (*head).current_location -= 1;
        if (*head).current_location <= 0 {
            let why = "an IRP was sent to more devices than its stack has locations for";
            cpu::bugcheck(code::NO_MORE_IRP_STACK_LOCATIONS, [irp as u64, 0, 0, 0], why);
        }
        (*head).current_stack_location -= size_of::<StackLocation>();
        let location = (*head).current_stack_location as *mut StackLocation;
        (*location).device_object = device;
        (location, (*(device as *const DeviceObject)).driver_object, (*location).major)
    };
    let slot = driver_object + driver::offset::MAJOR_FUNCTION + usize::from(major) * 8;
    // SAFETY: every slot of MajorFunction has a DRIVER_DISPATCH: the driver's, or ntsim's where it set none; a wrong
    // address faults and stops the machine.
    let routine: extern "win64" fn(usize, usize) -> NtStatus =
        unsafe { core::mem::transmute((slot as *const usize).read_unaligned()) };
    let at = routine as *const () as u64;
    callback::enter(
        &At("the dispatch routine", at),
        Keeps::All,
        || {
            // SAFETY: as above: the routine has not been called yet.
            let parameters = unsafe { (*location).parameters };
            let control = format!("{:#x}", parameters[2]);
            let mut arguments =
                vec![Argument::new("DeviceObject", format!("{device:#x}")), Argument::new("Irp", format!("{irp:#x}"))];
            if major == 0x0e {
                arguments.push(Argument::new("IoControlCode", control));
            }
            Callback::new(major_name(major), at, arguments)
        },
        || routine(device, irp),
        ToString::to_string,
    )
}
