//! The first packets of QUIC clients, sealed by another AES-GCM than the driver's.

use aes::cipher::BlockEncrypt;
use aes_gcm::{AeadInPlace, Aes128Gcm, KeyInit};

/// The destination of the example in RFC 9001, and the keys that it has for a client's Initial packets (A.1).
const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const KEY: u128 = 0x1f369613dd76d5467730efcbe3b1a22d;
const IV: u128 = 0xfa044b2f42a3fd3b46fb255c;
const HEADER: u128 = 0x9f50449e04a0e810283a1e9933adedd2;

/// A datagram of 1,200 bytes with one Initial packet of version 1.
pub(crate) fn initial(number: u8, frames: &[u8]) -> Vec<u8> {
    let mut payload = frames.to_vec();
    payload.resize(1200 - 18 - 1 - 16, 0);
    let mut header = [&[0xc0, 0, 0, 0, 1, 8][..], &ID, &[0, 0]].concat();
    header.extend((0x4000 | (1 + payload.len() + 16) as u16).to_be_bytes());
    header.push(number);
    let nonce = (IV ^ u128::from(number)).to_be_bytes();
    let cipher = Aes128Gcm::new(&KEY.to_be_bytes().into());
    let tag = cipher.encrypt_in_place_detached(nonce[4..].into(), &header, &mut payload).unwrap();
    let mut packet = [header, payload, tag.to_vec()].concat();
    // The mask of the header: its sample begins four bytes behind the number's first.
    let at = 5 + 1 + ID.len() + 1 + 1 + 2;
    let mut mask = aes::Block::clone_from_slice(&packet[at + 4..at + 20]);
    aes::Aes128::new(&HEADER.to_be_bytes().into()).encrypt_block(&mut mask);
    packet[0] ^= mask[0] & 0x0f;
    packet[at] ^= mask[1];
    assert_eq!(packet.len(), 1200);
    packet
}

/// A CRYPTO frame with a part of a message.
pub(crate) fn crypto(message: &[u8], start: usize, end: usize) -> Vec<u8> {
    let integer = |value: usize| (value as u16 | 0x4000).to_be_bytes();
    [&[6][..], &integer(start), &integer(end - start), &message[start..end]].concat()
}
