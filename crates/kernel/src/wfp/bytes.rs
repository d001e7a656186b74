//! Bytes in chains of MDLs, as NDIS has packets and pieces of streams.
//!
//! What a program sends may lie in its own pages, locked but still writable by it. So bytes are copied out once, piece
//! by piece, and only the copies are looked at.

use core::{marker::PhantomData, ptr::null_mut};

use wdk_sys::{
    _MEMORY_CACHING_TYPE::MmCached, _MM_PAGE_PRIORITY::LowPagePriority, MDL, MDL_MAPPED_TO_SYSTEM_VA,
    MDL_SOURCE_IS_NONPAGED_POOL, MdlMappingNoExecute, ntddk::MmMapLockedPagesSpecifyCache,
};
use wfp_sys::{NET_BUFFER, NET_BUFFER_LIST};

/// The most bytes that are copied at once, to the stack.
const PIECE: usize = 512;

/// A place in the bytes of a chain of NET_BUFFER_LISTs, each with a chain of NET_BUFFERs, each with a chain of MDLs; all
/// lent for `'a`.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    list: *const NET_BUFFER_LIST,
    buffer: *const NET_BUFFER,
    mdl: *const MDL,
    /// Of the next byte in the MDL.
    offset: usize,
    /// Bytes from there on in the net buffer.
    left: usize,
    lent: PhantomData<&'a NET_BUFFER_LIST>,
}

impl<'a> Place<'a> {
    /// The first byte of a net buffer, and of those behind it.
    ///
    /// # Safety
    /// The net buffer, its chains and the pages they describe are valid for `'a`.
    pub(super) unsafe fn beginning_of(buffer: &'a NET_BUFFER) -> Self {
        Self { list: null_mut(), lent: PhantomData, ..of_buffer(buffer) }
    }

    /// The byte `offset` of `mdl`, in a net buffer of `list`. None when the MDL is not one of the net buffer's.
    ///
    /// # Safety
    /// The list, its chains and the pages they describe are valid for `'a`; `buffer` is null or one of its net buffers.
    pub(super) unsafe fn at(
        list: *const NET_BUFFER_LIST,
        buffer: *const NET_BUFFER,
        mdl: *const MDL,
        offset: usize,
    ) -> Option<Self> {
        if mdl.is_null() {
            return None;
        }
        // SAFETY: null or valid, by this function's contract.
        let mut place = Self { list, ..of_buffer(unsafe { buffer.as_ref() }?) };
        while place.mdl != mdl {
            place = place.in_next_mdl()?;
        }
        let further = offset.checked_sub(place.offset)?;
        Some(Self { offset, left: place.left.checked_sub(further)?, ..place })
    }

    /// Gives `visit` copies of the bytes from `skip` to `end`, in order, until it returns false. False when there are not
    /// so many, or when pages cannot be mapped for want of memory. IRQL <= DISPATCH_LEVEL.
    pub(super) fn copy_pieces(self, skip: usize, end: usize, mut visit: impl FnMut(&[u8]) -> bool) -> bool {
        let (mut place, mut before, mut left) = (self, skip, end.saturating_sub(skip));
        while before > 0 {
            let Some((next, count)) = place.here() else { return false };
            let step = count.min(before);
            place = next.advanced(step);
            before -= step;
        }
        let mut room = [0; PIECE];
        while left > 0 {
            let mut filled = 0;
            while let Some(free) = room.get_mut(filled..).filter(|free| left > 0 && !free.is_empty()) {
                let Some((next, count)) = place.here() else { return false };
                let wanted = count.min(left).min(free.len());
                let Some(from) = next.mapped() else { return false };
                // SAFETY: `here` says that `count` bytes of the MDL are there, and the mapping is of all of it; as many are
                // free. The room is not part of the chain.
                unsafe { from.copy_to_nonoverlapping(free.as_mut_ptr(), wanted) };
                filled += wanted;
                left -= wanted;
                place = next.advanced(wanted);
            }
            if !visit(room.get(..filled).unwrap_or_default()) {
                break;
            }
        }
        true
    }

    /// The same place, or the next one that has bytes, and how many of them the MDL has from there on.
    fn here(self) -> Option<(Self, usize)> {
        let mut place = self;
        loop {
            while place.left == 0 {
                place = place.in_next_buffer()?;
            }
            // SAFETY: an MDL of the chain, which is lent; null at its end.
            let mdl = unsafe { place.mdl.as_ref() }?;
            let count = (mdl.ByteCount as usize).saturating_sub(place.offset).min(place.left);
            if count > 0 {
                return Some((place, count));
            }
            place = place.in_next_mdl()?;
        }
    }

    /// So many bytes further, which this MDL has.
    fn advanced(self, count: usize) -> Self {
        Self { offset: self.offset.saturating_add(count), left: self.left.saturating_sub(count), ..self }
    }

    /// The first byte of the next MDL of the net buffer.
    fn in_next_mdl(self) -> Option<Self> {
        // SAFETY: an MDL of the chain, which is lent; null at its end.
        let mdl = unsafe { self.mdl.as_ref() }?;
        let here = (mdl.ByteCount as usize).saturating_sub(self.offset);
        Some(Self { mdl: mdl.Next, offset: 0, left: self.left.checked_sub(here)?, ..self })
    }

    /// The first byte of the next net buffer, of this list or of the next.
    fn in_next_buffer(self) -> Option<Self> {
        // SAFETY: a net buffer of the chain, which is lent; null at its end.
        let next = unsafe { self.buffer.as_ref() }?.Next;
        // SAFETY: as above.
        if let Some(buffer) = unsafe { next.as_ref() } {
            return Some(Self { list: self.list, ..of_buffer(buffer) });
        }
        // SAFETY: a list of the chain, which is lent; null at its end, and where there is no list.
        let list = unsafe { self.list.as_ref() }?.Next;
        // SAFETY: as above.
        let first = unsafe { list.as_ref() }?.FirstNetBuffer;
        // SAFETY: as above.
        Some(Self { list, ..of_buffer(unsafe { first.as_ref() }?) })
    }

    /// Where the next byte is mapped; None when there is no memory for that. As MmGetSystemAddressForMdlSafe does it.
    fn mapped(self) -> Option<*const u8> {
        const KERNEL_MODE: i8 = 0;
        const NO: u32 = 0;
        const MAPPED: u32 = MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL;
        // SAFETY: an MDL of the chain, which is lent.
        let mdl = unsafe { self.mdl.as_ref() }?;
        let address = if mdl.MdlFlags as u32 & MAPPED != 0 {
            mdl.MappedSystemVa
        } else {
            let priority = LowPagePriority as u32 | MdlMappingNoExecute;
            // SAFETY: the MDL of stream or datagram data describes locked pages; they are not mapped yet. The mapping
            // belongs to the MDL and ends with it. Null, and no stop, when there is no memory.
            unsafe {
                MmMapLockedPagesSpecifyCache(self.mdl.cast_mut(), KERNEL_MODE as _, MmCached, null_mut(), NO, priority)
            }
        };
        (!address.is_null()).then(|| address.cast::<u8>().cast_const().wrapping_byte_add(self.offset))
    }
}

fn of_buffer<'a>(buffer: &NET_BUFFER) -> Place<'a> {
    Place {
        list: null_mut(),
        buffer,
        mdl: buffer.CurrentMdl,
        offset: buffer.CurrentMdlOffset as usize,
        left: buffer.DataLength as u32 as usize, // the upper half of the union is not the length
        lent: PhantomData,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{boxed::Box, vec::Vec};

    /// Every text is an MDL, every inner list a net buffer, every outer one a list.
    fn chain(lists: &[&[&[&[u8]]]]) -> (*mut NET_BUFFER_LIST, *mut NET_BUFFER) {
        let mut next_list = null_mut();
        for buffers in lists.iter().rev() {
            let mut next_buffer = null_mut();
            for texts in buffers.iter().rev() {
                let mut next_mdl = null_mut();
                for text in texts.iter().rev() {
                    // SAFETY: numbers and null pointers.
                    let mut mdl: Box<MDL> = Box::new(unsafe { core::mem::zeroed() });
                    (mdl.Next, mdl.MdlFlags) = (next_mdl, MDL_SOURCE_IS_NONPAGED_POOL as i16);
                    (mdl.MappedSystemVa, mdl.ByteCount) =
                        (Box::leak(Box::<[u8]>::from(*text)).as_mut_ptr().cast(), text.len() as u32);
                    next_mdl = Box::into_raw(mdl);
                }
                // SAFETY: as above.
                let mut buffer: Box<NET_BUFFER> = Box::new(unsafe { core::mem::zeroed() });
                (buffer.Next, buffer.CurrentMdl, buffer.MdlChain) = (next_buffer, next_mdl, next_mdl);
                buffer.DataLength = texts.iter().map(|text| text.len()).sum();
                next_buffer = Box::into_raw(buffer);
            }
            // SAFETY: as above.
            let mut list: Box<NET_BUFFER_LIST> = Box::new(unsafe { core::mem::zeroed() });
            (list.Next, list.FirstNetBuffer) = (next_list, next_buffer);
            next_list = Box::into_raw(list);
        }
        // SAFETY: made above.
        (next_list, unsafe { (*next_list).FirstNetBuffer })
    }

    fn read(place: Place<'_>, skip: usize, end: usize) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let whole = place.copy_pieces(skip, end, |piece| {
            all.extend_from_slice(piece);
            true
        });
        whole.then_some(all)
    }

    #[test]
    fn bytes_are_found_across_mdls_buffers_and_lists() {
        let (list, buffer) = chain(&[&[&[b"ab", b"", b"cd"], &[b""]], &[&[b"e"], &[b"fgh", b"i"]]]);
        // SAFETY: made above, and never freed.
        let (place, mdl) = unsafe { (Place::at(list, buffer, (*buffer).CurrentMdl, 0).unwrap(), (*buffer).CurrentMdl) };
        for skip in 0..=9 {
            for end in skip..=9 {
                assert_eq!(read(place, skip, end).unwrap(), b"abcdefghi"[skip..end], "{skip} {end}");
            }
        }
        assert_eq!(read(place, 0, 10), None, "there are nine");
        // SAFETY: as above.
        let third = unsafe { (*(*mdl).Next).Next };
        // SAFETY: as above.
        let inside = unsafe { Place::at(list, buffer, third, 1) }.unwrap();
        assert_eq!(read(inside, 1, 6).unwrap(), b"efghi");
        // SAFETY: as above.
        assert!(unsafe { Place::at(list, buffer, null_mut(), 0) }.is_none());
        // SAFETY: as above.
        assert_eq!(read(unsafe { Place::beginning_of(&*buffer) }, 0, 4).unwrap(), b"abcd");
    }

    #[test]
    fn a_net_buffer_ends_where_it_says() {
        let (list, buffer) = chain(&[&[&[b"head-abcd-tail"], &[b"efg"]]]);
        // SAFETY: made above, and never freed.
        unsafe { ((*buffer).CurrentMdlOffset, (*buffer).DataLength) = (5, 4) };
        // SAFETY: as above.
        let place = unsafe { Place::at(list, buffer, (*buffer).CurrentMdl, 5) }.unwrap();
        assert_eq!(read(place, 0, 7).unwrap(), b"abcdefg");
        // SAFETY: as above.
        let later = unsafe { Place::at(list, buffer, (*buffer).CurrentMdl, 7) }.unwrap();
        assert_eq!(read(later, 0, 5).unwrap(), b"cdefg");
        // SAFETY: as above.
        assert!(unsafe { Place::at(list, buffer, (*buffer).CurrentMdl, 4) }.is_none(), "before its data");
    }

    #[test]
    fn long_bytes_come_in_pieces_and_a_mapping_that_fails_is_told() {
        let text: Vec<u8> = (0..2000_u32).map(|number| number as u8).collect();
        let (_, buffer) = chain(&[&[&[&text[..700], &text[700..]]]]);
        // SAFETY: made above, and never freed.
        let place = unsafe { Place::beginning_of(&*buffer) };
        assert_eq!(read(place, 0, 2000).unwrap(), text);
        let mut sizes = Vec::new();
        place.copy_pieces(10, 1100, |piece| {
            sizes.push(piece.len());
            sizes.len() < 2
        });
        assert_eq!(sizes, [PIECE, PIECE]);
        // SAFETY: as above. The double of MmMapLockedPagesSpecifyCache finds no memory.
        unsafe { (*(*buffer).CurrentMdl).MdlFlags = 0 };
        assert_eq!(read(place, 0, 2000), None);
        assert_eq!(read(place, 700, 2000).unwrap(), text[700..], "what is skipped need not be mapped");
    }
}
