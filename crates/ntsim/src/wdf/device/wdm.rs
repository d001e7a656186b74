//! The `DEVICE_OBJECT` behind a device, and its place in the driver object's list.

use core::mem::size_of;
use std::sync::{Arc, Weak};

use super::init::Init;
use crate::machine::Machine;
use crate::nt::io::layout::DeviceObject as Layout;
use nt_abi::NtStatus;

use super::super::kernel::Allocation;

/// `WdfDeviceIoBuffered`, `WdfDeviceIoDirect`.
const IO_BUFFERED: u32 = 2;
const IO_DIRECT: u32 = 3;

/// A `DEVICE_OBJECT` in pool. Its memory outlives this value while a driver has a reference to it.
pub(crate) struct DeviceObject {
    machine: Weak<Machine>,
    address: usize,
    /// Taken when it is dropped.
    block: Option<Allocation>,
}

impl Drop for DeviceObject {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.upgrade() {
            let block = &mut self.block;
            machine.executive.objects.keep_while_referenced(self.address as u64, || Box::new(block.take()));
        }
    }
}

impl DeviceObject {
    /// A device object that is still initializing.
    pub(crate) fn new(machine: &Arc<Machine>, init: &Init, driver_object: usize) -> Result<Self, NtStatus> {
        let block = Allocation::zeroed(machine, init.client.tag(), size_of::<Layout>());
        let block = block.ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        let this = Self { machine: Arc::downgrade(machine), address: block.address(), block: Some(block) };
        let io = match init.io_type {
            IO_BUFFERED => Layout::BUFFERED_IO,
            IO_DIRECT => Layout::DIRECT_IO,
            _ => 0,
        };
        let named = if init.name.is_some() { Layout::HAS_NAME } else { 0 };
        let exclusive = if init.exclusive { Layout::EXCLUSIVE } else { 0 };
        // SAFETY: the block has the layout's size, is zeroed, and is this object's alone until the driver gets it.
        let layout = unsafe { &mut *this.pointer() };
        layout.kind = Layout::TYPE;
        layout.size = size_of::<Layout>() as u16;
        layout.driver_object = driver_object;
        layout.flags = Layout::INITIALIZING | io | named | exclusive;
        layout.characteristics = init.characteristics;
        layout.device_type = init.device_type;
        layout.stack_size = 1;
        Ok(this)
    }

    fn pointer(&self) -> *mut Layout {
        self.address as *mut Layout
    }

    /// Its address.
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// Clears `DO_DEVICE_INITIALIZING`.
    pub(crate) fn initialized(&self) {
        // SAFETY: the block lives as long as this; drivers do not write the flags of a WDF device meanwhile.
        unsafe {
            let flags = &raw mut (*self.pointer()).flags;
            flags.write(flags.read() & !Layout::INITIALIZING);
        }
    }

    /// Puts it at the head of the driver's list of devices.
    pub(crate) fn link(&self, driver_object: usize) {
        if driver_object == 0 {
            return;
        }
        // SAFETY: a client's driver object is 0 or the one the loader gave it, which outlives its devices; this one is
        // new.
        unsafe { Layout::link(self.pointer(), driver_object) };
    }

    /// Takes it out of the list.
    pub(crate) fn unlink(&self, driver_object: usize) {
        if driver_object == 0 {
            return;
        }
        // SAFETY: as for `link`.
        unsafe { Layout::unlink(self.pointer(), driver_object) };
    }
}
