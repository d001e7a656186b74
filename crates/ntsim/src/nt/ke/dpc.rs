//! A driver's deferred procedure calls (`KDPC`).

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, At, Keeps};
use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering};

exports! {
    "ntoskrnl.exe";
    KeInitializeDpc: HIGH,
    KeInitializeThreadedDpc: HIGH,
    KeInsertQueueDpc: HIGH,
    KeRemoveQueueDpc: HIGH,
    KeFlushQueuedDpcs: PASSIVE,
    KeSetImportanceDpc: HIGH,
    KeSetTargetProcessorDpc: HIGH,
    KeSetTargetProcessorDpcEx: HIGH,
}

/// `KDEFERRED_ROUTINE`.
type Routine = extern "win64" fn(*mut Dpc, *mut c_void, *mut c_void, *mut c_void);

/// `KDPC` (wdm.h), 64 bytes on x64.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Dpc {
    kind: u8,
    importance: u8,
    number: u16,
    list: u64,
    history: u64,
    routine: Option<Routine>,
    context: *mut c_void,
    argument1: *mut c_void,
    argument2: *mut c_void,
    /// DpcData: not null while it is queued. Here: a number of its own for each time it is queued.
    queued: AtomicU64,
}

const _: () = assert!(size_of::<Dpc>() == 0x40);

/// DpcObject and ThreadedDpcObject of KOBJECTS.
const KIND: u8 = 19;
const THREADED_KIND: u8 = 24;

unsafe fn initialize(dpc: *mut Dpc, kind: u8, routine: Option<Routine>, context: *mut c_void) {
    // SAFETY: nonpaged memory for a KDPC, by the callers' pages; every member is written, none read.
    unsafe {
        dpc.write(Dpc {
            kind,
            importance: 1,
            number: 0,
            list: 0,
            history: 0,
            routine,
            context,
            argument1: core::ptr::null_mut(),
            argument2: core::ptr::null_mut(),
            queued: AtomicU64::new(0),
        });
    }
}

unsafe extern "win64" fn KeInitializeDpc(dpc: *mut Dpc, routine: Option<Routine>, context: *mut c_void) {
    // SAFETY: the page demands nonpaged memory for a KDPC.
    unsafe { initialize(dpc, KIND, routine, context) };
}

unsafe extern "win64" fn KeInitializeThreadedDpc(dpc: *mut Dpc, routine: Option<Routine>, context: *mut c_void) {
    // Threaded DPCs run at DISPATCH_LEVEL too when they are disabled system-wide, and drivers must cope with it.
    // SAFETY: the page demands nonpaged memory for a KDPC.
    unsafe { initialize(dpc, THREADED_KIND, routine, context) };
}

/// The address of a DPC's routine.
///
/// # Safety
/// An initialised KDPC in driver memory.
pub(super) unsafe fn routine_of(dpc: *const Dpc) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*dpc).routine }.map_or(0, |routine| routine as usize as u64)
}

/// Queues a DPC on this processor. False when it is queued already.
///
/// # Safety
/// An initialised KDPC in driver memory.
pub(super) unsafe fn insert(dpc: *mut Dpc, argument1: *mut c_void, argument2: *mut c_void) -> bool {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let ticket = NEXT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: an initialized KDPC, by this function's contract; only the thread that wins the exchange writes the
    // arguments.
    unsafe {
        if (*dpc).queued.compare_exchange(0, ticket, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        (*dpc).argument1 = argument1;
        (*dpc).argument2 = argument2;
    }
    let address = dpc as usize;
    cpu::dpc::queue_dpc(Box::new(move || {
        let dpc = address as *mut Dpc;
        // SAFETY: the page of KeInsertQueueDpc demands that the KDPC stays until its routine ran or it was removed; the
        // routine is the driver's KDEFERRED_ROUTINE. A freed one faults, and the fault is reported.
        unsafe {
            let taken = (*dpc).queued.compare_exchange(ticket, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            let Dpc { routine, context, argument1, argument2, .. } = &*dpc;
            let (routine, context, argument1, argument2) = (*routine, *context, *argument1, *argument2);
            if taken && let Some(routine) = routine {
                callback::enter(
                    &At("the DPC routine", routine as usize as u64),
                    Keeps::All,
                    || {
                        let arguments = [("dpc", dpc.cast()), ("context", context), ("1", argument1), ("2", argument2)];
                        let arguments = arguments.map(|(name, value)| Argument::new(name, format_args!("{value:?}")));
                        Callback::new("DeferredRoutine", routine as *const () as u64, arguments.into())
                    },
                    || routine(dpc, context, argument1, argument2),
                    |()| String::new(),
                );
            }
        }
    }));
    true
}

unsafe extern "win64" fn KeInsertQueueDpc(dpc: *mut Dpc, argument1: *mut c_void, argument2: *mut c_void) -> u8 {
    // SAFETY: the page demands an initialized KDPC; `queued` is accessed atomically.
    u8::from(unsafe { insert(dpc, argument1, argument2) })
}

unsafe extern "win64" fn KeRemoveQueueDpc(dpc: *mut Dpc) -> u8 {
    // SAFETY: the page demands an initialized KDPC; `queued` is accessed atomically.
    u8::from(unsafe { (*dpc).queued.swap(0, Ordering::AcqRel) } != 0)
}

extern "win64" fn KeFlushQueuedDpcs() {
    // DPCs of this processor have run: it is at PASSIVE_LEVEL. Those of the others run before their processors come
    // below DISPATCH_LEVEL, so it suffices to have had each of them once.
    let processors = cpu::with_machine(|machine| machine.processors.count());
    for number in 0..processors {
        cpu::processor::pass_through(number);
    }
}

unsafe extern "win64" fn KeSetImportanceDpc(dpc: *mut Dpc, importance: u32) {
    // SAFETY: the page demands an initialized KDPC that is not queued; one member is written.
    unsafe { (*dpc).importance = importance as u8 };
}

unsafe extern "win64" fn KeSetTargetProcessorDpc(dpc: *mut Dpc, number: i8) {
    // Kept, and not obeyed: a DPC runs on the processor that queues it.
    // SAFETY: the page demands an initialized KDPC that is not queued; one member is written.
    unsafe { (*dpc).number = number as u16 };
}

unsafe extern "win64" fn KeSetTargetProcessorDpcEx(dpc: *mut Dpc, number: *const u32) -> i32 {
    // SAFETY: the page demands an initialized KDPC that is not queued, and a PROCESSOR_NUMBER (Group, Number,
    // Reserved), which is read.
    unsafe { (*dpc).number = (number.read() >> 16) as u16 & 0xff };
    0
}
