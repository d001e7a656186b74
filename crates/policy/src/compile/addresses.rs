//! Address maps: from overlapping sets to ascending ranges of classes to nodes.

use super::classes::Classes;
use crate::{
    image::addresses::{Bits, CHUNK, CHUNK_BYTES, Form, NODE, Node, PADDING, TABLE_BITS},
    model::address::{AddressBits, Ranges},
};
use std::collections::VecDeque;

/// Where a class begins; it reaches to the next segment. Packed, because there may be millions.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
pub(super) struct Segment<A> {
    pub(super) start: A,
    /// The class, by its first number and later by its final one.
    pub(super) class: u32,
}

/// The whole space as segments of classes (by their first numbers), neighbours of one class merged.
pub(super) fn segments<A: AddressBits>(sets: &[&Ranges<A>], classes: &mut Classes) -> Vec<Segment<A>> {
    let zero = A::narrow(0);
    let ranges: usize = sets.iter().map(|set| set.ranges().len()).sum();
    let mut segments: Vec<Segment<A>> = Vec::with_capacity(ranges * 2 + 1);
    let mut push = |start: A, class: u32| {
        if segments.last().is_some_and(|last| { last.start } == start) {
            segments.pop();
        }
        if segments.last().is_none_or(|last| { last.class } != class) {
            segments.push(Segment { start, class });
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
    let mut events: Vec<(A, u32)> = Vec::with_capacity(ranges * 2);
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

/// What one node will be. Its size places the nodes behind it, so it is known before its contents are made.
struct Plan<A> {
    /// The node's first word.
    head: u32,
    /// The segment the block begins in, and the one behind the last that begins in it.
    segments: (u32, u32),
    /// The first address of the block.
    base: A,
    /// What leads to a smaller block; of tables and chunks of classes, the segments say all.
    step: Option<Box<Step<A>>>,
}

/// Starts, and what lies before, between and behind them; some of it is smaller blocks.
struct Step<A> {
    first: Value<A>,
    rest: Vec<(u64, Value<A>)>,
}

/// What an address leads to.
enum Value<A> {
    Class(u32),
    Node(Plan<A>),
}

/// Bytes of a map while nodes go in.
struct Writer<A> {
    bytes: Vec<u8>,
    queue: VecDeque<Plan<A>>,
    /// The word the next node referred to will have.
    free: u32,
}

impl<A> Writer<A> {
    /// The word for a value; what it leads to is put off.
    fn refer(&mut self, value: Value<A>) -> Result<u32, String> {
        match value {
            Value::Class(class) => Ok(class),
            Value::Node(plan) => {
                let at = self.free;
                let end = at.checked_add(Node::unpack(plan.head).words()).filter(|end| *end < NODE - PADDING);
                self.free = end.ok_or("the address lists are too large")?;
                self.queue.push_back(plan);
                Ok(at | NODE)
            }
        }
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
    }
}

/// The bytes of a map; none when every address has class 0.
pub(super) fn map<A: AddressBits + Bits>(segments: &[Segment<A>]) -> Result<Vec<u8>, String> {
    if let [Segment { class: 0, .. }] | [] = segments {
        return Ok(Vec::new());
    }
    let builder = Builder { segments };
    let mut writer = Writer { bytes: Vec::new(), queue: VecDeque::new(), free: 1 };
    let root = writer.refer(builder.block(A::narrow(0), 0, (0, segments.len() as u32)))?;
    writer.word(root);
    while let Some(plan) = writer.queue.pop_front() {
        writer.word(plan.head);
        let node = Node::unpack(plan.head);
        if node.width == 0 {
            for value in builder.children(&plan) {
                let word = writer.refer(value)?;
                writer.word(word);
            }
            continue;
        }
        let end = writer.bytes.len() + (node.words() as usize - 1) * 4;
        let values = writer.bytes.len() + node.values() as usize;
        if let Some(step) = plan.step {
            for (start, _) in &step.rest {
                writer.bytes.extend_from_slice(&start.to_le_bytes()[..node.width as usize]);
            }
            writer.bytes.resize(values, 0);
            for value in std::iter::once(step.first).chain(step.rest.into_iter().map(|(_, value)| value)) {
                let word = writer.refer(value)?;
                match node.form {
                    Form::Long => writer.word(word),
                    Form::Short | Form::Alternating => writer.bytes.extend((word as u16).to_le_bytes()),
                }
            }
        } else {
            let (first, behind) = (plan.segments.0 as usize, plan.segments.1 as usize);
            for start in &segments[first + 1..behind] {
                let start = { start.start }.window(node.position, node.width * 8);
                writer.bytes.extend_from_slice(&start.to_le_bytes()[..node.width as usize]);
            }
            writer.bytes.resize(values, 0);
            for (index, segment) in segments[first..behind].iter().enumerate() {
                let class = segment.class;
                match node.form {
                    Form::Alternating if index > 1 => break,
                    Form::Long => writer.word(class),
                    Form::Short | Form::Alternating => writer.bytes.extend((class as u16).to_le_bytes()),
                }
            }
        }
        writer.bytes.resize(end, 0);
    }
    writer.bytes.resize(writer.bytes.len() + PADDING as usize * 4, 0);
    Ok(writer.bytes)
}

/// How the values of a chunk are kept.
fn form(classes: impl Iterator<Item = u32> + Clone) -> Form {
    if classes.clone().any(|class| class > u32::from(u16::MAX)) {
        Form::Long
    } else if classes.clone().zip(classes.skip(2)).all(|(a, b)| a == b) {
        Form::Alternating
    } else {
        Form::Short
    }
}

struct Builder<'s, A> {
    segments: &'s [Segment<A>],
}

impl<A: AddressBits + Bits> Builder<'_, A> {
    const BITS: u32 = A::BITS;

    /// The block of addresses that begin with the first `position` bits of `base`. `within.0` is the segment that holds
    /// `base`.
    fn block(&self, base: A, position: u32, within: (u32, u32)) -> Value<A> {
        let (first, end) = (within.0 as usize, within.1 as usize);
        let class = self.segments[first].class;
        let starts = &self.segments[first + 1..end];
        if starts.is_empty() {
            return Value::Class(class);
        }
        if starts.len() <= CHUNK as usize {
            // How many leading bits tell all starts from their neighbours.
            let depth =
                starts.iter().map(|start| Self::BITS - { start.start }.wide().trailing_zeros().min(Self::BITS)).max();
            let needed = depth.unwrap_or(Self::BITS).saturating_sub(position);
            if let Some(width) = [16, 32, 64].into_iter().find(|width| needed <= *width)
                && starts.len() as u32 * width <= CHUNK_BYTES * 8
            {
                let form = form(self.segments[first..end].iter().map(|segment| segment.class));
                let node = Node { width: width / 8, position, size: starts.len() as u32, form };
                return Value::Node(Plan { head: node.pack(), segments: within, base, step: None });
            }
        }
        if starts.len() <= (CHUNK_BYTES / 8) as usize
            && let Some(value) = self.wide(base, position, within)
        {
            return value;
        }
        // One table for all that the starts share would be mostly empty: step over it.
        let shared = shared_bits::<A>(starts[0].start, starts[starts.len() - 1].start);
        if shared >= position + 6 {
            return self.step(base, position, within, shared);
        }
        let log = starts.len().ilog2();
        let size = if position == 0 && Self::BITS == 32 && log >= 12 {
            // Behind 16 bits of an IPv4 address, starts take two bytes.
            log.saturating_sub(3).max(16)
        } else {
            log.saturating_sub(if Self::BITS == 128 { 3 } else { 2 }).max(2)
        };
        let size = size.min(TABLE_BITS).min(Self::BITS - position);
        let node = Node { width: 0, position, size, form: Form::Alternating };
        Value::Node(Plan { head: node.pack(), segments: within, base, step: None })
    }

    /// A chunk by the 64 bits at `position` where starts are told apart farther down: each 64 bits that several starts
    /// have, or that go on, lead to a block of their own. None if that makes too many.
    fn wide(&self, base: A, position: u32, within: (u32, u32)) -> Option<Value<A>> {
        if Self::BITS - position <= 64 {
            return None;
        }
        let window = |place: usize| { self.segments[place].start }.window(position, 64);
        let (mut at, end) = (within.0 as usize + 1, within.1 as usize);
        let mut first = Value::Class(self.segments[at - 1].class);
        let mut rest: Vec<(u64, Value<A>)> = Vec::new();
        let mut put = |window: u64, value: Value<A>| {
            if rest.last().is_some_and(|last| last.0 == window) {
                rest.pop();
            }
            if window == 0 { first = value } else { rest.push((window, value)) }
        };
        while at < end {
            let here = window(at);
            let behind = (at + 1..end).find(|place| window(*place) != here).unwrap_or(end);
            let start = { self.segments[at].start }.wide();
            let low = start & !block_mask::<A>(position + 64);
            if behind == at + 1 && start == low {
                put(here, Value::Class(self.segments[at].class));
            } else {
                // The block begins in the segment before its first start, unless that start is its own beginning.
                let holder = if start == low { at } else { at - 1 };
                put(here, self.block(A::narrow(low), position + 64, (holder as u32, behind as u32)));
                if let Some(next) = here.checked_add(1) {
                    put(next, Value::Class(self.segments[behind - 1].class));
                }
            }
            at = behind;
        }
        if rest.len() as u32 * 8 > CHUNK_BYTES {
            return None;
        }
        Some(self.leading(base, position, 64, within, first, rest))
    }

    /// A chunk of at most two starts around the smaller block that holds all of them.
    fn step(&self, base: A, position: u32, within: (u32, u32), shared: u32) -> Value<A> {
        let first = within.0 as usize;
        let before = self.segments[first].class;
        let shared = shared.min(position + 64).min(Self::BITS - 1);
        let width = [16, 32, 64].into_iter().find(|width| shared - position <= *width).unwrap_or(64);
        let inner = { self.segments[first + 1].start }.wide();
        let behind = block_mask::<A>(shared);
        let (low, high) = (inner & !behind, inner | behind);
        let mut rest = Vec::new();
        // The inner block begins in the segment before its first start, unless that start is its own beginning.
        let inner_first = if inner == low { within.0 + 1 } else { within.0 };
        let nested = self.block(A::narrow(low), shared, (inner_first, within.1));
        let block_low = base.wide();
        let first = if low == block_low {
            nested
        } else {
            rest.push((A::narrow(low).window(position, width), nested));
            Value::Class(before)
        };
        let block_high = block_low | block_mask::<A>(position);
        if high < block_high {
            let last = self.segments[within.1 as usize - 1].class;
            rest.push((A::narrow(high + 1).window(position, width), Value::Class(last)));
        }
        self.leading(base, position, width, within, first, rest)
    }

    /// A chunk of given starts, whose values may lead on.
    fn leading(
        &self,
        base: A,
        position: u32,
        width: u32,
        within: (u32, u32),
        first: Value<A>,
        rest: Vec<(u64, Value<A>)>,
    ) -> Value<A> {
        if rest.is_empty() {
            return first;
        }
        let all = || std::iter::once(&first).chain(rest.iter().map(|(_, value)| value));
        let form = if all().any(|value| matches!(value, Value::Node(_))) {
            Form::Long
        } else {
            form(all().map(|value| if let Value::Class(class) = value { *class } else { 0 }))
        };
        let node = Node { width: width / 8, position, size: rest.len() as u32, form };
        Value::Node(Plan { head: node.pack(), segments: within, base, step: Some(Box::new(Step { first, rest })) })
    }

    /// The values of a table.
    fn children(&self, plan: &Plan<A>) -> impl Iterator<Item = Value<A>> + use<'_, A> {
        let node = Node::unpack(plan.head);
        let (position, size) = (node.position, node.size);
        let base = plan.base.wide();
        let unit = Self::BITS - position - size;
        let end = plan.segments.1 as usize;
        let mut holder = plan.segments.0 as usize;
        (0..1u128 << size).map(move |index| {
            let low = base | index << unit;
            let high = low | block_mask::<A>(position + size);
            // The segment that holds the child's first address.
            while holder + 1 < end && { self.segments[holder + 1].start }.wide() <= low {
                holder += 1;
            }
            let mut behind = holder + 1;
            while behind < end && { self.segments[behind].start }.wide() <= high {
                behind += 1;
            }
            let value = self.block(A::narrow(low), position + size, (holder as u32, behind as u32));
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
