//! What passes while the machine starts: under `--fail closed` nothing that the policy forbids, from the first moment on,
//! and what must stay reachable always; under `--fail open` the machine is never cut off.

#[path = "support/passing.rs"]
mod passing;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::path::Path;

use ntsim::{
    host::{LocalHost, Stage},
    machine::Machine,
};
use passing::{ALL, BY_POLICY, ESSENTIAL, FORBIDDEN, POLICY, closed, passes, stages};
use shim::stack::Verdict;
use sluice_control::{
    install::{Options, install_with},
    kept, load,
    objects::Fail,
    status, uninstall,
};
use sluice_host::{Host, ServiceState, StartType};
use sluice_protocol::{KEPT_POLICY, SERVICE_NAME};
use support::driver;
use tempfile::TempDir;
use wire::{Segment, Wire};

struct Installed {
    host: LocalHost,
    folder: TempDir,
}

/// A machine on which the driver is installed, with a policy.
fn installed(start: StartType, fail: &Fail) -> Installed {
    let installed = Installed { host: LocalHost::new(Machine::new()), folder: TempDir::new().unwrap() };
    let policy = installed.policy(POLICY);
    install(&installed.host, start, fail, Some(&policy));
    installed
}

fn install(host: &LocalHost, start: StartType, fail: &Fail, policy: Option<&Path>) {
    let driver = driver();
    let options = Options { policy, start: Some(start), fail: Some(fail), ..Options::of(&driver) };
    install_with(host, &options).expect("it installs");
}

impl Installed {
    fn policy(&self, text: &str) -> std::path::PathBuf {
        let path = self.folder.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn uninstall(self, host: &LocalHost) {
        if let Some(bugcheck) = host.machine().stopped() {
            panic!("{bugcheck}");
        }
        uninstall(host).expect("it uninstalls");
        for report in host.unload_reports() {
            assert!(report.is_clean(), "left behind: {report}");
        }
        assert_eq!(host.service_parameter(SERVICE_NAME, "FailClosed"), Ok(None));
        assert_eq!(passes(host), ALL);
    }
}

#[test]
fn a_machine_that_fails_closed_is_never_open_for_one_packet() {
    for start in [StartType::Boot, StartType::System, StartType::Demand] {
        let installed = installed(start, &closed());
        assert_eq!(passes(&installed.host), BY_POLICY);
        let (host, seen) = stages(&installed.host);
        for (stage, passing) in seen {
            let driver_is_asked =
                start != StartType::Demand && matches!(stage, Some(Stage::FilterEngine | Stage::AutoStart));
            assert_eq!(passing, if driver_is_asked { BY_POLICY } else { ESSENTIAL }, "{start:?}, {stage:?}");
        }
        if start == StartType::Demand {
            host.start_service(SERVICE_NAME).unwrap();
        }
        assert_eq!(passes(&host), BY_POLICY, "{start:?}");
        assert_eq!(status(&host).unwrap().driver.unwrap().at_start, "restored", "{start:?}");
        installed.uninstall(&host);
    }
}

#[test]
fn a_machine_that_fails_open_is_never_cut_off() {
    for start in [StartType::Boot, StartType::System, StartType::Demand] {
        let installed = installed(start, &Fail::Open);
        let (host, seen) = stages(&installed.host);
        for (stage, passing) in seen {
            let driver_is_asked =
                start != StartType::Demand && matches!(stage, Some(Stage::FilterEngine | Stage::AutoStart));
            assert_eq!(passing, if driver_is_asked { BY_POLICY } else { ALL }, "{start:?}, {stage:?}");
        }
        installed.uninstall(&host);
    }
}

/// Missing, cut short, or of another format: the machine stays closed until a policy is loaded, or open.
#[test]
fn without_a_valid_policy_the_machine_does_as_declared() {
    for (fail, without) in [(closed(), ESSENTIAL), (Fail::Open, ALL)] {
        for start in [StartType::Boot, StartType::System] {
            let installed = installed(start, &fail);
            let mut host = installed.host.clone();
            let whole = host.read_driver(kept::FILE).unwrap().unwrap();
            for content in [None, Some(&whole[..whole.len() / 2]), Some(&b"no image"[..]), Some(&[][..])] {
                match content {
                    Some(content) => host.machine().disk.write(KEPT_POLICY, content),
                    None => drop(host.machine().disk.remove(KEPT_POLICY)),
                }
                let (started, seen) = stages(&host);
                host = started;
                assert!(seen.iter().all(|(_, passing)| *passing == without), "{start:?}, {fail}, {seen:?}");
                assert_ne!(status(&host).unwrap().driver.unwrap().at_start, "restored");
            }
            load(&host, &installed.policy(POLICY)).expect("the driver takes a policy all the same");
            assert_eq!(passes(&host), BY_POLICY);
            installed.uninstall(&host);
        }
    }
}

/// The driver is stopped, or an installation without a policy is made closed while it runs, or opened again.
#[test]
fn closed_and_open_hold_without_a_restart_too() {
    let installed = installed(StartType::Demand, &Fail::Open);
    let host = installed.host.clone();
    install(&host, StartType::Demand, &closed(), None);
    assert_eq!(passes(&host), BY_POLICY);
    assert_eq!(status(&host).unwrap().fail, closed());
    host.stop_service(SERVICE_NAME).unwrap();
    assert_eq!(passes(&host), ESSENTIAL);
    host.machine().disk.remove(KEPT_POLICY);
    host.start_service(SERVICE_NAME).unwrap();
    assert_eq!(passes(&host), ESSENTIAL, "no policy");
    install(&host, StartType::System, &Fail::Open, None);
    assert_eq!(passes(&host), ALL);
    assert_eq!(host.service_start(SERVICE_NAME), Ok(Some(StartType::System)));
    installed.uninstall(&host);
}

/// A connection that is older than the driver is asked about again when the Base Filtering Engine starts, or the driver.
#[test]
fn connections_older_than_the_driver_are_decided_too() {
    let installed = installed(StartType::System, &Fail::Open);
    let mut boot = installed.host.power_on();
    let mut wire = Wire::new(boot.host().machine());
    let mut tcp = wire.establish(FORBIDDEN[0], 443);
    while boot.step().is_some() {}
    assert_eq!(wire.send(&mut tcp, Segment::Data(b"more")), Verdict::Abort);
    wire.finish();
    let host = boot.finish();
    assert_eq!(host.service_state(SERVICE_NAME), Ok(ServiceState::Running));

    host.stop_service(SERVICE_NAME).unwrap();
    let mut wire = Wire::new(host.machine());
    let mut tcp = wire.establish(FORBIDDEN[0], 443);
    host.start_service(SERVICE_NAME).unwrap();
    assert_eq!(wire.send(&mut tcp, Segment::Data(b"more")), Verdict::Abort);
    wire.finish();

    // The engine is stopped and started while the driver stays.
    host.set_engine(false);
    host.set_engine(true);
    assert_eq!(passes(&host), BY_POLICY);
    installed.uninstall(&host);
}
