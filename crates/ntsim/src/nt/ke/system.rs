//! Processors, and stopping the machine.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use core::mem::offset_of;

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
        // SAFETY: null is checked; the page demands a PROCESSOR_NUMBER to write. There is one group.
        unsafe { number.write_unaligned(current << 16) };
    }
    current
}

/// The affinity mask may be asked for too.
unsafe extern "win64" fn KeQueryActiveProcessorCount(affinity: *mut u64) -> u32 {
    let count = count();
    if !affinity.is_null() {
        // SAFETY: null is checked; the page demands a KAFFINITY to write.
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
    // SAFETY: the page demands a PROCESSOR_NUMBER to write.
    unsafe { number.write_unaligned(index << 16) };
    0
}

unsafe extern "win64" fn KeGetProcessorIndexFromNumber(number: *const u32) -> u32 {
    // SAFETY: the page demands a PROCESSOR_NUMBER, which is read.
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

/// The state of a callback's record (wdm.h): KeInitializeCallbackRecord sets the first.
const BUFFER_EMPTY: u8 = 0;
const BUFFER_INSERTED: u8 = 1;

/// `KBUGCHECK_REASON_CALLBACK_RECORD` (wdm.h). Entry and Checksum are the kernel's own, and no document says what it
/// makes of them: they stay as they are.
#[repr(C)]
struct ReasonRecord {
    entry: [usize; 2],
    routine: u64,
    component: u64,
    checksum: u64,
    reason: u32,
    state: u8,
}

/// `KBUGCHECK_CALLBACK_RECORD` (wdm.h).
#[repr(C)]
struct Record {
    entry: [usize; 2],
    routine: u64,
    buffer: u64,
    length: u32,
    component: u64,
    checksum: u64,
    state: u8,
}

const _: () = assert!(size_of::<ReasonRecord>() == 0x30 && offset_of!(ReasonRecord, state) == 0x2C);
const _: () = assert!(size_of::<Record>() == 0x40 && offset_of!(Record, state) == 0x38);

// The callbacks are never called: they add to a crash dump, and there is none. Their records are still filled, because
// drivers read there whether they are registered (KMDF reads the routine).

/// TRUE when the record was not registered yet.
unsafe extern "win64" fn KeRegisterBugCheckReasonCallback(
    record: *mut ReasonRecord,
    routine: u64,
    reason: u32,
    component: u64,
) -> u8 {
    // SAFETY: the page demands a record in nonpaged memory, initialized with KeInitializeCallbackRecord, that the
    // driver keeps until it deregisters it; its state is checked first.
    unsafe {
        if (*record).state != BUFFER_EMPTY {
            return 0;
        }
        (*record).routine = routine;
        (*record).component = component;
        (*record).reason = reason;
        (*record).state = BUFFER_INSERTED;
    }
    1
}

/// TRUE when the record was registered.
unsafe extern "win64" fn KeDeregisterBugCheckReasonCallback(record: *mut ReasonRecord) -> u8 {
    // SAFETY: the page demands the record of a registration; `take_out` checks its state.
    unsafe { take_out(&raw mut (*record).state) }
}

/// TRUE when the record was not registered yet.
unsafe extern "win64" fn KeRegisterBugCheckCallback(
    record: *mut Record,
    routine: u64,
    buffer: u64,
    length: u32,
    component: u64,
) -> u8 {
    // SAFETY: the page demands a record in nonpaged memory, initialized with KeInitializeCallbackRecord, that the
    // driver keeps until it deregisters it; its state is checked first.
    unsafe {
        if (*record).state != BUFFER_EMPTY {
            return 0;
        }
        (*record).routine = routine;
        (*record).buffer = buffer;
        (*record).length = length;
        (*record).component = component;
        (*record).state = BUFFER_INSERTED;
    }
    1
}

/// TRUE when the record was registered.
unsafe extern "win64" fn KeDeregisterBugCheckCallback(record: *mut Record) -> u8 {
    // SAFETY: the page demands the record of a registration; `take_out` checks its state.
    unsafe { take_out(&raw mut (*record).state) }
}

/// Marks a record as not registered. Whether it was.
///
/// # Safety
/// `state` is that of a driver's record.
unsafe fn take_out(state: *mut u8) -> u8 {
    // SAFETY: the caller's promise.
    let registered = unsafe { state.replace(BUFFER_EMPTY) == BUFFER_INSERTED };
    u8::from(registered)
}
