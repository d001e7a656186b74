//! IPv4 address maps: overlapping sets become segments of one class, then tables and chunks.

mod shape;

use super::{
    addresses::{Segment, renumber, segments},
    classes::Classes,
};
use crate::{
    image::{
        self,
        v4::{
            BITS, FIRST, GROUP, LANES, MOST_LANES, MOST_TREE_LANES, NODE, PADDING, PLACE, RANGES, Shape, TABLE,
            TOGGLES, TREE_LANES,
        },
    },
    model::address::Ranges,
};
use std::collections::{HashMap, VecDeque};

/// The whole space as segments: the start of each, the first at address 0, and its class; neighbours differ.
#[derive(Debug)]
pub(super) enum Space<'s> {
    /// The ranges of a single set and its class. There can be millions: no other form of them is made.
    One(&'s Ranges<u32>, u32),
    Many(Vec<Segment<u32>>),
}

impl<'s> Space<'s> {
    /// The space under these sets; classes by their provisional numbers.
    pub(super) fn new(sets: &[&'s Ranges<u32>], classes: &mut Classes) -> Self {
        match sets {
            [only] if !only.ranges().is_empty() => Self::One(only, classes.number(&[0])),
            _ => Self::Many(segments(sets, classes)),
        }
    }

    /// Gives the classes their final numbers.
    pub(super) fn renumber(&mut self, classes: &[u32]) {
        match self {
            Self::One(_, class) => *class = classes[*class as usize],
            Self::Many(segments) => renumber(segments, classes),
        }
    }

    /// The bytes of the map; none when every address has class 0.
    pub(super) fn map(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Many(segments) if segments.iter().all(|segment| segment.class == 0) => Ok(Vec::new()),
            Self::Many(segments) => map(&Several { segments }),
            Self::One(ranges, class) => {
                let ranges = ranges.ranges();
                let skipped = usize::from(ranges.first().is_some_and(|range| range.0 == 0));
                let open = usize::from(ranges.last().is_some_and(|range| range.1 == u32::MAX));
                let len = ranges.len() * 2 + 1 - skipped - open;
                map(&Alternating { ranges, class: *class, skipped, len })
            }
        }
    }
}

/// Segments by number.
trait Segments {
    fn len(&self) -> usize;
    fn start(&self, index: usize) -> u32;
    fn class(&self, index: usize) -> u32;
    /// The class other than 0, if there are only two.
    fn other(&self) -> Option<u32>;
}

struct Several<'s> {
    segments: &'s [Segment<u32>],
}

impl Segments for Several<'_> {
    fn len(&self) -> usize {
        self.segments.len()
    }

    fn start(&self, index: usize) -> u32 {
        self.segments[index].start
    }

    fn class(&self, index: usize) -> u32 {
        self.segments[index].class
    }

    fn other(&self) -> Option<u32> {
        let other = self.segments.iter().map(|segment| segment.class).find(|class| *class != 0)?;
        self.segments.iter().all(|segment| segment.class == 0 || segment.class == other).then_some(other)
    }
}

/// The ranges of one set and the gaps between them.
struct Alternating<'s> {
    ranges: &'s [(u32, u32)],
    class: u32,
    /// 1 if the first range begins at 0, so that nothing is before it.
    skipped: usize,
    len: usize,
}

impl Segments for Alternating<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn start(&self, index: usize) -> u32 {
        let index = index + self.skipped;
        match (index / 2, index % 2) {
            (range, 1) => self.ranges[range].0,
            (0, _) => 0,
            (range, _) => self.ranges[range - 1].1 + 1,
        }
    }

    fn class(&self, index: usize) -> u32 {
        if (index + self.skipped) % 2 == 1 { self.class } else { 0 }
    }

    fn other(&self) -> Option<u32> {
        Some(self.class)
    }
}

/// What becomes of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// A class begins.
    Toggle,
    /// A class that ends after one grain; after it the previous class continues.
    Single,
}

/// Whether segment `index` is a single among those before `end`.
fn lane<S: Segments>(segments: &S, index: usize, end: usize, grain: u32) -> Lane {
    let single = index + 1 < end
        && segments.start(index + 1) - segments.start(index) == 1 << grain
        && segments.class(index - 1) == segments.class(index + 1);
    if single { Lane::Single } else { Lane::Toggle }
}

fn map<S: Segments>(segments: &S) -> Result<Vec<u8>, String> {
    if let Some(bytes) = few(segments) {
        return Ok(bytes);
    }
    let mut shape = shape::choose(segments);
    // Places are counted in units; most maps are small enough for the smallest unit.
    while shape.unit <= 12 {
        if let Some(bytes) = (Writer { segments, shape, tables: Vec::new(), chunks: Vec::new() }).write() {
            return Ok(bytes);
        }
        shape.unit += 1;
    }
    Err("the address lists are too large".to_owned())
}

/// The map of a few ranges, if they are few.
fn few<S: Segments>(segments: &S) -> Option<Vec<u8>> {
    let len = segments.len();
    if len > RANGES * 2 + 1 {
        return None;
    }
    let other = segments.other()?;
    let end = |index| if index + 1 < len { segments.start(index + 1) - 1 } else { u32::MAX };
    let mut ranges: Vec<[u32; 2]> = (0..len)
        .filter(|index| segments.class(*index) != 0)
        .map(|index| [segments.start(index), end(index) - segments.start(index)])
        .collect();
    ranges.resize((ranges.len() <= RANGES).then_some(RANGES)?, *ranges.last()?);
    let shape = Shape { shift: 32, unit: 2, wide: true, ranges: true, other, tables: 1, ..Shape::default() };
    Some(bytes(&shape, &[0], &ranges.iter().flatten().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>()))
}

/// A map from its parts.
fn bytes(shape: &Shape, tables: &[u32], chunks: &[u8]) -> Vec<u8> {
    let start = image::v4::chunks(shape.tables) as usize;
    let mut bytes = Vec::with_capacity(start + chunks.len() + PADDING as usize + 4);
    bytes.extend(shape.words().iter().chain(tables).flat_map(|word| word.to_le_bytes()));
    bytes.resize(start, 0);
    bytes.extend_from_slice(chunks);
    // The section consists of whole words.
    bytes.resize((bytes.len() + PADDING as usize).next_multiple_of(4), 0);
    bytes
}

/// A block of addresses: its first, how many low bits it spans, and the segments that begin in it.
#[derive(Clone, Copy, Debug)]
struct Block {
    low: u32,
    left: u32,
    segments: (u32, u32),
}

struct Writer<'s, S> {
    segments: &'s S,
    shape: Shape,
    tables: Vec<u32>,
    chunks: Vec<u8>,
}

impl<S: Segments> Writer<'_, S> {
    /// The bytes; `None` if places do not fit into words.
    fn write(mut self) -> Option<Vec<u8>> {
        let root = Block { low: 0, left: 32, segments: (1, self.segments.len() as u32) };
        let mut constants = HashMap::new();
        let mut queue = VecDeque::from([(root, 32 - self.shape.shift)]);
        let mut free = 1u32 << (32 - self.shape.shift);
        while let Some((block, bits)) = queue.pop_front() {
            let left = block.left - bits;
            let mut at = block.segments.0;
            for index in 0..1u32 << bits {
                let low = block.low | (u64::from(index) << left) as u32;
                let high = low | ((1u64 << left) - 1) as u32;
                let first = at;
                while at < block.segments.1 && self.segments.start(at as usize) <= high {
                    at += 1;
                }
                let child = Block { low, left, segments: (first, at) };
                let word = match self.chunk(child, &mut constants)? {
                    Ok(word) => word,
                    Err(lanes) => {
                        // A few lanes for each of the table's blocks: another node would cost more than its words.
                        let bits = (lanes * 8 / self.shape.most_lanes()).ilog2().min(left).min(15);
                        let table = free;
                        free += 1 << bits;
                        queue.push_back((child, bits));
                        (table < 1 << (32 - TABLE)).then_some(NODE | bits << BITS | table << TABLE)?
                    }
                };
                self.tables.push(word);
            }
        }
        self.shape.tables = free;
        Some(bytes(&self.shape, &self.tables, &self.chunks))
    }

    /// The word of a block's chunk, or how many lanes it has if those are too many; `None` if the place does not fit.
    fn chunk(&mut self, block: Block, constants: &mut HashMap<u32, u32>) -> Option<Result<u32, u32>> {
        if self.shape.tree {
            return self.tree(block, constants);
        }
        let Shape { grain, value, .. } = self.shape;
        let (mut at, end) = (block.segments.0 as usize, block.segments.1 as usize);
        let mut toggles = [0usize; MOST_LANES as usize];
        let mut singles = [0usize; MOST_LANES as usize];
        let (mut toggled, mut single) = (0, 0);
        // A class that begins with the block begins before its first toggle.
        let lane = |at| if self.shape.singles { lane(self.segments, at, end, grain) } else { Lane::Toggle };
        let begins = at < end && self.segments.start(at) == block.low && lane(at) == Lane::Toggle;
        at += usize::from(begins);
        let first = self.segments.class(at - 1);
        let mut lanes = 0;
        while at < end {
            let lane = lane(at);
            lanes += 1;
            if lanes <= self.shape.most_lanes() {
                let (starts, count) =
                    if lane == Lane::Toggle { (&mut toggles, &mut toggled) } else { (&mut singles, &mut single) };
                starts[*count] = at;
                *count += 1;
            }
            at += if lane == Lane::Toggle { 1 } else { 2 };
        }
        if lanes > self.shape.most_lanes() {
            return Some(Err(lanes));
        }
        let (toggles, singles) = (&toggles[..toggled], &singles[..single]);
        let counts = (toggled as u32) << TOGGLES | lanes << LANES;
        if value == 0 {
            let first = if first == 0 { 0 } else { FIRST };
            if lanes == 0 {
                return Some(Ok(first));
            }
            let place = self.place()?;
            self.lanes(toggles.iter().chain(singles));
            return Some(Ok(first | counts | place << PLACE));
        }
        if lanes == 0 {
            return Some(Ok(self.constant(first, constants)?));
        }
        let place = self.place()?;
        self.lanes(toggles.iter().chain(singles));
        self.value(first);
        for &at in toggles.iter().chain(singles) {
            self.value(self.segments.class(at));
        }
        Some(Ok(counts | place << PLACE))
    }

    /// The same for maps with trees.
    fn tree(&mut self, block: Block, constants: &mut HashMap<u32, u32>) -> Option<Result<u32, u32>> {
        let (mut at, end) = (block.segments.0 as usize, block.segments.1 as usize);
        at += usize::from(at < end && self.segments.start(at) == block.low);
        let first = self.segments.class(at - 1);
        let lanes = (end - at) as u32;
        if lanes == 0 {
            return Some(Ok(self.constant(first, constants)?));
        }
        if lanes > MOST_TREE_LANES {
            return Some(Err(lanes));
        }
        let place = self.place()?;
        let starts: Vec<usize> = (at..end).collect();
        self.lanes(starts.chunks_exact(GROUP as usize).filter_map(<[usize]>::last));
        self.lanes(starts.iter());
        (at - 1..end).for_each(|at| self.value(self.segments.class(at)));
        Some(Ok(lanes << TREE_LANES | place << PLACE))
    }

    /// The word of a chunk that is only a class; all such blocks share it.
    fn constant(&mut self, class: u32, constants: &mut HashMap<u32, u32>) -> Option<u32> {
        let place = match constants.get(&class) {
            Some(place) => *place,
            None => {
                let place = self.place()?;
                constants.insert(class, place);
                self.value(class);
                place
            }
        };
        Some(place << PLACE)
    }

    /// The place of the next chunk.
    fn place(&mut self) -> Option<u32> {
        self.chunks.resize(self.chunks.len().next_multiple_of(1 << self.shape.unit), 0);
        let place = self.chunks.len() >> self.shape.unit;
        (place < 1 << (32 - PLACE)).then_some(place as u32)
    }

    fn lanes<'a>(&mut self, starts: impl Iterator<Item = &'a usize>) {
        for &at in starts {
            let start = self.segments.start(at) >> self.shape.grain;
            if self.shape.wide {
                self.chunks.extend((start ^ 1 << 31).to_le_bytes());
            } else {
                self.chunks.extend((start as u16 ^ 1 << 15).to_le_bytes());
            }
        }
    }

    fn value(&mut self, class: u32) {
        self.chunks.extend_from_slice(&class.to_le_bytes()[..self.shape.value as usize]);
    }
}

#[cfg(test)]
mod tests;
