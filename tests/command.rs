//! The `sluice` command on a machine served over a socket, with the real sluice.sys in it.

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use served::{PATIENCE, Running, Served, Text, ended, eventually, served, sluice};
use shim::stack::Verdict;
use sluice_control::objects;
use sluice_host::{Host, ServiceState};
use sluice_protocol::{SERVICE_NAME, object::CALLOUTS};
use support::{PERMIT_ALL, driver};
use tempfile::TempDir;
use wire::Wire;

const QUARANTINE: &str = r#"
[default]
outbound = "permit"
inbound = "permit"
log = true

[[rule]]
name = "quarantine"
action = "block"
log = true
remote = "203.0.113.66"
"#;

#[test]
fn the_whole_life_of_an_installation() {
    let served = served();
    let text = served.run(3, &["status"]);
    assert!(text.out.contains("not installed") && text.out.contains("none"), "{}", text.out);
    assert!(served.run(0, &["uninstall"]).out.contains("Sluicegate is not installed"));

    let driver = driver();
    let planned = served.json(0, &["install", "--dry-run", driver.to_str().unwrap()]);
    assert_eq!(served.state(), ServiceState::Absent, "a dry run changes nothing");
    let text = served.run(0, &["install", driver.to_str().unwrap()]);
    for part in
        ["put the copy in place: C:\\Windows\\System32\\drivers\\sluice.sys", "load the driver", "add the filters"]
    {
        assert!(text.out.contains(part), "{part} in {}", text.out);
    }
    assert_eq!(
        planned["steps"].as_array().unwrap().len(),
        text.out.lines().filter(|line| line.starts_with("  ")).count()
    );
    assert_eq!(served.state(), ServiceState::Running);
    assert_eq!(served.host.read_driver("sluice.sys").unwrap(), Some(std::fs::read(&driver).unwrap()));
    let image_path = served.host.service_driver(SERVICE_NAME).unwrap().unwrap();
    assert_eq!(image_path, r"\SystemRoot\System32\drivers\sluice.sys");
    let text = served.run(0, &["install", driver.to_str().unwrap()]);
    assert!(text.out.contains("already installed"), "{}", text.out);

    let status = served.json(0, &["status"]);
    assert_eq!(status["filters"].as_array().unwrap().len(), CALLOUTS.len());
    assert_eq!(status["filters_complete"], true);
    assert_eq!(status["driver"]["policy"], Value::Null);

    let policy = served.file("policy.toml", QUARANTINE);
    let loaded = served.json(0, &["load", &policy]);
    assert_eq!((&loaded["epoch"], &loaded["rules"]), (&1.into(), &1.into()));
    let status = served.json(0, &["status"]);
    assert_eq!(status["driver"]["policy"]["identity"], loaded["identity"]);
    assert_eq!(status["driver"]["counters"]["policies_loaded"], 1);
    let text = served.run(0, &["status"]);
    assert!(text.out.contains(loaded["identity"].as_str().unwrap()), "{}", text.out);
    assert!(!text.out.contains('\u{1b}'), "colours only on a terminal: {}", text.out);

    let text = served.run(0, &["uninstall"]);
    for part in ["the driver was unloaded", "sluice.sys was deleted", "nothing of it is left"] {
        assert!(text.out.contains(part), "{part} in {}", text.out);
    }
    served.is_clean();
    served.run(3, &["status"]);
    served.run(3, &["load", &policy]);
    assert!(served.run(3, &["events"]).error.contains("the driver is not installed"));
}

#[test]
fn events_say_what_was_decided_as_text_and_as_json() {
    let served = served();
    served.install();
    served.run(0, &["load", &served.file("policy.toml", QUARANTINE)]);
    assert_eq!(served.run(0, &["events"]).out, "");
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    let text = served.run(0, &["events"]);
    for part in
        [" block  out tcp ", " 203.0.113.66:443 ", r#" rule "quarantine" "#, " ALE_AUTH_CONNECT_V4 ", wire::APP_ID]
    {
        assert!(text.out.contains(part), "{part:?} in {}", text.out);
    }
    assert_eq!(text.out.lines().count(), 1, "{}", text.out);

    // A waiting reader is told at once.
    let reader = served
        .command(&["events", "--new", "--count", "1", "--timeout", "20", "--json"])
        .stdout(Stdio::piped())
        .spawn();
    let reader = thread::spawn(move || reader.unwrap().wait_with_output().unwrap());
    let start = Instant::now();
    while !reader.is_finished() {
        assert!(start.elapsed() < PATIENCE, "the reader was told nothing");
        assert_eq!(wire.connect("203.0.113.66", 22).0, Verdict::Refuse);
        thread::sleep(Duration::from_millis(50));
    }
    let event: Value = serde_json::from_str(&ended(reader.join().unwrap(), 0).out).unwrap();
    assert_eq!(
        (&event["type"], &event["verdict"], &event["remote_port"]),
        (&"event".into(), &"block".into(), &22.into())
    );
    assert_eq!((&event["rule_name"], &event["process_id"]), (&"quarantine".into(), &wire::PID.into()));
    let filters = served.json(0, &["status"])["filters"].clone();
    let connect = filters.as_array().unwrap().iter().find(|filter| filter["layer"] == "ALE_AUTH_CONNECT_V4").unwrap();
    assert_eq!(event["filter_id"], connect["id"]);

    // The driver still has the first, and every reader gets it.
    let of_rule = ["events", "--rule", "quarantine", "--verdict", "block"];
    assert!(served.run(0, &of_rule).out.contains(" 203.0.113.66:443 "));
    assert_eq!(served.run(0, &["events", "--verdict", "permit"]).out, "");
    let text = served.run(1, &["events", "--new", "--count", "2", "--timeout", "0.2"]);
    assert!(text.error.contains("0 of the 2 events came before the timeout"), "{}", text.error);
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_bad_policy_never_replaces_a_good_one() {
    let served = served();
    served.install();
    let good = served.json(0, &["load", &served.file("good.toml", PERMIT_ALL)]);
    let bad = served.file("bad.toml", "[default]\noutbound = \"permitt\"\n");
    let text = served.run(4, &["load", &bad]);
    assert!(text.error.contains("bad.toml:2:12") && text.error.contains("did you mean `permit`?"), "{}", text.error);
    let status = served.json(0, &["status"]);
    assert_eq!(status["driver"]["policy"]["identity"], good["identity"]);
    // A missing program does not make a policy invalid; it is reported with its place.
    let missing =
        served.file("missing.toml", "[[rule]]\nname = \"x\"\naction = \"block\"\napplication = '/no/such/program'\n");
    let text = served.run(0, &["load", &missing]);
    assert!(text.error.contains("missing.toml:4") && text.error.contains("/no/such/program"), "{}", text.error);
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_policy_that_does_not_do_what_it_expects_is_not_loaded() {
    let served = served();
    served.install();
    let expect = |verdict: &str| {
        format!("{QUARANTINE}\n[[rule.expect]]\nremote = \"203.0.113.66:443\"\nverdict = \"{verdict}\"\n")
    };
    let right = served.file("right.toml", &expect("block"));
    let loaded = served.json(0, &["load", &right]);
    assert_eq!(loaded["expectations"], 1);
    let wrong = served.file("wrong.toml", &expect("permit"));
    let refused = served.run(4, &["load", &wrong]).error;
    assert!(refused.contains("wrong.toml: 1 of 1 expectations fail, in line 13: "), "{refused}");
    assert!(refused.contains("sluice policy test") && refused.contains("--no-test"), "{refused}");
    let status = served.json(0, &["status"]);
    assert_eq!(status["driver"]["policy"]["identity"], loaded["identity"]);
    served.run(4, &["load", "--watch", &wrong]);
    served.run(0, &["load", "--no-test", &wrong]);
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn status_says_where_the_policy_came_from_and_images_are_loaded_too() {
    let served = served();
    served.install();
    let policy = served.file("office\u{1b}[2J.toml", QUARANTINE);
    let shown = policy.replace('\u{1b}', "\\u{1b}");
    served.run(0, &["load", &policy]);
    let text = served.run(0, &["status"]).out;
    assert!(text.contains(&format!("from {shown}\n")) && text.contains(" by "), "{text}");
    let origin = served.json(0, &["status"])["driver"]["policy"]["origin"].clone();
    assert_eq!(origin["file"], policy.as_str());
    assert!(origin["loaded"].as_str().unwrap().ends_with('Z'), "{origin}");

    let image = served.files.path().join("image");
    let compiled = served.json(0, &["policy", "compile", &policy, "-o", image.to_str().unwrap()]);
    let loaded = served.json(0, &["load", image.to_str().unwrap()]);
    assert_eq!(loaded["rules"], 1);
    let policy_in_force = served.json(0, &["status"])["driver"]["policy"].clone();
    assert_eq!(policy_in_force["origin"]["file"], image.to_str().unwrap());
    assert_eq!(policy_in_force["origin"]["image"], compiled["identity"]);
    assert_eq!(policy_in_force["identity"], loaded["identity"]);

    // What is in force is compared with a policy on disk.
    assert!(served.run(0, &["policy", "diff", "--in-force", &policy]).out.starts_with("no difference"));
    let other = served.file("other.toml", &QUARANTINE.replace("203.0.113.66", "203.0.113.67"));
    let text = served.run(1, &["policy", "diff", &other, "--in-force"]).out;
    assert!(text.contains("block (hard) by rule `quarantine` -> permit (soft) by the default"), "{text}");
    served.run(2, &["policy", "diff", &other, &policy, "--in-force"]);
    served.run(0, &["uninstall"]);
    served.run(3, &["policy", "diff", &other, "--in-force"]);
    served.is_clean();
}

#[test]
fn programs_are_found_behind_their_links() {
    let served = served();
    served.install();
    let program = served.files.path().canonicalize().unwrap().join("Program");
    let link = served.files.path().join("link");
    std::fs::write(&program, "").unwrap();
    std::os::unix::fs::symlink(&program, &link).unwrap();
    let policy = format!("[[rule]]\nname = \"x\"\naction = \"block\"\napplication = '{}'\n", link.display());
    served.run(0, &["load", &served.file("policy.toml", &policy)]);
    let (control, _) = sluice_control::device::Control::open(&served.host).unwrap();
    let image = control.policy().unwrap().unwrap();
    drop(control);
    let path: Vec<u8> = ntsim::host::nt_path(&program).encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(image.windows(path.len()).any(|window| window == path), "the program's own NT path is in the image");
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_list_that_lost_most_of_its_entries_is_loaded_only_when_that_is_meant() {
    let served = served();
    served.install();
    let policy = "[list.bad]\nfile = \"bad.txt\"\n[[rule]]\nname = \"bad\"\naction = \"block\"\nremote = \"@bad\"\n";
    let policy = served.file("policy.toml", policy);
    served.file("bad.txt", "192.0.2.1\n192.0.2.3\n192.0.2.5\n192.0.2.7\n");
    let whole = served.json(0, &["load", &policy])["identity"].clone();
    served.file("bad.txt", "192.0.2.1\n");
    let refused = served.run(4, &["load", &policy]).error;
    assert!(refused.contains("list `bad` has 1 entries, and 4 in the policy in force"), "{refused}");
    assert!(refused.contains("--accept-shrunk"), "{refused}");
    assert_eq!(served.json(0, &["status"])["driver"]["policy"]["identity"], whole);
    served.run(0, &["load", "--accept-shrunk", &policy]);
    served.run(2, &["load", "--accept-shrunk", "--check", &policy]);
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn status_says_that_a_drive_is_not_where_the_policy_has_it() {
    let served = served();
    served.install();
    let policy = served.file("policy.toml", "[[rule]]\nname = \"x\"\naction = \"block\"\napplication = 'C:\\a.exe'\n");
    let image = served.files.path().join("image");
    let drive = [r"--drive", r"C:=\Device\HarddiskVolume7", "-o", image.to_str().unwrap()];
    served.run(0, &[&["policy", "compile", &policy], &drive[..]].concat());
    sluice_control::load_image(&served.host, &std::fs::read(&image).unwrap()).unwrap();
    let said = served.run(0, &["status"]).out;
    assert!(
        said.contains(r"drive C: was \device\harddiskvolume7 when the policy was loaded, and is \device\harddisk"),
        "{said}"
    );
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_policy_without_changes_needs_no_watching() {
    let served = served();
    served.install();
    let policy = served.file("policy.toml", QUARANTINE);
    // It ends by itself, since no schedule will change anything.
    assert!(served.run(0, &["load", "--watch", &policy]).out.contains("in force"));
    served.run(4, &["load", "--watch", &served.file("bad.toml", "[default")]);
    served.run(2, &["load", "--watch", "--check", &policy]);
    let night = "[schedule.night]\nhours = \"18:00-08:00\"\n[[rule]]\nname = \"night\"\naction = \"block\"\n\
                 local-port = 3389\nschedule = \"night\"\n";
    let loaded = served.json(0, &["load", &served.file("night.toml", night)]);
    assert!(loaded["schedules_change_at"].as_str().is_some_and(|at| at.ends_with("18:00") || at.ends_with("08:00")));
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn an_installation_that_lacks_something_is_repaired() {
    let served = served();
    served.install();
    {
        let mut engine = served.host.open_engine().unwrap();
        let filters = engine.filters(Some(objects::PROVIDER)).unwrap();
        engine.delete_filter(filters[5].key).unwrap();
    }
    let text = served.run(0, &["status"]);
    let left = format!("{}, not as expected", CALLOUTS.len() - 1);
    assert!(text.out.contains(&left), "{}", text.out);
    let report = served.json(0, &["install", driver().to_str().unwrap()]);
    assert_eq!(report["steps"], serde_json::json!([{ "step": "add_filters", "changed": [] }]));
    assert_eq!(served.json(0, &["status"])["filters_complete"], true);
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_policy_is_in_force_only_with_its_filters() {
    let served = served();
    served.install();
    let policy = served.file("policy.toml", QUARANTINE);
    {
        let mut engine = served.host.open_engine().unwrap();
        let filters = engine.filters(Some(objects::PROVIDER)).unwrap();
        engine.delete_filter(filters[0].key).unwrap();
    }
    let text = served.run(3, &["load", &policy]);
    for part in ["not in force", "missing: the filter ALE_AUTH_CONNECT_V4", "`sluice install` fixes this"] {
        assert!(text.out.contains(part), "{part} in {}", text.out);
    }
    served.install();
    assert!(served.run(0, &["load", &policy]).out.starts_with("in force"));

    // With the Base Filtering Engine stopped.
    served.host.set_engine(false);
    assert!(served.run(3, &["load", &policy]).out.contains("cannot be queried"));
    let text = served.run(0, &["status"]);
    assert!(text.out.contains("unknown") && text.out.contains("1 rules"), "{}", text.out);
    let text = served.run(1, &["uninstall"]);
    for part in ["the driver was unloaded", "the service was deleted", "sc start BFE"] {
        assert!(text.out.contains(part), "{part} in {}", text.out);
    }
    served.host.set_engine(true);
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn the_doctor_names_what_is_wrong_until_nothing_is() {
    let served = served();
    let text = served.run(1, &["doctor"]);
    assert!(text.out.contains("not installed") && text.out.contains("sluice install"), "{}", text.out);
    served.install();
    let report = served.json(1, &["doctor"]);
    assert_eq!(report["findings"].as_array().unwrap().len(), 1);
    assert_eq!(report["findings"][0]["mend"], "sluice load FILE");
    served.run(0, &["load", &served.file("policy.toml", QUARANTINE)]);
    let text = served.run(0, &["doctor"]);
    assert!(text.out.contains("filters are present and as expected"), "{}", text.out);
    served.run(0, &["uninstall"]);
    served.is_clean();
}

/// A permit under the key of our filter, and a heavy one beside it: both let everything pass, and both are found.
#[test]
fn a_filter_in_our_place_is_found_and_repaired() {
    use sluice_host::{Filter, FilterAction, Guid, Weight};
    let served = served();
    served.install();
    let place = &sluice_protocol::object::CALLOUTS[0];
    let permit =
        Filter { action: FilterAction::Permit, provider: None, ..objects::filter(place, &objects::Fail::Open) };
    let heavy = Filter { key: Some(Guid(7)), weight: Weight::Exact(u64::MAX), name: "heavy".into(), ..permit.clone() };
    {
        let mut engine = served.host.open_engine().unwrap();
        engine.delete_filter(Guid(place.filter)).unwrap();
        for filter in [&permit, &heavy] {
            engine.add_filter(&Filter { flags: 1, ..filter.clone() }).unwrap();
        }
    }
    served.run(3, &["load", &served.file("policy.toml", QUARANTINE)]);
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Forward);
    wire.finish();
    let text = served.run(0, &["status"]);
    for part in ["changed", "action is \"permit\"", "foreign", "`heavy`", "action: permit"] {
        assert!(text.out.contains(part), "{part} in {}", text.out);
    }
    let status = served.json(0, &["status"]);
    assert_eq!((&status["filters_complete"], &status["foreign"][0]["name"]), (&false.into(), &"heavy".into()));
    // What is ours is repaired; what is not is reported and stays.
    let text = served.run(0, &["install", driver().to_str().unwrap()]);
    assert!(text.out.contains("repairs") && text.out.contains("`heavy`"), "{}", text.out);
    assert_eq!(served.json(0, &["status"])["filters_complete"], true);
    served.host.open_engine().unwrap().delete_filter(Guid(7)).unwrap();
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_file_that_is_not_a_driver_leaves_nothing_behind() {
    let served = served();
    let text = served.run(1, &["install", "/no/such/sluice.sys"]);
    assert!(text.error.contains("driver file /no/such/sluice.sys"), "{}", text.error);
    let text = served.run(1, &["install", &served.file("sluice.sys", "this is not a driver")]);
    assert!(text.error.contains("not a PE image"), "{}", text.error);
    // It looks like a driver until it is loaded.
    let mut half = std::fs::read(driver()).unwrap();
    half.truncate(0x1000);
    let path = served.files.path().join("half.sys");
    std::fs::write(&path, half).unwrap();
    let text = served.run(1, &["install", path.to_str().unwrap()]);
    assert!(text.error.contains("ERROR_BAD_EXE_FORMAT"), "{}", text.error);
    served.is_clean();
    let text = served.run(1, &["install"]);
    assert!(text.error.contains("does not exist") && text.error.contains("sluice.sys"), "{}", text.error);
}

/// A driver other than `driver()` that also loads: a trailing byte belongs to no section.
fn another_driver(served: &Served) -> PathBuf {
    let mut image = std::fs::read(driver()).unwrap();
    image.push(0);
    let path = served.files.path().join("another.sys");
    std::fs::write(&path, image).unwrap();
    path
}

#[test]
fn a_new_driver_takes_over_filters_and_policy() {
    let served = served();
    served.install();
    let loaded = served.json(0, &["load", &served.file("policy.toml", QUARANTINE)]);
    let before = served.json(0, &["status"]);
    let another = another_driver(&served);
    let report = served.json(0, &["install", another.to_str().unwrap()]);
    let steps: Vec<&str> =
        report["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(
        steps,
        ["copy_driver", "keep_old", "unload_driver", "place_driver", "load_driver", "load_policy", "delete_old"]
    );
    let after = served.json(0, &["status"]);
    assert_eq!(after["filters"], before["filters"], "the filters are the same objects, by id");
    assert_eq!(after["driver"]["policy"]["identity"], loaded["identity"]);
    assert_eq!(served.host.read_driver("sluice.sys").unwrap(), Some(std::fs::read(&another).unwrap()));
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    wire.finish();

    // A driver that does not load is removed, and the previous one decides as before.
    let mut broken = std::fs::read(driver()).unwrap();
    broken.truncate(0x1000);
    let path = served.files.path().join("broken.sys");
    std::fs::write(&path, broken).unwrap();
    let text = served.run(1, &["install", path.to_str().unwrap()]);
    assert!(!text.error.contains("undoing failed"), "{}", text.error);
    assert_eq!(served.host.read_driver("sluice.sys").unwrap(), Some(std::fs::read(&another).unwrap()));
    assert_eq!(served.json(0, &["status"])["driver"]["policy"]["identity"], loaded["identity"]);
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_policy_is_in_force_before_the_first_filter() {
    let served = served();
    let policy = served.file("policy.toml", QUARANTINE);
    let text =
        served.run(4, &["install", driver().to_str().unwrap(), "--policy", &served.file("bad.toml", "[default")]);
    assert!(text.error.contains("bad.toml"), "{}", text.error);
    served.is_clean();
    let report = served.json(0, &["install", driver().to_str().unwrap(), "--policy", &policy]);
    let steps: Vec<&str> =
        report["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["copy_driver", "place_driver", "create_service", "load_driver", "load_policy", "add_filters"]);
    assert_eq!(report["policy"]["rules"], 1);
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn what_windows_would_refuse_is_said_before_anything_changes() {
    use sluice_host::system::CodeIntegrity;
    let served = served();
    let driver = driver();
    served.host.set_system(|system| system.integrity = CodeIntegrity(CodeIntegrity::ENABLED));
    let text = served.run(1, &["install", driver.to_str().unwrap()]);
    assert!(text.error.contains("not signed"), "{}", text.error);
    served.is_clean();
    let report = served.json(1, &["install", "--dry-run", driver.to_str().unwrap()]);
    assert_eq!(report["obstacles"].as_array().unwrap().len(), 1);
    served.host.set_system(|system| system.build = 17763);
    let text = served.run(1, &["install", driver.to_str().unwrap()]);
    for part in ["Windows 10, version 1809", "Windows 10, version 2004", "build 19041"] {
        assert!(text.error.contains(part), "{part} in {}", text.error);
    }
    served.is_clean();
}

#[test]
fn an_unload_waits_for_the_last_reader() {
    let served = served();
    served.install();
    let reader = Running(served.command(&["events", "--follow"]).stdout(Stdio::null()).spawn().unwrap());
    eventually("the reader's open", || served.machine.io.open_files(SERVICE_NAME) > 0);
    let text = served.run(0, &["uninstall"]);
    assert!(text.out.contains("the driver stays loaded until"), "{}", text.out);
    assert!(text.out.contains("left: the file sluice-old.sys"), "{}", text.out);
    assert_eq!(served.host.deleted_at_restart(), ["sluice-old.sys"]);
    assert_eq!(served.state(), ServiceState::StopPending);
    let text = served.run(1, &["install", driver().to_str().unwrap()]);
    assert!(text.error.contains("still unloading"), "{}", text.error);
    drop(reader);
    eventually("the unload", || served.state() == ServiceState::Absent);
    assert!(served.run(0, &["uninstall"]).out.contains("sluice-old.sys was deleted"));
    served.is_clean();
    // The machine is ready for the next installation.
    served.install();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let served = served();
    served.install();
    served.run(0, &["load", &served.file("policy.toml", QUARANTINE)]);
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    let mut events = served.command(&["events"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(events.stdout.take());
    let text = ended(events.wait_with_output().unwrap(), 0);
    assert_eq!(text.error, "");
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn without_a_machine_it_says_how_to_name_one() {
    let text = ended(sluice(&["status"]).output().unwrap(), 2);
    insta::assert_snapshot!(text.error, @r"
    error: this system is not Windows, so there is no machine to act on
      name the socket of a simulated machine with --machine or NTSIM_SOCKET
    ");
    let text = ended(sluice(&["--machine", "/no/machine", "status"]).output().unwrap(), 1);
    assert!(text.error.contains("no simulated machine at /no/machine"), "{}", text.error);
    let text = ended(sluice(&["status", "--json"]).output().unwrap(), 2);
    let error: Value = serde_json::from_str(&text.error).unwrap();
    assert_eq!(error["exit_status"], 2);
    assert!(error["advice"].as_str().unwrap().contains("NTSIM_SOCKET"));
}

#[test]
fn the_help_is_what_people_read() {
    let text = ended(sluice(&["--help"]).output().unwrap(), 0);
    insta::assert_snapshot!(text.out);
    let text = ended(sluice(&["events", "--help"]).output().unwrap(), 0);
    insta::assert_snapshot!(text.out);
    for wrong in [
        &["events", "--count", "0"][..],
        &["events", "--timeout", "-1"],
        &["load"],
        &["instal", "x"],
        &["install", "a", "b"],
        &[],
    ] {
        let text = ended(sluice(wrong).output().unwrap(), 2);
        assert!(
            text.error.contains("Usage:") || text.error.contains("For more information"),
            "{wrong:?}: {}",
            text.error
        );
    }
}

#[test]
fn a_check_says_what_is_wrong_and_where() {
    let files = TempDir::new().unwrap();
    let file = |text: &str| -> PathBuf {
        let path = files.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        path
    };
    let check = |path: &PathBuf, status| {
        let output = sluice(&["load", "--check"]).arg(path).current_dir(files.path()).output().unwrap();
        let text = ended(output, status);
        let folder = files.path().to_str().unwrap();
        Text { out: text.out.replace(folder, "FOLDER"), error: text.error.replace(folder, "FOLDER") }
    };
    let text = check(&file(QUARANTINE), 0);
    assert!(text.out.starts_with("valid: FOLDER/policy.toml with 1 rules, "), "{}", text.out);
    let text = check(&file("[[rule]]\nname = \"x\"\naction = \"blok\"\nremote-port = 70000\n"), 4);
    insta::assert_snapshot!(text.error);
    let coloured = sluice(&["load", "--check", "--color", "always"]).arg(file("[default")).output().unwrap();
    assert!(ended(coloured, 4).error.contains("\u{1b}["));
}
