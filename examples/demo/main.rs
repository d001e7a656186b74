//! `./dev demo`: the real sluice.sys decides what curl may reach.
//!
//! Run without arguments this program starts `ntsim net`, and itself twice inside it: as the web server of the server
//! side (`serve`) and as the visitor on the client side (`visit`). The visitor runs curl against every target, asks
//! the driver what it decided, prints a table, and fails when any verdict is not the expected one.
//!
//! The end-to-end tests use three more parts of it: `echo`, a server that sends back what it receives, and the clients
//! `probe` and `exchange`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo prints to its user")]

mod serve;
mod visit;

use std::{
    env,
    error::Error,
    path::PathBuf,
    process::{Command, ExitCode},
};

/// The targets of the visits, and the expected verdicts.
const TARGETS: [Target; 4] = [
    Target { address: "203.0.113.10", permitted: true, rule: "web" },
    Target { address: "203.0.113.66", permitted: false, rule: "quarantine" },
    Target { address: "2001:db8:1::10", permitted: true, rule: "web" },
    Target { address: "2001:db8:1::66", permitted: false, rule: "quarantine" },
];

/// One address of the server side.
struct Target {
    address: &'static str,
    permitted: bool,
    rule: &'static str,
}

fn main() -> ExitCode {
    let result = match env::args().nth(1).as_deref() {
        None => run(),
        Some("serve") => serve::run(),
        Some("visit") => visit::run(),
        Some("echo") => serve::echo(),
        Some("probe") => visit::probe(),
        Some("exchange") => visit::exchange(),
        Some(other) => Err(format!("unknown part {other:?}; run the demo without arguments").into()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the simulated machine with both sides.
fn run() -> Result<ExitCode, Box<dyn Error>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let driver = root.join("target/sluice/x86_64/sluice.sys");
    let netevents = root.join("target/sluice/demo-netevents.xml");
    let this = env::current_exe()?;
    // The examples' folder is inside the programs' folder.
    let ntsim = this.ancestors().nth(2).ok_or("this program has no folder")?.join("ntsim");
    let mut command = Command::new(&ntsim);
    command.arg("net").arg("--driver").arg(&driver).arg("--policy").arg(root.join("examples/demo/policy.toml"));
    command.arg("--netevents").arg(&netevents);
    for target in &TARGETS {
        command.arg("--address").arg(target.address);
    }
    command.arg("--server").arg(format!("'{}' serve", this.display()));
    command.arg("--").arg(&this).arg("visit");
    let status = command.status().map_err(|error| format!("cannot start {}: {error}", ntsim.display()))?;
    if !status.success() {
        return Err(format!("a verdict was wrong, or the machine did not run ({status})").into());
    }
    println!("\nnet events as `netsh wfp show netevents` writes them: {}", netevents.display());
    Ok(ExitCode::SUCCESS)
}
