//! Memory objects and lookaside lists.

use core::any::Any;
use core::ffi::c_void;
use core::ptr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Client;
use super::abi::{Handle, ObjectAttributes};
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::kernel::{Allocation, Pool};
use super::object::{Allowed, Attributes, Body, Object};
use super::violation::{Fault, Violation};
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfMemoryCreate", create as *const ()),
    Function::dispatch("WdfMemoryCreatePreallocated", create_preallocated as *const ()),
    Function::dispatch("WdfMemoryGetBuffer", get_buffer as *const ()),
    Function::dispatch("WdfMemoryAssignBuffer", assign_buffer as *const ()),
    Function::dispatch("WdfMemoryCopyToBuffer", copy_to_buffer as *const ()),
    Function::dispatch("WdfMemoryCopyFromBuffer", copy_from_buffer as *const ()),
    Function::dispatch("WdfLookasideListCreate", lookaside_create as *const ()),
    Function::dispatch("WdfMemoryCreateFromLookaside", create_from_lookaside as *const ()),
];

/// Whose bytes a memory object describes.
enum Backing {
    /// Its own, freed when the object is deleted.
    Pool(#[expect(dead_code, reason = "owned, so that it is given back")] Allocation),
    /// The driver's (`WdfMemoryCreatePreallocated`).
    Driver,
    /// A request's buffer; valid until the request is completed.
    Request,
}

/// `WDFMEMORY`.
pub(crate) struct Memory {
    region: Mutex<(usize, usize)>,
    backing: Mutex<Option<Backing>>,
    paged: bool,
}

impl Memory {
    /// A memory object for a buffer of a request.
    #[must_use]
    pub(crate) fn of_request(address: usize, size: usize) -> Self {
        Self { region: Mutex::new((address, size)), backing: Mutex::new(Some(Backing::Request)), paged: false }
    }

    fn from_pool(memory: Allocation, paged: bool) -> Self {
        let region = (memory.address(), memory.size());
        Self { region: Mutex::new(region), backing: Mutex::new(Some(Backing::Pool(memory))), paged }
    }

    /// Address and size.
    #[must_use]
    pub(crate) fn region(&self) -> (usize, usize) {
        *self.region.lock()
    }
}

impl Body for Memory {
    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn passive_dispose(&self) -> bool {
        self.paged
    }

    fn deletable(&self) -> bool {
        !matches!(*self.backing.lock(), Some(Backing::Request))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `WDFLOOKASIDE`: remembers what to allocate. Blocks are not cached; each is a fresh one, so that the use of one after
/// its deletion is found.
struct Lookaside {
    size: usize,
    pool: Pool,
    tag: u32,
    attributes: Attributes,
}

impl Body for Lookaside {
    fn kind(&self) -> Kind {
        Kind::Lookaside
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `POOL_TYPE`: the lowest bit is paged, 512 is not executable.
const fn pool(pool_type: u32) -> Pool {
    match pool_type {
        paged if paged & 1 != 0 => Pool::Paged,
        nx if nx & 512 != 0 => Pool::NonPaged,
        _ => Pool::NonPagedExecute,
    }
}

fn tag_or_default(client: &Client, tag: u32) -> u32 {
    if tag == 0 { client.tag() } else { tag }
}

/// Creates a memory object with a block from a pool.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for no bytes, `STATUS_INSUFFICIENT_RESOURCES`, `STATUS_DELETE_PENDING` of the parent, or
/// a violation for a parent that is no object.
pub(crate) fn allocate(
    machine: &Arc<Machine>,
    client: &Arc<Client>,
    attributes: &Attributes,
    size: usize,
    pool: Pool,
    tag: u32,
) -> Result<Arc<Object>, Fault> {
    if size == 0 {
        return Err(NtStatus::INVALID_PARAMETER.into());
    }
    let parent = ddi::parent_or_driver(machine, client, attributes)?;
    let block = Allocation::from_pool(machine, tag, size, pool).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    let body = Box::new(Memory::from_pool(block, pool == Pool::Paged));
    Ok(Object::create(machine, client, Some(&parent), attributes, body)?)
}

extern "win64" fn create(
    globals: Globals,
    attributes: *const ObjectAttributes,
    pool_type: u32,
    tag: u32,
    size: usize,
    out: *mut Handle,
    buffer: *mut usize,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, "WdfMemoryCreate", "Memory")?;
        // SAFETY: the driver passes NULL or a WDF_OBJECT_ATTRIBUTES.
        let attributes = unsafe { Attributes::read(attributes, Allowed::PARENT)? };
        let tag = tag_or_default(&client, tag);
        let object = allocate(machine, &client, &attributes, size, pool(pool_type), tag)?;
        let (address, _) = ddi::body::<Memory>(&object)?.region();
        // SAFETY: the handle's address is not null; the buffer's is written only when it is not.
        unsafe {
            out.write(object.handle);
            if !buffer.is_null() {
                buffer.write(address);
            }
        }
        Ok(())
    })
}

extern "win64" fn create_preallocated(
    globals: Globals,
    attributes: *const ObjectAttributes,
    buffer: *mut c_void,
    size: usize,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(buffer, "WdfMemoryCreatePreallocated", "Buffer")?;
        ddi::not_null(out, "WdfMemoryCreatePreallocated", "Memory")?;
        if size == 0 {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        // SAFETY: the driver passes NULL or a WDF_OBJECT_ATTRIBUTES.
        let attributes = unsafe { Attributes::read(attributes, Allowed::PARENT)? };
        let parent = ddi::parent_or_driver(machine, &client, &attributes)?;
        let body = Box::new(Memory {
            region: Mutex::new((buffer as usize, size)),
            backing: Mutex::new(Some(Backing::Driver)),
            paged: false,
        });
        let object = Object::create(machine, &client, Some(&parent), &attributes, body)?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

extern "win64" fn get_buffer(_: Globals, memory: Handle, size: *mut usize) -> usize {
    ddi::run(|machine| {
        let object = ddi::object(machine, memory, Kind::Memory)?;
        let (address, bytes) = ddi::body::<Memory>(&object)?.region();
        if !size.is_null() {
            // SAFETY: not null.
            unsafe { size.write(bytes) };
        }
        Ok(address)
    })
}

/// Only a preallocated memory object takes another buffer.
extern "win64" fn assign_buffer(_: Globals, memory: Handle, buffer: *mut c_void, size: usize) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, memory, Kind::Memory)?;
        ddi::not_null(buffer, "WdfMemoryAssignBuffer", "Buffer")?;
        let memory = ddi::body::<Memory>(&object)?;
        if size == 0 {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        if !matches!(*memory.backing.lock(), Some(Backing::Driver)) {
            return Err(
                Violation::kind(object.handle, "WDFMEMORY made by WdfMemoryCreatePreallocated", Kind::Memory).into()
            );
        }
        *memory.region.lock() = (buffer as usize, size);
        Ok(())
    })
}

/// The address of `length` bytes at `offset` of a memory object.
fn part(machine: &Machine, memory: Handle, offset: usize, length: usize) -> Result<usize, Fault> {
    let object = ddi::object(machine, memory, Kind::Memory)?;
    let (address, size) = ddi::body::<Memory>(&object)?.region();
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(address + offset),
        _ => Err(NtStatus::BUFFER_TOO_SMALL.into()),
    }
}

extern "win64" fn copy_to_buffer(
    _: Globals,
    source: Handle,
    offset: usize,
    buffer: *mut u8,
    length: usize,
) -> NtStatus {
    ddi::status(|machine| {
        ddi::not_null(buffer, "WdfMemoryCopyToBuffer", "Buffer")?;
        let from = part(machine, source, offset, length)?;
        // SAFETY: the part is in the object; the driver vouches for its own buffer.
        unsafe { ptr::copy(from as *const u8, buffer, length) };
        Ok(())
    })
}

extern "win64" fn copy_from_buffer(
    _: Globals,
    destination: Handle,
    offset: usize,
    buffer: *const u8,
    length: usize,
) -> NtStatus {
    ddi::status(|machine| {
        ddi::not_null(buffer, "WdfMemoryCopyFromBuffer", "Buffer")?;
        let to = part(machine, destination, offset, length)?;
        // SAFETY: the part is in the object; the driver vouches for its own buffer.
        unsafe { ptr::copy(buffer, to as *mut u8, length) };
        Ok(())
    })
}

extern "win64" fn lookaside_create(
    globals: Globals,
    attributes: *const ObjectAttributes,
    size: usize,
    pool_type: u32,
    memory_attributes: *const ObjectAttributes,
    tag: u32,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, "WdfLookasideListCreate", "Lookaside")?;
        if size == 0 {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        // SAFETY: the driver passes NULL or WDF_OBJECT_ATTRIBUTES for both.
        let (own, of_memory) = unsafe {
            (Attributes::read(attributes, Allowed::PARENT)?, Attributes::read(memory_attributes, Allowed::PARENT)?)
        };
        let parent = ddi::parent_or_driver(machine, &client, &own)?;
        let body = Box::new(Lookaside {
            size,
            pool: pool(pool_type),
            tag: tag_or_default(&client, tag),
            attributes: of_memory,
        });
        let object = Object::create(machine, &client, Some(&parent), &own, body)?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

extern "win64" fn create_from_lookaside(globals: Globals, lookaside: Handle, out: *mut Handle) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, "WdfMemoryCreateFromLookaside", "Memory")?;
        let list = ddi::object(machine, lookaside, Kind::Lookaside)?;
        let list = ddi::body::<Lookaside>(&list)?;
        let object = allocate(machine, &client, &list.attributes, list.size, list.pool, list.tag)?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}
