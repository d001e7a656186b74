//! How long the longest way through a forest is, and which rules make it so.

use super::forest::Forest;
use crate::image::forest::Word;

impl Forest {
    /// Fills in the steps of every cut. `entry` tells those of a box.
    pub(super) fn count_steps(&mut self, entry: impl Fn(u32) -> u64) -> Result<(), String> {
        let mut steps = vec![0u64; self.words.len()];
        // Whatever a cut leads to stands behind it.
        for index in (0..self.words.len()).rev() {
            steps[index] = self.steps_of(Word::unpack(self.words[index]), &steps, &entry);
        }
        let cuts = |words: &[u64]| -> Vec<usize> {
            (0..words.len()).filter(|index| matches!(Word::unpack(words[*index]), Word::Cut(_))).collect()
        };
        let mut own: Vec<u64> = Vec::new();
        for (index, root) in self.roots.iter().enumerate() {
            let word = Word::unpack(*root);
            self.root_steps.push(self.steps_of(word, &steps, &entry));
            if !self.roots[..index].contains(root) && matches!(word, Word::Cut(_)) {
                own.push(self.root_steps[index]);
            }
        }
        own.extend(cuts(&self.words).into_iter().map(|index| steps[index]));
        let narrow = |steps: u64| u32::try_from(steps).map_err(|_| "the rules cannot be told apart".to_owned());
        self.steps = own.into_iter().map(narrow).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn steps_of(&self, word: Word, below: &[u64], entry: &impl Fn(u32) -> u64) -> u64 {
        match word {
            Word::Empty | Word::Least(_) => 1,
            Word::Leaf { .. } => 1 + self.leaf(word).iter().map(|number| entry(*number)).sum::<u64>(),
            Word::Cut(cut) => {
                let base = cut.base as usize;
                let children = base + (1 << cut.bits);
                let most = below[base..children].iter().max().copied().unwrap_or(0);
                1 + most + if cut.rest { below[children] } else { 0 }
            }
        }
    }

    /// The boxes of a leaf, none of another word.
    fn leaf(&self, word: Word) -> &[u32] {
        match word {
            Word::Leaf { first, count } => &self.entries[first as usize..(first + count) as usize],
            _ => &[],
        }
    }

    /// The most steps from a root on.
    pub(super) fn most_steps(&self) -> u64 {
        self.root_steps.iter().copied().max().unwrap_or(0)
    }

    /// The boxes of the leaf that takes the most steps.
    pub(super) fn slowest_leaf(&self, entry: impl Fn(u32) -> u64) -> &[u32] {
        let words = self.roots.iter().chain(&self.words).map(|word| self.leaf(Word::unpack(*word)));
        words.max_by_key(|boxes| boxes.iter().map(|number| entry(*number)).sum::<u64>()).unwrap_or(&[])
    }
}
