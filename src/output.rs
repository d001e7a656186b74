//! The one place that prints.

use crate::cli::Color;
use crate::failure::Failure;
pub(crate) use crate::page::{BAD, ERROR, GOOD, LABEL, WARNING};
use crate::page::{Harmless, Page};
use anstream::{AutoStream, ColorChoice};
use serde::Serialize;
use sluice_control::ControlError;
use sluice_policy::Diagnostic;
use std::io::{self, Stderr, Stdout, Write};
use std::process::ExitCode;

/// Standard output and standard error, as text or JSON, with colours where wanted.
pub(crate) struct Output {
    json: bool,
    /// Standard output has something else to carry.
    to_stderr: bool,
    stdout: Page<AutoStream<Stdout>>,
    stderr: Page<AutoStream<Stderr>>,
}

impl Output {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let choice = match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        Self {
            json,
            to_stderr: false,
            stdout: Page::new(AutoStream::new(io::stdout(), choice)),
            stderr: Page::new(AutoStream::new(io::stderr(), choice)),
        }
    }

    /// Whether reports are JSON.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// From now on reports go to standard error.
    pub(crate) fn report_aside(&mut self) {
        self.to_stderr = true;
    }

    /// Prints a report: as JSON, or as the text that `text` writes.
    pub(crate) fn report<T: Serialize>(
        &mut self,
        report: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let written = match (self.json, self.to_stderr) {
            (true, false) => json(self.stdout.stream(), report),
            (true, true) => json(self.stderr.stream(), report),
            (false, false) => text(&mut self.stdout).and_then(|()| self.stdout.flush()),
            (false, true) => text(&mut self.stderr),
        };
        Ok(written?)
    }

    /// Prints a text of this program's own, as it is.
    pub(crate) fn text(&mut self, text: &[u8]) -> Result<(), Failure> {
        let out = self.stdout.stream();
        Ok(out.write_all(text).and_then(|()| out.flush())?)
    }

    /// Prints the warnings of a policy that compiles. In JSON they are part of the report.
    pub(crate) fn warnings(&mut self, warnings: &[Diagnostic]) -> Result<(), Failure> {
        if !self.json && !warnings.is_empty() {
            writeln!(self.stderr.stream(), "{}", sluice_policy::diagnostic::render(warnings, true))?;
        }
        Ok(())
    }

    /// Prints a message while the command keeps running.
    pub(crate) fn trouble(&mut self, what: &str) -> Result<(), Failure> {
        match self.json {
            true => json(self.stderr.stream(), &serde_json::json!({ "warning": what }))?,
            false => writeln!(self.stderr, "{WARNING}warning{WARNING:#}: {what}")?,
        }
        Ok(())
    }

    /// Says something to a person that is no part of the report.
    pub(crate) fn aside(&mut self, what: &str) -> Result<(), Failure> {
        if !self.json {
            writeln!(self.stderr, "{what}")?;
        }
        Ok(())
    }

    /// Prints a failure and returns its exit status. A closed pipe is not an error: its reader has seen enough.
    pub(crate) fn failure(&mut self, failure: &Failure) -> ExitCode {
        if let Failure::Output(error) = failure
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        // When standard error is gone too, only the exit status is left.
        let _ = if self.json { json(self.stderr.stream(), &failure.json()) } else { self.failure_text(failure) };
        ExitCode::from(failure.exit_status())
    }

    fn failure_text(&mut self, failure: &Failure) -> io::Result<()> {
        if let Failure::Control(ControlError::Policy(errors)) = failure {
            write!(self.stderr.stream(), "{}", errors.render(true))?;
        } else {
            writeln!(self.stderr, "{ERROR}error{ERROR:#}: {failure}")?;
        }
        if let Failure::Control(ControlError::NotExpressible(rules)) = failure {
            rules.iter().skip(1).try_for_each(|rule| writeln!(self.stderr, "  {rule}"))?;
        }
        match failure.advice() {
            Some(advice) => writeln!(self.stderr, "  {advice}"),
            None => Ok(()),
        }
    }

    /// Prints what is wrong with the command line, which holds nothing that acts on a terminal, or the help that it asks
    /// for, and returns the exit status.
    pub(crate) fn usage(&mut self, error: &clap::Error) -> ExitCode {
        let text = error.render().to_string();
        // When the stream is gone, only the exit status is left.
        let _ = if !error.use_stderr() {
            write!(self.stdout.stream(), "{}", error.render().ansi())
        } else if self.json {
            json(self.stderr.stream(), &usage_json(error, &text))
        } else {
            write!(self.stderr.stream(), "{}", error.render().ansi())
        };
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    }
}

/// Writes one line of JSON.
fn json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let line = json_line(value)? + "\n";
    out.write_all(line.as_bytes()).and_then(|()| out.flush())
}

/// One line of JSON in which nothing acts on a terminal, without its end.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<String> {
    let mut line = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Harmless))?;
    String::from_utf8(line).map_err(io::Error::other)
}

/// A usage error in the form of every other failure: clap says what is wrong before it says how the command is used.
fn usage_json(error: &clap::Error, text: &str) -> serde_json::Value {
    let wrong = text.split("\n\nUsage:").next().unwrap_or_default();
    let wrong: Vec<&str> = wrong.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let wrong = wrong.join(" ");
    serde_json::json!({
        "error": wrong.strip_prefix("error: ").unwrap_or(&wrong),
        "exit_status": error.exit_code(),
        "advice": "see `sluice --help`",
    })
}
