//! Questions of DNS that this machine asks, and what their answers teach.
//!
//! An answer counts if it comes on the flow of its question (from the server and to the port that it was asked from),
//! with its number, and repeats it letter by letter. Each question has one answer.

use alloc::{boxed::Box, vec::Vec};

use kernel::{
    irql::AtDispatch,
    memory::{try_box_with, try_zeroed},
    stage::Stage,
    wfp::Packet,
};
use sluice_content::dns::{A, AAAA, IN, Message, Text};
use sluice_policy::Direction;
use sluice_protocol::status::Counter;

use super::{Progress, Room, What, is_dns};
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
}

/// Whether the flow's answers can teach: this machine asks.
pub(crate) fn teaches(key: &FlowKey) -> bool {
    key.direction == Direction::Outbound && is_dns(key)
}

/// Notes a question that passes. Without memory its answer teaches nothing. IRQL <= DISPATCH_LEVEL.
pub(crate) fn ask(content: &Stage<Progress, Vec<u8>>, packet: Packet<'_>, header: u32) {
    let mut asked = None;
    let _ = packet.read(header, |piece| {
        let message = Message::read(piece).ok();
        asked = message.filter(|it| !it.is_answer() && it.operation() == 0).and_then(|it| Asked::of(&it));
        false
    });
    let Some(asked) = asked else { return };
    let kept = content.take().filter(|kept| matches!(kept.what, What::Dns(_)));
    let Some(mut kept) = kept.or_else(begin) else { return };
    if let What::Dns(questions) = &mut kept.what {
        // The oldest is forgotten.
        if let Some(place) = questions.open.get_mut(questions.next % OPEN) {
            *place = Some(asked);
        }
        questions.next = (questions.next + 1) % OPEN;
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
    let message = Message::read(&bytes).ok().filter(|message| read && message.is_answer() && message.code() == 0)?;
    let answered = Asked::of(&message)?;
    let open = questions.open.iter_mut().find(|open| open.as_ref().is_some_and(|asked| asked.is(&answered)))?;
    *open = None;
    message
        .addresses(&mut |address, ttl| {
            let told = SLUICE.learned.learn(dispatch, address, &answered.name, ttl);
            let counter = if told { Counter::NamesLearned } else { Counter::NamesNotLearned };
            SLUICE.counters.add(dispatch, counter, 1);
        })
        .ok()
}
