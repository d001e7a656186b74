//! Writes layers: rows, cells, entries, signatures.

use super::{ANY, Item, Layer, Numbering};
use crate::image::{
    layers::{BUCKET, CELLS, FIELD, LAYER, OVERFLOW, REACH, Word, bucket},
    layout::{CLASSED, CONDITIONED, Parts, SIGNATURE_ANY_PROTOCOL, SLOTS, Signature, Slot},
};
use std::collections::HashMap;

/// Cells for each hundred places in buckets: the fuller, the more cells stand in a bucket that is not their own.
const FULL: usize = 80;
/// How many entries of a list later ones are compared with, to leave out what never decides.
const COMPARED: usize = 64;

/// Where a layer's cells are, and how its keys are put together.
pub(super) struct Record {
    least: u32,
    first: u32,
    buckets: u32,
    /// By dimension: where the part is in the key.
    fields: [Option<Field>; CLASSED],
}

/// A part's place in the key.
#[derive(Clone, Copy)]
struct Field {
    shift: u8,
    bits: u8,
}

/// How keys of a layer are put together: as many dimensions as 64 bits have room for, those with the most parts first.
fn fields(layer: &Layer) -> [Option<Field>; CLASSED] {
    let parts = |dimension: usize| layer.partitions[dimension].as_ref().map_or(0, |one| one.conditions.len());
    let mut order: Vec<usize> = (0..CLASSED).filter(|dimension| layer.keyed[*dimension]).collect();
    order.sort_by_key(|dimension| usize::MAX - parts(*dimension));
    let (mut used, mut fields) = (0, [None; CLASSED]);
    for dimension in order {
        let bits = (usize::BITS - (parts(dimension) - 1).leading_zeros()) as u8;
        if used + bits <= 64 {
            fields[dimension] = Some(Field { shift: used, bits });
            used += bits;
        }
    }
    fields
}

/// Every key with the places of the items that stand there, in order.
fn keys(layer: &Layer, fields: &[Option<Field>; CLASSED]) -> Vec<(u64, u32)> {
    let dimensions: Vec<_> = layer
        .partitions
        .iter()
        .enumerate()
        .filter_map(|(dimension, partition)| Some((dimension, fields[dimension]?.shift, partition.as_ref()?)))
        .map(|(dimension, shift, partition)| {
            let sets = layer.items.iter().map(|item| item.sets[dimension]).filter(|set| *set != ANY);
            let count = sets.max().map_or(0, |last| last as usize + 1);
            let all: Vec<u32> = (0..partition.conditions.len() as u32).collect();
            // Conditions of other layers have no part here.
            (dimension, shift, partition.conditions.inverse(count), all)
        })
        .collect();
    let mut keys = Vec::new();
    let mut own = Vec::new();
    for (place, item) in layer.items.iter().enumerate() {
        own.clear();
        own.push(0u64);
        for (dimension, shift, parts, all) in &dimensions {
            let set = item.sets[*dimension];
            let parts = if set == ANY { all.as_slice() } else { parts.of(set) };
            let before = own.len();
            for part in parts {
                for index in 0..before {
                    own.push(own[index] | u64::from(*part) << shift);
                }
            }
            own.drain(..before);
        }
        keys.extend(own.iter().map(|key| (*key, place as u32)));
    }
    keys.sort_unstable();
    keys
}

/// Which items stand in cells of more than `long`.
pub(super) fn in_long(layer: &Layer, long: usize) -> Vec<bool> {
    let mut found = vec![false; layer.items.len()];
    for cell in keys(layer, &fields(layer)).chunk_by(|a, b| a.0 == b.0).filter(|cell| cell.len() > long) {
        cell.iter().for_each(|(_, place)| found[*place as usize] = true);
    }
    found
}

/// Cells while layers go in.
pub(super) struct Cells {
    signatures: HashMap<Signature, u32>,
    signature_bytes: Vec<u8>,
    lists: HashMap<Vec<u64>, u32>,
    entries: Vec<u64>,
    cells: Vec<u8>,
    unchecked: Vec<u8>,
}

impl Cells {
    pub(super) fn new(rules: usize) -> Self {
        Self {
            signatures: HashMap::new(),
            signature_bytes: Vec::new(),
            lists: HashMap::new(),
            entries: Vec::new(),
            cells: Vec::new(),
            unchecked: vec![0; rules],
        }
    }

    /// Writes a layer's cells.
    pub(super) fn add(&mut self, layer: &mut Layer) -> Result<Record, String> {
        let fields = fields(layer);
        // A dimension that is told apart and not in the key is in the rows' bits, unless the key has no room for it.
        let implied = std::array::from_fn(|dimension| {
            layer.partitions[dimension].is_some() && (fields[dimension].is_some() || !layer.keyed[dimension])
        });
        let words: Vec<u64> = layer.items.iter().map(|item| self.entry(item, &implied)).collect::<Result<_, _>>()?;
        let keys = keys(layer, &fields);
        let groups: Vec<&[(u64, u32)]> = keys.chunk_by(|a, b| a.0 == b.0).collect();
        let mut cells = Vec::with_capacity(groups.len());
        for group in groups {
            let items = group.iter().map(|(_, place)| (&layer.items[*place as usize], words[*place as usize]));
            cells.push((group[0].0, self.word(items)?));
        }
        let first = (self.cells.len() / BUCKET) as u32;
        let mut count = cells.len() * 100 / (FULL * CELLS) + 1;
        let buckets = loop {
            match fill(&cells, count) {
                Some(buckets) => break buckets,
                None => count += count / 8 + 1,
            }
        };
        self.cells.extend(buckets.iter().flatten().flatten().flat_map(|word| word.to_le_bytes()));
        let least = layer.items.first().map_or(0, |item| item.rule);
        Ok(Record { least, first, buckets: buckets.len() as u32, fields })
    }

    /// The word of one item.
    fn entry(&mut self, item: &Item, implied: &[bool; CLASSED]) -> Result<u64, String> {
        let next = self.signatures.len() as u32;
        let signature = *self.signatures.entry(item.signature).or_insert(next);
        if signature == next {
            item.signature.write(&mut self.signature_bytes);
        }
        if signature >= FIELD {
            return Err("the rules have too many combinations of ports and protocols".to_owned());
        }
        let not_implied = (0..CONDITIONED)
            .filter(|dimension| item.sets[*dimension] != ANY && !implied[*dimension])
            .fold(0, |bits, dimension| bits | 1u8 << dimension);
        self.unchecked[item.rule as usize] |= not_implied;
        Ok(Word::One { rule: item.rule, signature, checks: item.checks || not_implied != 0 }.pack())
    }

    /// The word of a cell; what an earlier rule of it always decides before is left out.
    fn word<'i>(&mut self, items: impl Iterator<Item = (&'i Item, u64)>) -> Result<u64, String> {
        let mut kept: Vec<(&Item, u64)> = Vec::new();
        for (item, word) in items {
            let shadowed = |(earlier, word): &(&Item, u64)| {
                matches!(Word::unpack(*word), Word::One { checks: false, .. })
                    && covers(&earlier.signature, &item.signature)
            };
            if !kept.iter().take(COMPARED).any(shadowed) {
                kept.push((item, word));
            }
        }
        if let [(_, word)] = kept[..] {
            return Ok(word);
        }
        if kept.len() >= FIELD as usize {
            return Err("too many rules are alike in all that can be told apart".to_owned());
        }
        let list: Vec<u64> = kept.into_iter().map(|(_, word)| word).collect();
        let (next, count) = (self.entries.len() as u32, list.len() as u32);
        let first = *self.lists.entry(list).or_insert_with_key(|list| {
            self.entries.extend_from_slice(list);
            next
        });
        Ok(Word::List { first, count }.pack())
    }

    /// Writes what was gathered, and the layers themselves.
    pub(super) fn finish(self, records: &[Record], slots: &[Slot], parts: &mut Parts) -> Result<Vec<u8>, String> {
        let mut ends = [ROW_BITS; CLASSED];
        for record in records {
            let at = parts.layers.len();
            for number in [record.least, record.first, record.buckets, 0] {
                parts.layers.extend(number.to_le_bytes());
            }
            for slot in slots {
                let dimension = usize::from(slot.dimension);
                let how = record.fields[dimension].map_or(0, |field| {
                    let first = ends[dimension];
                    ends[dimension] += u32::from(field.bits);
                    first | u32::from(field.shift) << 16 | u32::from(field.bits) << 24
                });
                parts.layers.extend(how.to_le_bytes());
            }
            parts.layers.resize(at + LAYER, 0);
        }
        parts.cells = self.cells;
        parts.entries = self.entries.iter().flat_map(|word| word.to_le_bytes()).collect();
        parts.signatures = self.signature_bytes;
        Ok(self.unchecked)
    }
}

/// Whether every flow with the `other` signature has the `first` one.
fn covers(first: &Signature, other: &Signature) -> bool {
    let within = |outer: (u16, u16), inner: (u16, u16)| outer.0 <= inner.0 && inner.1 <= outer.1;
    let any = |signature: &Signature| signature.flags & SIGNATURE_ANY_PROTOCOL != 0;
    within(first.remote_port, other.remote_port)
        && within(first.local_port, other.local_port)
        && (any(first) || (!any(other) && first.protocol == other.protocol))
        && other.flags & !SIGNATURE_ANY_PROTOCOL & !first.flags == 0
}

/// Cells in `count` buckets, each where its key belongs or behind; none when one would be too far away.
fn fill(cells: &[(u64, u64)], count: usize) -> Option<Vec<[[u64; 2]; CELLS]>> {
    let mut buckets = vec![[[0u64; 2]; CELLS]; count];
    let mut lengths = vec![0u8; count];
    for &(key, word) in cells {
        let mut number = bucket(key, count as u32) as usize;
        let mut reach = REACH;
        while usize::from(lengths[number]) == CELLS {
            reach = reach.checked_sub(1).filter(|left| *left > 0)?;
            buckets[number][CELLS - 1][1] |= OVERFLOW;
            number = if number + 1 == count { 0 } else { number + 1 };
        }
        let place = usize::from(lengths[number]);
        buckets[number][place] = [key, word];
        lengths[number] += 1;
    }
    Some(buckets)
}

/// Writes the rows of the dimensions that some layer uses.
pub(super) fn rows(
    layers: &[Layer],
    records: &[Record],
    spaces: &[Numbering; CLASSED],
    parts: &mut Parts,
) -> Result<([Slot; SLOTS], u8), String> {
    let mut slots = [Slot::default(); SLOTS];
    let mut used = 0;
    for (dimension, space) in spaces.iter().enumerate() {
        let partition = |layer: usize| layers[layer].partitions[dimension].as_ref();
        let telling: Vec<usize> = (0..layers.len()).filter(|layer| partition(*layer).is_some()).collect();
        if telling.is_empty() {
            continue;
        }
        let bits: usize =
            records.iter().filter_map(|record| record.fields[dimension]).map(|field| usize::from(field.bits)).sum();
        let stride = (ROW_BITS as usize + bits).div_ceil(32) * 4;
        let base = u32::try_from(parts.rows.len()).map_err(|_| "the rules do not fit into one image".to_owned())?;
        slots[used] = Slot { dimension: dimension as u8, stride: stride as u16, base };
        used += 1;
        // Where some rule of a layer asks nothing of the dimension, no class is out of the question.
        let unused = (0..layers.len()).filter(|layer| {
            !telling.contains(layer) || layers[*layer].items.iter().any(|item| item.sets[dimension] == ANY)
        });
        let always = unused.fold(0u32, |bits, layer| bits | 1 << layer);
        for class in 0..space.combinations.len() {
            let mut row = Row { bytes: &mut parts.rows, word: 0, bits: 0 };
            let part = |layer: usize| partition(layer).map_or(0, |partition| partition.of[class]);
            let ones = telling.iter().fold(always, |bits, layer| bits | u32::from(part(*layer) != 0) << layer);
            row.put(ones, ROW_BITS as u8);
            for (layer, record) in records.iter().enumerate() {
                if let Some(field) = record.fields[dimension] {
                    row.put(part(layer), field.bits);
                }
            }
            row.finish(base as usize + (class + 1) * stride);
        }
    }
    if used > 0 {
        // Parts are read eight bytes at a time.
        parts.rows.extend([0; 8]);
    }
    Ok((slots, used as u8))
}

/// The bits of a row that say in which layers a rule may match.
const ROW_BITS: u32 = 32;

/// A row while numbers go in, the first in the lowest bits.
struct Row<'b> {
    bytes: &'b mut Vec<u8>,
    word: u64,
    bits: u8,
}

impl Row<'_> {
    fn put(&mut self, number: u32, bits: u8) {
        self.word |= u64::from(number) << self.bits;
        self.bits += bits;
        while self.bits >= 8 {
            self.bytes.push(self.word as u8);
            self.word >>= 8;
            self.bits -= 8;
        }
    }

    fn finish(self, end: usize) {
        self.bytes.push(self.word as u8);
        self.bytes.resize(end, 0);
    }
}
