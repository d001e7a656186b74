//! The object manager: references to objects, and handles.
//!
//! Objects are known by their address. Those that the kernel makes (threads, processes) are entered here; references to
//! any other address (a device, a file) are counted too, so that one dereference too many is found. Every reference and
//! handle records its caller, for the leak report.

#![allow(non_snake_case, non_upper_case_globals, reason = "exports have their Windows names")]

mod handle;
pub mod namespace;

pub use handle::Target;

use crate::cpu;
use crate::export::{Export, exports};
use crate::nt::violation;
use core::fmt;
use core::ops::Range;
use handle::Handles;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;
use parking_lot::Mutex;
use std::collections::HashMap;

exports! {
    "ntoskrnl.exe";
    ObfReferenceObject: DISPATCH,
    ObfReferenceObjectWithTag: DISPATCH,
    ObfDereferenceObject: DISPATCH,
    ObfDereferenceObjectWithTag: DISPATCH,
    ObDereferenceObjectDeferDelete: DISPATCH,
    ObDereferenceObjectDeferDeleteWithTag: DISPATCH,
    ObReferenceObjectByPointer: DISPATCH,
    ObReferenceObjectByPointerWithTag: DISPATCH,
    ObReferenceObjectSafe: DISPATCH,
    ObReferenceObjectByHandle: PASSIVE,
    ObReferenceObjectByHandleWithTag: PASSIVE,
    ObOpenObjectByPointer: PASSIVE,
    ObCloseHandle: PASSIVE,
    ZwClose: PASSIVE,
}

/// The variables: each holds the address of an `OBJECT_TYPE`, which is opaque.
pub const VARIABLES: &[Export] = &[
    Export::variable("ntoskrnl.exe", "PsThreadType", (&raw const PsThreadType).cast()),
    Export::variable("ntoskrnl.exe", "PsProcessType", (&raw const PsProcessType).cast()),
    Export::variable("ntoskrnl.exe", "ExEventObjectType", (&raw const ExEventObjectType).cast()),
    Export::variable("ntoskrnl.exe", "IoFileObjectType", (&raw const IoFileObjectType).cast()),
];

/// An `OBJECT_TYPE`; its address is all that matters.
#[repr(C, align(16))]
struct Type([u8; 16]);

static THREAD: Type = Type(*b"Thread\0\0\0\0\0\0\0\0\0\0");
static PROCESS: Type = Type(*b"Process\0\0\0\0\0\0\0\0\0");
static EVENT: Type = Type(*b"Event\0\0\0\0\0\0\0\0\0\0\0");
static FILE: Type = Type(*b"File\0\0\0\0\0\0\0\0\0\0\0\0");

static PsThreadType: &Type = &THREAD;
static PsProcessType: &Type = &PROCESS;
static ExEventObjectType: &Type = &EVENT;
static IoFileObjectType: &Type = &FILE;

/// `OBJECT_ATTRIBUTES` (ntdef.h).
#[repr(C)]
pub(crate) struct ObjectAttributes {
    pub(crate) length: u32,
    /// The directory or key that the name begins in.
    pub(crate) root: u64,
    pub(crate) name: *const UnicodeString,
    pub(crate) attributes: u32,
    pub(crate) security: *const u8,
    pub(crate) quality: *const u8,
}

const _: () = assert!(size_of::<ObjectAttributes>() == 0x30);

#[cfg(test)]
impl ObjectAttributes {
    /// As InitializeObjectAttributes makes them for a name, case-insensitive.
    pub(crate) fn of(name: *const UnicodeString) -> Self {
        const OBJ_CASE_INSENSITIVE: u32 = 0x40;
        let null = core::ptr::null();
        let length = size_of::<Self>() as u32;
        Self { length, root: 0, name, attributes: OBJ_CASE_INSENSITIVE, security: null, quality: null }
    }

    /// The same without a name.
    pub(crate) fn unnamed() -> Self {
        Self::of(core::ptr::null())
    }
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A process.
    Process,
    /// A thread.
    Thread,
    /// Made by another room.
    Other,
}

impl Kind {
    fn type_object(self) -> Option<u64> {
        match self {
            Self::Process => Some(&raw const PROCESS as u64),
            Self::Thread => Some(&raw const THREAD as u64),
            Self::Other => None,
        }
    }
}

/// An object with the references that were taken by address.
struct Object {
    kind: Kind,
    name: String,
    /// The callers that took the references that are left.
    references: Vec<u64>,
    /// The memory of a deleted object, freed with the last reference.
    deleted: Option<Box<dyn Send>>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, references, deleted } = self;
        write!(f, "{name} ({kind:?}), {} references, deleted: {}", references.len(), deleted.is_some())
    }
}

/// The objects and handles of one machine.
#[derive(Debug, Default)]
pub struct Objects {
    table: Mutex<HashMap<u64, Object>>,
    handles: Mutex<Handles>,
}

impl Objects {
    /// Enters an object that the kernel keeps.
    pub(crate) fn enter(&self, address: u64, kind: Kind, name: impl Into<String>) {
        let object = Object { kind, name: name.into(), references: Vec::new(), deleted: None };
        self.table.lock().insert(address, object);
    }

    /// The kind of an object; None when it is not known.
    #[must_use]
    pub fn kind(&self, address: u64) -> Option<Kind> {
        self.table.lock().get(&address).map(|object| object.kind)
    }

    /// How many references drivers have to an object.
    pub(crate) fn references(&self, address: u64) -> usize {
        self.table.lock().get(&address).map_or(0, |object| object.references.len())
    }

    /// Adds a reference; returns the new count, with the kernel's own as one.
    pub(crate) fn reference(&self, address: u64, by: u64) -> usize {
        let mut table = self.table.lock();
        let object = table.entry(address).or_insert_with(|| Object {
            kind: Kind::Other,
            name: format!("object {address:#x}"),
            references: Vec::new(),
            deleted: None,
        });
        object.references.push(by);
        object.references.len() + 1
    }

    /// The object's maker deletes it: keeps its memory, from `memory`, until the last reference is dropped. False,
    /// without a call of `memory`, when there is no reference.
    pub(crate) fn keep_while_referenced(&self, address: u64, memory: impl FnOnce() -> Box<dyn Send>) -> bool {
        let mut table = self.table.lock();
        let Some(object) = table.get_mut(&address).filter(|object| !object.references.is_empty()) else { return false };
        object.deleted = Some(memory());
        true
    }

    /// Drops a reference; None when there is none.
    fn dereference(&self, address: u64) -> Option<usize> {
        let mut table = self.table.lock();
        let object = table.get_mut(&address)?;
        object.references.pop()?;
        let left = object.references.len();
        let gone = if left == 0 && object.kind == Kind::Other { table.remove(&address) } else { None };
        // With no lock held: freeing its memory may stop the machine.
        drop(table);
        drop(gone);
        Some(left + 1)
    }

    /// Opens a handle.
    pub(crate) fn open(&self, target: Target, by: u64) -> u64 {
        self.handles.lock().open(target, by)
    }

    /// The target of a handle.
    #[must_use]
    pub fn target(&self, handle: u64) -> Option<Target> {
        self.handles.lock().target(handle)
    }

    /// Closes a handle; None when it is not valid.
    fn close(&self, handle: u64) -> Option<Target> {
        self.handles.lock().close(handle)
    }

    /// References and handles that code within `range` took and did not release.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let mut left = self.handles.lock().left_by(range);
        for object in self.table.lock().values() {
            let theirs = object.references.iter().filter(|by| range.contains(by));
            left.extend(theirs.map(|by| format!("reference to {}, taken by {}", object.name, cpu::frame_of(*by))));
        }
        left
    }
}

/// Adds a reference for the caller of the import.
fn reference(object: u64) -> i64 {
    let by = cpu::caller();
    cpu::with_machine(|machine| machine.executive.objects.reference(object, by)) as i64
}

fn dereference(object: u64) -> i64 {
    match cpu::with_machine(|machine| machine.executive.objects.dereference(object)) {
        Some(left) => left as i64,
        None => violation(
            [0x3F, object, u64::MAX, 0],
            format!("the object at {object:#x} was dereferenced more often than it was referenced"),
        ),
    }
}

extern "win64" fn ObfReferenceObject(object: u64) -> i64 {
    reference(object)
}

extern "win64" fn ObfReferenceObjectWithTag(object: u64, _tag: u32) -> i64 {
    reference(object)
}

extern "win64" fn ObReferenceObjectSafe(object: u64) -> u8 {
    reference(object);
    1
}

pub(crate) extern "win64" fn ObfDereferenceObject(object: u64) -> i64 {
    dereference(object)
}

extern "win64" fn ObfDereferenceObjectWithTag(object: u64, _tag: u32) -> i64 {
    dereference(object)
}

extern "win64" fn ObDereferenceObjectDeferDelete(object: u64) {
    dereference(object);
}

extern "win64" fn ObDereferenceObjectDeferDeleteWithTag(object: u64, _tag: u32) {
    dereference(object);
}

/// Whether an object is of the type asked for; a null type takes any.
fn is_of(kind: Kind, wanted: u64) -> bool {
    wanted == 0 || kind.type_object().is_none_or(|of| of == wanted)
}

extern "win64" fn ObReferenceObjectByPointer(object: u64, _access: u32, wanted: u64, _mode: i8) -> NtStatus {
    let kind = cpu::with_machine(|machine| machine.executive.objects.kind(object)).unwrap_or(Kind::Other);
    if !is_of(kind, wanted) {
        return NtStatus::OBJECT_TYPE_MISMATCH;
    }
    reference(object);
    NtStatus::SUCCESS
}

extern "win64" fn ObReferenceObjectByPointerWithTag(
    object: u64,
    access: u32,
    wanted: u64,
    mode: i8,
    _tag: u32,
) -> NtStatus {
    ObReferenceObjectByPointer(object, access, wanted, mode)
}

/// The object of a handle.
pub(crate) fn object_of(handle: u64) -> Option<u64> {
    /// ZwCurrentProcess() and ZwCurrentThread().
    const CURRENT_PROCESS: u64 = -1_i64 as u64;
    const CURRENT_THREAD: u64 = -2_i64 as u64;
    match handle {
        CURRENT_PROCESS => Some(cpu::current_processor().process()),
        CURRENT_THREAD => Some(cpu::current_processor().thread()),
        _ => match cpu::with_machine(|machine| machine.executive.objects.target(handle))? {
            Target::Object(address) => Some(address),
            Target::Key(_) | Target::Directory(_) | Target::SymbolicLink(_) | Target::File(_) => None,
        },
    }
}

/// `OBJECT_HANDLE_INFORMATION` is HandleAttributes and GrantedAccess.
unsafe extern "win64" fn ObReferenceObjectByHandle(
    handle: u64,
    access: u32,
    wanted: u64,
    _mode: i8,
    object: *mut u64,
    information: *mut [u32; 2],
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the page demands a variable for the object's address.
    unsafe { object.write(0) };
    if handle == 0 {
        violation([0xF5, 0, wanted, 0], "ObReferenceObjectByHandle was given a NULL handle");
    }
    let Some(address) = object_of(handle) else { return NtStatus::INVALID_HANDLE };
    let kind = cpu::with_machine(|machine| machine.executive.objects.kind(address)).unwrap_or(Kind::Other);
    if !is_of(kind, wanted) {
        return NtStatus::OBJECT_TYPE_MISMATCH;
    }
    cpu::with_machine(|machine| machine.executive.objects.reference(address, by));
    // SAFETY: the page demands a variable for the object's address, and null, which is checked, or an
    // OBJECT_HANDLE_INFORMATION. The driver drops the reference with ObDereferenceObject.
    unsafe {
        object.write(address);
        if !information.is_null() {
            information.write([0, access]);
        }
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn ObReferenceObjectByHandleWithTag(
    handle: u64,
    access: u32,
    wanted: u64,
    mode: i8,
    _tag: u32,
    object: *mut u64,
    information: *mut [u32; 2],
) -> NtStatus {
    // SAFETY: the page demands what ObReferenceObjectByHandle does.
    unsafe { ObReferenceObjectByHandle(handle, access, wanted, mode, object, information) }
}

unsafe extern "win64" fn ObOpenObjectByPointer(
    object: u64,
    _attributes: u32,
    _access_state: *const u8,
    _access: u32,
    wanted: u64,
    _mode: i8,
    handle: *mut u64,
) -> NtStatus {
    let by = cpu::caller();
    let kind = cpu::with_machine(|machine| machine.executive.objects.kind(object)).unwrap_or(Kind::Other);
    if !is_of(kind, wanted) {
        return NtStatus::OBJECT_TYPE_MISMATCH;
    }
    let opened = cpu::with_machine(|machine| machine.executive.objects.open(Target::Object(object), by));
    // SAFETY: the page demands a variable for the handle, which the driver closes with ZwClose.
    unsafe { handle.write(opened) };
    NtStatus::SUCCESS
}

extern "win64" fn ZwClose(handle: u64) -> NtStatus {
    let closed = cpu::with_machine(|machine| machine.executive.objects.close(handle));
    if closed.is_some() { NtStatus::SUCCESS } else { NtStatus::INVALID_HANDLE }
}

extern "win64" fn ObCloseHandle(handle: u64, _mode: i8) -> NtStatus {
    ZwClose(handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::Irql;

    #[test]
    fn references_are_counted_for_any_address() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::DISPATCH, || {
            assert_eq!(ObfReferenceObject(0x1000), 2);
            assert_eq!(ObReferenceObjectByPointer(0x1000, 0, 0, 0), NtStatus::SUCCESS);
            assert_eq!(ObfDereferenceObject(0x1000), 2);
            ObDereferenceObjectDeferDelete(0x1000);
        })
        .unwrap();
        let stopped = cpu::enter(&machine, Irql::DISPATCH, || ObfDereferenceObject(0x1000)).unwrap_err();
        assert_eq!(stopped.parameters[0], 0x3F);
    }

    #[test]
    fn a_handle_leads_to_its_object_by_type() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            machine.executive.objects.enter(0x2000, Kind::Thread, "thread");
            let (mut handle, mut object) = (0, 0);
            let (thread, process) = (&raw const THREAD as u64, &raw const PROCESS as u64);
            // SAFETY: the outputs are ours.
            unsafe {
                let opened = ObOpenObjectByPointer(0x2000, 0, ptr::null(), 0, thread, 0, &mut handle);
                assert_eq!(opened, NtStatus::SUCCESS);
                let by_handle =
                    |wanted, object| ObReferenceObjectByHandle(handle, 0, wanted, 0, object, ptr::null_mut());
                assert_eq!(by_handle(process, &mut object), NtStatus::OBJECT_TYPE_MISMATCH);
                assert_eq!(by_handle(thread, &mut object), NtStatus::SUCCESS);
                assert_eq!(object, 0x2000);
                ObfDereferenceObject(object);
                assert_eq!(ZwClose(handle), NtStatus::SUCCESS);
                assert_eq!(ZwClose(handle), NtStatus::INVALID_HANDLE);
                assert_eq!(by_handle(thread, &mut object), NtStatus::INVALID_HANDLE);
                let current = ObReferenceObjectByHandle(-2_i64 as u64, 0, 0, 0, &mut object, ptr::null_mut());
                assert_eq!((current, object), (NtStatus::SUCCESS, cpu::current_processor().thread()));
            }
        })
        .unwrap();
    }

    #[test]
    fn what_was_not_given_back_is_listed() {
        let objects = Objects::default();
        objects.enter(0x2000, Kind::Process, "process 4");
        objects.reference(0x2000, 0x5500);
        objects.open(Target::Object(0x2000), 0x5600);
        assert_eq!(objects.left_by(&(0x5000..0x6000)).len(), 2);
        assert!(objects.left_by(&(0x6000..0x7000)).is_empty());
    }
}
