//! Zip files whose bytes depend only on their content: fixed order, one time for all members, the same compressor
//! everywhere.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::PackageError;
use crate::inf::Day;

/// Writes `members`, names and contents, in the order given. All are dated midnight of `day`.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(path: &Path, day: Day, members: &[(String, Vec<u8>)]) -> Result<(), PackageError> {
    let failed = |error: zip::result::ZipError| PackageError::Archive(error.to_string());
    let time = DateTime::from_date_and_time(day.year, day.month, day.day, 0, 0, 0)
        .map_err(|_| PackageError::Archive(format!("a zip file cannot hold the date {day}")))?;
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(time)
        .unix_permissions(0o644);
    let mut archive = ZipWriter::new(File::create(path).map_err(PackageError::file(path))?);
    for (name, content) in members {
        archive.start_file(name, options).map_err(failed)?;
        archive.write_all(content).map_err(PackageError::file(path))?;
    }
    archive.finish().map_err(failed)?;
    Ok(())
}

/// Names and contents of a zip file's members, in order.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<(String, Vec<u8>)>, PackageError> {
    let failed = |error: zip::result::ZipError| PackageError::Archive(error.to_string());
    let bytes = fs::read(path).map_err(PackageError::file(path))?;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(failed)?;
    (0..archive.len())
        .map(|index| {
            let mut member = archive.by_index(index).map_err(failed)?;
            let mut content = Vec::new();
            std::io::copy(&mut member, &mut content).map_err(PackageError::file(path))?;
            Ok((member.name().map_err(failed)?.into_owned(), content))
        })
        .collect()
}
