//! How an image gets into the driver: announced, in parts, and then put in force; and out again, in parts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The input of [`crate::ioctl::BEGIN_POLICY`]: 8 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Begin {
    /// The image's length.
    pub bytes: u64,
}

/// The head of the input of [`crate::ioctl::POLICY_PART`]: 8 bytes, little-endian. The part's bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Part {
    /// The part's place in the image: the end of the part before.
    pub offset: u64,
}

/// The input of [`crate::ioctl::READ_POLICY`]: 16 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Wanted {
    /// The place in the image.
    pub offset: u64,
    /// The policy's generation, so that parts of two images do not become one.
    pub epoch: u32,
    /// 0.
    pub reserved: u32,
}
