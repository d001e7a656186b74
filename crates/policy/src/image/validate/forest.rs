//! Validates the forest: blocks follow each other, each belongs to one cut, rests fit the matcher's stack, and the steps
//! recorded for each cut are those of the longest path below it.

use super::{
    super::{
        budget::SHARED_LEAF,
        forest::{Cut, LEVELS, MAX_BITS, ROOM, Word},
        layout::*,
        table::{Section, u32_at, u64_at},
    },
    InvalidImage, require,
};

/// Returns the most steps of one search, that for rules that wait for a name included.
pub(super) fn validate(bytes: &[u8], header: &Header) -> Result<u64, InvalidImage> {
    let sections = &header.sections;
    let rules = sections.rules;
    let entry_steps = |tail: EntryTail| {
        let rule = rules.record(bytes, tail.rule).map(RuleRecord::read).unwrap_or_default();
        1 + if tail.flags & ENTRY_CONDITIONS != 0 { u64::from(rule.steps) } else { 0 }
    };
    let entry4 =
        |index| sections.entries4.record(bytes, index).map_or(0, |entry| entry_steps(Entry4::read(entry).tail));
    let entry6 =
        |index| sections.entries6.record(bytes, index).map_or(0, |entry| entry_steps(Entry6::read(entry).tail));
    let (roots4, roots6) = header.roots.split_at_checked(ROOTS_V6).unwrap_or_default();
    let entries4 = sections.entries4.count::<{ Entry4::SIZE }>();
    let entries6 = sections.entries6.count::<{ Entry6::SIZE }>();
    let of4 = Walk::new(bytes, sections.forest4, sections.steps4, "forest4", entries4, entry4).all(roots4)?;
    let of6 = Walk::new(bytes, sections.forest6, sections.steps6, "forest6", entries6, entry6).all(roots6)?;
    // A flow is looked at as IPv4, or as IPv6 and as the IPv4 address inside; and again by what waits for a name.
    let steps = |of: &Steps, view: usize, tree: Tree| of.get(view * TREES + tree as usize).copied().unwrap_or(0);
    let both = |tree| steps(&of4, 0, tree).max(steps(&of6, 0, tree).saturating_add(steps(&of4, 1, tree)));
    let sum = |tree, waiting, permitting| both(tree).saturating_add(both(waiting).max(both(permitting)));
    let named = sum(Tree::Outbound, Tree::OutboundWaiting, Tree::OutboundPermitting).max(sum(
        Tree::Inbound,
        Tree::InboundWaiting,
        Tree::InboundPermitting,
    ));
    let forwarded = both(Tree::Forward).max(both(Tree::ForwardNoPorts)).max(both(Tree::ForwardNoProtocol));
    Ok(named.max(forwarded).max(both(Tree::Listen)).max(both(Tree::Bind)))
}

/// The most steps from each root of a forest on.
type Steps = [u64; ROOTS_V6];

struct Walk<'a, F> {
    words: &'a [u8],
    count: u32,
    steps: &'a [u8],
    section: &'static str,
    entries: u32,
    /// The steps of an entry.
    entry: F,
    /// Where the next cut's block must begin.
    free: u32,
    /// How many cuts were looked at, and how many were found in their blocks.
    cuts: u32,
    found: u32,
    /// Where the last leaf ends that no other word may lead to.
    owned: u32,
}

impl<'a, F: Fn(u32) -> u64> Walk<'a, F> {
    fn new(bytes: &'a [u8], forest: Section, steps: Section, section: &'static str, entries: u32, entry: F) -> Self {
        let (words, count, steps) = (forest.of(bytes), forest.count::<8>(), steps.of(bytes));
        Self { words, count, steps, section, entries, entry, free: 0, cuts: 0, found: 0, owned: 0 }
    }

    fn all(mut self, roots: &[u64]) -> Result<Steps, InvalidImage> {
        let mut steps = [0; ROOTS_V6];
        // Trees of the same rules are one.
        let same = |index: usize| roots.iter().take(index).position(|earlier| Some(earlier) == roots.get(index));
        for (index, root) in roots.iter().enumerate().take(ROOTS_V6) {
            steps[index] = match same(index) {
                Some(earlier) => steps[earlier % ROOTS_V6],
                // Nothing is searched where there is no rule.
                None if *root == 0 => 0,
                None => self.steps(*root, index as u32)?.0,
            };
        }
        for (index, root) in roots.iter().enumerate() {
            if same(index).is_none() {
                self.word(*root, index as u32)?;
            }
        }
        // Blocks stand in the order of their levels: what the cuts of one level lead to ends where the level after it
        // begins.
        let (mut levels, mut level_end) = (1, self.free);
        for index in 0..self.count {
            require(index < self.free, self.section, index, "belongs to a cut")?;
            if index == level_end {
                levels += 1;
                level_end = self.free;
            }
            require(levels <= LEVELS, self.section, index, "few cuts stand above each other")?;
            self.word(u64_at(self.words, index as usize * 8), index)?;
        }
        require(self.free == self.count, self.section, self.free, "belongs to a cut")?;
        require(
            self.steps.len() as u64 == u64::from(self.cuts) * 4,
            self.section,
            self.cuts,
            "each cut has its steps",
        )?;
        Ok(steps)
    }

    /// The steps of a word that something leads to and of all below it, and how many rests can wait there. Each word is
    /// asked for once, in the words' order.
    fn steps(&mut self, word: u64, index: u32) -> Result<(u64, u8), InvalidImage> {
        match Word::unpack(word) {
            Word::Empty | Word::Least(_) => Ok((1, 0)),
            Word::Leaf { first, count } => {
                let end = u64::from(first) + u64::from(count);
                require(end <= u64::from(self.entries), self.section, index, "the leaf's entries exist")?;
                if count > SHARED_LEAF {
                    let alone = first >= self.owned;
                    require(alone, self.section, index, "nothing else leads to the entries of a long leaf")?;
                    self.owned = first + count;
                }
                let steps = (first..first + count).map(&self.entry).fold(1, u64::saturating_add);
                Ok((steps, 0))
            }
            Word::Cut(cut) => {
                let steps = self.said(self.found);
                self.found += 1;
                Ok((steps, cut.room))
            }
        }
    }

    /// What is said of a cut. That it is so is seen when the cut is looked at.
    fn said(&self, cut: u32) -> u64 {
        u32_at(self.steps, cut as usize * 4).into()
    }

    /// Looks at a word of its own accord: cuts only, since leaves were looked at by whatever leads to them.
    fn word(&mut self, word: u64, index: u32) -> Result<(), InvalidImage> {
        if let Word::Cut(cut) = Word::unpack(word) { self.cut(&cut, index) } else { Ok(()) }
    }

    fn cut(&mut self, cut: &Cut, index: u32) -> Result<(), InvalidImage> {
        let section = self.section;
        require((1..=MAX_BITS).contains(&cut.bits), section, index, "1 to 20 bits")?;
        let known = |dimension: u8| u32::from(dimension) < DIMENSION_LIMIT;
        require(known(cut.dimension) && known(cut.second_dimension), section, index, "known dimensions")?;
        require(cut.base == self.free, section, index, "blocks follow each other")?;
        let end = u64::from(cut.base) + u64::from(cut.words());
        require(end <= u64::from(self.count), section, index, "the block exists")?;
        self.free = end as u32;
        let needed = cut.room >= u8::from(cut.rest) && usize::from(cut.room) < ROOM;
        require(needed, section, index, "room for its rest")?;
        let children = cut.base + (1 << cut.bits);
        let (mut most, mut rest) = (0, 0);
        for child in cut.base..self.free {
            let word = u64_at(self.words, child as usize * 8);
            if child > children {
                let least = matches!(Word::unpack(word), Word::Least(_));
                require(least, section, child, "the least rule stands behind a rest")?;
                continue;
            }
            let (steps, room) = self.steps(word, child)?;
            require(room + u8::from(cut.rest) <= cut.room, section, child, "rests fit the stack")?;
            if child < children { most = most.max(steps) } else { rest = steps }
        }
        let said = self.said(self.cuts);
        self.cuts += 1;
        require(said == 1 + most + rest, section, index, "the steps are those of the longest way")
    }
}
