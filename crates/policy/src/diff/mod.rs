//! Which flows two policies decide differently.
//!
//! A flow that is decided differently matches a rule that one of the policies has and the other has not, or has in
//! another place; or the defaults differ. Each such rule is given flows from the edges of what it matches, alone and
//! together with the rules of the other policy that overlap it and say something else, as far as the budget reaches.
//! Each flow is decided by both images. What is reported has therefore been seen; a difference that shows only deep
//! between edges may be missed, and [`Difference::complete`] says whether every overlap was tried.

mod differing;
mod essential;
mod in_force;
mod overlap;
mod witnesses;

use crate::{
    compile::{CompileOptions, compile},
    diagnostic::Errors,
    flow::{Decision, Direction},
    image::Image,
    model::{FlowSpec, Policy, Rule},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    hash::{DefaultHasher, Hash, Hasher},
};
use witnesses::witnesses;

pub(crate) use essential::essential;
pub use in_force::diff_with_image;
pub(crate) use overlap::Extent;
pub(crate) use witnesses::inside;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Pairs of rules that decide the same flow differently, in the first policy's order; the first [`MOST_CHANGES`].
    pub changes: Vec<Change>,
    /// How many such pairs there are in all.
    pub pairs: usize,
    /// How many flows were tried.
    pub tried: usize,
    /// Whether every overlap of rules was tried.
    pub complete: bool,
}

/// Flows that changed in the same way.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The rule that decides in the first policy; none for its default.
    pub old_rule: Option<String>,
    /// What it says.
    pub old: Decision,
    /// The rule that decides in the second policy.
    pub new_rule: Option<String>,
    /// What it says.
    pub new: Decision,
    /// One flow for which it is so.
    pub example: FlowSpec,
    /// How many of the flows tried changed in this way.
    pub flows: usize,
}

/// The most changes that are kept with an example, which bounds the memory.
pub const MOST_CHANGES: usize = 10_000;

/// How often flows are made for a rule, alone or with another, which bounds the time: some seconds.
const BUDGET: usize = 100_000;

/// Compares two policies, each as [`CompileOptions::at`] says.
///
/// # Errors
/// One of them does not compile.
pub fn diff(old: &Policy, new: &Policy, options: &CompileOptions<'_>) -> Result<Difference, Errors> {
    let mut found = Found::new([image(old, options)?, image(new, options)?], options);
    let sides = differing::of(old, new, options.at);
    if Direction::ALL.iter().any(|direction| old.defaults.of(*direction) != new.defaults.of(*direction)) {
        witnesses(None, None, &mut |flow| found.try_flow(flow));
    }
    essential().into_iter().for_each(|(_, flow)| found.try_flow(flow));
    let mut left = BUDGET;
    for side in &sides {
        for place in &side.differing {
            witnesses(Some(side.rules[*place]), None, &mut |flow| found.try_flow(flow));
            left = left.saturating_sub(1);
        }
    }
    let differing = sides.iter().map(|side| side.differing.len()).sum::<usize>();
    // Each gets the same share of what is left, so that the last rules are not worse off than the first.
    let share = left / differing.max(1);
    let mut complete = true;
    let extents = sides.each_ref().map(|side| side.rules.iter().map(|rule| Extent::of(rule)).collect::<Vec<_>>());
    for (own, other) in [(0, 1), (1, 0)] {
        for place in &sides[own].differing {
            let (rule, extent) = (sides[own].rules[*place], &extents[own][*place]);
            let says_else = |second: &Rule| (rule.action, rule.hard) != (second.action, second.hard);
            let mut overlapping = std::iter::zip(&sides[other].rules, &extents[other])
                .filter(|(second, its)| extent.overlaps(its) && says_else(second));
            for (second, _) in overlapping.by_ref().take(share) {
                witnesses(Some(rule), Some(second), &mut |flow| found.try_flow(flow));
            }
            complete &= overlapping.next().is_none();
        }
    }
    Ok(found.into_difference(complete))
}

/// The image of a policy, validated as the driver does.
fn image(policy: &Policy, options: &CompileOptions<'_>) -> Result<Image<Vec<u8>>, Errors> {
    let bytes = compile(policy, options)?;
    Image::validate(bytes).map_err(|error| Errors {
        diagnostics: vec![
            crate::Diagnostic::new(crate::Severity::Error, &policy.path, &policy.text, 0..0).message(error.to_string()),
        ],
    })
}

/// What the flows that were tried have shown.
struct Found<'a> {
    images: [Image<Vec<u8>>; 2],
    options: &'a CompileOptions<'a>,
    /// Hashes of the flows, which cost less than the flows.
    seen: HashSet<u64>,
    by_pair: BTreeMap<Pair, Seen>,
    kept: usize,
}

/// The rules that decide, or that none does, and whether the flow is essential then; and whether the flow comes in.
type Pair = ([(Option<u32>, bool); 2], Direction);

/// Flows that changed alike.
#[derive(Default)]
struct Seen {
    flows: usize,
    /// One of them; none for pairs beyond [`MOST_CHANGES`].
    example: Option<Box<(FlowSpec, Decision, Decision)>>,
}

impl<'a> Found<'a> {
    fn new(images: [Image<Vec<u8>>; 2], options: &'a CompileOptions<'a>) -> Self {
        Self { images, options, seen: HashSet::new(), by_pair: BTreeMap::new(), kept: 0 }
    }

    fn try_flow(&mut self, flow: FlowSpec) {
        let mut hasher = DefaultHasher::new();
        flow.hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            return;
        }
        let [old, new] = &self.images;
        let decided = flow.with(self.options.application, |one| (old.decide(one), new.decide(one)));
        let Ok((before, after)) = decided else { return };
        let said = |one: &Decision| (one.verdict, one.asks, one.silent, one.hard);
        if said(&before) == said(&after) {
            return;
        }
        let pair = [before, after].map(|one| (one.rule, one.essential.is_some()));
        let seen = match self.by_pair.entry((pair, flow.direction)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let seen = entry.insert(Seen::default());
                if self.kept < MOST_CHANGES {
                    self.kept += 1;
                    seen.example = Some(Box::new((flow.clone(), before, after)));
                }
                seen
            }
        };
        seen.flows += 1;
        if let Some(example) = &mut seen.example
            && oddness(&flow) < oddness(&example.0)
        {
            example.0 = flow;
        }
    }

    fn into_difference(self, complete: bool) -> Difference {
        let (pairs, tried) = (self.by_pair.len(), self.seen.len());
        let [old_image, new_image] = &self.images;
        let name =
            |image: &Image<Vec<u8>>, rule: Option<u32>| rule.and_then(|rule| image.rule_name(rule)).map(str::to_owned);
        let change = |seen: Seen| {
            let (example, old, new) = *seen.example?;
            let (old_rule, new_rule) = (name(old_image, old.rule), name(new_image, new.rule));
            Some(Change { old_rule, old, new_rule, new, example, flows: seen.flows })
        };
        Difference { changes: self.by_pair.into_values().filter_map(change).collect(), pairs, tried, complete }
    }
}

/// How far a flow is from what people expect to see: the plainest of many is shown.
fn oddness(flow: &FlowSpec) -> usize {
    let protocol = match flow.protocol {
        6 => 0,
        17 => 1,
        _ => 2,
    };
    let named = [flow.application.is_some(), !flow.users.is_empty(), flow.interface.is_some()];
    protocol + named.into_iter().filter(|one| *one).count() + usize::from(flow.local.0 == flow.remote.0)
}
