//! The open questions and the connections that are held. All of it begins as zeros, so that it takes no room in the file.

use kernel::{shared::Shared, time, wfp::Pended};
use sluice_policy::{Direction, Verdict};
use sluice_protocol::ask::{MAX_HELD, MAX_HELD_BY_ONE, MAX_QUESTIONS, MAX_QUESTIONS_OF_ONE};

use super::{Asking, Rule};
use crate::{
    flow::{FlowKey, Owner},
    identity::Identity,
    learned::Kept,
};

/// How long a connection that is decided stays noted, in 100 ns: Windows gives up on one that is not established by then.
const NOTED: u64 = 60 * 10_000_000;

/// The table.
pub(super) struct Table {
    /// Nobody is asked any more.
    ended: bool,
    /// The file that answers; 0 while none does.
    file: usize,
    /// The number of the last question.
    last: u64,
    questions: [Question; MAX_QUESTIONS],
    held: [Held; MAX_HELD],
}

/// An open question.
pub(super) struct Question {
    /// 0 where there is none.
    pub(super) id: u64,
    pub(super) key: FlowKey,
    pub(super) process_id: u32,
    pub(super) rule: Rule,
    /// Interrupt time.
    pub(super) deadline: u64,
    /// System time.
    pub(super) asked: u64,
    pub(super) identity: Option<Shared<Identity>>,
    pub(super) name: Kept,
}

/// A connection. While its question is open it waits; then it is completed, and stays until it is decided or established.
struct Held {
    used: bool,
    /// Its question is closed.
    closed: bool,
    answer: Answered,
    /// Why ([`sluice_protocol::event::asked`]).
    why: u8,
    /// Not there before it is pended, and after it is completed.
    pended: Option<Pended>,
    question: u64,
    key: FlowKey,
    process_id: u32,
    /// Interrupt time at which its question was closed.
    since: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    Not,
    Permit,
    Block,
}

impl Answered {
    const fn of(verdict: Option<Verdict>) -> Self {
        match verdict {
            None => Self::Not,
            Some(Verdict::Permit) => Self::Permit,
            Some(Verdict::Block) => Self::Block,
        }
    }

    const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Not => None,
            Self::Permit => Some(Verdict::Permit),
            Self::Block => Some(Verdict::Block),
        }
    }
}

const NOWHERE: core::net::IpAddr = core::net::IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);
const NO_KEY: FlowKey = FlowKey {
    direction: Direction::Outbound,
    protocol: 0,
    local: NOWHERE,
    local_port: 0,
    remote: NOWHERE,
    remote_port: 0,
    loopback: false,
};

impl Question {
    const NONE: Self = Self {
        id: 0,
        key: NO_KEY,
        process_id: 0,
        rule: Rule { number: 0, tag: 0, epoch: 0, seconds: 0, unanswered: Verdict::Permit },
        deadline: 0,
        asked: 0,
        identity: None,
        name: Kept::NONE,
    };
}

impl Held {
    const NONE: Self = Self {
        used: false,
        closed: false,
        answer: Answered::Not,
        why: 0,
        pended: None,
        question: 0,
        key: NO_KEY,
        process_id: 0,
        since: 0,
    };

    /// Whether it is this connection. Its local address may be chosen anew.
    fn is(&self, process_id: u32, key: &FlowKey) -> bool {
        self.used
            && self.process_id == process_id
            && same_place(&self.key, key)
            && self.key.local_port == key.local_port
    }

    /// Decided, and completed.
    fn is_answered(&self) -> bool {
        self.used && self.closed && self.pended.is_none()
    }
}

fn same_place(one: &FlowKey, other: &FlowKey) -> bool {
    (one.protocol, one.remote, one.remote_port) == (other.protocol, other.remote, other.remote_port)
}

/// Room for one more connection.
pub(super) enum Room {
    /// Nobody answers.
    Nobody,
    /// There is none.
    None,
    /// At this place; its question may be a new one.
    At { place: usize, is_new: bool },
}

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            ended: false,
            file: 0,
            last: 0,
            questions: [const { Question::NONE }; MAX_QUESTIONS],
            held: [const { Held::NONE }; MAX_HELD],
        }
    }

    /// Asks nobody any more.
    pub(super) fn end(&mut self) {
        (self.ended, self.file) = (true, 0);
    }

    /// The file that answers; 0 while none does.
    pub(super) const fn answerer(&self) -> usize {
        self.file
    }

    /// Has a file answer, or none (0); false while another does.
    pub(super) fn set_answerer(&mut self, file: usize) -> bool {
        let may = !self.ended && (file == 0 || self.file == 0 || self.file == file);
        if may {
            self.file = file;
        }
        may
    }

    /// How many connections are noted.
    pub(super) fn noted(&self) -> usize {
        self.held.iter().filter(|one| one.used).count()
    }

    /// The earliest time at which a question is to be closed; 0 while a connection waits to be completed, so that no later
    /// question takes its turn away.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let waits = self.held.iter().any(|one| one.used && one.closed && one.pended.is_some());
        if waits { Some(0) } else { self.open().map(|question| question.deadline).min() }
    }

    fn open(&self) -> impl Iterator<Item = &Question> {
        self.questions.iter().filter(|question| question.id != 0)
    }

    /// Makes room for a connection, with the question that it waits for.
    pub(super) fn reserve(&mut self, asking: &Asking<'_>, identity: Shared<Identity>, now: u64, time: u64) -> Room {
        if self.ended || self.file == 0 {
            return Room::Nobody;
        }
        self.forget_old(now);
        let process_id = asking.process_id;
        let of_process = self.held.iter().filter(|one| one.used && one.process_id == process_id).count();
        if of_process >= MAX_HELD_BY_ONE {
            return Room::None;
        }
        let of_one = |one: &&Question| one.id != 0 && one.process_id == process_id;
        let has_asked_enough = self.questions.iter().filter(of_one).count() >= MAX_QUESTIONS_OF_ONE;
        let free = |(_, one): &(usize, &mut Held)| !one.used;
        let Some((place, held)) = self.held.iter_mut().enumerate().find(free) else { return Room::None };
        let same = |one: &&Question| {
            one.id != 0
                && one.process_id == process_id
                && same_place(&one.key, asking.key)
                && (one.rule.tag, one.rule.epoch) == (asking.rule.tag, asking.rule.epoch)
        };
        let (id, is_new) = match self.questions.iter().find(same) {
            Some(question) => (question.id, false),
            None => {
                let free = self.questions.iter_mut().find(|one| one.id == 0 && !has_asked_enough);
                let Some(question) = free else { return Room::None };
                self.last = self.last.wrapping_add(1);
                *question = Question {
                    id: self.last,
                    key: *asking.key,
                    process_id,
                    rule: asking.rule,
                    deadline: now.saturating_add(u64::from(asking.rule.seconds).saturating_mul(10_000_000)),
                    asked: time,
                    identity: Some(identity),
                    name: asking.name.copied().unwrap_or(Kept::NONE),
                };
                (self.last, true)
            }
        };
        (held.used, held.closed, held.answer, held.why) = (true, false, Answered::Not, 0);
        (held.question, held.key, held.process_id, held.since) = (id, *asking.key, process_id, now);
        Room::At { place, is_new }
    }

    /// The connection at a place is pended; whether its question has been closed meanwhile.
    pub(super) fn hold(&mut self, place: usize, pended: Pended) -> bool {
        let held = &mut self.held[place % MAX_HELD];
        // Nothing: a place is free only once what it held is completed.
        core::mem::forget(held.pended.replace(pended));
        held.closed
    }

    /// The connection at a place could not be pended: if its question was its alone, that is not asked.
    pub(super) fn release(&mut self, place: usize) {
        let held = &mut self.held[place % MAX_HELD];
        let question = held.question;
        held.used = false;
        if !self.held.iter().any(|one| one.used && one.question == question)
            && let Some(question) = self.questions.iter_mut().find(|one| one.id == question && one.id != 0)
        {
            *question = Question::NONE;
        }
    }

    /// Closes the questions that are `picked`, with an answer or none; returns how many.
    pub(super) fn close(&mut self, picked: &dyn Fn(&Question) -> bool, answer: Option<Verdict>, why: u8) -> usize {
        let now = time::interrupt_time();
        let mut closed = 0usize;
        for question in self.questions.iter_mut().filter(|one| one.id != 0) {
            if picked(question) {
                for held in
                    self.held.iter_mut().filter(|held| held.used && !held.closed && held.question == question.id)
                {
                    (held.closed, held.answer, held.why, held.since) = (true, Answered::of(answer), why, now);
                }
                *question = Question::NONE;
                closed = closed.saturating_add(1);
            }
        }
        closed
    }

    /// Has `decide` look at every open question again: at the rule that asks it now, None if no rule does, which closes it.
    /// Returns how many are closed.
    pub(super) fn ask_again(&mut self, decide: impl Fn(&FlowKey, &Owner<'_>, &[u8]) -> Option<Rule>) -> usize {
        for question in self.questions.iter_mut().filter(|one| one.id != 0) {
            let Some(identity) = &question.identity else { continue };
            match decide(&question.key, &identity.owner(), question.name.as_bytes()) {
                Some(rule) => question.rule = rule,
                None => question.deadline = CLOSED,
            }
        }
        self.close(&|one| one.deadline == CLOSED, None, sluice_protocol::event::asked::DROPPED)
    }

    /// A connection whose question is closed, out of the table, to be completed.
    pub(super) fn take_closed(&mut self) -> Option<Pended> {
        self.held.iter_mut().find(|one| one.used && one.closed && one.pended.is_some())?.pended.take()
    }

    /// What was answered about a connection, and why. An older note is of an earlier one from the same port, which was given
    /// up while it waited.
    pub(super) fn answer_of(&self, process_id: u32, key: &FlowKey) -> Option<(Option<Verdict>, u8)> {
        let its = self.held.iter().filter(|one| one.is_answered() && one.is(process_id, key));
        let found = its.max_by_key(|one| (one.key.local == key.local, one.question))?;
        Some((found.answer.verdict(), found.why))
    }

    /// A connection begins: an answer that has permitted an earlier one between the same two ends, which was never
    /// established, is not about this one.
    pub(super) fn begins(&mut self, process_id: u32, key: &FlowKey) {
        for held in self.held.iter_mut().filter(|one| one.is_answered() && one.answer == Answered::Permit) {
            if held.is(process_id, key) && held.key.local == key.local {
                held.used = false;
            }
        }
    }

    /// Removes the note of a connection that is decided with this answer; whether there was one.
    pub(super) fn take_answer(&mut self, process_id: u32, key: &FlowKey, wanted: Option<Verdict>) -> bool {
        let is = |one: &&mut Held| one.is_answered() && one.is(process_id, key) && one.answer.verdict() == wanted;
        let found = self.held.iter_mut().find(is);
        found.is_some_and(|one| core::mem::take(&mut one.used))
    }

    /// Forgets connections that were decided too long ago to be established any more.
    pub(super) fn forget_old(&mut self, now: u64) {
        for held in self.held.iter_mut().filter(|one| one.is_answered()) {
            if held.since.saturating_add(NOTED) <= now {
                held.used = false;
            }
        }
    }

    /// Forgets the connections of a process that are decided.
    pub(super) fn forget_process(&mut self, process_id: u32) {
        for held in self.held.iter_mut().filter(|one| one.is_answered() && one.process_id == process_id) {
            held.used = false;
        }
    }

    /// The process and the rule's tag of an open question.
    pub(super) fn asks(&self, id: u64) -> Option<(u32, u64)> {
        self.open().find(|one| one.id == id).map(|one| (one.process_id, one.rule.tag))
    }

    /// The open question with the least number from `id` on, and how many connections wait for it.
    pub(super) fn next(&self, id: u64) -> Option<(&Question, u32)> {
        let question = self.open().filter(|one| one.id >= id).min_by_key(|one| one.id)?;
        let held = self.held.iter().filter(|one| one.used && one.question == question.id).count();
        Some((question, held as u32))
    }
}

/// The time of a question that a new policy has closed.
const CLOSED: u64 = 0;
