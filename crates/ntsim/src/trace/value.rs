//! Shows an argument by its kind.
//!
//! The driver's memory is read through the host's kernel, so that a wrong pointer is shown, not followed into a fault.

use super::signature::Kind;
use crate::cpu;
use nt_abi::Irql;
use nt_abi::NtStatus;
use sluice_host::Guid;

/// The most units of a string that are shown.
const LONGEST: usize = 120;

/// Reads memory that may not be there.
pub(super) fn peek<const N: usize>(address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (peek_into(address, &mut bytes) == N).then_some(bytes)
}

/// Reads as much as is readable.
fn peek_into(address: u64, to: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: to.len() };
    // SAFETY: reads this process's own memory into a buffer of ours; an address that is not mapped is an error.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(read).unwrap_or(0)
}

/// An address in a driver or in ntsim as module and offset, any other as a number.
pub(crate) fn routine(address: u64) -> String {
    if address == 0 { "NULL".to_owned() } else { cpu::frame_of(address).to_string() }
}

fn pointer(address: u64) -> String {
    let frame = cpu::frame_of(address);
    match (address, &frame.module) {
        (0, _) => "NULL".to_owned(),
        // Kernel stacks, pool and objects are in no module; a pointer into the driver is worth naming.
        (_, Some(module)) if module != "ntsim" && frame.is_driver() => frame.to_string(),
        _ => format!("{address:#x}"),
    }
}

fn number(value: u64) -> String {
    if value < 0x1_0000 { value.to_string() } else { format!("{value:#x}") }
}

fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}

fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// A counted string behind `address`: its buffer's bytes.
fn counted(address: u64) -> Option<Vec<u8>> {
    let raw = peek::<16>(address)?;
    let length = usize::from(u16::from_le_bytes([raw[0], raw[1]]));
    let buffer = u64::from_le_bytes(raw[8..].try_into().ok()?);
    let mut bytes = vec![0; length.min(2 * LONGEST + 2)];
    let read = peek_into(buffer, &mut bytes);
    (read == bytes.len()).then_some(bytes)
}

/// Bytes up to a terminator of `width` bytes.
fn terminated(address: u64, width: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; LONGEST * width];
    let read = peek_into(address, &mut bytes);
    bytes.truncate(read - read % width);
    let end = bytes.chunks_exact(width).position(|unit| unit.iter().all(|byte| *byte == 0));
    bytes.truncate(end.map_or(bytes.len(), |units| units * width));
    (read != 0).then_some(bytes)
}

/// A word as text, by its kind; None when it is not shown.
pub(super) fn show(kind: Kind, word: u64) -> Option<String> {
    let followed = |text: Option<String>| match text {
        Some(text) => text,
        None => pointer(word),
    };
    Some(match kind {
        Kind::Hidden => return None,
        Kind::Status => NtStatus(word as u32 as i32).to_string(),
        Kind::Boolean => match word as u8 {
            0 => "FALSE".to_owned(),
            1 => "TRUE".to_owned(),
            other => other.to_string(),
        },
        Kind::Irql => Irql(word as u8).to_string(),
        Kind::Unsigned(64) => match pointer(word) {
            text if text.contains('+') => text,
            _ => number(word),
        },
        Kind::Unsigned(bits) => number(word & (u64::MAX >> (64 - bits))),
        Kind::Signed(bits) => ((word as i64) << (64 - bits) >> (64 - bits)).to_string(),
        Kind::Tag => {
            let bytes = (word as u32).to_le_bytes();
            let tag: String =
                bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
            format!("'{tag}'")
        }
        Kind::UnicodeString => {
            followed(counted(word).map(|bytes| format!("L{}", quoted(&String::from_utf16_lossy(&units(&bytes))))))
        }
        Kind::AnsiString => followed(counted(word).map(|bytes| quoted(&String::from_utf8_lossy(&bytes)))),
        Kind::Guid => followed(peek::<16>(word).map(|b| {
            let half = u128::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])) << 96
                | u128::from(u16::from_le_bytes([b[4], b[5]])) << 80
                | u128::from(u16::from_le_bytes([b[6], b[7]])) << 64;
            let rest = b[8..].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            filter_engine::names::Named(Guid(half | u128::from(rest))).to_string()
        })),
        Kind::Text => followed(terminated(word, 1).map(|bytes| quoted(&String::from_utf8_lossy(&bytes)))),
        Kind::Wide => {
            followed(terminated(word, 2).map(|b| format!("L{}", quoted(&String::from_utf16_lossy(&units(&b))))))
        }
        Kind::Pointer | Kind::Out(_) => pointer(word),
    })
}

/// What a function wrote to the address it was given; None when it is not readable.
pub(super) fn written(bytes: u32, address: u64) -> Option<String> {
    Some(match bytes {
        1 => number(u64::from(peek::<1>(address)?[0])),
        4 => number(u64::from(u32::from_le_bytes(peek(address)?))),
        _ => {
            let word = u64::from_le_bytes(peek(address)?);
            if word < 0x1_0000 { number(word) } else { pointer(word) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_as_what_they_are() {
        let show = |kind, word| show(kind, word).expect("shown");
        assert_eq!(show(Kind::Status, 0xC000_000D), "STATUS_INVALID_PARAMETER (0xc000000d)");
        assert_eq!(show(Kind::Tag, u64::from(u32::from_le_bytes(*b"Slui"))), "'Slui'");
        assert_eq!(show(Kind::Signed(32), 0xFFFF_FFFF), "-1");
        assert_eq!(show(Kind::Unsigned(16), 0xAAAA_0007), "7");
        assert_eq!(show(Kind::Irql, 2), "DISPATCH_LEVEL");
        assert_eq!(show(Kind::Pointer, 0), "NULL");
    }

    #[test]
    fn texts_are_followed_and_wrong_pointers_are_not() {
        let units: Vec<u16> = "\\Device\\Sluice".encode_utf16().collect();
        let string = nt_abi::UnicodeString {
            length: 2 * units.len() as u16,
            maximum_length: 2 * units.len() as u16,
            buffer: units.as_ptr().cast_mut(),
        };
        let at = (&raw const string) as u64;
        assert_eq!(show(Kind::UnicodeString, at).as_deref(), Some(r#"L"\\Device\\Sluice""#));
        assert_eq!(show(Kind::UnicodeString, 0x10).as_deref(), Some("0x10"));
        assert_eq!(show(Kind::Text, c"a\nb".as_ptr() as u64).as_deref(), Some(r#""a\nb""#));
        let guid = nt_abi::fwp::RawGuid::from(filter_engine::names::SUBLAYER_UNIVERSAL);
        assert_eq!(show(Kind::Guid, (&raw const guid) as u64).as_deref(), Some("FWPM_SUBLAYER_UNIVERSAL"));
        let number = 256u32;
        assert_eq!(written(4, (&raw const number) as u64).as_deref(), Some("256"));
        assert_eq!(written(4, 8), None);
    }
}
