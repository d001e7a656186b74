//! Fetching packages that carry drivers, into target/, never into the repository.

use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// Says what is missing. Where `CI` is set nothing may be: there the test fails instead of doing nothing.
pub fn skip(missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "{missing}: run `./dev test`, which provides what the tests need");
    eprintln!("SKIPPED: {missing}");
}

/// A file in a wheel of the Python package index.
pub struct Wheel {
    pub package: &'static str,
    pub version: &'static str,
    /// What says to pip for which platform the wheel is, where it is not for any.
    pub target: &'static [&'static str],
    pub file: &'static str,
    /// What the file is known by.
    pub sha256: &'static str,
}

impl Wheel {
    /// The file, fetched when it is not there yet, or `None` with a word where it cannot be.
    pub fn fetch(&self) -> Option<PathBuf> {
        /// Tests run side by side; the first one fetches.
        static FETCHING: Mutex<()> = Mutex::new(());
        let _fetching = FETCHING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Self { package, version, target, file, sha256 } = self;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/foreign/{package}-{version}"));
        let path = folder.join(file);
        if !path.is_file() && !self.download(&folder, target) {
            skip(&format!("{package} {version} cannot be fetched with python3 -m pip"));
            return None;
        }
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        // What is executed is what was checked when the test was written.
        assert_eq!(digest, *sha256, "{} of {package} {version} is another file", path.display());
        Some(path)
    }

    fn download(&self, folder: &Path, target: &[&str]) -> bool {
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let mut download = Command::new("python3");
        download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]).args(target);
        if !run(download.arg("--dest").arg(folder).arg(format!("{}=={}", self.package, self.version))) {
            return false;
        }
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
        let wheel = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "whl"));
        wheel.is_some_and(|wheel| run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(folder)))
    }
}

/// WinDivert64.sys of WinDivert 2.2.
pub fn windivert() -> Option<PathBuf> {
    let wheel = Wheel {
        package: "pydivert",
        version: "4.0.1",
        target: &["--platform", "win_amd64"],
        file: "pydivert/windivert_dll/WinDivert64.sys",
        sha256: "8da085332782708d8767bcace5327a6ec7283c17cfb85e40b03cd2323a90ddc2",
    };
    wheel.fetch()
}

/// The x64 drivers inside a program that carries them as resources.
pub fn embedded(program: &[u8]) -> Vec<Vec<u8>> {
    const NATIVE: u16 = 1;
    let starts = (0..program.len().saturating_sub(2)).filter(|at| program[*at..].starts_with(b"MZ"));
    starts
        .filter_map(|at| image(&program[at..]).filter(|(subsystem, _)| *subsystem == NATIVE))
        .map(|(_, i)| i)
        .collect()
}

/// The subsystem of the x64 image at the beginning of `bytes`, and the image with its signature.
fn image(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    const AMD64: u16 = 0x8664;
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let header = u32_at(0x3C)?;
    if header > 0x1000 || bytes.get(header..header + 4)? != b"PE\0\0" || u16_at(header + 4)? != AMD64 {
        return None;
    }
    let (sections, optional) = (usize::from(u16_at(header + 6)?), usize::from(u16_at(header + 20)?));
    let table = header + 24 + optional;
    let end_of = |section: usize| Some(u32_at(table + section * 40 + 16)? + u32_at(table + section * 40 + 20)?);
    // The signature is behind the sections; its directory entry, the fifth, holds a place in the file.
    let signature = u32_at(header + 24 + 112 + 32)? + u32_at(header + 24 + 112 + 36)?;
    let end = (0..sections).filter_map(end_of).max()?.max(signature);
    Some((u16_at(header + 24 + 68)?, bytes.get(..end)?.to_vec()))
}
