//! Validates an IPv6 map: its parts fill it, and every number in them refers to something that exists.

use super::{
    super::{
        table::{record, u32_at, u64_at, u128_at},
        v6::{
            FEWEST_BUCKETS, Form, HEAD, INNER, Kind, LAST, LEVELS, LINES, LINK, MOST_BUCKETS, Map, TABLE_BYTES, UNUSED,
            WIDE,
        },
    },
    InvalidImage, require,
};

pub(super) fn validate(map: &[u8], what: &'static str) -> Result<(), InvalidImage> {
    if map.is_empty() {
        return Ok(());
    }
    let head = Map::read(map);
    let known = map.len() >= HEAD && u32_at(map, 0) <= Form::Long as u32 && (1..=LEVELS as u32).contains(&head.depth);
    require(known, what, 0, "has a known form")?;
    let buckets = u32_at(map, 5 * 4);
    let known = buckets == 0 || (FEWEST_BUCKETS..=MOST_BUCKETS).contains(&buckets);
    require(known, what, 5, "has a valid number of buckets")?;
    require(head.ends.is_sorted(), what, 10, "levels follow each other")?;
    require(head.tables.length != 0 || head.links.length != 0, what, 4, "has a table or a list")?;
    let end = u64::from(head.values.offset) + u64::from(head.values.length);
    require(end.next_multiple_of(4) == map.len() as u64, what, 0, "is as long as its parts")?;
    let checked = Checked { map, what, head };
    require(buckets == 0 || checked.values(buckets * 8 - 1, 0), what, 8, "each exception has a value")?;
    checked.tables()?;
    checked.nodes()?;
    checked.links()
}

struct Checked<'a> {
    map: &'a [u8],
    what: &'static str,
    head: Map,
}

impl Checked<'_> {
    fn tables(&self) -> Result<(), InvalidImage> {
        let tables = self.head.tables.of(self.map).as_chunks::<4>().0;
        let mut next = u32::from(!tables.is_empty());
        for (index, entry) in tables.iter().enumerate() {
            let (kind, number) = Kind::of(u32::from_le_bytes(*entry));
            let there = match kind {
                Kind::Class => true,
                Kind::Table => {
                    next += 1;
                    index < TABLE_BYTES / 4 && number == next - 1
                }
                Kind::Root => number < self.head.ends[0],
                Kind::Link => number < self.links_count(),
            };
            require(there, self.what, index as u32, "the entry leads to something that exists")?;
        }
        require(self.head.tables.count::<TABLE_BYTES>() == next, self.what, next, "each table has one entry")
    }

    fn nodes(&self) -> Result<(), InvalidImage> {
        let nodes = self.head.nodes.of(self.map).as_chunks::<LINES>().0;
        let depth = self.head.depth as usize;
        let mut level = 0;
        for (index, node) in nodes.iter().enumerate() {
            while self.head.ends.get(level).is_some_and(|end| index as u32 >= *end) {
                level += 1;
            }
            require(level < depth, self.what, index as u32, "the node belongs to a level")?;
            let last = level + 1 == depth;
            let starts = if last { LAST } else { INNER };
            let start = |place: u32| u32_at(node, place as usize * 4).cast_signed();
            let count = (0..starts).find(|place| start(*place) == UNUSED.cast_signed()).unwrap_or(starts);
            let ascends = (1..count).all(|place| start(place - 1) < start(place));
            require(ascends, self.what, index as u32, "starts ascend")?;
            if last {
                self.last(index as u32, node, count)?;
            } else {
                let child = u64::from(u32_at(node, 31 * 4));
                let (from, end) = (self.head.ends.get(level), self.head.ends.get(level + 1));
                let there = from.is_some_and(|from| child >= u64::from(*from))
                    && end.is_some_and(|end| child + u64::from(count) < u64::from(*end));
                require(there, self.what, index as u32, "the children exist")?;
            }
        }
        Ok(())
    }

    fn last(&self, index: u32, node: &[u8; LINES], count: u32) -> Result<(), InvalidImage> {
        let (linked, values, link) = (u32_at(node, 29 * 4), u32_at(node, 30 * 4), u32_at(node, 31 * 4));
        // One more range than starts.
        let known = linked >> count >> 1 == 0;
        let links = u64::from(link) + u64::from(linked.count_ones()) <= u64::from(self.links_count());
        require(known && links, self.what, index, "the links exist")?;
        require(self.values(values, count), self.what, index, "the values exist")
    }

    /// Lists follow each other, so each is checked once.
    fn links(&self) -> Result<(), InvalidImage> {
        let lists = self.head.lists.of(self.map);
        let mut end = 0u64;
        for index in 0..self.links_count() {
            let Some(link) = record::<LINK>(self.head.links.of(self.map), index) else { break };
            let [first, count, value, shape] = [0, 4, 8, 12].map(|at| u32_at(link, at));
            require(u64::from(first) == end, self.what, index, "lists follow each other")?;
            let wide = shape & WIDE != 0;
            require(wide || shape <= 64, self.what, index, "starts are taken where there are bits")?;
            end += u64::from(count) * if wide { 2 } else { 1 };
            require(end * 8 <= lists.len() as u64, self.what, index, "the list exists")?;
            let starts = lists.get(first as usize * 8..end as usize * 8).unwrap_or(&[]);
            let ascends = if wide {
                starts.as_chunks::<16>().0.is_sorted_by(|a, b| u128_at(a, 0) < u128_at(b, 0))
            } else {
                starts.as_chunks::<8>().0.is_sorted_by(|a, b| u64_at(a, 0) < u64_at(b, 0))
            };
            require(ascends, self.what, index, "starts ascend")?;
            require(self.values(value, count), self.what, index, "the values exist")?;
        }
        require(end * 8 == lists.len() as u64, self.what, end as u32, "belongs to a list")
    }

    /// Whether a value exists, and `count` more after it.
    fn values(&self, first: u32, more: u32) -> bool {
        let size = if self.head.form == Form::Short { 2 } else { 4 };
        self.head.form == Form::Two || u64::from(first) + u64::from(more) < u64::from(self.head.values.length / size)
    }

    fn links_count(&self) -> u32 {
        self.head.links.count::<LINK>()
    }
}
