//! Dispatcher objects and waiting for them.
//!
//! The state a driver can see (`DISPATCHER_HEADER.SignalState`) is in the driver's own memory; one lock of the machine
//! guards all of them, and a change wakes whoever waits, who then looks again. Wait lists are not linked through the
//! objects, so one that is freed while a thread waits on it is found by the fault of the next look, not by a corrupted
//! list.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::machine::Machine;
use core::ffi::c_void;
use nt_abi::Irql;
use nt_abi::NtStatus;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

exports! {
    "ntoskrnl.exe";
    KeInitializeEvent: HIGH,
    KeSetEvent: DISPATCH,
    KeResetEvent: DISPATCH,
    KeClearEvent: DISPATCH,
    KePulseEvent: DISPATCH,
    KeReadStateEvent: DISPATCH,
    KeInitializeSemaphore: HIGH,
    KeReleaseSemaphore: DISPATCH,
    KeReadStateSemaphore: HIGH,
    KeInitializeMutex: HIGH,
    KeReleaseMutex: DISPATCH,
    KeReadStateMutex: DISPATCH,
    KeWaitForSingleObject: DISPATCH,
    KeWaitForMultipleObjects: DISPATCH,
    KeDelayExecutionThread: APC,
}

/// `DISPATCHER_HEADER` (wdm.h): the first 24 bytes of everything that can be waited for.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// What it is: [`kind`].
    pub kind: u8,
    /// Signalling, Hand, Inserted: not used here.
    pub bytes: [u8; 3],
    /// Signaled when positive.
    pub signal_state: i32,
    /// WaitListHead, kept empty: both links point at themselves.
    pub wait_list: [u64; 2],
}

const _: () = assert!(size_of::<Header>() == 0x18);

/// Object types (`KOBJECTS`, ntddk.h and public symbols).
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of KOBJECTS")]
    pub const NOTIFICATION_EVENT: u8 = 0;
    pub const SYNCHRONIZATION_EVENT: u8 = 1;
    pub const MUTANT: u8 = 2;
    pub const PROCESS: u8 = 3;
    pub const SEMAPHORE: u8 = 5;
    pub const THREAD: u8 = 6;
    pub const NOTIFICATION_TIMER: u8 = 8;
    pub const SYNCHRONIZATION_TIMER: u8 = 9;
}

/// `KSEMAPHORE`.
#[repr(C)]
struct Semaphore {
    header: Header,
    limit: i32,
}

/// `KMUTANT`, a driver's `KMUTEX`.
#[repr(C)]
struct Mutant {
    header: Header,
    list: [u64; 2],
    owner: u64,
    abandoned: u8,
    apc_disable: u8,
}

const _: () = assert!(size_of::<Semaphore>() == 0x20 && size_of::<Mutant>() == 0x38);

/// The dispatcher of one machine.
#[derive(Debug, Default)]
pub struct Dispatcher {
    lock: Mutex<()>,
    changed: Condvar,
}

/// How often a waiting thread looks whether the machine has stopped or its time was pushed.
const LOOK: Duration = Duration::from_millis(2);

impl Dispatcher {
    /// Changes the state of objects; whoever waits looks again.
    ///
    /// `change` touches driver memory only where its caller has already touched it: a fault with the lock held would
    /// leave it held forever.
    pub(crate) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let guard = self.lock.lock();
        let result = change();
        drop(guard);
        self.changed.notify_all();
        result
    }

    /// Waits, inside [`cpu::enter`], until `is_done`, which is called with the dispatcher's lock.
    pub(crate) fn wait_until(&self, machine: &Machine, mut is_done: impl FnMut() -> bool) {
        wait(machine, None, || is_done().then_some(()));
    }

    /// Wakes every waiting thread to look again.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }
}

/// Reads a header without the lock, so that a bad address faults without it.
///
/// # Safety
/// `header` is a pointer of the driver; a wrong one faults inside `enter`.
unsafe fn probe(header: *mut Header) -> u8 {
    // SAFETY: the caller's promise. The write back of what was read would race; reading suffices, because Windows'
    // own headers are never in read-only memory.
    unsafe { (&raw const (*header).signal_state).read_volatile() };
    // SAFETY: as above.
    unsafe { (&raw const (*header).kind).read_volatile() & 0x7f }
}

/// Initialises a header.
///
/// # Safety
/// `header` is writable driver memory.
pub(crate) unsafe fn initialize(header: *mut Header, kind: u8, signal_state: i32) {
    let list = header as u64 + core::mem::offset_of!(Header, wait_list) as u64;
    // SAFETY: the caller's promise.
    unsafe {
        header.write(Header {
            kind,
            bytes: [0, (size_of::<Header>() / 4) as u8, 0],
            signal_state,
            wait_list: [list; 2],
        })
    };
}

/// Sets a state and returns the one before.
///
/// # Safety
/// `header` is an initialised object in writable driver memory.
pub(crate) unsafe fn set_state(machine: &Machine, header: *mut Header, state: i32) -> i32 {
    // SAFETY: the caller's promise; the first access is without the lock.
    unsafe { probe(header) };
    machine.dispatcher.change(|| {
        // SAFETY: probed above; every access to the state is under the dispatcher's lock.
        unsafe { core::mem::replace(&mut (*header).signal_state, state) }
    })
}

unsafe extern "win64" fn KeInitializeEvent(event: *mut Header, kind: u32, state: u8) {
    // SAFETY: the page demands nonpaged memory for a KEVENT; every member is written, none read. `kind` is 0 or 1 of
    // EVENT_TYPE.
    unsafe { initialize(event, kind as u8, i32::from(state != 0)) };
}

/// With `wait` a KeWaitXxx must follow, for which the level must allow waiting (KeSetEvent's page).
unsafe extern "win64" fn KeSetEvent(event: *mut Header, _increment: i32, wait: u8) -> i32 {
    let irql = cpu::irql();
    if wait != 0 && irql > Irql::APC {
        crate::nt::violation(
            [0x2_0000, u64::from(irql.0), 1, 0],
            format!("KeSetEvent with Wait = TRUE was called at {irql}; it may be called so at APC_LEVEL at most"),
        );
    }
    // SAFETY: the page demands an initialized KEVENT in nonpaged memory; `set_state` probes it before it takes the
    // lock.
    cpu::with_machine(|machine| unsafe { set_state(machine, event, 1) })
}

unsafe extern "win64" fn KeResetEvent(event: *mut Header) -> i32 {
    // SAFETY: the page demands an initialized KEVENT in nonpaged memory; `set_state` probes it before it takes the
    // lock.
    cpu::with_machine(|machine| unsafe { set_state(machine, event, 0) })
}

unsafe extern "win64" fn KeClearEvent(event: *mut Header) {
    // SAFETY: the page demands an initialized KEVENT, as KeResetEvent and KeSetEvent do.
    unsafe { KeResetEvent(event) };
}

unsafe extern "win64" fn KePulseEvent(event: *mut Header, _increment: i32, _wait: u8) -> i32 {
    // Whoever waits must see the event set before it is reset; as waiters look for themselves, that cannot be had,
    // and KePulseEvent is documented as unreliable for the same reason. A set and a reset it is.
    // SAFETY: the page demands an initialized KEVENT, as KeResetEvent and KeSetEvent do.
    unsafe {
        let before = KeSetEvent(event, 0, 0);
        std::thread::yield_now();
        KeResetEvent(event);
        before
    }
}

unsafe extern "win64" fn KeReadStateEvent(event: *mut Header) -> i32 {
    // SAFETY: the page demands an initialized KEVENT; one word of it is read.
    unsafe { (&raw const (*event).signal_state).read_volatile() }
}

unsafe extern "win64" fn KeInitializeSemaphore(semaphore: *mut Semaphore, count: i32, limit: i32) {
    // SAFETY: the page demands nonpaged memory for a KSEMAPHORE; every member is written, none read.
    unsafe {
        initialize(&raw mut (*semaphore).header, kind::SEMAPHORE, count);
        (*semaphore).limit = limit;
    }
}

unsafe extern "win64" fn KeReleaseSemaphore(semaphore: *mut Semaphore, _increment: i32, by: i32, _wait: u8) -> i32 {
    // SAFETY: the page demands an initialized KSEMAPHORE; it is probed without the lock, so that a wrong address faults
    // with nothing held.
    let limit = unsafe {
        probe(&raw mut (*semaphore).header);
        (*semaphore).limit
    };
    let (before, after) = cpu::with_machine(|machine| {
        machine.dispatcher.change(|| {
            // SAFETY: probed above; every access to the state is under the dispatcher's lock.
            let state = unsafe { &mut (*semaphore).header.signal_state };
            let before = *state;
            let after = before.checked_add(by).filter(|&n| by > 0 && n <= limit);
            *state = after.unwrap_or(before);
            (before, after)
        })
    });
    if after.is_none() {
        // Windows raises STATUS_SEMAPHORE_LIMIT_EXCEEDED, which nothing here can catch.
        cpu::bugcheck(
            code::KMODE_EXCEPTION_NOT_HANDLED,
            [0xffff_ffff_c000_0047, semaphore as u64, 0, 0],
            format!("the semaphore at {semaphore:p} stands at {before} of {limit} and was released by {by}"),
        );
    }
    before
}

unsafe extern "win64" fn KeReadStateSemaphore(semaphore: *mut Header) -> i32 {
    // SAFETY: the page demands an initialized KSEMAPHORE; one word of it is read.
    unsafe { (&raw const (*semaphore).signal_state).read_volatile() }
}

unsafe extern "win64" fn KeInitializeMutex(mutex: *mut Mutant, _level: u32) {
    // SAFETY: the page demands nonpaged memory for a KMUTANT; every member is written, none read.
    unsafe {
        initialize(&raw mut (*mutex).header, kind::MUTANT, 1);
        (*mutex).list = [0; 2];
        (*mutex).owner = 0;
        (*mutex).abandoned = 0;
        (*mutex).apc_disable = 1;
    }
}

unsafe extern "win64" fn KeReleaseMutex(mutex: *mut Mutant, _wait: u8) -> i32 {
    // SAFETY: the page demands an initialized KMUTANT; it is probed without the lock, so that a wrong address faults
    // with nothing held.
    unsafe { probe(&raw mut (*mutex).header) };
    let me = cpu::current_processor().thread();
    let before = cpu::with_machine(|machine| {
        machine.dispatcher.change(|| {
            // SAFETY: probed above; every access to the mutex is under the dispatcher's lock.
            let mutex = unsafe { &mut *mutex };
            if mutex.owner != me {
                return None;
            }
            let before = mutex.header.signal_state;
            mutex.header.signal_state += 1;
            if mutex.header.signal_state == 1 {
                mutex.owner = 0;
            }
            Some(before)
        })
    });
    match before {
        Some(before) => before,
        None => cpu::bugcheck(
            code::KMODE_EXCEPTION_NOT_HANDLED,
            [0xffff_ffff_c000_0046, mutex as u64, 0, 0], // STATUS_MUTANT_NOT_OWNED
            format!("the mutex at {mutex:p} was released by a thread that does not own it"),
        ),
    }
}

unsafe extern "win64" fn KeReadStateMutex(mutex: *mut Header) -> i32 {
    // SAFETY: the page demands an initialized KMUTANT; one word of it is read.
    unsafe { (&raw const (*mutex).signal_state).read_volatile() }
}

/// Whether a wait for the object would end now; changes nothing. Called with the dispatcher's lock.
///
/// # Safety
/// A probed header.
unsafe fn is_signaled(header: *mut Header, me: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let owned = (*header).kind & 0x7f == kind::MUTANT && (*header.cast::<Mutant>()).owner == me;
        (*header).signal_state > 0 || owned
    }
}

/// What a satisfied wait does to the object. Called with the dispatcher's lock.
///
/// # Safety
/// A probed header that is signaled.
unsafe fn consume(header: *mut Header, me: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        match (*header).kind & 0x7f {
            kind::SYNCHRONIZATION_EVENT | kind::SYNCHRONIZATION_TIMER => (*header).signal_state = 0,
            kind::SEMAPHORE => (*header).signal_state -= 1,
            kind::MUTANT => {
                (*header).signal_state -= 1;
                (*header.cast::<Mutant>()).owner = me;
            }
            _ => {}
        }
    }
}

/// Waits until `attempt`, called with the dispatcher's lock, gives a value. None when `due` (interrupt time) is past.
fn wait<R>(machine: &Machine, due: Option<u64>, mut attempt: impl FnMut() -> Option<R>) -> Option<R> {
    let mut guard: MutexGuard<'_, ()> = machine.dispatcher.lock.lock();
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if machine.has_stopped() {
            drop(guard);
            cpu::leave_if_stopped();
            return None;
        }
        let left = match due {
            Some(due) => match due.saturating_sub(machine.clock.interrupt_time()) {
                0 => return None,
                units => LOOK.min(Duration::from_nanos(units.saturating_mul(100))),
            },
            None => LOOK,
        };
        machine.dispatcher.changed.wait_for(&mut guard, left);
    }
}

/// The rules of IRQL for a wait: at DISPATCH_LEVEL only one that cannot block.
fn check_level(what: &str, timeout: Option<i64>) {
    if cpu::irql() >= Irql::DISPATCH && timeout != Some(0) {
        cpu::bugcheck(
            code::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [0x3b, u64::from(cpu::irql().0), 0, 0],
            format!(
                "{what} was called at {} with a timeout that is not zero: the thread cannot wait there",
                cpu::irql()
            ),
        );
    }
}

unsafe extern "win64" fn KeWaitForSingleObject(
    object: *mut Header,
    _reason: u32,
    _mode: i8,
    _alertable: u8,
    timeout: *const i64,
) -> NtStatus {
    // SAFETY: the page demands an initialized dispatcher object, and null, which is checked, or a timeout; both are
    // read before any lock is taken.
    let timeout = unsafe {
        probe(object);
        timeout.as_ref().copied()
    };
    check_level("KeWaitForSingleObject", timeout);
    let me = cpu::current_processor().thread();
    let satisfied = cpu::with_machine(|machine| {
        let due = timeout.map(|t| machine.clock.due(t));
        wait(machine, due, || {
            // SAFETY: probed above.
            unsafe { is_signaled(object, me).then(|| consume(object, me)) }
        })
    });
    if satisfied.is_some() { NtStatus::SUCCESS } else { NtStatus::TIMEOUT }
}

unsafe extern "win64" fn KeWaitForMultipleObjects(
    count: u32,
    objects: *const *mut Header,
    wait_type: u32,
    _reason: u32,
    _mode: i8,
    _alertable: u8,
    timeout: *const i64,
    wait_blocks: *mut c_void,
) -> NtStatus {
    /// MAXIMUM_WAIT_OBJECTS, and THREAD_WAIT_OBJECTS for callers that bring no wait blocks.
    const MOST: [u32; 2] = [3, 64];
    let most = MOST[usize::from(!wait_blocks.is_null())];
    if count == 0 || count > most {
        cpu::bugcheck(
            0x0C, // MAXIMUM_WAIT_OBJECTS_EXCEEDED
            [u64::from(count), 0, 0, 0],
            format!(
                "KeWaitForMultipleObjects was given {count} objects; without wait blocks 3, with them 64 are the most"
            ),
        );
    }
    let mut list = [core::ptr::null_mut(); 64];
    // SAFETY: the page demands `count` pointers to initialized dispatcher objects, and null, which is checked, or a
    // timeout; `count` is checked above, and all are read before any lock is taken.
    let timeout = unsafe {
        for (index, slot) in list.iter_mut().take(count as usize).enumerate() {
            *slot = objects.add(index).read();
            probe(*slot);
        }
        timeout.as_ref().copied()
    };
    let objects = &list[..count as usize];
    check_level("KeWaitForMultipleObjects", timeout);
    let me = cpu::current_processor().thread();
    let satisfied = cpu::with_machine(|machine| {
        let due = timeout.map(|t| machine.clock.due(t));
        wait(machine, due, || {
            // SAFETY: probed above.
            let ready = |o: &&*mut Header| unsafe { is_signaled(**o, me) };
            // WaitAll is 0, WaitAny 1 (WAIT_TYPE).
            if wait_type == 0 {
                objects.iter().all(|o| ready(&o)).then(|| {
                    // SAFETY: probed above.
                    objects.iter().for_each(|&o| unsafe { consume(o, me) });
                    0
                })
            } else {
                let index = objects.iter().position(|o| ready(&o))?;
                // SAFETY: probed above.
                unsafe { consume(objects[index], me) };
                Some(index as i32)
            }
        })
    });
    satisfied.map_or(NtStatus::TIMEOUT, NtStatus)
}

unsafe extern "win64" fn KeDelayExecutionThread(_mode: i8, _alertable: u8, interval: *const i64) -> NtStatus {
    // SAFETY: the page demands a LARGE_INTEGER; it is read before any lock is taken.
    let interval = unsafe { interval.read() };
    cpu::with_machine(|machine| wait(machine, Some(machine.clock.due(interval)), || None::<()>));
    NtStatus::SUCCESS
}
