//! The server name of a QUIC connection, version 1 or 2 (RFC 9000, 9001, 9369).
//!
//! A client's hello is in CRYPTO frames of its Initial packets, whose keys follow from the first one's destination. A
//! packet counts only if a server would take it: in a datagram of 1,200 bytes at least, with the right tag, and to the
//! same destination as the first one of its datagram.
//!
//! * Frames may come in any order and overlap, over several packets and datagrams. Bytes that are sent twice and differ
//!   are malformed: which of them the server takes is its own affair.
//! * After a Retry the client uses keys of another destination, and after a version was negotiated compatibly (RFC
//!   9368) those of the other version; the hello must be the same. Retry and Version Negotiation packets themselves
//!   come from servers and are not read.
//! * A client that goes on to Handshake or 1-RTT packets has sent its hello: if it was not seen whole, the answer is
//!   malformed ([`Reason::Unseen`]).
//! * One UDP flow can carry several connections, one after the other or at once. The first hello decides; whoever wants
//!   others looks at later datagrams with another [`Connection`].
//! * A packet can be sent so that it never reaches the server (with a low TTL). What it says counts here.

mod frames;
mod header;
mod keys;
mod packet;
#[cfg(test)]
mod tests;
mod window;

pub use window::{WINDOW, Window};

use self::{
    header::{Kind, Next, Packet},
    keys::Keys,
    window::Refused,
};
use crate::{
    answer::{Answer, Reason},
    tls::Hello,
};

/// The least bytes of a datagram whose Initial packets a server takes (RFC 9000, 14.1).
const SMALLEST_DATAGRAM: usize = 1200;
/// The most datagrams that are looked at.
const MOST_DATAGRAMS: u8 = 32;
/// The most Initial packets that are opened, or tried to be.
const MOST_PACKETS: u8 = 32;

/// What ends the reading before the hello does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    NotThis,
    Malformed(Reason),
    TooLong,
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLong => Self::TooLong,
            Refused::Malformed(reason) => Self::Malformed(reason),
        }
    }
}

/// A connection identifier.
#[derive(Clone, Copy, Debug)]
struct Identifier {
    bytes: [u8; 20],
    length: u8,
}

impl Identifier {
    fn new(from: &[u8]) -> Self {
        let mut bytes = [0; 20];
        for (place, byte) in bytes.iter_mut().zip(from) {
            *place = *byte;
        }
        Self { bytes, length: from.len().min(20) as u8 }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Whether a connection may begin with a datagram that has these first bytes: whether [`Connection::push`] of a new one
/// could say other than [`Answer::NotThis`].
#[must_use]
pub fn may_begin(datagram: &[u8]) -> bool {
    match header::next(datagram) {
        Next::Broken if datagram.is_empty() => false,
        Next::Packet(..) | Next::Broken => true,
        Next::Unknown(version) => version & 0x0f0f_0f0f == 0x0a0a_0a0a || version >> 8 == 0x00ff_0000,
        Next::Short => false,
    }
}

/// Reads a client's datagrams, from the connection's first one.
#[derive(Clone, Debug)]
pub struct Connection {
    hello: Hello,
    /// The keys that opened the last packet.
    keys: Option<Keys>,
    /// Where the first Initial packet that could be opened went.
    first: Option<Identifier>,
    /// The number that is expected next.
    number: u64,
    /// How much of the window the hello has read.
    read: u16,
    datagrams: u8,
    packets: u8,
    stop: Option<Stop>,
}

const _: () = assert!(size_of::<Connection>() <= 400);

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// Nothing read yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            hello: Hello::new(WINDOW as u32),
            keys: None,
            first: None,
            number: 0,
            read: 0,
            datagrams: 0,
            packets: 0,
            stop: None,
        }
    }

    /// Reads the client's next datagram. The window must be the same at each call.
    ///
    /// A datagram takes at most one pass over its bytes for each of three ways to open them; 32 packets of a connection
    /// are tried.
    pub fn push<B: AsRef<[u8]> + AsMut<[u8]>>(&mut self, datagram: &[u8], window: &mut Window<B>) -> Answer<'_> {
        if !self.answer().is_final() {
            if self.datagrams == 0 {
                window.clear();
            }
            if let Err(stop) = self.datagram(datagram, window) {
                self.stop = Some(stop);
            }
        }
        self.answer()
    }

    /// What is known so far.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        match self.stop {
            None => self.hello.answer(),
            Some(Stop::NotThis) => Answer::NotThis,
            Some(Stop::Malformed(reason)) => Answer::Malformed(reason),
            Some(Stop::TooLong) => Answer::TooLong,
        }
    }

    fn datagram<B: AsRef<[u8]> + AsMut<[u8]>>(&mut self, datagram: &[u8], window: &mut Window<B>) -> Result<(), Stop> {
        let begun = self.datagrams > 0;
        if self.datagrams == MOST_DATAGRAMS {
            return Err(Stop::TooLong);
        }
        self.datagrams += 1;
        let otherwise = |reason| Err(if begun { Stop::Malformed(reason) } else { Stop::NotThis });
        let (mut rest, mut destination) = (datagram, None);
        while !rest.is_empty() {
            let packet = match header::next(rest) {
                Next::Packet(packet, behind) => {
                    rest = behind;
                    packet
                }
                // Behind another packet it is padding, or belongs to a connection that is none yet.
                Next::Short | Next::Broken if destination.is_some() => return Ok(()),
                Next::Short => return otherwise(Reason::Unseen),
                Next::Broken => return otherwise(Reason::Length),
                // Reserved so that servers answer with the versions they have (RFC 9000, 15).
                Next::Unknown(version) if version & 0x0f0f_0f0f == 0x0a0a_0a0a => return Ok(()),
                // Drafts of version 1.
                Next::Unknown(version) if version >> 8 == 0x00ff_0000 => return Err(Stop::Malformed(Reason::Version)),
                Next::Unknown(_) => return otherwise(Reason::Version),
            };
            let belongs = *destination.get_or_insert(packet.destination) == packet.destination;
            match packet.kind {
                Kind::Initial if belongs && datagram.len() >= SMALLEST_DATAGRAM => self.initial(&packet, window)?,
                Kind::Initial | Kind::ZeroRtt => {}
                Kind::Handshake => return Err(Stop::Malformed(Reason::Unseen)),
                // Clients send none.
                Kind::Retry => return Ok(()),
            }
            if self.hello.answer().is_final() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads an Initial packet. One that cannot be opened is passed over, as a server does.
    fn initial<B: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        packet: &Packet<'_>,
        window: &mut Window<B>,
    ) -> Result<(), Stop> {
        if self.packets == MOST_PACKETS {
            return Err(Stop::TooLong);
        }
        self.packets += 1;
        let same = self.keys.filter(|keys| keys.version == packet.version);
        let first = self.first.filter(|_| same.is_none());
        let opened = same
            .and_then(|keys| self.open(packet, keys))
            .or_else(|| {
                let first = first?;
                self.open(packet, Keys::client(packet.version, first.as_bytes())?)
            })
            .or_else(|| self.open(packet, Keys::client(packet.version, packet.destination)?));
        let Some((mut payload, number, keys)) = opened else { return Ok(()) };
        self.keys = Some(keys);
        self.first.get_or_insert(Identifier::new(packet.destination));
        self.number = self.number.max(number.saturating_add(1));
        frames::read(&mut payload, window)?;
        let ready = window.ready();
        self.hello.push(ready.get(usize::from(self.read)..).unwrap_or_default());
        self.read = ready.len() as u16;
        Ok(())
    }

    fn open<'p>(&self, packet: &Packet<'p>, keys: Keys) -> Option<(packet::Payload<'p>, u64, Keys)> {
        let (payload, number) = packet::open(packet, &keys, self.number)?;
        Some((payload, number, keys))
    }
}
