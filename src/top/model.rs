//! What the looks come to: rates, who talks most, what is blocked, and how often each rule decides.

use super::sample::Sample;
use serde::Serialize;
use sluice_control::EventLine;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

/// How many looks a sparkline shows.
pub(super) const REMEMBERED: usize = 60;
/// How many rules, and how many kinds of what is blocked, are kept; those not heard of for longest go first.
const MOST: usize = 512;

/// Numbers per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Connections and packets that were permitted.
    pub(super) permitted: f64,
    /// Those that were blocked.
    pub(super) blocked: f64,
    /// Bytes of tracked flows sent.
    pub(super) bytes_out: f64,
    /// Bytes received.
    pub(super) bytes_in: f64,
    /// Packets sent.
    pub(super) packets_out: f64,
    /// Packets received.
    pub(super) packets_in: f64,
}

/// A rule, a default, or essential traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rule {
    /// What decides, in words.
    pub(super) name: String,
    /// How often it permitted since this began.
    pub(super) permitted: u64,
    /// How often it blocked.
    pub(super) blocked: u64,
    /// How often it decided between the last looks, the newest last.
    pub(super) history: VecDeque<u64>,
}

/// A flow that carried something since the last look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Talker {
    /// The program's file name, or that it is not known.
    pub(super) program: String,
    /// The other end.
    pub(super) remote: SocketAddr,
    /// The name that its content asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// Bytes per second sent.
    pub(super) bytes_out: f64,
    /// Bytes per second received.
    pub(super) bytes_in: f64,
}

/// What was blocked: the same program, other end and rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Blocked {
    /// When last, UTC.
    pub(super) time: String,
    /// How often since this began.
    pub(super) count: u64,
    /// `in`, `out` or `forward`.
    pub(super) direction: String,
    /// The protocol.
    pub(super) protocol: String,
    /// The other end.
    pub(super) remote: SocketAddr,
    /// The program's file name, or that it is not known.
    pub(super) program: String,
    /// What decided.
    pub(super) by: String,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Top {
    /// 1: the form of this object.
    pub(super) format: u32,
    /// Seconds since the first look.
    pub(super) seconds: f64,
    /// How many rules the policy in force has.
    pub(super) rules_in_force: u32,
    /// Its generation; 0 without a policy.
    pub(super) generation: u32,
    /// How many flows live now.
    pub(super) flows: usize,
    /// Numbers per second between the last two looks.
    pub(super) rates: Rates,
    /// Those that decided most often between them first.
    pub(super) rules: Vec<Rule>,
    /// Those that carry most first.
    pub(super) talkers: Vec<Talker>,
    /// The last first.
    pub(super) blocked: Vec<Blocked>,
    /// Counters of what went wrong, that are not 0: packets and decisions lost, flows that could not be tracked.
    pub(super) drops: BTreeMap<&'static str, u64>,
    /// Decisions that made no event that this program saw.
    pub(super) unseen: u64,
    /// Permitted and blocked per second, the newest last.
    #[serde(skip)]
    pub(super) history: [VecDeque<u64>; 2],
    #[serde(skip)]
    before: Option<Sample>,
}

/// The counters of what went wrong.
const DROPS: [&str; 9] = [
    "decisions_without_right",
    "decisions_over_budget",
    "fields_missing",
    "flows_untracked",
    "flows_refused",
    "flows_revoked",
    "revoked_packets",
    "events_dropped",
    "events_over_budget",
];

impl Top {
    pub(super) fn new() -> Self {
        Self { format: 1, ..Self::default() }
    }

    /// Takes in another look.
    pub(super) fn add(&mut self, sample: Sample) {
        let seconds = self.before.as_ref().map_or(0.0, |before| (sample.at - before.at).as_secs_f64());
        let before = |name: &str| self.before.as_ref().and_then(|sample| sample.counters.get(name)).copied();
        let now = |name: &str| sample.counters.get(name).copied().unwrap_or_default();
        let rate = |names: &[&str]| -> f64 {
            // A driver that was loaded again counts from 0.
            let more: u64 = names.iter().map(|name| now(name).saturating_sub(before(name).unwrap_or(u64::MAX))).sum();
            if seconds > 0.0 { more as f64 / seconds } else { 0.0 }
        };
        self.rates = Rates {
            permitted: rate(&["connects_permitted", "accepts_permitted", "packets_permitted", "forwards_permitted"]),
            blocked: rate(&["connects_blocked", "accepts_blocked", "packets_blocked", "forwards_blocked"]),
            bytes_out: rate(&["bytes_out"]),
            bytes_in: rate(&["bytes_in"]),
            packets_out: rate(&["packets_out"]),
            packets_in: rate(&["packets_in"]),
        };
        for (history, rate) in self.history.iter_mut().zip([self.rates.permitted, self.rates.blocked]) {
            push(history, rate.round() as u64);
        }
        self.drops = DROPS.iter().filter_map(|name| Some((*name, now(name))).filter(|(_, count)| *count > 0)).collect();
        self.talkers = talkers(self.before.as_ref(), &sample, seconds);
        self.decisions(&sample.events);
        (self.rules_in_force, self.generation) = sample.policy;
        (self.seconds, self.flows) = (sample.at.as_secs_f64(), sample.flows.len());
        self.unseen += sample.unseen;
        self.before = Some(Sample { events: Vec::new(), ..sample });
    }

    fn decisions(&mut self, events: &[EventLine]) {
        let mut decided: HashMap<String, [u64; 2]> = HashMap::new();
        for event in events {
            let by = decider(event);
            let is_block = event.verdict == "block";
            decided.entry(by.clone()).or_default()[usize::from(is_block)] += 1;
            if is_block {
                self.block(event, by);
            }
        }
        for rule in &mut self.rules {
            let [permitted, blocked] = decided.remove(&rule.name).unwrap_or_default();
            rule.permitted += permitted;
            rule.blocked += blocked;
            push(&mut rule.history, permitted + blocked);
        }
        for (name, [permitted, blocked]) in decided {
            self.rules.push(Rule { name, permitted, blocked, history: [permitted + blocked].into() });
        }
        let recently = |rule: &Rule| rule.history.iter().rev().copied().collect::<Vec<u64>>();
        // Those that have decided lately first, then by name, so that what is idle keeps its place.
        self.rules.sort_by(|a, b| {
            let sums = [a, b].map(|rule| recently(rule).iter().sum::<u64>());
            sums[1].cmp(&sums[0]).then_with(|| a.name.cmp(&b.name))
        });
        self.rules.truncate(MOST);
    }

    fn block(&mut self, event: &EventLine, by: String) {
        let (remote, program) =
            (SocketAddr::new(event.remote_address, event.remote_port), program(event.application.as_deref()));
        let (direction, protocol) = (event.direction.to_string(), event.protocol.to_string());
        let alike = |one: &Blocked| {
            one.remote == remote
                && one.program == program
                && one.by == by
                && one.direction == direction
                && one.protocol == protocol
        };
        let found = self.blocked.iter().position(alike).map(|at| self.blocked.remove(at));
        let time = event.time.strftime("%H:%M:%S").to_string();
        let count = found.map_or(0, |one| one.count) + 1;
        self.blocked.insert(0, Blocked { time, count, direction, protocol, remote, program, by });
        self.blocked.truncate(MOST);
    }
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == REMEMBERED {
        history.pop_front();
    }
    history.push_back(value);
}

fn decider(event: &EventLine) -> String {
    match (&event.rule_name, event.rule, event.essential) {
        (Some(name), ..) => name.clone(),
        (None, Some(number), _) => format!("rule {number}"),
        (None, None, Some(reason)) => format!("essential: {}", reason.name()),
        (None, None, None) => format!("default {}", event.direction),
    }
}

/// A program's file name.
fn program(path: Option<&str>) -> String {
    path.map_or("?", |path| path.rsplit('\\').next().unwrap_or(path)).to_owned()
}

/// The flows that carried something since the look before.
fn talkers(before: Option<&Sample>, sample: &Sample, seconds: f64) -> Vec<Talker> {
    let Some(before) = before.filter(|_| seconds > 0.0) else { return Vec::new() };
    let old: HashMap<u64, (u64, u64)> =
        before.flows.iter().map(|flow| (flow.flow, (flow.bytes_out, flow.bytes_in))).collect();
    let mut found: Vec<Talker> = sample
        .flows
        .iter()
        .map(|flow| {
            // One that is new has carried all of it since.
            let (out, into) = old.get(&flow.flow).copied().unwrap_or_default();
            Talker {
                program: program(flow.application.as_deref()),
                remote: SocketAddr::new(flow.remote_address, flow.remote_port),
                name: flow.name.clone(),
                bytes_out: flow.bytes_out.saturating_sub(out) as f64 / seconds,
                bytes_in: flow.bytes_in.saturating_sub(into) as f64 / seconds,
            }
        })
        .filter(|talker| talker.bytes_out + talker.bytes_in > 0.0)
        .collect();
    found.sort_by(|a, b| (b.bytes_out + b.bytes_in).total_cmp(&(a.bytes_out + a.bytes_in)));
    found
}
