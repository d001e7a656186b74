//! Questions of DNS that this machine asks, and what their answers teach.
//!
//! Over UDP each message is a datagram, over TCP its length is before it. An answer counts if it comes on the flow of its question (from the server and to the port that it was asked from),
//! with its number, and repeats it letter by letter. Each question has one answer.

use alloc::{boxed::Box, vec::Vec};

use kernel::{
    irql::AtDispatch,
    memory::{try_append, try_box_with, try_zeroed},
    stage::Stage,
    wfp::{Packet, Stream, StreamDirection, protocol},
};
use sluice_content::dns::{A, AAAA, IN, Message, Text};
use sluice_policy::Direction;
use sluice_protocol::status::Counter;

use super::{DNS, Progress, Room, What};
use crate::{SLUICE, flow::FlowKey, learned::Kept};

/// How many questions of a flow may be open. Resolvers ask for both kinds of addresses at once, from one port or two.
const OPEN: usize = 4;
/// The longest answer that is read. Resolvers offer to take 1,232 or 4,096 bytes.
const LONGEST: usize = 4096;

/// A question that waits for its answer.
#[derive(Clone, Copy)]
struct Asked {
    id: u16,
    kind: u16,
    name: Kept,
}

impl Asked {
    /// The one question of a message, if it asks for addresses.
    fn of(message: &Message<'_>) -> Option<Self> {
        let mut questions = message.questions();
        let (Some(Ok(question)), None) = (questions.next(), questions.next()) else { return None };
        if question.class != IN || !matches!(question.kind, A | AAAA) {
            return None;
        }
        let mut text = Text::new();
        let name = Kept::of(question.name.read(&mut text).ok()?)?;
        Some(Self { id: message.id(), kind: question.kind, name })
    }

    fn is(&self, other: &Self) -> bool {
        (self.id, self.kind) == (other.id, other.kind) && self.name.as_bytes() == other.name.as_bytes()
    }
}

/// The open questions of a flow.
pub(super) struct Questions {
    open: [Option<Asked>; OPEN],
    next: usize,
}

impl Questions {
    const fn new() -> Self {
        Self { open: [None; OPEN], next: 0 }
    }

    /// The oldest is forgotten.
    fn note(&mut self, asked: Asked) {
        if let Some(place) = self.open.get_mut(self.next % OPEN) {
            *place = Some(asked);
        }
        self.next = (self.next + 1) % OPEN;
    }

    /// Learns from an answer to one of them.
    fn learn(&mut self, dispatch: &AtDispatch, bytes: &[u8]) -> Option<()> {
        let message = Message::read(bytes).ok().filter(|message| message.is_answer() && message.code() == 0)?;
        let answered = Asked::of(&message)?;
        let open = self.open.iter_mut().find(|open| open.as_ref().is_some_and(|asked| asked.is(&answered)))?;
        *open = None;
        message
            .addresses(&mut |address, ttl| {
                let told = SLUICE.learned.learn(dispatch, address, &answered.name, ttl);
                let counter = if told { Counter::NamesLearned } else { Counter::NamesNotLearned };
                SLUICE.counters.add(dispatch, counter, 1);
            })
            .ok()
    }
}

/// A question that begins with these bytes.
fn question(bytes: &[u8]) -> Option<Asked> {
    let message = Message::read(bytes).ok();
    message.filter(|it| !it.is_answer() && it.operation() == 0).and_then(|it| Asked::of(&it))
}

/// Messages behind their lengths, put together from pieces of a stream.
struct Framed {
    /// Bytes of the length that were seen, and the length so far.
    counted: u8,
    length: usize,
    /// Bytes of the message that were seen.
    seen: usize,
    bytes: Vec<u8>,
}

impl Framed {
    const fn new() -> Self {
        Self { counted: 0, length: 0, seen: 0, bytes: Vec::new() }
    }

    /// Reads on, and gives `whole` each message. One that is too long, or for which there is no memory, is passed over.
    fn push(&mut self, mut bytes: &[u8], mut whole: impl FnMut(&[u8])) {
        while let [first, rest @ ..] = bytes {
            if self.counted < 2 {
                self.length = self.length << 8 | usize::from(*first);
                self.counted += 1;
                bytes = rest;
            } else {
                let wanted = self.length.saturating_sub(self.seen);
                let (piece, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
                if self.length <= LONGEST && self.bytes.len() == self.seen {
                    // Without memory its end is missing, and it is not whole.
                    let _ = try_append(&mut self.bytes, piece);
                }
                self.seen += piece.len();
                bytes = rest;
            }
            if self.counted == 2 && self.seen >= self.length {
                if self.bytes.len() == self.length {
                    whole(&self.bytes);
                }
                self.bytes.clear();
                (self.counted, self.length, self.seen) = (0, 0, 0);
            }
        }
    }
}

/// A connection to a server of DNS.
pub(super) struct Dialogue {
    questions: Questions,
    sent: Framed,
    received: Framed,
}

/// Notes the questions in what passes of a stream, and learns from the answers. DISPATCH_LEVEL.
pub(crate) fn observe(content: &Stage<Progress, Vec<u8>>, dispatch: &AtDispatch, stream: &Stream<'_>) {
    let kept = content.take().filter(|kept| matches!(kept.what, What::DnsStream(_)));
    let begin = || {
        let dialogue = Dialogue { questions: Questions::new(), sent: Framed::new(), received: Framed::new() };
        // What a message takes while it is put together is in it.
        let room = Room::take(size_of::<Progress>() + 2 * LONGEST)?;
        try_box_with(|| Progress { what: What::DnsStream(dialogue), _room: room }).ok()
    };
    let Some(mut kept) = kept.or_else(begin) else { return };
    if let What::DnsStream(Dialogue { questions, sent, received }) = &mut kept.what {
        let read = stream.read(0, |piece| {
            match stream.direction() {
                StreamDirection::Outbound => sent.push(piece, |bytes| {
                    if let Some(asked) = question(bytes) {
                        questions.note(asked);
                    }
                }),
                StreamDirection::Inbound => received.push(piece, |bytes| {
                    let _ = questions.learn(dispatch, bytes);
                }),
            }
            true
        });
        if !read {
            return; // what follows cannot be told apart: it is begun anew
        }
    }
    content.put(kept);
}

/// Whether the flow's answers can teach: this machine asks.
pub(crate) const fn teaches(key: &FlowKey) -> bool {
    matches!(key.protocol, protocol::TCP | protocol::UDP)
        && matches!(key.direction, Direction::Outbound)
        && key.remote_port == DNS
}

/// Notes a question that passes. Without memory its answer teaches nothing. IRQL <= DISPATCH_LEVEL.
pub(crate) fn ask(content: &Stage<Progress, Vec<u8>>, packet: Packet<'_>, header: u32) {
    let mut asked = None;
    let _ = packet.read(header, |piece| {
        asked = question(piece);
        false
    });
    let Some(asked) = asked else { return };
    let kept = content.take().filter(|kept| matches!(kept.what, What::Dns(_)));
    let Some(mut kept) = kept.or_else(begin) else { return };
    if let What::Dns(questions) = &mut kept.what {
        questions.note(asked);
    }
    content.put(kept);
}

fn begin() -> Option<Box<Progress>> {
    let room = Room::take(size_of::<Progress>())?;
    try_box_with(|| Progress { what: What::Dns(Questions::new()), _room: room }).ok()
}

/// Learns from an answer that passes, if it answers an open question. DISPATCH_LEVEL.
pub(crate) fn answer(content: &Stage<Progress, Vec<u8>>, dispatch: &AtDispatch, packet: Packet<'_>) {
    let Some(mut kept) = content.take() else { return };
    if let What::Dns(questions) = &mut kept.what {
        learn(questions, dispatch, packet);
    }
    content.put(kept);
}

fn learn(questions: &mut Questions, dispatch: &AtDispatch, packet: Packet<'_>) -> Option<()> {
    let length = packet.length() as usize;
    if length > LONGEST {
        return None;
    }
    let mut bytes = try_zeroed(length).ok()?;
    let mut at = 0_usize;
    let read = packet.read(0, |piece| {
        let room = bytes.get_mut(at..).unwrap_or_default();
        for (place, byte) in room.iter_mut().zip(piece) {
            *place = *byte;
        }
        at = at.saturating_add(piece.len());
        true
    });
    if read { questions.learn(dispatch, &bytes) } else { None }
}
