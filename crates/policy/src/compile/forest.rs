//! Grows the forest: every node gets the cut with the lowest estimated cost to reach the deciding entry.
//!
//! The estimate is in nanoseconds, from a simple model: a word costs a read from the second-level cache, an entry costs
//! its comparison, and flows are expected where rules are.

use super::boxes::{Boxes, Column};
use crate::{
    image::{
        budget::SHARED_LEAF,
        forest::{Cut, LEVELS, MAX_BITS, MAX_WORDS, ROOM, Word, mix},
    },
    model::address::AddressBits,
};
use std::collections::{HashMap, VecDeque};

/// Nanoseconds for following a cut, for looking into a rest, and for comparing one entry.
const CUT: f64 = 5.0;
const REST: f64 = 3.0;
const ENTRY: f64 = 2.5;
/// Nanoseconds charged for each byte a rule takes: larger images fall out of faster caches.
const BYTE: f64 = 0.02;
/// Nanoseconds charged for each halving that is left. Far more than a good cut takes: what a cut leaves over is never
/// the easier half, and trees of many small steps that each look cheap are the slowest of all.
const HALVING: f64 = 20.0;
/// One in this many boxes may be copied by one cut.
const SHARE: usize = 8;
/// Leaves of at most this many boxes are not cut.
const SMALL: usize = 3;
/// The most copies of one box under one cut.
const COPIES: u64 = 4;
/// The total number of copies allowed, for each box.
const GROWTH: usize = 3;
/// The most pairs of dimensions tried for a hashed cut.
const PAIRS: usize = 24;

/// A logarithm to base 2, linear between powers of two: the same on every platform, unlike libm's.
fn log2(value: f64) -> f64 {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    f64::from(exponent) + mantissa - 1.0
}

/// The expected cost of the best tree over this many boxes.
fn expected(boxes: f64) -> f64 {
    if boxes <= 3.0 { 3.0 + ENTRY * boxes } else { 10.5 + HALVING * log2(boxes / 3.0) }
}

/// A family's forest.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) words: Vec<u64>,
    /// Boxes, by the index of their entry.
    pub(super) entries: Vec<u32>,
    pub(super) roots: Vec<u64>,
    /// The most steps from each cut on, in the cuts' order: those of the roots first.
    pub(super) steps: Vec<u32>,
    /// The most steps from each root on.
    pub(super) root_steps: Vec<u64>,
}

/// A tree still to grow: where its word goes, its boxes, and how many rests may wait.
struct Task {
    word: usize,
    boxes: Vec<u32>,
    room: u8,
    /// How many cuts are above it.
    level: u32,
}

/// Grows the trees of lists of boxes, each in the rules' order.
pub(super) fn grow<A: AddressBits>(boxes: &Boxes<A>, trees: &[Vec<u32>]) -> Result<Forest, String> {
    let mut grower = Grower {
        boxes,
        forest: Forest::default(),
        queue: VecDeque::new(),
        leaves: HashMap::new(),
        loads: Vec::new(),
        spare: boxes.entries.len() * GROWTH + 4096,
    };
    for index in 0..trees.len() {
        let root = match trees[..index].iter().position(|earlier| *earlier == trees[index]) {
            Some(same) => grower.forest.roots[same],
            None => grower.word(trees[index].clone(), (ROOM - 1) as u8, 0)?,
        };
        grower.forest.roots.push(root);
    }
    while let Some(task) = grower.queue.pop_front() {
        let word = grower.word(task.boxes, task.room, task.level)?;
        grower.forest.words[task.word] = word;
    }
    Ok(grower.forest)
}

struct Grower<'b, A> {
    boxes: &'b Boxes<A>,
    forest: Forest,
    queue: VecDeque<Task>,
    /// Where the leaves written so far begin, by a hash of their boxes.
    leaves: HashMap<u64, Vec<(u32, u32)>>,
    loads: Vec<u32>,
    /// How many more copies of boxes may be made.
    spare: usize,
}

/// A possible cut.
#[derive(Clone, Copy)]
struct Candidate {
    first: (usize, u8),
    second: Option<(usize, u8)>,
    bits: u8,
    hashed: bool,
    /// Boxes with more children than this go to the rest.
    copies: u64,
}

impl<A: AddressBits> Grower<'_, A> {
    /// The word of a tree over `boxes`; what is below a cut is deferred.
    fn word(&mut self, mut boxes: Vec<u32>, room: u8, level: u32) -> Result<u64, String> {
        if boxes.len() <= 64 {
            self.drop_shadowed(&mut boxes);
        }
        if boxes.is_empty() {
            return Ok(Word::Empty.pack());
        }
        let cut = if boxes.len() > SMALL && level < LEVELS { self.choose(&boxes, room) } else { None };
        match cut {
            Some(candidate) => self.cut(&boxes, candidate, room, level),
            None => self.leaf(boxes),
        }
    }

    /// Removes boxes that an earlier box of the same leaf always precedes.
    fn drop_shadowed(&self, boxes: &mut Vec<u32>) {
        let mut kept: Vec<u32> = Vec::with_capacity(boxes.len());
        for &number in boxes.iter() {
            if !kept.iter().any(|earlier| self.boxes.covers(*earlier, number)) {
                kept.push(number);
            }
        }
        *boxes = kept;
    }

    fn leaf(&mut self, boxes: Vec<u32>) -> Result<u64, String> {
        let count = boxes.len() as u32;
        if count >= 1 << 24 {
            return Err("too many rules are alike in every field that the classifier cuts by".to_owned());
        }
        let hash = boxes
            .iter()
            .fold(0u64, |sum, &number| (sum ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
        let known = self.leaves.entry(hash).or_default();
        let entries = &mut self.forest.entries;
        // A long leaf is one word's own, so that a validator that looks through every leaf does so in linear time.
        let same = known.iter().find(|(first, length)| {
            count <= SHARED_LEAF
                && *length == count
                && entries[*first as usize..(*first + *length) as usize] == boxes[..]
        });
        let first = match same {
            Some((first, _)) => *first,
            None => {
                let first = entries.len() as u32;
                entries.extend_from_slice(&boxes);
                known.push((first, count));
                first
            }
        };
        Ok(Word::Leaf { first, count }.pack())
    }

    fn cut(&mut self, boxes: &[u32], candidate: Candidate, room: u8, level: u32) -> Result<u64, String> {
        let mut children: Vec<Vec<u32>> = vec![Vec::new(); 1 << candidate.bits];
        let mut rest = Vec::new();
        let mut targets = Vec::new();
        for &number in boxes {
            if self.targets(number, &candidate, &mut targets) {
                targets.iter().for_each(|child| children[*child as usize].push(number));
            } else {
                rest.push(number);
            }
        }
        let stands: usize = children.iter().map(Vec::len).sum::<usize>() + rest.len();
        self.spare = self.spare.saturating_sub(stands - boxes.len());
        let below = room - u8::from(!rest.is_empty());
        let base = self.forest.words.len();
        let (first, second) = (candidate.first, candidate.second.unwrap_or(candidate.first));
        let cut = Cut {
            base: base as u32,
            dimension: self.boxes.columns[first.0].dimension,
            shift: first.1,
            second_dimension: if candidate.hashed { self.boxes.columns[second.0].dimension } else { 0 },
            second_shift: if candidate.hashed { second.1 } else { 0 },
            bits: candidate.bits,
            hashed: candidate.hashed,
            rest: !rest.is_empty(),
            room,
        };
        let words = base + cut.words() as usize;
        if words > MAX_WORDS as usize {
            return Err("the rules do not fit into one image".to_owned());
        }
        self.forest.words.resize(words, Word::Empty.pack());
        for (index, child) in children.into_iter().enumerate() {
            if !child.is_empty() {
                self.queue.push_back(Task { word: base + index, boxes: child, room: below, level: level + 1 });
            }
        }
        if let Some(&least) = rest.first() {
            let word = base + (1 << candidate.bits);
            self.forest.words[word + 1] = Word::Least(self.boxes.rule(least)).pack();
            self.queue.push_back(Task { word, boxes: rest, room: below, level: level + 1 });
        }
        Ok(Word::Cut(cut).pack())
    }

    /// The children that a box belongs to; false when there are too many.
    fn targets(&self, number: u32, candidate: &Candidate, targets: &mut Vec<u32>) -> bool {
        targets.clear();
        let span = |(column, shift): (usize, u8)| {
            let (low, high) = self.boxes.columns[column].of(number);
            (low >> shift, high >> shift)
        };
        let (low, high) = span(candidate.first);
        if !candidate.hashed {
            let all = 1u64 << candidate.bits;
            let count = (high - low).saturating_add(1).min(all);
            if count > candidate.copies {
                return false;
            }
            targets.extend((0..count).map(|step| (low.wrapping_add(step) & (all - 1)) as u32));
            return true;
        }
        let (other_low, other_high) = candidate.second.map_or((low, high), span);
        let count = (high - low).saturating_add(1);
        let other_count = if candidate.second.is_some() { (other_high - other_low).saturating_add(1) } else { 1 };
        if count.saturating_mul(other_count) > candidate.copies {
            return false;
        }
        for value in low..=high {
            match candidate.second {
                Some(_) => targets.extend((other_low..=other_high).map(|other| mix(value, other, candidate.bits))),
                None => targets.push(mix(value, value, candidate.bits)),
            }
        }
        if targets.len() > 1 {
            targets.sort_unstable();
            targets.dedup();
        }
        true
    }

    /// The best cut, or none if a leaf is better.
    fn choose(&mut self, boxes: &[u32], room: u8) -> Option<Candidate> {
        let leaf = 3.0 + ENTRY * boxes.len() as f64 * 0.75;
        let mut best = (leaf, None);
        let mut loads = std::mem::take(&mut self.loads);
        for candidate in self.candidates(boxes) {
            let cost = self.cost(boxes, &candidate, room, best.0, &mut loads);
            if cost < best.0 {
                best = (cost, Some(candidate));
            }
        }
        self.loads = loads;
        best.1
    }

    fn cost(&self, boxes: &[u32], candidate: &Candidate, room: u8, limit: f64, loads: &mut Vec<u32>) -> f64 {
        let total = boxes.len();
        loads.clear();
        loads.resize(1 << candidate.bits, 0);
        let (mut rest, mut copies) = (0usize, 0usize);
        let mut targets = Vec::with_capacity(8);
        for &number in boxes {
            if self.targets(number, candidate, &mut targets) {
                copies += targets.len();
                targets.iter().for_each(|child| loads[*child as usize] += 1);
            } else {
                rest += 1;
            }
        }
        let largest = loads.iter().copied().max().unwrap_or(0) as usize;
        // Copies must pay off at once, or cuts that only spread boxes would be made endlessly.
        let allowed = total + (total / SHARE).min(self.spare);
        if largest >= total || rest == total || (rest > 0 && room == 0) || copies + rest > allowed {
            return f64::INFINITY;
        }
        let bytes = (8usize << candidate.bits) + (copies + rest - total) * 24;
        let fixed =
            CUT + BYTE * bytes as f64 / total as f64 + if rest > 0 { REST + expected(rest as f64) } else { 0.0 };
        if fixed >= limit {
            return fixed;
        }
        let mut below = 0.0;
        for &load in loads.iter().filter(|load| **load > 0) {
            below += f64::from(load) * expected(f64::from(load));
        }
        // A flow of a rule in the rest has searched a child in vain, and vice versa.
        fixed + below / copies.max(1) as f64 * (total - rest) as f64 / total as f64
    }

    fn candidates(&self, boxes: &[u32]) -> Vec<Candidate> {
        let bits_for = |boxes: usize| ((boxes.max(2) - 1).ilog2() + 1).min(u32::from(MAX_BITS)) as u8;
        let most = bits_for(boxes.len());
        let mut candidates = Vec::new();
        let mut pairs = PAIRS;
        let shifts: Vec<Vec<(u8, usize)>> =
            self.boxes.columns.iter().map(|column| popular_shifts(column, boxes)).collect();
        for (index, column) in self.boxes.columns.iter().enumerate() {
            for &(shift, fitting) in &shifts[index] {
                let bits = bits_for(fitting);
                for copies in [1, COPIES] {
                    candidates.push(Candidate { first: (index, shift), second: None, bits, hashed: true, copies });
                }
                for (other, other_shifts) in shifts.iter().enumerate().skip(index + 1) {
                    for &(other_shift, other_fitting) in other_shifts {
                        if pairs == 0 || fitting.min(other_fitting) * 4 < boxes.len() {
                            continue;
                        }
                        pairs -= 1;
                        let bits = bits_for(fitting.min(other_fitting));
                        let second = Some((other, other_shift));
                        candidates.push(Candidate {
                            first: (index, shift),
                            second,
                            bits,
                            hashed: true,
                            copies: COPIES,
                        });
                    }
                }
            }
            self.plain_candidates(index, column, boxes, &shifts[index], most, &mut candidates);
        }
        candidates
    }

    /// Cuts by the bits in which the ranges of one dimension differ.
    fn plain_candidates(
        &self,
        index: usize,
        column: &Column,
        boxes: &[u32],
        shifts: &[(u8, usize)],
        most: u8,
        candidates: &mut Vec<Candidate>,
    ) {
        let narrow = boxes.iter().map(|number| column.of(*number)).filter(|range| *range != (0, u64::MAX));
        let (low, high) = narrow.fold((u64::MAX, 0), |sum, range| (sum.0.min(range.0), sum.1.max(range.1)));
        if low >= high {
            return;
        }
        let top = 64 - (low ^ high).leading_zeros() as u8;
        let mut add = |shift: u8, bits: u8| {
            if bits == 0 || shift > 63 {
                return;
            }
            for copies in [1, COPIES, 1 << (bits - 1).min(8), 1 << bits] {
                if copies <= COPIES || boxes.len() <= 256 {
                    candidates.push(Candidate { first: (index, shift), second: None, bits, hashed: false, copies });
                }
            }
        };
        for bits in [most, most / 2, 2] {
            let bits = bits.min(top);
            add(top - bits, bits);
        }
        for &(shift, _) in shifts.iter().filter(|(shift, _)| *shift < top) {
            add(shift, most.min(top - shift));
        }
    }
}

/// The shifts at which many boxes shrink to one value, with the number of boxes at each.
fn popular_shifts(column: &Column, boxes: &[u32]) -> Vec<(u8, usize)> {
    let mut by_free = [0usize; 65];
    for &number in boxes {
        let (low, high) = column.of(number);
        by_free[64 - (low ^ high).leading_zeros() as usize] += 1;
    }
    let mut popular: Vec<(usize, u8)> =
        (0..64u8).map(|free| (by_free[usize::from(free)], free)).filter(|(count, _)| *count > 0).collect();
    popular.sort_unstable_by_key(|(count, free)| (usize::MAX - count, *free));
    popular.truncate(4);
    // The longest common one keeps the most similar boxes together.
    let fitting = |shift: u8| by_free[..=usize::from(shift)].iter().sum::<usize>();
    popular.into_iter().map(|(_, free)| (free, fitting(free))).filter(|(_, fitting)| *fitting > 1).collect()
}
