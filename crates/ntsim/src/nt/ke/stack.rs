//! The kernel stack of the running thread.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::verifier::callback::{self, At};
use core::ffi::c_void;
use nt_abi::Irql;
use nt_abi::NtStatus;

exports! {
    "ntoskrnl.exe";
    IoGetStackLimits: HIGH,
    IoGetInitialStack: HIGH,
    IoWithinStackLimits: HIGH,
    KeExpandKernelStackAndCallout: APC,
    KeExpandKernelStackAndCalloutEx: DISPATCH,
}

/// `MAXIMUM_EXPANSION_SIZE` (ntddk.h, x64): a large kernel stack less half a page.
const MAXIMUM_EXPANSION_SIZE: usize = 0x12000 - 0x800;

const STATUS_INVALID_PARAMETER_3: NtStatus = NtStatus(0xC000_00F1_u32 as i32);
const STATUS_INVALID_PARAMETER_4: NtStatus = NtStatus(0xC000_00F2_u32 as i32);
const STATUS_STACK_OVERFLOW: NtStatus = NtStatus(0xC000_00FD_u32 as i32);

/// `PEXPAND_STACK_CALLOUT`.
type Callout = unsafe extern "win64" fn(*mut c_void);

/// Bytes between the stack pointer and the end of the stack.
fn left() -> usize {
    let here = 0_u8;
    (&raw const here as usize).saturating_sub(cpu::stack_range().start as usize)
}

unsafe extern "win64" fn IoGetStackLimits(low: *mut u64, high: *mut u64) {
    let range = cpu::stack_range();
    // SAFETY: the page demands two variables for the limits.
    unsafe {
        low.write(range.start);
        high.write(range.end);
    }
}

extern "win64" fn IoGetInitialStack() -> u64 {
    cpu::stack_range().end
}

/// Whether a region is in the thread's stack as a whole.
extern "win64" fn IoWithinStackLimits(start: u64, size: usize) -> u32 {
    let range = cpu::stack_range();
    u32::from(start >= range.start && start.checked_add(size as u64).is_some_and(|end| end <= range.end))
}

/// A stack here has room for several expansions of Windows' largest, so nothing is expanded; a call for which the rest
/// does not suffice is refused and not made.
fn expand(callout: Callout, parameter: *mut c_void, size: usize) -> NtStatus {
    if left() < size {
        return STATUS_STACK_OVERFLOW;
    }
    // SAFETY: the page demands an EXPAND_STACK_CALLOUT and its parameter; a wrong address faults and stops the machine.
    let call = || unsafe { callout(parameter) };
    callback::call(&At("the ExpandedStackCall routine", callout as usize as u64), "ExpandedStackCall", call);
    NtStatus::SUCCESS
}

extern "win64" fn KeExpandKernelStackAndCallout(callout: Callout, parameter: *mut c_void, size: usize) -> NtStatus {
    if size > MAXIMUM_EXPANSION_SIZE {
        return STATUS_INVALID_PARAMETER_3;
    }
    expand(callout, parameter, size)
}

extern "win64" fn KeExpandKernelStackAndCalloutEx(
    callout: Callout,
    parameter: *mut c_void,
    size: usize,
    wait: u8,
    _context: *mut c_void,
) -> NtStatus {
    if size > MAXIMUM_EXPANSION_SIZE {
        return STATUS_INVALID_PARAMETER_3;
    }
    if wait != 0 && cpu::irql() >= Irql::DISPATCH {
        return STATUS_INVALID_PARAMETER_4;
    }
    expand(callout, parameter, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    unsafe extern "win64" fn count(calls: *mut c_void) {
        // SAFETY: the tests pass a counter.
        unsafe { *calls.cast::<u32>() += 1 };
    }

    #[test]
    fn the_limits_are_those_of_the_stack_that_is_used() {
        cpu::enter(&Machine::new(), Irql::DISPATCH, || {
            let (mut low, mut high) = (0, 0);
            // SAFETY: the outputs are ours.
            unsafe { IoGetStackLimits(&mut low, &mut high) };
            let here = &raw const low as u64;
            assert!(low < here && here < high, "{low:#x} {here:#x} {high:#x}");
            assert_eq!(IoGetInitialStack(), high);
            assert_eq!((IoWithinStackLimits(here, 8), IoWithinStackLimits(high - 4, 8)), (1, 0));
        })
        .unwrap();
    }

    #[test]
    fn a_routine_is_called_once_or_the_caller_hears_why_not() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let mut calls = 0_u32;
            let at = (&raw mut calls).cast();
            assert_eq!(KeExpandKernelStackAndCallout(count, at, MAXIMUM_EXPANSION_SIZE), NtStatus::SUCCESS);
            let more = KeExpandKernelStackAndCallout(count, at, MAXIMUM_EXPANSION_SIZE + 1);
            assert_eq!(more, STATUS_INVALID_PARAMETER_3);
            let ex = |wait| KeExpandKernelStackAndCalloutEx(count, at, 0x1000, wait, core::ptr::null_mut());
            assert_eq!(ex(1), NtStatus::SUCCESS);
            cpu::at_irql(Irql::DISPATCH, || {
                assert_eq!(ex(1), STATUS_INVALID_PARAMETER_4);
                assert_eq!(ex(0), NtStatus::SUCCESS);
            });
            assert_eq!(calls, 3);
        })
        .unwrap();
    }
}
