//! Questions of rules that ask, and the connections that are held until they are answered.
//!
//! A connection that a rule asks about is pended at ALE_AUTH_CONNECT ([`kernel::wfp::Pended`]) and noted in a table of fixed
//! size. What is asked about the same process and place is one question. A question is closed by an answer, by its time,
//! when whoever answers leaves, when its process ends, or by a new policy; each of its connections is then completed,
//! once, and Windows asks about it again, when it is decided: by the policy in force, and if that still asks, by the answer
//! that is noted in the table, or by none. A connection that an answer permits stays noted until it is established, and its
//! flow keeps the answer from then on.
//!
//! One lock guards the table. It is taken only where a rule asks, and never held while Windows is called: completing a
//! connection may bring the next call before it returns. Closing therefore marks connections, and [`Questions::finish`]
//! takes them out of the table one by one and completes them.

mod list;
mod remembered;
mod table;

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use kernel::{
    process::{ProcessEvents, ProcessWatch},
    spin::SpinLock,
    status::{NtResult, NtStatus},
    time,
    wdf::{ControlDevice, FileId, Routine, Timer},
};
use sluice_policy::{Decision, Name, Verdict};
use sluice_protocol::{
    ask::{Answer, scope},
    event::{asked, verdict},
    status::Counter,
};

use self::{
    remembered::Remembered,
    table::{Room, Table},
};
use crate::{
    SLUICE,
    callouts::Request,
    device::Device,
    flow::{FlowKey, Owner},
    identity::Identity,
    learned::Kept,
    policy::Policy,
};

/// Everything about questions.
pub(crate) struct Questions {
    table: SpinLock<Table>,
    remembered: Remembered,
    /// The process that answers; 0 while nobody does.
    answerer: AtomicU32,
    /// How many connections are in the table: without any, nobody needs the lock to see that there is none.
    noted: AtomicUsize,
    timer: Timer,
    processes: SpinLock<Option<ProcessWatch<Processes>>>,
}

/// A connection that a rule asks about.
pub(crate) struct Asking<'a> {
    pub(crate) key: &'a FlowKey,
    /// 0 when not known.
    pub(crate) process_id: u32,
    pub(crate) owner: &'a Owner<'a>,
    /// What asks.
    pub(crate) rule: Rule,
    /// The name that DNS has told of its address.
    pub(crate) name: Option<&'a Kept>,
    /// Windows asks about it again: it cannot be held.
    pub(crate) again: bool,
}

/// A rule that asks.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) number: u32,
    /// Tells rules of one name, in whatever policy, from others.
    pub(crate) tag: u64,
    /// The generation of its policy.
    pub(crate) epoch: u32,
    pub(crate) seconds: u8,
    pub(crate) unanswered: Verdict,
}

impl Rule {
    /// The rule that has taken a decision, if it asks.
    pub(crate) fn of(policy: &Policy, decision: &Decision) -> Option<Self> {
        let (seconds, number) = (decision.asks?, decision.rule?);
        let unanswered = decision.verdict;
        Some(Self { number, tag: tag(policy, number), epoch: policy.epoch, seconds, unanswered })
    }
}

/// FNV-1a of a rule's name. One without a name is called by its place (`rule 3`), which is another one's in another policy:
/// there the policy's generation counts as well.
fn tag(policy: &Policy, rule: u32) -> u64 {
    let name = policy.image.rule_name(rule).unwrap_or_default();
    let is_place = name.strip_prefix("rule ").is_some_and(|place| place.bytes().all(|digit| digit.is_ascii_digit()));
    let epoch = if is_place { policy.epoch.to_le_bytes() } else { [0; 4] };
    name.bytes()
        .chain(epoch)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What becomes of a connection that a rule asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is held: Windows has its answer, and will ask again.
    Held,
    /// It is decided: by this answer, or as the rule says of none; and why ([`asked`]).
    Now(Option<Verdict>, u8),
}

impl Questions {
    pub(crate) const fn new() -> Self {
        Self {
            table: SpinLock::new(Table::new()),
            remembered: Remembered::new(),
            answerer: AtomicU32::new(0),
            noted: AtomicUsize::new(0),
            timer: Timer::new(),
            processes: SpinLock::new(None),
        }
    }

    /// Creates the timer, and has Windows tell of processes; where it does not, answers hold once only. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of creating the timer.
    pub(crate) fn start(&self, device: &ControlDevice<Device>) -> NtResult<()> {
        self.timer.create::<Expire, _>(device)?;
        let watch = ProcessWatch::new().ok();
        *self.processes.lock() = watch;
        Ok(())
    }

    /// Closes every question and asks none from now on. What is being pended right now is completed by [`Self::stop`].
    /// PASSIVE_LEVEL, while the callouts are still asked.
    pub(crate) fn close(&self) {
        self.answerer.store(0, Ordering::SeqCst);
        let closed = {
            let mut table = self.table.lock();
            table.end();
            table.close(&|_| true, None, asked::DROPPED)
        };
        count(Counter::QuestionsDropped, closed);
        self.finish();
    }

    /// Undoes `start`, before the device is deleted. PASSIVE_LEVEL, when no callout runs and nobody has the device open.
    pub(crate) fn stop(&self) {
        self.close();
        let watch = self.processes.lock().take();
        drop(watch); // waits, which the lock forbids
        self.timer.forget();
        self.finish();
        self.remembered.clear();
    }

    /// Asks about a connection, unless what would be answered is known. DISPATCH_LEVEL.
    pub(crate) fn ask(&self, request: &mut Request<'_>, asking: &Asking<'_>) -> Asked {
        if self.is_own(asking.process_id) {
            return Asked::Now(Some(Verdict::Permit), asked::OWN);
        }
        // First: what is noted is not to stay when it has been answered.
        if asking.again
            && let Some(answer) = self.noted_answer(asking)
        {
            return answer;
        }
        if let Some(verdict) = self.remembered(asking.process_id, asking.rule.tag) {
            return Asked::Now(Some(verdict), asked::REMEMBERED);
        }
        let (counter, why) = if asking.again {
            (Counter::NotAskedTooLate, asked::TOO_LATE)
        } else {
            match self.hold(request, asking) {
                Ok(()) => {
                    SLUICE.counters.add(request.dispatch(), Counter::ConnectionsHeld, 1);
                    return Asked::Held;
                }
                Err(why) => (why.counter(), why.code()),
            }
        };
        SLUICE.counters.add(request.dispatch(), counter, 1);
        Asked::Now(None, why)
    }

    /// Whether a process is the one that answers. Any IRQL.
    pub(crate) fn is_own(&self, process_id: u32) -> bool {
        process_id != 0 && self.answerer.load(Ordering::SeqCst) == process_id
    }

    /// The answer for the life of a process to what the rules of this tag ask. Any IRQL.
    pub(crate) fn remembered(&self, process_id: u32, tag: u64) -> Option<Verdict> {
        self.remembered.verdict(process_id, tag)
    }

    /// A connection begins, and is not one that was held and goes on: it inherits no answer from an earlier one between the
    /// same two ends. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn begins(&self, process_id: u32, key: &FlowKey) {
        if self.noted.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut table = self.table.lock();
        table.begins(process_id, key);
        self.note(&table);
    }

    /// A connection is established: whether an answer has permitted it, which is noted no longer. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn established(&self, process_id: u32, key: &FlowKey) -> bool {
        if self.is_own(process_id) {
            return true;
        }
        if self.noted.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut table = self.table.lock();
        let found = table.take_answer(process_id, key, Some(Verdict::Permit));
        self.note(&table);
        found
    }

    /// What was answered about a connection that was held. One that is permitted stays noted until it is established.
    fn noted_answer(&self, asking: &Asking<'_>) -> Option<Asked> {
        if self.noted.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut table = self.table.lock();
        let found = table.answer_of(asking.process_id, asking.key)?;
        if found.0 != Some(Verdict::Permit) {
            table.take_answer(asking.process_id, asking.key, found.0);
            self.note(&table);
        }
        Some(Asked::Now(found.0, found.1))
    }

    fn hold(&self, request: &mut Request<'_>, asking: &Asking<'_>) -> Result<(), Unasked> {
        if self.answerer.load(Ordering::SeqCst) == 0 {
            return Err(Unasked::Nobody);
        }
        if !request.can_pend() {
            return Err(Unasked::TooLate);
        }
        let identity = Identity::of(asking.process_id, asking.owner).map_err(|_| Unasked::NoRoom)?;
        let (now, time) = (time::interrupt_time(), time::system_time());
        let (place, is_new) = {
            let mut table = self.table.lock();
            let room = table.reserve(asking, identity, now, time);
            self.note(&table);
            match room {
                Room::Nobody => return Err(Unasked::Nobody),
                Room::None => return Err(Unasked::NoRoom),
                Room::At { place, is_new } => {
                    if is_new {
                        self.set_timer(&table, now);
                    }
                    (place, is_new)
                }
            }
        };
        match request.pend() {
            Ok(pended) => {
                let mut table = self.table.lock();
                let closed = table.hold(place, pended);
                // A policy that has come into force since may decide without asking, and has not seen this question.
                let asked_by = asking.rule.epoch;
                let passed_over = if SLUICE.policy.epoch() == asked_by {
                    0
                } else {
                    table.close(&|one| one.rule.epoch == asked_by, None, asked::DROPPED)
                };
                if closed || passed_over != 0 {
                    // Who pends does not complete as well: the timer does.
                    self.timer.start(0);
                }
                drop(table);
                count(Counter::QuestionsDropped, passed_over);
            }
            Err(status) => {
                let mut table = self.table.lock();
                table.release(place);
                self.note(&table);
                let full = status == NtStatus::INSUFFICIENT_RESOURCES;
                return Err(if full { Unasked::NoRoom } else { Unasked::TooLate });
            }
        }
        if is_new {
            SLUICE.counters.add(request.dispatch(), Counter::QuestionsAsked, 1);
        }
        Ok(())
    }

    /// `file` answers from now on; `process` has sent its request. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// STATUS_DEVICE_BUSY while another does, or the driver goes.
    pub(crate) fn answers(&self, file: FileId, process: u32) -> NtResult<()> {
        let mut table = self.table.lock();
        if !table.set_answerer(file.get()) {
            return Err(NtStatus::DEVICE_BUSY);
        }
        self.answerer.store(process, Ordering::SeqCst);
        Ok(())
    }

    /// `file` is closed: if it has answered, nobody does any more. PASSIVE_LEVEL.
    pub(crate) fn forget(&self, file: FileId) {
        self.leaves(|table| table.answerer() == file.get());
    }

    fn leaves(&self, is_answerer: impl FnOnce(&Table) -> bool) {
        let closed = {
            let mut table = self.table.lock();
            if !is_answerer(&table) {
                return;
            }
            self.answerer.store(0, Ordering::SeqCst);
            table.set_answerer(0);
            table.close(&|_| true, None, asked::DROPPED)
        };
        count(Counter::QuestionsDropped, closed);
        self.finish();
    }

    /// Answers a question. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// As [`sluice_protocol::ioctl::ANSWER`] says.
    pub(crate) fn answer(&self, file: FileId, answer: &Answer) -> NtResult<()> {
        let given = match answer.verdict {
            verdict::PERMIT => Verdict::Permit,
            verdict::BLOCK => Verdict::Block,
            _ => return Err(NtStatus::INVALID_PARAMETER),
        };
        let lasts = match answer.scope {
            scope::ONCE => false,
            scope::PROCESS => true,
            _ => return Err(NtStatus::INVALID_PARAMETER),
        };
        if answer.reserved != [0; 6] {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let told_of_ends = self.processes.lock().is_some();
        let closed = {
            let mut table = self.table.lock();
            if table.answerer() != file.get() {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            }
            let (process, tag) = table.asks(answer.id).ok_or(NtStatus::NOT_FOUND)?;
            if lasts {
                // Under the lock: a process that ends is forgotten under it too.
                if !told_of_ends || !self.remembered.add(process, tag, given) {
                    return Err(NtStatus::INSUFFICIENT_RESOURCES);
                }
                table.close(&|one| one.process_id == process && one.rule.tag == tag, Some(given), asked::REMEMBERED)
            } else {
                table.close(&|one| one.id == answer.id, Some(given), asked::ANSWERED)
            }
        };
        count(Counter::QuestionsAnswered, closed);
        self.finish();
        Ok(())
    }

    /// A new policy is in force, or none: what it decides without asking is not asked any more. PASSIVE_LEVEL.
    pub(crate) fn policy_changed(&self) {
        if self.noted.load(Ordering::SeqCst) == 0 {
            return;
        }
        let closed = {
            let mut table = self.table.lock();
            let policy = SLUICE.policy.read();
            table.ask_again(|key, owner, name| {
                let name = if name.is_empty() { Name::Unknown } else { Name::Known(name) };
                let policy = policy.as_deref()?;
                Rule::of(policy, &key.decide(policy, owner, name))
            })
        };
        count(Counter::QuestionsDropped, closed);
        self.finish();
    }

    /// Closes the questions whose time is up. DISPATCH_LEVEL.
    fn expire(&self) {
        let closed = {
            let mut table = self.table.lock();
            let now = time::interrupt_time();
            let closed = table.close(&|one| one.deadline <= now, None, asked::TIMED_OUT);
            table.forget_old(now);
            self.note(&table);
            closed
        };
        count(Counter::QuestionsTimedOut, closed);
        self.finish();
        // Afterwards: what waits to be completed would start it again at once.
        self.set_timer(&self.table.lock(), time::interrupt_time());
    }

    /// Has [`Self::expire`] run when the next question's time is up, or at once for what waits to be completed. The lock is
    /// held, so that of two the later does not win.
    fn set_timer(&self, table: &Table, now: u64) {
        if let Some(deadline) = table.next_deadline() {
            self.timer.start(deadline.saturating_sub(now));
        }
    }

    fn note(&self, table: &Table) {
        self.noted.store(table.noted(), Ordering::SeqCst);
    }

    /// Completes every connection whose question is closed. IRQL <= DISPATCH_LEVEL.
    #[inline(never)]
    fn finish(&self) {
        loop {
            let closed = self.table.lock().take_closed();
            match closed {
                Some(pended) => pended.complete(),
                None => return,
            }
        }
    }
}

/// Why a connection is not asked about.
#[derive(Clone, Copy)]
enum Unasked {
    Nobody,
    NoRoom,
    TooLate,
}

impl Unasked {
    const fn counter(self) -> Counter {
        match self {
            Self::Nobody => Counter::NotAskedForNobody,
            Self::NoRoom => Counter::NotAskedForWantOfRoom,
            Self::TooLate => Counter::NotAskedTooLate,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Nobody => asked::NOBODY,
            Self::NoRoom => asked::NO_ROOM,
            Self::TooLate => asked::TOO_LATE,
        }
    }
}

fn count(counter: Counter, amount: usize) {
    (0..amount).for_each(|_| SLUICE.counters.count(counter));
}

/// The timer's function.
struct Expire;

impl Routine for Expire {
    fn run() {
        SLUICE.questions.expire();
    }
}

/// What Windows tells of processes. The number of one that ends is another's later: nothing that was answered about it may
/// be known then. That this is told when a process begins too makes up for what is answered after the end of one.
struct Processes;

impl ProcessEvents for Processes {
    fn begins_or_ends(id: u32) {
        let questions = &SLUICE.questions;
        questions.leaves(|_| questions.is_own(id));
        let closed = {
            let mut table = questions.table.lock();
            questions.remembered.forget(id);
            let closed = table.close(&|one| one.process_id == id, None, asked::DROPPED);
            table.forget_process(id);
            questions.note(&table);
            closed
        };
        count(Counter::QuestionsDropped, closed);
        questions.finish();
    }
}
