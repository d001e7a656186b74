//! Processors, and stopping the machine.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use core::ffi::c_void;

exports! {
    "ntoskrnl.exe";
    KeGetCurrentProcessorNumberEx: HIGH,
    KeQueryActiveProcessorCount: HIGH,
    KeQueryActiveProcessorCountEx: HIGH,
    KeQueryMaximumProcessorCount: HIGH,
    KeQueryMaximumProcessorCountEx: HIGH,
    KeQueryActiveGroupCount: HIGH,
    KeQueryMaximumGroupCount: HIGH,
    KeGetProcessorNumberFromIndex: HIGH,
    KeGetProcessorIndexFromNumber: HIGH,
    KeGetCurrentThread: HIGH,
    KeSetSystemAffinityThreadEx: DISPATCH,
    KeRevertToUserAffinityThreadEx: DISPATCH,
    KeBugCheck: HIGH,
    KeBugCheckEx: HIGH,
    KeRegisterBugCheckReasonCallback: HIGH,
    KeDeregisterBugCheckReasonCallback: HIGH,
    KeRegisterBugCheckCallback: HIGH,
    KeDeregisterBugCheckCallback: HIGH,
}

/// ALL_PROCESSOR_GROUPS.
const ALL_GROUPS: u16 = 0xffff;

fn count() -> u32 {
    cpu::with_machine(|machine| machine.processors.count())
}

/// `number` may be null; PROCESSOR_NUMBER is Group (16 bits), Number, Reserved.
unsafe extern "win64" fn KeGetCurrentProcessorNumberEx(number: *mut u32) -> u32 {
    let current = cpu::current_processor().number();
    if !number.is_null() {
        // SAFETY: the driver's PROCESSOR_NUMBER, not null; there is one group.
        unsafe { number.write_unaligned(current << 16) };
    }
    current
}

/// The affinity mask may be asked for too.
unsafe extern "win64" fn KeQueryActiveProcessorCount(affinity: *mut u64) -> u32 {
    let count = count();
    if !affinity.is_null() {
        // SAFETY: the driver's KAFFINITY, not null.
        unsafe { affinity.write(u64::MAX >> (64 - count.clamp(1, 64))) };
    }
    count
}

extern "win64" fn KeQueryActiveProcessorCountEx(group: u16) -> u32 {
    if group == 0 || group == ALL_GROUPS { count() } else { 0 }
}

extern "win64" fn KeQueryMaximumProcessorCount() -> u32 {
    count()
}

extern "win64" fn KeQueryMaximumProcessorCountEx(group: u16) -> u32 {
    KeQueryActiveProcessorCountEx(group)
}

extern "win64" fn KeQueryActiveGroupCount() -> u16 {
    1
}

extern "win64" fn KeQueryMaximumGroupCount() -> u16 {
    1
}

unsafe extern "win64" fn KeGetProcessorNumberFromIndex(index: u32, number: *mut u32) -> i32 {
    if index >= count() {
        return nt_abi::NtStatus::INVALID_PARAMETER.0;
    }
    // SAFETY: the driver's PROCESSOR_NUMBER.
    unsafe { number.write_unaligned(index << 16) };
    0
}

unsafe extern "win64" fn KeGetProcessorIndexFromNumber(number: *const u32) -> u32 {
    // SAFETY: the driver's PROCESSOR_NUMBER.
    let number = unsafe { number.read_unaligned() };
    let (group, index) = (number & 0xffff, number >> 16 & 0xff);
    if group == 0 && index < count() { index } else { u32::MAX }
}

extern "win64" fn KeGetCurrentThread() -> u64 {
    cpu::current_processor().thread()
}

/// Threads are not bound to processors below DISPATCH_LEVEL; the old affinity is "all of them", 0.
extern "win64" fn KeSetSystemAffinityThreadEx(_affinity: u64) -> u64 {
    0
}
extern "win64" fn KeRevertToUserAffinityThreadEx(_affinity: u64) {}

extern "win64" fn KeBugCheck(code: u32) -> ! {
    cpu::bugcheck(code, [0; 4], "the driver called KeBugCheck")
}

extern "win64" fn KeBugCheckEx(code: u32, a: u64, b: u64, c: u64, d: u64) -> ! {
    cpu::bugcheck(code, [a, b, c, d], "the driver called KeBugCheckEx")
}

// The callbacks are accepted and never called: they add to a crash dump, and there is none.
extern "win64" fn KeRegisterBugCheckReasonCallback(
    _record: *mut c_void,
    _routine: u64,
    _reason: u32,
    _component: u64,
) -> u8 {
    1
}
extern "win64" fn KeDeregisterBugCheckReasonCallback(_record: *mut c_void) -> u8 {
    1
}
extern "win64" fn KeRegisterBugCheckCallback(
    _record: *mut c_void,
    _routine: u64,
    _buffer: u64,
    _length: u32,
    _component: u64,
) -> u8 {
    1
}
extern "win64" fn KeDeregisterBugCheckCallback(_record: *mut c_void) -> u8 {
    1
}
