//! HPACK's Huffman code (RFC 7541, 5.2 and appendix B), bit by bit.
//!
//! The code is canonical: codes of one length are consecutive numbers, in the order of their letters, and follow from
//! those of the length before. So the lengths are all that has to be written down.

/// The letter that ends a string and must not be in one.
const END: u16 = 256;
/// The longest code.
const LONGEST: usize = 30;

/// The bits of each letter's code, and of [`END`]'s.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// For each length, its first code, how many there are, and the place of its first letter in [`LETTERS`].
const CODES: [(u32, u32, u32); LONGEST + 1] = {
    let mut codes = [(0, 0, 0); LONGEST + 1];
    let mut letter = 0;
    while letter < LENGTHS.len() {
        codes[LENGTHS[letter] as usize].1 += 1;
        letter += 1;
    }
    let mut length = 1;
    while length <= LONGEST {
        let (first, count, place) = codes[length - 1];
        codes[length].0 = (first + count) << 1;
        codes[length].2 = place + count;
        length += 1;
    }
    codes
};

/// The letters, by the length of their codes.
const LETTERS: [u16; 257] = {
    let mut letters = [0; 257];
    let (mut place, mut length) = (0, 0);
    while length <= LONGEST {
        let mut letter = 0;
        while letter < LENGTHS.len() {
            if LENGTHS[letter] as usize == length {
                letters[place] = letter as u16;
                place += 1;
            }
            letter += 1;
        }
        length += 1;
    }
    letters
};

/// The bits of a letter that is not whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits {
    code: u32,
    length: u8,
}

impl Bits {
    pub(super) const NONE: Self = Self { code: 0, length: 0 };

    /// Takes a byte's bits, and hands out the letters they complete.
    ///
    /// Gives `None` where the string ends in the middle, or has a code that there is not.
    pub(super) fn push(&mut self, byte: u8, mut letter: impl FnMut(u8)) -> Option<()> {
        for at in (0..8).rev() {
            self.code = self.code << 1 | u32::from(byte >> at & 1);
            self.length += 1;
            let (first, count, place) = *CODES.get(usize::from(self.length))?;
            if let Some(offset) = self.code.checked_sub(first)
                && offset < count
            {
                let found = *LETTERS.get((place + offset) as usize)?;
                if found == END {
                    return None;
                }
                letter(found as u8);
                *self = Self::NONE;
            }
        }
        Some(())
    }

    /// Whether a string may end here: less than a byte is over, and all ones.
    pub(super) fn is_end(&self) -> bool {
        self.length < 8 && self.code == (1 << self.length) - 1
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut bits, mut text) = (Bits::NONE, Vec::new());
        for byte in bytes {
            bits.push(*byte, |letter| text.push(letter))?;
        }
        bits.is_end().then_some(text)
    }

    #[test]
    fn the_strings_of_the_rfc_are_decoded() {
        // RFC 7541, C.4.1 to C.4.3.
        assert_eq!(decode(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").unwrap(), b"www.example.com");
        assert_eq!(decode(b"\xa8\xeb\x10\x64\x9c\xbf").unwrap(), b"no-cache");
        assert_eq!(decode(b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf").unwrap(), b"custom-value");
    }

    #[test]
    fn endings_are_less_than_a_byte_of_ones() {
        assert_eq!(decode(b"\x1f").unwrap(), b"a");
        for bad in [&b"\x1e"[..], b"\x18", b"\x1f\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfc"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_another_encoder_wrote_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut coded = Vec::new();
            httlib_huffman::encode(&text, &mut coded).unwrap();
            prop_assert_eq!(decode(&coded), Some(text));
        }
    }
}
