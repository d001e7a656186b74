//! Decisions reach their readers, and nobody waits for a reader.

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    ops::ControlFlow,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use ntsim::machine::{Config, Machine};
use shim::stack::Verdict;
use sluice_control::{EventFilter, EventLine, EventOptions, EventReader, Item, events};
use sluice_host::{Device, Host};
use sluice_policy::Essential;
use sluice_protocol::{
    DEVICE_PATH, Event, SERVICE_NAME,
    event::verdict,
    filter::{Filter, by_rule},
    ioctl,
};
use support::{BLOCK_ALL, PERMIT_ALL, Rig};
use wire::{APP_ID, PID, Segment, Wire};
use zerocopy::{FromBytes, IntoBytes};

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

/// A machine whose processors each have an equal share of what the driver holds.
fn with_processors(processors: u32) -> Rig {
    let rig = Rig::on(Machine::with(Config { processors, ..Config::default() }));
    rig.load(BLOCK_ALL);
    rig
}

/// How many events the driver holds, with one processor all in one ring.
const HELD: u64 = ioctl::EVENTS_HELD as u64;
/// More.
const FLOOD: u64 = 18_000;
const _: () = assert!(FLOOD > HELD && FLOOD.is_multiple_of(1000));

#[test]
fn every_reader_gets_every_event_and_a_slow_one_costs_nobody_else() {
    let rig = with_processors(1);
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
    let read = |device: &dyn Device| device.read(&mut [0; size_of::<Event>()], Duration::ZERO);
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

fn open(rig: &Rig) -> Box<dyn Device> {
    rig.host.open_device(DEVICE_PATH).expect("the device opens")
}

/// The records that there are for a handle.
fn take(device: &dyn Device) -> Vec<Event> {
    let mut records = Vec::new();
    loop {
        let mut buffer = vec![0; 1000 * size_of::<Event>()];
        let written = device.control(ioctl::TAKE_EVENTS, &[], &mut buffer).expect("events");
        if written == 0 {
            return records;
        }
        records.extend_from_slice(<[Event]>::ref_from_bytes(&buffer[..written]).expect("whole events"));
    }
}

/// Each processor has a ring, up to 64 of them; a reader finds one sequence in the order of time.
#[test]
fn any_number_of_processors_makes_one_sequence_in_the_order_of_time() {
    for (processors, threads) in [(1, 3), (2, 4), (5, 10), (64, 70), (512, 130)] {
        let rig = with_processors(processors);
        let (reader, late) = (open(&rig), open(&rig));
        reader.control(ioctl::RECORD_ALL, &[], &mut []).expect("every decision");
        let mut events = Vec::new();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let reader = reader; // a handle is used by one thread at a time
                while !stop.load(Ordering::SeqCst) {
                    events.extend(take(&*reader));
                }
                events.extend(take(&*reader));
            });
            for _ in 0..threads / 2 {
                let two = [0, 1].map(|_| {
                    scope.spawn(|| {
                        let mut wire = Wire::new(&rig.machine);
                        (0..20).for_each(|_| assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse));
                        wire.finish();
                    })
                });
                two.into_iter().for_each(|thread| thread.join().expect("a processor"));
            }
            stop.store(true, Ordering::SeqCst);
            reading.join().expect("a reader");
        });
        let rings: BTreeMap<u16, usize> = events.iter().fold(BTreeMap::new(), |mut rings, event| {
            *rings.entry(event.ring).or_default() += 1;
            rings
        });
        assert!(rings.len() > 1 || processors == 1, "{processors} processors: {rings:?}");
        assert!(rings.keys().all(|ring| u32::from(*ring) < processors.min(64)), "{rings:?}");
        assert!(events.is_sorted_by_key(|event| event.time), "{processors} processors: in the order of time");
        assert!(events.iter().map(|event| event.sequence).eq(1..=threads / 2 * 40), "each once");
        assert!(events.iter().all(|event| event.lost == 0));
        let found = take(&*late);
        assert_eq!(found, events, "the same for each reader");
        drop(late);
        rig.uninstall();
    }
}

/// A ring that overflows costs no other ring an event, and what it lost is told before its next record.
#[test]
fn a_reader_learns_what_it_lost_of_each_ring() {
    let rig = with_processors(64);
    let reader = open(&rig);
    reader.control(ioctl::RECORD_ALL, &[], &mut []).expect("every decision");
    assert_eq!(take(&*reader), [], "it has its place");
    let connect = |times: u64| {
        let mut wire = Wire::new(&rig.machine);
        (0..times).for_each(|_| assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse));
        wire.finish();
    };
    // Threads get processors in turn.
    const SHARE: u64 = HELD / 64;
    connect(1);
    for times in [10, 3 * SHARE, 20] {
        thread::scope(|scope| scope.spawn(|| connect(times)).join().expect("a processor"));
    }
    connect(1);
    let events = take(&*reader);
    let lost: u64 = events.iter().map(|event| u64::from(event.lost)).sum();
    assert!(lost >= 2 * SHARE, "{lost}");
    assert_eq!(events.len() as u64 + lost, 32 + 3 * SHARE, "exactly");
    assert_eq!(rig.counter("events_dropped"), lost);
    let mut last = 0;
    for event in &events {
        assert_eq!(event.sequence, last + 1 + u64::from(event.lost), "what is missing is what it says");
        last = event.sequence;
    }
    assert!(events.is_sorted_by_key(|event| event.time));
    drop(reader);
    rig.uninstall();
}

#[test]
fn events_keep_their_order_when_the_clock_is_set() {
    let rig = with_processors(2);
    let reader = open(&rig);
    let mut wire = Wire::new(&rig.machine);
    let hour = 3600 * 10_000_000;
    let now = || rig.machine.clock.system_time();
    let mut times = Vec::new();
    for (port, by) in (0..).zip([0, -hour, 0, 2 * hour, 0]) {
        rig.machine.clock.set(by);
        // The driver compares its clocks every 10 ms.
        rig.machine.clock.push(Duration::from_millis(20));
        times.push(now());
        wire.connect("203.0.113.66", 1000 + port);
    }
    let events = take(&*reader);
    let ports: Vec<u16> = events.iter().map(|event| event.remote_port).collect();
    assert_eq!(ports, [1000, 1001, 1002, 1003, 1004], "not by what the clock shows");
    for (event, now) in events.iter().zip(times) {
        let late = event.time.abs_diff(now);
        assert!(late < 60 * 10_000_000, "it shows the time that was: {late}");
    }
    drop(reader);
    wire.finish();
    rig.uninstall();
}

fn want(device: &dyn Device, filter: &Filter) {
    device.control(ioctl::FILTER_EVENTS, filter.as_bytes(), &mut []).expect("a filter");
}

#[test]
fn a_reader_is_not_woken_by_what_it_does_not_want() {
    let rig = Rig::with_policy(
        "[default]\nlog = true\n[[rule]]\nname = \"there\"\naction = \"block\"\nremote = \"203.0.113.66\"\nlog = true\n",
    );
    let mut wire = Wire::new(&rig.machine);
    let none = Duration::from_millis(30);
    let blocks = Filter { verdicts: 1 << verdict::BLOCK, ..Filter::ALL };
    let elsewhere = Filter { by_rule: by_rule::OF_GENERATION, epoch: 1, rule: 7, ..Filter::ALL };
    let other_program = Filter::ALL.with_application("wget".encode_utf16());
    let this_program = Filter::ALL.with_application("CURL".to_lowercase().encode_utf16());
    let readers = [blocks, elsewhere, other_program, this_program].map(|filter| {
        let device = open(&rig);
        want(&*device, &filter);
        device
    });
    let mut buffer = [0; 4 * size_of::<Event>()];
    let mut read = |device: &dyn Device, wait| device.read(&mut buffer, wait).expect("a read") / size_of::<Event>();
    wire.establish("203.0.113.10", 443);
    for (reader, expected) in readers.iter().zip([0, 0, 0, 1]) {
        assert_eq!(read(&**reader, none), expected, "a permitted connection of {APP_ID}");
    }
    let [of_blocks, other, third, fourth] = readers;
    drop((third, fourth));
    let waiting = thread::spawn(move || {
        let mut buffer = [0; size_of::<Event>()];
        let written = of_blocks.read(&mut buffer, Duration::from_secs(20)).expect("a read");
        assert_eq!(written, size_of::<Event>());
        Event::read_from_bytes(&buffer).expect("an event")
    });
    for port in 0..5 {
        wire.establish("203.0.113.10", 1000 + port);
    }
    wire.connect("203.0.113.66", 443);
    let found = waiting.join().expect("a reader");
    assert_eq!((found.verdict, found.lost), (verdict::BLOCK, 0), "nothing of what it did not want counts as lost");
    // Without a filter it has what comes then.
    want(&*other, &Filter::ALL);
    wire.connect("203.0.113.66", 443);
    assert_eq!(take(&*other).len(), 1);
    drop(other);
    wire.finish();
    rig.uninstall();
}

#[test]
fn a_reader_that_wants_nothing_of_what_it_lost_is_still_told() {
    let rig = with_processors(1);
    let reader = open(&rig);
    want(&*reader, &Filter { verdicts: 1 << verdict::PERMIT, ..Filter::ALL });
    reader.control(ioctl::RECORD_ALL, &[], &mut []).expect("every decision");
    let mut wire = Wire::new(&rig.machine);
    for _ in 0..FLOOD {
        wire.connect("203.0.113.66", 443);
    }
    let records = take(&*reader);
    assert!(records.iter().all(|record| record.verdict == verdict::NONE), "{records:?}");
    assert_eq!(records.iter().map(|record| u64::from(record.lost)).sum::<u64>(), FLOOD - HELD);
    drop(reader);
    wire.finish();
    rig.uninstall();
}

#[test]
fn a_reader_of_one_rule_follows_it_from_policy_to_policy() {
    let rule = |name: &str, remote: &str| {
        format!("[[rule]]\nname = \"{name}\"\naction = \"block\"\nremote = \"{remote}\"\nlog = true\n")
    };
    let (a, b) = (rule("a", "203.0.113.66"), rule("b", "203.0.113.10"));
    let rig = Rig::with_policy(&format!("{a}{b}"));
    let mut reader = EventReader::open(&rig.host, true).expect("the device opens");
    reader.want(&EventFilter { rule: Some("b".to_owned()), ..EventFilter::default() }).expect("a filter");
    let mut wire = Wire::new(&rig.machine);
    let mut found = Vec::new();
    for policy in [None, Some(format!("{b}{a}")), Some(a.clone()), Some(format!("{a}{b}"))] {
        if let Some(policy) = policy {
            rig.load(&policy);
        }
        for _ in 0..2 {
            for remote in ["203.0.113.66", "203.0.113.10"] {
                wire.connect(remote, 443);
            }
            reader
                .drain(&mut |item| {
                    if let Item::Event(line) = item {
                        found.push((line.epoch, line.rule_name.clone().expect("a name")));
                    }
                    ControlFlow::Continue(())
                })
                .expect("events");
        }
    }
    let expected = [1, 1, 2, 2, 4, 4].map(|epoch| (epoch, "b".to_owned()));
    assert_eq!(found, expected);
    drop(reader);
    wire.finish();
    rig.uninstall();
}

/// The image of the driver, with all its statics.
fn statics(rig: &Rig) -> Vec<u8> {
    let driver = rig.machine.drivers().into_iter().find(|driver| driver.name == SERVICE_NAME).expect("it is loaded");
    let mut bytes = vec![0; driver.size as usize];
    let memory = File::open("/proc/self/mem").expect("this process");
    memory.read_exact_at(&mut bytes, driver.base).expect("its image");
    bytes
}

/// What no benchmark on few processors shows: no cache line goes from one to the other.
#[test]
fn recording_writes_nothing_that_another_processor_writes() {
    const LINE: usize = 64;
    let machine = Machine::with(Config { processors: 4, ..Config::default() });
    // Its clock goes on by readings alone: the driver's two are not compared meanwhile.
    machine.hooks.schedule();
    let rig = Rig::on(machine);
    rig.load(BLOCK_ALL);
    let reader = open(&rig);
    reader.control(ioctl::RECORD_ALL, &[], &mut []).expect("every decision");
    let lines_of = |_| {
        let before = statics(&rig);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut wire = Wire::new(&rig.machine);
                (0..30).for_each(|_| assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse));
                wire.finish();
            });
        });
        let after = statics(&rig);
        let pairs = before.chunks(LINE).zip(after.chunks(LINE)).enumerate();
        pairs.filter(|(_, (before, after))| before != after).map(|(line, _)| line).collect::<BTreeSet<_>>()
    };
    let [one, other] = [0, 1].map(lines_of);
    let shared: Vec<_> = one.intersection(&other).map(|line| line * LINE).collect();
    assert!(shared.is_empty(), "both write to the lines at {shared:#x?} of the image");
    assert!(one.len() > 60 && other.len() > 60, "{} and {} lines of events", one.len(), other.len());
    let rings: BTreeSet<u16> = take(&*reader).iter().map(|event| event.ring).collect();
    assert_eq!(rings.len(), 2);
    drop(reader);
    rig.uninstall();
}
