//! Critical and guarded regions.
//!
//! There are no asynchronous procedure calls here to hold off, but the counts are kept where the thread has them, and
//! the locks that must be taken inside a region look at them. Offsets: `_KTHREAD` in the public symbols of ntoskrnl,
//! Windows 10 22H2.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::violation;
use nt_abi::Irql;

exports! {
    "ntoskrnl.exe";
    KeEnterCriticalRegion: APC,
    KeLeaveCriticalRegion: APC,
    KeEnterGuardedRegion: APC,
    KeLeaveGuardedRegion: APC,
    KeAreApcsDisabled: DISPATCH,
    KeAreAllApcsDisabled: DISPATCH,
}

/// Offset of `KTHREAD.KernelApcDisable`, negative inside critical regions.
const KERNEL: u64 = 0x1e4;
/// Offset of `KTHREAD.SpecialApcDisable`, negative inside guarded regions.
const SPECIAL: u64 = 0x1e6;

fn count(offset: u64) -> *mut i16 {
    (cpu::current_processor().thread() + offset) as *mut i16
}

fn read(offset: u64) -> i16 {
    // SAFETY: a thread's own KTHREAD is mapped forever and bigger than the offsets; only it writes its counts.
    unsafe { count(offset).read_volatile() }
}

fn add(offset: u64, by: i16) {
    // SAFETY: as in `read`.
    unsafe { count(offset).write_volatile(read(offset).wrapping_add(by)) }
}

/// Both counts as one number, to be compared.
#[inline]
pub(crate) fn regions(processor: &cpu::kpcr::Kpcr) -> u32 {
    let counts = (processor.thread() + KERNEL) as *const u32;
    // SAFETY: as in `read`; the two counts are side by side, on four bytes' alignment.
    unsafe { counts.read_volatile() }
}

/// What the stop codes call the thread's APC disable count.
pub(crate) fn disable_count() -> u64 {
    (read(KERNEL) as u16).into()
}

/// Whether normal kernel APCs are held off, by a region or by the level.
pub(crate) fn are_disabled() -> bool {
    read(KERNEL) != 0 || read(SPECIAL) != 0 || cpu::irql() >= Irql::APC
}

pub(crate) extern "win64" fn KeEnterCriticalRegion() {
    add(KERNEL, -1);
}

pub(crate) extern "win64" fn KeLeaveCriticalRegion() {
    if read(KERNEL) == 0 {
        violation([0x3E, 0, 0, 0], "KeLeaveCriticalRegion was called by a thread that is in no critical region");
    }
    add(KERNEL, 1);
}

pub(crate) extern "win64" fn KeEnterGuardedRegion() {
    add(SPECIAL, -1);
}

pub(crate) extern "win64" fn KeLeaveGuardedRegion() {
    if read(SPECIAL) == 0 {
        violation([0x3E, 1, 0, 0], "KeLeaveGuardedRegion was called by a thread that is in no guarded region");
    }
    add(SPECIAL, 1);
}

extern "win64" fn KeAreApcsDisabled() -> u8 {
    u8::from(read(KERNEL) != 0 || read(SPECIAL) != 0)
}

extern "win64" fn KeAreAllApcsDisabled() -> u8 {
    u8::from(read(SPECIAL) != 0 || cpu::irql() >= Irql::APC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn regions_nest_and_are_counted() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            KeEnterCriticalRegion();
            KeEnterCriticalRegion();
            KeLeaveCriticalRegion();
            assert_eq!((KeAreApcsDisabled(), KeAreAllApcsDisabled()), (1, 0));
            KeEnterGuardedRegion();
            assert_eq!(KeAreAllApcsDisabled(), 1);
            KeLeaveGuardedRegion();
            KeLeaveCriticalRegion();
            assert!(!are_disabled());
        })
        .unwrap();
    }

    #[test]
    fn leaving_a_region_one_is_not_in_stops_the_machine() {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || KeLeaveCriticalRegion()).unwrap_err();
        assert_eq!(stopped.parameters[0], 0x3E);
    }
}
