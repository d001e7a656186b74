//! The name that a UDP client asks for: the question of DNS, or the server name of QUIC.

use alloc::{boxed::Box, vec::Vec};

use kernel::{
    memory::{try_box_with, try_zeroed},
    stage::Stage,
    status::NtResult,
    wfp::Packet,
};
use sluice_content::{
    Answer,
    dns::{Message, Query},
    quic,
};
use sluice_policy::Name;

use super::{Progress, Room, What};

/// How much of a datagram is read. A client's first ones fill a path's MTU at most, but segmentation offload shows several
/// that are sent at once as one, which the network card cuts; each of QUIC's packets says itself where it ends.
const MOST: usize = 4096;

/// A QUIC connection whose name is not known yet. What is large of it is not part of it: nothing as large is ever on the
/// stack.
pub(super) struct Connection {
    connection: quic::Connection,
    window: quic::Window<Vec<u8>>,
    /// A datagram's beginning: a packet is opened as a whole.
    datagram: Vec<u8>,
}

impl Connection {
    fn new() -> NtResult<Self> {
        let window = quic::Window::on(try_zeroed(quic::WINDOW)?);
        Ok(Self { connection: quic::Connection::new(), window, datagram: try_zeroed(MOST)? })
    }

    /// Reads the client's next datagram; false when that is not possible.
    fn read(&mut self, packet: Packet<'_>, header: u32) -> bool {
        let Some(length) = copy(packet, header, &mut self.datagram) else { return false };
        let cut = length > MOST;
        let datagram = self.datagram.get(..length).unwrap_or(&self.datagram);
        let answer = self.connection.push(datagram, &mut self.window);
        // What was not read may have the rest of the name.
        !cut || answer != Answer::NeedMore
    }
}

/// Copies as much of a datagram as there is room for. `header`: how many bytes are before its data. How long that is; None
/// when it cannot be read.
fn copy(packet: Packet<'_>, header: u32, room: &mut [u8]) -> Option<usize> {
    let (mut at, most) = (0_usize, room.len());
    let read = packet.read(header, |piece| {
        let room = room.get_mut(at..).unwrap_or_default();
        for (place, byte) in room.iter_mut().zip(piece) {
            *place = *byte;
        }
        at = at.saturating_add(piece.len());
        at < most
    });
    read.then(|| packet.length().saturating_sub(header) as usize)
}

/// What looking at a datagram came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The name is in datagrams to come.
    NotYet,
    /// The reader knows all that can be known.
    All,
    /// It cannot be looked at, for want of memory or because too many flows are.
    Unreadable,
}

/// A parser that has seen enough, or none where there is nothing to look at.
#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
pub(crate) enum Reader {
    #[default]
    None,
    Dns(Query),
    Quic(Box<Progress>),
}

impl Reader {
    /// The name it found.
    pub(crate) fn name(&self) -> Name<'_> {
        let answer = match self {
            Self::None => return Name::Undecidable,
            Self::Dns(query) => query.answer(),
            Self::Quic(progress) => match &progress.what {
                What::Quic(connection) => connection.connection.answer(),
                What::Stream(_) | What::Dns(_) | What::DnsStream(_) => return Name::Undecidable,
            },
        };
        if let Answer::Name(name, _) = answer { Name::Known(name) } else { Name::Undecidable }
    }

    /// Reads a datagram as a question of DNS. `header`: how many bytes are before its data. The name of a question ends
    /// within the first piece. Behind its message nothing may be: a card that cuts the datagram makes more questions of it.
    pub(crate) fn ask_dns(&mut self, packet: Packet<'_>, header: u32) -> Found {
        let length = packet.length().saturating_sub(header) as usize;
        let mut first_is_all = None;
        let read = packet.read(header, |piece| {
            *self = Self::Dns(Query::datagram(piece));
            first_is_all = (piece.len() == length).then(|| is_one_message(piece));
            false
        });
        if !read {
            return Found::Unreadable;
        }
        let is_one = match (self.name(), first_is_all) {
            (Name::Known(_), None) if length <= MOST => {
                let Ok(mut message) = try_zeroed(length) else { return self.unreadable() };
                if copy(packet, header, &mut message).is_none() {
                    return self.unreadable();
                }
                is_one_message(&message)
            }
            (_, is_one) => is_one == Some(true),
        };
        if !is_one {
            *self = Self::None;
        }
        Found::All
    }

    fn unreadable(&mut self) -> Found {
        *self = Self::None;
        Found::Unreadable
    }

    /// Reads a client's datagram, with what is known of those before. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn look(&mut self, content: &Stage<Progress, Vec<u8>>, packet: Packet<'_>, header: u32) -> Found {
        if packet.length() <= header {
            return Found::NotYet; // an empty one says nothing of what the next will be
        }
        let kept = match content.take() {
            Some(kept) => kept,
            None => {
                let mut quic = false;
                let read = packet.read(header, |piece| {
                    quic = quic::may_begin(piece);
                    false
                });
                match (read, quic) {
                    (false, _) => return Found::Unreadable,
                    (true, false) => return self.ask_dns(packet, header),
                    (true, true) => match begin() {
                        Some(begun) => begun,
                        None => return Found::Unreadable,
                    },
                }
            }
        };
        self.go_on(kept, content, packet, header)
    }

    fn go_on(
        &mut self,
        mut kept: Box<Progress>,
        content: &Stage<Progress, Vec<u8>>,
        packet: Packet<'_>,
        header: u32,
    ) -> Found {
        let What::Quic(connection) = &mut kept.what else { return Found::All };
        if !connection.read(packet, header) {
            return Found::Unreadable;
        }
        match connection.connection.answer() {
            Answer::NeedMore => {
                content.put(kept);
                Found::NotYet
            }
            // It only looked like one, and it was the first: questions begin so, too.
            Answer::NotThis => self.ask_dns(packet, header),
            _ => {
                *self = Self::Quic(kept);
                Found::All
            }
        }
    }
}

/// Whether a message of DNS is whole, with nothing behind it.
fn is_one_message(bytes: &[u8]) -> bool {
    Message::read(bytes).and_then(|message| message.check()).is_ok()
}

/// A connection to read.
fn begin() -> Option<Box<Progress>> {
    let room = Room::take(size_of::<Progress>() + quic::WINDOW + MOST)?;
    let connection = Connection::new().ok()?;
    try_box_with(|| Progress { what: What::Quic(connection), _room: room }).ok()
}
