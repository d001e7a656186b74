//! Text of GUIDs, numbers and Internet addresses, and UTF-8.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::pool::Kind;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;
use std::net::{Ipv4Addr, Ipv6Addr};

exports! {
    "ntoskrnl.exe";
    RtlStringFromGUID: PASSIVE,
    RtlGUIDFromString: PASSIVE,
    RtlInt64ToUnicodeString: PASSIVE,
    RtlUnicodeToUTF8N: PASSIVE,
    RtlUTF8ToUnicodeN: PASSIVE,
    RtlIpv4AddressToStringA: DISPATCH,
    RtlIpv4AddressToStringW: DISPATCH,
    RtlIpv6AddressToStringA: DISPATCH,
    RtlIpv6AddressToStringW: DISPATCH,
    RtlIpv4StringToAddressA: DISPATCH,
    RtlIpv4StringToAddressW: DISPATCH,
    RtlIpv6StringToAddressA: DISPATCH,
    RtlIpv6StringToAddressW: DISPATCH,
}

const TAG: u32 = u32::from_le_bytes(*b"Strg");
const STATUS_SOME_NOT_MAPPED: NtStatus = NtStatus(0x0000_0107);

/// `GUID` in memory: a 32-bit and two 16-bit little-endian numbers, then eight bytes.
fn guid_text(guid: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let rest: Vec<String> = rest.iter().map(|byte| format!("{byte:02X}")).collect();
    format!(
        "{{{:08X}-{:04X}-{:04X}-{}-{}}}",
        u32::from_le_bytes([a, b, c, d]),
        u16::from_le_bytes([e, f]),
        u16::from_le_bytes([g, h]),
        rest[..2].concat(),
        rest[2..].concat()
    )
}

/// The registry's form: `{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}`.
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let parts: Vec<&str> = inner.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    if lengths != [8, 4, 4, 4, 12] || !inner.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = parts.concat();
    let mut bytes = [0_u8; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
    }
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

/// The string's buffer is allocated; `RtlFreeUnicodeString` frees it.
unsafe extern "win64" fn RtlStringFromGUID(guid: *const [u8; 16], string: *mut UnicodeString) -> NtStatus {
    // SAFETY: the page demands a GUID, which is copied.
    let units: Vec<u16> = guid_text(unsafe { guid.read_unaligned() }).encode_utf16().chain([0]).collect();
    let block = cpu::with_machine(|machine| {
        if machine.low_resources.fails("RtlStringFromGUID") {
            return core::ptr::null_mut();
        }
        machine.pool.allocate(TAG, units.len() * 2, Kind::Paged)
    });
    if block.is_null() {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let (buffer, bytes) = (block.cast::<u16>(), (units.len() * 2) as u16);
    // SAFETY: the block has room for the units; the page demands a UNICODE_STRING to write. The driver frees the buffer
    // with RtlFreeUnicodeString.
    unsafe {
        buffer.copy_from_nonoverlapping(units.as_ptr(), units.len());
        string.write(UnicodeString { length: bytes - 2, maximum_length: bytes, buffer });
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn RtlGUIDFromString(string: *const UnicodeString, guid: *mut [u8; 16]) -> NtStatus {
    // SAFETY: the page demands a UNICODE_STRING, which is copied, and a GUID to write.
    unsafe {
        let Some(bytes) = parse_guid(&UnicodeString::read(string)) else { return NtStatus::INVALID_PARAMETER };
        guid.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), 16);
    }
    NtStatus::SUCCESS
}

/// Bases 2, 8, 10 and 16; 0 means 10.
unsafe extern "win64" fn RtlInt64ToUnicodeString(value: u64, base: u32, string: *mut UnicodeString) -> NtStatus {
    let text = match base {
        0 | 10 => value.to_string(),
        2 => format!("{value:b}"),
        8 => format!("{value:o}"),
        16 => format!("{value:X}"),
        _ => return NtStatus::INVALID_PARAMETER,
    };
    let bytes = text.len() * 2;
    // SAFETY: the page demands a UNICODE_STRING with MaximumLength writable bytes, which the text's length is checked
    // against.
    unsafe {
        if bytes > usize::from((*string).maximum_length) {
            return NtStatus::BUFFER_OVERFLOW;
        }
        write_wide((*string).buffer, &text, usize::from((*string).maximum_length / 2));
        (*string).length = bytes as u16;
    }
    NtStatus::SUCCESS
}

/// Writes text that fits `room` units, with a terminator when that fits too; returns its length.
///
/// # Safety
/// `to` has room for `room` units.
unsafe fn write_wide(to: *mut u16, text: &str, room: usize) -> usize {
    let mut length = 0;
    for unit in text.encode_utf16().take(room) {
        // SAFETY: `length` is below the room that this function's contract gives.
        unsafe { to.add(length).write_unaligned(unit) };
        length += 1;
    }
    if length < room {
        // SAFETY: `length` is below the room that this function's contract gives.
        unsafe { to.add(length).write_unaligned(0) };
    }
    length
}

/// Copies `bytes` as far as whole elements fit; `to` null asks for the size only.
///
/// # Safety
/// `to` is null or has room for `room` bytes; `written` is writable.
unsafe fn give(bytes: &[u8], cut: usize, to: *mut u8, room: u32, written: *mut u32, clean: bool) -> NtStatus {
    // SAFETY: the caller's promise.
    unsafe {
        if to.is_null() {
            written.write(bytes.len() as u32);
        } else {
            to.copy_from_nonoverlapping(bytes.as_ptr(), cut);
            written.write(cut as u32);
            if cut < bytes.len() {
                debug_assert!(bytes.len() > room as usize);
                return NtStatus::BUFFER_TOO_SMALL;
            }
        }
    }
    if clean { NtStatus::SUCCESS } else { STATUS_SOME_NOT_MAPPED }
}

/// Lengths are in bytes. What is no character becomes U+FFFD, and the status says so.
unsafe extern "win64" fn RtlUnicodeToUTF8N(
    to: *mut u8,
    room: u32,
    written: *mut u32,
    from: *const u16,
    length: u32,
) -> NtStatus {
    // SAFETY: the page demands `length` readable bytes and as many writable bytes as it is told; what is written is
    // bounded by that.
    unsafe {
        let units: Vec<u16> = (0..length as usize / 2).map(|i| from.add(i).read_unaligned()).collect();
        let clean = String::from_utf16(&units).is_ok();
        let text = String::from_utf16_lossy(&units);
        let cut = text.floor_char_boundary(room as usize);
        give(text.as_bytes(), cut, to, room, written, clean)
    }
}

unsafe extern "win64" fn RtlUTF8ToUnicodeN(
    to: *mut u16,
    room: u32,
    written: *mut u32,
    from: *const u8,
    length: u32,
) -> NtStatus {
    // SAFETY: the page demands `length` readable bytes and as many writable bytes as it is told; what is written is
    // bounded by that.
    unsafe {
        let source = if length == 0 { &[][..] } else { core::slice::from_raw_parts(from, length as usize) };
        let clean = core::str::from_utf8(source).is_ok();
        let text = String::from_utf8_lossy(source);
        let mut bytes = Vec::new();
        let mut cut = 0;
        for character in text.chars() {
            let mut units = [0; 2];
            bytes.extend(character.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_le_bytes()));
            if bytes.len() <= room as usize {
                cut = bytes.len();
            }
        }
        give(&bytes, cut, to.cast(), room, written, clean)
    }
}

/// Writes narrow text with its terminator; returns where that is.
///
/// # Safety
/// `to` has room for it: 16 characters for IPv4, 46 for IPv6.
unsafe fn write_narrow(to: *mut u8, text: &str) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        to.copy_from_nonoverlapping(text.as_ptr(), text.len());
        let end = to.add(text.len());
        end.write(0);
        end
    }
}

unsafe extern "win64" fn RtlIpv4AddressToStringA(address: *const [u8; 4], to: *mut u8) -> *mut u8 {
    // SAFETY: the page demands an IN_ADDR and 16 writable characters, which the longest address fits.
    unsafe { write_narrow(to, &Ipv4Addr::from(address.read()).to_string()) }
}

unsafe extern "win64" fn RtlIpv4AddressToStringW(address: *const [u8; 4], to: *mut u16) -> *mut u16 {
    // SAFETY: the page demands an IN_ADDR and 16 writable characters, which `write_wide` keeps to.
    unsafe { to.add(write_wide(to, &Ipv4Addr::from(address.read()).to_string(), 16)) }
}

unsafe extern "win64" fn RtlIpv6AddressToStringA(address: *const [u8; 16], to: *mut u8) -> *mut u8 {
    // SAFETY: the page demands an IN6_ADDR and 46 writable characters, which the longest address fits.
    unsafe { write_narrow(to, &Ipv6Addr::from(address.read()).to_string()) }
}

unsafe extern "win64" fn RtlIpv6AddressToStringW(address: *const [u8; 16], to: *mut u16) -> *mut u16 {
    // SAFETY: the page demands an IN6_ADDR and 46 writable characters, which `write_wide` keeps to.
    unsafe { to.add(write_wide(to, &Ipv6Addr::from(address.read()).to_string(), 46)) }
}

/// The longest prefix of a string that is an address: its length and value. The numbers of an IPv4 address are decimal.
fn longest<T: core::str::FromStr>(text: &str) -> Option<(usize, T)> {
    (1..=text.len()).rev().find_map(|length| Some((length, text[..length].parse().ok()?)))
}

/// The characters an address may begin a string with.
///
/// # Safety
/// A terminated string of the driver.
unsafe fn candidate(mut unit: impl FnMut(usize) -> u32) -> String {
    (0..46).map_while(|i| char::from_u32(unit(i)).filter(|c| c.is_ascii_hexdigit() || matches!(c, '.' | ':'))).collect()
}

/// Parses an address at `text` and reports where it ends.
macro_rules! parser {
    ($name:ident, $unit:ty, $address:ty, $length:literal, $($strict:ident)?) => {
        unsafe extern "win64" fn $name(
            text: *const $unit,
            $($strict: u8,)?
            end: *mut *const $unit,
            to: *mut [u8; $length],
        ) -> NtStatus {
            $(let _decimal_dotted_only = $strict;)?
            // SAFETY: the page demands a terminated string, of which nothing past the terminator is read, and variables
            // for the results.
            unsafe {
                let candidate = candidate(|i| u32::from(text.add(i).read_unaligned()));
                match longest::<$address>(&candidate) {
                    Some((length, address)) => {
                        end.write(text.add(length));
                        to.cast::<u8>().copy_from_nonoverlapping(address.octets().as_ptr(), $length);
                        NtStatus::SUCCESS
                    }
                    None => {
                        end.write(text);
                        NtStatus::INVALID_PARAMETER
                    }
                }
            }
        }
    };
}

// Strict or not: the octal, hexadecimal and short forms that the lax one takes are not known here.
parser!(RtlIpv4StringToAddressA, u8, Ipv4Addr, 4, strict);
parser!(RtlIpv4StringToAddressW, u16, Ipv4Addr, 4, strict);
parser!(RtlIpv6StringToAddressA, u8, Ipv6Addr, 16,);
parser!(RtlIpv6StringToAddressW, u16, Ipv6Addr, 16,);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::Irql;

    #[test]
    fn guids_have_the_registrys_form() {
        const TEXT: &str = "{00112233-4455-6677-8899-AABBCCDDEEFF}";
        let bytes = [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let (mut string, mut back) = (UnicodeString::EMPTY, [0; 16]);
            // SAFETY: all ours.
            unsafe {
                assert_eq!(RtlStringFromGUID(&bytes, &mut string), NtStatus::SUCCESS);
                assert_eq!(UnicodeString::read(&string), TEXT);
                assert_eq!(RtlGUIDFromString(&string, &mut back), NtStatus::SUCCESS);
            }
            assert_eq!(back, bytes);
            machine.pool.free(string.buffer.cast(), TAG);
        })
        .unwrap();
        assert!(parse_guid(&TEXT[1..]).is_none() && parse_guid(&TEXT.replace('2', "g")).is_none());
    }

    #[test]
    fn utf8_is_cut_between_characters() {
        let wide: Vec<u16> = "aé€😀".encode_utf16().collect();
        let (mut buffer, mut written) = ([0_u8; 16], 0);
        let bytes = (wide.len() * 2) as u32;
        // SAFETY: all ours.
        unsafe {
            let all = RtlUnicodeToUTF8N(buffer.as_mut_ptr(), 16, &mut written, wide.as_ptr(), bytes);
            assert_eq!((all, &buffer[..written as usize]), (NtStatus::SUCCESS, "aé€😀".as_bytes()));
            let cut = RtlUnicodeToUTF8N(buffer.as_mut_ptr(), 8, &mut written, wide.as_ptr(), bytes);
            assert_eq!((cut, written), (NtStatus::BUFFER_TOO_SMALL, 6));
            let size = RtlUnicodeToUTF8N(ptr::null_mut(), 0, &mut written, wide.as_ptr(), bytes);
            assert_eq!((size, written), (NtStatus::SUCCESS, 10));
            let lone = RtlUnicodeToUTF8N(buffer.as_mut_ptr(), 16, &mut written, [0xd800].as_ptr(), 2);
            assert_eq!(lone, STATUS_SOME_NOT_MAPPED);
            let mut back = [0_u16; 8];
            let source = "aé€😀";
            let status = RtlUTF8ToUnicodeN(back.as_mut_ptr(), 8, &mut written, source.as_ptr(), source.len() as u32);
            assert_eq!((status, written), (NtStatus::BUFFER_TOO_SMALL, 6), "half a surrogate pair is not written");
            assert_eq!(back[..3], wide[..3]);
        }
    }

    #[test]
    fn addresses_are_written_and_read() {
        let (mut text, mut wide) = ([0_u8; 46], [0_u16; 46]);
        // SAFETY: all ours.
        unsafe {
            let end = RtlIpv4AddressToStringA(&[192, 0, 2, 1], text.as_mut_ptr());
            assert_eq!((end as usize - text.as_ptr() as usize, &text[..10]), (9, &b"192.0.2.1\0"[..]));
            let six = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets();
            RtlIpv6AddressToStringW(&six, wide.as_mut_ptr());
            assert_eq!(String::from_utf16_lossy(&wide[..11]), "2001:db8::1");
            let (mut end, mut four, mut back) = (ptr::null(), [0; 4], [0; 16]);
            let status = RtlIpv4StringToAddressA(c"10.1.2.3/8".as_ptr().cast(), 1, &mut end, &mut four);
            assert_eq!((status, four, end.read()), (NtStatus::SUCCESS, [10, 1, 2, 3], b'/'));
            let mut end = ptr::null();
            assert_eq!(RtlIpv6StringToAddressW(wide.as_ptr(), &mut end, &mut back), NtStatus::SUCCESS);
            assert_eq!(back, six);
            let mut end = ptr::null();
            let status = RtlIpv4StringToAddressA(c"10.1.2".as_ptr().cast(), 1, &mut end, &mut four);
            assert_eq!(status, NtStatus::INVALID_PARAMETER);
        }
    }

    #[test]
    fn numbers_are_written_in_four_bases() {
        let mut buffer = [0_u16; 8];
        let mut string = UnicodeString { length: 0, maximum_length: 16, buffer: buffer.as_mut_ptr() };
        // SAFETY: all ours.
        unsafe {
            assert_eq!(RtlInt64ToUnicodeString(0xBEEF, 16, &mut string), NtStatus::SUCCESS);
            assert_eq!(UnicodeString::read(&string), "BEEF");
            assert_eq!(RtlInt64ToUnicodeString(1 << 40, 10, &mut string), NtStatus::BUFFER_OVERFLOW);
            assert_eq!(RtlInt64ToUnicodeString(1, 7, &mut string), NtStatus::INVALID_PARAMETER);
        }
    }
}
