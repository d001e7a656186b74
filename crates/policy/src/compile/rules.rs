//! Turns a rule into boxes, and boxes into the forest of a family.

use super::{
    boxes::{Boxes, Shape},
    forest::{self, Forest},
    resolve::BySet,
    writer::Writer,
};
use crate::{
    flow::Direction,
    image::layout::{Dimension, ENTRY_ANY_PROTOCOL, ENTRY_CONDITIONS, EntryTail, TREES, Tree},
    model::{
        AddressSet, NumberSet, Rule,
        address::{AddressBits, Ranges},
    },
};
use std::collections::HashSet;

/// The boxes of one family, and which belong to which [`Tree`].
pub(super) struct Family<A> {
    pub(super) boxes: Boxes<A>,
    /// Those of the family, and behind them those of addresses that are inside another family's.
    trees: [Vec<u32>; 2 * TREES],
    /// Whether the latter are wanted.
    pub(super) embedded: bool,
    /// What waits already, whatever the rule: a later one of the same shape never decides whether to wait.
    waiting: HashSet<(Tree, bool, Shape<A>)>,
}

impl<A> Default for Family<A> {
    fn default() -> Self {
        Self { boxes: Boxes::default(), trees: Default::default(), embedded: false, waiting: HashSet::new() }
    }
}

impl<A: AddressBits> Family<A> {
    /// Adds a rule's boxes.
    pub(super) fn add(
        &mut self,
        rule: &Rule,
        number: u32,
        conditions: &[(Dimension, NumberSet)],
        by_set: BySet,
        family: impl Fn(&AddressSet) -> &Ranges<A>,
    ) {
        let remotes = prefixes(rule.remote.as_deref().map(&family), by_set.remote);
        let locals = prefixes(rule.local.as_deref().map(&family), by_set.local);
        let shape = shape(rule, number, conditions);
        // A set without a class is empty.
        if conditions.iter().any(|(_, set)| set.ranges().is_empty()) {
            return;
        }
        let several =
            |(dimension, set): &(Dimension, NumberSet)| *dimension != Dimension::Name && set.ranges().len() > 1;
        let exact_but_for_name = !conditions.iter().any(several) && !asks_for_several(conditions);
        for &remote in &remotes {
            for &local in &locals {
                let mut one = shape;
                one.remote(remote);
                one.local(local);
                self.place(rule, one, exact_but_for_name);
            }
        }
    }

    fn place(&mut self, rule: &Rule, one: Shape<A>, exact_but_for_name: bool) {
        if rule.direction == Some(Direction::Forward) {
            return self.place_forward(rule, one);
        }
        let place = self.boxes.push(&one);
        for (direction, tree) in [
            (Direction::Outbound, Tree::Outbound),
            (Direction::Inbound, Tree::Inbound),
            (Direction::Listen, Tree::Listen),
            (Direction::Bind, Tree::Bind),
        ] {
            if rule.is_for(direction) {
                self.put(rule, tree, place);
            }
        }
        if rule.names.is_none() {
            return;
        }
        let mut waiting = one;
        waiting.anywhere(Dimension::Name);
        waiting.exact = exact_but_for_name;
        let mut place = None;
        for direction in [Direction::Outbound, Direction::Inbound] {
            let mut shape = waiting;
            // Whether a rule with further conditions matches depends on the rule.
            if shape.exact {
                shape.entry.tail.rule = 0;
            }
            let [waits, permits] = if direction == Direction::Inbound {
                [Tree::InboundWaiting, Tree::InboundPermitting]
            } else {
                [Tree::OutboundWaiting, Tree::OutboundPermitting]
            };
            let permits = Some(permits).filter(|_| rule.action.may_permit());
            for tree in [Some(waits), permits].into_iter().flatten() {
                if rule.is_for(direction) && self.waiting.insert((tree, rule.local.is_none(), shape)) {
                    let place = *place.get_or_insert_with(|| self.boxes.push(&waiting));
                    self.put(rule, tree, place);
                }
            }
        }
    }

    /// Puts a box into a tree, and where its rule asks for no local address, into that of addresses inside others.
    fn put(&mut self, rule: &Rule, tree: Tree, place: u32) {
        self.trees[tree as usize].push(place);
        if self.embedded && rule.local.is_none() {
            self.trees[TREES + tree as usize].push(place);
        }
    }

    /// Where a condition cannot be judged, a rule takes the packet or is left out, as it says.
    fn place_forward(&mut self, rule: &Rule, one: Shape<A>) {
        let place = self.boxes.push(&one);
        self.put(rule, Tree::Forward, place);
        let has_ports = rule.remote_ports.is_some() || rule.local_ports.is_some();
        let has_protocol = rule.protocols.is_some();
        for (tree, unreadable, opened) in [
            (Tree::ForwardNoPorts, has_ports, &[Dimension::RemotePort, Dimension::LocalPort][..]),
            (
                Tree::ForwardNoProtocol,
                has_ports || has_protocol,
                &[Dimension::RemotePort, Dimension::LocalPort, Dimension::Protocol],
            ),
        ] {
            let place = match (unreadable, rule.undecidable_matches) {
                (false, _) => place,
                (true, false) => continue,
                (true, true) => {
                    let mut open = one;
                    opened.iter().for_each(|dimension| open.anywhere(*dimension));
                    self.boxes.push(&open)
                }
            };
            self.put(rule, tree, place);
        }
    }

    /// Grows the family's forest.
    pub(super) fn grow(&mut self, writer: &Writer) -> Result<Forest, String> {
        self.waiting = HashSet::new();
        let mut forest = forest::grow(&self.boxes, &std::mem::take(&mut self.trees))?;
        forest.count_steps(|number| self.steps(number, writer))?;
        Ok(forest)
    }

    /// The steps of comparing a box's entry, and its rule's conditions.
    fn steps(&self, number: u32, writer: &Writer) -> u64 {
        let tail = &self.boxes.entries[number as usize].tail;
        1 + if tail.flags & ENTRY_CONDITIONS == 0 { 0 } else { u64::from(writer.steps(tail.rule)) }
    }

    /// The rules of the leaf that takes the most steps.
    pub(super) fn slowest(&self, forest: &Forest, writer: &Writer) -> Vec<u32> {
        let mut rules: Vec<u32> = forest
            .slowest_leaf(|number| self.steps(number, writer))
            .iter()
            .map(|number| self.boxes.rule(*number))
            .collect();
        rules.dedup();
        rules
    }
}

/// A rule without its addresses.
fn shape<A: AddressBits>(rule: &Rule, number: u32, conditions: &[(Dimension, NumberSet)]) -> Shape<A> {
    let ports = |set: &Option<NumberSet>| match set.as_ref().map(NumberSet::ranges) {
        Some([(low, high)]) => (*low as u16, *high as u16),
        _ => (0, u16::MAX),
    };
    let protocol = match rule.protocols.as_ref().map(NumberSet::ranges) {
        Some([(low, high)]) if low == high => Some(*low as u8),
        _ => None,
    };
    let mut shape = Shape::all(EntryTail {
        remote_port: ports(&rule.remote_ports),
        local_port: ports(&rule.local_ports),
        protocol: protocol.unwrap_or(0),
        flags: if protocol.is_none() { ENTRY_ANY_PROTOCOL } else { 0 }
            | if conditions.is_empty() { 0 } else { ENTRY_CONDITIONS },
        rule: number,
        ..EntryTail::default()
    });
    for (dimension, ports) in
        [(Dimension::RemotePort, shape.entry.tail.remote_port), (Dimension::LocalPort, shape.entry.tail.local_port)]
    {
        if ports != (0, u16::MAX) {
            shape.within(dimension, (ports.0.into(), ports.1.into()));
        }
    }
    if let Some(protocol) = protocol {
        shape.within(Dimension::Protocol, (protocol.into(), protocol.into()));
    }
    for (dimension, set) in conditions {
        if let (Some(first), Some(last)) = (set.ranges().first(), set.ranges().last()) {
            shape.within(*dimension, (first.0, last.1));
        }
        shape.exact &= set.ranges().len() == 1;
    }
    shape.exact &= !asks_for_several(conditions);
    shape
}

/// Whether a flow's owner has to be in several sets: the range of a box covers only one.
fn asks_for_several(conditions: &[(Dimension, NumberSet)]) -> bool {
    conditions.iter().filter(|(dimension, _)| *dimension == Dimension::User).count() > 1
}

/// The prefixes for a condition's boxes: its own if they are few, the one around them if it is a set, none if it has no
/// address of the family.
fn prefixes<A: AddressBits>(ranges: Option<&Ranges<A>>, by_set: bool) -> Vec<(A, u8)> {
    let Some(ranges) = ranges else { return vec![(A::narrow(0), 0)] };
    if !by_set {
        return ranges.prefixes().collect();
    }
    let (Some(first), Some(last)) = (ranges.ranges().first(), ranges.ranges().last()) else { return Vec::new() };
    let (low, high) = (first.0.wide(), last.1.wide());
    let free = 128 - (low ^ high).leading_zeros();
    let base = if free == 128 { 0 } else { low >> free << free };
    vec![(A::narrow(base), (A::BITS - free) as u8)]
}
