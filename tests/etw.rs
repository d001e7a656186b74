//! What the driver tells trace sessions (Event Tracing for Windows), as a session decodes it.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use ntsim::{
    host::LocalHost,
    machine::{Config, Machine},
    nt::etw::{Asked, Record, Session, Value},
    verifier::low_resources::survey,
    wdf::RegistryValue,
};
use shim::stack::Verdict;
use sluice_control::{install, load_image, status, uninstall};
use sluice_host::{Guid, Host};
use sluice_protocol::{
    KEPT_POLICY, PROTOCOL_VERSION, SERVICE_NAME,
    event::{self, RULE_DEFAULT},
    trace::{EVENTS, PROVIDER, PROVIDER_ID, keyword, level},
};
use support::{BLOCK_ALL, PERMIT_ALL, Rig, driver};
use wire::{APP_ID, PID, Segment, Wire};

fn listen(machine: &Arc<Machine>, asked: Asked) -> Session {
    Session::start(machine, PROVIDER_ID, asked).expect("the machine runs")
}

/// What was recorded, each event as the table has it.
fn recorded(records: Vec<Record>) -> Vec<Record> {
    for record in &records {
        let event = EVENTS.iter().find(|event| event.name == record.event);
        let event = event.unwrap_or_else(|| panic!("not in the table: {record:?}"));
        let names: Vec<_> = event.fields.iter().map(|field| field.name).collect();
        assert_eq!((&record.fault, record.names()), (&None, names), "{record:?}");
        assert_eq!((record.provider.as_str(), record.channel), (PROVIDER, 11), "{record:?}");
        assert_eq!((record.level, record.keyword), (event.level, event.keyword), "{record:?}");
    }
    records
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.event.as_str()).collect()
}

fn shown(record: &Record, field: &str) -> String {
    record.field(field).unwrap_or_else(|| panic!("no {field} in {record:?}")).to_string()
}

#[test]
fn the_driver_tells_of_its_life_and_its_policies() {
    let machine = Machine::new();
    let session = listen(&machine, Asked { level: 4, any: 0, all: 0 });
    let rig = Rig::on(machine);
    rig.load(PERMIT_ALL);
    let mut damaged = rig.image();
    damaged[40] ^= 1;
    load_image(&rig.host, &damaged).expect_err("a damaged image is refused");
    let image = rig.image().len();
    rig.uninstall();
    let records = recorded(session.stop().unwrap());
    assert_eq!(names(&records), ["DriverStarted", "PolicyLoaded", "PolicyRefused", "DriverStopped"]);
    let [started, loaded, refused, stopped] = &records[..] else { unreachable!() };
    assert_eq!(started.field("Protocol"), Some(&Value::Number(PROTOCOL_VERSION.into())));
    assert_eq!((shown(started, "KeptPolicy"), shown(started, "Generation")), ("none".to_owned(), "0".to_owned()));
    assert_eq!((shown(loaded, "Generation"), shown(loaded, "Rules")), ("1".to_owned(), "0".to_owned()));
    assert_eq!(shown(loaded, "Bytes"), image.to_string());
    assert_eq!((shown(refused, "Generation"), shown(refused, "Bytes")), ("1".to_owned(), image.to_string()));
    assert!(!shown(refused, "Reason").is_empty(), "{refused:?}");
    assert_eq!(shown(stopped, "Generation"), "1");
}

#[test]
fn a_decision_is_told_with_who_where_and_which_rule() {
    let rig = Rig::with_policy(
        r#"
        [default]
        outbound = "permit"
        [[rule]]
        name = "elsewhere"
        action = "block"
        remote = "192.0.2.1"
        [[rule]]
        name = "quarantine"
        action = "block"
        remote = ["203.0.113.66", "2001:db8:1::66"]
        "#,
    );
    let session = listen(&rig.machine, Asked::keywords(keyword::DECISION));
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    assert_eq!(wire.connect("2001:db8:1::66", 8443).0, Verdict::Refuse);
    wire.establish("203.0.113.10", 80);
    wire.finish();
    let records = recorded(session.stop().unwrap());
    let [v4, v6, permitted, ..] = &records[..] else { panic!("three decisions, not {records:?}") };
    let filter = rig.status().filters.into_iter().find(|filter| filter.layer == "ALE_AUTH_CONNECT_V4").unwrap();
    let wanted = [
        ("Verdict", "block".to_owned()),
        ("Rule", "1".to_owned()),
        ("Generation", "1".to_owned()),
        ("Direction", "outbound".to_owned()),
        ("Protocol", "6".to_owned()),
        ("Remote", "203.0.113.66:443".to_owned()),
        ("ProcessId", PID.to_string()),
        ("Application", APP_ID.to_owned()),
        ("Name", String::new()),
        ("Filter", filter.id.to_string()),
        ("Flow", "0".to_owned()),
        ("Flags", format!("{:#x}", event::flags::HARD)),
    ];
    for (field, value) in wanted {
        assert_eq!(shown(v4, field), value, "{field}");
    }
    assert_eq!((shown(v6, "Remote"), shown(v6, "Verdict")), ("[2001:db8:1::66]:8443".to_owned(), "block".to_owned()));
    assert!(shown(v6, "Local").starts_with('['), "{v6:?}");
    assert_eq!(
        (shown(permitted, "Verdict"), shown(permitted, "Rule")),
        ("permit".to_owned(), RULE_DEFAULT.to_string())
    );
    rig.uninstall();
}

#[test]
fn a_decision_by_a_name_is_told_with_the_name() {
    let rig = Rig::with_policy(
        "[default]\noutbound = \"permit\"\n[[rule]]\nname = \"ads\"\naction = \"block\"\nremote-name = \"ads.example\"\n",
    );
    let session = listen(&rig.machine, Asked::EVERYTHING);
    let mut wire = Wire::new(&rig.machine);
    let mut tcp = wire.establish("203.0.113.10", 80);
    wire.send(&mut tcp, Segment::Data(b"GET / HTTP/1.1\r\nHost: ads.example\r\n\r\n"));
    wire.finish();
    let records = recorded(session.stop().unwrap());
    let named = records.iter().find(|record| shown(record, "Name") == "ads.example");
    assert_eq!(shown(named.unwrap_or_else(|| panic!("no name in {records:?}")), "Verdict"), "block");
    rig.uninstall();
}

#[test]
fn a_session_gets_only_what_it_asked_for() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let decide = || {
        let mut wire = Wire::new(&rig.machine);
        wire.connect("203.0.113.66", 443);
        wire.finish();
    };
    let count = |asked| {
        let session = listen(&rig.machine, asked);
        decide();
        recorded(session.stop().unwrap()).len()
    };
    assert_eq!(count(Asked::keywords(keyword::POLICY | keyword::ERROR)), 0);
    assert_eq!(count(Asked { level: 4, any: 0, all: 0 }), 0, "decisions are verbose");
    assert_eq!(count(Asked { level: 5, any: 0, all: 0 }), 1);
    // Two sessions: the driver is told what any of them wants, and each gets its own.
    let (few, all) = (listen(&rig.machine, Asked::keywords(keyword::POLICY)), listen(&rig.machine, Asked::EVERYTHING));
    decide();
    rig.load(PERMIT_ALL);
    assert_eq!(names(&recorded(few.stop().unwrap())), ["PolicyLoaded"]);
    decide();
    let all = recorded(all.stop().unwrap());
    assert_eq!(names(&all), ["Decision", "PolicyLoaded", "Decision"]);
    decide(); // nobody listens any more
    rig.uninstall();
}

#[test]
fn a_kept_policy_that_cannot_be_restored_is_told() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let host = &rig.host;
    host.stop_service(SERVICE_NAME).expect("the driver unloads");
    rig.machine.disk.write(KEPT_POLICY, &[0][..]);
    let session = listen(&rig.machine, Asked::EVERYTHING);
    host.start_service(SERVICE_NAME).expect("the driver loads without it");
    let records = recorded(session.stop().unwrap());
    assert_eq!(names(&records), ["PolicyRefused", "KeptPolicyNotRestored", "DriverStarted"]);
    assert_eq!(
        (shown(&records[1], "KeptPolicy"), shown(&records[1], "Status")),
        ("refused".to_owned(), "0x0".to_owned())
    );
    assert_eq!(shown(&records[2], "KeptPolicy"), "refused");
    uninstall(host).expect("it uninstalls");
    assert!(host.unload_reports().iter().all(|report| report.is_clean()));
}

#[test]
fn flows_beyond_the_limit_are_told() {
    let machine = Machine::new();
    machine.set_parameter(SERVICE_NAME, "MaxFlowsPerProcess", RegistryValue::dword(1));
    let rig = Rig::on(machine);
    rig.load(PERMIT_ALL);
    let session = listen(&rig.machine, Asked::keywords(keyword::ERROR));
    let mut wire = Wire::new(&rig.machine);
    for port in 440..450 {
        wire.establish("203.0.113.10", port);
    }
    wire.finish();
    let records = recorded(session.stop().unwrap());
    // One a second: how many there are depends on the machine, but the first is there, and nine flows at most are told.
    let told: u64 = records.iter().map(|record| shown(record, "Flows").parse::<u64>().unwrap()).sum();
    assert!((1..=9).contains(&told), "{records:?}");
    let first = &records[0];
    assert_eq!((first.event.as_str(), shown(first, "Status").as_str()), ("FlowsUntracked", "0xc0000044"));
    assert_eq!((shown(first, "Flows"), shown(first, "ProcessId")), ("1".to_owned(), PID.to_string()));
    rig.uninstall();
}

/// Each call of the driver that can fail does so once: what follows is told, unless it is the registration that fails;
/// then the driver decides all the same, and counts it.
#[test]
fn what_fails_is_told() {
    let rig = Rig::install();
    let (block, mut seen) = (rig.compile(BLOCK_ALL), BTreeSet::new());
    rig.uninstall();
    let mut untraced = 0;
    let survey = survey(&Config::default(), |machine| {
        let session = listen(machine, Asked::EVERYTHING);
        let host = LocalHost::new(machine.clone());
        let installed = install(&host, &driver()).is_ok();
        let refused = || Some(status(&host).ok()?.driver?.counters["tracing_refused"]);
        let mut refused_tracing = None;
        if installed {
            let _ = load_image(&host, &block);
            let mut wire = Wire::new(machine);
            let (verdict, _) = wire.connect("203.0.113.10", 443);
            wire.finish();
            refused_tracing = refused();
            if verdict == Verdict::Forward
                && status(&host).is_ok_and(|report| report.driver.is_some_and(|driver| driver.policy.is_some()))
            {
                return Err("a policy in force was not asked".to_owned());
            }
        }
        machine.low_resources.disable();
        uninstall(&host).map_err(|error| error.to_string())?;
        let records = recorded(session.stop().map_err(|bugcheck| bugcheck.to_string())?);
        let events = names(&records);
        let told = match (installed, refused_tracing) {
            (true, Some(1)) => {
                untraced += 1;
                events.is_empty()
            }
            (true, _) => events.contains(&"DriverStarted") && events.last() == Some(&"DriverStopped"),
            (false, _) => events.last().is_none_or(|last| ["DriverFailed", "DriverStopped"].contains(last)),
        };
        seen.extend(events.iter().map(|&event| event.to_owned()));
        if told { Ok(()) } else { Err(format!("it told {events:?}")) }
    });
    let survey = survey.expect("nothing fails without cause");
    assert!(survey.casualties.is_empty(), "{survey}");
    assert!(untraced >= 2, "the registration and its traits failed {untraced} times: {survey}");
    for event in
        ["DriverStarted", "DriverFailed", "DriverStopped", "PolicyLoaded", "ReauthorizationRefused", "Decision"]
    {
        assert!(seen.contains(event), "{event} was never told: {seen:?}");
    }
}

/// docs/events.md lists what the table has.
#[test]
fn the_document_has_the_provider_and_every_event() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md")).unwrap();
    let id = Guid(PROVIDER_ID).to_string();
    assert!(
        text.contains(&format!("| provider | `{PROVIDER}` |")) && text.contains(id.trim_matches(['{', '}'])),
        "{id}"
    );
    let keywords: Vec<_> = keyword::ALL.iter().map(|(keyword, name)| format!("`{name}` {keyword:#x}")).collect();
    assert!(text.contains(&format!("| keywords | {} |", keywords.join(", "))), "{keywords:?}");
    let levels: Vec<_> = level::ALL.iter().map(|(level, name)| format!("{name} {level}")).collect();
    assert!(text.contains(&format!("| levels | {} |", levels.join(", "))), "{levels:?}");
    let (_, table) = text.split_once("| event | level | keyword | when | fields |").expect("the table of events");
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), EVENTS.len());
    for (row, event) in rows.iter().zip(EVENTS) {
        let keyword = keyword::ALL.iter().find(|(keyword, _)| *keyword == event.keyword).unwrap().1;
        let level = level::ALL.iter().find(|(level, _)| *level == event.level).unwrap().1;
        let start = format!("| `{}` | {level} | `{keyword}` | ", event.name);
        let fields: Vec<_> = event.fields.iter().map(|field| format!("`{}`: {}", field.name, field.about)).collect();
        let end = format!(" | {} |", fields.join("; "));
        assert!(row.starts_with(&start) && row.ends_with(&end), "{row}\nshould be {start}...{end}");
    }
}

#[test]
fn sessions_come_and_go_while_the_driver_decides_and_when_it_unloads() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let (machine, done) = (&rig.machine, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = Wire::new(machine);
            while !done.load(Ordering::Relaxed) {
                wire.connect("203.0.113.66", 443);
            }
            wire.finish();
        });
        for _ in 0..50 {
            let session = listen(machine, Asked::EVERYTHING);
            recorded(session.stop().unwrap());
        }
        done.store(true, Ordering::Relaxed);
    });
    let session = listen(machine, Asked::EVERYTHING);
    rig.uninstall();
    assert_eq!(names(&recorded(session.stop().unwrap())), ["DriverStopped"]);
}
