//! A machine with nothing installed, served on a socket, and the command that acts on it.
#![allow(dead_code, reason = "every test program uses a part of this")]

use std::{
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ntsim::{host::LocalHost, machine::Machine};
use serde_json::Value;
use sluice_control::objects;
use sluice_host::{Host, ServiceState, remote};
use sluice_protocol::SERVICE_NAME;
use tempfile::TempDir;

use crate::support::driver;

/// The limit for actions that normally take milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A machine with nothing installed, served on a socket.
pub(crate) struct Served {
    pub(crate) machine: Arc<Machine>,
    pub(crate) host: LocalHost,
    pub(crate) server: remote::Server,
    pub(crate) files: TempDir,
}

pub(crate) fn served() -> Served {
    let machine = Machine::new();
    let host = LocalHost::new(machine.clone());
    let files = TempDir::new().unwrap();
    let server = remote::serve(Arc::new(host.clone()), &files.path().join("machine")).unwrap();
    Served { machine, host, server, files }
}

impl Served {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sluice(arguments);
        command.env(remote::SOCKET_VARIABLE, self.server.path());
        command
    }

    /// Runs the command, which must exit with `status`.
    pub(crate) fn run(&self, status: i32, arguments: &[&str]) -> Text {
        ended(self.command(arguments).output().unwrap(), status)
    }

    pub(crate) fn json(&self, status: i32, arguments: &[&str]) -> Value {
        let text = self.run(status, &[arguments, &["--json"]].concat());
        serde_json::from_str(&text.out).unwrap_or_else(|error| panic!("{error}: {}", text.out))
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn install(&self) {
        self.run(0, &["install", driver().to_str().unwrap()]);
    }

    pub(crate) fn state(&self) -> ServiceState {
        self.host.service_state(SERVICE_NAME).unwrap()
    }

    /// Checks that nothing is left and no rule was violated.
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.state(), ServiceState::Absent);
        let filters = self.host.open_engine().unwrap().filters(Some(objects::PROVIDER)).unwrap();
        assert!(filters.is_empty(), "{filters:?}");
        for file in [
            "sluice.sys",
            "sluice-new.sys",
            "sluice-old.sys",
            "sluice.policy",
            "sluice-new.policy",
            "sluice.bundle",
            "sluice-new.bundle",
        ] {
            assert_eq!(self.host.read_driver(file).unwrap(), None, "{file}");
        }
        for report in self.host.unload_reports() {
            assert!(report.is_clean(), "left behind: {report}");
        }
        if let Some(bugcheck) = self.machine.stopped() {
            panic!("{bugcheck}");
        }
    }
}

pub(crate) fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).env_remove(remote::SOCKET_VARIABLE).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// What a command printed.
pub(crate) struct Text {
    pub(crate) out: String,
    pub(crate) error: String,
}

pub(crate) fn ended(output: Output, status: i32) -> Text {
    let text =
        Text { out: String::from_utf8(output.stdout).unwrap(), error: String::from_utf8(output.stderr).unwrap() };
    assert_eq!(output.status.code(), Some(status), "{}{}", text.out, text.error);
    text
}

pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A command that keeps running and ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
