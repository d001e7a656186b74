//! Processes by their numbers.

use core::{ffi::c_void, marker::PhantomData, ptr::null_mut};

use wdk_sys::{
    BOOLEAN, HANDLE, PEPROCESS,
    ntddk::{
        ObfDereferenceObject, PsGetProcessCreateTimeQuadPart, PsLookupProcessByProcessId,
        PsSetCreateProcessNotifyRoutine,
    },
};

use crate::status::{NtResult, NtStatus};

unsafe extern "C" {
    /// The number of the process that created it. In no header of the kit, and exported by every ntoskrnl.exe since Windows
    /// XP; it reads one member of the object.
    fn PsGetProcessInheritedFromUniqueProcessId(process: PEPROCESS) -> HANDLE;
}

/// What Windows knows of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// When it was created, in 100 ns since 1601-01-01 UTC.
    pub created: u64,
    /// The process that created it, which may have ended, and its number be another one's.
    pub parent: u32,
}

/// What is known of the process with this number; None if there is none. IRQL = PASSIVE_LEVEL.
#[must_use]
pub fn origin(id: u32) -> Option<Origin> {
    let mut process: PEPROCESS = null_mut();
    // SAFETY: a plain number; on success the object has one more reference, which is dropped below.
    NtStatus::check(unsafe { PsLookupProcessByProcessId(id as usize as HANDLE, &raw mut process) }).ok()?;
    // SAFETY: the object lives as long as the reference.
    let (created, parent) =
        unsafe { (PsGetProcessCreateTimeQuadPart(process), PsGetProcessInheritedFromUniqueProcessId(process)) };
    // SAFETY: the reference from above, dropped once.
    let _ = unsafe { ObfDereferenceObject(process.cast::<c_void>()) };
    Some(Origin { created: created.cast_unsigned(), parent: parent as usize as u32 })
}

/// What is told of processes, as a type, because the routine has no argument of ours.
pub trait ProcessEvents: 'static {
    /// A process with this number begins, before its first thread runs, or ends, after its last. Until then its number is not
    /// given to another. PASSIVE_LEVEL.
    fn begins_or_ends(id: u32);
}

/// Tells of processes until it is dropped, which waits for a routine that runs. IRQL = PASSIVE_LEVEL.
#[derive(Debug)]
pub struct ProcessWatch<E: ProcessEvents>(PhantomData<fn() -> E>);

impl<E: ProcessEvents> ProcessWatch<E> {
    /// Begins to be told. At most one of a type may live. IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of PsSetCreateProcessNotifyRoutine: Windows has room for so many routines only.
    pub fn new() -> NtResult<Self> {
        // SAFETY: a function of the image, which `drop` takes back before the image goes (the driver's contract).
        NtStatus::check(unsafe { PsSetCreateProcessNotifyRoutine(Some(routine::<E>), 0) })?;
        Ok(Self(PhantomData))
    }
}

impl<E: ProcessEvents> Drop for ProcessWatch<E> {
    fn drop(&mut self) {
        // SAFETY: set in `new`, taken back once; it waits until the routine runs nowhere. After a failure nothing can be
        // done.
        let _ = unsafe { PsSetCreateProcessNotifyRoutine(Some(routine::<E>), 1) };
    }
}

unsafe extern "C" fn routine<E: ProcessEvents>(_parent: HANDLE, id: HANDLE, _begins: BOOLEAN) {
    E::begins_or_ends(id as usize as u32);
}
