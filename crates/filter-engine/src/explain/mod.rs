//! Arbitration with less than full knowledge: every outcome that filters can come to when some of the traffic's fields
//! and the answers of some callouts are not known.
//!
//! It is the arbitration of [`FilterEngine::classify`](crate::FilterEngine::classify), with the same comparison of values
//! and the same rule for when a decision replaces another; a property test holds the two together. Instead of one state
//! it carries the set of those that are possible, which has few members, because a state is the verdict in force and
//! the right to change it.

pub(crate) mod facts;
mod never;

pub use facts::{Facts, Matching};
pub use never::contradiction;

use crate::Verdict;
use crate::arbitrate::{Replaces, replaces};
use crate::condition::Condition;

/// What a filter does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// FWP_ACTION_PERMIT.
    Permit,
    /// FWP_ACTION_BLOCK.
    Block,
    /// A callout decides or, with `inspection`, only looks.
    Callout {
        /// FWP_ACTION_CALLOUT_INSPECTION.
        inspection: bool,
        /// What it will say.
        answer: Answer,
    },
    /// An action that is not known here: it may do anything.
    Unknown,
}

/// What a callout will say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No driver has registered it.
    Unregistered,
    /// That is not known: it may permit, block or leave the decision to others.
    Unknown,
    /// It leaves the decision to others.
    Nothing,
    /// It decides, and clears the right to change that, or not.
    Decides {
        /// Its verdict.
        verdict: Verdict,
        /// It clears the right.
        hard: bool,
    },
}

/// A filter to explain.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its conditions; `None` for one that cannot be understood.
    pub conditions: Vec<Option<Condition>>,
    /// FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT.
    pub clears_right: bool,
    /// FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED.
    pub permits_unregistered: bool,
    /// What it does.
    pub act: Act,
}

/// Where a filter stands: the place of its sublayer, the heaviest being 0, and its own place in it.
pub type Position = (usize, usize);

/// A verdict in force, or that of a layer where nobody has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether any filter decided.
    pub decided: bool,
    /// Whether the right to change it was cleared.
    pub hard: bool,
    /// A callout blocked in spite of a hard permit.
    pub vetoed: bool,
    /// The filter whose decision it is. Where more than some lead to the same verdict, one of them.
    pub by: Option<Position>,
}

impl Standing {
    fn is_like(&self, other: &Self) -> bool {
        (self.verdict, self.decided, self.hard, self.vetoed) == (other.verdict, other.decided, other.hard, other.vetoed)
    }

    /// This standing after a decision.
    fn after(&self, decision: Decision, by: Position) -> Self {
        match replaces(self.decided.then_some((self.verdict, self.hard)), decision.verdict, decision.callout) {
            Replaces::No => *self,
            Replaces::Yes => Self {
                verdict: decision.verdict,
                decided: true,
                hard: decision.hard,
                vetoed: self.vetoed,
                by: Some(by),
            },
            Replaces::Veto => Self { verdict: decision.verdict, decided: true, hard: true, vetoed: true, by: Some(by) },
        }
    }
}

/// Whether the evaluation comes to a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// A heavier filter of its sublayer has decided.
    No,
    /// That depends on what is not known.
    Perhaps,
    /// Yes.
    Yes,
}

/// What was found about a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Whether its conditions hold.
    pub matching: Matching,
    /// Whether it is asked.
    pub reached: Reached,
}

/// One sublayer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stratum {
    /// Its filters, in the given order.
    pub filters: Vec<Judged>,
    /// What can be in force after it.
    pub after: Vec<Standing>,
}

/// A decision of a filter or its callout.
#[derive(Clone, Copy)]
struct Decision {
    verdict: Verdict,
    hard: bool,
    callout: bool,
}

/// The most standings that are kept apart only by the filter whose decision they are.
const MOST_TOLD: usize = 12;

/// What a filter can say, given what is in force: `None` leaves the decision to the next filter.
fn sayings(filter: &Candidate, now: &Standing) -> Vec<Option<Decision>> {
    let says = |verdict, hard| Some(Decision { verdict, hard, callout: false });
    let may_write = !(now.decided && now.hard);
    // Without the right a callout can only veto a permit; whatever else it writes does not count.
    let called = |verdict, hard| match (may_write, now.verdict, verdict) {
        (true, ..) | (false, Verdict::Permit, Verdict::Block) => Some(Decision { verdict, hard, callout: true }),
        _ => None,
    };
    let anything = || {
        let mut all = vec![None];
        for (verdict, hard) in
            [(Verdict::Block, true), (Verdict::Block, false), (Verdict::Permit, true), (Verdict::Permit, false)]
        {
            all.extend(called(verdict, hard).map(Some));
        }
        all
    };
    match filter.act {
        Act::Permit => vec![says(Verdict::Permit, filter.clears_right)],
        Act::Block => vec![says(Verdict::Block, true)],
        Act::Callout { inspection: true, .. } | Act::Callout { answer: Answer::Nothing, .. } => vec![None],
        Act::Callout { answer: Answer::Unregistered, .. } if filter.permits_unregistered => {
            vec![says(Verdict::Permit, filter.clears_right)]
        }
        Act::Callout { answer: Answer::Unregistered, .. } => vec![says(Verdict::Block, true)],
        Act::Callout { answer: Answer::Decides { verdict, hard }, .. } => vec![called(verdict, hard)],
        Act::Callout { answer: Answer::Unknown, .. } | Act::Unknown => anything(),
    }
}

/// Explains a layer: its sublayers from the heaviest to the lightest, each with its filters from the heaviest to the
/// lightest. The last sublayer's `after` is what can become of the traffic; without sublayers it is permitted.
#[must_use]
pub fn explain(facts: &Facts<'_>, sublayers: &[Vec<Candidate>]) -> Vec<Stratum> {
    let mut standings = vec![Standing::default()];
    let mut strata = Vec::new();
    for (place, filters) in sublayers.iter().enumerate() {
        let matching: Vec<Matching> =
            filters.iter().map(|filter| facts.matching(filter.conditions.iter().map(Option::as_ref))).collect();
        let mut reached = vec![None; filters.len()];
        let mut after: Vec<Standing> = Vec::new();
        for now in &standings {
            let mut keep = |standing: Standing| {
                let told = |one: &Standing| *one == standing || (after.len() >= MOST_TOLD && one.is_like(&standing));
                if !after.iter().any(told) {
                    after.push(standing);
                }
            };
            let mut comes = Reached::Yes;
            for (index, filter) in filters.iter().enumerate() {
                let merged: &mut Option<Reached> = &mut reached[index];
                *merged = Some(match *merged {
                    Some(before) if before != comes => Reached::Perhaps,
                    _ => comes,
                });
                if comes == Reached::No || matches!(matching[index], Matching::No { .. }) {
                    continue;
                }
                let said = sayings(filter, now);
                for decision in said.iter().flatten() {
                    keep(now.after(*decision, (place, index)));
                }
                comes = match (&matching[index], said.iter().any(Option::is_none), said.len()) {
                    // It certainly says nothing.
                    (_, true, 1) => comes,
                    (Matching::Yes, false, _) => Reached::No,
                    _ => Reached::Perhaps,
                };
            }
            if comes != Reached::No {
                keep(*now);
            }
        }
        let judged = matching.into_iter().zip(reached);
        let filters =
            judged.map(|(matching, reached)| Judged { matching, reached: reached.unwrap_or(Reached::No) }).collect();
        standings.clone_from(&after);
        strata.push(Stratum { filters, after });
    }
    strata
}
