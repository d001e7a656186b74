//! Packets as NDIS describes them.

use wfp_sys::NET_BUFFER_LIST;

/// A chain of packets, borrowed for the duration of a classify.
#[derive(Clone, Copy)]
pub struct PacketList<'a>(&'a NET_BUFFER_LIST);

/// The size of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketTotals {
    /// Packets (net buffers).
    pub packets: u64,
    /// Their bytes, from where the layer puts the start of the data.
    pub bytes: u64,
}

impl<'a> PacketList<'a> {
    pub(super) const fn new(list: &'a NET_BUFFER_LIST) -> Self {
        Self(list)
    }

    /// Counts packets and bytes of the first list (a classify is about one list). IRQL <= DISPATCH_LEVEL.
    #[must_use]
    pub fn totals(self) -> PacketTotals {
        let mut totals = PacketTotals::default();
        let mut buffer = self.0.FirstNetBuffer.cast_const();
        // SAFETY: the list's chain of net buffers is valid while the list is lent; it ends with null.
        while let Some(current) = unsafe { buffer.as_ref() } {
            totals.packets += 1;
            totals.bytes += current.DataLength as u32 as u64; // the upper half of the union is not the length
            buffer = current.Next;
        }
        totals
    }
}
