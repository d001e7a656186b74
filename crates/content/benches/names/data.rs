//! Requests as programs send them, each for another name.

use aes_gcm::{
    AeadInPlace, Aes128Gcm, KeyInit,
    aes::{Aes128, Block, cipher::BlockEncrypt},
};

fn name(at: usize) -> String {
    format!("www.shop-{at}.{}example.com", "europe-".repeat(at % 3))
}

/// Bytes behind their length, in `size` bytes.
fn sized(size: usize, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_be_bytes()[8 - size..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

/// The hello of a browser, with a key share of `share` bytes.
fn hello(at: usize, share: usize) -> Vec<u8> {
    let host = [&[0][..], &sized(2, name(at).as_bytes())].concat();
    let extensions = [
        extension(0x3a3a, &[]),
        extension(0x0017, &[]),
        extension(0xff01, &[0]),
        extension(0x000a, &[0; 12]),
        extension(0x000b, &[1, 0]),
        extension(0x0023, &[]),
        extension(0x0010, &sized(2, b"\x02h2\x08http/1.1")),
        extension(0x0005, &[1, 0, 0, 0, 0]),
        extension(0x0000, &sized(2, &host)),
        extension(0x000d, &[4; 18]),
        extension(0x0033, &vec![5; share + 11]),
        extension(0x002d, &[1, 1]),
        extension(0x002b, &[6; 7]),
        extension(0x001b, &[2, 0, 2]),
        extension(0xfe0d, &[7; 218]),
        extension(0xcaca, &[0]),
    ];
    let start = [&[3, 3][..], &[7; 32], &sized(1, &[9; 32]), &sized(2, &[0x13; 32]), &sized(1, &[0])].concat();
    [vec![1], sized(3, &[start, sized(2, &extensions.concat())].concat())].concat()
}

pub(crate) fn tls(at: usize, share: usize) -> Vec<u8> {
    [&[22, 3, 1][..], &sized(2, &hello(at, share))].concat()
}

pub(crate) fn curl(at: usize) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n", name(at)).into_bytes()
}

pub(crate) fn browser(at: usize) -> Vec<u8> {
    format!(
        "GET /articles/2026/11/{at}?ref=home HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive\r\n\
         Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
         (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,\
         application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate\r\n\
         Accept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n",
        name(at)
    )
    .into_bytes()
}

pub(crate) fn http2(at: usize) -> Vec<u8> {
    let block = [
        &[0x82, 0x86, 0x84, 0x41][..],
        &sized(1, name(at).as_bytes()),
        &[0x40],
        &sized(1, b"accept"),
        &sized(1, b"*/*"),
    ];
    let block = block.concat();
    let frame = |kind, flags, stream, content: &[u8]| {
        [&sized(3, content)[..3], &[kind, flags, 0, 0, 0, stream], content].concat()
    };
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, &[0; 18]),
        &frame(8, 0, 0, &[1; 4]),
        &frame(1, 5, 1, &block),
    ]
    .concat()
}

fn message(flags: u16, answers: u8, additional: u8, at: usize) -> Vec<u8> {
    let header = [&[1, 2][..], &flags.to_be_bytes(), &[0, 1, 0, answers, 0, 0, 0, additional]].concat();
    let labels: Vec<u8> = name(at).split('.').flat_map(|label| sized(1, label.as_bytes())).collect();
    [header, labels, vec![0, 0, 1, 0, 1]].concat()
}

pub(crate) fn question(at: usize) -> Vec<u8> {
    [message(0x0100, 0, 1, at), vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat()
}

pub(crate) fn answer(at: usize) -> Vec<u8> {
    let record = |owner: u16, kind: u8, data: &[u8]| {
        [&owner.to_be_bytes()[..], &[0, kind, 0, 1, 0, 0, 0, 60], &sized(2, data)].concat()
    };
    let start = message(0x8180, 5, 0, at);
    let alias = 0xc000 | (start.len() + 12) as u16;
    let mut all = [start, record(0xc00c, 5, b"\x04edge\x03cdn\x07example\x00")].concat();
    for last in 1..5 {
        all.extend(record(alias, 1, &[192, 0, 2, last]));
    }
    all
}

/// The destination, and its keys, of RFC 9001, appendix A.
const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const KEY: u128 = 0x1f36_9613_dd76_d546_7730_efcb_e3b1_a22d;
const IV: u128 = 0xfa04_4b2f_42a3_fd3b_46fb_255c;
const HEADER_KEY: u128 = 0x9f50_449e_04a0_e810_283a_1e99_33ad_edd2;

pub(crate) fn initial(at: usize) -> Vec<u8> {
    let hello = hello(at, 32);
    let length = (hello.len() as u16 | 0x4000).to_be_bytes();
    let mut payload = [&[6, 0][..], &length, &hello].concat();
    payload.resize(1212, 0);
    let length = ((payload.len() + 17) as u16 | 0x4000).to_be_bytes();
    let header = [&[0xc0, 0, 0, 0, 1, 8][..], &ID, &[0, 0], &length, &[0]].concat();
    let cipher = Aes128Gcm::new(&KEY.to_be_bytes().into());
    let tag =
        cipher.encrypt_in_place_detached(IV.to_be_bytes()[4..].into(), &header, &mut payload).expect("it is short");
    let number = header.len() - 1;
    let mut packet = [header, payload, tag.to_vec()].concat();
    let mut mask = Block::clone_from_slice(&packet[number + 4..number + 20]);
    Aes128::new(&HEADER_KEY.to_be_bytes().into()).encrypt_block(&mut mask);
    packet[0] ^= mask[0] & 0x0f;
    packet[number] ^= mask[1];
    packet
}
