//! The one place that prints.

use crate::cli::Color;
use crate::failure::Failure;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use sluice_control::ControlError;
use sluice_policy::Diagnostic;
use std::io::{self, Stderr, Stdout, Write};
use std::process::ExitCode;

/// Errors.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Success.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Refusals.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Labels.
pub(crate) const LABEL: Style = Style::new().bold();

/// Standard output and standard error, as text or JSON, with colours where wanted.
pub(crate) struct Output {
    json: bool,
    /// Standard output has something else to carry.
    aside: bool,
    stdout: AutoStream<Stdout>,
    stderr: AutoStream<Stderr>,
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
            aside: false,
            stdout: AutoStream::new(io::stdout(), choice),
            stderr: AutoStream::new(io::stderr(), choice),
        }
    }

    /// From now on reports go to standard error.
    pub(crate) fn report_aside(&mut self) {
        self.aside = true;
    }

    /// Prints a report: as JSON, or as the text that `text` writes.
    pub(crate) fn report<T: Serialize>(
        &mut self,
        report: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let out: &mut dyn Write = if self.aside { &mut self.stderr } else { &mut self.stdout };
        let written = if self.json {
            serde_json::to_writer(&mut *out, report).map_err(io::Error::from).and_then(|()| out.write_all(b"\n"))
        } else {
            text(out)
        };
        Ok(written.and_then(|()| out.flush())?)
    }

    /// Prints the warnings of a policy that compiles. In JSON they are part of the report.
    pub(crate) fn warnings(&mut self, warnings: &[Diagnostic]) -> Result<(), Failure> {
        if !self.json && !warnings.is_empty() {
            writeln!(self.stderr, "{}", sluice_policy::diagnostic::render(warnings, true))?;
        }
        Ok(())
    }

    /// Prints a message while the command keeps running.
    pub(crate) fn trouble(&mut self, what: &str) -> Result<(), Failure> {
        match self.json {
            true => writeln!(self.stderr, "{}", serde_json::json!({ "warning": what }))?,
            false => writeln!(self.stderr, "{WARNING}warning{WARNING:#}: {what}")?,
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
        let _ = if self.json { writeln!(self.stderr, "{}", failure.json()) } else { self.failure_text(failure) };
        ExitCode::from(failure.exit_status())
    }

    fn failure_text(&mut self, failure: &Failure) -> io::Result<()> {
        if let Failure::Control(ControlError::Policy(errors)) = failure {
            write!(self.stderr, "{}", errors.render(true))?;
        } else {
            writeln!(self.stderr, "{ERROR}error{ERROR:#}: {failure}")?;
        }
        match failure.advice() {
            Some(advice) => writeln!(self.stderr, "  {advice}"),
            None => Ok(()),
        }
    }
}
