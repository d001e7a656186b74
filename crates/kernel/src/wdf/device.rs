//! The control device: what user mode opens.

use core::{marker::PhantomData, ptr::null_mut};

use wdk_sys::{
    _WDF_DEVICE_IO_TYPE, _WDF_EXECUTION_LEVEL, _WDF_FILEOBJECT_CLASS, _WDF_IO_QUEUE_DISPATCH_TYPE, _WDF_TRI_STATE,
    PWDFDEVICE_INIT, WDF_FILEOBJECT_CONFIG, WDF_IO_QUEUE_CONFIG, WDFDEVICE, WDFFILEOBJECT, WDFOBJECT, WDFQUEUE,
    WDFREQUEST, call_unsafe_wdf_function_binding,
};

use super::{Driver, FileId, Request, attributes};
use crate::{
    status::{NtResult, NtStatus},
    text::Utf16,
};

/// FILE_DEVICE_NETWORK of devioctl.h.
const FILE_DEVICE_NETWORK: u32 = 0x12;
/// FILE_DEVICE_SECURE_OPEN of wdm.h: the descriptor also guards names below the device.
const FILE_DEVICE_SECURE_OPEN: u32 = 0x100;

/// The requests a device handles. Called at PASSIVE_LEVEL, one request at a time.
pub trait DeviceEvents: 'static {
    /// An IOCTL.
    fn control(request: Request, code: u32);
    /// A read.
    fn read(request: Request);
    /// The last handle of a file is closed, and none of its requests is left. May run while a request of another file
    /// does.
    fn closed(file: FileId);
}

/// The parameters of a device.
#[derive(Debug)]
pub struct DeviceConfig<const NAME: usize, const LINK: usize, const SDDL: usize> {
    /// The NT name.
    pub name: &'static Utf16<NAME>,
    /// The symbolic link for user mode.
    pub link: &'static Utf16<LINK>,
    /// Who may open it, as a security descriptor string.
    pub sddl: &'static Utf16<SDDL>,
}

/// A control device. Dropping it deletes it: new requests are refused, queued ones cancelled, running callbacks
/// awaited. Create, use and drop at PASSIVE_LEVEL.
#[derive(Debug)]
pub struct ControlDevice<E> {
    device: WDFDEVICE,
    events: PhantomData<fn() -> E>,
}

// SAFETY: a WDFDEVICE handle may be used from any thread.
unsafe impl<E> Send for ControlDevice<E> {}

impl<E: DeviceEvents> ControlDevice<E> {
    /// Creates the device with its link and its default queue. Nothing arrives before its [`Opening`].
    ///
    /// # Errors
    /// The framework's status; nothing is left behind then.
    pub fn create<const N: usize, const L: usize, const S: usize>(
        driver: &Driver,
        config: &DeviceConfig<N, L, S>,
    ) -> NtResult<Self> {
        let mut init = Init::allocate(driver, config.sddl)?;
        init.configure(config.name)?;
        init.tell_of_closed_files::<E>();
        let device = init.create()?;
        // From here on, a failure deletes the device.
        let this = Self { device, events: PhantomData };
        let link = config.link.as_unicode_string();
        // SAFETY: the device was just created; the string is copied.
        let status =
            unsafe { call_unsafe_wdf_function_binding!(WdfDeviceCreateSymbolicLink, this.device, &raw const link) };
        NtStatus::check(status)?;
        this.create_default_queue()?;
        Ok(this)
    }

    /// One request at a time, at PASSIVE_LEVEL; reads and IOCTLs only (the framework refuses the rest with
    /// STATUS_INVALID_DEVICE_REQUEST).
    fn create_default_queue(&self) -> NtResult<()> {
        let mut config = WDF_IO_QUEUE_CONFIG {
            Size: size_of::<WDF_IO_QUEUE_CONFIG>() as u32,
            DispatchType: _WDF_IO_QUEUE_DISPATCH_TYPE::WdfIoQueueDispatchSequential,
            PowerManaged: _WDF_TRI_STATE::WdfUseDefault,
            AllowZeroLengthRequests: 1, // a read of zero bytes gets our answer, not the framework's
            DefaultQueue: 1,
            EvtIoRead: Some(on_read::<E>),
            EvtIoDeviceControl: Some(on_control::<E>),
            ..WDF_IO_QUEUE_CONFIG::default()
        };
        let mut attributes = attributes();
        let mut queue: WDFQUEUE = null_mut();
        // SAFETY: the device exists and takes no requests yet; the structures are complete and outlive the call.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(
                WdfIoQueueCreate,
                self.device,
                &raw mut config,
                &raw mut attributes,
                &raw mut queue
            )
        };
        NtStatus::check(status)
    }

    /// What lets user mode open the device, for when it is out of reach.
    pub const fn opening(&self) -> Opening {
        Opening(self.device)
    }

    pub(super) const fn handle(&self) -> WDFDEVICE {
        self.device
    }

    /// The WDM device object, which FwpsCalloutRegister needs.
    pub(crate) fn wdm_object(&self) -> *mut core::ffi::c_void {
        // SAFETY: the device exists.
        unsafe { call_unsafe_wdf_function_binding!(WdfDeviceWdmGetDeviceObject, self.device) }.cast()
    }
}

/// What lets user mode open a device. To be used before the device can be deleted: while DriverEntry runs, unload does not.
#[derive(Debug)]
pub struct Opening(WDFDEVICE);

impl Opening {
    /// Lets user mode open the device. IRQL = PASSIVE_LEVEL.
    pub fn now(self) {
        // SAFETY: the device exists, and its queues are set up, since `ControlDevice::create` has returned it.
        unsafe { call_unsafe_wdf_function_binding!(WdfControlFinishInitializing, self.0) };
    }
}

impl<E> Drop for ControlDevice<E> {
    fn drop(&mut self) {
        // SAFETY: the device exists and is deleted once, at PASSIVE_LEVEL; the framework waits for its callbacks.
        unsafe { call_unsafe_wdf_function_binding!(WdfObjectDelete, self.device as WDFOBJECT) };
    }
}

/// A WDFDEVICE_INIT that is freed unless a device takes it over.
struct Init(PWDFDEVICE_INIT);

impl Init {
    fn allocate<const S: usize>(driver: &Driver, sddl: &'static Utf16<S>) -> NtResult<Self> {
        let sddl = sddl.as_unicode_string();
        // SAFETY: the driver object exists; the string is copied.
        let init = unsafe {
            call_unsafe_wdf_function_binding!(WdfControlDeviceInitAllocate, driver.handle(), &raw const sddl)
        };
        if init.is_null() { Err(NtStatus::INSUFFICIENT_RESOURCES) } else { Ok(Self(init)) }
    }

    fn configure<const N: usize>(&mut self, name: &'static Utf16<N>) -> NtResult<()> {
        let name = name.as_unicode_string();
        // SAFETY: the init structure was allocated and no device has taken it over; the string is copied.
        unsafe {
            call_unsafe_wdf_function_binding!(WdfDeviceInitSetDeviceType, self.0, FILE_DEVICE_NETWORK);
            call_unsafe_wdf_function_binding!(WdfDeviceInitSetCharacteristics, self.0, FILE_DEVICE_SECURE_OPEN, 1);
            call_unsafe_wdf_function_binding!(WdfDeviceInitSetIoType, self.0, _WDF_DEVICE_IO_TYPE::WdfDeviceIoBuffered);
            NtStatus::check(call_unsafe_wdf_function_binding!(WdfDeviceInitAssignName, self.0, &raw const name))
        }
    }

    /// WDF_FILEOBJECT_CONFIG_INIT of wdfdevice.h, with a close callback: the clean-up callback can run while a request of
    /// the same file does.
    fn tell_of_closed_files<E: DeviceEvents>(&mut self) {
        let mut config = WDF_FILEOBJECT_CONFIG {
            Size: size_of::<WDF_FILEOBJECT_CONFIG>() as u32,
            EvtFileClose: Some(on_close::<E>),
            AutoForwardCleanupClose: _WDF_TRI_STATE::WdfUseDefault,
            FileObjectClass: _WDF_FILEOBJECT_CLASS::WdfFileObjectWdfCanUseFsContext,
            ..WDF_FILEOBJECT_CONFIG::default()
        };
        let mut attributes = attributes();
        // SAFETY: the init structure was allocated and no device has taken it over; the structures are copied.
        unsafe {
            call_unsafe_wdf_function_binding!(
                WdfDeviceInitSetFileObjectConfig,
                self.0,
                &raw mut config,
                &raw mut attributes
            );
        }
    }

    fn create(mut self) -> NtResult<WDFDEVICE> {
        let mut attributes = attributes();
        attributes.ExecutionLevel = _WDF_EXECUTION_LEVEL::WdfExecutionLevelPassive;
        let mut device: WDFDEVICE = null_mut();
        // SAFETY: the init structure is ours; on success the framework takes it over and sets the pointer to null.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(WdfDeviceCreate, &raw mut self.0, &raw mut attributes, &raw mut device)
        };
        NtStatus::check(status)?;
        Ok(device)
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: no device took it over.
            unsafe { call_unsafe_wdf_function_binding!(WdfDeviceInitFree, self.0) };
        }
    }
}

unsafe extern "C" fn on_close<E: DeviceEvents>(file: WDFFILEOBJECT) {
    if let Some(file) = FileId::of(file) {
        E::closed(file);
    }
}

unsafe extern "C" fn on_read<E: DeviceEvents>(_queue: WDFQUEUE, request: WDFREQUEST, _length: usize) {
    // SAFETY: the framework passes a request that nobody else owns.
    E::read(unsafe { Request::own(request) });
}

unsafe extern "C" fn on_control<E: DeviceEvents>(
    _queue: WDFQUEUE,
    request: WDFREQUEST,
    _output_length: usize,
    _input_length: usize,
    code: u32,
) {
    // SAFETY: the framework passes a request that nobody else owns.
    E::control(unsafe { Request::own(request) }, code);
}
