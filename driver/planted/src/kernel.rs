//! What planted drivers import besides `wdk-sys`: mostly routines that the real driver never needs.
//!
//! Raw imports, emitted by the compiler: a defect must not extend the list of what the real driver may import
//! (crates/wdk-build/def). Signatures: wdm.h, ntddk.h.
#![allow(missing_docs, reason = "the names are those of the WDK documentation")]

use core::{cell::UnsafeCell, ffi::c_void};

/// POOL_FLAG_NON_PAGED.
pub const NON_PAGED: u64 = 0x40;
/// POOL_FLAG_PAGED.
pub const PAGED: u64 = 0x100;
/// The tag of every planted allocation.
pub const TAG: u32 = u32::from_le_bytes(*b"Plnt");
/// DelayedWorkQueue.
pub const DELAYED_WORK_QUEUE: u32 = 1;

/// Memory in the driver's image for a kernel object: large enough and aligned for any of them.
#[repr(C, align(64))]
pub struct Object(UnsafeCell<[u8; 256]>);

// SAFETY: only the kernel looks inside, under its own rules.
unsafe impl Sync for Object {}

impl Object {
    /// Zeroed.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "made in statics only")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; 256]))
    }

    /// Its address.
    #[must_use]
    pub const fn at(&self) -> *mut c_void {
        self.0.get().cast()
    }
}

pub type DpcRoutine = unsafe extern "system" fn(*mut c_void, *mut c_void, *mut c_void, *mut c_void);
pub type ProcessNotify = unsafe extern "system" fn(usize, usize, u8);
pub type Routine = unsafe extern "system" fn(*mut c_void);

/// WORK_QUEUE_ITEM.
#[repr(C)]
pub struct WorkItem {
    pub links: [usize; 2],
    pub routine: Option<Routine>,
    pub parameter: *mut c_void,
}

/// OBJECT_ATTRIBUTES.
#[repr(C)]
pub struct ObjectAttributes {
    pub length: u32,
    pub root: *mut c_void,
    pub name: *const wdk_sys::UNICODE_STRING,
    pub attributes: u32,
    pub descriptor: *const c_void,
    pub quality: *const c_void,
}

#[link(name = "fwpkclnt.sys", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "system" {
    pub fn FwpmEngineOpen0(
        server: *const u16,
        authentication: u32,
        identity: *mut c_void,
        session: *const c_void,
        engine: *mut *mut c_void,
    ) -> i32;
}

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "system" {
    pub fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut u8;
    pub fn ExFreePoolWithTag(block: *mut u8, tag: u32);
    pub fn KeInitializeSpinLock(lock: *mut c_void);
    pub fn KeAcquireSpinLockRaiseToDpc(lock: *mut c_void) -> u8;
    pub fn KeReleaseSpinLock(lock: *mut c_void, old: u8);
    pub fn KeAcquireSpinLockAtDpcLevel(lock: *mut c_void);
    pub fn KeReleaseSpinLockFromDpcLevel(lock: *mut c_void);
    pub fn KfRaiseIrql(new: u8) -> u8;
    pub fn KeLowerIrql(old: u8);
    pub fn KeInitializeEvent(event: *mut c_void, kind: u32, state: u8);
    pub fn KeWaitForSingleObject(object: *mut c_void, reason: u32, mode: u8, alertable: u8, timeout: *const i64)
    -> i32;
    pub fn KeDelayExecutionThread(mode: u8, alertable: u8, interval: *const i64) -> i32;
    pub fn KeInitializeTimer(timer: *mut c_void);
    pub fn KeSetTimer(timer: *mut c_void, due: i64, dpc: *mut c_void) -> u8;
    pub fn KeInitializeDpc(dpc: *mut c_void, routine: DpcRoutine, context: *mut c_void);
    pub fn KeInsertQueueDpc(dpc: *mut c_void, first: *mut c_void, second: *mut c_void) -> u8;
    pub fn KeEnterCriticalRegion();
    pub fn KeBugCheckEx(code: u32, first: usize, second: usize, third: usize, fourth: usize) -> !;
    pub fn ExQueueWorkItem(item: *mut WorkItem, queue: u32);
    pub fn ExInitializeLookasideListEx(
        list: *mut c_void,
        allocate: *mut c_void,
        free: *mut c_void,
        pool: u32,
        flags: u32,
        size: usize,
        tag: u32,
        depth: u16,
    ) -> i32;
    pub fn ExInitializeResourceLite(resource: *mut c_void) -> i32;
    pub fn ExReleaseResourceLite(resource: *mut c_void);
    pub fn ExAcquireSpinLockSharedAtDpcLevel(lock: *mut c_void);
    pub fn KeInitializeGuardedMutex(mutex: *mut c_void);
    pub fn KeAcquireGuardedMutex(mutex: *mut c_void);
    pub fn KeReleaseGuardedMutex(mutex: *mut c_void);
    pub fn PsSetCreateProcessNotifyRoutine(notify: ProcessNotify, remove: u8) -> i32;
    pub fn EtwRegister(provider: *const u8, enabled: *const c_void, context: *const c_void, handle: *mut u64) -> i32;
    pub fn IoAllocateMdl(address: *mut u8, length: u32, secondary: u8, quota: u8, irp: *mut c_void) -> *mut c_void;
    pub fn IoCreateDevice(
        driver: *mut c_void,
        extension: u32,
        name: *const wdk_sys::UNICODE_STRING,
        kind: u32,
        characteristics: u32,
        exclusive: u8,
        device: *mut *mut c_void,
    ) -> i32;
    pub fn IoCreateSymbolicLink(link: *const wdk_sys::UNICODE_STRING, target: *const wdk_sys::UNICODE_STRING) -> i32;
    pub fn IoGetCurrentProcess() -> *mut c_void;
    pub fn ObfReferenceObject(object: *mut c_void) -> isize;
    pub fn ObfDereferenceObject(object: *mut c_void) -> isize;
    pub fn PsCreateSystemThread(
        handle: *mut *mut c_void,
        access: u32,
        attributes: *const ObjectAttributes,
        process: *mut c_void,
        client: *mut c_void,
        routine: Routine,
        context: *mut c_void,
    ) -> i32;
    pub fn ZwOpenKey(handle: *mut *mut c_void, access: u32, attributes: *const ObjectAttributes) -> i32;
    pub fn ZwClose(handle: *mut c_void) -> i32;
}
