//! Validates an IPv4 map: its tables follow each other, each has one node, and every chunk exists.

use super::{
    super::v4::{
        BITS, GROUP, HEADER_WORDS, LANES, MOST_BITS, MOST_LANES, MOST_TREE_LANES, NODE, PLACE, RANGES, Shape, TABLE,
        TOGGLES, TREE_LANES, chunks,
    },
    InvalidImage, require,
};

pub(super) fn validate(map: &[u8], shape: &Shape, what: &'static str) -> Result<(), InvalidImage> {
    if map.is_empty() {
        return Ok(());
    }
    let sound = (32 - MOST_BITS..=32).contains(&shape.shift)
        && shape.grain <= 16
        && (shape.wide || shape.shift <= 16 + shape.grain)
        && (2..=12).contains(&shape.unit)
        && match shape.value {
            0 => true,
            1 | 2 | 4 => shape.four,
            _ => false,
        }
        && (!shape.tree || shape.wide && !shape.singles && shape.value != 0);
    require(sound, what, 0, "has a valid shape")?;
    let chunks = map.get(chunks(shape.tables) as usize..).unwrap_or(&[]);
    let mut free = 1u64 << (32 - shape.shift);
    require(free <= u64::from(shape.tables) && !chunks.is_empty(), what, 0, "tables and chunks exist")?;
    if shape.ranges {
        let sound = shape.shift == 32 && shape.tables == 1 && shape.only == 0 && shape.value == 0 && !shape.tree;
        return require(sound && chunks.len() >= RANGES * 8, what, 0, "ranges are one chunk");
    }
    let words = map.get(HEADER_WORDS as usize * 4..).unwrap_or(&[]).as_chunks::<4>().0;
    for (word, at) in words.iter().map(|word| u32::from_le_bytes(*word)).zip(0..shape.tables) {
        if word & NODE == 0 {
            if shape.tree {
                tree(chunks, shape, word, what, at)?
            } else {
                chunk(chunks, shape, word, what, at)?
            }
            continue;
        }
        let bits = word >> BITS & 0xf;
        require(u64::from(word >> TABLE) == free, what, at, "tables follow each other")?;
        free += 1 << bits;
        require(bits != 0 && free <= u64::from(shape.tables), what, at, "the table exists")?;
    }
    require(free == u64::from(shape.tables), what, shape.tables, "belongs to a table")
}

/// Everything read of a chunk exists, and its starts ascend.
#[inline]
fn chunk(all: &[u8], shape: &Shape, word: u32, what: &'static str, at: u32) -> Result<(), InvalidImage> {
    let (toggles, lanes) = (word >> TOGGLES & MOST_LANES, word >> LANES & MOST_LANES);
    require(toggles <= lanes && lanes <= shape.most_lanes(), what, at, "has as many lanes as the map's shape allows")?;
    require(shape.singles || toggles == lanes, what, at, "has no singles where there are none")?;
    let place = u64::from(word >> PLACE) << shape.unit;
    let values = if shape.value == 0 { 0 } else { (lanes + 1) * shape.value };
    let read = shape.compared().max(lanes * shape.width() + values);
    require(place + u64::from(read) <= all.len() as u64, what, at, "the chunk exists")?;
    let starts = all.get(place as usize..).and_then(|starts| starts.get(..(toggles * shape.width()) as usize));
    let starts = starts.unwrap_or(&[]);
    let ascends = if shape.wide {
        starts.as_chunks().0.is_sorted_by(|a, b| i32::from_le_bytes(*a) < i32::from_le_bytes(*b))
    } else {
        starts.as_chunks().0.is_sorted_by(|a, b| i16::from_le_bytes(*a) < i16::from_le_bytes(*b))
    };
    require(ascends, what, at, "starts ascend")
}

/// Everything read of a tree exists, its starts ascend, and the last of every 16 are stored before them.
#[inline]
fn tree(all: &[u8], shape: &Shape, word: u32, what: &'static str, at: u32) -> Result<(), InvalidImage> {
    let lanes = word >> TREE_LANES & 0x1ff;
    require(lanes <= MOST_TREE_LANES, what, at, "has as many lanes as a tree can have")?;
    let groups = lanes / GROUP;
    let place = u64::from(word >> PLACE) << shape.unit;
    let read = groups * 4 + (groups * 64 + 64).max(lanes * 4 + (lanes + 1) * shape.value);
    require(place + u64::from(read) <= all.len() as u64, what, at, "the chunk exists")?;
    let words = all.get(place as usize..).unwrap_or(&[]).as_chunks::<4>().0;
    let (lasts, rest) = words.split_at_checked(groups as usize).unwrap_or_default();
    let starts = rest.get(..lanes as usize).unwrap_or(&[]);
    let ascends = starts.is_sorted_by(|a, b| i32::from_le_bytes(*a) < i32::from_le_bytes(*b));
    let of_groups = starts.chunks_exact(GROUP as usize).map(|group| group.last());
    require(ascends && of_groups.eq(lasts.iter().map(Some)), what, at, "starts ascend, groups end with theirs")
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use crate::{CompileOptions, Image, compile, image::checksum, image::layout::Header, parse};
    use std::{collections::BTreeMap, fmt::Write, net::IpAddr, path::Path};

    /// Images with remote IPv4 maps of all kinds: of hosts, of networks, of several classes, of a few ranges, of trees.
    fn images() -> Vec<Vec<u8>> {
        let list = |step: u32, length: u32| {
            (0..200u32).fold(String::new(), |mut text, index| {
                let value = index.wrapping_mul(step) >> (32 - length) << (32 - length);
                writeln!(text, "{}/{length}", std::net::Ipv4Addr::from_bits(value)).unwrap();
                text
            })
        };
        let rule = |name| format!("[[rule]]\naction = \"block\"\nremote = \"@{name}\"\n");
        let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [7; 16], at: None };
        let few = "[[rule]]\naction = \"block\"\nremote = [\"10.0.0.1-10.0.0.62\", \"192.0.2.7\"]\n".to_owned();
        // Ranges that are not prefixes: a condition of a few prefixes is not a set.
        let crowd = (1..26u32).map(|length| {
            let (low, free) = (0x0a01_0203 >> (32 - length) << (32 - length), u32::MAX >> length);
            let [first, last] = [low + 1, low + free - 1].map(std::net::Ipv4Addr::from_bits);
            format!("[[rule]]\naction = \"block\"\nremote = \"{first}-{last}\"\n")
        });
        let texts = [few, crowd.collect()]
            .map(|text| compile(&parse(Path::new("test.toml"), &text, &BTreeMap::new()).unwrap(), &options).unwrap());
        let lists = [
            vec![(0x0098_9681, 32)],
            vec![(0x0731_0000, 20)],
            vec![(0x0010_0401, 32), (0x0731_0000, 9), (0x0098_9681, 28)],
        ];
        let lists = lists.into_iter().map(|lists| {
            let mut files = BTreeMap::new();
            let mut text = String::new();
            for (number, (step, length)) in lists.iter().enumerate() {
                let name = format!("list{number}");
                writeln!(text, "[list.{name}]\nfile = \"{name}\"\nformat = \"addresses\"\n").unwrap();
                files.insert(name.into(), list(*step, *length).into_bytes());
            }
            (0..lists.len()).for_each(|number| text.push_str(&rule(format!("list{number}"))));
            compile(&parse(Path::new("test.toml"), &text, &files).unwrap(), &options).unwrap()
        });
        lists.chain(texts).collect()
    }

    /// A map of any bytes is refused, or lookups in it work.
    #[test]
    fn any_bytes_are_refused_or_harmless() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let (mut refused, mut accepted) = (0, 0);
        let images = images();
        let shapes = images.iter().map(|image| Header::read(image).shapes4[0]);
        assert_eq!(
            shapes.map(|shape| u32::from(shape.ranges) + 2 * u32::from(shape.tree)).collect::<Vec<_>>(),
            [0, 0, 0, 1, 2]
        );
        for image in images {
            let section = Header::read(&image).sections.remote4;
            for _ in 0..if cfg!(miri) { 20 } else { 3000 } {
                let mut bytes = image.clone();
                for _ in 0..=random() % 3 {
                    // The shape, the tables, or anywhere.
                    let within = [12, 300, section.length as u64][random() as usize % 3].min(section.length.into());
                    let at = section.offset as usize + (random() >> 8) as usize % within as usize;
                    bytes[at] = if random() & 1 == 0 { random() as u8 } else { bytes[at] ^ 1 << (random() & 7) };
                }
                let sum = checksum(&bytes);
                bytes[16..32].copy_from_slice(&sum);
                match Image::validate(&bytes[..]) {
                    Err(_) => refused += 1,
                    Ok(image) => {
                        accepted += 1;
                        for address in [0, 1, 0x0a00_0000, u32::MAX].into_iter().chain((0..40).map(|_| random() as u32))
                        {
                            let _ = image.remote_class(IpAddr::V4(address.into()));
                        }
                    }
                }
            }
        }
        assert!(cfg!(miri) || (refused > 100 && accepted > 100), "{refused} refused, {accepted} accepted");
    }
}
