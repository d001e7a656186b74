//! The hashes that a signed image carries, computed from the image: over the whole file, and over each page.
//!
//! They leave out what signing itself changes: the checksum, the certificate table's entry in the data directories, and
//! the table. Source: "Windows Authenticode Portable Executable Signature Format".

use std::ops::Range;

use object::{
    LittleEndian as LE,
    pe::IMAGE_DIRECTORY_ENTRY_SECURITY,
    read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile64},
};
use sha2::{Digest, Sha256};

use super::SignatureError;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

const PAGE: usize = 4096;

/// The places in an image file that hashing needs.
pub(super) struct Layout<'a> {
    bytes: &'a [u8],
    checksum: Range<usize>,
    security_entry: Range<usize>,
    headers: Range<usize>,
    /// File ranges of the sections, in table order.
    sections: Vec<Range<usize>>,
    /// The start of the certificate table, or the end of the file.
    pub(super) end: usize,
    /// The certificate table, which nothing follows.
    pub(super) certificates: Option<Range<usize>>,
}

impl<'a> Layout<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, SignatureError> {
        let file = PeFile64::parse(bytes).map_err(|error| SignatureError::Image(error.to_string()))?;
        // After the signature of the PE header and the file header; offsets of PE32+.
        let optional = file.dos_header().nt_headers_offset() as usize + 24;
        let security_entry = optional + 112 + 8 * IMAGE_DIRECTORY_ENTRY_SECURITY;
        let header = file.nt_headers().optional_header();
        let table = file.data_directory(IMAGE_DIRECTORY_ENTRY_SECURITY).map(|entry| {
            let start = entry.virtual_address.get(LE) as usize;
            start..start + entry.size.get(LE) as usize
        });
        let certificates = table.filter(|table| !table.is_empty());
        let sections = file.section_table().iter().map(|section| {
            let start = section.pointer_to_raw_data.get(LE) as usize;
            start..start + section.size_of_raw_data.get(LE) as usize
        });
        let layout = Self {
            bytes,
            checksum: optional + 64..optional + 68,
            security_entry: security_entry..security_entry + 8,
            headers: 0..header.size_of_headers() as usize,
            sections: sections.filter(|section| !section.is_empty()).collect(),
            end: certificates.as_ref().map_or(bytes.len(), |table| table.start),
            certificates,
        };
        let hashed = layout.sections.iter().chain([&layout.headers]).map(|range| range.end).max().unwrap_or_default();
        let closed = layout.certificates.as_ref().is_none_or(|table| table.end == bytes.len());
        if layout.end > bytes.len()
            || hashed > layout.end
            || !closed
            || layout.headers.end > PAGE
            || layout.security_entry.end > layout.headers.end
        {
            return Err(SignatureError::Image("headers, sections and certificates overlap or exceed the file".into()));
        }
        Ok(layout)
    }

    /// The hash of the whole image.
    pub(super) fn image_hash<D: Digest>(&self) -> Vec<u8> {
        self.without_what_signing_changes::<D>(self.end).finalize().to_vec()
    }

    /// Offset and hash of each page: the headers, then each section in its own pages, each padded with zeros; at the
    /// end the offset where they stop, with zeros for a hash.
    pub(super) fn page_hashes(&self) -> Vec<(u32, Hash)> {
        let mut headers = self.without_what_signing_changes::<Sha256>(self.headers.end);
        headers.update(vec![0; PAGE - self.headers.end]);
        let mut pages = vec![(0, headers.finalize().into())];
        for section in &self.sections {
            for start in section.clone().step_by(PAGE) {
                let page = &self.bytes[start..section.end.min(start + PAGE)];
                let hash = Sha256::new().chain_update(page).chain_update(vec![0; PAGE - page.len()]);
                pages.push((start as u32, hash.finalize().into()));
            }
        }
        let end = self.sections.last().map_or(self.headers.end, |section| section.end);
        pages.push((end as u32, [0; 32]));
        pages
    }

    fn without_what_signing_changes<D: Digest>(&self, end: usize) -> D {
        D::new()
            .chain_update(&self.bytes[..self.checksum.start])
            .chain_update(&self.bytes[self.checksum.end..self.security_entry.start])
            .chain_update(&self.bytes[self.security_entry.end..end])
    }

    /// The first certificate of the table: a PKCS #7 signature.
    pub(super) fn certificate(&self) -> Result<Option<&'a [u8]>, SignatureError> {
        const REVISION_2_PKCS: [u8; 4] = [0, 2, 2, 0];
        let Some(table) = &self.certificates else { return Ok(None) };
        let table = &self.bytes[table.clone()];
        let length = table.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        match table.get(..length) {
            Some(entry) if entry.get(4..8) == Some(&REVISION_2_PKCS[..]) => Ok(entry.get(8..)),
            _ => Err(SignatureError::Image("the certificate table holds no PKCS #7 signature".into())),
        }
    }
}
