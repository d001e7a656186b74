//! What an image was made of that may have changed since, and where it came from: read by the command, never to decide.

#[cfg(feature = "std")]
use super::{
    Image, StableBytes,
    layout::{SECTION_ALIGNMENT, SECTION_TABLE, SECTIONS},
};
use super::{
    layout::Sections,
    table::{Section, u32_at},
    validate::{InvalidImage, require},
};

/// A record: kind, and how long its name and its value are. Names and values follow each other in their section.
pub(crate) const RECORD: usize = 12;

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "std", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[repr(u32)]
pub enum SourceKind {
    /// A list by its name; the value is how many entries it had.
    List = 0,
    /// A drive, `C:`, by which programs are named; the value is the device on which it was.
    Drive = 1,
    /// An interface by its alias; the value is its LUID.
    Interface = 2,
    /// Where the image came from: see [`Origin`].
    Origin = 3,
}

impl SourceKind {
    const ALL: [Self; 4] = [Self::List, Self::Drive, Self::Interface, Self::Origin];

    fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Something that an image was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source<'a> {
    /// What it is.
    pub kind: SourceKind,
    /// Its name.
    pub name: &'a str,
    /// What it was.
    pub value: &'a str,
}

/// Where the image in force came from: for whoever finds it there and wonders. Nobody vouches for it but who loaded it.
#[cfg(feature = "std")]
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The policy file or the compiled image, by its full path.
    pub file: String,
    /// When it was loaded, UTC.
    pub loaded: String,
    /// Who loaded it.
    pub by: String,
    /// The identity of the compiled image that was loaded; none if it was compiled from a policy file at that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// The most bytes that are noted of each part of an [`Origin`].
#[cfg(feature = "std")]
const MOST_ORIGIN: usize = 1024;

#[cfg(feature = "std")]
impl Origin {
    /// Its parts by name, none longer than [`MOST_ORIGIN`].
    fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("file", &self.file), ("loaded", &self.loaded), ("by", &self.by)];
        let parts = all.into_iter().chain(self.image.as_ref().map(|image| ("image", image)));
        parts.map(|(name, text)| (name, &text[..text.floor_char_boundary(MOST_ORIGIN)]))
    }
}

/// Writes the records and their texts.
#[cfg(feature = "std")]
pub(crate) fn write<'a>(sources: impl Iterator<Item = Source<'a>>, records: &mut Vec<u8>, text: &mut Vec<u8>) {
    for source in sources {
        for number in [source.kind as u32, source.name.len() as u32, source.value.len() as u32] {
            records.extend(number.to_le_bytes());
        }
        text.extend(source.name.bytes().chain(source.value.bytes()));
    }
}

/// The record at `index` and where the texts behind its own begin; `None` if it is not one.
fn read<'a>(bytes: &'a [u8], records: Section, text: Section, index: u32, at: usize) -> Option<(Source<'a>, usize)> {
    let record = records.record::<RECORD>(bytes, index)?;
    let kind = SourceKind::of(u32_at(record, 0))?;
    let middle = at.checked_add(u32_at(record, 4) as usize)?;
    let end = middle.checked_add(u32_at(record, 8) as usize)?;
    let text = text.of(bytes);
    let [name, value] = [text.get(at..middle)?, text.get(middle..end)?].map(core::str::from_utf8);
    Some((Source { kind, name: name.ok()?, value: value.ok()? }, end))
}

/// Every record names a kind, and their texts fill their section.
pub(super) fn validate(bytes: &[u8], sections: &Sections) -> Result<(), InvalidImage> {
    let (records, text) = (sections.sources, sections.source_text);
    let mut at = 0;
    for index in 0..records.count::<RECORD>() {
        let found = read(bytes, records, text, index, at);
        require(found.is_some(), "sources", index, "is of a known kind and has its text")?;
        at = found.map_or(at, |(_, end)| end);
    }
    require(at == text.length as usize, "source_text", at as u32, "belongs to a source")
}

#[cfg(feature = "std")]
impl<B: StableBytes> Image<B> {
    /// What it was made of that may have changed since.
    pub fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        let (records, text) = (self.header.sections.sources, self.header.sections.source_text);
        let mut at = 0;
        (0..records.count::<RECORD>()).map_while(move |index| {
            let (source, end) = read(self.bytes.bytes(), records, text, index, at)?;
            at = end;
            Some(source)
        })
    }

    /// Where it came from, if whoever loaded it noted that.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        let mut found = None;
        for source in self.sources().filter(|source| source.kind == SourceKind::Origin) {
            let origin: &mut Origin = found.get_or_insert_default();
            match source.name {
                "file" => source.value.clone_into(&mut origin.file),
                "loaded" => source.value.clone_into(&mut origin.loaded),
                "by" => source.value.clone_into(&mut origin.by),
                "image" => origin.image = Some(source.value.to_owned()),
                _ => {}
            }
        }
        found
    }

    /// The bytes of the same image with another origin; the identity is another one then, too.
    #[must_use]
    pub fn with_origin(&self, origin: &Origin) -> Vec<u8> {
        let (mut records, mut text) = (Vec::new(), Vec::new());
        let kept = self.sources().filter(|source| source.kind != SourceKind::Origin);
        let parts = origin.parts().map(|(name, value)| Source { kind: SourceKind::Origin, name, value });
        write(kept.chain(parts), &mut records, &mut text);
        // They are the last two sections.
        let at = self.header.sections.sources.offset as usize;
        let mut image = self.bytes.bytes()[..at].to_vec();
        for (section, bytes) in [(SECTIONS - 2, records), (SECTIONS - 1, text)] {
            let place = [image.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat();
            image[SECTION_TABLE + section * 8..][..8].copy_from_slice(&place);
            image.extend(bytes);
            image.resize(image.len().next_multiple_of(SECTION_ALIGNMENT), 0);
        }
        let length = (image.len() as u32).to_le_bytes();
        image[12..16].copy_from_slice(&length);
        let sum = super::checksum(&image);
        image[16..32].copy_from_slice(&sum);
        image
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::{CompileOptions, compile, image::checksum, image::layout::Header, parse};
    use std::{collections::BTreeMap, path::Path, path::PathBuf};

    const POLICY: &str = r#"
        [list.bad]
        entries = ["203.0.113.0/24", "198.51.100.7", "198.51.100.8", "2001:db8::/32"]
        [list.ads]
        entries = [".ads.example"]
        [[rule]]
        action = "block"
        application = ['C:\Tools\a.exe', 'c:\Other\*', '\Device\HarddiskVolume9\x.exe', 'D:\gone.exe', 'System']
        [[rule]]
        action = "block"
        application = 'E:\off.exe'
        enabled = false
        [[rule]]
        action = "block"
        remote-name = "@ads"
        [[rule]]
        action = "block"
        remote = "@bad"
    "#;

    fn image() -> Vec<u8> {
        let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        let policy = parse(Path::new("policy.toml"), POLICY, &files).unwrap();
        let resolve = |path: &str| match path.split_once(':') {
            Some(("C" | "c", rest)) => Ok(format!(r"\device\harddiskvolume3{}", rest.to_lowercase())),
            Some((drive, _)) => Err(format!("there is no drive {drive}")),
            None => Ok(path.to_owned()),
        };
        let options = CompileOptions { application: &resolve, key: [3; 16], at: None };
        compile(&policy, &options).unwrap()
    }

    #[test]
    fn an_image_says_what_it_was_made_of() {
        let image = Image::validate(image()).unwrap();
        let found: Vec<_> = image.sources().map(|one| (one.kind, one.name.to_owned(), one.value.to_owned())).collect();
        let source = |kind, name: &str, value: &str| (kind, name.to_owned(), value.to_owned());
        assert_eq!(
            found,
            [
                source(SourceKind::List, "ads", "1"),
                source(SourceKind::List, "bad", "4"),
                source(SourceKind::Drive, "C:", r"\device\harddiskvolume3"),
            ]
        );
    }

    #[test]
    fn an_image_says_where_it_came_from() {
        let image = Image::validate(image()).unwrap();
        assert_eq!(image.origin(), None);
        let origin = |file: String, image: Option<&str>| Origin {
            file,
            loaded: "2026-11-29T17:00:00Z".to_owned(),
            by: r"CORP\alice".to_owned(),
            image: image.map(str::to_owned),
        };
        let first = origin(r"C:\office.toml".to_owned(), None);
        let noted = Image::validate(image.with_origin(&first)).unwrap();
        assert_eq!(noted.origin(), Some(first));
        assert_ne!(noted.identity(), image.identity());
        // Another one replaces it, and what the image was made of stays.
        let second = origin("é".repeat(MOST_ORIGIN), Some("00ff"));
        let again = Image::validate(noted.with_origin(&second)).unwrap();
        assert_eq!(again.origin(), Some(origin("é".repeat(MOST_ORIGIN / 2), Some("00ff"))));
        let made_of = |image: &Image<Vec<u8>>| {
            let all = image.sources().filter(|one| one.kind != SourceKind::Origin);
            all.map(|one| (one.name.to_owned(), one.value.to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(made_of(&again), made_of(&image));
        let (with, without) = (again.as_bytes(), image.as_bytes());
        let sources = Header::read(without).sections.sources.offset as usize;
        assert_eq!(with[32..SECTION_TABLE], without[32..SECTION_TABLE]);
        assert_eq!(with[SECTION_TABLE + SECTIONS * 8..sources], without[SECTION_TABLE + SECTIONS * 8..sources]);
    }

    #[test]
    fn records_that_are_none_are_refused() {
        let image = image();
        let Sections { sources, source_text, .. } = Header::read(&image).sections;
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = image.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            let sum = checksum(&changed);
            changed[16..32].copy_from_slice(&sum);
            Image::validate(changed).err()
        };
        let (first, text) = (sources.offset as usize, source_text.offset as usize);
        let refused = |index| {
            Some(InvalidImage::Field { section: "sources", index, rule: "is of a known kind and has its text" })
        };
        assert_eq!(with(first, &0u32.to_le_bytes()), None, "what it is");
        assert_eq!(with(first, &9u32.to_le_bytes()), refused(0));
        assert_eq!(with(first + RECORD + 4, &u32::MAX.to_le_bytes()), refused(1));
        assert_eq!(with(text, &[0xff]), refused(0), "no UTF-8");
        let shorter = with(first + 2 * RECORD + 8, &3u32.to_le_bytes());
        assert!(matches!(shorter, Some(InvalidImage::Field { section: "source_text", .. })), "{shorter:?}");
    }
}
