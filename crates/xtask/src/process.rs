//! Runs other programs.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
};

/// Why a program failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot run {program:?}: {source}; `./dev` installs what is missing")]
    NotStarted { program: OsString, source: io::Error },
    /// It ended with a failure.
    #[error("{command} ended with {status}")]
    Failed {
        command: String,
        status: ExitStatus,
        /// Whether the program's own message is enough.
        reported: bool,
    },
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<(), ProcessError> {
    let status = command.status().map_err(|source| not_started(command, source))?;
    succeeded(command, status, false)
}

/// Runs a program to its end; its output is shown only if it fails.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub fn run_quietly(command: &mut Command) -> Result<(), ProcessError> {
    let output = command.output().map_err(|source| not_started(command, source))?;
    if !output.status.success() {
        let mut err = io::stderr().lock();
        // A closed standard error must not hide the failure itself.
        let _ = err.write_all(&output.stdout).and_then(|()| err.write_all(&output.stderr));
    }
    succeeded(command, output.status, false)
}

/// Runs one of the project's programs for the user: when it fails, it has reported why.
pub fn run_for_user(command: &mut Command) -> Result<(), ProcessError> {
    let status = command.status().map_err(|source| not_started(command, source))?;
    succeeded(command, status, true)
}

/// Runs a program and returns its standard output.
pub fn output(command: &mut Command) -> Result<String, ProcessError> {
    Ok(String::from_utf8_lossy(&output_bytes(command)?).into_owned())
}

/// The same, byte for byte.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub fn output_bytes(command: &mut Command) -> Result<Vec<u8>, ProcessError> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|source| not_started(command, source))?;
    succeeded(command, output.status, false)?;
    Ok(output.stdout)
}

/// Runs a program, shows its output as it comes, and returns the lines that `keep` picks.
pub fn run_keeping(
    command: &mut Command,
    keep: impl Fn(&str) -> bool,
) -> Result<(Vec<String>, Result<(), ProcessError>), ProcessError> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|source| not_started(command, source))?;
    let (sender, lines) = channel();
    let readers = [
        child.stdout.take().map(|pipe| forward(pipe, sender.clone())),
        child.stderr.take().map(|pipe| forward(pipe, sender)),
    ];
    let mut kept = Vec::new();
    let mut out = io::stdout().lock();
    for line in lines {
        // A closed standard output must not stop the tests.
        let _ = writeln!(out, "{line}");
        if keep(&line) {
            kept.push(line);
        }
    }
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    let status = child.wait().map_err(|source| not_started(command, source))?;
    Ok((kept, succeeded(command, status, false)))
}

fn forward(pipe: impl Read + Send + 'static, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if lines.send(text).is_err() {
                return;
            }
            line.clear();
        }
    })
}

fn not_started(command: &Command, source: io::Error) -> ProcessError {
    ProcessError::NotStarted { program: command.get_program().to_owned(), source }
}

fn succeeded(command: &Command, status: ExitStatus, reported: bool) -> Result<(), ProcessError> {
    if status.success() {
        return Ok(());
    }
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let command = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Err(ProcessError::Failed { command, status, reported })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn kept_lines_come_from_both_streams_and_failure_is_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo keep one; echo drop; echo keep two >&2; exit 3"]);
        let (mut kept, result) = run_keeping(&mut command, |line| line.starts_with("keep")).unwrap();
        kept.sort();
        assert_eq!(kept, ["keep one", "keep two"]);
        assert!(matches!(result, Err(ProcessError::Failed { status, .. }) if status.code() == Some(3)));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("sluice-no-such-program")).unwrap_err().to_string();
        assert!(error.contains("sluice-no-such-program") && error.contains("./dev"), "{error}");
    }
}
