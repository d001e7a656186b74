//! What happens after a restart of the driver or of the machine: the policy that was loaded holds again.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::ops::ControlFlow;

use nt_abi::NtStatus;
use ntsim::{host::LocalHost, machine::Machine};
use shim::stack::Verdict;
use sluice_control::{
    EventOptions, Item, Loading, events,
    install::{Options, install_with},
    kept, load, load_with,
    objects::Fail,
    status, uninstall,
};
use sluice_host::{Host, ServiceState, StartType};
use sluice_protocol::{KEPT_POLICY, SERVICE_NAME};
use support::{PERMIT_ALL, Rig};
use wire::Wire;

const QUARANTINE: &str = r#"
[default]
outbound = "permit"
inbound = "permit"

[[rule]]
name = "quarantine"
action = "block"
log = true
remote = "203.0.113.66"
"#;

/// The verdict on a connection to an address.
fn connects(host: &LocalHost, remote: &str) -> bool {
    let mut wire = Wire::new(host.machine());
    let (verdict, _) = wire.connect(remote, 443);
    wire.finish();
    verdict == Verdict::Forward
}

fn at_start(host: &LocalHost) -> String {
    status(host).expect("a status").driver.expect("the driver is loaded").at_start
}

/// The reasons of the events that say that the kept policy was not put in force.
fn not_restored(host: &LocalHost) -> Vec<String> {
    let mut found = Vec::new();
    let mut sink = |item: &Item| {
        if let Item::NotRestored { why, .. } = item {
            found.push(why.clone());
        }
        ControlFlow::Continue(())
    };
    events(host, &EventOptions::default(), &mut sink).expect("the driver answers");
    found
}

/// Restarts the machine, and the driver with it.
fn restarted(host: &LocalHost) -> LocalHost {
    let host = host.restart();
    assert_eq!(host.service_state(SERVICE_NAME), Ok(ServiceState::Running));
    host
}

fn is_clean(host: &LocalHost) {
    uninstall(host).expect("it uninstalls");
    assert_eq!(host.read_driver(kept::FILE), Ok(None));
    for report in host.unload_reports() {
        assert!(report.is_clean(), "left behind: {report}");
    }
    if let Some(bugcheck) = host.machine().stopped() {
        panic!("{bugcheck}");
    }
}

#[test]
fn a_policy_that_was_loaded_holds_after_a_restart() {
    let rig = Rig::with_policy(QUARANTINE);
    let before = rig.status().driver.unwrap().policy.unwrap();
    let host = restarted(&rig.host);
    let report = status(&host).unwrap();
    assert!(report.keeps_what_is_in_force());
    let driver = report.driver.unwrap();
    assert_eq!((driver.at_start.as_str(), driver.policy.unwrap().identity), ("restored", before.identity));
    assert_eq!(driver.counters["policies_loaded"], 1);
    assert!(!connects(&host, "203.0.113.66") && connects(&host, "203.0.113.10"));
    is_clean(&host);
}

/// The machine is not restarted, only the driver: as after `sc stop Sluice`.
#[test]
fn a_policy_holds_when_the_driver_is_loaded_again() {
    let rig = Rig::with_policy(QUARANTINE);
    rig.host.stop_service(SERVICE_NAME).unwrap();
    assert!(connects(&rig.host, "203.0.113.66"));
    rig.host.start_service(SERVICE_NAME).unwrap();
    assert_eq!(at_start(&rig.host), "restored");
    assert!(!connects(&rig.host, "203.0.113.66"));
    is_clean(&rig.host);
}

#[test]
fn a_policy_that_was_loaded_once_does_not() {
    let rig = Rig::with_policy(QUARANTINE);
    let once = Loading { once: true, ..Loading::DEFAULT };
    load_with(&rig.host, &rig.policy_file(PERMIT_ALL), once).unwrap();
    assert!(connects(&rig.host, "203.0.113.66"));
    assert!(!rig.status().keeps_what_is_in_force());
    let host = restarted(&rig.host);
    assert!(!connects(&host, "203.0.113.66"), "what was kept before holds again");
    is_clean(&host);
}

/// The device can be opened a moment before DriverEntry is over. Whoever loads a policy then has it enforced: on a machine
/// that fails closed it is what the callouts wait for.
#[test]
fn a_policy_that_is_loaded_while_the_driver_starts_is_asked_about() {
    let host = LocalHost::new(Machine::new());
    let (driver, fail) = (support::driver(), Fail::Closed { management: Vec::new() });
    install_with(&host, &Options { start: Some(StartType::Demand), fail: Some(&fail), ..Options::of(&driver) })
        .unwrap();
    host.stop_service(SERVICE_NAME).unwrap();
    assert!(!connects(&host, "203.0.113.10"), "it fails closed");
    let files = tempfile::TempDir::new().unwrap();
    let policy = files.path().join("policy.toml");
    std::fs::write(&policy, QUARANTINE).unwrap();
    let loader = host.clone();
    host.machine().hooks.after("WdfControlFinishInitializing", move || {
        std::thread::spawn(move || load(&loader, &policy).expect("it loads")).join().expect("it has loaded");
    });
    host.start_service(SERVICE_NAME).unwrap();
    assert!(status(&host).unwrap().driver.unwrap().policy.is_some());
    assert!(connects(&host, "203.0.113.10") && !connects(&host, "203.0.113.66"));
    is_clean(&host);
}

#[test]
fn without_a_kept_policy_the_driver_starts_without_one() {
    let rig = Rig::install();
    let host = restarted(&rig.host);
    assert_eq!((at_start(&host).as_str(), not_restored(&host)), ("none", Vec::new()));
    assert!(status(&host).unwrap().driver.unwrap().policy.is_none());
    is_clean(&host);
}

/// An image that is cut short, changed, empty or no image, and a disk that fails: the driver starts without a policy, says
/// so, and takes the next one.
#[test]
fn what_cannot_be_restored_is_said_and_harms_nothing() {
    let rig = Rig::with_policy(QUARANTINE);
    let whole = rig.host.read_driver(kept::FILE).unwrap().unwrap();
    let changed = |at: usize| {
        let mut image = whole.clone();
        image[at] ^= 1;
        image
    };
    let cases = [
        (whole[..whole.len() - 1].to_vec(), "refused"),
        (whole[..whole.len() / 2].to_vec(), "refused"),
        (vec![0; 1], "refused"),
        (changed(0), "refused"),
        (changed(whole.len() - 1), "refused"),
        ([&whole[..], &[0]].concat(), "refused"),
        (Vec::new(), "unreadable: NTSTATUS 0xc0000011"), // STATUS_END_OF_FILE
    ];
    let mut host = rig.host.clone();
    for (content, why) in cases {
        host.machine().disk.write(KEPT_POLICY, content.as_slice());
        host = restarted(&host);
        assert_eq!(at_start(&host), why, "{} bytes", content.len());
        assert_eq!(not_restored(&host), [why], "{} bytes", content.len());
        let report = status(&host).unwrap();
        assert!(report.driver.unwrap().policy.is_none() && report.kept.unwrap().damaged.is_some());
        assert!(connects(&host, "203.0.113.66"), "as without a policy");
    }
    // The disk fails to read it.
    host.machine().disk.write(KEPT_POLICY, whole.as_slice());
    host.machine().disk.set_broken(Some(NtStatus(0xC000_009C_u32 as i32))); // STATUS_DEVICE_DATA_ERROR
    host = restarted(&host);
    assert_eq!(not_restored(&host), ["unreadable: NTSTATUS 0xc000009c"]);
    host.machine().disk.set_broken(None);
    load(&host, &rig.policy_file(QUARANTINE)).unwrap();
    assert!(status(&host).unwrap().keeps_what_is_in_force());
    assert!(!connects(&host, "203.0.113.66"));
    is_clean(&host);
}
