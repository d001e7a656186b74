//! Address maps: from overlapping sets to ascending ranges of classes to nodes.

use super::classes::Classes;
use crate::{
    image::addresses::{Bits, CHUNK, Form, NODE, Node, TABLE_BITS},
    model::address::{AddressBits, Ranges},
};
use std::collections::VecDeque;

/// Where a class begins; it reaches to the next segment.
pub(super) type Segment<A> = (A, u32);

/// The whole space as segments of classes (by their first numbers), neighbours of one class merged.
pub(super) fn segments<A: AddressBits>(sets: &[&Ranges<A>], classes: &mut Classes) -> Vec<Segment<A>> {
    let zero = A::narrow(0);
    let mut segments: Vec<Segment<A>> = Vec::new();
    let mut push = |start: A, class: u32| {
        if segments.last().is_some_and(|last| last.0 == start) {
            segments.pop();
        }
        if segments.last().is_none_or(|last| last.1 != class) {
            segments.push((start, class));
        }
    };
    push(zero, 0);
    if let [only] = sets {
        let class = classes.number(&[0]);
        for &(low, high) in only.ranges() {
            push(low, class);
            if let Some(next) = high.after() {
                push(next, 0);
            }
        }
        return segments;
    }
    let mut events: Vec<(A, u32)> = Vec::with_capacity(sets.iter().map(|set| set.ranges().len() * 2).sum());
    for (number, set) in sets.iter().enumerate() {
        for &(low, high) in set.ranges() {
            events.push((low, number as u32));
            events.extend(high.after().map(|next| (next, number as u32)));
        }
    }
    // The runs of the sets are in order already, which the stable sort makes use of.
    events.sort_by_key(|event| event.0);
    let mut inside: Vec<u32> = Vec::new();
    for group in events.chunk_by(|a, b| a.0 == b.0) {
        for &(_, set) in group {
            match inside.binary_search(&set) {
                Ok(place) => drop(inside.remove(place)),
                Err(place) => inside.insert(place, set),
            }
        }
        push(group[0].0, classes.number(&inside));
    }
    segments
}

/// What one node will be: decided before its contents are written, because its size places the nodes behind it.
#[derive(Clone)]
struct Plan<A> {
    node: Node,
    /// The first address of the block.
    base: A,
    /// The segment the block begins in, and the one behind the last that begins in it.
    segments: std::ops::Range<usize>,
    /// Chunks: the starts and what follows each, values first.
    chunk: Vec<(u64, Value<A>)>,
    first: Option<Value<A>>,
}

/// What stands behind a start.
#[derive(Clone)]
enum Value<A> {
    Class(u32),
    Node(Box<Plan<A>>),
}

/// The bytes of a map; none when every address has class 0.
pub(super) fn map<A: AddressBits + Bits>(segments: &[Segment<A>]) -> Result<Vec<u8>, String> {
    if let [(_, 0)] | [] = segments {
        return Ok(Vec::new());
    }
    let builder = Builder { segments };
    let mut words: Vec<u32> = vec![0];
    let mut queue: VecDeque<Box<Plan<A>>> = VecDeque::new();
    let mut free = 1u32;
    let mut refer = |value: Value<A>, queue: &mut VecDeque<Box<Plan<A>>>| match value {
        Value::Class(class) => Ok(class),
        Value::Node(plan) => {
            let at = free;
            free = free
                .checked_add(plan.node.words())
                .filter(|end| *end < NODE)
                .ok_or("the address lists are too large")?;
            queue.push_back(plan);
            Ok::<u32, String>(at | NODE)
        }
    };
    words[0] = refer(builder.block(A::narrow(0), 0, 0..segments.len()), &mut queue)?;
    while let Some(plan) = queue.pop_front() {
        words.push(plan.node.pack());
        if plan.node.width == 0 {
            for value in builder.children(&plan) {
                words.push(refer(value, &mut queue)?);
            }
            continue;
        }
        let node = plan.node;
        let mut body = Vec::with_capacity(node.words() as usize * 4);
        for (start, _) in &plan.chunk {
            body.extend_from_slice(&start.to_le_bytes()[..node.width as usize]);
        }
        body.resize(node.values() as usize, 0);
        let values = plan.first.into_iter().chain(plan.chunk.into_iter().map(|(_, value)| value));
        let values: Vec<u32> = values.map(|value| refer(value, &mut queue)).collect::<Result<_, _>>()?;
        match node.form {
            Form::Alternating => values[..2].iter().for_each(|value| body.extend((*value as u16).to_le_bytes())),
            Form::Short => values.iter().for_each(|value| body.extend((*value as u16).to_le_bytes())),
            Form::Long => values.iter().for_each(|value| body.extend(value.to_le_bytes())),
        }
        body.resize((node.words() as usize - 1) * 4, 0);
        words.extend(body.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)));
    }
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

struct Builder<'s, A> {
    segments: &'s [Segment<A>],
}

impl<A: AddressBits + Bits> Builder<'_, A> {
    const BITS: u32 = A::BITS;

    /// The block of addresses that begin with the first `position` bits of `base`. `within.start` is the segment that
    /// holds `base`.
    fn block(&self, base: A, position: u32, within: std::ops::Range<usize>) -> Value<A> {
        let first = within.start;
        let class = self.segments[first].1;
        let starts = &self.segments[first + 1..within.end];
        if starts.is_empty() {
            return Value::Class(class);
        }
        // How many leading bits tell all starts from their neighbours.
        let depth = starts.iter().map(|start| Self::BITS - start.0.wide().trailing_zeros().min(Self::BITS)).max();
        let needed = depth.unwrap_or(Self::BITS) - position;
        let width = [16, 32, 64].into_iter().find(|width| needed <= *width);
        if let Some(width) = width
            && starts.len() as u32 * width <= CHUNK * 32
            && starts.len() as u32 <= CHUNK
        {
            let chunk = starts.iter().map(|start| (start.0.window(position, width), Value::Class(start.1)));
            return self.chunk(base, position, width, within, Value::Class(class), chunk.collect());
        }
        // One table for all that the starts share would be mostly empty: step over it.
        let shared = shared_bits::<A>(starts[0].0, starts[starts.len() - 1].0);
        if shared >= position + 6 {
            return self.step(base, position, within, shared);
        }
        let log = starts.len().ilog2();
        let mut size = log.saturating_sub(2).clamp(2, TABLE_BITS);
        if position == 0 && (12..=15).contains(&size) && Self::BITS == 32 {
            // Behind 16 bits of an IPv4 address, starts take two bytes.
            size = 16;
        }
        let size = size.min(Self::BITS - position);
        let node = Node { width: 0, position, size, form: Form::Alternating };
        Value::Node(Box::new(Plan { node, base, segments: within, chunk: Vec::new(), first: None }))
    }

    /// A chunk of at most two starts around the smaller block that holds all of them.
    fn step(&self, base: A, position: u32, within: std::ops::Range<usize>, shared: u32) -> Value<A> {
        let first = within.start;
        let before = self.segments[first].1;
        let shared = shared.min(position + 64).min(Self::BITS - 1);
        let width = [16, 32, 64].into_iter().find(|width| shared - position <= *width).unwrap_or(64);
        let inner = self.segments[first + 1].0.wide();
        let rest = block_mask::<A>(shared);
        let (low, high) = (inner & !rest, inner | rest);
        let mut chunk = Vec::new();
        // The inner block begins in the segment before its first start, unless that start is its own beginning.
        let inner_first = if inner == low { first + 1 } else { first };
        let nested = self.block(A::narrow(low), shared, inner_first..within.end);
        let block_low = base.wide();
        let head = if low == block_low {
            nested
        } else {
            chunk.push((A::narrow(low).window(position, width), nested));
            Value::Class(before)
        };
        let block_high = block_low | block_mask::<A>(position);
        if high < block_high {
            let last = self.segments[within.end - 1].1;
            chunk.push((A::narrow(high + 1).window(position, width), Value::Class(last)));
        }
        self.chunk(base, position, width, within, head, chunk)
    }

    fn chunk(
        &self,
        base: A,
        position: u32,
        width: u32,
        segments: std::ops::Range<usize>,
        first: Value<A>,
        chunk: Vec<(u64, Value<A>)>,
    ) -> Value<A> {
        if chunk.is_empty() {
            return first;
        }
        let classes: Option<Vec<u32>> = std::iter::once(&first)
            .chain(chunk.iter().map(|(_, value)| value))
            .map(|value| match value {
                Value::Class(class) if *class <= u32::from(u16::MAX) => Some(*class),
                _ => None,
            })
            .collect();
        let form = match classes {
            Some(classes) if classes.iter().zip(classes.iter().skip(2)).all(|(a, b)| a == b) => Form::Alternating,
            Some(_) => Form::Short,
            None => Form::Long,
        };
        let node = Node { width: width / 8, position, size: chunk.len() as u32, form };
        Value::Node(Box::new(Plan { node, base, segments, chunk, first: Some(first) }))
    }

    /// The values of a table.
    fn children(&self, plan: &Plan<A>) -> impl Iterator<Item = Value<A>> {
        let (position, size) = (plan.node.position, plan.node.size);
        let base = plan.base.wide();
        let unit = Self::BITS - position - size;
        let end = plan.segments.end;
        let mut holder = plan.segments.start;
        (0..1u128 << size).map(move |index| {
            let low = base | index << unit;
            let high = low | block_mask::<A>(position + size);
            // The segment that holds the child's first address.
            while holder + 1 < end && self.segments[holder + 1].0.wide() <= low {
                holder += 1;
            }
            let mut behind = holder + 1;
            while behind < end && self.segments[behind].0.wide() <= high {
                behind += 1;
            }
            let value = self.block(A::narrow(low), position + size, holder..behind);
            holder = behind - 1;
            value
        })
    }
}

/// The bits behind the first `position` of an address.
fn block_mask<A: AddressBits>(position: u32) -> u128 {
    let all = if A::BITS == 128 { u128::MAX } else { (1 << A::BITS) - 1 };
    if position >= A::BITS { 0 } else { all >> position }
}

/// How many leading bits two addresses share.
fn shared_bits<A: AddressBits>(a: A, b: A) -> u32 {
    (a.wide() ^ b.wide()).leading_zeros() - (128 - A::BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::addresses::class;

    fn check<A: AddressBits + Bits>(sets: &[Ranges<A>]) {
        let mut classes = Classes::default();
        let references: Vec<_> = sets.iter().collect();
        let segments = segments(&references, &mut classes);
        let map = map(&segments).unwrap();
        let probe = |address: A| {
            let expected: Vec<u32> =
                (0..sets.len() as u32).filter(|set| sets[*set as usize].contains(address)).collect();
            let found = if map.is_empty() { 0 } else { class(&map, address) };
            assert_eq!(found, classes_number(&classes, &expected), "{address:?}");
        };
        probe(A::narrow(0));
        probe(A::narrow(u128::MAX));
        for set in sets {
            for &(low, high) in set.ranges() {
                for edge in [Some(low), Some(high), low.before(), high.after()].into_iter().flatten() {
                    probe(edge);
                }
                probe(A::narrow(low.wide() + (high.wide() - low.wide()) / 2));
            }
        }
    }

    fn classes_number(classes: &Classes, sets: &[u32]) -> u32 {
        // A combination that never came up cannot be looked up.
        classes.number_of(sets).unwrap_or(u32::MAX)
    }

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    fn random_set<A: AddressBits>(random: &mut Random, count: usize, clustered: bool) -> Ranges<A> {
        let mut ranges = Vec::new();
        for _ in 0..count {
            let mut value = u128::from(random.next()) << 64 | u128::from(random.next());
            if clustered {
                value &= u128::MAX >> 20 & !(0xff << 60) | 0x1f << 120;
            }
            let length = 1 + random.next() as u32 % A::BITS;
            let base = A::narrow(value >> (128 - A::BITS)).wide() & !block_mask::<A>(length);
            ranges.push((A::narrow(base), A::narrow(base | block_mask::<A>(length))));
        }
        Ranges::new(ranges)
    }

    #[test]
    fn every_edge_has_its_class() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for count in [1, 2, 7, 40, 300, 3000] {
            for clustered in [false, true] {
                for sets in [1, 2, 5] {
                    check::<u32>(&(0..sets).map(|_| random_set(&mut random, count, clustered)).collect::<Vec<_>>());
                    check::<u128>(&(0..sets).map(|_| random_set(&mut random, count, clustered)).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_space() {
        check::<u32>(&[Ranges::new(vec![(0, u32::MAX)])]);
        check::<u128>(&[Ranges::new(vec![(0, u128::MAX)]), Ranges::new(vec![(u128::MAX, u128::MAX)])]);
        check::<u32>(&[Ranges::new(vec![(u32::MAX, u32::MAX)]), Ranges::new(vec![(0, 0)])]);
        // Single addresses far apart, deep in the address.
        check::<u128>(&[Ranges::new((0..100u128).map(|i| (i * 3 + (1 << 70), i * 3 + (1 << 70))).collect())]);
    }
}
