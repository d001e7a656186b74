//! The structures that cross the import boundary between a callout driver and fwpkclnt.sys.
//!
//! Written a second time, from the published layouts and not from a header, so that an error in the driver's generated
//! bindings is not hidden by the same error in the simulator. Every offset and size is asserted when this crate is
//! compiled. Members keep their Windows names in snake case; pointers are raw, and point into the memory of whatever
//! filled the structure in.
#![allow(missing_docs, reason = "members are named as in fwptypes.h, fwpstypes.h and fwpmtypes.h")]

pub mod arena;
pub mod consts;
mod fwpm;
mod fwps;
pub mod value;

pub use fwpm::*;
pub use fwps::*;

use sluice_host::Guid;

/// Asserts the size, the alignment and the offset of every named member of a structure at compile time.
macro_rules! layout {
    ($type:ty, $size:literal, $align:literal, { $($field:ident: $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size, concat!("size of ", stringify!($type)));
            assert!(align_of::<$type>() == $align, concat!("alignment of ", stringify!($type)));
            $(assert!(
                core::mem::offset_of!($type, $field) == $offset,
                concat!("offset of ", stringify!($type), ".", stringify!($field))
            );)*
        };
    };
}
use layout;

/// `GUID` in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawGuid {
    pub data1: u32,
    pub data2: u16,
    pub data3: u16,
    pub data4: [u8; 8],
}
layout!(RawGuid, 16, 4, { data1: 0, data2: 4, data3: 6, data4: 8 });

impl From<Guid> for RawGuid {
    fn from(Guid(v): Guid) -> Self {
        Self {
            data1: (v >> 96) as u32,
            data2: (v >> 80) as u16,
            data3: (v >> 64) as u16,
            data4: (v as u64).to_be_bytes(),
        }
    }
}

impl From<RawGuid> for Guid {
    fn from(raw: RawGuid) -> Self {
        Self(
            u128::from(raw.data1) << 96
                | u128::from(raw.data2) << 80
                | u128::from(raw.data3) << 64
                | u128::from(u64::from_be_bytes(raw.data4)),
        )
    }
}

/// `FWP_BYTE_BLOB`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpByteBlob {
    pub size: u32,
    pub data: *mut u8,
}
layout!(FwpByteBlob, 16, 8, { size: 0, data: 8 });

impl Default for FwpByteBlob {
    fn default() -> Self {
        Self { size: 0, data: core::ptr::null_mut() }
    }
}

/// `FWP_VALUE0`: a type and eight bytes that hold the value (integers to 32 bits, `float`) or point to it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FwpValue0 {
    pub kind: u32,
    pub value: ValueUnion,
}
layout!(FwpValue0, 16, 8, { kind: 0, value: 8 });

/// The union of `FWP_VALUE0` and `FWP_CONDITION_VALUE0`.
#[repr(C)]
#[derive(Clone, Copy)]
pub union ValueUnion {
    pub uint8: u8,
    pub uint16: u16,
    pub uint32: u32,
    pub uint64: *const u64,
    pub int8: i8,
    pub int16: i16,
    pub int32: i32,
    pub int64: *const i64,
    pub float32: f32,
    pub double64: *const f64,
    pub byte_array16: *const [u8; 16],
    pub byte_array6: *const [u8; 6],
    pub byte_blob: *const FwpByteBlob,
    pub sid: *const u8,
    pub sd: *const FwpByteBlob,
    pub token_information: *const FwpTokenInformation,
    pub token_access_information: *const FwpByteBlob,
    pub unicode_string: *const u16,
    pub v4_addr_mask: *const FwpV4AddrAndMask,
    pub v6_addr_mask: *const FwpV6AddrAndMask,
    pub range: *const FwpRange0,
    /// All eight bytes, whatever they mean.
    pub raw: u64,
}
const _: () = assert!(size_of::<ValueUnion>() == 8);

impl FwpValue0 {
    /// `FWP_EMPTY`.
    pub const EMPTY: Self = Self { kind: consts::FWP_EMPTY, value: ValueUnion { raw: 0 } };
}

impl Default for FwpValue0 {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl core::fmt::Debug for FwpValue0 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // SAFETY: every bit pattern of the eight bytes is a u64, and all of them are initialised by every constructor.
        let raw = unsafe { self.value.raw };
        write!(f, "FwpValue0(type {}, {raw:#x})", self.kind)
    }
}

/// `FWP_RANGE0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FwpRange0 {
    pub value_low: FwpValue0,
    pub value_high: FwpValue0,
}
layout!(FwpRange0, 32, 8, { value_low: 0, value_high: 16 });

/// `FWP_V4_ADDR_AND_MASK`, both in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FwpV4AddrAndMask {
    pub addr: u32,
    pub mask: u32,
}
layout!(FwpV4AddrAndMask, 8, 4, { addr: 0, mask: 4 });

/// `FWP_V6_ADDR_AND_MASK`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FwpV6AddrAndMask {
    pub addr: [u8; 16],
    pub prefix_length: u8,
}
layout!(FwpV6AddrAndMask, 17, 1, { addr: 0, prefix_length: 16 });

/// `FWP_TOKEN_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FwpTokenInformation {
    pub sid_count: u32,
    pub sids: *const SidAndAttributes,
    pub restricted_sid_count: u32,
    pub restricted_sids: *const SidAndAttributes,
}
layout!(FwpTokenInformation, 32, 8, { sid_count: 0, sids: 8, restricted_sid_count: 16, restricted_sids: 24 });

/// `SID_AND_ATTRIBUTES`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SidAndAttributes {
    pub sid: *const u8,
    pub attributes: u32,
}
layout!(SidAndAttributes, 16, 8, { sid: 0, attributes: 8 });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_keeps_its_written_order() {
        let guid = Guid(0xc38d57d1_05a7_4c33_904f_7fbceee60e82);
        let raw = RawGuid::from(guid);
        assert_eq!((raw.data1, raw.data2, raw.data3), (0xc38d_57d1, 0x05a7, 0x4c33));
        assert_eq!(raw.data4, [0x90, 0x4f, 0x7f, 0xbc, 0xee, 0xe6, 0x0e, 0x82]);
        assert_eq!(Guid::from(raw), guid);
    }
}
