//! Where objects and events come from: a file, or the engine of a machine.

use crate::cli::Cli;
use crate::failure::Failure;
use crate::machine;
use crate::output::Output;
use sluice_diagnose::read::{Cabinet, Item, ReadError, is_cabinet, is_log, read, read_log};
use sluice_diagnose::record::NetEvent;
use sluice_diagnose::{Platform, live};
use sluice_host::{Engine, HostResult};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// The objects of a file, or of the machine.
pub(super) fn platform(cli: &Cli, file: Option<&Path>) -> Result<Platform, Failure> {
    match file {
        Some(path) => with_xml(path, |xml| Platform::read(xml, &mut |_| {})),
        None => with_engine(cli, "listing the engine's objects", |engine| live::platform(engine)),
    }
}

/// The objects that events are joined to: of the file that is named for that, of a capture with the events, or of the
/// machine that the events are of. `None` when there are none; standard input can be read only once.
pub(super) fn state(cli: &Cli, named: Option<&Path>, events: Option<&Path>) -> Result<Option<Platform>, Failure> {
    match (named, events) {
        (Some(named), _) => platform(cli, Some(named)).map(Some),
        (None, None) => platform(cli, None).map(Some),
        (None, Some(path)) if path.as_os_str() == sluice_files::STDIN || is_log(&begins(path)?) => Ok(None),
        (None, Some(path)) => Ok(Some(platform(cli, Some(path))?).filter(|platform| !platform.filters.is_empty())),
    }
}

/// Asks the engine of the machine.
pub(super) fn with_engine<T>(
    cli: &Cli,
    doing: &str,
    ask: impl FnOnce(&mut dyn Engine) -> HostResult<T>,
) -> Result<T, Failure> {
    let host = machine::open(cli).map_err(|failure| match failure {
        Failure::NoMachine => Failure::NoSource,
        other => other,
    })?;
    let mut engine = host.open_engine().map_err(|error| Failure::machine("opening the engine", error))?;
    ask(&mut *engine).map_err(|error| Failure::machine(doing, error))
}

/// Opens a file, looks into a cabinet, and shows its XML to `read`.
pub(super) fn with_xml<T>(path: &Path, read: impl FnOnce(&mut dyn Read) -> Result<T, ReadError>) -> Result<T, Failure> {
    let unusable = |problem: String| Failure::Input { path: path.to_owned(), problem };
    if path.as_os_str() == sluice_files::STDIN {
        return read(&mut io::stdin().lock()).map_err(|error| unusable(error.to_string()));
    }
    let mut file = sluice_files::open(path).map_err(|error| unusable(error.to_string()))?;
    let mut start = [0; 8];
    let known = read_up_to(&mut file, &mut start).and_then(|read| file.seek(SeekFrom::Start(0)).map(|_| read));
    let known = known.map_err(|error| unusable(error.to_string()))?;
    let mut progress = Progress::new(file, path);
    let result = if is_cabinet(&start[..known]) {
        let mut cabinet = Cabinet::open(&mut progress).map_err(|error| unusable(error.to_string()))?;
        let name = cabinet.name().to_owned();
        let mut xml = cabinet.xml().map_err(|error| unusable(error.to_string()))?;
        read(&mut xml).map_err(|error| format!("{name} in it: {error}"))
    } else {
        read(&mut progress).map_err(|error| error.to_string())
    };
    result.map_err(unusable)
}

/// Takes an event, with the number of the audit that it is.
type EachEvent<'a> = &'a mut dyn FnMut(Option<u32>, NetEvent, &mut Output) -> Result<(), Failure>;

/// Shows the events of a file to `each`: net events, or the audits of a Security log with their numbers.
pub(super) fn each_event(path: &Path, output: &mut Output, each: EachEvent<'_>) -> Result<(), Failure> {
    let mut failed = None;
    let mut pass = |item| {
        let (audit, event) = match item {
            Item::Event(event) => (None, event),
            Item::Audit(number, event) => (Some(number), event),
            _ => return ControlFlow::Continue(()),
        };
        match each(audit, event, output) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    let unusable = |problem: String| Failure::Input { path: path.to_owned(), problem };
    let mut unread = 0;
    if path.as_os_str() != sluice_files::STDIN && is_log(&begins(path)?) {
        let file = sluice_files::open(path).map_err(|error| unusable(error.to_string()))?;
        let log = read_log(Progress::new(file, path), &mut pass);
        unread = log.map_err(|error| unusable(error.to_string()))?;
    } else {
        with_xml(path, |xml| read(xml, &mut pass))?;
    }
    if unread > 0 {
        output.trouble(&format!("{unread} records of {} cannot be read and were left out", path.display()))?;
    }
    failed.map_or(Ok(()), Err)
}

/// The first bytes of a file.
fn begins(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut start = [0; 8];
    let read = sluice_files::open(path).and_then(|mut file| read_up_to(&mut file, &mut start));
    match read {
        Ok(read) => Ok(start[..read].to_vec()),
        Err(error) => Err(Failure::Input { path: path.to_owned(), problem: error.to_string() }),
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// A file that tells on a terminal how much of it was read, when that takes long.
struct Progress {
    file: File,
    name: String,
    length: u64,
    read: u64,
    since: Instant,
    told: Option<Instant>,
    tells: bool,
}

/// Nothing is told of what takes shorter.
const PATIENCE: Duration = Duration::from_millis(700);
/// How often it is told.
const PACE: Duration = Duration::from_millis(100);

impl Progress {
    fn new(file: File, path: &Path) -> Self {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name = sluice_policy::text::harmless(&name).chars().take(40).collect();
        let tells = io::stderr().is_terminal() && length > 0;
        Self { file, name, length, read: 0, since: Instant::now(), told: None, tells }
    }

    fn tell(&mut self) {
        let now = Instant::now();
        let due = match self.told {
            None => now.duration_since(self.since) > PATIENCE,
            Some(told) => now.duration_since(told) > PACE,
        };
        if self.tells && due {
            self.told = Some(now);
            let percent = (self.read.min(self.length) * 100) / self.length;
            let filled = (percent / 5) as usize;
            // Where the terminal is gone, there is nobody to tell.
            let _ = write!(
                io::stderr(),
                "\rreading {} [{}{}] {percent} %",
                self.name,
                "=".repeat(filled),
                " ".repeat(20 - filled)
            );
        }
    }
}

impl Read for Progress {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read += read as u64;
        self.tell();
        Ok(read)
    }
}

impl Seek for Progress {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = write!(io::stderr(), "\r{:width$}\r", "", width = 80.min(self.name.len() + 40));
        }
    }
}
