//! Decisions reach their readers, and nobody waits for a reader.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{ops::ControlFlow, thread, time::Duration};

use shim::stack::Verdict;
use sluice_control::{EventLine, EventOptions, EventReader, Item, events};
use sluice_host::Host;
use sluice_policy::Essential;
use sluice_protocol::{DEVICE_PATH, Event, ioctl};
use support::{BLOCK_ALL, PERMIT_ALL, Rig};
use wire::{APP_ID, PID, Segment, Wire};

/// What the driver holds now.
fn drain(rig: &Rig) -> (Vec<EventLine>, u64) {
    let (mut lines, mut lost) = (Vec::new(), 0);
    events(&rig.host, &EventOptions::default(), &mut |item| {
        match item {
            Item::Event(line) => lines.push((**line).clone()),
            Item::Lost { count } => lost += count,
            Item::Unrecorded { .. } | Item::NotRestored { .. } => {}
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

/// What a reader has read.
#[derive(Default)]
struct Log {
    sequences: Vec<u64>,
    lost: u64,
}

impl Log {
    fn read(&mut self, reader: &mut EventReader) {
        let mut sink = |item: &Item| {
            match item {
                Item::Event(line) => self.sequences.push(line.sequence),
                Item::Lost { count } => {
                    let last = self.sequences.last().copied();
                    self.lost += count;
                    assert!(last.is_some() || *count > 0);
                }
                Item::Unrecorded { .. } | Item::NotRestored { .. } => {}
            }
            ControlFlow::Continue(())
        };
        reader.drain(&mut sink).expect("a read");
    }
}

/// More events than the driver holds.
const FLOOD: u64 = 5000;
/// How many it holds.
const HELD: u64 = 4096;

#[test]
fn every_reader_gets_every_event_and_a_slow_one_costs_nobody_else() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let open = |all| EventReader::open(&rig.host, all).expect("the device opens");
    let (mut fast, mut slow) = (open(true), open(false));
    let (mut of_fast, mut of_slow) = (Log::default(), Log::default());
    let mut wire = Wire::new(&rig.machine);
    for number in 1..=FLOOD {
        assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
        if number == 10 {
            // From now on it has a place of its own.
            of_slow.read(&mut slow);
        }
        if number % 1000 == 0 {
            of_fast.read(&mut fast);
        }
    }
    assert_eq!((of_fast.sequences.clone(), of_fast.lost), ((1..=FLOOD).collect(), 0));
    of_slow.read(&mut slow);
    let expected: Vec<u64> = (1..=10).chain(FLOOD - HELD + 1..=FLOOD).collect();
    assert_eq!((of_slow.sequences, of_slow.lost), (expected, FLOOD - HELD - 10), "it is told what it lost, exactly");
    assert_eq!(rig.counter("events_dropped"), FLOOD - HELD - 10);
    // One that comes later has what is still there, and lost nothing.
    let mut of_late = Log::default();
    of_late.read(&mut open(false));
    assert_eq!((of_late.sequences, of_late.lost), ((FLOOD - HELD + 1..=FLOOD).collect(), 0));
    drop((fast, slow));
    wire.finish();
    rig.uninstall();
}

#[test]
fn a_reader_that_ends_or_gives_up_waiting_costs_nobody_an_event() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let mut left = EventReader::open(&rig.host, true).expect("the device opens");
    let open = || rig.host.open_device(DEVICE_PATH).expect("the device opens");
    let (gone, impatient) = (open(), open());
    let mut buffer = [0; 4 * size_of::<Event>()];
    for device in [&gone, &impatient] {
        assert_eq!(device.read(&mut buffer, Duration::from_millis(10)), Ok(0), "cancelled");
    }
    let waiting = thread::spawn(move || {
        let mut buffer = [0; size_of::<Event>()];
        gone.read(&mut buffer, Duration::from_secs(20))
    });
    let mut wire = Wire::new(&rig.machine);
    wire.connect("203.0.113.66", 443);
    assert_eq!(waiting.join().unwrap(), Ok(size_of::<Event>()), "its handle closes with this");
    wire.connect("203.0.113.66", 80);
    let mut log = Log::default();
    log.read(&mut left);
    assert_eq!((log.sequences, log.lost), (vec![1, 2], 0));
    assert_eq!(impatient.read(&mut buffer, Duration::from_secs(20)), Ok(2 * size_of::<Event>()));
    drop((left, impatient));
    wire.finish();
    rig.uninstall();
}

#[test]
fn there_are_only_so_many_readers() {
    let rig = Rig::with_policy(BLOCK_ALL);
    let read = |device: &dyn sluice_host::Device| device.read(&mut [0; size_of::<Event>()], Duration::ZERO);
    let mut readers: Vec<_> =
        (0..ioctl::MAX_READERS).map(|_| rig.host.open_device(DEVICE_PATH).expect("the device opens")).collect();
    for reader in &readers {
        assert_eq!(read(&**reader), Ok(0));
    }
    let one_more = rig.host.open_device(DEVICE_PATH).expect("the device opens");
    assert_eq!(read(&*one_more).map_err(|error| error.code), Err(sluice_host::code::ERROR_BUSY));
    readers.pop();
    assert_eq!(read(&*one_more), Ok(0), "there is room again");
    drop((readers, one_more));
    rig.uninstall();
}

#[test]
fn events_name_the_rule_of_the_policy_that_decided() {
    let policy = |name: &str| {
        format!("[[rule]]\nname = \"{name}\"\naction = \"block\"\nremote = \"203.0.113.66\"\nlog = true\n")
    };
    let rig = Rig::with_policy(&policy("rule 0"));
    let mut wire = Wire::new(&rig.machine);
    for number in 0..=ioctl::MAX_PAST_POLICIES + 1 {
        rig.load(&policy(&format!("rule {number}")));
        wire.connect("203.0.113.66", 443);
    }
    let names: Vec<_> = drain(&rig).0.into_iter().map(|line| line.rule_name).collect();
    // The names of so many are kept; before those nobody knows.
    let kept = (1..=ioctl::MAX_PAST_POLICIES + 1).map(|number| Some(format!("rule {number}")));
    assert_eq!(names, [None].into_iter().chain(kept).collect::<Vec<_>>());
    wire.finish();
    rig.uninstall();
}
