//! The `DEVICE_OBJECT` behind a device, and its place in the driver object's list.

use core::mem::{offset_of, size_of};
use std::sync::Arc;

use super::init::Init;
use crate::machine::Machine;
use crate::status::NtStatus;

use super::super::kernel::Allocation;

/// `DEVICE_OBJECT` (x64, wdm.h). Fields that nothing here sets are padding.
#[repr(C)]
struct Layout {
    kind: u16,
    size: u16,
    reference_count: i32,
    driver_object: usize,
    next_device: usize,
    attached_device: usize,
    current_irp: usize,
    timer: usize,
    flags: u32,
    characteristics: u32,
    vpb: usize,
    device_extension: usize,
    device_type: u32,
    stack_size: i8,
    rest: [u8; 0x150 - 0x4D],
}

const _: () = assert!(size_of::<Layout>() == 0x150);
const _: () = assert!(offset_of!(Layout, flags) == 0x30);
const _: () = assert!(offset_of!(Layout, device_extension) == 0x40);
const _: () = assert!(offset_of!(Layout, device_type) == 0x48);
const _: () = assert!(offset_of!(Layout, stack_size) == 0x4C);

/// `IO_TYPE_DEVICE`.
const TYPE: u16 = 3;
const DO_BUFFERED_IO: u32 = 0x04;
const DO_EXCLUSIVE: u32 = 0x08;
const DO_DIRECT_IO: u32 = 0x10;
const DO_DEVICE_HAS_NAME: u32 = 0x40;
const DO_DEVICE_INITIALIZING: u32 = 0x80;
/// `WdfDeviceIoBuffered`, `WdfDeviceIoDirect`.
const IO_BUFFERED: u32 = 2;
const IO_DIRECT: u32 = 3;
/// Where `DeviceObject`, the head of the list, lies in a `DRIVER_OBJECT`.
const DRIVER_DEVICES: usize = 0x08;

/// A `DEVICE_OBJECT` in pool.
pub(crate) struct DeviceObject {
    block: Allocation,
}

impl DeviceObject {
    /// A device object that is still initializing.
    pub(crate) fn new(machine: &Arc<Machine>, init: &Init, driver_object: usize) -> Result<Self, NtStatus> {
        let block = Allocation::zeroed(machine, init.client.tag(), size_of::<Layout>());
        let this = Self { block: block.ok_or(NtStatus::INSUFFICIENT_RESOURCES)? };
        let io = match init.io_type {
            IO_BUFFERED => DO_BUFFERED_IO,
            IO_DIRECT => DO_DIRECT_IO,
            _ => 0,
        };
        let named = if init.name.is_some() { DO_DEVICE_HAS_NAME } else { 0 };
        let exclusive = if init.exclusive { DO_EXCLUSIVE } else { 0 };
        // SAFETY: the block has the layout's size, is zeroed, and is this object's alone until the driver gets it.
        let layout = unsafe { &mut *this.pointer() };
        layout.kind = TYPE;
        layout.size = size_of::<Layout>() as u16;
        layout.driver_object = driver_object;
        layout.flags = DO_DEVICE_INITIALIZING | io | named | exclusive;
        layout.characteristics = init.characteristics;
        layout.device_type = init.device_type;
        layout.stack_size = 1;
        Ok(this)
    }

    fn pointer(&self) -> *mut Layout {
        self.block.address() as *mut Layout
    }

    /// Where it lies.
    pub(crate) fn address(&self) -> usize {
        self.block.address()
    }

    /// Clears `DO_DEVICE_INITIALIZING`.
    pub(crate) fn initialized(&self) {
        // SAFETY: the block lives as long as this; drivers do not write the flags of a WDF device meanwhile.
        unsafe {
            let flags = &raw mut (*self.pointer()).flags;
            flags.write(flags.read() & !DO_DEVICE_INITIALIZING);
        }
    }

    /// Puts it at the head of the driver's list of devices.
    pub(crate) fn link(&self, driver_object: usize) {
        if driver_object == 0 {
            return;
        }
        let head = (driver_object + DRIVER_DEVICES) as *mut usize;
        // SAFETY: a client's driver object is 0 or the one the loader gave it, which outlives its devices.
        unsafe {
            (*self.pointer()).next_device = head.read_unaligned();
            head.write_unaligned(self.address());
        }
    }

    /// Takes it out of the list.
    pub(crate) fn unlink(&self, driver_object: usize) {
        if driver_object == 0 {
            return;
        }
        let mut slot = (driver_object + DRIVER_DEVICES) as *mut usize;
        // SAFETY: as for `link`; every entry of the list is a DEVICE_OBJECT.
        unsafe {
            while slot.read_unaligned() != 0 {
                let device = slot.read_unaligned() as *mut Layout;
                if device == self.pointer() {
                    slot.write_unaligned((*device).next_device);
                    return;
                }
                slot = &raw mut (*device).next_device;
            }
        }
    }
}
