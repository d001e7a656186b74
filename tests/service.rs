//! `sluice service run` on a machine with the real sluice.sys: it keeps the policy up to date, and writes decisions down.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use serde_json::Value;
use served::{Running, Served, Text, ended, eventually, served, sluice};
use shim::stack::Verdict;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use wire::Wire;

const POLICY: &str = r#"
[default]
outbound = "permit"
inbound = "permit"

[list.bad]
file = "bad.txt"

[[rule]]
name = "bad"
action = "block"
log = true
remote = "@bad"
"#;

/// A machine with a policy file, its list, and the service at work.
struct Kept {
    served: Served,
    service: Running,
}

impl Kept {
    fn path(&self, name: &str) -> PathBuf {
        self.served.files.path().join(name)
    }

    /// Starts it with these arguments besides the source and the file.
    fn start(served: Served, arguments: &[&str]) -> Self {
        served.file("office.toml", POLICY);
        served.file("bad.txt", "203.0.113.66\n");
        let service = Self::service(&served, arguments);
        let kept = Self { served, service };
        kept.says("in force: ", 1);
        kept
    }

    fn service(served: &Served, arguments: &[&str]) -> Running {
        let all = [&["service", "run", "--policy", "office.toml", "--every", "0.05"], arguments].concat();
        let output = |name: &str| fs::File::create(served.files.path().join(name)).unwrap();
        let mut command = served.command(&all);
        command.current_dir(served.files.path()).stdout(output("out")).stderr(output("error"));
        Running(command.spawn().unwrap())
    }

    /// Waits until it has said this so often.
    fn says(&self, what: &str, times: usize) {
        eventually(what, || self.said().matches(what).count() >= times);
    }

    fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        read("out") + &read("error")
    }

    /// Waits until a connection is decided so.
    fn decides(&self, wire: &mut Wire, address: &str, verdict: Verdict) {
        let wire = std::cell::RefCell::new(wire);
        eventually(address, || wire.borrow_mut().connect(address, 443).0 == verdict);
    }

    /// Ends it as a person or the system does.
    fn stop(mut self) -> Served {
        let id = self.service.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert_eq!(self.service.0.wait().unwrap().code(), Some(0), "{}", self.said());
        self.served
    }
}

fn installed() -> Served {
    let served = served();
    served.install();
    served
}

/// The objects in a file of lines.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn ports(path: &Path) -> Vec<u64> {
    let events = lines(path).into_iter().filter(|line| line["type"] == "event");
    events.map(|event| event["remote_port"].as_u64().unwrap()).collect()
}

#[test]
fn a_list_that_changes_is_in_force_and_decisions_are_in_the_file() {
    let kept = Kept::start(installed(), &["--decisions", "decisions.jsonl"]);
    let decisions = kept.path("decisions.jsonl");
    let mut wire = Wire::new(&kept.served.machine);
    assert_eq!(wire.connect("203.0.113.66", 1001).0, Verdict::Refuse);
    assert_eq!(wire.connect("203.0.113.70", 1002).0, Verdict::Forward);
    fs::write(kept.path("bad.txt"), "203.0.113.66\n203.0.113.70\n").unwrap();
    kept.decides(&mut wire, "203.0.113.70", Verdict::Refuse);
    kept.says("(seen: a file)", 1);

    // Half a list changes nothing, and is said once.
    fs::write(kept.path("office.toml"), &POLICY[..POLICY.len() / 2]).unwrap();
    kept.says("the policy is not kept up to date, will retry", 1);
    assert_eq!(wire.connect("203.0.113.70", 1003).0, Verdict::Refuse);
    fs::write(kept.path("office.toml"), POLICY).unwrap();
    kept.says("(seen: a failure before)", 1);
    // What somebody loads by hand is put back.
    kept.served.run(0, &["load", "--once", &kept.served.file("other.toml", support::PERMIT_ALL)]);
    kept.says("(seen: the policy in force)", 1);
    kept.decides(&mut wire, "203.0.113.66", Verdict::Refuse);

    eventually("the decision", || ports(&decisions).contains(&1003));
    let first = lines(&decisions);
    let event = first.iter().find(|line| line["remote_port"] == 1001).unwrap();
    assert_eq!(
        (&event["type"], &event["verdict"], &event["rule_name"]),
        (&"event".into(), &"block".into(), &"bad".into())
    );
    let reasons: Vec<_> =
        first.iter().filter(|line| line["type"] == "policy").map(|line| &line["because"][0]).collect();
    assert_eq!(reasons, ["the start", "a file", "a failure before", "the policy in force"]);
    assert_eq!(first.iter().filter(|line| line["type"] == "trouble").count(), 1);
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&decisions).unwrap().permissions().mode() & 0o777, 0o600);
    }

    // The next run begins behind what the last one has written.
    let served = kept.stop();
    assert_eq!(wire.connect("203.0.113.66", 1004).0, Verdict::Refuse);
    let before = ports(&decisions);
    let service = Kept::service(&served, &["--decisions", "decisions.jsonl"]);
    let kept = Kept { served, service };
    eventually("what came meanwhile", || ports(&decisions).contains(&1004));
    let served = kept.stop();
    let after = ports(&decisions);
    assert_eq!(after[..before.len()], before, "nothing is written twice");
    assert_eq!(after[before.len()..].iter().filter(|port| **port == 1004).count(), 1);
    assert_eq!(after.iter().filter(|port| **port == 1001).count(), 1);
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn the_file_is_turned_at_its_size_and_the_oldest_goes() {
    let kept = Kept::start(installed(), &["--decisions", "decisions.jsonl", "--size", "4KiB", "--older", "2"]);
    let mut wire = Wire::new(&kept.served.machine);
    let (newest, oldest) = (kept.path("decisions.jsonl"), kept.path("decisions.2.jsonl"));
    let wire_cell = std::cell::RefCell::new(&mut wire);
    // Until the first lines have gone.
    let count = std::cell::Cell::new(1u16);
    eventually("three files", || {
        wire_cell.borrow_mut().connect("203.0.113.66", count.get());
        count.set(count.get() + 1);
        oldest.exists() && !ports(&oldest).contains(&1)
    });
    let names: Vec<_> =
        ["decisions.jsonl", "decisions.1.jsonl", "decisions.2.jsonl"].map(|name| kept.path(name)).into();
    for name in &names {
        assert!(fs::metadata(name).unwrap().len() <= 4096, "{}", name.display());
    }
    assert!(!kept.path("decisions.3.jsonl").exists());
    let served = kept.stop();
    let all: Vec<u64> = names.iter().rev().flat_map(|name| ports(name)).collect();
    assert!(all.is_sorted() && all.len() > 10, "in order and whole: {all:?}");
    assert!(!ports(&newest).is_empty());
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_folder_that_is_missing_is_said_once_counted_and_stops_nothing() {
    let kept = Kept::start(installed(), &["--decisions", "none/decisions.jsonl"]);
    let decisions = kept.path("none/decisions.jsonl");
    let mut wire = Wire::new(&kept.served.machine);
    assert_eq!(wire.connect("203.0.113.66", 1001).0, Verdict::Refuse);
    kept.says("decisions.jsonl cannot be written, will retry; the policy stays in force", 1);
    fs::write(kept.path("bad.txt"), "203.0.113.66\n203.0.113.70\n").unwrap();
    kept.decides(&mut wire, "203.0.113.70", Verdict::Refuse);
    assert_eq!(kept.said().matches("cannot be written").count(), 1, "{}", kept.said());
    fs::create_dir(kept.path("none")).unwrap();
    let wire_cell = std::cell::RefCell::new(&mut wire);
    eventually("lines again", || {
        wire_cell.borrow_mut().connect("203.0.113.66", 1002);
        decisions.exists()
    });
    kept.says("is written again; ", 1);
    let first = &lines(&decisions)[0];
    assert!(first["type"] == "unwritten" && first["count"].as_u64().unwrap() >= 2, "{first}");
    let served = kept.stop();
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

/// A disk of 16 KiB. Needs a mount namespace of its own; where there is none, it says so.
#[test]
fn a_full_disk_is_said_and_stops_nothing() {
    let served = installed();
    let (disk, policy) = (served.files.path().join("disk"), served.file("office.toml", POLICY));
    served.file("bad.txt", "203.0.113.66\n");
    fs::create_dir(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size=16k none {} || exit 77; exec \"$@\"", disk.display());
    let file = disk.join("decisions.jsonl");
    let wanted = sluice(&["service", "run", "--every", "0.05", "--policy", &policy, "--decisions"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &mount, "sh"]).arg(wanted.get_program()).args(wanted.get_args()).arg(&file);
    command.env(sluice_host::remote::SOCKET_VARIABLE, served.server.path()).stdin(Stdio::null());
    let output = |name: &str| fs::File::create(served.files.path().join(name)).unwrap();
    command.stdout(output("out")).stderr(output("error"));
    let Ok(child) = command.spawn() else { return eprintln!("SKIPPED: no unshare") };
    let mut kept = Kept { served, service: Running(child) };
    let ended_early = std::cell::Cell::new(None);
    let service = std::cell::RefCell::new(&mut kept.service.0);
    let said = |what: &str| fs::read_to_string(kept.served.files.path().join(what)).unwrap_or_default();
    eventually("a start", || {
        ended_early.set(service.borrow_mut().try_wait().unwrap().and_then(|status| status.code()));
        ended_early.get().is_some() || said("out").contains("in force")
    });
    if let Some(code) = ended_early.get() {
        return eprintln!("SKIPPED: no mount namespace, status {code}: {}", said("error"));
    }
    let mut wire = Wire::new(&kept.served.machine);
    let wire_cell = std::cell::RefCell::new(&mut wire);
    eventually("a full disk", || {
        wire_cell.borrow_mut().connect("203.0.113.66", 1001);
        said("error").contains("cannot be written, will retry; the policy stays in force")
    });
    fs::write(kept.path("bad.txt"), "203.0.113.66\n203.0.113.70\n").unwrap();
    kept.decides(&mut wire, "203.0.113.70", Verdict::Refuse);
    let served = kept.stop();
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

/// A device that is open keeps a driver loaded: the service closes it, so nobody has to wait, and goes on afterwards.
#[test]
fn the_driver_goes_and_comes_while_it_runs() {
    let kept = Kept::start(installed(), &["--decisions", "decisions.jsonl"]);
    let text = kept.served.run(0, &["uninstall"]);
    assert!(text.out.contains("nothing of it is left"), "{}", text.out);
    kept.says("the driver is not installed", 1);
    kept.served.install();
    let mut wire = Wire::new(&kept.served.machine);
    kept.decides(&mut wire, "203.0.113.66", Verdict::Refuse);
    eventually("the decision", || !ports(&kept.path("decisions.jsonl")).is_empty());
    let served = kept.stop();
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn without_a_source_or_a_service_manager_it_says_so() {
    let served = installed();
    let none = served.command(&["service", "run", "--every", "0.05"]).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(Command::new("kill").args(["-TERM", &none.id().to_string()]).status().unwrap().success());
    let Text { error, .. } = ended(none.wait_with_output().unwrap(), 0);
    assert!(error.contains("no bundle has been applied"), "{error}");
    for verb in [&["service", "install"][..], &["service", "remove"], &["service", "run", "--event-log"]] {
        let error = served.run(2, verb).error;
        assert!(error.contains("is not Windows"), "{error}");
    }
    served.run(0, &["uninstall"]);
    served.is_clean();
}
