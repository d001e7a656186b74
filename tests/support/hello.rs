//! What clients say first.
#![allow(dead_code, reason = "every test program uses a part of this")]

pub(crate) fn sized(size: usize, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_be_bytes()[8 - size..], bytes].concat()
}

/// A ClientHello for a server as a handshake message, with an extension of so many bytes before the name.
pub(crate) fn message(server: &str, before: usize) -> Vec<u8> {
    let entry = [&[0][..], &sized(2, server.as_bytes())].concat();
    let padding = [&[0, 21][..], &sized(2, &vec![0; before])].concat();
    let extensions = [padding, [&[0, 0][..], &sized(2, &sized(2, &entry))].concat()].concat();
    let start = [&[3, 3][..], &[7; 32], &sized(1, &[9; 32]), &sized(2, &[0x13, 1]), &sized(1, &[0])].concat();
    [vec![1], sized(3, &[start, sized(2, &extensions)].concat())].concat()
}

/// The same in TLS records of at most so many bytes.
pub(crate) fn hello(server: &str, record: usize) -> Vec<u8> {
    message(server, 0).chunks(record).flat_map(|part| [&[22, 3, 1][..], &sized(2, part)].concat()).collect()
}

/// A question of DNS for an address.
pub(crate) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        bytes.extend(sized(1, label.as_bytes()));
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
