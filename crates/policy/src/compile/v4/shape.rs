//! Chooses the best shape of a map: the size of its root table, and the width and number of its lanes.

use super::{Lane, Segments, lane};
use crate::image::v4::{MOST_BITS, MOST_LANES, MOST_TREE_LANES, Shape};

/// Counts of lanes a shape can compare at once.
const CAPS: [u32; 4] = [8, 16, MOST_LANES, MOST_TREE_LANES];

/// Statistics on the blocks of a root table of one size.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// The block being counted began before this lane.
    began: u32,
    /// Blocks with lanes.
    used: u32,
    /// Lanes in blocks that have more than each of [`CAPS`].
    over: [u32; CAPS.len()],
}

impl Tally {
    fn end_block(&mut self, lane: u32) {
        let lanes = lane - self.began;
        self.began = lane;
        self.used += 1;
        for (over, cap) in self.over.iter_mut().zip(CAPS) {
            *over += if lanes > cap { lanes } else { 0 };
        }
    }
}

/// The shape for these segments.
pub(super) fn choose<S: Segments>(segments: &S) -> Shape {
    let other = segments.other();
    let (mut grain, mut most) = (16, 0);
    for index in 1..segments.len() {
        grain = grain.min(segments.start(index).trailing_zeros());
    }
    if other.is_none() {
        most = (0..segments.len()).map(|index| segments.class(index)).max().unwrap_or(0);
    }
    let value = match (other, most) {
        (Some(_), _) => 0,
        (None, 0..=0xff) => 1,
        (None, 0x100..=0xffff) => 2,
        _ => 4,
    };
    let all = |singles: bool| {
        let mut next = 1;
        std::iter::from_fn(move || {
            let at = next;
            let lane = (at < segments.len())
                .then(|| if singles { lane(segments, at, segments.len(), grain) } else { Lane::Toggle })?;
            next += if lane == Lane::Single { 2 } else { 1 };
            Some((segments.start(at), lane))
        })
    };
    // Singles cost every lookup a little: they must be worth it.
    let (count, found) = all(true)
        .fold((0u32, 0u32), |(count, singles), (_, lane)| (count + 1, singles + u32::from(lane == Lane::Single)));
    let singles = found > count / 8;

    let tally = |singles: bool| {
        let mut tallies = [Tally::default(); MOST_BITS as usize + 1];
        let (mut count, mut last) = (0u32, None);
        for (start, _) in all(singles) {
            // Tables of more bits than the two have in common put them in different blocks.
            let shared = last.map_or(u32::MAX, |last: u32| (last ^ start).leading_zeros());
            for tally in tallies.iter_mut().skip((shared as usize).saturating_add(1)) {
                tally.end_block(count);
            }
            last = Some(start);
            count += 1;
        }
        tallies.iter_mut().for_each(|tally| tally.end_block(count));
        (tallies, count)
    };
    let lanes = tally(singles);
    let starts = if singles { tally(false) } else { lanes };

    let base = Shape { grain, unit: 2, singles, value, other: other.unwrap_or(0), ..Shape::default() };
    let mut best: Option<(u64, Shape)> = None;
    for bits in 0..=MOST_BITS {
        // However fast it would be, a root table must be in proportion to what it leads to.
        if 1 << bits > 512 + lanes.1.saturating_mul(4) {
            break;
        }
        let root = Shape { shift: 32 - bits, ..base };
        let wide = bits + grain + 16 < 32;
        let tree = Shape { wide: true, four: true, singles: false, tree: true, value: value.max(1), ..root };
        let shapes = [
            // Maps with values compare four vectors.
            (value == 0).then_some(Shape { wide, ..root }),
            Some(Shape { wide, four: true, ..root }),
            Some(tree).filter(|_| value != 0 || base.other <= 0xff),
        ];
        for shape in shapes.into_iter().flatten() {
            let (tallies, count) = if shape.tree { &starts } else { &lanes };
            let cost = tallies.get(bits as usize).map_or(u64::MAX, |tally| cost(&shape, tally, *count));
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, shape));
            }
        }
    }
    best.map_or(base, |(_, shape)| shape)
}

/// The approximate cost of a lookup in hundredths of a nanosecond, and the price of the memory it uses.
fn cost(shape: &Shape, tally: &Tally, lanes: u32) -> u64 {
    // As measured, with everything in the nearest cache.
    let compare = match (shape.wide, shape.four) {
        (false, false) => 300,
        (false, true) => 390,
        (true, false) => 320,
        (true, true) => 360,
    };
    let compare = if shape.tree { compare + 400 } else { compare };
    // Each question is asked of each vector.
    let compare = match (shape.singles, shape.four) {
        (false, _) => compare,
        (true, false) => compare + 180,
        (true, true) => compare + 270,
    };
    let over = CAPS.iter().zip(tally.over).find(|(cap, _)| **cap == shape.most_lanes()).map_or(0, |(_, over)| over);
    // A node costs another table and, because it is unpredictable, a mispredicted branch. It is as likely to be reached
    // as there are lanes below it.
    let nodes = 1500 * u64::from(over) / u64::from(lanes.max(1));
    let bytes = (4u64 << (32 - shape.shift))
        + u64::from(lanes) * u64::from(shape.width() + shape.value)
        + u64::from(tally.used) * (2 + u64::from(shape.value))
        + u64::from(over)
        + 512;
    // Memory competes with other uses, and beyond a mebibyte or two a lookup has to wait for it.
    let memory = 100 * log2(bytes) + 400 * log2(bytes).saturating_sub(log2(1 << 20));
    compare + nodes + memory / 256
}

/// The binary logarithm in units of 1/256, linear between the powers.
fn log2(number: u64) -> u64 {
    let whole = number.ilog2();
    u64::from(whole) * 256 + ((number << 8 >> whole) & 0xff)
}
