//! The frames of an Initial packet (RFC 9000, 12.4 and 19).

use super::{
    packet::Payload,
    window::{Refused, Window},
};
use crate::answer::Reason;

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const ACK_ECN: u8 = 0x03;
const CRYPTO: u8 = 0x06;
const CONNECTION_CLOSE: u8 = 0x1c;

/// Puts the handshake bytes of a payload into the window.
pub(super) fn read<B: AsRef<[u8]> + AsMut<[u8]>>(
    payload: &mut Payload<'_>,
    window: &mut Window<B>,
) -> Result<(), Refused> {
    // A frame of another type, or one that is cut, ends the connection at the server.
    let broken = Refused::Malformed(Reason::Frame);
    while let Some(kind) = payload.byte() {
        match kind {
            PADDING => payload.skip_zeros(),
            PING => {}
            ACK | ACK_ECN => acknowledgement(payload, kind == ACK_ECN).ok_or(broken)?,
            CRYPTO => crypto(payload, window)?,
            CONNECTION_CLOSE => close(payload).ok_or(broken)?,
            _ => return Err(broken),
        }
    }
    Ok(())
}

fn acknowledgement(payload: &mut Payload<'_>, counts: bool) -> Option<()> {
    let (_largest, _delay, ranges, _first) =
        (payload.integer()?, payload.integer()?, payload.integer()?, payload.integer()?);
    // Each range takes two bytes at least, so the payload ends before a count that lies does.
    for _ in 0..ranges {
        let (_gap, _length) = (payload.integer()?, payload.integer()?);
    }
    for _ in 0..if counts { 3 } else { 0 } {
        payload.integer()?;
    }
    Some(())
}

fn crypto<B: AsRef<[u8]> + AsMut<[u8]>>(payload: &mut Payload<'_>, window: &mut Window<B>) -> Result<(), Refused> {
    let broken = Refused::Malformed(Reason::Frame);
    let mut offset = payload.integer().ok_or(broken)?;
    let mut length = payload.integer().ok_or(broken)?;
    while length > 0 {
        let ahead = payload.ahead();
        let piece = ahead.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(ahead);
        if piece.is_empty() {
            return Err(broken);
        }
        window.insert(offset, piece)?;
        let count = piece.len();
        payload.advance(count);
        offset = offset.saturating_add(count as u64);
        length = length.saturating_sub(count as u64);
    }
    Ok(())
}

fn close(payload: &mut Payload<'_>) -> Option<()> {
    let (_error, _frame) = (payload.integer()?, payload.integer()?);
    let length = payload.integer()?;
    payload.skip(length)
}
