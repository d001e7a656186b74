//! Packets as NDIS describes them.

use core::{ptr::from_ref, slice};

use super::bytes::Place;
use wfp_sys::{NET_BUFFER, NET_BUFFER_LIST, NdisGetDataBuffer};

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

    /// The packets of the first list (a classify is about one list). IRQL <= DISPATCH_LEVEL.
    pub fn iter(self) -> impl Iterator<Item = Packet<'a>> {
        let mut buffer = self.0.FirstNetBuffer.cast_const();
        core::iter::from_fn(move || {
            // SAFETY: the list's chain of net buffers is valid while the list is lent; it ends with null.
            let current = unsafe { buffer.as_ref::<'a>() }?;
            buffer = current.Next;
            Some(Packet(current))
        })
    }

    /// Counts packets and bytes. IRQL <= DISPATCH_LEVEL.
    #[must_use]
    pub fn totals(self) -> PacketTotals {
        let mut totals = PacketTotals::default();
        for packet in self.iter() {
            totals.packets += 1;
            totals.bytes += u64::from(packet.length());
        }
        totals
    }
}

/// One packet, lent for the time of a classify.
#[derive(Clone, Copy)]
pub struct Packet<'a>(&'a NET_BUFFER);

impl Packet<'_> {
    /// How many bytes it has from where the layer puts the start of the data.
    #[must_use]
    pub const fn length(self) -> u32 {
        self.0.DataLength as u32 // the upper half of the union is not the length
    }

    /// Gives `visit` copies of its bytes from the one at `skip` on, in order and in pieces of 512, until it returns false.
    /// False when it has not so many, or its pages cannot be mapped for want of memory. IRQL <= DISPATCH_LEVEL.
    #[must_use]
    pub fn read(self, skip: u32, visit: impl FnMut(&[u8]) -> bool) -> bool {
        // SAFETY: the net buffer is lent, so its MDLs and their pages are.
        let place = unsafe { Place::beginning_of(self.0) };
        place.copy_pieces(skip as usize, self.length() as usize, visit)
    }

    /// Its first bytes, as many as `room` has; all of them where it is shorter. Empty when NDIS cannot map them for want
    /// of memory. IRQL <= DISPATCH_LEVEL.
    pub fn beginning<const N: usize>(self, room: &mut [u8; N]) -> &[u8] {
        let wanted = self.length().min(N as u32);
        // SAFETY: the net buffer is lent, so its MDLs are; NDIS writes at most the bytes that are asked for to the
        // storage, which are no more than it has room for. Alignment 1 and offset 0 ask for none.
        let bytes = unsafe { NdisGetDataBuffer(from_ref(self.0).cast_mut(), wanted, room.as_mut_ptr().cast(), 1, 0) };
        if bytes.is_null() || wanted == 0 {
            return &[];
        }
        // SAFETY: so many bytes lie there: in the storage, which is borrowed as long as the slice, or in the packet,
        // which is lent for longer.
        unsafe { slice::from_raw_parts(bytes.cast::<u8>(), wanted as usize) }
    }
}
