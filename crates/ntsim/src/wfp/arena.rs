//! Memory for structures handed to drivers: pieces that live and die together and never move.

use super::abi::{FwpByteBlob, FwpRange0, FwpV4AddrAndMask, FwpV6AddrAndMask, FwpValue0, RawGuid, ValueUnion, consts};
use super::condition::ConditionValue;
use sluice_host::Guid;

/// Owns the pieces.
#[derive(Debug, Default)]
pub(super) struct Arena(Vec<Box<[u64]>>);

impl Arena {
    /// Copies one value in. Its alignment is at most eight.
    pub(super) fn put<T: Copy>(&mut self, value: T) -> *mut T {
        self.put_slice(&[value])
    }

    /// Copies values in, one after the other.
    pub(super) fn put_slice<T: Copy>(&mut self, values: &[T]) -> *mut T {
        const { assert!(align_of::<T>() <= 8) };
        let mut piece = vec![0u64; size_of_val(values).div_ceil(8).max(1)].into_boxed_slice();
        let at: *mut T = piece.as_mut_ptr().cast();
        // SAFETY: the piece is at least as long as the values and aligned to eight; both are distinct memory.
        unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), at, values.len()) };
        self.0.push(piece);
        at
    }

    /// A NUL-terminated UTF-16 string.
    pub(super) fn wide(&mut self, text: &str) -> *const u16 {
        let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
        self.put_slice(&units)
    }

    /// A GUID behind a pointer, or null.
    pub(super) fn guid(&mut self, guid: Option<Guid>) -> *const RawGuid {
        guid.map_or(core::ptr::null(), |guid| self.put(RawGuid::from(guid)))
    }

    /// A blob with its bytes.
    pub(super) fn blob(&mut self, bytes: &[u8]) -> FwpByteBlob {
        if bytes.is_empty() {
            return FwpByteBlob::default();
        }
        FwpByteBlob { size: bytes.len() as u32, data: self.put_slice(bytes) }
    }

    /// `FWP_UINT64`.
    pub(super) fn uint64(&mut self, value: u64) -> FwpValue0 {
        FwpValue0 { kind: consts::FWP_UINT64, value: ValueUnion { uint64: self.put(value) } }
    }

    /// An `FWP_CONDITION_VALUE0`.
    pub(super) fn value(&mut self, value: &ConditionValue) -> FwpValue0 {
        use ConditionValue as C;
        // The whole union is written in every case, so that a driver that copies it copies no stale bytes.
        let number = |raw: u64| ValueUnion { raw };
        let union = match value {
            C::Empty => number(0),
            C::Uint8(v) => number((*v).into()),
            C::Uint16(v) => number((*v).into()),
            C::Uint32(v) => number((*v).into()),
            C::Int8(v) => number(u64::from(*v as u8)),
            C::Int16(v) => number(u64::from(*v as u16)),
            C::Int32(v) => number(u64::from(*v as u32)),
            C::Float(v) => number(u64::from(v.to_bits())),
            C::Uint64(v) => ValueUnion { uint64: self.put(*v) },
            C::Int64(v) => ValueUnion { int64: self.put(*v) },
            C::Double(v) => ValueUnion { double64: self.put(*v) },
            C::ByteArray16(v) => ValueUnion { byte_array16: self.put(*v) },
            C::ByteArray6(v) => ValueUnion { byte_array6: self.put(*v) },
            C::ByteBlob(v) => {
                let blob = self.blob(v);
                ValueUnion { byte_blob: self.put(blob) }
            }
            C::SecurityDescriptor(v) => {
                let blob = self.blob(v);
                ValueUnion { sd: self.put(blob) }
            }
            C::Sid(v) => ValueUnion { sid: self.put_slice(v) },
            C::UnicodeString(v) => {
                let units: Vec<u16> = v.iter().copied().chain([0]).collect();
                ValueUnion { unicode_string: self.put_slice(&units) }
            }
            C::V4AddrMask { addr, mask } => {
                ValueUnion { v4_addr_mask: self.put(FwpV4AddrAndMask { addr: *addr, mask: *mask }) }
            }
            C::V6AddrMask { addr, prefix_length } => {
                let value = FwpV6AddrAndMask { addr: *addr, prefix_length: *prefix_length };
                ValueUnion { v6_addr_mask: self.put(value) }
            }
            C::Range { low, high } => {
                let range = FwpRange0 { value_low: self.value(low), value_high: self.value(high) };
                ValueUnion { range: self.put(range) }
            }
        };
        FwpValue0 { kind: value.data_type(), value: union }
    }
}
