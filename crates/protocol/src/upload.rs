//! How an image gets into the driver: announced, in parts, and then put in force.

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
