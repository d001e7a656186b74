//! Any frames in packets that are sealed as they should be, and any bytes as datagrams.
#![no_main]

mod cuts;

use aes_gcm::{
    AeadInPlace, Aes128Gcm, KeyInit,
    aes::{Aes128, Block, cipher::BlockEncrypt},
};
use libfuzzer_sys::fuzz_target;
use sluice_content::{
    Answer,
    quic::{Connection, Window},
};

/// The destination, and its keys, of RFC 9001, appendix A.
const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const KEY: u128 = 0x1f36_9613_dd76_d546_7730_efcb_e3b1_a22d;
const IV: u128 = 0xfa04_4b2f_42a3_fd3b_46fb_255c;
const HEADER_KEY: u128 = 0x9f50_449e_04a0_e810_283a_1e99_33ad_edd2;

fn seal(number: u8, frames: &[u8]) -> Vec<u8> {
    let mut payload = frames.to_vec();
    payload.resize(frames.len().max(1170), 0);
    let length = ((payload.len() + 17) as u16 | 0x4000).to_be_bytes();
    let header = [&[0xc0, 0, 0, 0, 1, 8][..], &ID, &[0, 0], &length, &[number]].concat();
    let nonce: [u8; 16] = (IV ^ u128::from(number)).to_be_bytes();
    let tag = Aes128Gcm::new(&KEY.to_be_bytes().into())
        .encrypt_in_place_detached(nonce[4..].into(), &header, &mut payload)
        .expect("it is short enough");
    let at = header.len() - 1;
    let mut packet = [header, payload, tag.to_vec()].concat();
    let mut mask = Block::clone_from_slice(&packet[at + 4..at + 20]);
    Aes128::new(&HEADER_KEY.to_be_bytes().into()).encrypt_block(&mut mask);
    packet[0] ^= mask[0] & 0x0f;
    packet[at] ^= mask[1];
    packet
}

fuzz_target!(|input: &[u8]| {
    let Some((bytes, pieces)) = cuts::cut(input) else { return };
    let (mut connection, mut window) = (Connection::new(), Window::new());
    for (number, frames) in pieces.into_iter().enumerate().filter(|(_, frames)| frames.len() < 15_000) {
        let before = format!("{:?}", connection.answer());
        let after = cuts::checked(connection.push(&seal(number as u8, frames), &mut window));
        assert!(before == "NeedMore" || before == after);
        // What was opened is QUIC, whatever it says.
        assert!(connection.answer() != Answer::NotThis);
    }
    let mut connection = Connection::new();
    for datagram in bytes.chunks(1250) {
        connection.push(datagram, &mut window);
    }
});
