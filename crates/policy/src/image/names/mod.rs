//! Maps a name to the class of the name lists it is in.
//!
//! Only hashes of names are stored ([`hash`] defines them and proves their strength). A cheap one chooses a word of a
//! filter, which rejects most names that are in no list. What passes leads to a place, by a perfect hash: the compiler
//! found a number for each group of names that gives every name of every group its own place. The place's tag rejects
//! the rest.
//!
//! ```text
//! filter   u64 for each four names: every name sets three bits of one
//! pilots   a byte for each group of two or three names: the number by which they found their places
//! tags     64 bytes for each five places: five tags of 12 bytes, then 30 bits of record numbers
//! places   u32 for each place, where there are more records than those bits can number
//! records  u32 each: the class of a name itself, and of those below it
//! ```
//!
//! A name in no list costs hashing its letters and one word of the filter for each suffix, and none of these loads waits
//! for another; a listed name also costs the line of its tag. The suffixes of most names are looked up without a branch
//! between them; only whether one of them is listed cannot be predicted.

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
const AT_ONCE: usize = 2;

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

/// The index of a hash's word in a filter of so many words.
#[inline]
pub(crate) fn word(hash: u64, words: u32) -> u32 {
    (((hash >> 32) * u64::from(words)) >> 32) as u32
}

/// The bits of that word that a listed name sets: at most three.
#[inline]
pub(crate) fn bits(hash: u64) -> u64 {
    let bit = |at: u32| 1 << (hash >> at & 63);
    bit(0) | bit(6) | bit(12)
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

/// What tells whether a name may be listed, and in which place.
#[derive(Clone, Copy)]
struct Guide<'i> {
    filter: &'i [[u8; 8]],
    places: u32,
    pilots: &'i [u8],
}

impl Guide<'_> {
    /// Whether a name with this hash may be listed.
    #[inline]
    fn passes(&self, hash: u64) -> bool {
        let word =
            self.filter.get(word(hash, self.filter.len() as u32) as usize).map_or(0, |word| u64::from_le_bytes(*word));
        bits(hash) & !word == 0
    }

    /// The place of a hash.
    #[inline]
    fn place(&self, hash: u64) -> Option<u32> {
        let pilot = self.pilots.get(group(hash, self.pilots.len() as u32) as usize)?;
        Some(place(hash, *pilot, self.places))
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
    fn guide(self) -> Guide<'i> {
        let sections = &self.header.sections;
        Guide {
            filter: sections.name_filter.of(self.image).as_chunks().0,
            places: sections.name_tags.count::<LINE>().wrapping_mul(TAGS as u32),
            pilots: sections.name_pilots.of(self.image),
        }
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
        return dotted(tables, name);
    }
    undotted(tables, name)
}

/// The class of a name that was written with a final dot.
#[cold]
fn dotted(tables: Tables<'_>, name: &[u8]) -> u32 {
    undotted(tables, name)
}

/// The class of a name without a final dot.
#[inline]
fn undotted(tables: Tables<'_>, name: &[u8]) -> u32 {
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
fn longer(tables: Tables<'_>, name: &[u8]) -> u32 {
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
    /// Of the last `length` letters of `text`, which has at least eight.
    #[inline]
    fn new(points: &Points, text: &[u8], length: usize) -> Self {
        let words = Words::new(points, text, length);
        let whole = Self::whole(length);
        // Bytes before the name do not count.
        let starts = (words.dots() | whole) & whole.wrapping_neg();
        Self { words, starts }
    }

    /// Whether it has letters that no listed name has.
    #[inline]
    fn odd(&self, length: usize) -> bool {
        self.words.odd() & (Self::whole(length).wrapping_neg() << 1) != 0
    }

    /// The bit of the name itself.
    #[inline]
    fn whole(length: usize) -> u64 {
        1 << 63 >> (length & 63)
    }

    /// Takes the longest suffix that is left. The last one stays.
    #[inline]
    fn next(&mut self) -> usize {
        let bit = self.starts.trailing_zeros();
        if self.more() {
            self.starts &= self.starts - 1;
        }
        (63 ^ bit) as usize & 63
    }

    /// Whether there is another one than the last.
    #[inline]
    fn more(&self) -> bool {
        self.starts & self.starts.wrapping_sub(1) != 0
    }
}

/// The last `length` letters of `text`, which has at least eight: all of it, or less if `length` is less than eight.
#[inline]
fn short<const PAIRS: usize>(tables: Tables<'_>, text: &[u8], length: usize) -> u32 {
    let (points, guide) = (tables.points(), tables.guide());
    let mut name = Short::<PAIRS>::new(points, text, length);
    let mut found = 0;
    let mut look = |name: &mut Short<PAIRS>| {
        let letters = name.next();
        let passes = guide.passes(name.words.hash(points, letters));
        found = if passes & (found == 0) { letters } else { found };
    };
    for _ in 0..AT_ONCE {
        look(&mut name);
    }
    while name.more() {
        look(&mut name);
    }
    // Few policies list names of one label.
    if tables.header.name_depths & 2 != 0 {
        look(&mut name);
    }
    if found == 0 || name.odd(length) {
        return 0;
    }
    let class = guide
        .place(name.words.hash(points, found))
        .and_then(|place| tables.class(place, name.words.tag(points, found), found == length));
    class.unwrap_or_else(|| below(tables, text.get(text.len() - found..).unwrap_or(&[])))
}

/// The same for a name of any length.
#[cold]
fn long(tables: Tables<'_>, name: &[u8]) -> u32 {
    if name.len() > LONGEST || name.iter().any(|letter| !(b'-'..0x7f).contains(letter)) {
        return 0;
    }
    search(tables, name, true)
}

/// Names below a name that passed by chance.
#[cold]
fn below(tables: Tables<'_>, name: &[u8]) -> u32 {
    search(tables, name, false)
}

/// The class of the longest listed suffix, one after the other; including the name itself if it is `asked` for.
fn search(tables: Tables<'_>, name: &[u8], asked: bool) -> u32 {
    let few = padded(name);
    let text: &[u8] = if name.len() < 8 { &few } else { name };
    let words = Words::<MOST>::new(tables.points(), text, name.len());
    let guide = tables.guide();
    let dots = name.iter().enumerate().filter(|(_, letter)| **letter == b'.').map(|(at, _)| at + 1);
    for start in asked.then_some(0).into_iter().chain(dots) {
        let length = name.len() - start;
        // There is no name after a final dot; empty places hold the hash of an empty name.
        if length == 0 {
            continue;
        }
        let hash = words.hash(tables.points(), length);
        if guide.passes(hash)
            && let Some(place) = guide.place(hash)
            && let Some(class) = tables.class(place, words.tag(tables.points(), length), asked && start == 0)
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
        let mut short = Short::<FEW>::new(points, text, name.len());
        let mut all = [0; 32];
        let labels = short.starts.count_ones() as usize;
        for hash in all[..labels].iter_mut().rev() {
            let letters = short.next();
            *hash = short.words.hash(points, letters);
        }
        all[..labels].iter().for_each(|hash| visit(*hash));
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
        Words::<FEW>::new(points, text, name.len()).tag(points, name.len())
    } else {
        Words::<MOST>::new(points, text, name.len()).tag(points, name.len())
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
        // One group, and many more places than names: they find theirs at once.
        let (pilot, size) = (0..=u8::MAX)
            .map(|pilot| (pilot, 800 * TAGS as u32))
            .find(|&(pilot, size)| {
                let places: std::collections::BTreeSet<_> =
                    hashes.iter().map(|hash| place(*hash, pilot, size)).collect();
                places.len() == hashes.len()
            })
            .unwrap();
        let lines = size as usize / TAGS;
        let mut image = vec![0; crate::image::layout::HEADER_LENGTH];
        let mut section = |bytes: Vec<u8>| {
            let section = Section { offset: image.len() as u32, length: bytes.len() as u32 };
            image.extend(bytes);
            section
        };
        let (mut filter, mut tags) = (0, vec![0; lines * LINE]);
        let (mut places, mut records) = (vec![0; size as usize * 4], Vec::new());
        for ((name, hash), number) in listed.iter().zip(&hashes).zip(0u32..) {
            let at = place(*hash, pilot, size) as usize;
            filter |= bits(*hash);
            let (wide, narrow) = tag(&points, name.as_bytes());
            let start = at / TAGS * LINE + at % TAGS * TAG;
            tags[start..][..8].copy_from_slice(&wide.to_le_bytes());
            tags[start + 8..][..4].copy_from_slice(&narrow.to_le_bytes());
            places[at * 4..][..4].copy_from_slice(&number.to_le_bytes());
            records.extend([2 * number + 1, 2 * number + 2].iter().flat_map(|class| class.to_le_bytes()));
        }
        let depths = listed.iter().fold(0, |depths, name| depths | depth_bit(name.split('.').count() as u32));
        let sections = crate::image::layout::Sections {
            name_filter: section(u64::to_le_bytes(filter).to_vec()),
            name_pilots: section(vec![pilot]),
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
        let listed = ["example", "a.example", "c.b.a.example", "t.co", &deep, &long, "10.u-n_der.test"];
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
            // Letters that are folded to listed ones.
            (b"a.exam\x10ple".into(), 0),
            (b"0.u-n_der.test".into(), 0),
            (b"x.\x10.u-n_der.test".into(), 0),
            (b"x.\x10\x0eu\x0dn\x7fder.test".into(), 0),
            (b"x.10.U-N_DER.test".into(), 14),
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
