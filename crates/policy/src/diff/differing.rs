//! Which rules of two policies differ: all others decide alike what they decide, since they stand in the same order.

use crate::{
    flow::Direction,
    model::{Action, AddressSet, Moment, NameSet, NumberSet, Policy, Rule, SidBuf},
};
use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// The rules of one policy that take part.
pub(super) struct Active<'a> {
    pub(super) rules: Vec<&'a Rule>,
    /// Places in `rules` of those that the other policy has not, or has in another order.
    pub(super) differing: Vec<usize>,
}

/// The rules of two policies at a moment.
pub(super) fn of<'a>(old: &'a Policy, new: &'a Policy, at: Option<Moment>) -> [Active<'a>; 2] {
    let active = |policy: &'a Policy| -> Vec<&'a Rule> {
        policy.rules.iter().filter(|rule| rule.active(&policy.schedules, at)).collect()
    };
    let (old, new) = (active(old), active(new));
    let mut places: HashMap<Content<'_>, Vec<usize>> = HashMap::new();
    for (place, rule) in new.iter().enumerate().rev() {
        places.entry(Content::of(rule)).or_default().push(place);
    }
    let pairs: Vec<(usize, usize)> = old
        .iter()
        .enumerate()
        .filter_map(|(place, rule)| Some((place, places.get_mut(&Content::of(rule))?.pop()?)))
        .collect();
    let (mut stays_old, mut stays_new) = (vec![false; old.len()], vec![false; new.len()]);
    for (first, second) in in_order(&pairs) {
        (stays_old[first], stays_new[second]) = (true, true);
    }
    [(old, stays_old), (new, stays_new)].map(|(rules, stays)| {
        let differing = (0..rules.len()).filter(|place| !stays[*place]).collect();
        Active { rules, differing }
    })
}

/// The longest part of `pairs`, whose first numbers rise, in which the second ones rise too.
fn in_order(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // Of the parts of each length, the one that ends lowest; and what each pair follows.
    let mut ends: Vec<usize> = Vec::new();
    let mut follows = vec![None; pairs.len()];
    for (index, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < pair.1);
        follows[index] = length.checked_sub(1).map(|before| ends[before]);
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut part: Vec<_> =
        std::iter::successors(ends.last().copied(), |index| follows[*index]).map(|index| pairs[index]).collect();
    part.reverse();
    part
}

/// What a rule decides and for which flows; not its name, its remarks or its place.
#[derive(PartialEq, Eq, Hash)]
struct Content<'a> {
    verdict: (Action, bool),
    direction: Option<Direction>,
    protocols: &'a Option<NumberSet>,
    addresses: [Option<Addresses<'a>>; 2],
    ports: [&'a Option<NumberSet>; 2],
    applications: Option<Vec<&'a str>>,
    identities: [&'a Option<Vec<SidBuf>>; 4],
    interfaces: &'a Option<NumberSet>,
    aliases: Vec<&'a str>,
    names: Option<&'a NameSet>,
    undecidable_matches: bool,
}

impl<'a> Content<'a> {
    fn of(rule: &'a Rule) -> Self {
        // All fields by name: a new condition does not compile until it is compared.
        let Rule {
            name: _,
            note: _,
            action,
            hard,
            log: _,
            enabled: _,
            direction,
            protocols,
            remote,
            local,
            remote_ports,
            local_ports,
            applications,
            users,
            groups,
            services,
            packages,
            interfaces,
            aliases,
            names,
            undecidable_matches,
            schedule: _,
            expectations: _,
            span: _,
        } = rule;
        let paths = |all: &'a Vec<crate::model::Located<String>>| all.iter().map(|one| one.value.as_str()).collect();
        Self {
            verdict: (*action, *hard),
            direction: *direction,
            protocols,
            addresses: [remote, local].map(|set| set.as_ref().map(Addresses)),
            ports: [remote_ports, local_ports],
            applications: applications.as_ref().map(paths),
            identities: [users, groups, services, packages],
            interfaces,
            aliases: aliases.iter().map(|alias| alias.value.as_str()).collect(),
            names: names.as_deref(),
            undecidable_matches: *undecidable_matches,
        }
    }
}

/// Addresses of a rule, which many rules may share.
#[derive(Eq)]
struct Addresses<'a>(&'a Arc<AddressSet>);

impl PartialEq for Addresses<'_> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.0, other.0) || self.0 == other.0
    }
}

impl Hash for Addresses<'_> {
    /// Of the beginning: large lists are few.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (v4, v6) = (self.0.v4.ranges(), self.0.v6.ranges());
        (v4.len(), &v4[..v4.len().min(16)], v6.len(), &v6[..v6.len().min(16)]).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn no_part_in_order_is_longer() {
        let mut orders = vec![vec![]];
        for number in 0..6usize {
            orders = orders
                .iter()
                .flat_map(|order: &Vec<usize>| (0..=number).map(|at| [&order[..at], &[number], &order[at..]].concat()))
                .collect();
        }
        assert_eq!(orders.len(), 720);
        for order in orders {
            let pairs: Vec<_> = order.iter().copied().enumerate().collect();
            let found = in_order(&pairs);
            assert!(found.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{order:?}");
            let rises = |mask: &u32| {
                let part: Vec<_> = (0..6).filter(|bit| mask & (1 << bit) != 0).map(|bit| order[bit]).collect();
                part.is_sorted()
            };
            let longest = (0..64u32).filter(rises).map(u32::count_ones).max();
            assert_eq!(Some(found.len() as u32), longest, "{order:?}");
        }
    }
}
