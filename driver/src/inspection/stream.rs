//! The name that a TCP client asks for, from the first bytes that it sends.

use alloc::{boxed::Box, vec::Vec};

use kernel::{memory::try_box, stage::Stage, wfp::Stream};
use sluice_content::flow::{Decided, Stream as Parser};
use sluice_policy::Name;

use super::{Progress, Room};

/// How far a stream is read.
#[derive(Clone)]
pub(super) struct Reading {
    parser: Parser,
    /// How many bytes the parser has seen. All of them are shown again with the next.
    seen: usize,
}

/// What looking at a stream came to.
pub(crate) enum Found {
    /// More bytes are needed, and can be asked for.
    NotYet,
    /// The reader knows all that can be known.
    All,
    /// The bytes cannot be looked at, for want of memory.
    Unreadable,
}

/// A parser that has seen enough, or none where there is nothing to look at.
#[derive(Default)]
pub(crate) struct Reader(Option<Parser>);

impl Reader {
    /// The name it found.
    pub(crate) fn name(&self) -> Name<'_> {
        match self.0.as_ref().map(Parser::decided) {
            Some(Decided::Name(_, name, _)) => Name::Known(name),
            _ => Name::Undecidable,
        }
    }
}

/// Looks at a client's bytes: those that were shown before and those that have come since. IRQL <= DISPATCH_LEVEL.
pub(crate) fn look(content: &Stage<Progress, Vec<u8>>, stream: &Stream<'_>, reader: &mut Reader) -> Found {
    if stream.is_out_of_order() {
        return Found::All;
    }
    // Another processor may have it; then, and where nothing could be kept, reading begins again.
    let mut kept = content.take().filter(|kept| kept.stream.seen <= stream.length());
    let mut anew = Reading { parser: Parser::new(), seen: 0 };
    let reading = kept.as_mut().map_or(&mut anew, |kept| &mut kept.stream);
    let parser = &mut reading.parser;
    if !stream.read(reading.seen, |piece| matches!(parser.push(piece), Decided::Undecided)) {
        return Found::Unreadable;
    }
    reading.seen = stream.length();
    if !matches!(parser.decided(), Decided::Undecided) || stream.is_last() {
        reader.0 = Some(kept.map_or(anew.parser, |kept| kept.stream.parser));
        return Found::All;
    }
    if let Some(kept) = kept.or_else(|| keep(anew)) {
        content.put(kept);
    }
    Found::NotYet
}

fn keep(stream: Reading) -> Option<Box<Progress>> {
    let room = Room::take(size_of::<Progress>())?;
    try_box(Progress { stream, _room: room }).ok()
}
