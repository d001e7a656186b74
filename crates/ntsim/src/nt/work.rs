//! Work items: what drivers hand to the system's worker threads.
//!
//! A few threads run the items, in order, at PASSIVE_LEVEL; each ends when there is nothing left to do. The
//! `IO_WORKITEM` is opaque to drivers, the `WORK_QUEUE_ITEM` (wdm.h) is not.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::machine::Machine;
use crate::nt::ke::apc;
use crate::nt::pool::Kind;
use crate::trace::Callback;
use crate::verifier::callback::{self, At, Keeps};
use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use nt_abi::Irql;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

exports! {
    "ntoskrnl.exe";
    ExQueueWorkItem: DISPATCH,
    IoAllocateWorkItem: DISPATCH,
    IoFreeWorkItem: DISPATCH,
    IoSizeofWorkItem: HIGH,
    IoInitializeWorkItem: HIGH,
    IoUninitializeWorkItem: HIGH,
    IoQueueWorkItem: DISPATCH,
    IoQueueWorkItemEx: DISPATCH,
    IoTryQueueWorkItem: DISPATCH,
}

/// `WORKER_THREAD_ROUTINE`.
type Worker = extern "win64" fn(*mut c_void);
/// `IO_WORKITEM_ROUTINE`: device, context.
type Routine = extern "win64" fn(*mut c_void, *mut c_void);
/// `IO_WORKITEM_ROUTINE_EX`: driver or device, context, work item.
type RoutineEx = extern "win64" fn(*mut c_void, *mut c_void, *mut IoWorkItem);

/// `WORK_QUEUE_ITEM`.
#[repr(C)]
struct WorkQueueItem {
    /// The list links; the first is zero when the item is in no queue, which `ExInitializeWorkItem` sees to.
    queued: AtomicU64,
    previous: u64,
    routine: Worker,
    parameter: *mut c_void,
}

/// `IO_WORKITEM`.
#[repr(C)]
struct IoWorkItem {
    /// [`MAGIC`] while it may be queued.
    magic: u64,
    device: *mut c_void,
    queued: AtomicU64,
}

const MAGIC: u64 = u64::from_le_bytes(*b"WorkItem");
const TAG: u32 = u32::from_le_bytes(*b"IoWI");
/// Bytes of an `IO_WORKITEM` on Windows 10 x64; ours is smaller.
const SIZE: u32 = 0x58;
const _: () = assert!(size_of::<IoWorkItem>() <= SIZE as usize && size_of::<WorkQueueItem>() == 0x20);

/// Enough that items which wait for each other do not starve, as long as they are not many.
const MOST_WORKERS: usize = 16;

/// A queued item.
#[derive(Clone, Copy, Debug)]
struct Job {
    routine: u64,
    arguments: [usize; 3],
    /// The address of the item's queued flag, in driver memory.
    queued: usize,
    /// It was queued with a device, whose reference keeps the driver in memory until its routine has returned
    /// (IoQueueWorkItem documentation).
    keeps_driver: bool,
}

/// The work queue of one machine.
#[derive(Debug, Default)]
pub struct WorkQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Those that a worker thread is in.
    running: Vec<Job>,
    workers: usize,
}

/// How long a routine that has done its work may take to return before that counts as running on.
const GRACE: Duration = Duration::from_millis(20);

impl WorkQueue {
    /// Items whose routine is within `range`, a driver that has just been unloaded, and that do not keep it in memory
    /// until they have run: on Windows they would run in unmapped code.
    #[must_use]
    pub fn left_in(&self, range: &Range<u64>) -> Vec<String> {
        let theirs = |job: &&Job| range.contains(&job.routine) && !job.keeps_driver;
        let deadline = Instant::now() + GRACE;
        while self.state.lock().running.iter().any(|job| theirs(&job)) && Instant::now() < deadline {
            std::thread::sleep(GRACE / 10);
        }
        let state = self.state.lock();
        let queued = state.jobs.iter().filter(theirs).map(|job| (job, "queued"));
        let running = state.running.iter().filter(theirs).map(|job| (job, "running"));
        queued.chain(running).map(|(job, how)| format!("{how} work item of {}", cpu::frame_of(job.routine))).collect()
    }

    fn pop(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let job = state.jobs.pop_front();
        state.workers -= usize::from(job.is_none());
        state.running.extend(job);
        job
    }

    fn done(&self, job: &Job) {
        let mut state = self.state.lock();
        if let Some(at) = state.running.iter().position(|other| other.queued == job.queued) {
            state.running.swap_remove(at);
        }
    }
}

fn queue(machine: &Arc<Machine>, job: Job) {
    let start = {
        let mut state = machine.executive.work.state.lock();
        state.jobs.push_back(job);
        let start = state.workers < MOST_WORKERS;
        state.workers += usize::from(start);
        start
    };
    if start {
        cpu::thread::spawn_system_thread(machine, Box::new(work));
    }
}

/// A worker thread.
fn work() {
    while let Some(job) = cpu::with_machine(|machine| machine.executive.work.pop()) {
        // SAFETY: the page of ExQueueWorkItem demands that a queued item stays in memory until its routine is called; a
        // freed one faults.
        unsafe { (*(job.queued as *const AtomicU64)).store(0, Ordering::Release) };
        // SAFETY: a WORKER_THREAD_ROUTINE or IO_WORKITEM_ROUTINE takes up to three arguments, and the win64 ABI lets a
        // function ignore arguments; a wrong address faults and stops the machine.
        let routine: extern "win64" fn(usize, usize, usize) = unsafe { core::mem::transmute(job.routine) };
        callback::enter(
            &At("the work routine", job.routine),
            Keeps::SpinLocks,
            || Callback::new("WorkRoutine", job.routine, Vec::new()),
            || routine(job.arguments[0], job.arguments[1], job.arguments[2]),
            |()| String::new(),
        );
        let irql = cpu::irql();
        if irql != Irql::PASSIVE {
            cpu::bugcheck(
                code::WORKER_THREAD_RETURNED_AT_BAD_IRQL,
                [job.routine, u64::from(irql.0), job.queued as u64, 0],
                format!("a work item returned at {irql}"),
            );
        }
        if apc::disable_count() != 0 {
            cpu::bugcheck(
                code::APC_INDEX_MISMATCH,
                [job.routine, 0, apc::disable_count(), 0],
                "a work item returned inside a critical region",
            );
        }
        cpu::with_machine(|machine| machine.executive.work.done(&job));
    }
}

fn queued_twice(item: u64) -> ! {
    cpu::bugcheck(
        code::WORKER_INVALID,
        [1, item, 0, 0],
        format!("the work item at {item:#x} was queued while it is queued already, or was not initialised"),
    )
}

unsafe extern "win64" fn ExQueueWorkItem(item: *mut WorkQueueItem, _queue: u32) {
    // SAFETY: the page demands a WORK_QUEUE_ITEM that ExInitializeWorkItem initialized and that stays until its routine
    // is called; queueing it twice stops the machine.
    let (fresh, job) = unsafe {
        let fresh = (*item).queued.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let job = Job {
            routine: (*item).routine as *const () as u64,
            arguments: [(*item).parameter as usize, 0, 0],
            queued: &raw const (*item).queued as usize,
            keeps_driver: false,
        };
        (fresh, job)
    };
    if !fresh {
        queued_twice(item as u64);
    }
    cpu::with_machine(|machine| queue(machine, job));
}

extern "win64" fn IoAllocateWorkItem(device: *mut c_void) -> *mut IoWorkItem {
    let item = cpu::with_machine(|machine| {
        if machine.low_resources.fails("IoAllocateWorkItem") {
            return core::ptr::null_mut();
        }
        machine.pool.allocate(TAG, SIZE as usize, Kind::NonPaged)
    });
    let item = item.cast::<IoWorkItem>();
    if !item.is_null() {
        // SAFETY: just allocated, big enough.
        unsafe { IoInitializeWorkItem(device, item) };
    }
    item
}

extern "win64" fn IoSizeofWorkItem() -> u32 {
    SIZE
}

unsafe extern "win64" fn IoInitializeWorkItem(device: *mut c_void, item: *mut IoWorkItem) {
    // SAFETY: the page demands memory of the size that IoSizeofWorkItem returned, which is larger than this structure.
    unsafe { item.write(IoWorkItem { magic: MAGIC, device, queued: AtomicU64::new(0) }) };
}

unsafe extern "win64" fn IoUninitializeWorkItem(item: *mut IoWorkItem) {
    // SAFETY: the page demands a work item that IoInitializeWorkItem initialized; freeing a queued one stops the
    // machine.
    let queued = unsafe {
        (*item).magic = 0;
        (*item).queued.load(Ordering::Acquire) != 0
    };
    if queued {
        cpu::bugcheck(
            code::WORKER_INVALID,
            [0, item as u64, 0, 0],
            format!("the work item at {item:p} was freed while it is queued"),
        );
    }
}

unsafe extern "win64" fn IoFreeWorkItem(item: *mut IoWorkItem) {
    // SAFETY: the page demands an item of IoAllocateWorkItem; the pool checks that it is a block, and frees it.
    unsafe { IoUninitializeWorkItem(item) };
    cpu::with_machine(|machine| machine.pool.free(item.cast(), TAG));
}

/// Queues an item unless it is queued.
///
/// # Safety
/// `item` is readable, and `routine` an IO_WORKITEM_ROUTINE or IO_WORKITEM_ROUTINE_EX.
unsafe fn try_queue(item: *mut IoWorkItem, routine: u64, context: *mut c_void) -> bool {
    // SAFETY: the caller's promise.
    let (magic, device, fresh) = unsafe {
        let magic = (*item).magic;
        let fresh = (*item).queued.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        (magic, (*item).device, fresh)
    };
    if magic != MAGIC {
        cpu::bugcheck(
            code::WORKER_INVALID,
            [2, item as u64, 0, 0],
            format!(
                "{item:p} was queued as a work item, but IoAllocateWorkItem or IoInitializeWorkItem did not make it"
            ),
        );
    }
    if fresh {
        let arguments = [device as usize, context as usize, item as usize];
        // SAFETY: the caller's promise.
        let queued = unsafe { &raw const (*item).queued } as usize;
        cpu::with_machine(|machine| queue(machine, Job { routine, arguments, queued, keeps_driver: true }));
    }
    fresh
}

unsafe extern "win64" fn IoQueueWorkItem(item: *mut IoWorkItem, routine: Routine, _queue: u32, context: *mut c_void) {
    // SAFETY: the page demands an item of IoAllocateWorkItem or IoInitializeWorkItem, whose magic number `try_queue`
    // checks, and a routine of this type.
    if !unsafe { try_queue(item, routine as *const () as u64, context) } {
        queued_twice(item as u64);
    }
}

unsafe extern "win64" fn IoQueueWorkItemEx(
    item: *mut IoWorkItem,
    routine: RoutineEx,
    _queue: u32,
    context: *mut c_void,
) {
    // SAFETY: the page demands an item of IoAllocateWorkItem or IoInitializeWorkItem, whose magic number `try_queue`
    // checks, and a routine of this type.
    if !unsafe { try_queue(item, routine as *const () as u64, context) } {
        queued_twice(item as u64);
    }
}

unsafe extern "win64" fn IoTryQueueWorkItem(
    item: *mut IoWorkItem,
    routine: RoutineEx,
    _queue: u32,
    context: *mut c_void,
) -> u8 {
    // SAFETY: the page demands an item of IoAllocateWorkItem or IoInitializeWorkItem, whose magic number `try_queue`
    // checks, and a routine of this type.
    u8::from(unsafe { try_queue(item, routine as *const () as u64, context) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn settle(machine: &Machine) {
        assert_eq!(machine.threads.join_within(Duration::from_secs(10)), 0);
    }

    #[test]
    fn an_executive_item_runs_at_passive_level_and_can_queue_itself_again() {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        extern "win64" fn routine(item: *mut c_void) {
            assert_eq!(cpu::irql(), Irql::PASSIVE);
            if RUNS.fetch_add(1, Ordering::AcqRel) < 2 {
                // SAFETY: the test's own item.
                unsafe { ExQueueWorkItem(item.cast(), 1) };
            }
        }
        let machine = Machine::new();
        let item = Box::leak(Box::new(WorkQueueItem {
            queued: AtomicU64::new(0),
            previous: 0,
            routine,
            parameter: core::ptr::null_mut(),
        }));
        item.parameter = (&raw mut *item).cast();
        // SAFETY: the test's own item.
        cpu::enter(&machine, Irql::DISPATCH, || unsafe { ExQueueWorkItem(item, 1) }).unwrap();
        settle(&machine);
        assert_eq!(RUNS.load(Ordering::Acquire), 3);
        assert!(machine.stopped().is_none());
    }

    #[test]
    fn an_io_item_gets_device_context_and_itself_and_may_free_itself() {
        static SEEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        extern "win64" fn routine(device: *mut c_void, context: *mut c_void, item: *mut IoWorkItem) {
            SEEN.lock().extend([device as usize, context as usize]);
            // SAFETY: the item is not queued any more.
            unsafe { IoFreeWorkItem(item) };
        }
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let item = IoAllocateWorkItem(0x11 as *mut c_void);
            // SAFETY: a fresh item.
            unsafe { IoQueueWorkItemEx(item, routine, 1, 0x22 as *mut c_void) };
        })
        .unwrap();
        settle(&machine);
        assert_eq!(*SEEN.lock(), [0x11, 0x22]);
        assert_eq!(machine.pool.usage().0, 0);
    }

    #[test]
    fn misuse_stops_the_machine() {
        extern "win64" fn never(_: *mut c_void, _: *mut c_void) {}
        let twice = cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let item = IoAllocateWorkItem(core::ptr::null_mut());
            // SAFETY: a fresh item; nothing may run it between the two calls, so it is marked by hand.
            unsafe {
                (*item).queued.store(1, Ordering::Release);
                IoQueueWorkItem(item, never, 1, core::ptr::null_mut());
            }
        });
        assert_eq!(twice.unwrap_err().code, code::WORKER_INVALID);
        extern "win64" fn raises(_: *mut c_void, _: *mut c_void) {
            cpu::raise(Irql::APC);
        }
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let item = IoAllocateWorkItem(core::ptr::null_mut());
            // SAFETY: a fresh item.
            unsafe { IoQueueWorkItem(item, raises, 1, core::ptr::null_mut()) };
        })
        .unwrap();
        settle(&machine);
        assert_eq!(machine.stopped().unwrap().code, code::WORKER_THREAD_RETURNED_AT_BAD_IRQL);
    }
}
