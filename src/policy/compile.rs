//! `sluice policy compile`.

use super::files::{self, invalid};
use crate::failure::Failure;
use crate::output::{GOOD, LABEL, Output, WARNING};
use serde_json::json;
use sluice_control::{Disk, assumed_app_id, read_policy_with};
use sluice_policy::model::{Moment, schedule};
use sluice_policy::{CompileOptions, Compiled, show};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn compile(
    file: &Path,
    image: &Path,
    key: Option<[u8; 16]>,
    drives: &[(char, String)],
    aliases: &[(String, u64)],
    at: Option<Moment>,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let lists = Disk::default();
    let luid = |alias: &str| aliases.iter().find(|(name, _)| name == alias).map(|(_, luid)| *luid);
    let policy = read_policy_with(file, &lists)?.on_machine(luid);
    let assumed = RefCell::new(BTreeSet::new());
    let application = |path: &str| {
        let (mapped, known) = on_drive(path, drives);
        let resolved = assumed_app_id(&mapped)?;
        if known {
            return Ok(mapped);
        }
        assumed.borrow_mut().insert(path.to_owned());
        Ok(resolved)
    };
    let key = key.map_or_else(files::drawn_key, Ok)?;
    let options = CompileOptions { application: &application, key, at };
    let Compiled { image: bytes, warnings: found } =
        sluice_policy::compile_with_warnings(&policy, &options).map_err(invalid)?;
    let image_of = files::validate(file, bytes)?;
    let identity = show(&image_of).identity;
    let mut read = lists.into_read();
    read.push(file.to_owned());
    files::replace(image, image_of.as_bytes(), &read)?;
    if sluice_files::is_stdout(image) {
        output.report_aside();
    }

    let warnings: Vec<_> = super::warnings(&policy).into_iter().chain(found).collect();
    output.warnings(&warnings)?;
    let next = at.and_then(|at| schedule::next_change(&policy, at).map(|minutes| at.after(minutes)));
    let (rules, size) = (policy.rules.len(), image_of.as_bytes().len());
    let assumed = assumed.into_inner();
    let report = json!({
        "rules": rules, "bytes": size, "image": image, "identity": identity, "warnings": warnings,
        "judged_at": at.map(|at| at.to_string()), "next_change": next.map(|next| next.to_string()),
        "programs_on_no_known_device": assumed,
    });
    output.report(&report, |out| {
        writeln!(out, "{GOOD}compiled{GOOD:#}: {} with {rules} rules, {size} bytes", image.display())?;
        writeln!(out, "  {LABEL}identity{LABEL:#} {identity}")?;
        if let Some(at) = at.filter(|_| !policy.schedules.is_empty()) {
            let until = next.map_or("forever".to_owned(), |next| format!("until {next}"));
            writeln!(out, "  schedules were evaluated for {at}; the result holds {until}")?;
        }
        for program in &assumed {
            writeln!(
                out,
                "  {WARNING}the device of `{program}` is not known{WARNING:#}: use --drive, or `sluice load` there"
            )?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The path on the device of its drive, and whether the kernel of the machine will report it so.
fn on_drive(path: &str, drives: &[(char, String)]) -> (String, bool) {
    if let [letter, b':', ..] = path.as_bytes() {
        let device = drives.iter().find(|(drive, _)| letter.eq_ignore_ascii_case(&(*drive as u8)));
        return match device {
            Some((_, device)) => (format!("{device}{}", &path[2..]), true),
            None => (path.to_owned(), false),
        };
    }
    let device = path.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(r"\device\"));
    // The kernel has no paths.
    (path.to_owned(), device || path.eq_ignore_ascii_case("system"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_become_devices() {
        let drives = [('c', r"\Device\HarddiskVolume3".to_owned())];
        assert_eq!(on_drive(r"C:\a.exe", &drives), (r"\Device\HarddiskVolume3\a.exe".to_owned(), true));
        assert_eq!(on_drive(r"D:\a.exe", &drives), (r"D:\a.exe".to_owned(), false));
        assert_eq!(on_drive(r"\Device\X\a.exe", &drives), (r"\Device\X\a.exe".to_owned(), true));
        assert_eq!(on_drive("/usr/bin/curl", &drives), ("/usr/bin/curl".to_owned(), false));
    }
}
