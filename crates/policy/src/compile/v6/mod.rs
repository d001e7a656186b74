//! IPv6 maps (see [`crate::image::v6`]): which ranges are exceptions, and the trees and lists for the others.

mod exceptions;
#[cfg(test)]
mod tests;

use super::addresses::Segment;
use crate::image::v6::{BUCKET, Form, HEAD, INNER, Kind, LAST, LEVELS, NUMBERS, TABLE_BYTES, UNUSED, WIDE};
use exceptions::Split;
use std::collections::BTreeSet;

type Segments<'s> = &'s [Segment<u128>];

/// The most segments for which a map is a single list.
const SMALL: usize = 256;
/// The words of a node.
const WORDS: usize = 32;

/// The bytes of a map; none when every address has class 0.
pub(super) fn map(segments: Vec<Segment<u128>>) -> Result<Vec<u8>, String> {
    if let [Segment { class: 0, .. }] | [] = segments[..] {
        return Ok(Vec::new());
    }
    let mut classes: BTreeSet<u32> = BTreeSet::new();
    // Neighbours differ, so a few show whether there are more than two.
    let few = segments.iter().any(|segment| classes.insert(segment.class) && classes.len() > 2);
    let form = if !few {
        Form::Two
    } else if segments.iter().all(|segment| segment.class <= u32::from(u16::MAX)) {
        Form::Short
    } else {
        Form::Long
    };
    // Most exceptions are of the class that the unlisted rest does not have.
    let two = [segments[0].class, segments.get(1).map_or(0, |segment| segment.class)];
    let Split { buckets, classes, others } = Split::new(segments, (form == Form::Two).then_some(two[1]));
    let mut trees = Trees { form, second: two[1], values: classes.into_flattened(), ..Trees::default() };
    // The capacity for full nodes, which nearly all are: growing would take twice as much.
    trees.last.reserve(others.len() / LAST as usize);
    if others.len() <= SMALL {
        trees.list(&others, 0);
    } else {
        trees.whole(&others)?;
    }
    drop(others);
    trees.bytes(two, &buckets)
}

/// What the ranges of a tree's node lead to.
#[derive(Clone, Copy)]
enum Range {
    Class(u32),
    Link(u32),
}

/// The parts of a map except the exceptions.
#[derive(Default)]
struct Trees {
    form: Form,
    second: u32,
    first_table: Vec<u32>,
    tables: Vec<u32>,
    /// The last level, and the start of each node.
    last: Vec<[u32; WORDS]>,
    starts: Vec<u32>,
    /// The last-level nodes below each root, by the place of the entry that leads to it.
    roots: Vec<(usize, usize)>,
    links: Vec<[u32; 4]>,
    lists: Vec<u64>,
    /// The classes of exceptions first.
    values: Vec<u32>,
}

impl Trees {
    /// Everything: 2^128 addresses.
    fn whole(&mut self, segments: Segments<'_>) -> Result<(), String> {
        let (tabled, grown) = worthwhile(segments);
        let mut rest = Cursor::new(segments);
        for first in 0..256u128 {
            let mut block = rest.take(first << 120, 8);
            let entry = if block.starts() <= tabled {
                self.few(&block, 8)
            } else {
                let number = self.tables.len() / (TABLE_BYTES / 4) + 1;
                for second in 0..256u128 {
                    let block = block.take(first << 120 | second << 112, 16);
                    let entry = if block.starts() <= grown {
                        self.few(&block, 16)
                    } else {
                        self.roots.push((self.tables.len(), self.last.len()));
                        self.tree(block.segments);
                        Ok(0)
                    };
                    self.tables.push(entry?);
                }
                Ok(Kind::Table.entry(number as u32))
            };
            self.first_table.push(entry?);
        }
        Ok(())
    }

    /// The entry for a block of few starts.
    fn few(&mut self, block: &Cursor<'_>, position: u32) -> Result<u32, String> {
        match block.segments {
            [] => Ok(0),
            [only] if self.form == Form::Two => Ok(self.bit(only.class)),
            [only] if only.class > NUMBERS => Err("the address lists overlap in too many combinations".to_owned()),
            [only] => Ok(only.class),
            several => Ok(Kind::Link.entry(self.list(several, position))),
        }
    }

    fn bit(&self, class: u32) -> u32 {
        u32::from(class == self.second)
    }

    /// The nodes of the last level for a block; the first segment holds the block's first address.
    fn tree(&mut self, segments: Segments<'_>) {
        let mut ranges = vec![(0, Range::Class(segments[0].class))];
        let mut put = |start: u32, range: Range| {
            if ranges.last().is_some_and(|last| last.0 == start) {
                ranges.pop();
            }
            ranges.push((start, range));
        };
        let site = |place: usize| ({ segments[place].start } >> 80) as u32;
        let mut at = 1;
        while at < segments.len() {
            let here = site(at);
            let behind = (at + 1..segments.len()).find(|place| site(*place) != here).unwrap_or(segments.len());
            let whole = { segments[at].start }.trailing_zeros() >= 80;
            if whole && behind == at + 1 {
                put(here, Range::Class(segments[at].class));
            } else {
                // The site begins in the segment before its first start, unless that start is its own beginning.
                let first = if whole { at } else { at - 1 };
                put(here, Range::Link(self.list(&segments[first..behind], 48)));
                if let Some(next) = here.checked_add(1) {
                    put(next, Range::Class(segments[behind - 1].class));
                }
            }
            at = behind;
        }
        for ranges in ranges.chunks(LAST as usize + 1) {
            self.node(ranges);
        }
    }

    fn node(&mut self, ranges: &[(u32, Range)]) {
        let (mut linked, mut classes, mut first_link) = (0, 0, None);
        let first_value = self.values.len() as u32;
        for (place, (_, range)) in ranges.iter().enumerate() {
            let class = match *range {
                Range::Class(class) => class,
                Range::Link(link) => {
                    linked |= 1 << place;
                    first_link.get_or_insert(link);
                    0
                }
            };
            if self.form == Form::Two {
                classes |= self.bit(class) << place;
            } else {
                self.values.push(class);
            }
        }
        let mut node = [UNUSED; WORDS];
        for (word, (start, _)) in node.iter_mut().zip(&ranges[1..]) {
            *word = stored(*start);
        }
        node[29] = linked;
        node[30] = if self.form == Form::Two { classes } else { first_value };
        node[31] = first_link.unwrap_or(0);
        self.last.push(node);
        self.starts.push(ranges[0].0);
    }

    /// A list of the starts after the first segment.
    fn list(&mut self, segments: Segments<'_>, position: u32) -> u32 {
        let first = self.lists.len() as u32;
        let starts = || segments[1..].iter().map(|segment| segment.start);
        let wide = starts().any(|start| start.trailing_zeros() < 64 - position);
        for start in starts() {
            if wide {
                self.lists.extend([start as u64, (start >> 64) as u64]);
            } else {
                self.lists.push((start << position >> 64) as u64);
            }
        }
        let value = if self.form == Form::Two { self.bit(segments[0].class) } else { self.values.len() as u32 };
        if self.form != Form::Two {
            self.values.extend(segments.iter().map(|segment| segment.class));
        }
        let shape = position | if wide { WIDE } else { 0 };
        self.links.push([first, segments.len() as u32 - 1, value, shape]);
        self.links.len() as u32 - 1
    }

    /// The levels, roots first; the entries that lead to roots are filled in.
    fn levels(&mut self) -> Vec<Vec<[u32; WORDS]>> {
        // Where the nodes of the level begin, for each tree.
        let mut trees: Vec<usize> = self.roots.iter().map(|root| root.1).collect();
        let mut starts = std::mem::take(&mut self.starts);
        let mut levels = vec![std::mem::take(&mut self.last)];
        let end = |trees: &[usize], tree: usize, all: usize| trees.get(tree + 1).copied().unwrap_or(all);
        while (0..trees.len()).any(|tree| end(&trees, tree, starts.len()) - trees[tree] > 1) {
            let (mut nodes, mut above, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
            for tree in 0..trees.len() {
                firsts.push(nodes.len());
                let (mut child, end) = (trees[tree], end(&trees, tree, starts.len()));
                while child < end {
                    let behind = end.min(child + INNER as usize + 1);
                    let mut node = [UNUSED; WORDS];
                    for (word, start) in node.iter_mut().zip(&starts[child + 1..behind]) {
                        *word = stored(*start);
                    }
                    node[31] = child as u32;
                    nodes.push(node);
                    above.push(starts[child]);
                    child = behind;
                }
            }
            levels.push(nodes);
            (trees, starts) = (firsts, above);
        }
        levels.reverse();
        // Children were counted from the beginning of their level.
        let mut end = 0;
        let depth = levels.len();
        for level in &mut levels[..depth - 1] {
            end += level.len() as u32;
            level.iter_mut().for_each(|node| node[31] += end);
        }
        for (number, (place, _)) in self.roots.iter().enumerate() {
            self.tables[*place] = Kind::Root.entry(number as u32);
        }
        levels
    }

    fn bytes(mut self, two: [u32; 2], buckets: &[[u8; BUCKET]]) -> Result<Vec<u8>, String> {
        let levels = self.levels();
        let nodes: usize = levels.iter().map(Vec::len).sum();
        let mut head = [0; HEAD / 4];
        let tables = (self.first_table.len() + self.tables.len()) / (TABLE_BYTES / 4);
        let counts = [tables, self.links.len(), self.lists.len(), self.values.len()];
        if levels.len() > LEVELS || counts.iter().any(|count| *count >= NUMBERS as usize / 16) || nodes >= 1 << 25 {
            return Err("the address lists are too large".to_owned());
        }
        let [tables, links, lists, values] = counts.map(|count| count as u32);
        head[0] = self.form as u32;
        head[1..3].copy_from_slice(&two);
        head[3..9].copy_from_slice(&[levels.len() as u32, tables, buckets.len() as u32, links, lists, values]);
        let mut end = 0;
        for (level, word) in head[10..].iter_mut().enumerate() {
            end += levels.get(level).map_or(0, Vec::len) as u32;
            *word = end;
        }
        let values = values as usize * if self.form == Form::Short { 2 } else { 4 };
        let length = (HEAD + tables as usize * TABLE_BYTES + nodes * WORDS * 4 + buckets.len() * BUCKET)
            + (links as usize * 16 + lists as usize * 8 + values.next_multiple_of(4));
        let mut bytes = Vec::with_capacity(length);
        let mut words = |words: &[u32]| bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        words(&head);
        words(&self.first_table);
        words(&self.tables);
        levels.iter().for_each(|level| words(level.as_flattened()));
        drop(levels);
        bytes.extend_from_slice(buckets.as_flattened());
        bytes.extend(self.links.as_flattened().iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(self.lists.iter().flat_map(|start| start.to_le_bytes()));
        match self.form {
            Form::Two => {}
            Form::Short => bytes.extend(self.values.iter().flat_map(|value| (*value as u16).to_le_bytes())),
            Form::Long => bytes.extend(self.values.iter().flat_map(|value| value.to_le_bytes())),
        }
        bytes.resize(length, 0);
        Ok(bytes)
    }
}

/// The most starts for which a block by the first byte, and one by the first two, is a list. Tables and trees are
/// faster, but must not take many bytes for each start.
fn worthwhile(segments: Segments<'_>) -> (usize, usize) {
    let counts = |bits: u32| {
        let same = move |a: &Segment<u128>, b: &Segment<u128>| (a.start ^ b.start) >> (128 - bits) == 0;
        segments.chunk_by(same).map(<[_]>::len).collect::<Vec<_>>()
    };
    let least = |counts: &[usize], cost: usize| {
        let fits =
            |least: &u32| counts.iter().filter(|count| **count >> *least > 0).count() * cost <= 8 * segments.len();
        (0..).find(fits).map_or(0, |least| (1 << least) - 1)
    };
    let (first, second) = (counts(8), counts(16));
    let most = second.iter().max().copied().unwrap_or(0);
    let depth = (1..LEVELS).find(|depth| most <= (LAST as usize + 1) << (5 * (depth - 1))).unwrap_or(LEVELS);
    (least(&first, TABLE_BYTES), least(&second, depth * WORDS * 4))
}

/// A start in the form of nodes.
fn stored(start: u32) -> u32 {
    start.wrapping_sub(1) ^ 1 << 31
}

/// Segments in order, taken block by block.
struct Cursor<'s> {
    segments: Segments<'s>,
}

impl<'s> Cursor<'s> {
    fn new(segments: Segments<'s>) -> Self {
        Self { segments }
    }

    /// How many segments begin after the block's first address.
    fn starts(&self) -> usize {
        self.segments.len().saturating_sub(1)
    }

    /// The segments of the next block, whose first `bits` bits are those of `low`: the one that holds `low`, and those
    /// that begin after it.
    fn take(&mut self, low: u128, bits: u32) -> Self {
        let high = low | u128::MAX >> bits;
        let end = self.segments.partition_point(|segment| { segment.start } <= high);
        let first = self.segments[..end].partition_point(|segment| { segment.start } <= low).saturating_sub(1);
        let taken = &self.segments[first..end];
        self.segments = &self.segments[end.saturating_sub(1)..];
        Self { segments: taken }
    }
}
