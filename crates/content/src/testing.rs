//! What the tests of several protocols make their bytes with.

use std::{vec, vec::Vec};

use crate::Answer;

/// An answer that outlives its parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    name: Vec<u8>,
    answer: Answer<'static>,
}

/// Takes an answer away from its parser.
pub(crate) fn owned(answer: Answer<'_>) -> Owned {
    let (name, answer) = match answer {
        Answer::Name(name, flags) => (name.to_vec(), Answer::Name(b"", flags)),
        Answer::NeedMore => (vec![], Answer::NeedMore),
        Answer::NoName(flags) => (vec![], Answer::NoName(flags)),
        Answer::NotThis => (vec![], Answer::NotThis),
        Answer::Malformed(reason) => (vec![], Answer::Malformed(reason)),
        Answer::TooLong => (vec![], Answer::TooLong),
    };
    Owned { name, answer }
}

/// Bytes behind their length, in `size` bytes.
pub(crate) fn sized(size: usize, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_be_bytes();
    [&length[8 - size..], bytes].concat()
}

/// Pieces of `bytes`, cut at the places named.
pub(crate) fn pieces<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// An extension of a hello.
pub(crate) fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

/// A server_name extension with entries of these types.
pub(crate) fn server_names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = entries.iter().flat_map(|(kind, name)| [&[*kind][..], &sized(2, name)].concat()).collect();
    extension(0, &sized(2, &list))
}

/// The server_name extension that clients send.
pub(crate) fn server_name(name: &[u8]) -> Vec<u8> {
    server_names(&[(0, name)])
}

/// The body of a ClientHello up to its extensions.
pub(crate) fn hello_start() -> Vec<u8> {
    let suites = [0x1a, 0x1a, 0x13, 0x01, 0x13, 0x02, 0xc0, 0x2b];
    [&[3, 3][..], &[7; 32], &sized(1, &[9; 32]), &sized(2, &suites), &sized(1, &[0])].concat()
}

/// A ClientHello as a handshake message.
pub(crate) fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [hello_start(), sized(2, &extensions.concat())].concat();
    [vec![1], sized(3, &body)].concat()
}

/// A handshake message in records of at most `size` bytes.
pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &sized(2, part)].concat()).collect()
}
