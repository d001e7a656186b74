//! What `tokenAccessInformation` of a classify holds (winnt.h), as far as needed to find the user and groups. `wdk-sys`
//! generates no bindings for ntifs.h, which declares these for kernel code.

use core::mem::{offset_of, size_of};

use wdk_sys::PVOID;

/// SID_AND_ATTRIBUTES.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_snake_case, reason = "the names are those of C")]
pub struct SID_AND_ATTRIBUTES {
    /// The SID, self-contained.
    pub Sid: PVOID,
    /// SE_GROUP_*.
    pub Attributes: u32,
}

/// The head of SID_AND_ATTRIBUTES_HASH; the table after it speeds up access checks.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_snake_case, reason = "the names are those of C")]
pub struct SID_AND_ATTRIBUTES_HASH {
    /// How many `SidAttr` points to.
    pub SidCount: u32,
    /// The user and its groups, the user first.
    pub SidAttr: *const SID_AND_ATTRIBUTES,
}

/// The head of TOKEN_ACCESS_INFORMATION.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_snake_case, reason = "the names are those of C")]
pub struct TOKEN_ACCESS_INFORMATION {
    /// The user and its groups.
    pub SidHash: *const SID_AND_ATTRIBUTES_HASH,
}

const _: () = {
    assert!(offset_of!(TOKEN_ACCESS_INFORMATION, SidHash) == 0);
    assert!(offset_of!(SID_AND_ATTRIBUTES_HASH, SidAttr) == 8);
    assert!(size_of::<SID_AND_ATTRIBUTES>() == 16);
};
