//! Names of addresses, as the driver has learned them from answers of DNS.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The longest name that the driver keeps, in bytes.
pub const LONGEST: usize = 104;

/// One name of one address: 136 bytes, little-endian, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Record {
    /// Its place. Numbers grow, with gaps.
    pub number: u64,
    /// The address in network order; IPv4 in the form `::ffff:192.0.2.1`.
    pub address: [u8; 16],
    /// For how many seconds more it is known.
    pub seconds: u32,
    /// How many bytes of [`Record::name`] are used.
    pub name_bytes: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The name, in lower case and without a final dot.
    pub name: [u8; LONGEST],
}

const _: () = assert!(size_of::<Record>() == 136);

impl Record {
    /// The bytes of the name that count.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.name_bytes)).unwrap_or_default()
    }
}
