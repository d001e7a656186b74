//! Why a flow passes or not: every layer, every sublayer by weight, every filter that matches, who decides.
//!
//! The arbitration is the filter engine's own ([`filter_engine::explain`]); this module brings a machine's objects into
//! its form and says in words what came out.

mod path;
mod svg;
mod words;

pub use svg::svg;

use crate::platform::Platform;
use crate::query::understood;
use crate::record::{Action, Direction, Filter};
use crate::traffic::Traffic;
use crate::{Key, query};
use filter_engine::Verdict;
use filter_engine::explain::{
    Act, Answer, Candidate, Facts, Matching, Reached, Standing, Stratum, explain as arbitrate,
};
use serde::Serialize;
use words::changes;

/// What a callout will say, where that can be known; `None` where it cannot.
pub type Answers<'a> = &'a dyn Fn(&Filter) -> Option<Answer>;

/// Why a flow passes or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The traffic.
    pub traffic: Traffic,
    /// The layers in the order of the flow's path.
    pub layers: Vec<LayerExplained>,
    /// What can become of the flow, and where.
    pub result: Result,
}

/// What becomes of the flow as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "at")]
pub enum Result {
    /// No layer blocks it.
    Permit,
    /// This layer blocks it.
    Block(String),
    /// That depends on what is not known, at these layers; no layer blocks it for certain.
    Depends(Vec<String>),
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerExplained {
    /// Its name without `FWPM_LAYER_`.
    pub layer: String,
    /// What happens there.
    pub when: &'static str,
    /// How many filters it has.
    pub filters: usize,
    /// Its sublayers with filters that match, the heaviest first.
    pub sublayers: Vec<SublayerExplained>,
    /// What can come out.
    pub outcomes: Vec<Outcome>,
    /// What would change it.
    pub changes: Vec<String>,
}

impl LayerExplained {
    /// The one verdict that can come out; `None` when both can.
    #[must_use]
    pub fn verdict(&self) -> Option<&'static str> {
        let first = self.outcomes.first()?.verdict;
        self.outcomes.iter().all(|one| one.verdict == first).then_some(first)
    }
}

/// One sublayer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SublayerExplained {
    /// Its name.
    pub sublayer: String,
    /// Its weight, where it is known.
    pub weight: Option<u16>,
    /// The filters that match or may, the heaviest first.
    pub filters: Vec<FilterExplained>,
    /// How many do not match.
    pub others: usize,
    /// What can be in force after it.
    pub after: Vec<Outcome>,
}

/// A filter that matches, or may.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilterExplained {
    /// filterId.
    pub id: u64,
    /// displayData.name.
    pub name: String,
    /// What it does, in words.
    pub does: String,
    /// Its provider.
    pub provider: Option<String>,
    /// Whether it matches for certain.
    pub matches: bool,
    /// The conditions that cannot be judged by what is known.
    pub depends_on: Vec<String>,
    /// Whether a heavier filter of the sublayer keeps it from being asked: `yes`, `perhaps` or `no`.
    pub asked: &'static str,
}

/// What can be in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// `permit` or `block`.
    pub verdict: &'static str,
    /// `soft`, `hard`, `veto`, or `none` when nobody decided.
    pub strength: &'static str,
    /// The filter whose decision it is, or may be.
    pub by: Option<u64>,
}

/// One layer's objects, in the engine's form.
struct Ordered<'p> {
    sublayers: Vec<(&'p Key, Vec<&'p Filter>)>,
    candidates: Vec<Vec<Candidate>>,
}

/// Explains a flow that was opened from this machine, to it, or passes it.
#[must_use]
pub fn explain(platform: &Platform, traffic: &Traffic, opened: Direction, answers: Answers<'_>) -> Explanation {
    let layers: Vec<LayerExplained> = path::places(traffic.protocol, opened)
        .iter()
        .filter_map(|(layer, when, direction)| {
            let name = path::versioned(layer, traffic.remote.or(traffic.local));
            let key = Key::parse(&format!("FWPM_LAYER_{name}"));
            // At most layers that name a direction, it is the packet's.
            let here = Traffic { direction: Some(*direction), ..traffic.clone() };
            at_layer(platform, &key, when, &here, answers)
        })
        .collect();
    let blocks = layers.iter().find(|layer| layer.verdict() == Some("block"));
    let open: Vec<&LayerExplained> = layers.iter().filter(|layer| layer.verdict().is_none()).collect();
    let result = match (blocks, open.as_slice()) {
        (Some(layer), _) => Result::Block(layer.layer.clone()),
        (None, []) => Result::Permit,
        (None, open) => Result::Depends(open.iter().map(|layer| layer.layer.clone()).collect()),
    };
    Explanation { traffic: traffic.clone(), layers, result }
}

/// Explains one layer; `None` for one that is not known here.
#[must_use]
pub fn at_layer(
    platform: &Platform,
    key: &Key,
    when: &'static str,
    traffic: &Traffic,
    answers: Answers<'_>,
) -> Option<LayerExplained> {
    let layer = query::layer(key)?;
    let facts = traffic.facts(layer);
    let ordered = ordered(platform, key, answers);
    let strata = arbitrate(&facts, &ordered.candidates);
    let last = strata.last().map_or_else(|| vec![Standing::default()], |last| last.after.clone());
    let outcomes = outcomes(&ordered, &last);
    let changes = changes(platform, &facts, &ordered, &strata);
    let sublayers = ordered
        .sublayers
        .iter()
        .zip(&strata)
        .map(|((key, filters), stratum)| said(platform, &ordered, key, filters, stratum, answers))
        .filter(|sublayer| !sublayer.filters.is_empty())
        .collect();
    let filters = ordered.sublayers.iter().map(|(_, filters)| filters.len()).sum();
    Some(LayerExplained { layer: key.short(), when, filters, sublayers, outcomes, changes })
}

/// A layer's filters by sublayer and weight.
fn ordered<'p>(platform: &'p Platform, layer: &Key, answers: Answers<'_>) -> Ordered<'p> {
    let mut sublayers: Vec<(&Key, Vec<&Filter>)> = Vec::new();
    for filter in platform.filters.iter().filter(|filter| filter.layer == *layer && !filter.has("DISABLED")) {
        match sublayers.iter_mut().find(|(key, _)| **key == filter.sublayer) {
            Some((_, filters)) => filters.push(filter),
            None => sublayers.push((&filter.sublayer, vec![filter])),
        }
    }
    // A sublayer of unknown weight comes last. Equal weights keep the order of the source, which is not documented.
    let weight = |key: &Key| platform.sublayer(key).map(|sublayer| sublayer.weight);
    sublayers.sort_by_key(|(key, _)| std::cmp::Reverse(weight(key)));
    for (_, filters) in &mut sublayers {
        filters.sort_by_key(|filter| (std::cmp::Reverse(filter.weight.unwrap_or(0)), filter.id));
    }
    let candidates = sublayers
        .iter()
        .map(|(_, filters)| filters.iter().map(|filter| candidate(platform, filter, answers)).collect())
        .collect();
    Ordered { sublayers, candidates }
}

fn candidate(platform: &Platform, filter: &Filter, answers: Answers<'_>) -> Candidate {
    let act = match &filter.action {
        Action::Permit => Act::Permit,
        Action::Block => Act::Block,
        Action::Other(_) => Act::Unknown,
        asks => {
            let inspection = *asks == Action::CalloutInspection;
            Act::Callout { inspection, answer: answer(platform, filter, answers) }
        }
    };
    Candidate {
        conditions: filter.conditions.iter().map(understood).collect(),
        clears_right: filter.has("CLEAR_ACTION_RIGHT"),
        permits_unregistered: filter.has("PERMIT_IF_CALLOUT_UNREGISTERED"),
        act,
    }
}

/// What a filter's callout will say: a driver's cannot be run here.
fn answer(platform: &Platform, filter: &Filter, answers: Answers<'_>) -> Answer {
    let Some(key) = &filter.callout else { return Answer::Unknown };
    // Windows' own that drops packets for which there is no endpoint; it always blocks ("Preventing Port Scanning").
    if key.to_string().ends_with("_SILENT_DROP") {
        return Answer::Decides { verdict: Verdict::Block, hard: true };
    }
    match platform.callout(key) {
        Some(callout) if !callout.registered() => Answer::Unregistered,
        // Windows' own callouts are not in every list.
        None if platform.lists_callouts && key.guid().and_then(filter_engine::names::name_of).is_none() => {
            Answer::Unregistered
        }
        _ => answers(filter).unwrap_or(Answer::Unknown),
    }
}

fn outcomes(ordered: &Ordered<'_>, standings: &[Standing]) -> Vec<Outcome> {
    standings
        .iter()
        .map(|standing| Outcome {
            verdict: match standing.verdict {
                Verdict::Permit => "permit",
                Verdict::Block => "block",
            },
            strength: match standing {
                Standing { decided: false, .. } => "none",
                Standing { vetoed: true, .. } => "veto",
                Standing { hard: true, .. } => "hard",
                Standing { .. } => "soft",
            },
            by: standing.by.map(|(sublayer, index)| ordered.sublayers[sublayer].1[index].id),
        })
        .collect()
}

fn said(
    platform: &Platform,
    ordered: &Ordered<'_>,
    key: &Key,
    filters: &[&Filter],
    stratum: &Stratum,
    answers: Answers<'_>,
) -> SublayerExplained {
    let explained: Vec<FilterExplained> = filters
        .iter()
        .zip(&stratum.filters)
        .filter_map(|(filter, judged)| {
            let depends_on = match &judged.matching {
                Matching::No { .. } => return None,
                Matching::Yes => Vec::new(),
                Matching::Unknown { conditions } => {
                    conditions.iter().filter_map(|at| Some(filter.conditions.get(*at)?.to_string())).collect()
                }
            };
            Some(FilterExplained {
                id: filter.id,
                name: filter.name.clone(),
                does: words::does(platform, filter, answer(platform, filter, answers)),
                provider: filter.provider.as_ref().map(|key| platform.provider_name(key)),
                matches: depends_on.is_empty() && judged.matching == Matching::Yes,
                depends_on,
                asked: match judged.reached {
                    Reached::Yes => "yes",
                    Reached::Perhaps => "perhaps",
                    Reached::No => "no",
                },
            })
        })
        .collect();
    SublayerExplained {
        sublayer: platform.sublayer_name(key),
        weight: platform.sublayer(key).map(|sublayer| sublayer.weight),
        others: filters.len() - explained.len(),
        filters: explained,
        after: outcomes(ordered, &stratum.after),
    }
}

/// What would come out if one filter were as `change` makes it.
fn changed(
    facts: &Facts<'_>,
    ordered: &Ordered<'_>,
    at: (usize, usize),
    change: impl FnOnce(&mut Candidate),
) -> Vec<Standing> {
    let mut candidates = ordered.candidates.clone();
    if let Some(filter) = candidates.get_mut(at.0).and_then(|sublayer| sublayer.get_mut(at.1)) {
        change(filter);
    }
    arbitrate(facts, &candidates).pop().map_or_else(|| vec![Standing::default()], |last| last.after)
}
