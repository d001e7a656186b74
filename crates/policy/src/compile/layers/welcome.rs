//! Which of the rules that were taken out of a layer would do it little harm.

use super::{ANY, Choice, Item, Partition, Space};
use crate::image::layout::CLASSED;

/// The most combinations a rule that joins may stand in.
const PRICE: u64 = 2;

/// What joining costs, by dimension and condition: [`u32::MAX`] where it costs too much.
pub(super) struct Welcome {
    /// How many parts the condition would have.
    own: [Vec<u32>; CLASSED],
    /// How many a rule has that asks nothing.
    any: [u64; CLASSED],
    usable: [bool; CLASSED],
}

impl Welcome {
    pub(super) fn of(
        choice: &Choice,
        items: &[Item],
        above: &[Partition; CLASSED],
        space: &Space,
        usable: [bool; CLASSED],
    ) -> Self {
        let own = std::array::from_fn(|dimension| {
            let count = space.conditions[dimension];
            if !usable[dimension] || count == 0 {
                return vec![1; count];
            }
            one(choice, items, dimension, &above[dimension], count)
        });
        let any = choice.partitions.each_ref().map(|partition| partition.conditions.len() as u64);
        Self { own, any, usable }
    }

    /// Whether the item may join.
    pub(super) fn item(&self, item: &Item) -> bool {
        let parts = (0..CLASSED).map(|dimension| match item.sets[dimension] {
            set if set == ANY || !self.usable[dimension] => self.any[dimension],
            set => u64::from(self.own[dimension][set as usize]),
        });
        parts.fold(1u64, u64::saturating_mul) <= PRICE
    }
}

/// The parts each condition of a dimension has in the choice, or would have if that is worth it.
fn one(choice: &Choice, items: &[Item], dimension: usize, above: &Partition, count: usize) -> Vec<u32> {
    let partition = &choice.partitions[dimension];
    let mut own = choice.costs.counts[dimension].0.clone();
    // How many chosen rules have each condition, and none; how many of all have it.
    let (mut chosen, mut all, mut open) = (vec![0u64; count], vec![0u64; count], 0u64);
    for item in &choice.taken {
        match item.sets[dimension] {
            ANY => open += 1,
            set => chosen[set as usize] += 1,
        }
    }
    items.iter().map(|item| item.sets[dimension]).filter(|set| *set != ANY).for_each(|set| all[set as usize] += 1);
    // How many combinations more there are when a part is told apart in two: each rule that asks for it has one more.
    let split: Vec<u64> = partition
        .conditions
        .iter()
        .map(|list| open + list.iter().map(|condition| chosen[*condition as usize]).sum::<u64>())
        .collect();
    let mut sizes = vec![0u32; partition.conditions.len()];
    partition.of.iter().for_each(|part| sizes[*part as usize] += 1);
    let members = above.conditions.inverse(count);
    let mut seen = vec![0u32; partition.conditions.len()];
    for condition in (0..count as u32).filter(|condition| own[*condition as usize] == 0).collect::<Vec<_>>() {
        let parts = members.of(condition);
        parts.iter().for_each(|part| seen[partition.of[*part as usize] as usize] += 1);
        let (mut touched, mut harm) = (0u32, 0u64);
        for part in parts {
            let part = partition.of[*part as usize] as usize;
            let count = std::mem::take(&mut seen[part]);
            if count > 0 {
                touched += 1;
                harm += if count < sizes[part] { split[part] } else { 0 };
            }
        }
        own[condition as usize] = if harm * 4 <= all[condition as usize] { touched } else { u32::MAX };
    }
    own
}
