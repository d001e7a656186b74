//! The system event log, as drivers write to it.
//!
//! An entry (`IO_ERROR_LOG_PACKET`, wdm.h) is allocated, filled in and given to `IoWriteErrorLogEntry`, which frees it.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::pool::Kind;
use core::ffi::c_void;
use core::ptr;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use serde::Serialize;

exports! {
    "ntoskrnl.exe";
    IoAllocateErrorLogEntry: DISPATCH,
    IoWriteErrorLogEntry: DISPATCH,
    IoFreeErrorLogEntry: DISPATCH,
}

const TAG: u32 = u32::from_le_bytes(*b"IoEr");
/// ERROR_LOG_MAXIMUM_SIZE, and the least: an `IO_ERROR_LOG_PACKET` with its one word of dump data.
const LARGEST: u8 = 240;
const SMALLEST: u8 = 0x30;

/// `IO_ERROR_LOG_PACKET`, up to the dump data.
#[repr(C)]
struct Packet {
    major_function: u8,
    retry_count: u8,
    dump_data_size: u16,
    number_of_strings: u16,
    string_offset: u16,
    event_category: u16,
    error_code: NtStatus,
    unique_error_value: u32,
    final_status: NtStatus,
    sequence_number: u32,
    io_control_code: u32,
    device_offset: i64,
}

const _: () = assert!(size_of::<Packet>() == 0x28);

/// An entry a driver wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The message's code.
    pub code: i32,
    /// What the driver gave for the place in its code.
    pub unique_value: u32,
    /// The status of the operation.
    pub status: i32,
    /// The strings to insert into the message.
    pub strings: Vec<String>,
}

/// The event log of one machine.
#[derive(Debug, Default)]
pub struct EventLog {
    entries: Mutex<Vec<Entry>>,
}

impl EventLog {
    /// What drivers have written.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().clone()
    }
}

/// Null for a size that no entry can have, and when there is no memory.
extern "win64" fn IoAllocateErrorLogEntry(_object: *const c_void, size: u8) -> *mut Packet {
    if !(SMALLEST..=LARGEST).contains(&size) {
        return ptr::null_mut();
    }
    let block = cpu::with_machine(|machine| {
        if machine.low_resources.fails("IoAllocateErrorLogEntry") {
            return ptr::null_mut();
        }
        machine.pool.allocate(TAG, size.into(), Kind::NonPaged)
    });
    block.cast()
}

/// The terminated strings of an entry, as far as they are inside it.
///
/// # Safety
/// `packet` is readable for `size` bytes.
unsafe fn strings(packet: *const Packet, size: usize, count: u16, offset: u16) -> Vec<String> {
    let mut at = usize::from(offset);
    let mut strings = Vec::new();
    for _ in 0..count {
        let mut units = Vec::new();
        while at + 2 <= size {
            // SAFETY: within the entry, by this function's contract.
            let unit = unsafe { packet.byte_add(at).cast::<u16>().read_unaligned() };
            at += 2;
            if unit == 0 {
                break;
            }
            units.push(unit);
        }
        strings.push(String::from_utf16_lossy(&units));
    }
    strings
}

unsafe extern "win64" fn IoWriteErrorLogEntry(packet: *mut Packet) {
    let size = cpu::with_machine(|machine| machine.pool.size_at(packet as u64));
    // What is not a pool block is refused when it is freed.
    let Some(size) = size.filter(|size| *size >= usize::from(SMALLEST)) else { return IoFreeErrorLogEntry(packet) };
    // SAFETY: a pool block of this size, at least that of the structure; by the page it is the caller's entry of
    // IoAllocateErrorLogEntry. It is copied here and freed below, where its tag is checked.
    let entry = unsafe {
        let Packet { number_of_strings, string_offset, error_code, unique_error_value, final_status, .. } = &*packet;
        Entry {
            code: error_code.0,
            unique_value: *unique_error_value,
            status: final_status.0,
            strings: strings(packet, size, *number_of_strings, *string_offset),
        }
    };
    tracing::info!(target: "driver", code = format_args!("{:#010x}", entry.code), strings = ?entry.strings, "event log");
    cpu::with_machine(|machine| machine.executive.events.entries.lock().push(entry));
    IoFreeErrorLogEntry(packet);
}

extern "win64" fn IoFreeErrorLogEntry(packet: *mut Packet) {
    cpu::with_machine(|machine| machine.pool.free(packet.cast(), TAG));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use nt_abi::Irql;

    #[test]
    fn an_entry_is_written_with_its_strings_and_freed() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::DISPATCH, || {
            let packet = IoAllocateErrorLogEntry(ptr::null(), 100);
            // SAFETY: an entry of 100 bytes.
            unsafe {
                (*packet).error_code = NtStatus(0xE000_0001_u32 as i32);
                (*packet).unique_error_value = 7;
                (*packet).number_of_strings = 2;
                (*packet).string_offset = 0x28;
                let text: Vec<u16> = "one\0two\0".encode_utf16().collect();
                packet.byte_add(0x28).cast::<u16>().copy_from(text.as_ptr(), text.len());
                IoWriteErrorLogEntry(packet);
            }
            assert!(IoAllocateErrorLogEntry(ptr::null(), 8).is_null());
            assert!(IoAllocateErrorLogEntry(ptr::null(), 241).is_null());
        })
        .unwrap();
        let entries = machine.executive.events.entries();
        assert_eq!((entries[0].code as u32, entries[0].unique_value), (0xE000_0001, 7));
        assert_eq!(entries[0].strings, ["one", "two"]);
        assert_eq!(machine.pool.usage().0, 0);
    }

    #[test]
    fn a_string_without_a_terminator_ends_with_its_entry() {
        let machine = Machine::with(crate::machine::Config { special_pool: true, ..Default::default() });
        cpu::enter(&machine, Irql::PASSIVE, || {
            let packet = IoAllocateErrorLogEntry(ptr::null(), 0x30);
            // SAFETY: an entry of 48 bytes.
            unsafe {
                (*packet).number_of_strings = 1;
                (*packet).string_offset = 0x28;
                packet.byte_add(0x28).cast::<u16>().copy_from(['a' as u16; 4].as_ptr(), 4);
                IoWriteErrorLogEntry(packet);
            }
        })
        .unwrap();
        assert_eq!(machine.executive.events.entries()[0].strings, ["aaaa"]);
    }
}
