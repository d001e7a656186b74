//! A policy as its author wrote it, with names resolved and lists read.

pub mod address;
pub mod decider;
pub mod identity;
pub mod names;
pub mod numbers;
pub mod program;
pub mod schedule;
pub mod spec;

pub use address::AddressSet;
pub use decider::Decider;
pub use identity::SidBuf;
pub use names::NameSet;
pub use numbers::NumberSet;
pub use schedule::{Moment, Schedule};
pub use spec::FlowSpec;

use crate::{
    diagnostic::Diagnostic,
    flow::{Direction, Verdict},
};
use std::{collections::BTreeMap, ops::Range, path::PathBuf, sync::Arc};

/// A policy file, parsed and checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The file it came from.
    pub path: PathBuf,
    /// What happens to flows that no rule matches, by direction.
    pub defaults: Defaults,
    /// The rules in the file's order.
    pub rules: Vec<Rule>,
    /// Named times.
    pub schedules: Vec<Schedule>,
    /// Named lists, for diagnostics.
    pub lists: Vec<List>,
    /// Expectations outside rules.
    pub expectations: Vec<Expectation>,
    /// The aliases of interfaces that were resolved, and their LUIDs.
    pub(crate) resolved_aliases: BTreeMap<String, u64>,
    /// What parsing found questionable.
    pub warnings: Vec<Diagnostic>,
    /// The text, for diagnostics of later steps.
    pub(crate) text: Arc<str>,
}

impl Policy {
    /// The line on which a rule begins, from 1.
    #[must_use]
    pub fn line_of(&self, rule: usize) -> Option<usize> {
        let before = self.text.get(..self.rules.get(rule)?.span.start)?;
        Some(before.bytes().filter(|byte| *byte == b'\n').count() + 1)
    }

    /// The policy with the interfaces that rules name by alias, as a machine has them. What `luid` does not know stays a
    /// name that matches no interface.
    #[must_use]
    pub fn on_machine(&self, luid: impl Fn(&str) -> Option<u64>) -> Self {
        let mut policy = self.clone();
        for rule in &mut policy.rules {
            let mut found = Vec::new();
            rule.aliases.retain(|alias| {
                let resolved = luid(&alias.value);
                found.extend(resolved.map(|luid| (alias.value.clone(), luid)));
                resolved.is_none()
            });
            if !found.is_empty() {
                let known = rule.interfaces.iter().flat_map(|set| set.ranges().iter().copied());
                let ranges = known.chain(found.iter().map(|(_, luid)| (*luid, *luid))).collect();
                rule.interfaces = Some(NumberSet::from_ranges(ranges));
                policy.resolved_aliases.extend(found);
            }
        }
        policy
    }
}

/// A LUID for an interface of some machine: not any that a machine can have, and another for another alias.
#[must_use]
pub fn assumed_luid(alias: &str) -> u64 {
    let digest = xxhash_rust::xxh3::xxh3_64(program::fold(alias).as_bytes());
    u64::MAX << 48 | digest >> 16
}

/// A named list.
#[derive(Clone, Debug)]
pub struct List {
    /// Its name.
    pub name: String,
    /// Its addresses, if it holds any.
    pub addresses: Option<Arc<AddressSet>>,
    /// Its names, if it holds any.
    pub names: Option<Arc<NameSet>>,
    /// How many entries it has, in all its files, exceptions included.
    pub entries: usize,
    /// Where it is declared.
    pub span: Range<usize>,
}

/// What happens to flows that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// For flows this machine opens.
    pub outbound: Action,
    /// For flows other machines open.
    pub inbound: Action,
    /// For packets passed on between other machines.
    pub forward: Action,
    /// For ports that programs want to listen on.
    pub listen: Action,
    /// For ports that programs ask for.
    pub bind: Action,
    /// Whether they are logged.
    pub log: bool,
    /// Whether what is [`crate::essential`] passes though no rule matches it.
    pub essential: bool,
    /// Whether the IPv4 address inside a remote IPv6 one counts as a remote address too.
    pub embedded_ipv4: bool,
    /// Whether an address that DNS gave to names of several rules follows one that permits, and not one that blocks.
    pub shared_permit: bool,
}

impl Defaults {
    /// The default of a direction.
    #[must_use]
    pub const fn of(self, direction: Direction) -> Action {
        match direction {
            Direction::Outbound => self.outbound,
            Direction::Inbound => self.inbound,
            Direction::Forward => self.forward,
            Direction::Listen => self.listen,
            Direction::Bind => self.bind,
        }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let pass.
    Permit,
    /// Refuse, and notify the program.
    Block,
    /// Discard silently where the layer allows.
    Drop,
    /// Ask the program that answers, and hold the connection until it has.
    Ask(Ask),
}

/// What a rule that asks says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// What holds without an answer.
    pub unanswered: Verdict,
    /// How many seconds an answer may take: one of [`crate::flow::ANSWER_SECONDS`].
    pub within: u8,
}

impl Default for Ask {
    fn default() -> Self {
        Self { unanswered: Verdict::Block, within: 30 }
    }
}

impl Action {
    /// Permit or block; of a rule that asks, what holds without an answer.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Permit => Verdict::Permit,
            Self::Block | Self::Drop => Verdict::Block,
            Self::Ask(ask) => ask.unanswered,
        }
    }

    /// Whether a flow can pass by it.
    #[must_use]
    pub fn may_permit(self) -> bool {
        matches!(self, Self::Permit | Self::Ask(_))
    }

    /// The word the file uses.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Block => "block",
            Self::Drop => "drop",
            Self::Ask(_) => "ask",
        }
    }
}

/// A rule. Conditions that are `None` hold for every flow.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Its author's remark.
    pub note: Option<String>,
    /// What it does.
    pub action: Action,
    /// Whether the verdict is hard: block unless the file says soft, permit only if it says hard.
    pub hard: bool,
    /// Whether it requests an event.
    pub log: bool,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Outbound, inbound, both of these (`None`), or one of the others.
    pub direction: Option<Direction>,
    /// IP protocol numbers.
    pub protocols: Option<NumberSet>,
    /// Addresses of the other machine.
    pub remote: Option<Arc<AddressSet>>,
    /// Addresses of this machine.
    pub local: Option<Arc<AddressSet>>,
    /// The other machine's ports; ICMP codes.
    pub remote_ports: Option<NumberSet>,
    /// This machine's ports; ICMP types.
    pub local_ports: Option<NumberSet>,
    /// Paths of programs as written; one that ends in `\*` means everything below.
    pub applications: Option<Vec<Located<String>>>,
    /// Users, groups, or anything with a SID.
    pub users: Option<Vec<SidBuf>>,
    /// Groups: another set its owner has to be in.
    pub groups: Option<Vec<SidBuf>>,
    /// Services by the SIDs their names make.
    pub services: Option<Vec<SidBuf>>,
    /// Packages by the SIDs of their app containers.
    pub packages: Option<Vec<SidBuf>>,
    /// Interface LUIDs.
    pub interfaces: Option<NumberSet>,
    /// Interfaces by their aliases, which only a machine can resolve ([`Policy::on_machine`]); until then they match none.
    pub aliases: Vec<Located<String>>,
    /// Names that the content asks for.
    pub names: Option<Arc<NameSet>>,
    /// Whether a flow with an undecidable name, or a forwarded packet with unreadable ports, matches all the same.
    pub undecidable_matches: bool,
    /// Index into [`Policy::schedules`].
    pub schedule: Option<usize>,
    /// Expectations in the rule's own `expect` tables.
    pub expectations: Vec<Expectation>,
    /// The rule's place in the file, in bytes.
    pub span: Range<usize>,
}

impl Rule {
    /// Whether flows of a direction can match it.
    #[must_use]
    pub fn is_for(&self, direction: Direction) -> bool {
        match self.direction {
            Some(only) => only == direction,
            None => direction.is_of_conversations(),
        }
    }

    /// A rule without a name that holds for every flow.
    pub(crate) fn everything() -> Self {
        Self {
            name: String::new(),
            note: None,
            action: Action::Permit,
            hard: false,
            log: false,
            enabled: true,
            direction: None,
            protocols: None,
            remote: None,
            local: None,
            remote_ports: None,
            local_ports: None,
            applications: None,
            users: None,
            groups: None,
            services: None,
            packages: None,
            interfaces: None,
            aliases: Vec::new(),
            names: None,
            undecidable_matches: false,
            schedule: None,
            expectations: Vec::new(),
            span: 0..0,
        }
    }

    /// Whether it is active at `moment` (always, if none is given).
    #[must_use]
    pub fn active(&self, schedules: &[Schedule], moment: Option<Moment>) -> bool {
        let in_time = match (self.schedule.and_then(|index| schedules.get(index)), moment) {
            (Some(schedule), Some(moment)) => schedule.contains(moment),
            _ => true,
        };
        self.enabled && in_time
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Bytes of the policy file.
    pub span: Range<usize>,
}

/// A flow and its expected verdict: the policy's own tests.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The flow.
    pub flow: FlowSpec,
    /// The verdict that is expected.
    pub verdict: Option<Action>,
    /// What is expected to decide.
    pub rule: Option<Decider>,
    /// The moment it is evaluated at; all schedules are active without.
    pub at: Option<Moment>,
    /// Where it was written.
    pub span: Range<usize>,
}
