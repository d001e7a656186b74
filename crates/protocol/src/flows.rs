//! Live flows, as the driver keeps them.

use crate::Event;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One live flow: 312 bytes, little-endian, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Record {
    /// Whose it is and how the policy in force decides it, in the form of a decision. `sequence`, `time`, `filter_id`, `layer`,
    /// `lost` and `unrecorded` are 0; `verdict` is [`crate::event::verdict::NONE`] without a policy.
    pub flow: Event,
    /// Its place: that of its list in the upper half, and its own in the list in the lower. Places grow, with gaps; in a list
    /// they change when flows begin and end.
    pub number: u64,
    /// Packets that this machine sent.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets that it received.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// When it was established, in 100 ns since 1601-01-01 UTC, as the machine's clock stood then. The driver notes the
    /// time once a second, and Windows may put that off by half a second: so much earlier it may have been later.
    pub first: u64,
    /// When its last packet came, likewise; [`Record::first`] until the first one.
    pub last: u64,
}

const _: () = assert!(size_of::<Record>() == 312);

/// The lower half of [`Record::number`].
pub const PLACE_BITS: u32 = 32;
