//! Executive resources (`ERESOURCE`): reader/writer locks with owners, recursion, and waiters counted.
//!
//! The structure is opaque to drivers; its state is kept in a table beside it, so that a resource that was never
//! initialised, or is never deleted, is found. Rules: "Introduction to ERESOURCE Routines" in the WDK documentation.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::nt::ke::apc;
use crate::nt::violation;
use core::ops::Range;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use std::collections::HashMap;

exports! {
    "ntoskrnl.exe";
    ExInitializeResourceLite: DISPATCH,
    ExReinitializeResourceLite: DISPATCH,
    ExDeleteResourceLite: DISPATCH,
    ExAcquireResourceExclusiveLite: APC,
    ExAcquireResourceSharedLite: APC,
    ExAcquireSharedStarveExclusive: APC,
    ExAcquireSharedWaitForExclusive: APC,
    ExConvertExclusiveToSharedLite: DISPATCH,
    ExReleaseResourceLite: DISPATCH,
    ExReleaseResourceForThreadLite: DISPATCH,
    ExIsResourceAcquiredExclusiveLite: DISPATCH,
    ExIsResourceAcquiredSharedLite: DISPATCH,
    ExGetExclusiveWaiterCount: DISPATCH,
    ExGetSharedWaiterCount: DISPATCH,
    ExEnterCriticalRegionAndAcquireResourceExclusive: APC,
    ExEnterCriticalRegionAndAcquireResourceShared: APC,
    ExEnterCriticalRegionAndAcquireSharedWaitForExclusive: APC,
    ExReleaseResourceAndLeaveCriticalRegion: APC,
}

/// Bytes of an `ERESOURCE` (wdm.h, x64).
const SIZE: usize = 0x68;

/// The resources of one machine.
#[derive(Debug, Default)]
pub struct Resources {
    table: Mutex<HashMap<u64, State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Who initialised it.
    by: u64,
    /// Thread, and how often it holds it.
    exclusive: Option<(u64, u32)>,
    shared: HashMap<u64, u32>,
    exclusive_waiters: u32,
    shared_waiters: u32,
}

/// How shared ownership is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Behind waiting writers, unless the thread owns it already.
    Normal,
    /// Before waiting writers.
    StarveExclusive,
    /// Behind waiting writers, even if the thread owns it shared.
    WaitForExclusive,
}

impl State {
    fn take_exclusive(&mut self, me: u64) -> bool {
        match &mut self.exclusive {
            Some((owner, count)) if *owner == me => *count += 1,
            Some(_) => return false,
            None if !self.shared.is_empty() => return false,
            None => self.exclusive = Some((me, 1)),
        }
        true
    }

    fn take_shared(&mut self, me: u64, way: Way) -> bool {
        match &mut self.exclusive {
            // The exclusive owner's shared acquisition is one more exclusive one.
            Some((owner, count)) if *owner == me => {
                *count += 1;
                return true;
            }
            Some(_) => return false,
            None => {}
        }
        let queue = match way {
            Way::Normal => self.exclusive_waiters != 0 && !self.shared.contains_key(&me),
            Way::StarveExclusive => false,
            Way::WaitForExclusive => self.exclusive_waiters != 0,
        };
        if !queue {
            *self.shared.entry(me).or_default() += 1;
        }
        !queue
    }

    fn release(&mut self, thread: u64) -> bool {
        if let Some((owner, count)) = &mut self.exclusive {
            if *owner != thread {
                return false;
            }
            *count -= 1;
            if *count == 0 {
                self.exclusive = None;
            }
            return true;
        }
        let Some(count) = self.shared.get_mut(&thread) else { return false };
        *count -= 1;
        if *count == 0 {
            self.shared.remove(&thread);
        }
        true
    }

    fn is_held(&self) -> bool {
        self.exclusive.is_some() || !self.shared.is_empty()
    }
}

impl Resources {
    /// Calls `f` with the state of a resource; None when it is not initialised.
    fn with<R>(&self, resource: u64, f: impl FnOnce(&mut State) -> R) -> Option<R> {
        self.table.lock().get_mut(&resource).map(f)
    }

    /// Resources that code within `range` initialised and did not delete.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let table = self.table.lock();
        let theirs = table.iter().filter(|(_, state)| range.contains(&state.by));
        theirs.map(|(at, state)| format!("ERESOURCE {at:#x}, initialised by {}", cpu::frame_of(state.by))).collect()
    }
}

/// Calls `f` with the resource's state; stops the machine when it is not initialized.
fn with<R>(resource: u64, f: impl FnOnce(&mut State) -> R) -> R {
    match cpu::with_machine(|machine| machine.executive.resources.with(resource, f)) {
        Some(result) => result,
        None => violation(
            [0x1002, resource, 0, 0],
            format!("the ERESOURCE at {resource:#x} was used but is not initialised"),
        ),
    }
}

fn me() -> u64 {
    cpu::current_processor().thread()
}

fn expect_no_apcs(resource: u64, parameter: u64, verb: &str) {
    if !apc::are_disabled() {
        violation(
            [parameter, u64::from(cpu::irql().0), apc::disable_count(), resource],
            format!("the ERESOURCE at {resource:#x} was {verb} with APCs enabled: outside a critical region"),
        );
    }
}

/// Takes the resource now, or waits for it.
fn acquire(
    resource: u64,
    wait: bool,
    mut take: impl FnMut(&mut State) -> bool,
    waiters: fn(&mut State) -> &mut u32,
) -> u8 {
    expect_no_apcs(resource, 0x37, "acquired");
    if with(resource, &mut take) {
        return 1;
    }
    if !wait {
        return 0;
    }
    with(resource, |state| *waiters(state) += 1);
    cpu::with_machine(|machine| {
        machine.dispatcher.wait_until(machine, || {
            // Deleted meanwhile: there is nothing left to wait for, and the look below says so.
            machine.executive.resources.with(resource, &mut take).unwrap_or(true)
        });
    });
    with(resource, |state| *waiters(state) -= 1);
    1
}

fn acquire_exclusive(resource: u64, wait: bool) -> u8 {
    let me = me();
    if wait && with(resource, |state| state.shared.contains_key(&me)) {
        violation(
            [0x1000, resource, 0, 0],
            format!("the ERESOURCE at {resource:#x} was acquired exclusively by a thread that holds it shared"),
        );
    }
    acquire(resource, wait, |state| state.take_exclusive(me), |state| &mut state.exclusive_waiters)
}

fn acquire_shared(resource: u64, wait: bool, way: Way) -> u8 {
    let me = me();
    acquire(resource, wait, |state| state.take_shared(me, way), |state| &mut state.shared_waiters)
}

fn release(resource: u64, thread: u64) {
    expect_no_apcs(resource, 0x38, "released");
    if !with(resource, |state| state.release(thread)) {
        cpu::bugcheck(
            code::RESOURCE_NOT_OWNED,
            [resource, thread, 0, 0],
            format!("the ERESOURCE at {resource:#x} was released for a thread that does not hold it"),
        );
    }
    cpu::with_machine(|machine| machine.dispatcher.change(|| ()));
}

unsafe extern "win64" fn ExInitializeResourceLite(resource: *mut u8) -> NtStatus {
    let at = resource as u64;
    if !at.is_multiple_of(8) {
        violation([0x3D, 0, 0, at], format!("the ERESOURCE at {at:#x} is not aligned to 8 bytes"));
    }
    // SAFETY: the page demands nonpaged memory of an ERESOURCE's size; its alignment is checked above. The state is
    // kept outside, so only zeros are written.
    unsafe { resource.write_bytes(0, SIZE) };
    let state = State { by: cpu::caller(), ..State::default() };
    let known = cpu::with_machine(|machine| machine.executive.resources.table.lock().insert(at, state).is_some());
    if known {
        violation([0xD0, at, 0, 0], format!("the ERESOURCE at {at:#x} was initialised again"));
    }
    NtStatus::SUCCESS
}

extern "win64" fn ExReinitializeResourceLite(resource: u64) -> NtStatus {
    let held = with(resource, |state| {
        let held = state.is_held();
        *state = State { by: state.by, ..State::default() };
        held
    });
    if held {
        violation([0x1005, resource, 0, 0], format!("the ERESOURCE at {resource:#x} was reinitialised while held"));
    }
    NtStatus::SUCCESS
}

extern "win64" fn ExDeleteResourceLite(resource: u64) -> NtStatus {
    let removed = cpu::with_machine(|machine| machine.executive.resources.table.lock().remove(&resource));
    match removed {
        None => violation(
            [0xD1, resource, 0, 0],
            format!("the ERESOURCE at {resource:#x} was deleted but never initialised"),
        ),
        Some(state) if state.is_held() => {
            drop(state);
            violation([0x1006, resource, 0, 0], format!("the ERESOURCE at {resource:#x} was deleted while held"))
        }
        Some(_) => NtStatus::SUCCESS,
    }
}

extern "win64" fn ExAcquireResourceExclusiveLite(resource: u64, wait: u8) -> u8 {
    acquire_exclusive(resource, wait != 0)
}

extern "win64" fn ExAcquireResourceSharedLite(resource: u64, wait: u8) -> u8 {
    acquire_shared(resource, wait != 0, Way::Normal)
}

extern "win64" fn ExAcquireSharedStarveExclusive(resource: u64, wait: u8) -> u8 {
    acquire_shared(resource, wait != 0, Way::StarveExclusive)
}

extern "win64" fn ExAcquireSharedWaitForExclusive(resource: u64, wait: u8) -> u8 {
    acquire_shared(resource, wait != 0, Way::WaitForExclusive)
}

extern "win64" fn ExConvertExclusiveToSharedLite(resource: u64) {
    let me = me();
    let converted = with(resource, |state| match state.exclusive {
        Some((owner, count)) if owner == me => {
            state.exclusive = None;
            state.shared.insert(me, count);
            true
        }
        _ => false,
    });
    if !converted {
        cpu::bugcheck(
            code::RESOURCE_NOT_OWNED,
            [resource, me, 0, 0],
            format!("the ERESOURCE at {resource:#x} was converted to shared by a thread that does not own it"),
        );
    }
    cpu::with_machine(|machine| machine.dispatcher.change(|| ()));
}

extern "win64" fn ExReleaseResourceLite(resource: u64) {
    release(resource, me());
}

extern "win64" fn ExReleaseResourceForThreadLite(resource: u64, thread: u64) {
    release(resource, thread);
}

extern "win64" fn ExIsResourceAcquiredExclusiveLite(resource: u64) -> u8 {
    let me = me();
    with(resource, |state| u8::from(state.exclusive.is_some_and(|(owner, _)| owner == me)))
}

/// How often the calling thread holds it, shared or exclusively.
extern "win64" fn ExIsResourceAcquiredSharedLite(resource: u64) -> u32 {
    let me = me();
    with(resource, |state| match state.exclusive {
        Some((owner, count)) if owner == me => count,
        _ => state.shared.get(&me).copied().unwrap_or(0),
    })
}

extern "win64" fn ExGetExclusiveWaiterCount(resource: u64) -> u32 {
    with(resource, |state| state.exclusive_waiters)
}

extern "win64" fn ExGetSharedWaiterCount(resource: u64) -> u32 {
    with(resource, |state| state.shared_waiters)
}

extern "win64" fn ExEnterCriticalRegionAndAcquireResourceExclusive(resource: u64) -> *mut u8 {
    apc::KeEnterCriticalRegion();
    acquire_exclusive(resource, true);
    core::ptr::null_mut()
}

extern "win64" fn ExEnterCriticalRegionAndAcquireResourceShared(resource: u64) -> *mut u8 {
    apc::KeEnterCriticalRegion();
    acquire_shared(resource, true, Way::Normal);
    core::ptr::null_mut()
}

extern "win64" fn ExEnterCriticalRegionAndAcquireSharedWaitForExclusive(resource: u64) -> *mut u8 {
    apc::KeEnterCriticalRegion();
    acquire_shared(resource, true, Way::WaitForExclusive);
    core::ptr::null_mut()
}

extern "win64" fn ExReleaseResourceAndLeaveCriticalRegion(resource: u64) {
    release(resource, me());
    apc::KeLeaveCriticalRegion();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use nt_abi::Irql;
    use std::time::{Duration, Instant};

    fn new() -> u64 {
        let memory = Box::leak(Box::new([0_u64; SIZE / 8]));
        // SAFETY: as big as an ERESOURCE.
        let status = unsafe { ExInitializeResourceLite(memory.as_mut_ptr().cast()) };
        assert_eq!(status, NtStatus::SUCCESS);
        memory.as_ptr() as u64
    }

    fn violates(parameter: u64, f: impl FnOnce()) {
        let stopped = cpu::enter(&Machine::new(), Irql::APC, f).unwrap_err();
        assert_eq!(stopped.parameters[0], parameter, "{stopped}");
    }

    #[test]
    fn ownership_is_counted_and_converted() {
        cpu::enter(&Machine::new(), Irql::APC, || {
            let r = new();
            assert_eq!(ExAcquireResourceExclusiveLite(r, 0), 1);
            assert_eq!(ExAcquireResourceSharedLite(r, 0), 1, "the owner's shared acquisition");
            assert_eq!((ExIsResourceAcquiredExclusiveLite(r), ExIsResourceAcquiredSharedLite(r)), (1, 2));
            ExConvertExclusiveToSharedLite(r);
            assert_eq!((ExIsResourceAcquiredExclusiveLite(r), ExIsResourceAcquiredSharedLite(r)), (0, 2));
            assert_eq!(ExAcquireResourceExclusiveLite(r, 0), 0, "no upgrade");
            ExReleaseResourceLite(r);
            ExReleaseResourceForThreadLite(r, me());
            assert_eq!(ExDeleteResourceLite(r), NtStatus::SUCCESS);
        })
        .unwrap();
    }

    #[test]
    fn readers_queue_behind_a_waiting_writer_unless_they_starve_it() {
        let machine = Machine::new();
        let r = cpu::enter(&machine, Irql::APC, || {
            let r = new();
            ExAcquireResourceSharedLite(r, 1);
            r
        })
        .unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                cpu::enter(&machine, Irql::APC, || {
                    ExAcquireResourceExclusiveLite(r, 1);
                    ExReleaseResourceLite(r);
                })
            });
            let deadline = Instant::now() + Duration::from_secs(10);
            while cpu::enter(&machine, Irql::APC, || ExGetExclusiveWaiterCount(r)).unwrap() == 0 {
                assert!(Instant::now() < deadline, "the writer never waited");
                std::thread::sleep(Duration::from_millis(1));
            }
            let reader = scope.spawn(|| {
                cpu::enter(&machine, Irql::APC, || {
                    let behind = [ExAcquireResourceSharedLite(r, 0), ExAcquireSharedWaitForExclusive(r, 0)];
                    let before = ExAcquireSharedStarveExclusive(r, 0);
                    ExReleaseResourceLite(r);
                    (behind, before)
                })
            });
            assert_eq!(reader.join().unwrap().unwrap(), ([0, 0], 1));
            cpu::enter(&machine, Irql::APC, || ExReleaseResourceLite(r)).unwrap();
            writer.join().unwrap().unwrap();
        });
        assert_eq!(machine.executive.resources.left_by(&(0..u64::MAX)).len(), 1);
    }

    #[test]
    fn misuse_stops_the_machine() {
        violates(0x1002, || {
            ExAcquireResourceSharedLite(0x1000, 1);
        });
        violates(0xD1, || {
            ExDeleteResourceLite(0x1000);
        });
        violates(0x1006, || {
            let r = new();
            ExAcquireResourceSharedLite(r, 1);
            ExDeleteResourceLite(r);
        });
        violates(0x1000, || {
            let r = new();
            ExAcquireResourceSharedLite(r, 1);
            ExAcquireResourceExclusiveLite(r, 1);
        });
        let apcs = cpu::enter(&Machine::new(), Irql::PASSIVE, || ExAcquireResourceSharedLite(new(), 1)).unwrap_err();
        assert_eq!(apcs.parameters[0], 0x37);
        let free = cpu::enter(&Machine::new(), Irql::APC, || ExReleaseResourceLite(new())).unwrap_err();
        assert_eq!(free.code, code::RESOURCE_NOT_OWNED);
    }
}
