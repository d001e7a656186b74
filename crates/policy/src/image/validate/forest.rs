//! Validates the forest: blocks follow each other, each belongs to one cut, and rests fit the matcher's stack.

use super::{
    super::{
        forest::{Cut, LEVELS, MAX_BITS, ROOM, Word},
        layout::*,
        table::{Section, u64_at},
    },
    InvalidImage, require,
};

pub(super) fn validate(bytes: &[u8], header: &Header) -> Result<(), InvalidImage> {
    let sections = &header.sections;
    let (roots4, roots6) = header.roots.split_at_checked(ROOTS_V6).unwrap_or_default();
    one(bytes, sections.forest4, sections.entries4.count::<{ Entry4::SIZE }>(), "forest4", roots4)?;
    one(bytes, sections.forest6, sections.entries6.count::<{ Entry6::SIZE }>(), "forest6", roots6)
}

fn one(bytes: &[u8], forest: Section, entries: u32, section: &'static str, roots: &[u64]) -> Result<(), InvalidImage> {
    let count = forest.count::<8>();
    let mut walk = Walk { words: forest.of(bytes), count, entries, section, free: 0 };
    for (index, root) in roots.iter().enumerate() {
        // Trees of the same rules are one.
        if !roots.iter().take(index).any(|earlier| earlier == root) {
            walk.word(*root, index as u32)?;
        }
    }
    // Blocks are in the order of their levels: the children of one level's cuts end where the next level begins.
    let (mut levels, mut level_end) = (1, walk.free);
    for index in 0..count {
        require(index < walk.free, section, index, "belongs to a cut")?;
        if index == level_end {
            levels += 1;
            level_end = walk.free;
        }
        require(levels <= LEVELS, section, index, "few cuts are nested")?;
        walk.word(u64_at(walk.words, index as usize * 8), index)?;
    }
    require(walk.free == count, section, walk.free, "belongs to a cut")
}

struct Walk<'a> {
    words: &'a [u8],
    count: u32,
    entries: u32,
    section: &'static str,
    /// Where the next cut's block must begin.
    free: u32,
}

impl Walk<'_> {
    fn word(&mut self, word: u64, index: u32) -> Result<(), InvalidImage> {
        match Word::unpack(word) {
            Word::Empty | Word::Least(_) => Ok(()),
            Word::Leaf { first, count } => {
                let end = u64::from(first) + u64::from(count);
                require(end <= u64::from(self.entries), self.section, index, "the leaf's entries exist")
            }
            Word::Cut(cut) => self.cut(&cut, index),
        }
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
        for child in cut.base..self.free {
            if let Word::Cut(below) = Word::unpack(u64_at(self.words, child as usize * 8)) {
                require(below.room + u8::from(cut.rest) <= cut.room, section, child, "rests fit the stack")?;
            }
        }
        Ok(())
    }
}
