//! Fragments for tests.

/// Cuts an IP packet into fragments of `size` payload bytes (a multiple of 8).
pub(crate) fn cut(whole: &[u8], size: usize, id: u32) -> Vec<Vec<u8>> {
    let v4 = whole[0] >> 4 == 4;
    let header_len = if v4 { usize::from(whole[0] & 15) * 4 } else { 40 };
    let payload = &whole[header_len..];
    payload
        .chunks(size)
        .enumerate()
        .map(|(i, chunk)| {
            let more = (i + 1) * size < payload.len();
            let mut out = whole[..header_len].to_vec();
            let place = ((i * size) as u16) | if v4 { 0 } else { u16::from(more) };
            if v4 {
                out[2..4].copy_from_slice(&((header_len + chunk.len()) as u16).to_be_bytes());
                out[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                out[6..8].copy_from_slice(&((place / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
            } else {
                out[4..6].copy_from_slice(&((8 + chunk.len()) as u16).to_be_bytes());
                let next = std::mem::replace(&mut out[6], 44);
                out.extend_from_slice(&[next, 0]);
                out.extend_from_slice(&place.to_be_bytes());
                out.extend_from_slice(&id.to_be_bytes());
            }
            out.extend_from_slice(chunk);
            out
        })
        .collect()
}
