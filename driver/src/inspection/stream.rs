//! The name that a TCP client asks for, from the first bytes that it sends.

use alloc::{boxed::Box, vec::Vec};

use kernel::{memory::try_box_with, stage::Stage, wfp::Stream};
use sluice_content::flow::{Decided, Stream as Parser};
use sluice_policy::Name;

use super::{Progress, Room, What};

/// How far a stream is read.
#[derive(Clone)]
pub(super) struct Reading {
    parser: Parser,
    /// How many bytes the parser has seen. All of them are shown again with the next.
    seen: usize,
}

/// What looking at a stream came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// More bytes are needed, and can be asked for.
    NotYet,
    /// The reader knows all that can be known.
    All,
    /// The bytes cannot be looked at, for want of memory.
    Unreadable,
}

/// Reads a client's bytes. There is one on the stack, and the parser is large: nothing here copies it.
pub(crate) struct Reader {
    /// What was read before.
    kept: Option<Box<Progress>>,
    /// Used where nothing was.
    anew: Reading,
}

impl Reader {
    pub(crate) const fn new() -> Self {
        Self { kept: None, anew: Reading { parser: Parser::new(), seen: 0 } }
    }

    /// The name it found.
    pub(crate) fn name(&self) -> Name<'_> {
        let reading = match self.kept.as_ref().map(|kept| &kept.what) {
            Some(What::Stream(reading)) => reading,
            _ => &self.anew,
        };
        match reading.parser.decided() {
            Decided::Name(_, name, _) => Name::Known(name),
            _ => Name::Undecidable,
        }
    }

    /// Looks at the bytes that were shown before and those that have come since. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn look(&mut self, content: &Stage<Progress, Vec<u8>>, stream: &Stream<'_>) -> Found {
        if stream.is_out_of_order() {
            return Found::All;
        }
        // Another processor may have it; then, and where nothing could be kept, reading begins again.
        self.kept = content.take().filter(|kept| match &kept.what {
            What::Stream(reading) => reading.seen <= stream.length(),
            What::Quic(_) | What::Dns(_) | What::DnsStream(_) => false,
        });
        let reading = match self.kept.as_mut().map(|kept| &mut kept.what) {
            Some(What::Stream(reading)) => reading,
            _ => &mut self.anew,
        };
        let parser = &mut reading.parser;
        if !stream.read(reading.seen, |piece| matches!(parser.push(piece), Decided::Undecided)) {
            (self.kept, self.anew.parser) = (None, Parser::new());
            return Found::Unreadable;
        }
        reading.seen = stream.length();
        if !matches!(parser.decided(), Decided::Undecided) || stream.is_last() {
            return Found::All;
        }
        if let Some(kept) = self.kept.take().or_else(|| self.keep()) {
            content.put(kept);
        }
        Found::NotYet
    }

    fn keep(&self) -> Option<Box<Progress>> {
        let room = Room::take(size_of::<Progress>())?;
        try_box_with(|| Progress { what: What::Stream(self.anew.clone()), _room: room }).ok()
    }
}
