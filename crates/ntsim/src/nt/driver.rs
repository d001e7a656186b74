//! `DRIVER_OBJECT` and what hangs on it.
//!
//! Offsets: wdm.h (DRIVER_OBJECT, DRIVER_EXTENSION) and the public symbols of ntoskrnl (`_KLDR_DATA_TABLE_ENTRY`), x64.

use super::io::{layout, wdm};
use crate::pe::map::Mapped;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use nt_abi::NtStatus;
use nt_abi::OwnedUnicodeString;

/// Offsets in `DRIVER_OBJECT`.
pub mod offset {
    /// Type, 4 (IO_TYPE_DRIVER), and after it Size.
    pub const TYPE: usize = 0x00;
    /// The newest device of the driver.
    pub const DEVICE_OBJECT: usize = 0x08;
    /// The image's base.
    pub const DRIVER_START: usize = 0x18;
    /// The image's size.
    pub const DRIVER_SIZE: usize = 0x20;
    /// The loader's entry for the image.
    pub const DRIVER_SECTION: usize = 0x28;
    /// The DRIVER_EXTENSION.
    pub const DRIVER_EXTENSION: usize = 0x30;
    /// `\Driver\NAME`.
    pub const DRIVER_NAME: usize = 0x38;
    /// `\Registry\Machine\Hardware\Description\System`.
    pub const HARDWARE_DATABASE: usize = 0x48;
    /// The entry point.
    pub const DRIVER_INIT: usize = 0x58;
    /// The unload routine.
    pub const DRIVER_UNLOAD: usize = 0x68;
    /// The dispatch routines.
    pub const MAJOR_FUNCTION: usize = 0x70;
}

/// Bytes of a `DRIVER_OBJECT`.
pub const SIZE: usize = 0x150;
/// IRP_MJ_MAXIMUM_FUNCTION + 1.
pub const MAJOR_FUNCTIONS: usize = 28;
const EXTENSION_SIZE: usize = 0x80;
const LOADER_ENTRY_SIZE: usize = 0x100;

#[repr(C, align(16))]
struct Blocks {
    object: [u8; SIZE],
    extension: [u8; EXTENSION_SIZE],
    loader_entry: [u8; LOADER_ENTRY_SIZE],
}

/// The driver object of one loaded driver with its strings.
#[derive(Debug)]
pub struct DriverObject {
    blocks: Box<UnsafeCell<Blocks>>,
    registry_path: OwnedUnicodeString,
    _strings: [OwnedUnicodeString; 5],
}

impl core::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Blocks")
    }
}

// SAFETY: the blocks are memory of this object, accessed only through raw pointers; what a driver does with their
// address is no Rust access.
unsafe impl Send for DriverObject {}
// SAFETY: as above.
unsafe impl Sync for DriverObject {}

impl DriverObject {
    /// A driver object for the image at `mapped`, as the I/O manager fills it before it calls the entry point.
    #[must_use]
    pub(crate) fn new(service: &str, mapped: &Mapped, entry: u64) -> Self {
        let name = OwnedUnicodeString::new(&format!(r"\Driver\{service}"));
        let hardware = OwnedUnicodeString::new(r"\REGISTRY\MACHINE\HARDWARE\DESCRIPTION\SYSTEM");
        let key = OwnedUnicodeString::new(service);
        let full = OwnedUnicodeString::new(&format!(r"\SystemRoot\System32\drivers\{service}.sys"));
        let base = OwnedUnicodeString::new(&format!("{service}.sys"));
        let zero = Blocks { object: [0; SIZE], extension: [0; EXTENSION_SIZE], loader_entry: [0; LOADER_ENTRY_SIZE] };
        let this = Self {
            blocks: Box::new(UnsafeCell::new(zero)),
            registry_path: OwnedUnicodeString::new(&format!(
                r"\REGISTRY\MACHINE\SYSTEM\ControlSet001\Services\{service}"
            )),
            _strings: [name, hardware, key, full, base],
        };
        let [name, hardware, key, full, base] = &this._strings;
        let range = mapped.range();
        let object = this.address() as u64;
        let extension = object + SIZE as u64;
        let loader_entry = extension + EXTENSION_SIZE as u64;
        let size = (range.end - range.start) as u32;
        this.put(offset::TYPE, 4_u16);
        this.put(offset::TYPE + 2, SIZE as u16);
        this.put(offset::DRIVER_START, range.start);
        this.put(offset::DRIVER_SIZE, size);
        this.put(offset::DRIVER_SECTION, loader_entry);
        this.put(offset::DRIVER_EXTENSION, extension);
        this.put(offset::DRIVER_NAME, name.header());
        this.put(offset::HARDWARE_DATABASE, hardware.as_ptr() as u64);
        this.put(offset::DRIVER_INIT, entry);
        for index in 0..MAJOR_FUNCTIONS {
            this.put(offset::MAJOR_FUNCTION + index * 8, invalid_device_request as *const () as u64);
        }
        // DRIVER_EXTENSION: DriverObject, AddDevice, Count, ServiceKeyName.
        this.put(SIZE, object);
        this.put(SIZE + 0x18, key.header());
        // KLDR_DATA_TABLE_ENTRY: DllBase, EntryPoint, SizeOfImage, FullDllName, BaseDllName.
        let entry_at = SIZE + EXTENSION_SIZE;
        this.put(entry_at + 0x30, range.start);
        this.put(entry_at + 0x38, entry);
        this.put(entry_at + 0x40, size);
        this.put(entry_at + 0x48, full.header());
        this.put(entry_at + 0x58, base.header());
        this
    }

    /// Its address, the PDRIVER_OBJECT.
    #[must_use]
    pub fn address(&self) -> *mut c_void {
        self.blocks.get().cast()
    }

    /// The registry path given to the entry point.
    #[must_use]
    pub fn registry_path(&self) -> *mut c_void {
        self.registry_path.as_ptr().cast()
    }

    /// The unload routine the driver has set, 0 when it set none.
    #[must_use]
    pub fn unload_routine(&self) -> u64 {
        self.get(offset::DRIVER_UNLOAD)
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= size_of::<Blocks>(), "inside the blocks");
        // SAFETY: in bounds, as asserted.
        unsafe { self.blocks.get().cast::<u8>().add(offset).cast() }
    }

    fn put<T>(&self, offset: usize, value: T) {
        // SAFETY: `at` is in bounds of memory this object owns; the driver has not been called yet.
        unsafe { self.at::<T>(offset).write_unaligned(value) }
    }

    fn get(&self, offset: usize) -> u64 {
        // SAFETY: as in `put`; any bits are a u64, and a racing driver changes only what is read.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }
}

/// The dispatch routine of every major function a driver leaves alone: IopInvalidDeviceRequest.
extern "win64" fn invalid_device_request(_device: *mut c_void, irp: *mut c_void) -> NtStatus {
    // SAFETY: IofCallDriver calls a dispatch routine with an IRP that is in flight, so the IRP is live and owned here
    // until it is completed.
    unsafe {
        let irp = irp.cast::<layout::Irp>();
        (*irp).status = NtStatus::INVALID_DEVICE_REQUEST.0;
        wdm::complete(irp as usize);
    }
    NtStatus::INVALID_DEVICE_REQUEST
}
