//! `sluice ask`.
//!
//! The driver is asked for the open questions again and again, and lines of standard input are read beside that: a question
//! may end while a person thinks about it. Nothing is kept here. When this program ends, however it ends, its handle is
//! closed, and the driver gives what is still open what its rule says of no answer.

use crate::cli::AskArgs;
use crate::failure::Failure;
use crate::output::{BAD, GOOD, LABEL, Output, WARNING};
use serde::{Deserialize, Serialize};
use sluice_control::{Answered, Answerer, Question, Scope};
use sluice_host::Host;
use sluice_policy::Verdict;
use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long a question may stand unseen.
const STEP: Duration = Duration::from_millis(100);

/// What a person types, and what it means. The last two need a policy file.
static KEYS: [(&str, Verdict, For, &str); 6] = [
    ("o", Verdict::Permit, For::Once, "permit once"),
    ("p", Verdict::Permit, For::Process, "permit as long as the process lives"),
    ("b", Verdict::Block, For::Once, "block once"),
    ("k", Verdict::Block, For::Process, "block as long as the process lives"),
    ("a", Verdict::Permit, For::Rule, "permit always, by a rule"),
    ("n", Verdict::Block, For::Rule, "permit never, by a rule"),
];

/// A line that another program writes to answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: u64,
    answer: Word,
    #[serde(default)]
    scope: For,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Permit,
    Block,
}

/// For what an answer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum For {
    #[default]
    Once,
    Process,
    /// For the same program, address, port and protocol, by a rule of the policy.
    Rule,
}

/// What is told: one line of JSON each.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Told<'a> {
    /// From now on this program answers.
    Answers { within: Option<f64> },
    /// It is open.
    Question(&'a Question),
    /// It was answered here.
    Answered { id: u64, answer: Verdict, scope: For },
    /// It is not open any more, and was not answered here.
    Closed { id: u64 },
    /// A line could not be used.
    Refused { why: String },
}

pub(crate) fn ask(host: &dyn Host, options: &AskArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    let answerer = Answerer::begin(host)?;
    let lines = read_lines();
    let until = options.timeout.map(|timeout| Instant::now() + timeout);
    let policy = options.policy.as_deref();
    let mut session = Session { host, policy, answerer, open: Vec::new(), shown: None, gone: None, output };
    session.tell(&Told::Answers { within: options.timeout.map(|timeout| timeout.as_secs_f64()) }, true)?;
    loop {
        session.look()?;
        match lines.recv_timeout(STEP) {
            Ok(line) => {
                let answered = session.take(line.trim())?;
                if answered && options.once {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Nobody will answer any more.
            Err(RecvTimeoutError::Disconnected) => {
                return if options.once { Err(Failure::NothingAnswered) } else { Ok(ExitCode::SUCCESS) };
            }
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return if options.once { Err(Failure::NothingAnswered) } else { Ok(ExitCode::SUCCESS) };
        }
    }
}

/// The lines of standard input as they come, until it ends.
fn read_lines() -> Receiver<String> {
    // A program that writes faster than its answers are given waits.
    let (sender, receiver) = sync_channel(64);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Session<'a> {
    host: &'a dyn Host,
    policy: Option<&'a Path>,
    answerer: Answerer,
    open: Vec<Question>,
    /// The question that a person is asked now.
    shown: Option<u64>,
    /// The one that closed while it was shown: what is typed next may have been meant for it.
    gone: Option<u64>,
    output: &'a mut Output,
}

impl Session<'_> {
    /// Looks at which questions are open, and tells of those that are new or closed.
    fn look(&mut self) -> Result<(), Failure> {
        let now = self.answerer.open()?;
        let before = std::mem::replace(&mut self.open, now);
        let is_in = |all: &[Question], id: u64| all.iter().any(|one| one.id == id);
        let closed: Vec<u64> = before.iter().map(|one| one.id).filter(|id| !is_in(&self.open, *id)).collect();
        for id in closed {
            self.gone = self.shown.filter(|shown| *shown == id).or(self.gone);
            self.tell(&Told::Closed { id }, self.shown == Some(id) || self.output.is_json())?;
        }
        self.shown = self.shown.filter(|id| is_in(&self.open, *id));
        if self.output.is_json() {
            let open = std::mem::take(&mut self.open);
            for new in open.iter().filter(|one| !is_in(&before, one.id)) {
                self.tell(&Told::Question(new), true)?;
            }
            self.open = open;
        } else if self.shown.is_none()
            && let Some(first) = self.open.first().cloned()
        {
            self.shown = Some(first.id);
            self.tell(&Told::Question(&first), true)?;
        }
        Ok(())
    }

    /// Takes a line: what a person typed about the question that is shown, or what a program says. Whether it has answered.
    fn take(&mut self, line: &str) -> Result<bool, Failure> {
        if line.is_empty() {
            return Ok(false);
        }
        let (id, verdict, scope) = if self.output.is_json() {
            match serde_json::from_str::<Line>(line) {
                Ok(Line { id, answer, scope }) => (id, answer.into(), scope),
                Err(error) => {
                    let why = format!("the line is no answer: {error}");
                    self.tell(&Told::Refused { why }, true)?;
                    return Ok(false);
                }
            }
        } else {
            if let (Some(gone), Some(shown)) = (self.gone.take(), self.shown) {
                let why = format!("question {gone} has closed: type it again if it is about question {shown}");
                self.tell(&Told::Refused { why }, true)?;
                return Ok(false);
            }
            let key = self.keys().iter().find(|(key, ..)| line.eq_ignore_ascii_case(key));
            match (self.shown, key) {
                (Some(id), Some((_, verdict, scope, _))) => (id, *verdict, *scope),
                (None, _) => {
                    self.tell(&Told::Refused { why: "no question is open".to_owned() }, true)?;
                    return Ok(false);
                }
                (Some(_), None) => {
                    self.tell(&Told::Refused { why: format!("`{line}` is none of {}", said(self.keys())) }, true)?;
                    return Ok(false);
                }
            }
        };
        let long = match scope {
            For::Once => Scope::Once,
            For::Process => Scope::Process,
            For::Rule => return self.take_rule(id, verdict),
        };
        let done = self.answerer.answer(id, verdict, long)?;
        match done {
            Answered::Yes => {
                // What is remembered answers what else the rule asks about the process.
                let whose = |one: &Question| (one.process_id, one.rule_name.clone());
                let same = self.open.iter().find(|one| one.id == id).map(whose).filter(|_| scope == For::Process);
                let (answered, open) = std::mem::take(&mut self.open)
                    .into_iter()
                    .partition(|one| one.id == id || Some(whose(one)) == same);
                self.open = open;
                self.shown = self.shown.filter(|shown| self.open.iter().any(|one| one.id == *shown));
                for one in &answered as &Vec<Question> {
                    self.tell(&Told::Answered { id: one.id, answer: verdict, scope }, true)?;
                }
            }
            Answered::Closed => {
                self.tell(&Told::Refused { why: format!("question {id} is not open") }, true)?;
            }
            Answered::NotRemembered => {
                let why = format!("no more answers for the life of a process can be kept: answer question {id} once");
                self.tell(&Told::Refused { why }, true)?;
            }
        }
        Ok(done == Answered::Yes)
    }

    /// Answers by a rule, which decides the question when its policy is loaded. A policy that cannot be loaded, or written, is
    /// no reason to end.
    fn take_rule(&mut self, id: u64, verdict: Verdict) -> Result<bool, Failure> {
        let question = self.open.iter().find(|one| one.id == id);
        let done = match (self.policy, question) {
            (None, _) => Err("there is no policy file to write a rule into: --policy names it".to_owned()),
            (_, None) => Err(format!("question {id} is not open")),
            (Some(file), Some(question)) => {
                sluice_control::answer_by_rule(self.host, file, question, verdict).map_err(|error| error.to_string())
            }
        };
        match done {
            Ok(_) => {
                self.open.retain(|one| one.id != id);
                self.shown = self.shown.filter(|shown| *shown != id);
                self.tell(&Told::Answered { id, answer: verdict, scope: For::Rule }, true)?;
                Ok(true)
            }
            Err(why) => {
                self.tell(&Told::Refused { why }, true)?;
                Ok(false)
            }
        }
    }

    fn keys(&self) -> &'static [(&'static str, Verdict, For, &'static str)] {
        if self.policy.is_some() { &KEYS } else { &KEYS[..KEYS.len() - 2] }
    }

    fn tell(&mut self, told: &Told<'_>, wanted: bool) -> Result<(), Failure> {
        if !wanted {
            return Ok(());
        }
        let keys = said(self.keys());
        self.output.report(told, |out| match told {
            Told::Answers { within } => {
                let until = within.map_or("Ctrl-C".to_owned(), |seconds| format!("{seconds} s, or Ctrl-C,"));
                writeln!(
                    out,
                    "answers what rules ask, until {until} ends it: what is open then gets what its rule says"
                )
            }
            Told::Question(one) => {
                let without = if one.when_unanswered == Verdict::Permit { "permitted" } else { "blocked" };
                let seconds = one.milliseconds.div_ceil(1000);
                writeln!(out, "{LABEL}question {}{LABEL:#}: {one}", one.id)?;
                if let Some(user) = &one.user {
                    write!(out, "  user {user}")?;
                    one.services.iter().try_for_each(|service| write!(out, ", service {service}"))?;
                    writeln!(out, "{}", one.package.iter().map(|sid| format!(", package {sid}")).collect::<String>())?;
                }
                writeln!(out, "  {keys}; {without} in {seconds} s without an answer")
            }
            Told::Answered { id, answer, scope } => {
                let (style, word) = match answer {
                    Verdict::Permit => (GOOD, "permitted"),
                    Verdict::Block => (BAD, "blocked"),
                };
                let long = match scope {
                    For::Once => "",
                    For::Process => ", as long as the process lives",
                    For::Rule => ", by a rule of the policy",
                };
                writeln!(out, "{style}{word}{style:#} question {id}{long}")
            }
            Told::Closed { id } => writeln!(out, "{WARNING}question {id} is closed{WARNING:#}: there was no answer"),
            Told::Refused { why } => writeln!(out, "{WARNING}not answered{WARNING:#}: {why}"),
        })
    }
}

/// What a person may type.
fn said(keys: &[(&str, Verdict, For, &str)]) -> String {
    keys.iter().map(|(key, _, _, what)| format!("{key} {what}")).collect::<Vec<_>>().join(", ")
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Permit => Self::Permit,
            Word::Block => Self::Block,
        }
    }
}
