//! Maps a name to the class of the name lists it is in.
//!
//! Only hashes of names are stored ([`hash`] defines them and proves their strength). A cheap one leads to a place, by
//! a perfect hash: the compiler found a number for each group of names that gives every name of every group its own
//! place. One byte rejects most names that are in no list, and the place's tag rejects all.
//!
//! ```text
//! pilots   a byte for each group of two or three names: the number by which they found their places
//! marks    a byte for each place: the cheap hash's lowest
//! tags     64 bytes for each five places: five tags of 12 bytes, then 30 bits of record numbers
//! places   u32 for each place, where there are more records than those bits can number
//! records  u32 each: the class of a name itself, and of those below it
//! ```
//!
//! Pilots and marks of a million names fit into a processor's second cache, so a name in no list costs no more than
//! hashing its letters, and a listed one also the line of its tag. The suffixes of most names are looked up without a
//! branch between them; only which of them is listed, if any, cannot be predicted.

pub(crate) mod hash;

use self::hash::{FEW, LONGEST, MOST, Points, SOME, Words};
use super::{
    layout::Header,
    table::{Section, record, u32_at, u64_at},
};

/// The bytes of five tags and their record numbers: one cache line.
pub(crate) const LINE: usize = 64;
/// Tags of a line.
pub(crate) const TAGS: usize = 5;
/// A tag's bytes.
pub(crate) const TAG: usize = 12;
/// How many records a line's inline numbers can name.
pub(crate) const INLINE_RECORDS: u32 = 64;
/// How many suffixes are looked up without a branch between them.
const AT_ONCE: usize = 3;

/// The group of a hash, among `groups`.
#[inline]
pub(crate) fn group(hash: u64, groups: u32) -> u32 {
    ((u128::from(hash) * u128::from(groups)) >> 64) as u32
}

/// The place of a hash whose group has this pilot, among `places`.
#[inline]
pub(crate) fn place(hash: u64, pilot: u8, places: u32) -> u32 {
    // Odd numbers that fit into an instruction.
    let spread = hash.wrapping_mul(0x3c6e_f372 * u64::from(pilot) + 0x5bd1_e995);
    ((u128::from(spread) * u128::from(places)) >> 64) as u32
}

/// The mark of a hash.
#[inline]
pub(crate) fn mark(hash: u64) -> u8 {
    hash as u8
}

/// The bit for names of this many labels.
#[cfg(feature = "std")]
pub(crate) fn depth_bit(labels: u32) -> u32 {
    1 << labels.min(31)
}

/// An image and its header.
#[derive(Clone, Copy)]
struct Tables<'i> {
    image: &'i [u8],
    header: &'i Header,
}

/// The function to places: how many groups and places there are, and the image from their pilots and marks on.
#[derive(Clone, Copy)]
struct Guide<'i> {
    groups: u32,
    places: u32,
    pilots: &'i [u8],
    marks: &'i [u8],
}

impl Guide<'_> {
    /// The place of a hash, if a name with that hash may be there.
    #[inline]
    fn find(&self, hash: u64) -> Option<u32> {
        let pilot = self.pilots.get(group(hash, self.groups) as usize)?;
        let place = place(hash, *pilot, self.places);
        (*self.marks.get(place as usize)? == mark(hash)).then_some(place)
    }
}

impl<'i> Tables<'i> {
    #[inline]
    fn points(self) -> &'i Points {
        &self.header.points
    }

    /// The image from a section on: what is looked up in it is known to be inside.
    #[inline]
    fn from(self, section: Section) -> Option<&'i [u8]> {
        self.image.get(section.offset as usize..)
    }

    #[inline]
    fn guide(self) -> Option<Guide<'i>> {
        let sections = &self.header.sections;
        Some(Guide {
            groups: sections.name_pilots.length,
            places: sections.name_marks.length,
            pilots: self.from(sections.name_pilots)?,
            marks: self.from(sections.name_marks)?,
        })
    }

    /// The class of the name at a place, if its tag is this one.
    #[inline]
    fn class(self, place: u32, (wide, narrow): (u64, u32), whole: bool) -> Option<u32> {
        let (sections, at) = (&self.header.sections, place as usize % TAGS);
        let bytes: &[u8; LINE] = record(self.from(sections.name_tags)?, place / TAGS as u32)?;
        if u64_at(bytes, at * TAG) != wide || u32_at(bytes, at * TAG + 8) != narrow {
            return None;
        }
        // Branches, so that the result need not wait for the line, which is often not cached, nor for the name's
        // length: most policies take them always or never.
        if let Some(class) = self.header.only_name {
            return Some(class);
        }
        let [exact, below] = if let Some(classes) = self.header.only_names {
            classes
        } else {
            let number = if sections.name_places.length == 0 {
                u32_at(bytes, TAGS * TAG) >> (6 * at) & (INLINE_RECORDS - 1)
            } else {
                u32_at(self.from(sections.name_places)?, place as usize * 4)
            };
            let record: &[u8; 8] = sections.name_records.record(self.image, number)?;
            [u32_at(record, 0), u32_at(record, 4)]
        };
        Some(if whole { exact } else { below })
    }
}

/// The class of a name: of the longest listed suffix, its own class or that of names below it.
#[inline]
pub(crate) fn class(image: &[u8], header: &Header, name: &[u8]) -> u32 {
    if header.sections.name_records.length == 0 {
        return 0;
    }
    let tables = Tables { image, header };
    // A branch that is rarely taken: otherwise a name's length would wait for its letters.
    if let [name @ .., b'.'] = name {
        return unusual(tables, name);
    }
    lower_case(tables, name).unwrap_or_else(|| unusual(tables, name))
}

/// The class of a name that is not in the form of listed names: with capitals, with a final dot, or not a name.
#[cold]
fn unusual(tables: Tables<'_>, name: &[u8]) -> u32 {
    let mut lower = [0; LONGEST];
    lower.iter_mut().zip(name).for_each(|(to, from)| *to = from.to_ascii_lowercase());
    lower_case(tables, lower.get(..name.len()).unwrap_or(&[])).unwrap_or(0)
}

/// The class of a name that has only letters that listed names have; None for others.
#[inline]
fn lower_case(tables: Tables<'_>, name: &[u8]) -> Option<u32> {
    if name.len() > Words::<FEW>::LETTERS {
        return longer(tables, name);
    }
    let few;
    let text = if name.len() < 8 {
        few = padded(name);
        &few
    } else {
        name
    };
    short::<FEW>(tables, text, name.len())
}

/// The same for a name of more than a few words.
fn longer(tables: Tables<'_>, name: &[u8]) -> Option<u32> {
    if name.len() <= Words::<SOME>::LETTERS { short::<SOME>(tables, name, name.len()) } else { long(tables, name) }
}

/// Fewer than eight letters, with zeros before them.
#[cold]
fn padded(name: &[u8]) -> [u8; 8] {
    let mut text = [0; 8];
    text.iter_mut().rev().zip(name.iter().rev()).for_each(|(to, from)| *to = *from);
    text
}

/// A name of few words, and its suffixes: bit 63 - N for that of N letters, where a dot precedes it.
struct Short<const PAIRS: usize> {
    words: Words<PAIRS>,
    starts: u64,
}

impl<const PAIRS: usize> Short<PAIRS> {
    /// Of the last `length` letters of `text`, which has at least eight. None if listed names have no such letters.
    #[inline]
    fn new(points: &Points, text: &[u8], length: usize) -> Option<Self> {
        let words = Words::new(points, text, length);
        let [dots, others] = words.told();
        let whole = Self::whole(length);
        // Bytes before the name do not count.
        if others & (whole.wrapping_neg() << 1) != 0 {
            return None;
        }
        Some(Self { words, starts: (dots | whole) & whole.wrapping_neg() })
    }

    /// The bit of the name itself.
    #[inline]
    fn whole(length: usize) -> u64 {
        1 << 63 >> (length & 63)
    }

    /// Takes the shortest suffix; the name itself if none is left.
    #[inline]
    fn next(&mut self, whole: u64) -> usize {
        let bit = 63 ^ (self.starts | whole).leading_zeros();
        self.starts &= !(1 << (bit & 63));
        (63 ^ bit) as usize
    }
}

/// The last `length` letters of `text`, which has at least eight: all of it, or less if `length` is less than eight.
#[inline]
fn short<const PAIRS: usize>(tables: Tables<'_>, text: &[u8], length: usize) -> Option<u32> {
    let (points, guide, whole) = (tables.points(), tables.guide()?, Short::<PAIRS>::whole(length));
    let mut name = Short::<PAIRS>::new(points, text, length)?;
    // Suffixes of fewer labels than any listed name has.
    for _ in 1..tables.header.name_depths.trailing_zeros() {
        name.next(whole);
    }
    let (mut found, mut at) = (0, 0);
    let mut look = |name: &mut Short<PAIRS>| {
        let letters = name.next(whole);
        if let Some(place) = guide.find(name.words.hash(points, letters)) {
            (found, at) = (letters, place);
        }
    };
    for _ in 0..AT_ONCE {
        look(&mut name);
    }
    while name.starts != 0 {
        look(&mut name);
    }
    if found == 0 {
        return Some(0);
    }
    let class = tables.class(at, name.words.values(points, found).tag(), found == length);
    class.or_else(|| below(tables, text.get(text.len() - found..)?))
}

/// The same for a name of any length.
#[cold]
fn long(tables: Tables<'_>, name: &[u8]) -> Option<u32> {
    if name.len() > LONGEST {
        return Some(0);
    }
    if name.iter().any(|letter| letter.is_ascii_uppercase() || !(b'-'..0x80).contains(letter)) {
        return None;
    }
    Some(search(tables, name, true))
}

/// Names below a name that passed by chance.
#[cold]
fn below(tables: Tables<'_>, name: &[u8]) -> Option<u32> {
    Some(search(tables, name, false))
}

/// The class of the longest listed suffix, one after the other; including the name itself if it is `asked` for.
fn search(tables: Tables<'_>, name: &[u8], asked: bool) -> u32 {
    let few = padded(name);
    let text: &[u8] = if name.len() < 8 { &few } else { name };
    let words = Words::<MOST>::new(tables.points(), text, name.len());
    let Some(guide) = tables.guide() else { return 0 };
    let dots = name.iter().enumerate().filter(|(_, letter)| **letter == b'.').map(|(at, _)| at + 1);
    for start in asked.then_some(0).into_iter().chain(dots) {
        let length = name.len() - start;
        // There is no name after a final dot; empty places hold the hash of an empty name.
        if length == 0 {
            continue;
        }
        if let Some(place) = guide.find(words.hash(tables.points(), length))
            && let Some(class) = tables.class(place, words.values(tables.points(), length).tag(), asked && start == 0)
        {
            return class;
        }
    }
    0
}

/// The cheap hash of each suffix of a listed name, the shortest first.
#[cfg(feature = "std")]
pub(crate) fn suffixes(points: &Points, name: &[u8], mut visit: impl FnMut(u64)) {
    let few = padded(name);
    let text: &[u8] = if name.len() < 8 { &few } else { name };
    if name.len() <= Words::<FEW>::LETTERS {
        let Some(mut short) = Short::<FEW>::new(points, text, name.len()) else { return };
        while short.starts != 0 {
            let letters = short.next(0);
            visit(short.words.hash(points, letters));
        }
    } else {
        let words = Words::<MOST>::new(points, text, name.len());
        let dots = name.iter().rev().enumerate().filter(|(_, letter)| **letter == b'.').map(|(letters, _)| letters);
        dots.chain([name.len()]).for_each(|letters| visit(words.hash(points, letters)));
    }
}

/// The tag of a listed name.
#[cfg(feature = "std")]
pub(crate) fn tag(points: &Points, name: &[u8]) -> (u64, u32) {
    let few = padded(name);
    let text: &[u8] = if name.len() < 8 { &few } else { name };
    if name.len() <= Words::<FEW>::LETTERS {
        Words::<FEW>::new(points, text, name.len()).values(points, name.len()).tag()
    } else {
        Words::<MOST>::new(points, text, name.len()).values(points, name.len()).tag()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(name: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        suffixes(&Points::new([0x1234_5678_9abc_def0, 42]), name, |hash| found.push(hash));
        found
    }

    #[test]
    fn every_suffix_has_the_hash_it_has_alone() {
        let long = "label7x.".repeat(25) + "a.b.c.example.com";
        let even = format!("{}.{}", "x".repeat(55), "y".repeat(56));
        let mut names: Vec<&str> =
            vec!["a", "com", "t.co", "example.com", "a.b.c.d.e.f", "sevenff.exactly", &long, &even];
        names.extend((1..80).map(|length| &long[long.len() - length..]).filter(|name| !name.starts_with('.')));
        for name in names {
            let labels: Vec<_> = name.split('.').collect();
            let alone: Vec<_> = (0..labels.len())
                .map(|index| *all(labels[labels.len() - 1 - index..].join(".").as_bytes()).last().unwrap())
                .collect();
            assert_eq!(all(name.as_bytes()), alone, "{name}");
        }
    }

    /// The class of `name` where the names given are listed, each with its own class for itself and for those below.
    fn classes(listed: &[&str], names: &[&[u8]]) -> Vec<u32> {
        let points = Points::new([7, 8]);
        let hashes: Vec<u64> = listed
            .iter()
            .map(|name| {
                let mut last = 0;
                suffixes(&points, name.as_bytes(), |hash| last = hash);
                last
            })
            .collect();
        // One group, and a place for each possible mark: few names find theirs at once.
        let (pilot, size) = (0..=u8::MAX)
            .map(|pilot| (pilot, 1 << 12))
            .find(|&(pilot, size)| {
                let places: std::collections::BTreeSet<_> =
                    hashes.iter().map(|hash| place(*hash, pilot, size)).collect();
                places.len() == hashes.len()
            })
            .unwrap();
        let lines = (size as usize).div_ceil(TAGS);
        let mut image = vec![0; crate::image::layout::HEADER_LENGTH];
        let mut section = |bytes: Vec<u8>| {
            let section = Section { offset: image.len() as u32, length: bytes.len() as u32 };
            image.extend(bytes);
            section
        };
        let (mut marks, mut tags) = (vec![0; size as usize], vec![0; lines * LINE]);
        let (mut places, mut records) = (vec![0; size as usize * 4], Vec::new());
        for ((name, hash), number) in listed.iter().zip(&hashes).zip(0u32..) {
            let at = place(*hash, pilot, size) as usize;
            marks[at] = mark(*hash);
            let (wide, narrow) = tag(&points, name.as_bytes());
            let start = at / TAGS * LINE + at % TAGS * TAG;
            tags[start..][..8].copy_from_slice(&wide.to_le_bytes());
            tags[start + 8..][..4].copy_from_slice(&narrow.to_le_bytes());
            places[at * 4..][..4].copy_from_slice(&number.to_le_bytes());
            records.extend([2 * number + 1, 2 * number + 2].iter().flat_map(|class| class.to_le_bytes()));
        }
        let depths = listed.iter().fold(0, |depths, name| depths | depth_bit(name.split('.').count() as u32));
        let sections = crate::image::layout::Sections {
            name_pilots: section(vec![pilot]),
            name_marks: section(marks),
            name_tags: section(tags),
            name_places: section(places),
            name_records: section(records),
            ..Default::default()
        };
        let mut header = Header::read(&image);
        (header.sections, header.points, header.name_depths) = (sections, points, depths);
        names.iter().map(|name| class(&image, &header, name)).collect()
    }

    #[test]
    fn the_longest_listed_suffix_counts() {
        let deep = format!("{}.deep.example", ["x"; 40].join("."));
        let long = format!("{}.long.example", "y".repeat(60));
        let listed = ["example", "a.example", "c.b.a.example", "t.co", &deep, &long];
        let below = |name: &str| format!("more.{name}").into_bytes();
        let dotted = |name: &str| format!("{name}.").into_bytes();
        let names: Vec<(Vec<u8>, u32)> = vec![
            (b"example".into(), 1),
            (b"EXAMPLE.".into(), 1),
            (b"xexample".into(), 0),
            (b"b.example".into(), 2),
            (b"a.example".into(), 3),
            (b"A.example.".into(), 3),
            (b"b.a.example".into(), 4),
            (b"d.c.b.a.EXAMPLE".into(), 6),
            (b"c.b.a.example".into(), 5),
            (b"T.co".into(), 7),
            (b"x.t.co".into(), 8),
            (b"co".into(), 0),
            (b"xt.co".into(), 0),
            (deep.clone().into_bytes(), 9),
            (below(&deep), 10),
            (dotted(&deep.to_uppercase()), 9),
            (deep.as_bytes()[2..].into(), 2),
            (long.clone().into_bytes(), 11),
            (below(&long), 12),
            (b"a.example..".into(), 0),
            (b"a.\0example".into(), 0),
            (b"\0example".into(), 0),
            (b"\xffa.example".into(), 0),
            (b"".into(), 0),
            (b".".into(), 0),
            (vec![b'.'; 255], 0),
            (vec![0; 300], 0),
            ([&[b'z'; 251][..], b".t.co"].concat(), 0),
            ([&[b'z'; 250][..], b".t.co"].concat(), 8),
        ];
        let (names, expected): (Vec<Vec<u8>>, Vec<u32>) = names.into_iter().unzip();
        let borrowed: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        for ((name, found), expected) in names.iter().zip(classes(&listed, &borrowed)).zip(expected) {
            assert_eq!(found, expected, "{}", name.escape_ascii());
        }
    }
}
