//! Which machine to act on.

use crate::cli::Cli;
use crate::failure::Failure;
use sluice_host::Host;

/// This machine.
#[cfg(windows)]
pub(crate) fn open(_: &Cli) -> Result<Box<dyn Host>, Failure> {
    match sluice_control::windows::WindowsHost::open() {
        Ok(host) => Ok(Box::new(host)),
        Err(error) => Err(Failure::machine("checking the caller's privileges", error)),
    }
}

/// The simulated machine that the command line or the environment names.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn open(cli: &Cli) -> Result<Box<dyn Host>, Failure> {
    let socket = cli.machine.as_deref().ok_or(Failure::NoMachine)?;
    match sluice_host::remote::RemoteHost::connect(socket) {
        Ok(host) => Ok(Box::new(host)),
        Err(error) => Err(Failure::machine("connecting to the simulated machine", error)),
    }
}

/// There is no machine.
#[cfg(not(any(windows, all(target_os = "linux", target_arch = "x86_64"))))]
pub(crate) fn open(_: &Cli) -> Result<Box<dyn Host>, Failure> {
    Err(Failure::NoMachine)
}
