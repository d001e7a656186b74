//! System threads that drivers start.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::process;
use crate::cpu::switch::{pop_preserved, push_preserved};
use crate::cpu::{self, code};
use crate::export::exports;
use crate::nt::ke::{apc, dispatcher};
use crate::nt::ob::{Kind, Target};
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, At, Keeps};
use core::cell::Cell;
use core::ffi::c_void;
use nt_abi::Irql;
use nt_abi::NtStatus;
use std::sync::mpsc;

exports! {
    "ntoskrnl.exe";
    PsCreateSystemThread: PASSIVE,
    PsTerminateSystemThread: PASSIVE,
    PsGetCurrentThreadId: DISPATCH,
    PsGetThreadId: DISPATCH,
    PsGetThreadProcessId: DISPATCH,
    PsGetThreadProcess: DISPATCH,
    PsIsSystemThread: DISPATCH,
    PsGetThreadExitStatus: DISPATCH,
    PsLookupThreadByThreadId: APC,
    IoThreadToProcess: DISPATCH,
    KeSetPriorityThread: PASSIVE,
    KeQueryPriorityThread: PASSIVE,
    KeSetBasePriorityThread: PASSIVE,
}

/// `KSTART_ROUTINE`.
type StartRoutine = extern "win64" fn(*mut c_void);

/// What a driver may see of a thread, in what its `KTHREAD` leaves unused here. All of it is opaque on Windows too.
mod slot {
    /// `KTHREAD.Priority`, where Windows 10 22H2 has it.
    pub(super) const PRIORITY: u64 = 0xc3;
    /// The exit status, past every Windows version's ETHREAD.
    pub(super) const EXIT_STATUS: u64 = 0xff0;
    /// 1 in a thread that [`super::PsCreateSystemThread`] made.
    pub(super) const SYSTEM: u64 = 0xff4;
}

const DEFAULT_PRIORITY: i8 = 8;
const STATUS_PENDING: i32 = 0x103;

thread_local! {
    /// Where [`PsTerminateSystemThread`] continues: the stack pointer [`run`] stored.
    static START: Cell<u64> = const { Cell::new(0) };
}

/// Calls `routine(context)`; returns when it does, or when [`leave`] is given what was stored at `saved`.
///
/// # Safety
/// `routine` may be called with `context` here; `saved` is valid for writing.
#[unsafe(naked)]
unsafe extern "sysv64" fn run(saved: *mut u64, routine: StartRoutine, context: *mut c_void) {
    core::arch::naked_asm!(
        push_preserved!(),
        "mov [rdi], rsp",
        "mov rcx, rdx",
        "sub rsp, 40",
        "call rsi",
        "add rsp, 40",
        "jmp {restore}",
        ".cfi_endproc",
        restore = sym restore,
    )
}

/// Continues after the [`run`] that stored `saved`.
///
/// # Safety
/// That `run` is further down this stack and has not returned; nothing in between needs to be dropped.
#[unsafe(naked)]
unsafe extern "sysv64" fn leave(saved: u64) -> ! {
    core::arch::naked_asm!("mov rsp, rdi", "cld", "jmp {restore}", restore = sym restore)
}

#[unsafe(naked)]
unsafe extern "sysv64" fn restore() {
    core::arch::naked_asm!(pop_preserved!())
}

/// A field of a `KTHREAD`.
fn field<T>(thread: u64, offset: u64) -> *mut T {
    (thread + offset) as *mut T
}

/// The body of a system thread.
fn body(routine: StartRoutine, context: *mut c_void, started: &mpsc::Sender<u64>) {
    let thread = cpu::current_processor().thread();
    let machine = cpu::with_machine(std::sync::Arc::clone);
    // SAFETY: a new KTHREAD, never unmapped, to which nothing else points yet.
    unsafe {
        dispatcher::initialize(field(thread, 0), dispatcher::kind::THREAD, 0);
        field::<i8>(thread, slot::PRIORITY).write(DEFAULT_PRIORITY);
        field::<i32>(thread, slot::EXIT_STATUS).write(STATUS_PENDING);
        field::<i32>(thread, slot::SYSTEM).write(1);
    }
    let id = machine.executive.processes.thread_id(thread);
    machine.executive.objects.enter(thread, Kind::Thread, format!("thread {id}"));
    drop(machine);
    if started.send(thread).is_err() {
        return;
    }
    let mut saved = 0;
    START.set((&raw mut saved) as u64);
    callback::enter(
        &At("the start routine", routine as usize as u64),
        Keeps::Nothing, // it may end with PsTerminateSystemThread; both ends are checked below
        || {
            Callback::new(
                "StartRoutine",
                routine as *const () as u64,
                vec![Argument::new("context", format_args!("{context:?}"))],
            )
        },
        // SAFETY: the page of PsCreateSystemThread demands a KSTART_ROUTINE; a wrong address faults and stops the
        // machine. `saved` lives until `run` returns.
        || unsafe { run(&raw mut saved, routine, context) },
        |()| String::new(),
    );
    START.set(0);
    let irql = cpu::irql();
    if irql != Irql::PASSIVE {
        cpu::bugcheck(
            code::IRQL_UNEXPECTED_VALUE,
            [u64::from(irql.0), 0, 0, 0],
            format!("a system thread ended at {irql}"),
        );
    }
    if apc::disable_count() != 0 {
        cpu::bugcheck(
            code::APC_INDEX_MISMATCH,
            [routine as *const () as u64, 0, apc::disable_count(), 0],
            "a system thread ended inside a critical region",
        );
    }
    cpu::with_machine(|machine| {
        // SAFETY: as above. A thread whose routine returned ends with STATUS_SUCCESS.
        unsafe {
            let status = field::<i32>(thread, slot::EXIT_STATUS);
            if status.read() == STATUS_PENDING {
                status.write(0);
            }
            dispatcher::set_state(machine, field(thread, 0), 1);
        }
    });
}

/// `CLIENT_ID` is the process's and the thread's number.
unsafe extern "win64" fn PsCreateSystemThread(
    handle: *mut u64,
    _access: u32,
    _attributes: *const c_void,
    _process: u64,
    client: *mut [u64; 2],
    routine: StartRoutine,
    context: *mut c_void,
) -> NtStatus {
    let by = cpu::caller();
    if cpu::with_machine(|machine| machine.low_resources.fails("PsCreateSystemThread")) {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let (sender, receiver) = mpsc::channel();
    let argument = context as usize;
    cpu::with_machine(|machine| {
        let start = Box::new(move || body(routine, argument as *mut c_void, &sender));
        cpu::thread::spawn_system_thread(machine, start);
    });
    // The thread exists when this returns, as on Windows. It does not begin only when the machine has stopped.
    let Ok(thread) = receiver.recv() else {
        drop(receiver);
        cpu::leave_if_stopped();
        return NtStatus::UNSUCCESSFUL;
    };
    drop(receiver);
    cpu::with_machine(|machine| {
        let opened = machine.executive.objects.open(Target::Object(thread), by);
        // SAFETY: the page demands a variable for the handle, which the driver closes with ZwClose, and null, which is
        // checked, or a CLIENT_ID.
        unsafe {
            handle.write(opened);
            if !client.is_null() {
                client.write([process::SYSTEM_ID, machine.executive.processes.thread_id(thread)]);
            }
        }
    });
    NtStatus::SUCCESS
}

extern "win64" fn PsTerminateSystemThread(status: i32) -> NtStatus {
    let saved = START.get() as *const u64;
    if saved.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    let thread = cpu::current_processor().thread();
    // SAFETY: a thread's own KTHREAD; `body` set START to its live variable, which `run` filled, and is still inside
    // that call. Between here and there are driver frames only.
    unsafe {
        field::<i32>(thread, slot::EXIT_STATUS).write(status);
        leave(saved.read())
    }
}

extern "win64" fn PsGetCurrentThreadId() -> u64 {
    PsGetThreadId(cpu::current_processor().thread())
}

extern "win64" fn PsGetThreadId(thread: u64) -> u64 {
    cpu::with_machine(|machine| machine.executive.processes.thread_id(thread))
}

extern "win64" fn IoThreadToProcess(thread: u64) -> u64 {
    process::of_thread(thread)
}

extern "win64" fn PsGetThreadProcess(thread: u64) -> u64 {
    process::of_thread(thread)
}

extern "win64" fn PsGetThreadProcessId(thread: u64) -> u64 {
    let process = process::of_thread(thread);
    cpu::with_machine(|machine| machine.executive.processes.id(process)).unwrap_or(0)
}

extern "win64" fn PsIsSystemThread(thread: u64) -> u8 {
    u8::from(PsGetThreadProcessId(thread) == process::SYSTEM_ID)
}

unsafe extern "win64" fn PsGetThreadExitStatus(thread: u64) -> i32 {
    // SAFETY: the page demands a thread object: a KTHREAD, which is never freed; a wrong pointer faults.
    let status = unsafe { field::<i32>(thread, slot::EXIT_STATUS).read_volatile() };
    // Threads that PsCreateSystemThread did not make are still running. SAFETY: as above.
    if unsafe { field::<i32>(thread, slot::SYSTEM).read_volatile() } == 1 { status } else { STATUS_PENDING }
}

unsafe extern "win64" fn PsLookupThreadByThreadId(id: u64, thread: *mut u64) -> NtStatus {
    let by = cpu::caller();
    let found = cpu::with_machine(|machine| machine.executive.processes.thread_by_id(id));
    let Some(found) = found else { return NtStatus::INVALID_PARAMETER };
    cpu::with_machine(|machine| machine.executive.objects.reference(found, by));
    // SAFETY: the page demands a variable for the object's address. The driver drops the reference with
    // ObDereferenceObject.
    unsafe { thread.write(found) };
    NtStatus::SUCCESS
}

/// Priorities are kept and not obeyed: the host schedules.
unsafe extern "win64" fn KeSetPriorityThread(thread: u64, priority: i32) -> i32 {
    // SAFETY: the page demands a thread object: a KTHREAD, which is never freed; a wrong pointer faults.
    let old = unsafe { field::<i8>(thread, slot::PRIORITY).replace(priority as i8) };
    old.into()
}

unsafe extern "win64" fn KeQueryPriorityThread(thread: u64) -> i32 {
    // SAFETY: the page demands a thread object: a KTHREAD, which is never freed; a wrong pointer faults.
    unsafe { field::<i8>(thread, slot::PRIORITY).read_volatile() }.into()
}

/// The increment is relative to the process's base priority; returns the increment before.
unsafe extern "win64" fn KeSetBasePriorityThread(thread: u64, increment: i32) -> i32 {
    // SAFETY: the page demands what KeSetPriorityThread does.
    unsafe { KeSetPriorityThread(thread, i32::from(DEFAULT_PRIORITY) + increment) - i32::from(DEFAULT_PRIORITY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    static SEEN: AtomicU64 = AtomicU64::new(0);

    extern "win64" fn returns(context: *mut c_void) {
        std::thread::sleep(Duration::from_millis(20));
        SEEN.store(context as u64, Ordering::Release);
    }

    extern "win64" fn terminates(context: *mut c_void) {
        deeper(context as i32, 3);
        unreachable!("the thread has ended");
    }

    #[inline(never)]
    extern "win64" fn deeper(status: i32, levels: u32) {
        if levels == 0 {
            PsTerminateSystemThread(status);
        } else {
            deeper(status, levels - 1);
        }
        std::hint::black_box(levels);
    }

    /// Starts a thread, waits for its object, and returns its exit status.
    fn start_and_wait(routine: StartRoutine, context: u64) -> i32 {
        let (mut handle, mut thread, mut client) = (0, 0, [0; 2]);
        // SAFETY: the outputs are ours.
        unsafe {
            let status =
                PsCreateSystemThread(&mut handle, 0, ptr::null(), 0, &mut client, routine, context as *mut c_void);
            assert_eq!(status, NtStatus::SUCCESS);
            let machine = cpu::with_machine(std::sync::Arc::clone);
            assert_eq!(PsLookupThreadByThreadId(client[1], &mut thread), NtStatus::SUCCESS);
            assert_eq!(machine.executive.objects.target(handle), Some(Target::Object(thread)));
            assert_eq!(PsGetThreadProcessId(thread), process::SYSTEM_ID);
            let header = thread as *mut dispatcher::Header;
            machine.dispatcher.wait_until(&machine, || (*header).signal_state != 0);
            PsGetThreadExitStatus(thread)
        }
    }

    #[test]
    fn a_thread_is_signaled_when_its_routine_returns() {
        let machine = Machine::new();
        let status = cpu::enter(&machine, Irql::PASSIVE, || start_and_wait(returns, 7)).unwrap();
        assert_eq!((status, SEEN.load(Ordering::Acquire)), (0, 7));
        assert_eq!(machine.threads.join_within(Duration::from_secs(10)), 0);
    }

    #[test]
    fn a_thread_terminates_itself_from_any_depth() {
        let machine = Machine::new();
        let status = cpu::enter(&machine, Irql::PASSIVE, || start_and_wait(terminates, 0xC000_0001)).unwrap();
        assert_eq!(status as u32, 0xC000_0001);
        assert_eq!(machine.threads.join_within(Duration::from_secs(10)), 0);
    }

    #[test]
    fn only_a_system_thread_can_terminate_itself() {
        let status = cpu::enter(&Machine::new(), Irql::PASSIVE, || PsTerminateSystemThread(0)).unwrap();
        assert_eq!(status, NtStatus::INVALID_PARAMETER);
    }

    #[test]
    fn a_thread_that_ends_raised_stops_the_machine() {
        extern "win64" fn raises(_: *mut c_void) {
            cpu::raise(Irql::APC);
        }
        let machine = Machine::new();
        let (mut handle, mut client) = (0, [0; 2]);
        // SAFETY: the outputs are ours.
        cpu::enter(&machine, Irql::PASSIVE, || unsafe {
            PsCreateSystemThread(&mut handle, 0, ptr::null(), 0, &mut client, raises, ptr::null_mut())
        })
        .unwrap();
        machine.threads.join_within(Duration::from_secs(10));
        assert_eq!(machine.stopped().unwrap().code, code::IRQL_UNEXPECTED_VALUE);
    }
}
