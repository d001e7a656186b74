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

/// An answer to [`question`], with these records: owner, type, seconds, data.
pub(crate) fn answer(id: u16, name: &str, records: &[(&str, u16, u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = question(id, name);
    (bytes[2], bytes[3], bytes[7]) = (0x81, 0x80, records.len() as u8);
    for (owner, kind, seconds, data) in records {
        bytes.extend(labels(owner));
        bytes.extend([&kind.to_be_bytes()[..], &[0, 1], &seconds.to_be_bytes(), &sized(2, data)].concat());
    }
    bytes
}

/// A name as DNS has it.
pub(crate) fn labels(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = name.split('.').flat_map(|label| sized(1, label.as_bytes())).collect();
    bytes.push(0);
    bytes
}
