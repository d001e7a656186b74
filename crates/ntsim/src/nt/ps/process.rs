//! Processes: the System process, and those the simulated network's programs run as.

#![allow(non_snake_case, non_upper_case_globals, reason = "exports have their Windows names")]

use super::notify;
use crate::cpu;
use crate::export::exports;
use crate::machine::Machine;
use crate::nt::ke::dispatcher::{self, Header};
use crate::nt::ob::Kind;
use core::ffi::c_void;
use nt_abi::Irql;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

exports! {
    "ntoskrnl.exe";
    IoGetCurrentProcess: DISPATCH,
    PsGetCurrentProcess: DISPATCH,
    PsGetCurrentProcessId: DISPATCH,
    PsGetProcessId: DISPATCH,
    PsGetProcessInheritedFromUniqueProcessId: DISPATCH,
    PsGetProcessImageFileName: DISPATCH,
    PsGetProcessCreateTimeQuadPart: DISPATCH,
    PsGetProcessExitStatus: DISPATCH,
    PsGetProcessSessionId: DISPATCH,
    PsGetCurrentProcessSessionId: DISPATCH,
    PsLookupProcessByProcessId: APC,
    SeLocateProcessImageName: PASSIVE,
    IoGetRequestorProcess: DISPATCH,
    IoGetRequestorProcessId: DISPATCH,
    IoIs32bitProcess: DISPATCH,
    KeStackAttachProcess: APC,
    KeUnstackDetachProcess: APC,
}

/// The number of the System process.
pub const SYSTEM_ID: u64 = 4;
/// More than any Windows version's `EPROCESS`.
const SIZE: usize = 0x1000;
/// Offset of `KTHREAD.ApcState.Process`.
const THREAD_PROCESS: u64 = 0xb8;
/// Offset of `IRP.Tail.Overlay.Thread` (wdm.h, x64).
const IRP_THREAD: usize = 0x98;
const STATUS_INVALID_CID: NtStatus = NtStatus(0xC000_000B_u32 as i32);
const STATUS_PENDING: i32 = 0x103;
/// The session of services and drivers.
const SESSION: u32 = 0;
/// The tag of a name that `SeLocateProcessImageName` gives away.
const NAME_TAG: u32 = u32::from_le_bytes(*b"SeNm");

/// An `EPROCESS`: a dispatcher header, and nothing a driver may look at.
#[repr(C, align(64))]
struct Block([u64; SIZE / 8]);

/// What is known of a process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub id: u64,
    /// Its parent's number.
    pub parent: u64,
    /// Its image's path as Windows has it: `\Device\HarddiskVolume1\Windows\System32\curl.exe`.
    pub image: String,
    /// The address of its `EPROCESS`.
    pub address: u64,
    /// System time at its start.
    pub created: u64,
    /// Its exit status once it has ended.
    pub exit_status: Option<i32>,
}

/// The processes and threads of one machine. Their blocks are never freed: a driver may hold a reference.
#[derive(Debug)]
pub struct Processes {
    table: Mutex<Table>,
    system: u64,
    pub(super) notify: notify::Routines,
}

#[derive(Debug, Default)]
struct Table {
    by_address: BTreeMap<u64, Process>,
    /// `KTHREAD` to its number.
    threads: BTreeMap<u64, u64>,
    last_thread: u64,
}

impl Default for Processes {
    fn default() -> Self {
        let processes = Self { table: Mutex::default(), system: new_block(), notify: notify::Routines::default() };
        let system = Process {
            id: SYSTEM_ID,
            parent: 0,
            image: "System".to_owned(),
            address: processes.system,
            created: 0,
            exit_status: None,
        };
        processes.table.lock().by_address.insert(processes.system, system);
        processes
    }
}

/// A new `EPROCESS`, not signaled.
fn new_block() -> u64 {
    let block: &'static mut Block = Box::leak(Box::new(Block([0; SIZE / 8])));
    let header: *mut Header = (&raw mut *block).cast();
    // SAFETY: the block is bigger than a header, aligned, and nobody else's.
    unsafe { dispatcher::initialize(header, dispatcher::kind::PROCESS, 0) };
    header as u64
}

impl Processes {
    /// The `EPROCESS` of the System process.
    #[must_use]
    pub fn system(&self) -> u64 {
        self.system
    }

    /// The process whose `EPROCESS` is at `address`.
    #[must_use]
    pub fn get(&self, address: u64) -> Option<Process> {
        self.table.lock().by_address.get(&address).cloned()
    }

    /// The process with a number that has not ended.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<Process> {
        self.table.lock().by_address.values().find(|p| p.id == id && p.exit_status.is_none()).cloned()
    }

    pub(super) fn all(&self) -> Vec<Process> {
        self.table.lock().by_address.values().cloned().collect()
    }

    pub(super) fn id(&self, address: u64) -> Option<u64> {
        self.table.lock().by_address.get(&address).map(|process| process.id)
    }

    /// The number of a thread, assigned when it is first asked for.
    pub(super) fn thread_id(&self, thread: u64) -> u64 {
        let mut table = self.table.lock();
        if let Some(id) = table.threads.get(&thread) {
            return *id;
        }
        table.last_thread = table.last_thread.max(SYSTEM_ID) + 4;
        let id = table.last_thread;
        table.threads.insert(thread, id);
        id
    }

    pub(super) fn thread_by_id(&self, id: u64) -> Option<u64> {
        self.table.lock().threads.iter().find(|(_, of)| **of == id).map(|(thread, _)| *thread)
    }
}

impl Machine {
    /// Starts a process: registered drivers are notified, inside [`cpu::enter`] at PASSIVE_LEVEL, and may refuse it.
    ///
    /// # Errors
    /// The status of the driver that refused, or STATUS_UNSUCCESSFUL when the machine has stopped.
    pub fn start_process(self: &Arc<Self>, id: u64, parent: u64, image: &str, command: &str) -> Result<u64, NtStatus> {
        let address = new_block();
        let created = self.clock.system_time();
        let process = Process { id, parent, image: image.to_owned(), address, created, exit_status: None };
        self.executive.processes.table.lock().by_address.insert(address, process.clone());
        self.executive.objects.enter(address, Kind::Process, format!("process {id}"));
        let told = cpu::enter(self, Irql::PASSIVE, || notify::created(self, &process, command));
        let status = told.unwrap_or(NtStatus::UNSUCCESSFUL);
        if !status.is_success() {
            self.end_process(address, status.0);
            return Err(status);
        }
        Ok(address)
    }

    /// The `EPROCESS` of the program this is, which opens devices and sends them requests. It ran before any driver was
    /// loaded, so no driver is notified of it.
    pub(crate) fn caller_process(&self) -> u64 {
        let id = u64::from(std::process::id());
        let mut table = self.executive.processes.table.lock();
        if let Some(process) = table.by_address.values().find(|p| p.id == id && p.exit_status.is_none()) {
            return process.address;
        }
        let image = std::env::current_exe().map(|path| crate::host::nt_path(&path)).unwrap_or_default();
        let address = new_block();
        let created = self.clock.system_time();
        // Entered before it can be found: a driver on another processor may take a reference at once.
        self.executive.objects.enter(address, Kind::Process, format!("process {id}"));
        let process = Process { id, parent: SYSTEM_ID, image, address, created, exit_status: None };
        table.by_address.insert(address, process);
        address
    }

    /// Ends the process whose `EPROCESS` is at `address`: notifies drivers and wakes waiters.
    pub fn end_process(self: &Arc<Self>, address: u64, exit_status: i32) {
        let ended = {
            let mut table = self.executive.processes.table.lock();
            let Some(process) = table.by_address.get_mut(&address) else { return };
            if process.exit_status.is_some() {
                return;
            }
            process.exit_status = Some(exit_status);
            process.clone()
        };
        // A stopped machine keeps its bugcheck; there is nothing to notify.
        let _stopped = cpu::enter(self, Irql::PASSIVE, || {
            notify::ended(self, &ended);
            // SAFETY: a process's block is never freed.
            unsafe { dispatcher::set_state(self, address as *mut Header, 1) };
        });
    }
}

/// The `EPROCESS` a thread runs in.
pub(super) fn of_thread(thread: u64) -> u64 {
    // SAFETY: the page demands a thread object; it is only read, and a wrong pointer faults.
    unsafe { ((thread + THREAD_PROCESS) as *const u64).read_volatile() }
}

/// A process by its address; stops the machine when it is not one.
fn known(process: u64, what: &str) -> Process {
    match cpu::with_machine(|machine| machine.executive.processes.get(process)) {
        Some(process) => process,
        None => cpu::bugcheck(
            cpu::code::PAGE_FAULT_IN_NONPAGED_AREA,
            [process, 0, 0, 0],
            format!("{what} was given {process:#x}, which is not a process"),
        ),
    }
}

extern "win64" fn IoGetCurrentProcess() -> u64 {
    cpu::current_processor().process()
}

extern "win64" fn PsGetCurrentProcess() -> u64 {
    cpu::current_processor().process()
}

extern "win64" fn PsGetCurrentProcessId() -> u64 {
    PsGetProcessId(cpu::current_processor().process())
}

extern "win64" fn PsGetProcessId(process: u64) -> u64 {
    known(process, "PsGetProcessId").id
}

extern "win64" fn PsGetProcessInheritedFromUniqueProcessId(process: u64) -> u64 {
    known(process, "PsGetProcessInheritedFromUniqueProcessId").parent
}

/// The last part of the image's path, cut to the 14 bytes that `EPROCESS.ImageFileName` has room for.
extern "win64" fn PsGetProcessImageFileName(process: u64) -> *const u8 {
    /// The offset of the name in the block, as in Windows 10 22H2.
    const AT: u64 = 0x5a8;
    let image = known(process, "PsGetProcessImageFileName").image;
    let name = image.rsplit('\\').next().unwrap_or(&image);
    let mut bytes = [0_u8; 15];
    for (to, from) in bytes.iter_mut().take(14).zip(name.bytes()) {
        *to = from;
    }
    let at = (process + AT) as *mut [u8; 15];
    // SAFETY: inside the block of a known process, which is never freed; every writer writes the same bytes.
    unsafe { at.write(bytes) };
    at.cast()
}

extern "win64" fn PsGetProcessCreateTimeQuadPart(process: u64) -> u64 {
    known(process, "PsGetProcessCreateTimeQuadPart").created
}

extern "win64" fn PsGetProcessExitStatus(process: u64) -> i32 {
    known(process, "PsGetProcessExitStatus").exit_status.unwrap_or(STATUS_PENDING)
}

extern "win64" fn PsGetProcessSessionId(process: u64) -> u32 {
    known(process, "PsGetProcessSessionId");
    SESSION
}

extern "win64" fn PsGetCurrentProcessSessionId() -> u32 {
    SESSION
}

unsafe extern "win64" fn PsLookupProcessByProcessId(id: u64, process: *mut u64) -> NtStatus {
    let by = cpu::caller();
    let Some(found) = cpu::with_machine(|machine| machine.executive.processes.by_id(id)) else {
        return STATUS_INVALID_CID;
    };
    let address = found.address;
    drop(found);
    cpu::with_machine(|machine| machine.executive.objects.reference(address, by));
    // SAFETY: the page demands a variable for the object's address. The driver drops the reference with
    // ObDereferenceObject.
    unsafe { process.write(address) };
    NtStatus::SUCCESS
}

/// The name is one block of paged pool, structure and text, which the caller frees.
unsafe extern "win64" fn SeLocateProcessImageName(process: u64, name: *mut *mut UnicodeString) -> NtStatus {
    let units: Vec<u16> = known(process, "SeLocateProcessImageName").image.encode_utf16().collect();
    let bytes = units.len() * 2;
    let block = cpu::with_machine(|machine| {
        if machine.low_resources.fails("SeLocateProcessImageName") {
            return core::ptr::null_mut();
        }
        let size = size_of::<UnicodeString>() + bytes + 2;
        machine.pool.allocate(NAME_TAG, size, crate::nt::pool::Kind::Paged)
    });
    if block.is_null() {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    // SAFETY: the block has room for the structure, the text and a terminator; the page demands a variable for its
    // address. The driver frees it with ExFreePool.
    unsafe {
        let text = block.add(size_of::<UnicodeString>()).cast::<u16>();
        text.copy_from_nonoverlapping(units.as_ptr(), units.len());
        let header = UnicodeString { length: bytes as u16, maximum_length: bytes as u16 + 2, buffer: text };
        block.cast::<UnicodeString>().write(header);
        name.write(block.cast());
    }
    NtStatus::SUCCESS
}

/// The process whose thread sent a request; null when no thread is known.
unsafe extern "win64" fn IoGetRequestorProcess(irp: *const u8) -> u64 {
    // SAFETY: the page demands an IRP that the driver owns; its thread is read.
    let thread = unsafe { irp.add(IRP_THREAD).cast::<u64>().read() };
    if thread == 0 { 0 } else { of_thread(thread) }
}

unsafe extern "win64" fn IoGetRequestorProcessId(irp: *const u8) -> u32 {
    // SAFETY: the page demands what IoGetRequestorProcess does.
    let process = unsafe { IoGetRequestorProcess(irp) };
    if process == 0 { 0 } else { PsGetProcessId(process) as u32 }
}

/// Every process here is 64-bit.
extern "win64" fn IoIs32bitProcess(_irp: *const c_void) -> u8 {
    0
}

/// `KAPC_STATE` is opaque; its first word keeps the process to go back to.
unsafe extern "win64" fn KeStackAttachProcess(process: u64, state: *mut u64) {
    let processor = cpu::current_processor();
    // SAFETY: the page demands a KAPC_STATE to write, which the caller keeps until the detach.
    unsafe { state.write(processor.process()) };
    processor.set_process(process);
}

unsafe extern "win64" fn KeUnstackDetachProcess(state: *const u64) {
    // SAFETY: the page demands the KAPC_STATE of the attach.
    cpu::current_processor().set_process(unsafe { state.read() });
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURL: &str = r"\Device\HarddiskVolume1\Windows\System32\curl-with-a-long-name.exe";

    #[test]
    fn a_driver_runs_in_the_system_process() {
        cpu::enter(&Machine::new(), Irql::DISPATCH, || {
            assert_eq!(PsGetCurrentProcessId(), SYSTEM_ID);
            assert_eq!(PsGetProcessId(IoGetCurrentProcess()), SYSTEM_ID);
        })
        .unwrap();
    }

    #[test]
    fn a_process_is_found_by_number_until_it_ends() {
        let machine = Machine::new();
        let address = machine.start_process(1234, 4, CURL, "curl http://example.com").unwrap();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let mut found = 0;
            // SAFETY: the output is ours.
            assert_eq!(unsafe { PsLookupProcessByProcessId(1234, &mut found) }, NtStatus::SUCCESS);
            assert_eq!((found, PsGetProcessId(found)), (address, 1234));
            // SAFETY: a NUL-terminated name in the block.
            let name = unsafe { core::ffi::CStr::from_ptr(PsGetProcessImageFileName(found).cast()) };
            assert_eq!(name, c"curl-with-a-lo");
        })
        .unwrap();
        machine.end_process(address, 0);
        cpu::enter(&machine, Irql::PASSIVE, || {
            let mut found = 0;
            // SAFETY: the output is ours.
            assert_eq!(unsafe { PsLookupProcessByProcessId(1234, &mut found) }, STATUS_INVALID_CID);
            assert_eq!(PsGetProcessExitStatus(address), 0, "a reference still leads to it");
        })
        .unwrap();
    }

    #[test]
    fn the_image_name_is_one_block_of_pool() {
        let machine = Machine::new();
        let address = machine.start_process(8, 4, CURL, "").unwrap();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let mut name = core::ptr::null_mut();
            // SAFETY: the output is ours; the string is the routine's.
            unsafe {
                assert_eq!(SeLocateProcessImageName(address, &mut name), NtStatus::SUCCESS);
                assert_eq!(UnicodeString::read(name), CURL);
            }
            machine.pool.free(name.cast(), 0);
        })
        .unwrap();
        assert_eq!(machine.pool.usage().0, 0);
    }

    #[test]
    fn attaching_changes_the_current_process() {
        let machine = Machine::new();
        let address = machine.start_process(8, 4, CURL, "").unwrap();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let mut state = 0;
            // SAFETY: the state is ours.
            unsafe { KeStackAttachProcess(address, &mut state) };
            assert_eq!(PsGetCurrentProcessId(), 8);
            // SAFETY: as above.
            unsafe { KeUnstackDetachProcess(&state) };
            assert_eq!(PsGetCurrentProcessId(), SYSTEM_ID);
        })
        .unwrap();
    }

    #[test]
    fn what_is_no_process_stops_the_machine() {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || PsGetProcessId(0x1234)).unwrap_err();
        assert!(stopped.why.contains("not a process"), "{stopped}");
    }
}
