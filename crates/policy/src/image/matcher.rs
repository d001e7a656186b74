//! First match: the flow is reduced to a key of numbers, the forest leads to a few boxes, and the least rule among
//! those that match decides.

use super::{
    budget::Budget,
    forest, identifiers,
    layout::*,
    members::Members,
    names,
    table::{Section, u32_at},
    v4, v6,
};
use crate::{
    essential::Essential,
    flow::{Decision, Direction, Flow, Headers, Name, Verdict, embedded_ipv4},
};
use core::net::IpAddr;

/// No rule.
const NONE: u32 = u32::MAX;
/// An empty word of the forest.
const EMPTY: u64 = 0;

/// A flow's addresses, with storage for them.
#[derive(Clone, Copy)]
enum Ends {
    V4 { remote: u32, local: u32 },
    V6 { remote: u128, local: u128 },
}

/// The decision, and how many steps it took.
#[inline]
pub(super) fn decide(image: &[u8], header: &Header, flow: &Flow<'_>) -> (Decision, u64) {
    let mut budget = Budget::whole();
    let mut key: Key = [0; DIMENSIONS];
    key[Dimension::RemotePort as usize] = u64::from(flow.remote_port);
    key[Dimension::LocalPort as usize] = u64::from(flow.local_port);
    key[Dimension::Protocol as usize] = u64::from(flow.protocol);
    key[Dimension::Interface as usize] = flow.interface.unwrap_or(0);
    identify(image, header, flow, &mut key, &mut budget);
    let ends = addresses(image, header, flow, &mut key);

    let known = flow.user.is_some() || flow.others.is_some();
    let members =
        (known && header.sections.user_slots.length != 0).then(|| Members::of(image, header, flow, &mut budget));
    let members = members.as_ref();
    let mut inside = inside(image, header, flow, &key);
    let (tree, ignored) = tree(flow);
    let view = if matches!(ends, Ends::V4 { .. }) { View::V4 } else { View::V6 };
    let mut search_all = |tree: Tree, best: u32, ignored: Ignored| {
        let best = search_for_all(
            image,
            header,
            header.root(view, tree),
            &mut key,
            members,
            &ends,
            best,
            ignored,
            &mut budget,
        );
        match &mut inside {
            Some((key, ends)) => search_for_all(
                image,
                header,
                header.root(View::Inside, tree),
                key,
                members,
                ends,
                best,
                ignored,
                &mut budget,
            ),
            None => best,
        }
    };
    let found = search_all(tree, NONE, ignored);
    let rule = header.sections.rules.record(image, found).map(RuleRecord::read);
    let default = header.default_of(flow.direction);
    let essential = if rule.is_none() && default & DEFAULT_SPARES_ESSENTIAL != 0 { Essential::of(flow) } else { None };
    let flags = match (rule, essential) {
        (Some(rule), _) => rule.flags,
        (None, Some(_)) => RULE_PERMIT | default & RULE_LOG,
        (None, None) => default,
    };
    let verdict = if flags & RULE_PERMIT != 0 { Verdict::Permit } else { Verdict::Block };
    let asks = rule.filter(|_| flags & RULE_ASKS != 0).map(|rule| rule.answer_seconds);
    // An answer may permit.
    let waiting = waiting(flow, if asks.is_some() { Verdict::Permit } else { verdict });
    let needs_name = waiting.is_some_and(|waiting| search_all(waiting, found, IGNORED_NAME) < found);
    if budget.is_overdrawn() {
        return (over_budget(header, flow.direction), budget.spent());
    }
    let decision = Decision {
        verdict,
        asks,
        hard: flags & RULE_HARD != 0,
        silent: flags & RULE_SILENT != 0,
        rule: rule.map(|_| found),
        essential,
        log: flags & RULE_LOG != 0,
        needs_name,
        over_budget: false,
    };
    (decision, budget.spent())
}

/// What becomes of a flow that cannot be decided in the steps there are.
#[cold]
fn over_budget(header: &Header, direction: Direction) -> Decision {
    Decision {
        verdict: Verdict::Block,
        asks: None,
        hard: true,
        silent: false,
        rule: None,
        essential: None,
        log: header.default_of(direction) & RULE_LOG != 0,
        needs_name: false,
        over_budget: true,
    }
}

/// The key and the ends of a flow as the IPv4 address inside its remote one has them, where the policy asks for that. The
/// local end has no IPv4 address, and the rules that are looked for ask for none.
#[inline]
fn inside(image: &[u8], header: &Header, flow: &Flow<'_>, key: &Key) -> Option<(Key, Ends)> {
    if header.options & OPTION_EMBEDDED == 0 {
        return None;
    }
    let remote = embedded_ipv4(flow.remote)?.to_bits();
    let mut key = *key;
    for dimension in [Dimension::RemoteLow, Dimension::Local, Dimension::LocalLow, Dimension::LocalSet] {
        key[dimension as usize] = 0;
    }
    key[Dimension::Remote as usize] = remote.into();
    key[Dimension::RemoteSet as usize] = class4(image, header.sections.remote4, &header.shapes4[0], remote).into();
    Some((key, Ends::V4 { remote, local: 0 }))
}

/// [`search`] for a flow of no set, and for each set that its owner is in.
#[inline]
#[allow(clippy::too_many_arguments, reason = "what a search goes by; a struct of them would be copied for each")]
fn search_for_all(
    image: &[u8],
    header: &Header,
    root: u64,
    key: &mut Key,
    members: Option<&Members>,
    ends: &Ends,
    best: u32,
    ignored: Ignored,
    budget: &mut Budget,
) -> u32 {
    if root == EMPTY {
        return best;
    }
    let mut best = search(image, header, root, key, members, ends, best, ignored, budget);
    if let Some(members) = members {
        for set in members.iter() {
            key[Dimension::User as usize] = set + 1;
            if budget.is_overdrawn() {
                break;
            }
            best = search(image, header, root, key, Some(members), ends, best, ignored, budget);
        }
        key[Dimension::User as usize] = 0;
    }
    best
}

/// Dimensions whose conditions are not asked: bit N for [`Dimension`] N.
type Ignored = u32;
const IGNORED_NAME: Ignored = 1 << Dimension::Name as u32;
const IGNORED_PORTS: Ignored = 1 << Dimension::RemotePort as u32 | 1 << Dimension::LocalPort as u32;
const IGNORED_PROTOCOL: Ignored = 1 << Dimension::Protocol as u32;

/// The tree of a flow, and what is not asked of the rules in it.
#[inline]
fn tree(flow: &Flow<'_>) -> (Tree, Ignored) {
    match (flow.direction, flow.headers) {
        (Direction::Outbound, _) => (Tree::Outbound, 0),
        (Direction::Inbound, _) => (Tree::Inbound, 0),
        (Direction::Listen, _) => (Tree::Listen, 0),
        (Direction::Bind, _) => (Tree::Bind, 0),
        (Direction::Forward, Headers::Whole) => (Tree::Forward, 0),
        (Direction::Forward, Headers::NoPorts) => (Tree::ForwardNoPorts, IGNORED_PORTS),
        (Direction::Forward, Headers::NoProtocol) => (Tree::ForwardNoProtocol, IGNORED_PORTS | IGNORED_PROTOCOL),
    }
}

/// The tree of the rules that a flow's name may still make decide otherwise: a flow that is blocked without a name is
/// only worth a look if one of them permits.
#[inline]
fn waiting(flow: &Flow<'_>, verdict: Verdict) -> Option<Tree> {
    if flow.name != Name::Unknown || !flow.carries_a_name() {
        return None;
    }
    match (flow.direction, verdict) {
        (Direction::Outbound, Verdict::Permit) => Some(Tree::OutboundWaiting),
        (Direction::Outbound, Verdict::Block) => Some(Tree::OutboundPermitting),
        (Direction::Inbound, Verdict::Permit) => Some(Tree::InboundWaiting),
        (Direction::Inbound, Verdict::Block) => Some(Tree::InboundPermitting),
        (Direction::Forward | Direction::Listen | Direction::Bind, _) => None,
    }
}

/// The class of a remote address.
pub(super) fn remote_class(image: &[u8], header: &Header, remote: IpAddr) -> u32 {
    match remote {
        IpAddr::V4(address) => class4(image, header.sections.remote4, &header.shapes4[0], address.to_bits()),
        IpAddr::V6(address) => class6(image, header.sections.remote6, &header.maps6[0], address.to_bits()),
    }
}

/// The class of an address by one of the maps; 0 if no rule needs it.
#[inline]
fn class4(image: &[u8], map: Section, shape: &v4::Shape, address: u32) -> u32 {
    if map.length == 0 { 0 } else { v4::class(image, shape, address) }
}

/// The same for IPv6.
#[inline]
fn class6(image: &[u8], map: Section, head: &v6::Map, address: u128) -> u32 {
    if map.length == 0 { 0 } else { v6::class(map.of(image), head, address) }
}

/// The classes of program and name, if rules need them.
#[inline]
fn identify(image: &[u8], header: &Header, flow: &Flow<'_>, key: &mut Key, budget: &mut Budget) {
    let sections = &header.sections;
    if let Some(application) = flow.application
        && sections.application_slots.length != 0
    {
        let class = identifiers::application(image, header, application.path(), budget);
        key[Dimension::Application as usize] = u64::from(class);
    }
    key[Dimension::Name as usize] = match flow.name {
        Name::Unknown => 0,
        Name::Undecidable => u64::from(header.undecidable),
        Name::Known(name) => u64::from(names::class(image, header, name)),
    };
}

/// The flow's addresses and the classes of the sets they are in. If the caller mixed families, the IPv4 address is used
/// in its IPv6 form.
#[inline]
fn addresses(image: &[u8], header: &Header, flow: &Flow<'_>, key: &mut Key) -> Ends {
    let sections = &header.sections;
    let ends = match (flow.remote, flow.local) {
        (IpAddr::V4(remote), IpAddr::V4(local)) => Ends::V4 { remote: remote.to_bits(), local: local.to_bits() },
        (remote, local) => Ends::V6 { remote: wide(remote), local: wide(local) },
    };
    match ends {
        Ends::V4 { remote, local } => {
            key[Dimension::Remote as usize] = u64::from(remote);
            key[Dimension::Local as usize] = u64::from(local);
            let [of_remote, of_local] = &header.shapes4;
            key[Dimension::RemoteSet as usize] = class4(image, sections.remote4, of_remote, remote).into();
            key[Dimension::LocalSet as usize] = class4(image, sections.local4, of_local, local).into();
        }
        Ends::V6 { remote, local } => {
            key[Dimension::Remote as usize] = (remote >> 64) as u64;
            key[Dimension::RemoteLow as usize] = remote as u64;
            key[Dimension::Local as usize] = (local >> 64) as u64;
            key[Dimension::LocalLow as usize] = local as u64;
            let [of_remote, of_local] = &header.maps6;
            key[Dimension::RemoteSet as usize] = class6(image, sections.remote6, of_remote, remote).into();
            key[Dimension::LocalSet as usize] = class6(image, sections.local6, of_local, local).into();
        }
    }
    ends
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The least matching rule below `best`, or `best`.
#[inline]
#[allow(clippy::too_many_arguments, reason = "the inputs of a search; a struct of them would be copied for each")]
fn search(
    image: &[u8],
    header: &Header,
    root: u64,
    key: &Key,
    members: Option<&Members>,
    ends: &Ends,
    best: u32,
    ignored: Ignored,
    budget: &mut Budget,
) -> u32 {
    match *ends {
        Ends::V4 { remote, local } => {
            let words = header.sections.forest4.of(image);
            let entries = header.sections.entries4.of(image);
            forest::search(words, root, key, best, budget, |first, count, best, budget| {
                let leaf = leaf::<{ Entry4::SIZE }>(entries, first, count);
                for entry in leaf {
                    let Entry4 { remote: within, local: own, tail } = Entry4::read(entry);
                    if tail.rule >= best {
                        break;
                    }
                    let differs = u64::from(remote ^ within).wrapping_shr(32 - u32::from(tail.remote_length))
                        | u64::from(local ^ own).wrapping_shr(32 - u32::from(tail.local_length));
                    if differs == 0
                        && plain_fields(key, &tail)
                        && conditions(image, header, key, members, &tail, ignored, budget)
                    {
                        return tail.rule;
                    }
                }
                best
            })
        }
        Ends::V6 { remote, local } => {
            let words = header.sections.forest6.of(image);
            let entries = header.sections.entries6.of(image);
            forest::search(words, root, key, best, budget, |first, count, best, budget| {
                let leaf = leaf::<{ Entry6::SIZE }>(entries, first, count);
                for entry in leaf {
                    let Entry6 { remote: within, local: own, tail } = Entry6::read(entry);
                    if tail.rule >= best {
                        break;
                    }
                    let same =
                        same_prefix(remote, within, tail.remote_length) & same_prefix(local, own, tail.local_length);
                    if same
                        && plain_fields(key, &tail)
                        && conditions(image, header, key, members, &tail, ignored, budget)
                    {
                        return tail.rule;
                    }
                }
                best
            })
        }
    }
}

/// The entries of a leaf.
#[inline]
fn leaf<const SIZE: usize>(entries: &[u8], first: u32, count: u32) -> &[[u8; SIZE]] {
    let start = first as usize * SIZE;
    entries.get(start..start + count as usize * SIZE).unwrap_or(&[]).as_chunks().0
}

#[inline]
fn same_prefix(a: u128, b: u128, length: u8) -> bool {
    (a ^ b).checked_shr(128 - u32::from(length)).unwrap_or(0) == 0
}

/// Ports and protocol, without a branch between them: which one fails is not predictable.
#[inline]
fn plain_fields(key: &Key, tail: &EntryTail) -> bool {
    let within = |dimension: Dimension, (low, high): (u16, u16)| {
        let value = key[dimension as usize] as u16;
        (value >= low) & (value <= high)
    };
    within(Dimension::RemotePort, tail.remote_port)
        & within(Dimension::LocalPort, tail.local_port)
        & ((tail.flags & ENTRY_ANY_PROTOCOL != 0) | (key[Dimension::Protocol as usize] as u8 == tail.protocol))
}

#[inline]
fn conditions(
    image: &[u8],
    header: &Header,
    key: &Key,
    members: Option<&Members>,
    tail: &EntryTail,
    ignored: Ignored,
    budget: &mut Budget,
) -> bool {
    tail.flags & ENTRY_CONDITIONS == 0 || conditions_match(image, header, key, members, tail.rule, ignored, budget)
}

fn conditions_match(
    image: &[u8],
    header: &Header,
    key: &Key,
    members: Option<&Members>,
    rule: u32,
    ignored: Ignored,
    budget: &mut Budget,
) -> bool {
    let Some(rule) = header.sections.rules.record(image, rule).map(RuleRecord::read) else { return false };
    if !budget.spend(rule.steps) {
        return false;
    }
    for index in rule.conditions..rule.conditions.saturating_add(u32::from(rule.condition_count)) {
        let Some(condition) = header.sections.conditions.record(image, index).map(ConditionRecord::read) else {
            return false;
        };
        if ignored & 1u32.wrapping_shl(condition.dimension) != 0 {
            continue;
        }
        let value = key[condition.dimension as usize % DIMENSIONS];
        let holds = match condition.within {
            // A rule may require several sets, and the flow's owner may be in all of them.
            Within::Range(set, _) if condition.dimension == Dimension::User as u32 => {
                members.is_some_and(|members| members.has(set.wrapping_sub(1)))
            }
            Within::Range(low, high) => value >= u64::from(low) && value <= u64::from(high),
            Within::List(list) => in_list(image, header, list, value),
        };
        if !holds {
            return false;
        }
    }
    true
}

/// Whether `value` is in one of the ascending ranges of `list`.
fn in_list(image: &[u8], header: &Header, list: u32, value: u64) -> bool {
    let lists = header.sections.lists.of(image);
    let mut low = if list == 0 { 0 } else { u32_at(lists, (list as usize).wrapping_sub(1).wrapping_mul(4)) };
    let mut high = u32_at(lists, (list as usize).wrapping_mul(4));
    let ranges = header.sections.ranges.of(image);
    while low < high {
        let middle = low.midpoint(high);
        let (first, last) = range(ranges, middle);
        if value < first {
            high = middle;
        } else if value > last {
            low = middle + 1;
        } else {
            return true;
        }
    }
    false
}
