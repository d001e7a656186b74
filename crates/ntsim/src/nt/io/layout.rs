//! The I/O manager's structures as drivers see them (wdm.h, x64). Fields that nothing here sets are padding.

use core::mem::{offset_of, size_of};

/// `IRP`, without the stack locations behind it.
#[repr(C)]
pub(crate) struct Irp {
    pub(crate) kind: u16,
    pub(crate) size: u16,
    pad0: u32,
    pub(crate) mdl_address: usize,
    pub(crate) flags: u32,
    pad1: u32,
    pub(crate) system_buffer: usize,
    thread_list: [usize; 2],
    pub(crate) status: i32,
    pad2: u32,
    pub(crate) information: usize,
    pub(crate) requestor_mode: i8,
    pub(crate) pending_returned: u8,
    pub(crate) stack_count: i8,
    pub(crate) current_location: i8,
    pub(crate) cancel: u8,
    pub(crate) cancel_irql: u8,
    apc_environment: i8,
    allocation_flags: u8,
    user_iosb: usize,
    user_event: usize,
    overlay: [usize; 2],
    pub(crate) cancel_routine: usize,
    pub(crate) user_buffer: usize,
    pub(crate) driver_context: [usize; 4],
    pub(crate) tail_thread: u64,
    auxiliary_buffer: usize,
    pub(crate) list_entry: [usize; 2],
    pub(crate) current_stack_location: usize,
    pub(crate) original_file_object: usize,
    tail_end: usize,
}

/// `IO_STACK_LOCATION`.
#[repr(C)]
pub(crate) struct StackLocation {
    pub(crate) major: u8,
    pub(crate) minor: u8,
    pub(crate) flags: u8,
    pub(crate) control: u8,
    pad: u32,
    pub(crate) parameters: [u64; 4],
    pub(crate) device_object: usize,
    pub(crate) file_object: usize,
    pub(crate) completion_routine: usize,
    pub(crate) context: usize,
}

impl StackLocation {
    /// Control, SL_*: IoMarkIrpPending.
    pub(crate) const PENDING_RETURNED: u8 = 0x01;
    pub(crate) const INVOKE_ON_CANCEL: u8 = 0x20;
    pub(crate) const INVOKE_ON_SUCCESS: u8 = 0x40;
    pub(crate) const INVOKE_ON_ERROR: u8 = 0x80;
}

const _: () = assert!(size_of::<StackLocation>() == 0x48);
const _: () = assert!(offset_of!(StackLocation, device_object) == 0x28);
const _: () = assert!(size_of::<Irp>() == 0xD0);
const _: () = assert!(offset_of!(Irp, mdl_address) == 0x08);
const _: () = assert!(offset_of!(Irp, system_buffer) == 0x18);
const _: () = assert!(offset_of!(Irp, status) == 0x30);
const _: () = assert!(offset_of!(Irp, information) == 0x38);
const _: () = assert!(offset_of!(Irp, requestor_mode) == 0x40);
const _: () = assert!(offset_of!(Irp, cancel) == 0x44);
const _: () = assert!(offset_of!(Irp, cancel_routine) == 0x68);
const _: () = assert!(offset_of!(Irp, user_buffer) == 0x70);
const _: () = assert!(offset_of!(Irp, tail_thread) == 0x98);
const _: () = assert!(offset_of!(Irp, list_entry) == 0xA8);
const _: () = assert!(offset_of!(Irp, current_stack_location) == 0xB8);

impl Irp {
    /// `IO_TYPE_IRP`.
    pub(crate) const TYPE: u16 = 6;
    /// `UserMode`.
    pub(crate) const USER_MODE: i8 = 1;
}

/// `DEVICE_OBJECT`.
#[repr(C)]
pub(crate) struct DeviceObject {
    pub(crate) kind: u16,
    pub(crate) size: u16,
    pub(crate) reference_count: i32,
    pub(crate) driver_object: usize,
    pub(crate) next_device: usize,
    pub(crate) attached_device: usize,
    current_irp: usize,
    timer: usize,
    pub(crate) flags: u32,
    pub(crate) characteristics: u32,
    vpb: usize,
    pub(crate) device_extension: usize,
    pub(crate) device_type: u32,
    pub(crate) stack_size: i8,
    rest: [u8; 0x150 - 0x4D],
}

const _: () = assert!(size_of::<DeviceObject>() == 0x150);
const _: () = assert!(offset_of!(DeviceObject, flags) == 0x30);
const _: () = assert!(offset_of!(DeviceObject, device_extension) == 0x40);
const _: () = assert!(offset_of!(DeviceObject, device_type) == 0x48);
const _: () = assert!(offset_of!(DeviceObject, stack_size) == 0x4C);

impl DeviceObject {
    /// `IO_TYPE_DEVICE`.
    pub(crate) const TYPE: u16 = 3;
    pub(crate) const BUFFERED_IO: u32 = 0x04;
    pub(crate) const EXCLUSIVE: u32 = 0x08;
    pub(crate) const DIRECT_IO: u32 = 0x10;
    pub(crate) const HAS_NAME: u32 = 0x40;
    pub(crate) const INITIALIZING: u32 = 0x80;

    /// Puts it at the head of a driver's list of devices.
    ///
    /// # Safety
    /// `device` is a device object in no list; `driver` is a driver object whose devices are device objects.
    pub(crate) unsafe fn link(device: *mut Self, driver: usize) {
        let head = (driver + crate::nt::driver::offset::DEVICE_OBJECT) as *mut usize;
        // SAFETY: by this function's contract.
        unsafe {
            (*device).next_device = head.read_unaligned();
            head.write_unaligned(device as usize);
        }
    }

    /// Takes it out of the list.
    ///
    /// # Safety
    /// `driver` is a driver object whose devices are device objects.
    pub(crate) unsafe fn unlink(device: *mut Self, driver: usize) {
        let mut slot = (driver + crate::nt::driver::offset::DEVICE_OBJECT) as *mut usize;
        // SAFETY: by this function's contract, every entry of the list is a device object.
        unsafe {
            while slot.read_unaligned() != 0 {
                let other = slot.read_unaligned() as *mut Self;
                if other == device {
                    slot.write_unaligned((*other).next_device);
                    return;
                }
                slot = &raw mut (*other).next_device;
            }
        }
    }
}

/// `FILE_OBJECT`.
#[repr(C)]
pub(crate) struct FileObject {
    pub(crate) kind: i16,
    pub(crate) size: i16,
    pub(crate) device_object: usize,
    between: [usize; 8],
    pub(crate) flags: u32,
    pad: u32,
    /// A `UNICODE_STRING`.
    pub(crate) file_name: [u64; 2],
    rest: [u8; 0xD8 - 0x68],
}

const _: () = assert!(size_of::<FileObject>() == 0xD8);
const _: () = assert!(offset_of!(FileObject, device_object) == 0x08);
const _: () = assert!(offset_of!(FileObject, flags) == 0x50);
const _: () = assert!(offset_of!(FileObject, file_name) == 0x58);

impl FileObject {
    /// `IO_TYPE_FILE`.
    pub(crate) const TYPE: i16 = 5;
    /// `FO_HANDLE_CREATED`.
    pub(crate) const HANDLE_CREATED: u32 = 0x0004_0000;
}
