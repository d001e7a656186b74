//! `sluice service`.

use crate::cli::Cli;
use crate::failure::Failure;
use crate::machine;
#[cfg(windows)]
use crate::output::WARNING;
use crate::output::{BAD, GOOD, Output, json_line};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use sluice_control::service::{Kept, Notice, ServiceOptions, Source, run as keep};
use sluice_control::{Item, Timestamp, local_moment, utc_now};
use sluice_files::{Lines, Written};
use sluice_host::Host;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What to do with the service.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install it as a Windows service, which starts with Windows, and start it; replaces an older one.
    Install(Keeping),
    /// Stop the Windows service and remove it; the policy in force stays.
    Remove,
    /// Do what the service does, here and until it is stopped (Ctrl-C).
    Run {
        #[command(flatten)]
        keeping: Keeping,
        /// It is the Service Control Manager that has started this.
        #[arg(long, hide = true)]
        as_service: bool,
    },
}

/// What the service keeps and writes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Keeping {
    /// The policy file to keep in force [default: the bundle that was applied last]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write the decisions that rules and defaults log to this file, as JSON Lines.
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
    /// How large that file may grow, as in 64KiB or 16MiB, before it gets another name and a new one begins.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    size: u64,
    /// How many older files to keep beside it.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=999))]
    older: u32,
    /// Write decisions to the Windows event log, too (Application, source Sluicegate).
    #[arg(long)]
    event_log: bool,
    /// Write every decision, not only those that rules and defaults log.
    #[arg(long)]
    all: bool,
    /// How often policy, clock and machine are looked at.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = crate::cli::seconds)]
    every: Duration,
}

/// A number of bytes, in KiB, MiB or GiB.
fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let parsed = units.iter().find_map(|(unit, shift)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_shl(*shift).filter(|bytes| *bytes > 0 && bytes >> shift == number)
    });
    parsed.ok_or_else(|| "expected a size, as in 64KiB or 16MiB".to_owned())
}

/// Set when the program is to end.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs one of the commands.
pub(crate) fn run(cli: &Cli, command: &Command, output: &mut Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Install(keeping) => install(keeping, output),
        Command::Remove => remove(output),
        Command::Run { keeping, as_service: false } => {
            ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed))
                .map_err(|error| Failure::Output(std::io::Error::other(error)))?;
            here(&*machine::open(cli)?, keeping, output)
        }
        Command::Run { keeping, as_service: true } => as_service(keeping),
    }
}

/// What the service does, said here as well.
fn here(host: &dyn Host, keeping: &Keeping, output: &mut Output) -> Result<ExitCode, Failure> {
    let mut writer = Writer::new(keeping)?;
    let mut failed = None;
    keep(host, &keeping.options(), &local_moment, &STOP, &mut |notice| {
        if failed.is_none()
            && let Err(failure) = said(&notice, output)
                .and_then(|()| writer.note(&notice).map_or(Ok(()), |trouble| output.trouble(&trouble)))
        {
            failed = Some(failure);
            STOP.store(true, Ordering::Relaxed);
        }
    });
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn said(notice: &Notice<'_>, output: &mut Output) -> Result<(), Failure> {
    match notice {
        Notice::Kept(kept) => output.report(kept, |out| {
            let Kept { policy, rules, because, lacks, .. } = kept;
            let because = because.join(", ");
            if lacks.is_empty() {
                writeln!(out, "{GOOD}in force{GOOD:#}: {policy} with {rules} rules (seen: {because})")
            } else {
                writeln!(out, "{BAD}not in force{BAD:#}: {policy} (seen: {because}): {}", lacks.join("; "))
            }
        }),
        Notice::Failed(error) => output.trouble(&format!("the policy is not kept up to date, will retry: {error}")),
        Notice::NotRead(error) => output.trouble(&format!("decisions are not read, will retry: {error}")),
        Notice::Item(_) => Ok(()),
    }
}

impl Keeping {
    fn options(&self) -> ServiceOptions {
        ServiceOptions {
            source: self.policy.clone().map_or(Source::Bundle, Source::File),
            every: self.every.max(Duration::from_millis(10)),
            decisions: self.decisions.is_some() || self.event_log,
            all: self.all,
        }
    }
}

/// Writes what there is to say to the file and the event log.
struct Writer {
    lines: Option<Lines>,
    #[cfg(windows)]
    log: Option<sluice_control::windows::EventLog>,
    /// The time and number of the last decision that an earlier run has written.
    written: Option<(Timestamp, u64)>,
}

impl Writer {
    fn new(keeping: &Keeping) -> Result<Self, Failure> {
        #[cfg(not(windows))]
        if keeping.event_log {
            return Err(Failure::Usage("--event-log: this system is not Windows and has no event log".to_owned()));
        }
        let lines = keeping.decisions.as_ref().map(|path| Lines::new(path, keeping.size, keeping.older));
        Ok(Self {
            written: lines.as_ref().and_then(last_decision),
            lines,
            #[cfg(windows)]
            log: keeping
                .event_log
                .then(sluice_control::windows::EventLog::open)
                .transpose()
                .map_err(|error| Failure::machine("opening the event log", error))?,
        })
    }

    /// Writes it, unless it is there already; returns what the caller should say about that.
    fn note(&mut self, notice: &Notice<'_>) -> Option<String> {
        if let (Notice::Item(Item::Event(event)), Some((time, sequence))) = (notice, &self.written) {
            // The driver begins with the oldest that it holds. Its numbers begin anew when it is loaded, and a clock can be
            // set back; not both are expected at once.
            if event.time <= *time && event.sequence <= *sequence {
                return None;
            }
            self.written = None;
        }
        #[cfg(windows)]
        if let Some(log) = &self.log {
            log.report(notice);
        }
        let lines = self.lines.as_mut()?;
        let line = line(notice)?;
        let gap = |count| {
            let gap = json!({ "type": "unwritten", "time": utc_now(), "count": count });
            json_line(&gap).unwrap_or_default()
        };
        match lines.add(&line, gap) {
            Written::Yes | Written::Still => None,
            Written::Again(count) => {
                Some(format!("{} is written again; {count} lines are missing", lines.path().display()))
            }
            Written::Not(error) => Some(format!(
                "{} cannot be written, will retry; the policy stays in force: {error}",
                lines.path().display()
            )),
        }
    }
}

/// What a collector gets: one object with a `type`.
fn line(notice: &Notice<'_>) -> Option<String> {
    let time = utc_now();
    let trouble = |what: String| json!({ "type": "trouble", "time": time, "what": what });
    match notice {
        Notice::Item(item) => json_line(item),
        Notice::Kept(kept) => {
            let mut value = json!(kept);
            value["type"] = "policy".into();
            value["time"] = time.into();
            json_line(&value)
        }
        Notice::Failed(error) => json_line(&trouble(format!("the policy is not kept up to date: {error}"))),
        Notice::NotRead(error) => json_line(&trouble(format!("decisions are not read: {error}"))),
    }
    // What is made here is always JSON.
    .ok()
}

/// The last decision in a file: when it was made, and its number.
fn last_decision(lines: &Lines) -> Option<(Timestamp, u64)> {
    let events = lines.last().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let mut events = events.filter(|value| value["type"] == "event");
    events.find_map(|event| Some((event["time"].as_str()?.parse().ok()?, event["sequence"].as_u64()?)))
}

/// What `install` and `remove` report.
#[cfg_attr(not(windows), expect(dead_code, reason = "only Windows has services"))]
#[derive(Serialize)]
struct Changed {
    service: &'static str,
    changed: bool,
}

#[cfg(windows)]
fn install(keeping: &Keeping, output: &mut Output) -> Result<ExitCode, Failure> {
    use sluice_control::windows::keeper;
    let host = sluice_control::windows::WindowsHost::open();
    let host = host.map_err(|error| Failure::machine("checking the caller's privileges", error))?;
    let failed = |error| Failure::machine("installing the service", error);
    let mut arguments = vec!["service".to_owned(), "run".to_owned(), "--as-service".to_owned()];
    let mut keeping = keeping.clone();
    if let Some(policy) = &mut keeping.policy {
        *policy = std::path::absolute(&*policy)?;
    }
    keeping.decisions = Some(match &keeping.decisions {
        Some(file) => std::path::absolute(file)?,
        None => keeper::decisions().map_err(failed)?,
    });
    arguments.extend(keeping.arguments());
    sluice_control::remove_service(&host)?;
    let program = keeper::install(&arguments).map_err(failed)?;
    output.report(&Changed { service: sluice_protocol::KEEPER_NAME, changed: true }, |out| {
        writeln!(out, "{GOOD}installed{GOOD:#} the service {}, from {program}", sluice_protocol::KEEPER_NAME)
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(windows)]
fn remove(output: &mut Output) -> Result<ExitCode, Failure> {
    let host = sluice_control::windows::WindowsHost::open();
    let host = host.map_err(|error| Failure::machine("checking the caller's privileges", error))?;
    let changed = sluice_control::remove_service(&host)?;
    sluice_control::windows::keeper::clean();
    output.report(&Changed { service: sluice_protocol::KEEPER_NAME, changed }, |out| match changed {
        true => writeln!(out, "{GOOD}removed{GOOD:#}; the policy in force stays"),
        false => writeln!(out, "{WARNING}there is no such service{WARNING:#}"),
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(windows)]
fn as_service(keeping: &Keeping) -> Result<ExitCode, Failure> {
    let keeping = keeping.clone();
    let work = move |stop: &AtomicBool| -> Result<(), String> {
        let host = sluice_control::windows::WindowsHost::open().map_err(|error| error.to_string())?;
        let mut writer = Writer::new(&keeping).map_err(|failure| failure.to_string())?;
        keep(&host, &keeping.options(), &local_moment, stop, &mut |notice| {
            if let Some(trouble) = writer.note(&notice)
                && let Some(log) = &writer.log
            {
                log.trouble(&trouble);
            }
        });
        Ok(())
    };
    sluice_control::windows::keeper::serve(work)
        .map_err(|error| Failure::machine("answering the Service Control Manager", error))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(windows)]
impl Keeping {
    /// The arguments that say the same.
    fn arguments(&self) -> Vec<String> {
        let mut all = vec![
            format!("--size={}KiB", self.size >> 10),
            format!("--older={}", self.older),
            format!("--every={}", self.every.as_secs_f64()),
        ];
        let path =
            |name: &str, path: &Option<PathBuf>| path.as_ref().map(|path| format!("--{name}={}", path.display()));
        all.extend(path("policy", &self.policy));
        all.extend(path("decisions", &self.decisions));
        all.extend(self.event_log.then(|| "--event-log".to_owned()));
        all.extend(self.all.then(|| "--all".to_owned()));
        all
    }
}

#[cfg(not(windows))]
const NO_SERVICES: &str =
    "this system is not Windows and has no Windows services: `sluice service run` does the same here";

#[cfg(not(windows))]
fn install(_: &Keeping, _: &mut Output) -> Result<ExitCode, Failure> {
    Err(Failure::Usage(NO_SERVICES.to_owned()))
}

#[cfg(not(windows))]
fn remove(_: &mut Output) -> Result<ExitCode, Failure> {
    Err(Failure::Usage(NO_SERVICES.to_owned()))
}

#[cfg(not(windows))]
fn as_service(_: &Keeping) -> Result<ExitCode, Failure> {
    Err(Failure::Usage(NO_SERVICES.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_fit() {
        assert_eq!([size("64KiB"), size("16 MiB"), size("1GiB")], [Ok(65_536), Ok(16 << 20), Ok(1 << 30)]);
        for wrong in ["", "16", "MiB", "0MiB", "-1MiB", "16MB", "99999999999999999999GiB", "18446744073709551615KiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    /// Fractions of seconds have as many digits as they need: as texts they would be in another order.
    #[test]
    fn what_an_earlier_run_wrote_last_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("d.jsonl");
        let event =
            |time: &str, sequence| format!("{{\"type\":\"event\",\"time\":\"{time}\",\"sequence\":{sequence}}}\n");
        let text = event("2026-03-02T09:14:02.69Z", 7) + "half\n{\"type\":\"lost\",\"count\":3}\n";
        std::fs::write(&file, text).unwrap();
        let (time, sequence) = last_decision(&Lines::new(&file, 1000, 1)).unwrap();
        assert_eq!(sequence, 7);
        assert!("2026-03-02T09:14:02.6923Z".parse::<Timestamp>().unwrap() > time);
        assert_eq!(last_decision(&Lines::new(&folder.path().join("none"), 1000, 1)), None);
    }

    #[test]
    fn what_is_missing_is_a_line_of_its_own() {
        let lost = Item::Lost { count: 7 };
        assert_eq!(line(&Notice::Item(&lost)).unwrap(), r#"{"type":"lost","count":7}"#);
    }
}
