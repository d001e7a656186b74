//! Decisions reach their readers, and nobody waits for a reader.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{ops::ControlFlow, thread, time::Duration};

use shim::stack::Verdict;
use sluice_control::{EventLine, EventOptions, Item, events};
use sluice_host::Host;
use sluice_policy::Essential;
use sluice_protocol::{DEVICE_PATH, Event};
use support::{BLOCK_ALL, PERMIT_ALL, Rig};
use wire::{APP_ID, PID, Segment, Wire};

/// What the ring holds now.
fn drain(rig: &Rig) -> (Vec<EventLine>, u64) {
    let (mut lines, mut lost) = (Vec::new(), 0);
    events(&rig.host, &EventOptions::default(), &mut |item| {
        match item {
            Item::Event(line) => lines.push((**line).clone()),
            Item::Lost { count } => lost += count,
            Item::Unrecorded { .. } | Item::Elsewhere { .. } | Item::NotRestored { .. } => {}
        }
        ControlFlow::Continue(())
    })
    .expect("events");
    (lines, lost)
}

#[test]
fn what_no_default_decides_is_recorded_as_that() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let mut wire = Wire::new(&rig.machine);
    // The machine's own address.
    assert_eq!(wire.connect("10.77.0.2", 80).0, Verdict::Forward);
    wire.finish();
    let (lines, _) = drain(&rig);
    assert!(!lines.is_empty());
    for line in &lines {
        assert_eq!((line.rule, line.essential), (None, Some(Essential::Loopback)), "{line}");
        assert!(line.to_string().contains(" essential: loopback "), "{line}");
    }
    rig.uninstall();
}

#[test]
fn an_event_says_who_where_and_which_rule() {
    let rig = Rig::with_policy(
        r#"
        [default]
        log = true
        [[rule]]
        name = "elsewhere"
        action = "block"
        remote = "192.0.2.1"
        [[rule]]
        name = "quarantine"
        action = "block"
        remote = "203.0.113.0/24"
        remote-port = 443
        log = true
        "#,
    );
    let mut wire = Wire::new(&rig.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    wire.establish("203.0.113.66", 80);
    let (lines, lost) = drain(&rig);
    let [blocked, permitted] = &lines[..] else { panic!("two decisions, not {lines:?}") };
    assert_eq!(blocked.verdict, "block");
    assert_eq!((blocked.remote_address.to_string().as_str(), blocked.remote_port), ("203.0.113.66", 443));
    assert_eq!(
        (blocked.rule, blocked.layer.as_ref(), blocked.protocol.as_ref()),
        (Some(1), "ALE_AUTH_CONNECT_V4", "tcp")
    );
    assert_eq!((blocked.process_id, blocked.application.as_deref()), (Some(PID), Some(APP_ID)));
    let filter = rig.status().filters.into_iter().find(|filter| filter.layer == "ALE_AUTH_CONNECT_V4").unwrap();
    assert_eq!(blocked.filter_id, filter.id);
    assert_eq!((permitted.verdict.as_ref(), permitted.rule, lost), ("permit", None, 0));
    wire.finish();
    rig.uninstall();
}

#[test]
fn a_pended_read_gets_the_next_decision() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let device = rig.host.open_device(DEVICE_PATH).expect("the device opens");
    let reader = thread::spawn(move || {
        let mut buffer = [0; 8 * size_of::<Event>()];
        device.read(&mut buffer, Duration::from_secs(20))
    });
    thread::sleep(Duration::from_millis(50)); // most likely the read waits by now; either way it must be answered
    Wire::new(&rig.machine).connect("203.0.113.66", 443);
    assert_eq!(reader.join().unwrap(), Ok(size_of::<Event>()));
    rig.uninstall();
}

#[test]
fn only_what_a_rule_or_the_default_logs_makes_an_event() {
    let logged = |default: bool, rule: bool| {
        let rig = Rig::with_policy(&format!(
            "[default]\nlog = {default}\n\
             [[rule]]\nname = \"there\"\naction = \"block\"\nremote = \"203.0.113.66\"\nlog = {rule}\n"
        ));
        let mut wire = Wire::new(&rig.machine);
        wire.connect("203.0.113.66", 443);
        wire.connect("203.0.113.10", 443);
        let rules: Vec<_> = drain(&rig).0.iter().map(|line| line.rule).collect();
        wire.finish();
        rig.uninstall();
        rules
    };
    assert_eq!(logged(false, false), []);
    assert_eq!(logged(false, true), [Some(0)]);
    assert_eq!(logged(true, false), [None]);
    assert_eq!(logged(true, true), [Some(0), None]);
}

#[test]
fn a_waiting_read_does_not_hold_back_the_unload_once_its_handle_closes() {
    let rig = Rig::with_policy(PERMIT_ALL);
    let device = rig.host.open_device(DEVICE_PATH).expect("the device opens");
    assert_eq!(device.read(&mut [0; 256], Duration::from_millis(10)), Ok(0));
    drop(device);
    let mut wire = Wire::new(&rig.machine);
    let mut tcp = wire.establish("203.0.113.10", 80);
    assert_eq!(wire.send(&mut tcp, Segment::Data(b"x")), Verdict::Forward);
    rig.uninstall();
}
