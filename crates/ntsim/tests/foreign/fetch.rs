//! Fetching packages that carry drivers, into target/, never into the repository.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// A driver in a wheel of the Python package index, or `None` with a word where it cannot be fetched.
pub fn from_wheel(package: &str, version: &str, platform: Option<&str>, file: &str) -> Option<PathBuf> {
    /// Tests run side by side; the first one fetches.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/foreign");
    let folder = root.join(format!("{package}-{version}"));
    let driver = folder.join(file);
    if driver.is_file() {
        return Some(driver);
    }
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let mut download = Command::new("python3");
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]);
    if let Some(platform) = platform {
        download.args(["--platform", platform]);
    }
    let fetched = run(download.arg("--dest").arg(&folder).arg(format!("{package}=={version}")));
    let wheel = std::fs::read_dir(&folder).ok().and_then(|files| {
        files.filter_map(Result::ok).map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == "whl"))
    });
    let unpacked = fetched
        && wheel
            .is_some_and(|wheel| run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder)));
    if unpacked && driver.is_file() {
        return Some(driver);
    }
    eprintln!("SKIPPED: {package} {version} cannot be fetched with python3 -m pip");
    None
}

/// WinDivert64.sys of WinDivert 2.2.
pub fn windivert() -> Option<PathBuf> {
    from_wheel("pydivert", "4.0.1", Some("win_amd64"), "pydivert/windivert_dll/WinDivert64.sys")
}
