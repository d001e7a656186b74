//! `sluice capture`: Windows' own capture of its Filtering Platform.
//!
//! `netsh wfp capture` runs two trace sessions and packs what they bring with the state of the engine into a cabinet.
//! Nobody documents which providers and files those are, and tools of others expect Microsoft's own; so this runs netsh itself,
//! from System32 by its whole path, and `why`, `netevents` and `explain` read what it writes.

use crate::cli::Capture;
use crate::failure::Failure;
use crate::output::{GOOD, Output};
use serde_json::json;
use sluice_host::Host;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The file that netsh writes if it is told no other.
const USUAL: &str = "wfpdiag.cab";

pub(crate) fn capture(host: &dyn Host, what: &Capture, output: &mut Output) -> Result<ExitCode, Failure> {
    if !cfg!(windows) {
        return Err(Failure::Usage(
            "`capture` runs the netsh of Windows, and a simulated machine has none: `ntsim net --netevents FILE` writes its \
             net events"
                .to_owned(),
        ));
    }
    let drivers = host.system().map_err(|error| Failure::machine("querying the machine", error))?.drivers;
    let folder = drivers.rsplit_once('\\').map_or(drivers.as_str(), |(folder, _)| folder);
    let mut netsh = Command::new(format!(r"{folder}\netsh.exe"));
    netsh.args(["wfp", "capture"]);
    let file = match what {
        Capture::Start { file } => {
            let file = whole(file.as_deref())?;
            netsh.args(["start".to_owned(), "cab=on".to_owned(), format!("file={}", file.display())]);
            Some(file)
        }
        Capture::Stop => {
            netsh.arg("stop");
            None
        }
    };
    let ended = netsh.stdin(Stdio::null()).output().map_err(|error| Failure::Netsh(error.to_string()))?;
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).trim().to_owned();
    if !ended.status.success() {
        return Err(Failure::Netsh(if said.is_empty() { ended.status.to_string() } else { said }));
    }
    let state = if file.is_some() { "started" } else { "stopped" };
    output.report(&json!({ "capture": state, "file": file, "netsh": said }), |out| {
        said.lines().filter(|line| !line.trim().is_empty()).try_for_each(|line| writeln!(out, "{}", line.trim()))?;
        match &file {
            Some(file) => {
                let file = file.display();
                writeln!(
                    out,
                    "{GOOD}started{GOOD:#}: `sluice capture stop` writes {file}, which `sluice why {file}` reads"
                )
            }
            None => writeln!(out, "{GOOD}stopped{GOOD:#}"),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The whole path of a file that is not there yet: netsh would write over one that is.
fn whole(file: Option<&Path>) -> Result<PathBuf, Failure> {
    let file = file.unwrap_or(Path::new(USUAL));
    let problem = |problem: &str| Failure::Input { path: file.to_owned(), problem: problem.to_owned() };
    if file.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("cab")) {
        return Err(problem("netsh writes a cabinet: its name ends with .cab"));
    }
    if file.exists() {
        return Err(problem("it exists already, and netsh would write over it"));
    }
    std::path::absolute(file).map_err(|error| problem(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_goes_into_a_new_cabinet() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.cab");
        std::fs::write(&there, "x").unwrap();
        assert!(whole(Some(&there)).unwrap_err().to_string().contains("exists already"));
        assert!(whole(Some(Path::new("trace.etl"))).unwrap_err().to_string().contains(".cab"));
        assert!(whole(Some(&folder.path().join("new.CAB"))).unwrap().is_absolute());
    }
}
