//! Classes of ports: what all ports have in common that lie in the same conditions.

use super::classes::{self, Numbering};
use crate::model::NumberSet;

/// Conditions whose classes would take more than this many numbers to write down are not told apart by classes:
/// signatures tell them apart anyway.
const MOST: usize = 1 << 20;

/// The first port of each class's ranges, ascending, with its class.
pub(super) type Classes = Vec<(u32, u32)>;

/// The classes of the ports that `sets` tell apart.
pub(super) fn classes(sets: &[NumberSet]) -> (Classes, Numbering) {
    let mut classes = classes::Classes::default();
    let mut edges: Vec<(u32, u32)> = Vec::new();
    for (number, set) in sets.iter().enumerate() {
        for &(low, high) in set.ranges() {
            edges.extend([(low as u32, number as u32), (high as u32 + 1, number as u32)]);
        }
    }
    edges.sort_unstable();
    let mut inside: Vec<u32> = Vec::new();
    let mut starts: Classes = vec![(0, 0)];
    let mut written = 0;
    for group in edges.chunk_by(|a, b| a.0 == b.0) {
        for &(_, set) in group {
            match inside.binary_search(&set) {
                Ok(place) => drop(inside.remove(place)),
                Err(place) => inside.insert(place, set),
            }
        }
        written += inside.len();
        if written > MOST {
            return (Vec::new(), classes::Classes::default().finish());
        }
        if group[0].0 == 0 {
            starts.clear();
        }
        starts.push((group[0].0, classes.number(&inside)));
    }
    let numbering = classes.finish();
    if numbering.combinations.len() > 1 << 16 {
        return (Vec::new(), classes::Classes::default().finish());
    }
    starts.iter_mut().for_each(|start| start.1 = numbering.classes[start.1 as usize]);
    (starts, numbering)
}

/// The pages the matcher finds a port's class in.
pub(super) fn pages(starts: &Classes) -> Vec<u8> {
    let mut classes = vec![0u16; 1 << 16];
    for (index, &(first, class)) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(1 << 16, |next| next.0 as usize);
        // There are no more classes than `u16` has numbers.
        classes[(first as usize).min(1 << 16)..end.min(1 << 16)].fill(class as u16);
    }
    let mut pages: Vec<&[u16]> = Vec::new();
    let mut numbers: Vec<u16> = Vec::new();
    for page in classes.chunks_exact(256) {
        let known = pages.iter().position(|known| *known == page).unwrap_or_else(|| {
            pages.push(page);
            pages.len() - 1
        });
        numbers.push(known as u16);
    }
    numbers.iter().chain(pages.into_iter().flatten()).flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::table::u16_at;

    #[test]
    fn every_port_has_the_class_of_its_sets() {
        let sets = [
            vec![(80, 80), (443, 443)],
            vec![(0, 1023)],
            vec![(1024, 65535)],
            vec![(0, 0), (65535, 65535)],
            vec![(200, 300), (255, 256)],
        ]
        .map(NumberSet::from_ranges);
        let (starts, numbering) = classes(&sets);
        let pages = pages(&starts);
        for port in 0..=u16::MAX {
            let page = usize::from(u16_at(&pages, usize::from(port >> 8) * 2));
            let class = u16_at(&pages, 512 + page * 512 + usize::from(port & 255) * 2);
            let expected: Vec<u32> =
                (0..sets.len() as u32).filter(|set| sets[*set as usize].contains(port.into())).collect();
            assert_eq!(*numbering.combinations[usize::from(class)], expected, "port {port}");
        }
    }
}
