//! Drivers without a framework (WDM): devices made with IoCreateDevice, and the IRPs that their dispatch routines get.
//!
//! A request of user mode becomes an IRP in pool with one stack location for each device of the stack ([`irp`]); it is
//! sent to the routine of its major function, and ends in IofCompleteRequest ([`complete`]). [`device`] makes and
//! deletes devices, [`cancel`] has the cancel spin lock and the cancel-safe queues.

pub mod cancel;
pub mod complete;
pub mod device;
mod irp;

use super::layout;
use super::{DeviceBackend, FileId, IrpId, IrpRequest};
use crate::cpu;
use crate::machine::Machine;
use crate::nt::pool::Kind;
pub(crate) use complete::complete;
use core::sync::atomic::AtomicU64;
use irp::Request;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// What a machine knows of its drivers' devices and of the IRPs they have.
#[derive(Default)]
pub(super) struct State {
    /// By the address of the DEVICE_OBJECT.
    devices: Mutex<HashMap<usize, Arc<Device>>>,
    /// By the address of the IRP.
    irps: Mutex<HashMap<usize, InFlight>>,
    cancel_lock: AtomicU64,
}

/// A device of a driver.
struct Device {
    machine: Weak<Machine>,
    /// The DEVICE_OBJECT with the driver's extension behind it.
    object: Block,
    driver_object: usize,
    name: String,
    files: Mutex<HashMap<FileId, Block>>,
}

/// An IRP that its driver has not completed, with everything that is freed then.
struct InFlight {
    irp: Block,
    device: Arc<Device>,
    /// A read, write or control of user mode; the others are waited for.
    request: Option<IrpRequest>,
    /// The memory of a direct or neither control's output, and how long it is.
    output: Option<(Block, usize)>,
    mdl: Option<Block>,
    answer: Arc<irp::Answer>,
}

impl State {
    /// A driver was unloaded: the devices that it left cannot be opened.
    pub(super) fn driver_gone(&self, driver_object: usize) {
        let mut devices = self.devices.lock();
        let left: Vec<usize> =
            devices.iter().filter(|(_, d)| d.driver_object == driver_object).map(|(at, _)| *at).collect();
        let left: Vec<_> = left.into_iter().filter_map(|at| devices.remove(&at)).collect();
        drop(devices);
        drop(left);
    }

    /// A driver's entry point has returned: its devices can be opened ("the I/O manager clears DO_DEVICE_INITIALIZING
    /// of the devices made in DriverEntry", WDK, "Creating a Device Object").
    pub(super) fn entry_returned(&self, driver_object: usize) {
        for device in self.devices.lock().values().filter(|device| device.driver_object == driver_object) {
            // SAFETY: the block is a DEVICE_OBJECT as long as the device lives.
            unsafe { (*device.pointer()).flags &= !layout::DeviceObject::INITIALIZING };
        }
    }
}

impl Device {
    fn pointer(&self) -> *mut layout::DeviceObject {
        self.object.address() as *mut layout::DeviceObject
    }

    fn flags(&self) -> u32 {
        // SAFETY: as in `entry_returned`.
        unsafe { (&raw const (*self.pointer()).flags).read_volatile() }
    }

    /// Gives a FILE_OBJECT back, with no lock held: one that was written around stops the machine.
    fn forget(&self, file: FileId) {
        let block = self.files.lock().remove(&file);
        drop(block);
    }

    fn file_object(&self, file: FileId) -> usize {
        self.files.lock().get(&file).map_or(0, Block::address)
    }
}

/// A device as the I/O manager's user-mode side calls it.
struct Backend(Arc<Device>);

impl DeviceBackend for Backend {
    fn create(&self, file: FileId) -> NtStatus {
        let device = &self.0;
        let flags = device.flags();
        if flags & layout::DeviceObject::INITIALIZING != 0 {
            return NtStatus::NO_SUCH_DEVICE;
        }
        let Some(machine) = device.machine.upgrade() else { return NtStatus::NO_SUCH_DEVICE };
        let Some(block) = Block::zeroed(&machine, *b"File", size_of::<layout::FileObject>()) else {
            return NtStatus::INSUFFICIENT_RESOURCES;
        };
        // SAFETY: the block has the structure's size and is nobody else's yet.
        unsafe {
            let object = &mut *(block.address() as *mut layout::FileObject);
            object.kind = layout::FileObject::TYPE;
            object.size = size_of::<layout::FileObject>() as i16;
            object.device_object = device.object.address();
            object.flags = layout::FileObject::HANDLE_CREATED;
        }
        {
            let mut files = device.files.lock();
            if flags & layout::DeviceObject::EXCLUSIVE != 0 && !files.is_empty() {
                return NtStatus::ACCESS_DENIED;
            }
            files.insert(file, block);
        }
        drop(machine);
        let status = irp::send_and_wait(device, Request::Create, file);
        if !status.is_success() {
            device.forget(file);
        }
        status
    }

    fn cleanup(&self, file: FileId) {
        irp::send_and_wait(&self.0, Request::Cleanup, file);
    }

    fn close(&self, file: FileId) {
        irp::send_and_wait(&self.0, Request::Close, file);
        self.0.forget(file);
    }

    fn submit(&self, irp: IrpRequest) {
        irp::submit(&self.0, irp);
    }

    fn cancel(&self, id: IrpId) {
        cancel::cancel_request(id);
    }
}

/// Memory of the I/O manager that drivers see: pool that is nobody's leak. That of an object which a driver has a
/// reference to (ObReferenceObject) outlives this value, and goes with the last reference.
struct Block {
    machine: Weak<Machine>,
    address: usize,
}

impl Block {
    fn zeroed(machine: &Arc<Machine>, tag: [u8; 4], size: usize) -> Option<Self> {
        let address = machine.pool.allocate_for(0, u32::from_le_bytes(tag), size, Kind::NonPaged) as usize;
        (address != 0).then(|| Self { machine: Arc::downgrade(machine), address })
    }

    fn address(&self) -> usize {
        self.address
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // A machine that is torn down takes its pool with it.
        let Some(machine) = self.machine.upgrade() else { return };
        let again = || -> Box<dyn Send> { Box::new(Self { machine: self.machine.clone(), address: self.address }) };
        if machine.executive.objects.keep_while_referenced(self.address as u64, again) {
            return;
        }
        if cpu::inside() {
            drop(machine);
            // By reference: a bugcheck for a block written around abandons this stack and drops nothing.
            cpu::with_machine(|machine| machine.pool.free(self.address as *mut u8, 0));
        } else {
            machine.pool.discard(self.address as *mut u8);
        }
    }
}
