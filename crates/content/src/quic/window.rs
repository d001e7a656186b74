//! The start of a connection's handshake bytes, put together from pieces in any order.

use crate::answer::Reason;

/// How many bytes of the handshake are put together. Post-quantum hellos have some 1,800.
pub const WINDOW: usize = 4096;
/// The most gaps there may be. Browsers cut a hello into some ten pieces and shuffle them.
const MOST_RANGES: usize = 32;

/// The memory that a connection needs while its name is not found. It may be of anything before: a connection's first
/// datagram makes it empty. Its bytes may be elsewhere, [`WINDOW`] of them.
#[derive(Clone, Debug)]
pub struct Window<B = [u8; WINDOW]> {
    bytes: B,
    /// Where each run of bytes begins and ends. No two touch.
    ranges: [(u16, u16); MOST_RANGES],
    count: u8,
}

const _: () = assert!(size_of::<Window>() <= WINDOW + 132);

/// Why a piece is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    TooLong,
    Malformed(Reason),
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    /// Nothing there yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::on([0; WINDOW])
    }
}

impl<B> Window<B> {
    /// Nothing there yet, and these for its bytes. A connection that needs more of them is too long.
    #[must_use]
    pub const fn on(bytes: B) -> Self {
        Self { bytes, ranges: [(0, 0); MOST_RANGES], count: 0 }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Window<B> {
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// The bytes from the handshake's first to the first gap.
    pub(super) fn ready(&self) -> &[u8] {
        let end = self.ranges().iter().find(|(start, _)| *start == 0).map_or(0, |(_, end)| *end);
        self.bytes.as_ref().get(..usize::from(end)).unwrap_or_default()
    }

    fn ranges(&self) -> &[(u16, u16)] {
        self.ranges.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Puts a piece in its place. What was there before must be the same.
    pub(super) fn insert(&mut self, offset: u64, piece: &[u8]) -> Result<(), Refused> {
        let start = usize::try_from(offset).unwrap_or(WINDOW);
        let end = start.saturating_add(piece.len());
        if end > WINDOW {
            return Err(Refused::TooLong);
        }
        for (there, until) in self.ranges() {
            let (low, high) = (start.max(usize::from(*there)), end.min(usize::from(*until)));
            if low < high && self.bytes.as_ref().get(low..high) != piece.get(low - start..high - start) {
                return Err(Refused::Malformed(Reason::Overlap));
            }
        }
        let places = self.bytes.as_mut().get_mut(start..end).ok_or(Refused::TooLong)?;
        for (place, byte) in places.iter_mut().zip(piece) {
            *place = *byte;
        }
        if piece.is_empty() { Ok(()) } else { self.join(start as u16, end as u16) }
    }

    /// Adds a range, and makes one of it and of those that it touches.
    fn join(&mut self, mut start: u16, mut end: u16) -> Result<(), Refused> {
        let (mut joined, mut count) = ([(0, 0); MOST_RANGES], 0);
        let mut places = joined.iter_mut();
        for (there, until) in self.ranges() {
            if *until < start || end < *there {
                if let Some(place) = places.next() {
                    *place = (*there, *until);
                    count += 1;
                }
            } else {
                (start, end) = (start.min(*there), end.max(*until));
            }
        }
        *places.next().ok_or(Refused::TooLong)? = (start, end);
        (self.ranges, self.count) = (joined, count + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_beyond_the_window_and_too_many_gaps_are_refused() {
        let mut window = Window::new();
        assert_eq!(window.insert(WINDOW as u64, &[]), Ok(()));
        assert_eq!(window.insert(WINDOW as u64, &[1]), Err(Refused::TooLong));
        assert_eq!(window.insert(u64::MAX, &[1]), Err(Refused::TooLong));
        for gap in 0..MOST_RANGES as u64 {
            assert_eq!(window.insert(gap * 2 + 1, &[1]), Ok(()));
        }
        assert_eq!(window.insert(100, &[1]), Err(Refused::TooLong));
        assert_eq!(window.insert(2, &[1]), Ok(()));
        assert_eq!(window.insert(100, &[1]), Ok(()));
    }

    #[test]
    fn bytes_that_are_elsewhere_and_too_few_are_too_few() {
        let mut bytes = [0; 10];
        let mut window = Window::on(&mut bytes[..]);
        assert_eq!(window.insert(4, b"efgh"), Ok(()));
        assert_eq!(window.insert(8, b"ijk"), Err(Refused::TooLong));
        assert_eq!(window.insert(0, b"abcd"), Ok(()));
        assert_eq!(window.ready(), b"abcdefgh");
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_are_put_together(
            pieces in proptest::collection::vec((0usize..300, 0usize..60, any::<bool>()), 0..30),
        ) {
            let truth: Vec<u8> = (0..400u32).map(|at| (at * 7 + at / 256) as u8).collect();
            let (mut window, mut there) = (Window::new(), vec![false; 400]);
            for (start, length, wrong) in pieces {
                let mut piece = truth[start..start + length].to_vec();
                let known = (start..start + length).any(|at| there[at]);
                if wrong && known {
                    let at = (0..length).find(|at| there[start + at]).unwrap();
                    piece[at] ^= 1;
                    prop_assert_eq!(window.insert(start as u64, &piece), Err(Refused::Malformed(Reason::Overlap)));
                } else {
                    prop_assert_eq!(window.insert(start as u64, &piece), Ok(()));
                    there[start..start + length].fill(true);
                }
                let ready = there.iter().position(|there| !there).unwrap_or(400);
                prop_assert_eq!(window.ready(), &truth[..ready]);
            }
        }
    }
}
