//! `WdfDevice...` and `WdfControl...`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::abi::{Handle, ObjectAttributes, UnicodeString, request_type};
use super::super::ddi::{self, Function, Globals};
use super::super::handle::Kind;
use super::super::object::{Allowed, Attributes, Object};
use super::super::queue::Queue;
use super::super::request::{self, Operation};
use super::super::status;
use super::super::string;
use super::super::violation::Fault;
use super::{Device, create, init};
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::passive("WdfDeviceCreate", create_device as *const ()),
    Function::dispatch("WdfControlFinishInitializing", finish_initializing as *const ()),
    Function::passive("WdfDeviceCreateSymbolicLink", create_symbolic_link as *const ()),
    Function::dispatch("WdfDeviceWdmGetDeviceObject", get_device_object as *const ()),
    Function::dispatch("WdfWdmDeviceGetWdfDeviceHandle", get_device_handle as *const ()),
    Function::dispatch("WdfDeviceWdmGetAttachedDevice", no_other_device as *const ()),
    Function::dispatch("WdfDeviceWdmGetPhysicalDevice", no_other_device as *const ()),
    Function::dispatch("WdfDeviceGetDriver", get_driver as *const ()),
    Function::passive("WdfDeviceRetrieveDeviceName", retrieve_device_name as *const ()),
    Function::dispatch("WdfDeviceGetDefaultQueue", get_default_queue as *const ()),
    Function::dispatch("WdfDeviceConfigureRequestDispatching", configure_dispatching as *const ()),
    Function::dispatch("WdfDeviceEnqueueRequest", enqueue_request as *const ()),
    Function::dispatch("WdfDeviceGetCharacteristics", get_characteristics as *const ()),
    Function::dispatch("WdfDeviceSetCharacteristics", set_characteristics as *const ()),
];

/// On success the init is used up and the driver's pointer to it becomes NULL; on failure it is still the driver's.
extern "win64" fn create_device(
    globals: Globals,
    init: *mut Handle,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(init, "WdfDeviceCreate", "DeviceInit")?;
        ddi::not_null(out, "WdfDeviceCreate", "Device")?;
        // SAFETY: not null; the address of the pointer that the driver got, and NULL or a WDF_OBJECT_ATTRIBUTES.
        let (handle, attributes) = unsafe { (init.read(), Attributes::read(attributes, Allowed::CONSTRAINTS)?) };
        let description = init::take(machine, handle)?;
        debug_assert!(Arc::ptr_eq(description.client(), &client));
        match create(machine, &description, &attributes) {
            Ok(object) => {
                // SAFETY: neither is null.
                unsafe {
                    init.write(Handle::NULL);
                    out.write(object.handle);
                }
                Ok(())
            }
            Err(fault) => {
                init::put_back(machine, handle, description);
                Err(fault)
            }
        }
    })
}

/// Runs `f` on a device.
fn with<R>(device: Handle, f: impl FnOnce(&Arc<Object>, &Device) -> R) -> R {
    ddi::run(|machine| {
        let object = ddi::object(machine, device, Kind::Device)?;
        let device = ddi::body::<Device>(&object)?;
        Ok(f(&object, device))
    })
}

extern "win64" fn finish_initializing(_: Globals, device: Handle) {
    with(device, |_, device| {
        device.wdm.initialized();
        device.initialized.store(true, Ordering::Release);
    });
}

extern "win64" fn create_symbolic_link(_: Globals, device: Handle, link: *const UnicodeString) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, device, Kind::Device)?;
        ddi::not_null(link, "WdfDeviceCreateSymbolicLink", "SymbolicLinkName")?;
        let device = ddi::body::<Device>(&object)?;
        // SAFETY: not null, and a UNICODE_STRING.
        let link = unsafe { string::read_text(link)? }.unwrap_or_default();
        if link.is_empty() {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        if machine.low_resources.fails("WdfDeviceCreateSymbolicLink") {
            return Err(NtStatus::INSUFFICIENT_RESOURCES.into());
        }
        // KMDF keeps one link per device: a second call makes a second link that is never removed. Here both go with
        // the device; what a driver would notice of the difference is a leftover name.
        machine.io.create_symlink(&link, &device.name).ok()?;
        device.links.lock().push(link);
        Ok(())
    })
}

extern "win64" fn get_device_object(_: Globals, device: Handle) -> usize {
    with(device, |_, device| device.wdm.address())
}

extern "win64" fn get_device_handle(_: Globals, device_object: usize) -> Handle {
    ddi::run(|machine| {
        let is_it = |object: &Arc<Object>| object.get::<Device>().is_some_and(|d| d.wdm.address() == device_object);
        Ok(machine.wdf.handles.values().into_iter().find(is_it).map_or(Handle::NULL, |object| object.handle))
    })
}

/// A control device is in no stack.
extern "win64" fn no_other_device(_: Globals, device: Handle) -> usize {
    with(device, |_, _| 0)
}

extern "win64" fn get_driver(_: Globals, device: Handle) -> Handle {
    with(device, |object, _| object.client().driver().map_or(Handle::NULL, |driver| driver.handle))
}

extern "win64" fn retrieve_device_name(_: Globals, device: Handle, out: Handle) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, device, Kind::Device)?;
        let text = string::of_handle(machine, out)?;
        ddi::body::<string::Text>(&text)?.assign(&ddi::body::<Device>(&object)?.name);
        Ok(())
    })
}

extern "win64" fn get_default_queue(_: Globals, device: Handle) -> Handle {
    with(device, |_, device| device.default_queue().map_or(Handle::NULL, |queue| queue.handle))
}

/// A queue for one type of request instead of the default one.
extern "win64" fn configure_dispatching(_: Globals, device: Handle, queue: Handle, kind: u32) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, device, Kind::Device)?;
        let queue = ddi::object(machine, queue, Kind::Queue)?;
        let device = ddi::body::<Device>(&object)?;
        let operation = match kind {
            request_type::CREATE => Operation::Create,
            request_type::READ => Operation::Read(0),
            request_type::WRITE => Operation::Write(0),
            request_type::DEVICE_CONTROL | request_type::INTERNAL_DEVICE_CONTROL => {
                Operation::Control { code: 0, input: 0, output: 0 }
            }
            _ => return Err(NtStatus::INVALID_PARAMETER.into()),
        };
        let of_device = ddi::body::<Queue>(&queue)?;
        if of_device.device().is_none_or(|other| !Arc::ptr_eq(&other, &object)) || !of_device.handles(operation) {
            return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
        }
        let mut routes = device.routes.lock();
        let route = routes.get_mut(kind as usize).ok_or(NtStatus::INVALID_PARAMETER)?;
        if route.is_some() {
            // KMDF has another status for a second queue for create requests.
            let taken = if kind == request_type::CREATE { NtStatus::INVALID_PARAMETER } else { status::WDF_BUSY };
            return Err(taken.into());
        }
        *route = Some(queue);
        Ok(())
    })
}

/// From `EvtIoInCallerContext` into the queue that the request would have gone to.
extern "win64" fn enqueue_request(_: Globals, device: Handle, request: Handle) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, device, Kind::Device)?;
        let request = ddi::object(machine, request, Kind::Request)?;
        let device = ddi::body::<Device>(&object)?;
        let kind = ddi::body::<request::Request>(&request)?.operation().request_type();
        let queue = device.route(kind).ok_or(Fault::Status(NtStatus::INVALID_DEVICE_REQUEST))?;
        request::enqueue_from_caller(machine, &request, &queue)
    })
}

extern "win64" fn get_characteristics(_: Globals, device: Handle) -> u32 {
    with(device, |_, device| device.characteristics.load(Ordering::Relaxed) as u32)
}

extern "win64" fn set_characteristics(_: Globals, device: Handle, characteristics: u32) {
    with(device, |_, device| device.characteristics.store(characteristics as usize, Ordering::Relaxed));
}
