//! Routines that are notified of processes, threads and images.
//!
//! A routine runs at PASSIVE_LEVEL inside a critical region; removing one waits until it runs nowhere
//! ("PsSetCreateProcessNotifyRoutineEx" and its kin in the WDK documentation). Threads and images are accepted and
//! never reported: no user-mode code runs here.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use super::process::Process;
use crate::cpu;
use crate::export::exports;
use crate::machine::Machine;
use crate::nt::ke::apc;
use crate::verifier::callback::{self, At};
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use nt_abi::NtStatus;
use nt_abi::{OwnedUnicodeString, UnicodeString};
use parking_lot::Mutex;
use std::sync::Arc;

exports! {
    "ntoskrnl.exe";
    PsSetCreateProcessNotifyRoutine: PASSIVE,
    PsSetCreateProcessNotifyRoutineEx: PASSIVE,
    PsSetCreateProcessNotifyRoutineEx2: PASSIVE,
    PsSetCreateThreadNotifyRoutine: PASSIVE,
    PsRemoveCreateThreadNotifyRoutine: PASSIVE,
    PsSetLoadImageNotifyRoutine: PASSIVE,
    PsSetLoadImageNotifyRoutineEx: PASSIVE,
    PsRemoveLoadImageNotifyRoutine: PASSIVE,
}

/// How many routines of a kind there may be.
const MOST: usize = 64;
const STATUS_PROCEDURE_NOT_FOUND: NtStatus = NtStatus(0xC000_007A_u32 as i32);

/// `PCREATE_PROCESS_NOTIFY_ROUTINE`: parent, process, create.
type Plain = extern "win64" fn(u64, u64, u8);
/// `PCREATE_PROCESS_NOTIFY_ROUTINE_EX`: process object, process, information or null.
type Extended = extern "win64" fn(u64, u64, *mut CreateInfo);

/// `PS_CREATE_NOTIFY_INFO`.
#[repr(C)]
struct CreateInfo {
    size: usize,
    flags: u64,
    parent: u64,
    creating_thread: [u64; 2],
    file_object: u64,
    image: *const UnicodeString,
    command: *const UnicodeString,
    status: NtStatus,
}

const _: () = assert!(size_of::<CreateInfo>() == 0x48);

/// What a routine wants to hear of, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Process,
    ProcessEx,
    Thread,
    Image,
}

#[derive(Debug)]
struct Routine {
    about: About,
    address: u64,
    running: AtomicUsize,
}

impl Routine {
    /// Calls it, which `call` does.
    fn call(&self, call: impl FnOnce()) {
        callback::call(&At("the process notify routine", self.address), "CreateProcessNotifyRoutine", call);
    }
}

/// The routines of one machine.
#[derive(Debug, Default)]
pub(super) struct Routines {
    list: Mutex<Vec<Arc<Routine>>>,
}

impl Routines {
    fn set(&self, about: About, address: u64) -> NtStatus {
        let mut list = self.list.lock();
        let of_kind = list.iter().filter(|r| r.about == about).count();
        if of_kind >= MOST || list.iter().any(|r| r.about == about && r.address == address) {
            return NtStatus::INVALID_PARAMETER;
        }
        list.push(Arc::new(Routine { about, address, running: AtomicUsize::new(0) }));
        NtStatus::SUCCESS
    }

    fn take(&self, about: About, address: u64) -> Option<Arc<Routine>> {
        let mut list = self.list.lock();
        let at = list.iter().position(|r| r.about == about && r.address == address)?;
        Some(list.remove(at))
    }

    /// The routines about processes, each marked as running.
    fn about_processes(&self) -> Vec<Arc<Routine>> {
        let list = self.list.lock();
        let these = list.iter().filter(|r| matches!(r.about, About::Process | About::ProcessEx));
        these.inspect(|r| _ = r.running.fetch_add(1, Ordering::AcqRel)).map(Arc::clone).collect()
    }

    fn left_in(&self, range: &Range<u64>) -> Vec<String> {
        let list = self.list.lock();
        let theirs = list.iter().filter(|r| range.contains(&r.address));
        theirs.map(|r| format!("{:?} notify routine {}", r.about, cpu::frame_of(r.address))).collect()
    }
}

impl super::process::Processes {
    /// Notify routines within `range` that are still set.
    #[must_use]
    pub fn routines_left_in(&self, range: &Range<u64>) -> Vec<String> {
        self.notify.left_in(range)
    }
}

/// Calls each routine about processes with no lock held.
///
/// The list is leaked when a routine stops the machine, as everything on an abandoned stack is.
fn call_all(machine: &Machine, mut call: impl FnMut(&Routine)) {
    for routine in machine.executive.processes.notify.about_processes() {
        apc::KeEnterCriticalRegion();
        call(&routine);
        apc::KeLeaveCriticalRegion();
        routine.running.fetch_sub(1, Ordering::AcqRel);
    }
    machine.dispatcher.notify();
}

/// Tells of a process that starts; a failure status is that of the routine that refused it.
pub(super) fn created(machine: &Machine, process: &Process, command: &str) -> NtStatus {
    /// FileOpenNameAvailable.
    const NAME_AVAILABLE: u64 = 1;
    let image = OwnedUnicodeString::new(&process.image);
    let command = OwnedUnicodeString::new(command);
    let thread = cpu::current_processor().thread();
    let mut info = CreateInfo {
        size: size_of::<CreateInfo>(),
        flags: NAME_AVAILABLE,
        parent: process.parent,
        creating_thread: [process.parent, machine.executive.processes.thread_id(thread)],
        file_object: 0,
        image: image.as_ptr(),
        command: command.as_ptr(),
        status: NtStatus::SUCCESS,
    };
    let (id, parent, address) = (process.id, process.parent, process.address);
    call_all(machine, |routine| {
        // SAFETY: the registration's page demands a routine of the type that `about` tells; it is not removed while it
        // runs, so its driver cannot unload. A wrong address faults and stops the machine.
        routine.call(|| unsafe {
            if routine.about == About::Process {
                core::mem::transmute::<u64, Plain>(routine.address)(parent, id, 1);
            } else {
                core::mem::transmute::<u64, Extended>(routine.address)(address, id, &raw mut info);
            }
        });
    });
    info.status
}

/// Tells of a process that has ended.
pub(super) fn ended(machine: &Machine, process: &Process) {
    let (id, parent, address) = (process.id, process.parent, process.address);
    call_all(machine, |routine| {
        // SAFETY: as in `created`.
        routine.call(|| unsafe {
            if routine.about == About::Process {
                core::mem::transmute::<u64, Plain>(routine.address)(parent, id, 0);
            } else {
                core::mem::transmute::<u64, Extended>(routine.address)(address, id, core::ptr::null_mut());
            }
        });
    });
}

fn set(about: About, routine: u64) -> NtStatus {
    cpu::with_machine(|machine| machine.executive.processes.notify.set(about, routine))
}

fn remove(about: About, address: u64) -> NtStatus {
    let Some(routine) = cpu::with_machine(|machine| machine.executive.processes.notify.take(about, address)) else {
        return STATUS_PROCEDURE_NOT_FOUND;
    };
    cpu::with_machine(|machine| {
        machine.dispatcher.wait_until(machine, || routine.running.load(Ordering::Acquire) == 0);
    });
    NtStatus::SUCCESS
}

extern "win64" fn PsSetCreateProcessNotifyRoutine(routine: u64, is_removal: u8) -> NtStatus {
    if is_removal != 0 { remove(About::Process, routine) } else { set(About::Process, routine) }
}

/// Windows refuses a driver whose image is not linked with /INTEGRITYCHECK (STATUS_ACCESS_DENIED); that is not
/// checked here.
extern "win64" fn PsSetCreateProcessNotifyRoutineEx(routine: u64, is_removal: u8) -> NtStatus {
    if is_removal != 0 { remove(About::ProcessEx, routine) } else { set(About::ProcessEx, routine) }
}

/// The one type there is, PsCreateProcessNotifySubsystems (0), also hears of subsystem processes, of which there are
/// none.
extern "win64" fn PsSetCreateProcessNotifyRoutineEx2(kind: u32, routine: u64, is_removal: u8) -> NtStatus {
    if kind != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    PsSetCreateProcessNotifyRoutineEx(routine, is_removal)
}

extern "win64" fn PsSetCreateThreadNotifyRoutine(routine: u64) -> NtStatus {
    set(About::Thread, routine)
}

extern "win64" fn PsRemoveCreateThreadNotifyRoutine(routine: u64) -> NtStatus {
    remove(About::Thread, routine)
}

extern "win64" fn PsSetLoadImageNotifyRoutine(routine: u64) -> NtStatus {
    set(About::Image, routine)
}

extern "win64" fn PsSetLoadImageNotifyRoutineEx(routine: u64, _flags: usize) -> NtStatus {
    set(About::Image, routine)
}

extern "win64" fn PsRemoveLoadImageNotifyRoutine(routine: u64) -> NtStatus {
    remove(About::Image, routine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nt_abi::Irql;

    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

    extern "win64" fn plain(parent: u64, id: u64, create: u8) {
        HEARD.lock().push(format!("plain {parent} {id} {create} apcs off: {}", apc::are_disabled()));
    }

    extern "win64" fn extended(_process: u64, id: u64, info: *mut CreateInfo) {
        // SAFETY: null or the routine's own structure.
        let text = unsafe {
            if info.is_null() {
                "ended".to_owned()
            } else {
                if UnicodeString::read((*info).image).ends_with("evil.exe") {
                    (*info).status = NtStatus::ACCESS_DENIED;
                }
                format!("{} {}", (*info).parent, UnicodeString::read((*info).command))
            }
        };
        HEARD.lock().push(format!("extended {id} {text}"));
    }

    #[test]
    fn routines_hear_of_processes_and_may_refuse_them() {
        let machine = Machine::new();
        let (plain, extended) = (plain as *const () as u64, extended as *const () as u64);
        cpu::enter(&machine, Irql::PASSIVE, || {
            assert_eq!(PsSetCreateProcessNotifyRoutine(plain, 0), NtStatus::SUCCESS);
            assert_eq!(PsSetCreateProcessNotifyRoutine(plain, 0), NtStatus::INVALID_PARAMETER, "set twice");
            assert_eq!(PsSetCreateProcessNotifyRoutineEx(extended, 0), NtStatus::SUCCESS);
        })
        .unwrap();
        let process = machine.start_process(100, 4, r"\good.exe", "good -v").unwrap();
        machine.end_process(process, 0);
        assert_eq!(machine.start_process(104, 4, r"\evil.exe", "").unwrap_err(), NtStatus::ACCESS_DENIED);
        let heard = HEARD.lock().clone();
        assert_eq!(
            heard[..3],
            ["plain 4 100 1 apcs off: true", "extended 100 4 good -v", "plain 4 100 0 apcs off: true"]
        );
        assert_eq!(machine.executive.processes.routines_left_in(&(plain..plain + 1)).len(), 1);
        cpu::enter(&machine, Irql::PASSIVE, || {
            assert_eq!(PsSetCreateProcessNotifyRoutine(plain, 1), NtStatus::SUCCESS);
            assert_eq!(PsSetCreateProcessNotifyRoutine(plain, 1), STATUS_PROCEDURE_NOT_FOUND);
            assert_eq!(PsSetCreateProcessNotifyRoutineEx(extended, 1), NtStatus::SUCCESS);
        })
        .unwrap();
        let count = HEARD.lock().len();
        machine.start_process(108, 4, r"\good.exe", "").unwrap();
        assert_eq!(HEARD.lock().len(), count, "nobody listens any more");
    }
}
