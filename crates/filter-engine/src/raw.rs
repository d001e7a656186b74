//! Condition values as drivers see them.

use crate::condition::ConditionValue;
use nt_abi::fwp::arena::Arena;
use nt_abi::fwp::{FwpRange0, FwpV4AddrAndMask, FwpV6AddrAndMask, FwpValue0, ValueUnion};

impl ConditionValue {
    /// The `FWP_CONDITION_VALUE0`, its pointers into `arena`.
    pub(crate) fn put(&self, arena: &mut Arena) -> FwpValue0 {
        use ConditionValue as C;
        // The whole union is written in every case, so that a driver that copies it does not copy stale bytes.
        let number = |raw: u64| ValueUnion { raw };
        let union = match self {
            C::Empty => number(0),
            C::Uint8(v) => number((*v).into()),
            C::Uint16(v) => number((*v).into()),
            C::Uint32(v) => number((*v).into()),
            C::Int8(v) => number(u64::from(*v as u8)),
            C::Int16(v) => number(u64::from(*v as u16)),
            C::Int32(v) => number(u64::from(*v as u32)),
            C::Float(v) => number(u64::from(v.to_bits())),
            C::Uint64(v) => ValueUnion { uint64: arena.put(*v) },
            C::Int64(v) => ValueUnion { int64: arena.put(*v) },
            C::Double(v) => ValueUnion { double64: arena.put(*v) },
            C::ByteArray16(v) => ValueUnion { byte_array16: arena.put(*v) },
            C::ByteArray6(v) => ValueUnion { byte_array6: arena.put(*v) },
            C::ByteBlob(v) => {
                let blob = arena.blob(v);
                ValueUnion { byte_blob: arena.put(blob) }
            }
            C::SecurityDescriptor(v) => {
                let blob = arena.blob(v);
                ValueUnion { sd: arena.put(blob) }
            }
            C::Sid(v) => ValueUnion { sid: arena.put_slice(v) },
            C::UnicodeString(v) => {
                let units: Vec<u16> = v.iter().copied().chain([0]).collect();
                ValueUnion { unicode_string: arena.put_slice(&units) }
            }
            C::V4AddrMask { addr, mask } => {
                ValueUnion { v4_addr_mask: arena.put(FwpV4AddrAndMask { addr: *addr, mask: *mask }) }
            }
            C::V6AddrMask { addr, prefix_length } => {
                let value = FwpV6AddrAndMask { addr: *addr, prefix_length: *prefix_length };
                ValueUnion { v6_addr_mask: arena.put(value) }
            }
            C::Range { low, high } => {
                let range = FwpRange0 { value_low: low.put(arena), value_high: high.put(arena) };
                ValueUnion { range: arena.put(range) }
            }
        };
        FwpValue0 { kind: self.data_type(), value: union }
    }
}
