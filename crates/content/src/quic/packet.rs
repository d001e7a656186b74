//! Opening a packet: header protection, the tag, and the payload piece by piece (RFC 9001, 5.3 and 5.4; AES-GCM is NIST
//! SP 800-38D).
//!
//! The tag is checked before a byte of the payload counts. Whoever sees a connection can compute its keys, so this
//! keeps nobody from forging packets; but a server drops a packet whose tag is wrong, and a program could otherwise
//! show a name here that the server never sees.

use aes::{
    Aes128Enc, Block,
    cipher::{BlockEncrypt, KeyInit},
};
use ghash::{GHash, universal_hash::UniversalHash};

use super::{header::Packet, keys::Keys};

/// The bytes of a block, and of a tag.
const BLOCK: usize = 16;
/// How many blocks are decrypted at once.
const AT_ONCE: usize = 8;

/// The payload of a packet whose tag is right, read from its front.
pub(super) struct Payload<'p> {
    cipher: Aes128Enc,
    nonce: u128,
    /// The number of the next block.
    counter: u32,
    /// What is not decrypted yet.
    sealed: &'p [u8],
    plain: [u8; BLOCK * AT_ONCE],
    /// What of `plain` is to be read.
    at: u8,
    end: u8,
}

/// A packet's number, from the bytes of it that were sent and the highest number before (RFC 9000, A.3).
fn full_number(sent: u64, bits: u32, expected: u64) -> u64 {
    let window = 1u64 << bits;
    let candidate = expected & !(window - 1) | sent;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

fn block(nonce: u128, counter: u32) -> Block {
    (nonce << 32 | u128::from(counter)).to_be_bytes().into()
}

/// Opens a packet whose number is probably `expected` or near it. Gives the payload and the number, if the tag is
/// right.
pub(super) fn open<'p>(packet: &Packet<'p>, keys: &Keys, expected: u64) -> Option<(Payload<'p>, u64)> {
    let (header, behind) = packet.bytes.split_at_checked(packet.number_at)?;
    let sample: &[u8; BLOCK] = behind.get(4..)?.first_chunk()?;
    let mut mask = Block::from(*sample);
    Aes128Enc::new(&keys.header.into()).encrypt_block(&mut mask);
    let mask: [u8; BLOCK] = mask.into();

    let first = header.first()? ^ mask[0] & 0x0f;
    let (number_bytes, body) = behind.split_at_checked(usize::from(first & 3) + 1)?;
    let mut number = [0; 4];
    let mut sent = 0;
    for ((place, byte), mask) in number.iter_mut().zip(number_bytes).zip(&mask[1..]) {
        *place = byte ^ mask;
        sent = sent << 8 | u64::from(*place);
    }
    let full = full_number(sent, 8 * number_bytes.len() as u32, expected);
    let nonce = keys.iv.iter().fold(0, |nonce, byte| nonce << 8 | u128::from(*byte)) ^ u128::from(full);

    let cipher = Aes128Enc::new(&keys.key.into());
    let (sealed, tag) = body.split_at_checked(body.len().checked_sub(BLOCK)?)?;
    let mut hash_key = Block::default();
    cipher.encrypt_block(&mut hash_key);
    let mut hash = GHash::new(&hash_key);
    hash_header(&mut hash, first, header, number.get(..number_bytes.len())?);
    hash.update_padded(sealed);
    let bits = |length: usize| length as u64 * 8;
    let lengths = u128::from(bits(header.len() + number_bytes.len())) << 64 | u128::from(bits(sealed.len()));
    hash.update(&[lengths.to_be_bytes().into()]);
    let mut pad = block(nonce, 1);
    cipher.encrypt_block(&mut pad);
    let expected: [u8; BLOCK] = hash.finalize().into();
    if !expected.iter().zip(pad).map(|(hash, pad)| hash ^ pad).eq(tag.iter().copied()) {
        return None;
    }
    let plain = [0; BLOCK * AT_ONCE];
    Some((Payload { cipher, nonce, counter: 2, sealed, plain, at: 0, end: 0 }, full))
}

/// Hashes the header as it was before it was protected.
fn hash_header(hash: &mut GHash, first: u8, header: &[u8], number: &[u8]) {
    let mut plain = [first].into_iter().chain(header.iter().skip(1).copied()).chain(number.iter().copied());
    loop {
        let mut part = [0; BLOCK];
        let mut filled = 0;
        for (place, byte) in part.iter_mut().zip(&mut plain) {
            *place = byte;
            filled += 1;
        }
        if filled > 0 {
            hash.update(&[part.into()]);
        }
        if filled < BLOCK {
            return;
        }
    }
}

impl Payload<'_> {
    /// Some bytes that were not read yet; none at the end.
    pub(super) fn ahead(&mut self) -> &[u8] {
        if self.at >= self.end {
            self.decrypt();
        }
        self.plain.get(usize::from(self.at)..usize::from(self.end)).unwrap_or_default()
    }

    /// Counts bytes of [`Payload::ahead`] as read.
    pub(super) fn advance(&mut self, count: usize) {
        self.at = self.at.saturating_add(count as u8);
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = self.ahead().first().copied();
        self.advance(1);
        byte
    }

    /// A variable-length integer (RFC 9000, 16).
    pub(super) fn integer(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let mut value = u64::from(first & 0x3f);
        for _ in 1..1 << (first >> 6) {
            value = value << 8 | u64::from(self.byte()?);
        }
        Some(value)
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, mut count: u64) -> Option<()> {
        while count > 0 {
            let ahead = self.ahead().len();
            if ahead == 0 {
                return None;
            }
            let step = count.min(ahead as u64);
            self.advance(step as usize);
            count -= step;
        }
        Some(())
    }

    /// Passes over zeros.
    pub(super) fn skip_zeros(&mut self) {
        loop {
            let ahead = self.ahead();
            let (words, _) = ahead.as_chunks::<BLOCK>();
            let whole = words.iter().take_while(|word| u128::from_ne_bytes(**word) == 0).count() * BLOCK;
            let rest = ahead.get(whole..).unwrap_or_default();
            let zeros = whole + rest.iter().take_while(|byte| **byte == 0).count();
            let all = zeros == ahead.len();
            let done = zeros == 0;
            self.advance(zeros);
            if !all || done {
                return;
            }
        }
    }

    fn decrypt(&mut self) {
        let (now, later) = self.sealed.split_at_checked(BLOCK * AT_ONCE).unwrap_or((self.sealed, &[]));
        let mut pads: [Block; AT_ONCE] =
            core::array::from_fn(|at| block(self.nonce, self.counter.wrapping_add(at as u32)));
        self.cipher.encrypt_blocks(&mut pads);
        let (blocks, rest) = now.as_chunks::<BLOCK>();
        let (places, _) = self.plain.as_chunks_mut::<BLOCK>();
        let mut open = places.iter_mut().zip(pads);
        for (sealed, (place, pad)) in blocks.iter().zip(&mut open) {
            *place = (u128::from_ne_bytes(*sealed) ^ u128::from_ne_bytes(pad.into())).to_ne_bytes();
        }
        if let Some((place, pad)) = open.next() {
            for (place, (byte, pad)) in place.iter_mut().zip(rest.iter().zip(pad)) {
                *place = byte ^ pad;
            }
        }
        self.counter = self.counter.wrapping_add(AT_ONCE as u32);
        (self.sealed, self.at, self.end) = (later, 0, now.len() as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::full_number;

    #[test]
    fn numbers_are_completed_as_the_rfc_shows() {
        // RFC 9000, A.3.
        assert_eq!(full_number(0x9b32, 16, 0xa82f_30ea + 1), 0xa82f_9b32);
        assert_eq!(full_number(0, 8, 0), 0);
        assert_eq!(full_number(0, 8, 255), 256);
        assert_eq!(full_number(255, 8, 257), 255);
        assert_eq!(full_number(u64::from(u32::MAX), 32, 0), u64::from(u32::MAX));
    }
}
