//! The cabinet of `netsh wfp capture`: wfpdiag.cab with wfpdiag.xml in it.

use std::io::{self, Read, Seek};

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
    pub fn open(input: R) -> Result<Self, CabinetError> {
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
