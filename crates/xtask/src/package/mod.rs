//! The package: one signed zip file for each architecture, with everything needed on the machine.

pub mod archive;
pub mod catalog;
pub mod dependencies;
mod documents;
pub mod sign;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sluice_protocol::OLDEST_WINDOWS_BUILD;

use crate::{
    image::{self, Defect},
    inf::{self, Architecture, Day, Inf, InfError, rules::Broken},
    process::{self, ProcessError},
    signature::SignatureError,
};
use dependencies::Linked;
use sign::Signer;

/// The parts of a package.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Top of the repository, which holds the INF's source, the script and the licences.
    pub root: &'a Path,
    /// Which package.
    pub architecture: Architecture,
    /// `1.2.3`
    pub version: &'a str,
    /// The time of the source, since 1970: the date of the driver and of the members of the zip file.
    pub time: Duration,
    /// sluice.sys, as built.
    pub driver: &'a Path,
    /// sluice.exe, as built.
    pub command: &'a Path,
    /// Third-party code linked into both.
    pub linked: &'a Linked,
    /// The key and certificate to sign with.
    pub signer: &'a Signer,
    /// The folder for the zip file and a folder with its content.
    pub folder: &'a Path,
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum PackageError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("zip file: {0}")]
    Archive(String),
    #[error("inf/sluice.inx: {0}")]
    Inf(#[from] InfError),
    #[error("sluice.inf breaks rules of InfVerif:\n{}", listed(.0))]
    Rules(Vec<Broken>),
    #[error("the signed sluice.sys cannot be shipped:\n{}", listed(.0))]
    Image(Vec<Defect>),
    #[error("{file}: {source}")]
    Signature { file: &'static str, source: SignatureError },
    #[error("catalog: {0}")]
    Catalog(der::Error),
    #[error("`cargo metadata`: {0}")]
    Metadata(String),
    #[error("the time of the source, {0:?} after 1970, is out of range for a zip file or a driver")]
    Time(Duration),
}

impl PackageError {
    /// What went wrong with that file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

fn listed<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("  - {item}")).collect::<Vec<_>>().join("\n")
}

/// Makes the package, checks what is in it, and returns the zip file's path.
///
/// # Errors
/// When something is missing, a tool fails, or the result cannot be shipped.
pub fn make(inputs: &Inputs<'_>) -> Result<PathBuf, PackageError> {
    let day = day(inputs.time)?;
    let name = match inputs.architecture {
        Architecture::X64 => "x64",
        Architecture::Arm64 => "arm64",
    };
    let stage = inputs.folder.join(name);
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(PackageError::file(&stage))?;
    }
    fs::create_dir_all(&stage).map_err(PackageError::file(&stage))?;

    inputs.signer.sign(inputs.driver, &stage.join("sluice.sys"))?;
    check_driver(&stage.join("sluice.sys"))?;
    inputs.signer.sign(inputs.command, &stage.join("sluice.exe"))?;
    make_inf(inputs, &stage.join("sluice.inf"), day)?;
    catalog::make(inputs, &stage)?;
    write(&stage.join("sluice.cer"), &inputs.signer.certificate()?)?;
    documents::write_all(inputs, &stage)?;

    let mut members = Vec::new();
    for name in documents::MEMBERS {
        let path = stage.join(name);
        members.push((name.to_owned(), fs::read(&path).map_err(PackageError::file(&path))?));
    }
    let zip = inputs.folder.join(format!("sluice-{}-{name}.zip", inputs.version));
    archive::write(&zip, day, &members)?;
    Ok(zip)
}

fn day(time: Duration) -> Result<Day, PackageError> {
    let date = der::DateTime::from_unix_duration(time).map_err(|_| PackageError::Time(time))?;
    Ok(Day { year: date.year(), month: date.month(), day: date.day() })
}

/// Check that Windows would still load the signed image, and that its signature matches it.
fn check_driver(path: &Path) -> Result<(), PackageError> {
    let bytes = fs::read(path).map_err(PackageError::file(path))?;
    let summary = image::check(&bytes).map_err(PackageError::Image)?;
    let source = SignatureError::Lacks("signature at all");
    summary.signature.map(drop).ok_or(PackageError::Signature { file: "sluice.sys", source })
}

/// On Windows the WDK's own tools fill in and check the file; our rules are checked everywhere.
fn make_inf(inputs: &Inputs<'_>, path: &Path, day: Day) -> Result<(), PackageError> {
    let source = inputs.root.join("inf/sluice.inx");
    let text = fs::read_to_string(&source).map_err(PackageError::file(&source))?;
    if cfg!(windows) {
        write(path, text.as_bytes())?;
        let Day { year, month, day } = day;
        let (date, version) = (format!("{month:02}/{day:02}/{year}"), format!("{}.0", inputs.version));
        let mut stampinf = Command::new("stampinf");
        stampinf.arg("-f").arg(path).args(["-d", &date, "-v", &version, "-a", inputs.architecture.decoration()]);
        process::run(&mut stampinf)?;
        process::run(Command::new("infverif").args(["/v", "/w"]).arg(path))?;
    } else {
        write(path, inf::stamp(&text, inputs.architecture, day, inputs.version)?.as_bytes())?;
    }
    let text = fs::read_to_string(path).map_err(PackageError::file(path))?;
    let broken = inf::rules::broken(&Inf::read(&text)?, inputs.architecture, OLDEST_WINDOWS_BUILD);
    if broken.is_empty() { Ok(()) } else { Err(PackageError::Rules(broken)) }
}

fn write(path: &Path, content: &[u8]) -> Result<(), PackageError> {
    fs::write(path, content).map_err(PackageError::file(path))
}
