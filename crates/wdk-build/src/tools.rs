//! The programs of the LLVM tool chain.

use std::{env, ffi::OsString, path::Path, process::Command};

use crate::{ConfigError, IoError};

/// Version that this project is built with, and the suffix of Debian's program names.
const LLVM: &str = "22";

/// Finds an LLVM program: the one that `variable` names, or `name-22`, or `name`.
pub(crate) fn find(name: &'static str, variable: &'static str) -> Result<OsString, ConfigError> {
    println!("cargo::rerun-if-env-changed={variable}");
    if let Some(program) = env::var_os(variable) {
        return Ok(program);
    }
    [format!("{name}-{LLVM}"), name.to_owned()]
        .into_iter()
        .find(|candidate| is_in_path(candidate))
        .map(OsString::from)
        .ok_or(ConfigError::ToolNotFound { name, variable })
}

fn is_in_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Runs a program and turns its failure into an error that shows the command line.
pub(crate) fn run(command: &mut Command) -> Result<(), ConfigError> {
    let status = command.status().map_err(|source| IoError::with_path(Path::new(command.get_program()), source))?;
    if status.success() { Ok(()) } else { Err(ConfigError::ToolFailed { command: format!("{command:?}"), status }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_variable() {
        let error = find("llvm-nosuchtool", "LLVM_NOSUCHTOOL").unwrap_err().to_string();
        assert!(error.contains("llvm-nosuchtool-22") && error.contains("LLVM_NOSUCHTOOL"), "{error}");
    }

    #[test]
    fn a_failing_program_shows_its_command_line() {
        let error = run(Command::new("false").arg("--why")).unwrap_err().to_string();
        assert!(error.contains("\"false\" \"--why\"") && error.contains('1'), "{error}");
    }
}
