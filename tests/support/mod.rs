//! A simulated machine with the real sluice.sys in it.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of this")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ntsim::{host::LocalHost, machine::Machine};
use sluice_control::{StatusReport, device::Control, install, load, status, uninstall};
use sluice_policy::CompileOptions;
use tempfile::TempDir;

/// The driver made by `./dev build`; `SLUICE_SYS` names another one.
pub fn driver() -> PathBuf {
    let path = env::var_os("SLUICE_SYS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/sluice/x86_64/sluice.sys"),
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is missing: run `./dev build`, or `./dev test`, which builds it", path.display());
    path
}

/// A machine on which sluice is installed.
pub struct Rig {
    pub machine: Arc<Machine>,
    pub host: LocalHost,
    files: TempDir,
}

impl Rig {
    /// Boots a machine and installs the driver, without a policy.
    pub fn install() -> Self {
        Self::on(Machine::new())
    }

    /// Installs the driver on a machine that has been up for a while.
    pub fn on(machine: Arc<Machine>) -> Self {
        let host = LocalHost::new(machine.clone());
        install(&host, &driver()).expect("the driver installs");
        Self { machine, host, files: TempDir::new().expect("a folder for policies") }
    }

    /// Boots a machine on which every call of the driver may pass the baton of a
    /// [`Schedule`](ntsim::cpu::baton::Schedule), and installs the driver.
    pub fn scheduled() -> Self {
        let machine = Machine::new();
        machine.hooks.schedule();
        Self::on(machine)
    }

    /// Boots a machine, installs the driver and loads a policy.
    pub fn with_policy(toml: &str) -> Self {
        let rig = Self::install();
        rig.load(toml);
        rig
    }

    /// Writes a policy file.
    pub fn policy_file(&self, toml: &str) -> PathBuf {
        let file = self.files.path().join("policy.toml");
        fs::write(&file, toml).expect("the policy is written");
        file
    }

    /// Loads a policy that must be accepted.
    pub fn load(&self, toml: &str) {
        load(&self.host, &self.policy_file(toml)).expect("the policy loads");
    }

    /// Compiles a policy without loading it.
    pub fn compile(&self, toml: &str) -> Vec<u8> {
        let policy =
            sluice_policy::parse(Path::new("policy.toml"), toml, &sluice_control::Disk::default()).expect("it parses");
        let application = |path: &str| Ok(path.to_owned());
        let options = CompileOptions { application: &application, key: [7; 16], at: None };
        sluice_policy::compile(&policy, &options).expect("it compiles")
    }

    /// The image in force.
    pub fn image(&self) -> Vec<u8> {
        let (control, _) = Control::open(&self.host).expect("the device opens");
        control.policy().expect("the driver answers").expect("a policy is in force")
    }

    pub fn status(&self) -> StatusReport {
        status(&self.host).expect("a status")
    }

    /// One of the driver's counters, by its name.
    pub fn counter(&self, name: &str) -> u64 {
        let state = self.status().driver.expect("the driver is loaded");
        *state.counters.get(name).unwrap_or_else(|| panic!("there is no counter {name}"))
    }

    /// Uninstalls, and checks that nothing is left and no rule was violated.
    pub fn uninstall(self) {
        let report = uninstall(&self.host).expect("the driver uninstalls");
        assert!(!report.waiting, "the unload waits for something");
        if let Some(bugcheck) = self.machine.stopped() {
            panic!("{bugcheck}");
        }
        let reports = self.host.unload_reports();
        assert_eq!(reports.len(), 1, "the driver was unloaded once");
        assert!(reports[0].is_clean(), "the driver left behind: {}", reports[0]);
    }
}

/// A policy that permits and records everything.
pub const PERMIT_ALL: &str = "[default]\noutbound = \"permit\"\ninbound = \"permit\"\nlog = true\n";
/// A policy that blocks and records everything.
pub const BLOCK_ALL: &str = "[default]\noutbound = \"block\"\ninbound = \"block\"\nlog = true\n";
