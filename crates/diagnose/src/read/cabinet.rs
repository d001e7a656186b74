//! The cabinet of `netsh wfp capture`: wfpdiag.cab with wfpdiag.xml in it.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};

/// The first bytes of a cabinet.
const SIGNATURE: &[u8] = b"MSCF";

/// Whether a file begins as a cabinet does.
#[must_use]
pub fn is_cabinet(start: &[u8]) -> bool {
    start.starts_with(SIGNATURE)
}

/// Why a cabinet cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CabinetError {
    /// It is damaged, or has a form of compression that is not known here.
    #[error("not a cabinet that can be read: {0}")]
    Damaged(#[from] io::Error),
    /// It has no XML file.
    #[error("the cabinet has no .xml file: wfpdiag.xml of `netsh wfp capture` was expected")]
    NoXml,
}

/// An open cabinet.
pub struct Cabinet<R: Read + Seek> {
    cabinet: cab::Cabinet<R>,
    name: String,
}

impl<R: Read + Seek> Cabinet<R> {
    /// Opens one and finds the XML file in it.
    ///
    /// # Errors
    /// [`CabinetError`].
    pub fn open(mut input: R) -> Result<Self, CabinetError> {
        check(&mut BufReader::new(&mut input))?;
        input.seek(SeekFrom::Start(0))?;
        let cabinet = cab::Cabinet::new(input)?;
        let files = cabinet.folder_entries().flat_map(cab::FolderEntry::file_entries);
        let name = files.map(cab::FileEntry::name).find(|name| name.to_ascii_lowercase().ends_with(".xml"));
        let name = name.ok_or(CabinetError::NoXml)?.to_owned();
        Ok(Self { cabinet, name })
    }

    /// The name of the XML file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The content of the XML file.
    ///
    /// # Errors
    /// [`CabinetError`].
    pub fn xml(&mut self) -> Result<impl Read + '_, CabinetError> {
        Ok(self.cabinet.read_file(&self.name)?)
    }
}

/// The most folders that are looked into. netsh writes one.
const MOST_FOLDERS: u16 = 16;
/// The longest name of a file, with its NUL.
const LONGEST_NAME: u64 = 257;

/// Checks what `cab` relies on, and panics without: each file lies within the data of its folder, and data that is not
/// compressed is as long as it says. The structures are those of MS-CAB, 2: CFHEADER, CFFOLDER, CFDATA and CFFILE.
fn check(input: &mut BufReader<impl Read + Seek>) -> io::Result<()> {
    const RESERVES: u16 = 4;
    const PART_OF_SET: u16 = 3;
    const NOT_COMPRESSED: u16 = 0;
    let wrong = |what: &str| Err(io::Error::new(ErrorKind::InvalidData, what));
    let header = bytes::<36>(input)?;
    let (files_at, folders) = (u32_at(&header, 16), u16_at(&header, 26));
    let (files, flags) = (u16_at(&header, 28), u16_at(&header, 30));
    if flags & PART_OF_SET != 0 {
        return wrong("it is one of several");
    }
    if folders > MOST_FOLDERS {
        return wrong("it has more folders than any of netsh");
    }
    let (mut behind_folder, mut behind_data) = (0, 0);
    if flags & RESERVES != 0 {
        let reserves = bytes::<4>(input)?;
        (behind_folder, behind_data) = (reserves[2], reserves[3]);
        input.seek_relative(u16_at(&reserves, 0).into())?;
    }
    let mut entries = Vec::new();
    for _ in 0..folders {
        let folder = bytes::<8>(input)?;
        entries.push((u32_at(&folder, 0), u16_at(&folder, 4), u16_at(&folder, 6) & 15));
        input.seek_relative(behind_folder.into())?;
    }
    let mut lengths = Vec::new();
    for (start, blocks, compression) in entries {
        let mut length = 0_u64;
        input.seek(SeekFrom::Start(start.into()))?;
        for _ in 0..blocks {
            let data = bytes::<8>(input)?;
            let (packed, unpacked) = (u16_at(&data, 4), u16_at(&data, 6));
            if compression == NOT_COMPRESSED && packed != unpacked {
                return wrong("data that is not compressed has two lengths");
            }
            length += u64::from(unpacked);
            input.seek_relative(i64::from(behind_data) + i64::from(packed))?;
        }
        lengths.push(length);
    }
    input.seek(SeekFrom::Start(files_at.into()))?;
    for _ in 0..files {
        let file = bytes::<16>(input)?;
        let end = u64::from(u32_at(&file, 0)) + u64::from(u32_at(&file, 4));
        if lengths.get(usize::from(u16_at(&file, 8))).is_none_or(|length| end > *length) {
            return wrong("a file in it is longer than the data that there is");
        }
        Read::by_ref(input).take(LONGEST_NAME).read_until(0, &mut Vec::new())?;
    }
    Ok(())
}

fn bytes<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map(|()| bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A cabinet with `wfpdiag.xml` of `size` bytes from `at` on, in one block that says to be `unpacked` bytes long.
    fn stored(content: &[u8], size: u32, at: u32, unpacked: u16) -> Vec<u8> {
        let file = [&size.to_le_bytes()[..], &at.to_le_bytes(), &[0; 8], b"wfpdiag.xml\0"].concat();
        let data_at = 36 + 8 + file.len() as u32;
        let total = data_at + 8 + content.len() as u32;
        let mut header = [0; 36];
        header[..4].copy_from_slice(b"MSCF");
        header[8..12].copy_from_slice(&total.to_le_bytes());
        (header[16], header[24], header[25], header[26], header[28]) = (44, 3, 1, 1, 1);
        let folder = [&data_at.to_le_bytes()[..], &[1, 0, 0, 0]].concat();
        let data = [&[0; 4][..], &(content.len() as u16).to_le_bytes(), &unpacked.to_le_bytes(), content].concat();
        [&header[..], &folder, &file, &data].concat()
    }

    fn content(cabinet: Vec<u8>) -> Result<String, CabinetError> {
        let mut text = String::new();
        Cabinet::open(Cursor::new(cabinet))?.xml()?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn a_cabinet_that_lies_about_lengths_is_refused() {
        assert_eq!(content(stored(b"before<x/>", 4, 6, 10)).unwrap(), "<x/>");
        for (size, at, unpacked) in [(4, 7, 10), (4, 11, 10), (u32::MAX, u32::MAX, 10), (4, 6, 60_000), (1, 9, 9)] {
            assert!(content(stored(b"before<x/>", size, at, unpacked)).is_err(), "{size} {at} {unpacked}");
        }
        let whole = stored(b"before<x/>", 4, 6, 10);
        for end in 0..whole.len() {
            assert!(content(whole[..end].to_vec()).is_err(), "{end}");
        }
    }
}
