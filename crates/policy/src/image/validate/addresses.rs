//! An address map's nodes follow each other, each is referred to once from an earlier one that covers more.

use super::{
    super::{
        addresses::{CHUNK, CHUNK_BYTES, Form, NODE, Node, PADDING, TABLE_BITS},
        table::u32_at,
    },
    InvalidImage, require,
};

pub(super) fn validate(map: &[u8], what: &'static str, bits: u32) -> Result<(), InvalidImage> {
    if map.is_empty() {
        return Ok(());
    }
    let mut walk = Walk { map, what, bits, free: 1 };
    walk.value(u32_at(map, 0), 0, None)?;
    let words = ((map.len() / 4) as u32).saturating_sub(PADDING);
    let mut at = 1;
    while at < words {
        require(at < walk.free, what, at, "belongs to a node")?;
        let node = walk.node(at)?;
        walk.contents(at, node)?;
        at += node.words();
    }
    require(walk.free == words, what, walk.free, "belongs to a node")
}

struct Walk<'a> {
    map: &'a [u8],
    what: &'static str,
    bits: u32,
    /// Where the next node referred to must begin, in words.
    free: u32,
}

impl Walk<'_> {
    /// Reads the node at word `at` and checks that it is whole.
    fn node(&self, at: u32) -> Result<Node, InvalidImage> {
        let node = Node::unpack(u32_at(self.map, at as usize * 4));
        let shape = if node.width == 0 {
            (1..=TABLE_BITS).contains(&node.size) && node.position + node.size <= self.bits
        } else {
            (1..=CHUNK).contains(&node.size) && node.size * node.width <= CHUNK_BYTES && node.position < self.bits
        };
        require(shape, self.what, at, "is a table or chunk of a possible size")?;
        let end = u64::from(at) + u64::from(node.words());
        require(end * 4 + u64::from(PADDING) * 4 <= self.map.len() as u64, self.what, at, "the node is there")?;
        Ok(node)
    }

    /// A value is a class, or the next node, of a smaller block.
    fn value(&mut self, value: u32, at: u32, parent: Option<u32>) -> Result<(), InvalidImage> {
        if value & NODE == 0 {
            return Ok(());
        }
        let target = value & !NODE;
        require(target == self.free, self.what, at, "nodes follow each other")?;
        let node = self.node(target)?;
        require(parent.is_none_or(|parent| node.position > parent), self.what, target, "covers less than its parent")?;
        self.free += node.words();
        Ok(())
    }

    fn contents(&mut self, at: u32, node: Node) -> Result<(), InvalidImage> {
        let body = self.map.get(at as usize * 4 + 4..).unwrap_or(&[]);
        if node.width == 0 {
            for index in 0..1u32 << node.size {
                self.value(u32_at(body, index as usize * 4), at, Some(node.position))?;
            }
            return Ok(());
        }
        let starts = body.get(..(node.size * node.width) as usize).unwrap_or(&[]);
        let ascends = match node.width {
            2 => starts.as_chunks().0.is_sorted_by(|a, b| u16::from_le_bytes(*a) < u16::from_le_bytes(*b)),
            4 => starts.as_chunks().0.is_sorted_by(|a, b| u32::from_le_bytes(*a) < u32::from_le_bytes(*b)),
            _ => starts.as_chunks().0.is_sorted_by(|a, b| u64::from_le_bytes(*a) < u64::from_le_bytes(*b)),
        };
        require(ascends, self.what, at, "starts ascend")?;
        if node.form == Form::Long {
            for index in 0..=node.size {
                let value = u32_at(body, (node.values() + index * 4) as usize);
                self.value(value, at, Some(node.position))?;
            }
        }
        Ok(())
    }
}
