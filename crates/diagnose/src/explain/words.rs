//! What was found, in words.

use super::{Ordered, changed, outcomes};
use crate::platform::Platform;
use crate::record::{Action, Filter};
use filter_engine::Verdict;
use filter_engine::explain::{Act, Answer, Candidate, Facts, Matching, Reached, Standing, Stratum};

/// What a filter does when it matches.
pub(super) fn does(platform: &Platform, filter: &Filter, answer: Answer) -> String {
    let callout = || filter.callout.as_ref().map_or("?".to_owned(), |key| platform.callout_name(key));
    match (&filter.action, answer) {
        (Action::Permit, _) if filter.has("CLEAR_ACTION_RIGHT") => "permits, hard".to_owned(),
        (Action::Permit, _) => "permits, soft".to_owned(),
        (Action::Block, _) => "blocks, hard".to_owned(),
        (Action::Other(other), _) => format!("does {other}, which is not known here"),
        (Action::CalloutInspection, _) => format!("shows it to callout {}, which only inspects", callout()),
        (_, Answer::Unregistered) if filter.has("PERMIT_IF_CALLOUT_UNREGISTERED") => {
            format!("permits, because no driver has registered its callout {}", callout())
        }
        (_, Answer::Unregistered) => format!("blocks, because no driver has registered its callout {}", callout()),
        (_, Answer::Decides { verdict, hard }) => {
            let verdict = if verdict == Verdict::Permit { "permits" } else { "blocks" };
            format!("callout {} {verdict}, {}", callout(), if hard { "hard" } else { "soft" })
        }
        (_, Answer::Nothing) => format!("callout {} leaves it to others", callout()),
        (_, Answer::Unknown) => format!("unknown: callout {} decides", callout()),
    }
}

/// Outcomes in a few words.
fn short(ordered: &Ordered<'_>, standings: &[Standing]) -> String {
    let both = standings.iter().any(|one| one.verdict != standings[0].verdict);
    if both && standings.len() > 2 {
        return "permit or block".to_owned();
    }
    let said = outcomes(ordered, standings).into_iter().map(|outcome| match outcome.by {
        Some(id) => format!("{} ({}) by filter {id}", outcome.verdict, outcome.strength),
        None => format!("{}, because nobody decides", outcome.verdict),
    });
    said.collect::<Vec<_>>().join(" or ")
}

/// The act of a filter that says nothing.
const SILENT: Act = Act::Callout { inspection: true, answer: Answer::Nothing };

/// What would change a layer's outcome; where it is not known, what it depends on.
pub(super) fn changes(
    platform: &Platform,
    facts: &Facts<'_>,
    ordered: &Ordered<'_>,
    strata: &[Stratum],
) -> Vec<String> {
    let Some(last) = strata.last() else { return Vec::new() };
    match last.after.as_slice() {
        [one] => certain(platform, facts, ordered, one),
        _ => open(platform, facts, ordered, strata),
    }
}

fn certain(platform: &Platform, facts: &Facts<'_>, ordered: &Ordered<'_>, one: &Standing) -> Vec<String> {
    let Some(by) = one.by else { return vec!["a block by any filter that matches".to_owned()] };
    let (key, filters) = &ordered.sublayers[by.0];
    let (name, id) = (platform.sublayer_name(key), filters[by.1].id);
    let without = changed(facts, ordered, by, |filter| filter.act = SILENT);
    let lever = match one {
        Standing { verdict: Verdict::Block, .. } => format!(
            "a permit heavier than filter {id} in sublayer {name}; a permit in a heavier sublayer only if it is hard \
             (CLEAR_ACTION_RIGHT), and only if no callout vetoes it"
        ),
        Standing { hard: true, .. } => {
            format!("a block in a heavier sublayer than {name}, or a veto by a callout in a lighter one")
        }
        Standing { .. } => {
            format!("a block that matches: in any other sublayer, or heavier than filter {id} in sublayer {name}")
        }
    };
    vec![format!("without filter {id} it would be {}", short(ordered, &without)), lever]
}

/// The most filters whose two outcomes are told.
const MOST_TOLD: usize = 8;

/// Both outcomes of each filter that is not known to match, and of each callout that cannot be asked.
fn open(platform: &Platform, facts: &Facts<'_>, ordered: &Ordered<'_>, strata: &[Stratum]) -> Vec<String> {
    let mut said = Vec::new();
    for (place, ((_, filters), stratum)) in ordered.sublayers.iter().zip(strata).enumerate() {
        for (index, (filter, judged)) in filters.iter().zip(&stratum.filters).enumerate() {
            if judged.reached == Reached::No {
                continue;
            }
            let with =
                |change: &dyn Fn(&mut Candidate)| short(ordered, &changed(facts, ordered, (place, index), change));
            match &judged.matching {
                Matching::No { .. } => continue,
                Matching::Unknown { .. } => {
                    let yes = with(&|filter| filter.conditions.clear());
                    let no = with(&|filter| filter.act = SILENT);
                    if yes != no {
                        said.push(format!("{yes} if filter {} matches, {no} if not", filter.id));
                    }
                }
                Matching::Yes => {}
            }
            if let Act::Callout { inspection: false, answer: Answer::Unknown } = ordered.candidates[place][index].act {
                let decides = |verdict, hard| {
                    with(&|filter| {
                        filter.act = Act::Callout { inspection: false, answer: Answer::Decides { verdict, hard } };
                    })
                };
                let (permits, blocks) = (decides(Verdict::Permit, false), decides(Verdict::Block, true));
                let callout = filter.callout.as_ref().map_or("?".to_owned(), |key| platform.callout_name(key));
                said.push(format!("{permits} if callout {callout} permits, {blocks} if it blocks"));
            }
        }
    }
    let more = said.len().saturating_sub(MOST_TOLD);
    said.truncate(MOST_TOLD);
    if more > 0 {
        said.push(format!("open by {more} more filters"));
    }
    said
}
