use std::{vec, vec::Vec};

use aes::cipher::BlockEncrypt;
use aes_gcm::{AeadInPlace, Aes128Gcm, KeyInit};
use proptest::prelude::*;

use super::{header::Version, *};
use crate::{
    Flags,
    testing::{Owned, extension, hello, owned, server_name},
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A packet to be sealed.
#[derive(Clone)]
struct Initial<'t> {
    version: Version,
    /// Whose keys are taken.
    keys: &'t [u8],
    destination: &'t [u8],
    token: &'t [u8],
    number: u64,
    number_size: usize,
    /// The least bytes of the payload.
    padded: usize,
}

/// The destination of the RFCs' examples.
const ID: &[u8] = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

impl<'t> Initial<'t> {
    fn new(number: u64) -> Self {
        Self { version: Version::V1, keys: ID, destination: ID, token: &[], number, number_size: 2, padded: 1170 }
    }

    fn to(self, destination: &'t [u8]) -> Self {
        Self { keys: destination, destination, ..self }
    }

    /// Seals by another implementation of AES-GCM.
    fn seal(&self, frames: &[u8]) -> Vec<u8> {
        let mut payload = frames.to_vec();
        payload.resize(frames.len().max(self.padded), 0);
        let (kind, version) = match self.version {
            Version::V1 => (0xc0, 1u32),
            Version::V2 => (0xd0, 0x6b33_43cf),
        };
        let length = (self.number_size + payload.len() + 16) as u16 | 0x4000;
        let mut header = vec![kind | (self.number_size as u8 - 1)];
        header.extend(version.to_be_bytes());
        header.extend([&[self.destination.len() as u8], self.destination, &[0]].concat());
        header.extend((self.token.len() as u16 | 0x4000).to_be_bytes());
        header.extend(self.token);
        self.finish(header, length, payload)
    }

    fn finish(&self, mut header: Vec<u8>, length: u16, mut payload: Vec<u8>) -> Vec<u8> {
        let keys = Keys::client(self.version, self.keys).unwrap();
        header.extend(length.to_be_bytes());
        let number_at = header.len();
        header.extend(&self.number.to_be_bytes()[8 - self.number_size..]);
        let mut nonce = keys.iv;
        for (place, byte) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *place ^= byte;
        }
        let cipher = Aes128Gcm::new(&keys.key.into());
        let tag = cipher.encrypt_in_place_detached(&nonce.into(), &header, &mut payload).unwrap();
        let mut packet = [header, payload, tag.to_vec()].concat();
        let mut mask = aes::Block::clone_from_slice(&packet[number_at + 4..number_at + 20]);
        aes::Aes128::new(&keys.header.into()).encrypt_block(&mut mask);
        packet[0] ^= mask[0] & 0x0f;
        for at in 0..self.number_size {
            packet[number_at + at] ^= mask[1 + at];
        }
        packet
    }
}

fn integer(value: usize) -> Vec<u8> {
    if value < 64 { vec![value as u8] } else { (value as u16 | 0x4000).to_be_bytes().to_vec() }
}

fn crypto(message: &[u8], start: usize, end: usize) -> Vec<u8> {
    [vec![6], integer(start), integer(end - start), message[start..end].to_vec()].concat()
}

fn read<D: AsRef<[u8]>>(datagrams: impl IntoIterator<Item = D>) -> Owned {
    let (mut connection, mut window) = (Connection::new(), Window::new());
    for datagram in datagrams {
        connection.push(datagram.as_ref(), &mut window);
    }
    owned(connection.answer())
}

fn name(name: &[u8]) -> Owned {
    owned(Answer::Name(name, Flags::default()))
}

fn malformed(reason: Reason) -> Owned {
    owned(Answer::Malformed(reason))
}

fn need_more() -> Owned {
    owned(Answer::NeedMore)
}

fn small_hello() -> Vec<u8> {
    hello(&[server_name(b"a.example"), extension(0x39, &[1; 60])])
}

/// A hello that one datagram does not hold.
fn large_hello() -> Vec<u8> {
    hello(&[extension(0x33, &[5; 1220]), server_name(b"large.example"), extension(0x39, &[1; 300])])
}

/// The payload of both RFCs' client Initial, without its padding.
const EXAMPLE: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302\
    010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d00170018001000070005\
    04616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74\
    d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c0002400100\
    3900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff";

#[test]
fn the_packet_of_rfc_9001_is_read() {
    let keys = Keys::client(Version::V1, ID).unwrap();
    assert_eq!(keys.key[..], hex("1f369613dd76d5467730efcbe3b1a22d"));
    assert_eq!(keys.iv[..], hex("fa044b2f42a3fd3b46fb255c"));
    assert_eq!(keys.header[..], hex("9f50449e04a0e810283a1e9933adedd2"));
    // A.2: its first 32 bytes and its tag, which no other packet under these keys has.
    let packet = example(Version::V1);
    assert_eq!(packet[..32], hex("c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11"));
    assert_eq!(packet[1184..], hex("e221af44860018ab0856972e194cd934"));
    assert_eq!(read([packet]), name(b"example.com"));
}

#[test]
fn the_packet_of_rfc_9369_is_read() {
    let keys = Keys::client(Version::V2, ID).unwrap();
    assert_eq!(keys.key[..], hex("8b1a0bc121284290a29e0971b5cd045d"));
    assert_eq!(keys.iv[..], hex("91f73e2351d8fa91660e909f"));
    assert_eq!(keys.header[..], hex("45b95e15235d6f45a6b19cbcb0294ba9"));
    let packet = example(Version::V2);
    assert_eq!(packet[..32], hex("d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485"));
    assert_eq!(packet[1184..], hex("a18b2faa745b6fe189cf772a9f84cbfc"));
    assert_eq!(read([packet]), name(b"example.com"));
}

/// The RFCs' packet: its token's length takes one byte.
fn example(version: Version) -> Vec<u8> {
    let initial = Initial { version, number_size: 4, ..Initial::new(2) };
    let mut payload = hex(EXAMPLE);
    payload.resize(1162, 0);
    let start = if version == Version::V1 { hex("c300000001") } else { hex("d36b3343cf") };
    initial.finish([&start[..], &[8], ID, &[0, 0]].concat(), 0x449e, payload)
}

#[test]
fn a_hello_of_several_packets_is_put_together() {
    let message = large_hello();
    let (one, two) = (crypto(&message, 0, 1100), crypto(&message, 1100, message.len()));
    let (one, two) = (Initial::new(0).seal(&one), Initial::new(1).seal(&two));
    assert_eq!(read([&one]), need_more());
    assert_eq!(read([&one, &two]), name(b"large.example"));
    // The first to be seen gives the keys, whichever it is.
    assert_eq!(read([&two, &one]), name(b"large.example"));
    assert_eq!(read([&one, &one, &two]), name(b"large.example"));
}

#[test]
fn an_encrypted_hello_is_marked() {
    let message = hello(&[extension(0xfe0d, &[0; 200]), server_name(b"public.example")]);
    let marked = Flags { encrypted_hello: true, ..Flags::default() };
    let packet = Initial::new(0).seal(&crypto(&message, 0, message.len()));
    assert_eq!(read([packet]), owned(Answer::Name(b"public.example", marked)));
}

#[test]
fn packets_of_one_datagram_are_read_one_by_one() {
    let message = small_hello();
    let part = |number, start, end| Initial { padded: 600, ..Initial::new(number) }.seal(&crypto(&message, start, end));
    let both = [part(0, 50, message.len()), part(1, 0, 50)].concat();
    assert_eq!(read([&both]), name(b"a.example"));
    // 0-RTT in front, between and behind; and padding that is no packet.
    let early = [&[0xd0, 0, 0, 0, 1, 8], ID, &[0, 20], &[0; 20]].concat();
    assert_eq!(read([[&early[..], &both].concat()]), name(b"a.example"));
    assert_eq!(
        read([[&part(0, 0, 50)[..], &early, &part(1, 50, message.len()), &[0; 30]].concat()]),
        name(b"a.example")
    );
    // Another connection's packet in the same datagram is not this one's.
    let other = Initial { padded: 600, ..Initial::new(1) }.to(b"another").seal(&crypto(&message, 50, message.len()));
    assert_eq!(read([[part(0, 0, 50), other].concat()]), need_more());
}

#[test]
fn frames_may_be_shuffled_and_overlap() {
    let message = small_hello();
    let end = message.len();
    let pieces = [(end - 20, end), (30, 90), (60, end - 10), (1, 40), (0, 1)];
    let mut frames = vec![0, 0, 1, 2, 0, 0, 0, 0, 3, 5, 0, 1, 1, 2, 3, 1, 1, 1];
    for (start, end) in pieces {
        frames.extend(crypto(&message, start, end));
        frames.extend([0, 1]);
    }
    frames.extend([0x1c, 0x40, 1, 6, 3, b'b', b'y', b'e']);
    assert_eq!(read([Initial::new(0).seal(&frames)]), name(b"a.example"));
}

#[test]
fn bytes_that_differ_from_those_before_are_malformed() {
    let (one, mut two) = (small_hello(), small_hello());
    two[40] ^= 1;
    let frames = [crypto(&one, 0, 60), crypto(&two, 30, two.len())].concat();
    assert_eq!(read([Initial::new(0).seal(&frames)]), malformed(Reason::Overlap));
    let (front, other) = (Initial::new(0).seal(&crypto(&one, 0, 60)), Initial::new(1).seal(&crypto(&two, 0, 60)));
    assert_eq!(read([&front, &other]), malformed(Reason::Overlap));
    // A second connection does not take the place of one that is not decided.
    let second = Initial::new(0).to(b"other id").seal(&crypto(&two, 0, two.len()));
    assert_eq!(read([&front, &second]), malformed(Reason::Overlap));
}

#[test]
fn a_packet_that_a_server_drops_says_nothing() {
    let message = small_hello();
    let frames = crypto(&message, 0, message.len());
    let good = Initial::new(0).seal(&frames);
    for at in [0, 19, 21, 22, 600, 1206] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(read([&bad]), need_more(), "{at}");
        let honest = hello(&[server_name(b"honest.example")]);
        assert_eq!(
            read([bad, Initial::new(0).seal(&crypto(&honest, 0, honest.len()))]),
            name(b"honest.example"),
            "{at}"
        );
    }
    // Too small a datagram; keys of another destination; too short for a tag.
    assert_eq!(read([Initial { padded: 1000, ..Initial::new(0) }.seal(&frames)]), need_more());
    assert_eq!(read([Initial { keys: b"forged", ..Initial::new(0) }.seal(&frames)]), need_more());
    let short = [&[0xc0, 0, 0, 0, 1, 0, 0, 0, 5][..], &[0; 1300]].concat();
    assert_eq!(read([short]), need_more());
}

#[test]
fn the_hello_goes_on_after_a_retry_and_in_another_version() {
    let message = large_hello();
    let (front, back) = (crypto(&message, 0, 1100), crypto(&message, 1100, message.len()));
    let first = Initial::new(0).seal(&front);
    let retried = |number| Initial { token: b"from the server", padded: 1150, ..Initial::new(number) }.to(b"retried!");
    assert_eq!(read([&first, &retried(1).seal(&front), &retried(2).seal(&back)]), name(b"large.example"));
    assert_eq!(read([&first, &retried(1).seal(&back)]), name(b"large.example"));
    // Chosen by the server from those that the client has: keys of the first destination, whatever the packet's is.
    let chosen = Initial { version: Version::V2, destination: b"servers", ..Initial::new(1) };
    assert_eq!(read([&first, &chosen.seal(&back)]), name(b"large.example"));
    // Then the client goes on in that version.
    let more = Initial { number: 2, ..chosen.clone() }.seal(&crypto(&message, 1150, message.len()));
    assert_eq!(read([&first, &chosen.seal(&crypto(&message, 1100, 1150)), &more]), name(b"large.example"));
}

#[test]
fn packet_numbers_are_completed() {
    let message = large_hello();
    let (front, back) = (crypto(&message, 0, 1100), crypto(&message, 1100, message.len()));
    let first = Initial { number_size: 4, ..Initial::new(70_000) }.seal(&front);
    assert_eq!(read([&first, &Initial::new(70_001).seal(&back)]), name(b"large.example"));
}

#[test]
fn other_versions_are_told_from_other_protocols() {
    let of = |version: u32| [&[0xc0][..], &version.to_be_bytes(), &[0; 1300]].concat();
    let good = Initial::new(0).seal(&crypto(&small_hello(), 0, small_hello().len()));
    // Reserved, to be answered with Version Negotiation.
    assert_eq!(read([&of(0x1a2a_3a4a)]), need_more());
    assert_eq!(read([&of(0x1a2a_3a4a), &good]), name(b"a.example"));
    assert_eq!(read([&of(0xff00_001d)]), malformed(Reason::Version));
    assert_eq!(read([&of(0x1a2a_3a4a), &of(0x5130_3530)]), malformed(Reason::Version));
    for other in [&of(0x5130_3530)[..], &of(0), b"", b"\x40abc", b"\xc0\0", &[0x80, 0x60, 0, 1, 2, 3]] {
        assert_eq!(read([other]), if other.is_empty() { need_more() } else { owned(Answer::NotThis) }, "{other:?}");
    }
    // Version Negotiation comes from servers: within a connection it is no packet of the client's.
    assert_eq!(read([&Initial::new(0).seal(&[1]), &of(0)]), malformed(Reason::Version));
    let retry = [&[0xf0, 0, 0, 0, 1, 8][..], ID, &[0; 40]].concat();
    assert_eq!(read([&retry, &good]), name(b"a.example"));
}

#[test]
fn packets_behind_a_hello_that_was_not_seen_are_malformed() {
    let begun = Initial::new(0).seal(&[1]);
    let handshake = [&[0xe0, 0, 0, 0, 1, 8][..], ID, &[0, 20], &[0; 20]].concat();
    assert_eq!(read([&begun, &handshake]), malformed(Reason::Unseen));
    assert_eq!(read([&handshake]), malformed(Reason::Unseen));
    assert_eq!(read([&begun[..], &[0x40; 50]]), malformed(Reason::Unseen));
    assert_eq!(read([&begun[..], &begun[..100]]), malformed(Reason::Length));
}

#[test]
fn frames_that_a_server_refuses_are_malformed() {
    for bad in
        [&[7, 0][..], &[0x40, 6], &[8], &[6, 0, 0x7f, 0xff, 1], &[2, 0, 0, 0x7f, 0xff, 0], &[0x1c, 0, 0, 0x7f, 0xff]]
    {
        assert_eq!(read([Initial::new(0).seal(bad)]), malformed(Reason::Frame), "{bad:?}");
    }
    assert_eq!(read([Initial::new(0).seal(&crypto(&[2, 0, 0, 0], 0, 4))]), malformed(Reason::NotClientHello));
}

#[test]
fn bytes_packets_and_datagrams_are_bounded() {
    let far = [vec![6, 0x50, 0, 1], vec![7]].concat();
    assert_eq!(read([Initial::new(0).seal(&far)]), owned(Answer::TooLong));
    let message = hello(&[extension(21, &[0; WINDOW])]);
    assert_eq!(read([Initial::new(0).seal(&crypto(&message, 0, 100))]), owned(Answer::TooLong));
    let ping = |number| Initial::new(number).seal(&[1]);
    assert_eq!(read((0..32).map(ping)), need_more());
    assert_eq!(read((0..33).map(ping)), owned(Answer::TooLong));
    let small: Vec<Vec<u8>> = (0..40).map(|number| Initial { padded: 20, ..Initial::new(number) }.seal(&[1])).collect();
    assert!(small[..32].concat().len() >= SMALLEST_DATAGRAM);
    assert_eq!(read([small[..32].concat()]), need_more());
    assert_eq!(read([small.concat()]), owned(Answer::TooLong));
}

#[test]
fn a_window_of_another_connection_is_made_empty() {
    let (mut window, message) = (Window::new(), small_hello());
    let other = hello(&[server_name(b"other.example")]);
    let mut first = Connection::new();
    assert_eq!(owned(first.push(&Initial::new(0).seal(&crypto(&other, 10, 60)), &mut window)), need_more());
    let mut second = Connection::new();
    let whole = Initial::new(0).seal(&crypto(&message, 0, message.len()));
    assert_eq!(owned(second.push(&whole, &mut window)), name(b"a.example"));
    assert_eq!(owned(second.push(&[0x40; 40], &mut window)), name(b"a.example"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_way_to_send_a_hello_gives_its_name(
        share in 0usize..2500,
        host in "[a-z]{1,20}\\.example",
        v2 in any::<bool>(),
        cuts in proptest::collection::vec((any::<usize>(), any::<u32>(), 0usize..30), 0..14),
        per_packet in 1usize..6,
    ) {
        let message = hello(&[extension(0x33, &vec![5; share]), server_name(host.as_bytes()), extension(0x39, &[1; 60])]);
        let mut ends: Vec<usize> = cuts.iter().map(|(cut, ..)| cut % message.len()).collect();
        // No piece is longer than a datagram takes.
        ends.extend((0..message.len()).step_by(900));
        ends.push(message.len());
        ends.sort_unstable();
        let mut pieces: Vec<(u32, usize, usize)> = ends
            .windows(2)
            .enumerate()
            .map(|(at, ends)| {
                let (_, order, overlap) = cuts.get(at).copied().unwrap_or_default();
                (order, ends[0].saturating_sub(overlap), ends[1])
            })
            .collect();
        pieces.sort_unstable();
        let version = if v2 { Version::V2 } else { Version::V1 };
        let mut datagrams = Vec::new();
        let mut frames = Vec::new();
        for (count, (_, start, end)) in pieces.iter().enumerate() {
            let frame = crypto(&message, *start, *end);
            if !frames.is_empty() && (count % per_packet == 0 || frames.len() + frame.len() > 1162) {
                datagrams.push(Initial { version, ..Initial::new(datagrams.len() as u64) }.seal(&frames));
                frames.clear();
            }
            frames.extend(frame);
            frames.push((count % 2) as u8);
        }
        datagrams.push(Initial { version, ..Initial::new(datagrams.len() as u64) }.seal(&frames));
        prop_assert_eq!(read(&datagrams), name(host.as_bytes()));
    }
}

#[test]
fn what_no_connection_begins_with_is_told_by_its_first_bytes() {
    let packet = example(Version::V1);
    assert!(may_begin(&packet) && may_begin(&packet[..512]) && may_begin(&example(Version::V2)[..20]));
    assert!(may_begin(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 0]), "a greased version");
    let question = b"\xc0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    assert!(!may_begin(question) && !may_begin(b"\x40ab") && !may_begin(b""));
    // Whatever may not begin one is none.
    let mut bytes = [0; 40];
    for seed in 1..20_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        if seed % 2 == 0 {
            bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        if !may_begin(&bytes) {
            assert_eq!(Connection::new().push(&bytes, &mut Window::new()), Answer::NotThis);
        }
    }
}
