//! File objects.

use core::any::Any;
use core::mem::{offset_of, size_of};
use std::sync::{Arc, Weak};

use super::abi::Handle;
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::kernel::Allocation;
use super::object::{Body, Object};
use super::violation::Violation;
use crate::machine::Machine;
use crate::nt::io::layout::FileObject as Layout;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfFileObjectGetDevice", get_device as *const ()),
    Function::dispatch("WdfFileObjectGetFlags", get_flags as *const ()),
    Function::dispatch("WdfFileObjectGetFileName", get_file_name as *const ()),
    Function::dispatch("WdfFileObjectWdmGetFileObject", get_file_object as *const ()),
    Function::dispatch("WdfFileObjectGetInitiatorProcessId", get_process_id as *const ()),
];

/// `WDFFILEOBJECT`, with the `FILE_OBJECT` behind it.
pub(crate) struct File {
    device: Weak<Object>,
    wdm: Allocation,
}

impl File {
    /// A file that is being opened on a device. Its name is empty: the device itself is opened, nothing below it.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub(crate) fn new(machine: &Arc<Machine>, device: &Arc<Object>, device_object: usize) -> Result<Self, NtStatus> {
        let wdm = Allocation::zeroed(machine, device.client().tag(), size_of::<Layout>());
        let wdm = wdm.ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        // SAFETY: the block has the layout's size, is zeroed, and is this file's alone until the driver gets it.
        let layout = unsafe { &mut *(wdm.address() as *mut Layout) };
        layout.kind = Layout::TYPE;
        layout.size = size_of::<Layout>() as i16;
        layout.device_object = device_object;
        layout.flags = Layout::HANDLE_CREATED;
        Ok(Self { device: Arc::downgrade(device), wdm })
    }
}

impl Body for File {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    fn deletable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The address of a file's `FILE_OBJECT`.
///
/// # Errors
/// A violation when the object is no file.
pub(crate) fn file_object(file: &Object) -> Result<usize, Box<Violation>> {
    Ok(ddi::body::<File>(file)?.wdm.address())
}

fn with<R>(file: Handle, f: impl FnOnce(&File) -> R) -> R {
    ddi::run(|machine| {
        let object = ddi::object(machine, file, Kind::File)?;
        let file = ddi::body::<File>(&object)?;
        Ok(f(file))
    })
}

extern "win64" fn get_device(_: Globals, file: Handle) -> Handle {
    with(file, |file| file.device.upgrade().map_or(Handle::NULL, |device| device.handle))
}

extern "win64" fn get_flags(_: Globals, file: Handle) -> u32 {
    // SAFETY: the block is a FILE_OBJECT as long as the file lives.
    with(file, |file| unsafe { (*(file.wdm.address() as *const Layout)).flags })
}

extern "win64" fn get_file_name(_: Globals, file: Handle) -> usize {
    with(file, |file| file.wdm.address() + offset_of!(Layout, file_name))
}

extern "win64" fn get_file_object(_: Globals, file: Handle) -> usize {
    with(file, |file| file.wdm.address())
}

/// Whoever opens a device of the simulated machine lives in this process.
extern "win64" fn get_process_id(_: Globals, file: Handle) -> u32 {
    with(file, |_| std::process::id())
}
