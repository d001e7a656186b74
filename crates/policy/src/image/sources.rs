//! What an image was made of that may have changed since: read by the command, never to decide.

#[cfg(feature = "std")]
use super::{Image, StableBytes};
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
}

impl SourceKind {
    const ALL: [Self; 3] = [Self::List, Self::Drive, Self::Interface];

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
