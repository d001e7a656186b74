//! Spreads rules over layers (see [`crate::image::layers`]).
//!
//! A rule stands once in a layer for each combination of parts it matches. What keeps that number small is that rules
//! which tell many classes apart and rules which ask for nothing, or for much, in the same dimension are not in the same
//! layer: from all rules that are left, those that would stand in too many cells are taken out until the others stand
//! in few; these make a layer, and what was taken out goes on to the next.

mod cells;
mod partition;
mod welcome;

use super::{classes::Numbering, resolve::ANY};
use crate::image::{
    layers::LAYERS,
    layout::{CLASSED, Dimension, Parts, SLOTS, Signature, Slot},
};
use cells::Cells;
use partition::Partition;
use welcome::Welcome;

/// The most layers of rules that wait for a name; the others are left to those that decide.
const WAITING: usize = 8;
/// A list this long is worth telling ports apart by classes.
const LONG: usize = 24;
/// The most combinations of parts one rule may stand in.
const COPIES: u64 = 256;
/// Of the items that are too dear for a layer, one in this many goes at a time.
const AT_A_TIME: usize = 2;
/// Rules that are few whatever the others are.
const FEW: usize = 100;
/// How often a layer is filled up again.
const REFILLS: usize = 3;

/// A rule, to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Its number.
    pub(super) rule: u32,
    /// Its condition in each classed dimension, or [`ANY`].
    pub(super) sets: [u32; CLASSED],
    /// What it asks of ports, protocol and direction.
    pub(super) signature: Signature,
    /// Whether it has conditions that neither classes nor the signature tell.
    pub(super) checks: bool,
}

/// A layer while it is made.
struct Layer {
    items: Vec<Item>,
    /// By dimension; none where the layer tells nothing apart.
    partitions: [Option<Partition>; CLASSED],
    /// Whether the key tells the parts of the dimension. Where there is only one that any rule asks for, the row's bit
    /// says enough.
    keyed: [bool; CLASSED],
}

impl Layer {
    fn new(items: Vec<Item>, partitions: [Partition; CLASSED]) -> Self {
        let keyed = std::array::from_fn(|dimension| {
            let any = items.iter().any(|item| item.sets[dimension] == ANY);
            partitions[dimension].conditions.len() > if any { 1 } else { 2 }
        });
        Self { items, partitions: partitions.map(|partition| (!partition.is_whole()).then_some(partition)), keyed }
    }
}

/// What placing came to.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) slots: [Slot; SLOTS],
    pub(super) slot_count: u8,
    /// How many layers decide, and that wait.
    pub(super) counts: [u8; 2],
    /// By rule: the dimensions in which its place does not imply its condition, a bit each.
    pub(super) unchecked: Vec<u8>,
}

impl Placed {
    /// The dimensions that have rows.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots[..usize::from(self.slot_count)]
    }
}

/// Places the rules that decide and those that wait for a name, each in the rules' order; writes layers, rows, cells.
pub(super) fn place(
    deciding: Vec<Item>,
    waiting: Vec<Item>,
    spaces: &[Numbering; CLASSED],
    usable: [bool; CLASSED],
    rules: usize,
    parts: &mut Parts,
) -> Result<Placed, String> {
    let space = Space::of(spaces);
    let mut layers = spread(deciding, &space, usable, LAYERS - WAITING);
    let first = layers.len();
    layers.extend(spread(waiting, &space, usable, WAITING));
    drop(space);
    let (head, tail) = layers.split_at_mut(first);
    for layers in [head, tail] {
        layers.sort_by_key(|layer| layer.items.first().map(|item| item.rule));
    }
    let counts = [first as u8, (layers.len() - first) as u8];
    let mut cells = Cells::new(rules);
    let records = layers.iter_mut().map(|layer| cells.add(layer)).collect::<Result<Vec<_>, _>>()?;
    let (slots, slot_count) = cells::rows(&layers, &records, spaces, parts)?;
    let unchecked = cells.finish(&records, &slots[..usize::from(slot_count)], parts)?;
    Ok(Placed { slots, slot_count, counts, unchecked })
}

/// All classes, and how many conditions there are, by dimension.
struct Space {
    all: [Partition; CLASSED],
    conditions: [usize; CLASSED],
}

impl Space {
    fn of(spaces: &[Numbering; CLASSED]) -> Self {
        let last = |numbering: &Numbering| numbering.combinations.iter().filter_map(|sets| sets.last()).max().copied();
        Self {
            all: std::array::from_fn(|dimension| Partition::all(&spaces[dimension].combinations)),
            conditions: std::array::from_fn(|dimension| last(&spaces[dimension]).map_or(0, |last| last as usize + 1)),
        }
    }
}

/// Spreads items over at most `most` layers.
fn spread(items: Vec<Item>, space: &Space, usable: [bool; CLASSED], most: usize) -> Vec<Layer> {
    let ports = [Dimension::RemotePortClass as usize, Dimension::LocalPortClass as usize];
    let mut without = usable;
    ports.iter().for_each(|port| without[*port] = false);
    let mut layers = peel(items, space, without, most);
    // The rules of long cells go to layers of their own, which tell ports apart.
    let mut long = Vec::new();
    for layer in &mut layers {
        let in_long = cells::in_long(layer, LONG);
        if in_long.iter().any(|long| *long) {
            let mut at = in_long.iter();
            let (out, stay) = layer.items.iter().partition(|_| at.next().copied().unwrap_or(false));
            layer.items = stay;
            long.extend(out);
        }
    }
    layers.retain(|layer| !layer.items.is_empty());
    long.sort_unstable_by_key(|item: &Item| item.rule);
    layers.extend(peel(long, space, usable, most - layers.len().min(most - 1)));
    layers
}

/// Peels layers off the items until none is left.
fn peel(mut left: Vec<Item>, space: &Space, usable: [bool; CLASSED], most: usize) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    let total = left.len();
    let mut above: [Partition; CLASSED] = space.all.clone();
    while !left.is_empty() {
        if layers.len() + 1 >= most {
            layers.push(last(left, space, usable));
            break;
        }
        above = restricted(&above, &left, space, usable);
        let allowed = allowed(total, left.len(), layers.len());
        let (layer, rest) = one(left, &above, space, usable, allowed);
        layers.push(layer);
        left = rest;
    }
    layers
}

/// A layer of all items: it tells those dimensions apart that do not make too many copies.
fn last(items: Vec<Item>, space: &Space, usable: [bool; CLASSED]) -> Layer {
    let mut told = [false; CLASSED];
    let limit = items.len() as u64 * 16 + 1024;
    for dimension in (0..CLASSED).filter(|dimension| usable[*dimension]) {
        told[dimension] = true;
        let costs = Costs::of(&restricted(&space.all, &items, space, told), space);
        told[dimension] = items.iter().fold(0u64, |sum, item| sum.saturating_add(costs.of_item(item, told))) <= limit;
    }
    let partitions = restricted(&space.all, &items, space, told);
    Layer::new(items, partitions)
}

/// The partitions by the conditions of `items`; dimensions that are not usable have one part.
fn restricted(
    from: &[Partition; CLASSED],
    items: &[Item],
    space: &Space,
    usable: [bool; CLASSED],
) -> [Partition; CLASSED] {
    std::array::from_fn(|dimension| {
        let mut active = vec![false; space.conditions[dimension]];
        if usable[dimension] {
            let sets = items.iter().map(|item| item.sets[dimension]).filter(|set| *set != ANY);
            sets.for_each(|set| active[set as usize] = true);
        }
        from[dimension].restricted(&active)
    })
}

/// In how many combinations of parts items stand.
struct Costs {
    /// By dimension: how many parts each condition has, and how many there are.
    counts: [(Vec<u32>, u64); CLASSED],
}

impl Costs {
    fn of(partitions: &[Partition; CLASSED], space: &Space) -> Self {
        let counts = std::array::from_fn(|dimension| {
            let mut counts = vec![0u32; space.conditions[dimension]];
            for list in partitions[dimension].conditions.iter() {
                list.iter().for_each(|condition| counts[*condition as usize] += 1);
            }
            (counts, partitions[dimension].conditions.len() as u64)
        });
        Self { counts }
    }

    /// In how many combinations the item stands.
    fn of_item(&self, item: &Item, usable: [bool; CLASSED]) -> u64 {
        self.counts.iter().zip(item.sets).zip(usable).fold(1, |cost, (((counts, total), set), usable)| {
            cost.saturating_mul(if set == ANY || !usable { *total } else { counts[set as usize].into() })
        })
    }
}

/// How many cells a layer may have.
#[derive(Clone, Copy)]
struct Allowed {
    /// For each item that many.
    times: u64,
    /// And a fourth part of them, or this many where that is no more than sixteen for each.
    more: u64,
}

/// What the next layer is allowed when `before` were made of `total` items and `left` are left: the last few may stand in
/// many cells, so that they do not take a layer for each handful; and the more layers there are, the more room the
/// next may take, so that there will be an end.
fn allowed(total: usize, left: usize, before: usize) -> Allowed {
    let more = if left <= FEW.max(total / 32) { left as u64 * 4 } else { 64 };
    match before {
        0..12 => Allowed { times: 1, more },
        12..18 => Allowed { times: 4, more },
        _ => Allowed { times: 16, more },
    }
}

impl Allowed {
    fn cells(self, items: usize) -> u64 {
        let items = items as u64;
        items * self.times + (items / 4).max(self.more.min(items * 15))
    }
}

/// The items of a layer while they are chosen.
struct Choice {
    taken: Vec<Item>,
    partitions: [Partition; CLASSED],
    costs: Costs,
}

/// One layer of the items, and what is left. `above` is what all of them tell apart.
fn one(
    items: Vec<Item>,
    above: &[Partition; CLASSED],
    space: &Space,
    usable: [bool; CLASSED],
    allowed: Allowed,
) -> (Layer, Vec<Item>) {
    let start = above.each_ref().map(Partition::parts);
    let mut best = thin(items.clone(), start.clone(), space, usable, allowed);
    // What would stand in few cells beside those that were chosen comes in again; what is dear then goes out.
    for _ in 0..REFILLS {
        let welcome = Welcome::of(&best, &items, above, space, usable);
        let mut kept = best.taken.iter().map(|item| item.rule).peekable();
        let more: Vec<Item> =
            items.iter().filter(|item| kept.next_if_eq(&item.rule).is_some() || welcome.item(item)).copied().collect();
        if more.len() == best.taken.len() {
            break;
        }
        let partitions = restricted(&start, &more, space, usable);
        let next = thin(more, partitions, space, usable, allowed);
        if next.taken.len() <= best.taken.len() {
            break;
        }
        best = next;
    }
    let mut kept = best.taken.iter().map(|item| item.rule).peekable();
    let rest = items.into_iter().filter(|item| kept.next_if_eq(&item.rule).is_none()).collect();
    let mut coarser = best.partitions.into_iter();
    let partitions = above.each_ref().map(|above| above.then(coarser.next().unwrap_or_else(|| above.parts())));
    (Layer::new(best.taken, partitions), rest)
}

/// Takes the dearest out until the others stand in few cells.
fn thin(
    mut taken: Vec<Item>,
    mut partitions: [Partition; CLASSED],
    space: &Space,
    usable: [bool; CLASSED],
    allowed: Allowed,
) -> Choice {
    loop {
        let costs = Costs::of(&partitions, space);
        let priced: Vec<u64> = taken.iter().map(|item| costs.of_item(item, usable)).collect();
        let total = priced.iter().fold(0u64, |sum, cost| sum.saturating_add(*cost));
        let dear = priced.iter().filter(|cost| **cost > COPIES).count();
        if (dear == 0 && total <= allowed.cells(taken.len())) || taken.len() == 1 {
            return Choice { taken, partitions, costs };
        }
        // The dearest go, a part of those that are too many at a time: what is left becomes cheaper meanwhile. Of those
        // that cost the same the last go first.
        let mut order: Vec<usize> = (0..taken.len()).collect();
        order.sort_by_key(|place| (u64::MAX - priced[*place], usize::MAX - *place));
        let (mut sum, mut too_many) = (total, 0);
        while too_many + 1 < taken.len() && (too_many < dear || sum > allowed.cells(taken.len() - too_many)) {
            sum = sum.saturating_sub(priced[order[too_many]]);
            too_many += 1;
        }
        let mut gone = vec![false; taken.len()];
        order[..too_many.div_ceil(AT_A_TIME).max(1)].iter().for_each(|place| gone[*place] = true);
        let mut gone = gone.into_iter();
        taken.retain(|_| !gone.next().unwrap_or(false));
        partitions = restricted(&partitions, &taken, space, usable);
    }
}
