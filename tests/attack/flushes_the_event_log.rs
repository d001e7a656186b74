//! A remote peer or a local program causes so many decisions that events are lost, or makes the log misreport what it
//! lost.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use shim::stack::Verdict;
use sluice_control::{EventLine, EventReader, Item};

use crate::{
    support::Rig,
    wire::{Segment, Tcp, Wire},
};

/// More events than the ring holds.
const FLOOD: u32 = 5000;

/// A reader, and the events that it has seen.
struct Log {
    reader: EventReader,
    events: Vec<EventLine>,
    lost: u64,
    unrecorded: u64,
}

impl Log {
    /// A reader whose place is where the events begin; `all`: every decision makes one as long as it is there.
    fn open(rig: &Rig, all: bool) -> Self {
        let reader = EventReader::open(&rig.host, all).expect("the device opens");
        let mut log = Self { reader, events: Vec::new(), lost: 0, unrecorded: 0 };
        log.read();
        log
    }

    /// Adds what there is for it now.
    fn read(&mut self) {
        let Self { reader, events, lost, unrecorded } = self;
        let mut sink = |item: &Item| {
            match item {
                Item::Event(line) => {
                    if let Some(before) = events.last() {
                        let before: &EventLine = before;
                        assert!(line.sequence > before.sequence, "in the order of their numbers");
                        assert!(line.time >= before.time, "in the order of time");
                    }
                    events.push((**line).clone());
                }
                Item::Lost { count } => *lost += count,
                Item::Unrecorded { count } => *unrecorded += count,
                Item::NotRestored { why, .. } => panic!("nothing was kept: {why}"),
            }
            ControlFlow::Continue(())
        };
        reader.drain(&mut sink).expect("events");
    }

    fn about(&self, remote: &str) -> usize {
        self.events.iter().filter(|event| event.remote_address.to_string() == remote).count()
    }
}

/// A first packet from outside.
fn knock(wire: &mut Wire, remote: &str, port: u16) {
    let mut tcp = Tcp::new(remote, 50_000, port);
    assert_ne!(wire.receive(&mut tcp, Segment::Syn), Verdict::Forward);
}

const QUARANTINE: &str = "[[rule]]\nname = \"quarantine\"\naction = \"block\"\nremote = \"203.0.113.66\"\nlog = true\n";

#[test]
fn with_decisions_that_nobody_asked_to_log() {
    let rig = Rig::with_policy(&format!("[default]\ninbound = \"block\"\n{QUARANTINE}"));
    let mut wire = Wire::new(&rig.machine);
    let mut log = Log::open(&rig, false);
    for port in 0..FLOOD {
        knock(&mut wire, "198.51.100.9", port as u16);
    }
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    log.read();
    assert_eq!((log.events.len(), log.about("203.0.113.66"), log.lost), (1, 1, 0));
    drop(log);
    rig.uninstall();
}

#[test]
fn from_one_address_that_is_logged() {
    let rig = Rig::with_policy(&format!("[default]\ninbound = \"block\"\nlog = true\n{QUARANTINE}"));
    let mut wire = Wire::new(&rig.machine);
    let mut log = Log::open(&rig, false);
    for port in 0..FLOOD {
        knock(&mut wire, "198.51.100.9", port as u16);
    }
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    log.read();
    assert_eq!((log.about("203.0.113.66"), log.lost), (1, 0), "the local block is there");
    let (recorded, refused) = (log.about("198.51.100.9") as u64, rig.counter("events_over_budget"));
    assert_eq!(recorded + refused, u64::from(FLOOD), "what is not recorded is counted");
    assert!(recorded >= 32 && refused > 0, "{recorded} recorded, {refused} refused");
    assert!(log.unrecorded <= refused);
    drop(log);
    rig.uninstall();
}

#[test]
fn from_many_addresses_that_are_logged() {
    let rig = Rig::with_policy(&format!("[default]\ninbound = \"block\"\nlog = true\n{QUARANTINE}"));
    let mut wire = Wire::new(&rig.machine);
    let mut log = Log::open(&rig, false);
    for n in 0..3 * FLOOD {
        knock(&mut wire, &format!("198.18.{}.{}", n / 250, n % 250 + 1), 22);
        if n % 1000 == 0 {
            log.read(); // so that the duration of the flood does not matter
        }
    }
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    log.read();
    assert_eq!((log.about("203.0.113.66"), log.lost), (1, 0));
    let recorded = log.events.len() as u64 - 1;
    assert_eq!(recorded + rig.counter("events_over_budget"), u64::from(3 * FLOOD));
    drop(log);
    rig.uninstall();
}

/// A source does not have a budget for each processor that it comes to.
#[test]
fn from_one_address_that_comes_to_many_processors() {
    let rig = Rig::with_policy("[default]\ninbound = \"block\"\nlog = true\n");
    let mut log = Log::open(&rig, false);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut wire = Wire::new(&rig.machine);
                for port in 0..FLOOD {
                    knock(&mut wire, "198.51.100.9", port as u16);
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs() + 2;
    log.read();
    let recorded = log.events.len() as u64;
    assert!(recorded <= 32 * seconds, "{recorded} in at most {seconds} seconds");
    assert_eq!(recorded + rig.counter("events_over_budget"), u64::from(6 * FLOOD));
    // Its next event, in another second, tells of all that no event has told of.
    rig.machine.clock.push(Duration::from_secs(1));
    knock(&mut Wire::new(&rig.machine), "198.51.100.9", 1);
    log.read();
    assert_eq!(log.events.len() as u64, recorded + 1);
    assert_eq!(log.unrecorded, rig.counter("events_over_budget"));
    assert_eq!(log.lost, 0);
    drop(log);
    rig.uninstall();
}

#[test]
fn so_that_events_are_lost_unseen() {
    let rig = Rig::with_policy("[default]\noutbound = \"block\"\n");
    let mut log = Log::open(&rig, true);
    let mut wire = Wire::new(&rig.machine);
    // Twice: what is lost is told before the events that are left.
    for round in 1..=2 {
        for _ in 0..FLOOD {
            wire.connect("203.0.113.66", 443);
        }
        log.read();
        assert!(log.lost > 0, "the driver holds more than {FLOOD}");
        assert_eq!(log.events.len() as u64 + log.lost, round * u64::from(FLOOD));
        assert_eq!(rig.counter("events_dropped"), log.lost);
    }
    wire.connect("203.0.113.66", 80);
    log.read();
    assert_eq!(log.events.last().map(|event| event.remote_port), Some(80), "the latest is never the one that is lost");
    drop(log);
    rig.uninstall();
}

#[test]
fn so_that_events_come_out_of_order() {
    const EACH: u32 = 20_000;
    let rig = Rig::with_policy("[default]\noutbound = \"block\"\n");
    let stop = AtomicBool::new(false);
    let mut logs = [Log::open(&rig, true), Log::open(&rig, false)];
    thread::scope(|scope| {
        let readers = logs.each_mut().map(|log| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    log.read();
                }
                log.read();
            })
        });
        let writers = [1, 2, 3].map(|_| {
            scope.spawn(|| {
                let mut wire = Wire::new(&rig.machine);
                for _ in 0..EACH {
                    wire.connect("203.0.113.66", 443);
                }
            })
        });
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
    });
    for log in &logs {
        assert_eq!(
            log.events.len() as u64 + log.lost,
            u64::from(3 * EACH),
            "each has every event, or knows that it has not"
        );
    }
    assert_eq!(logs.iter().map(|log| log.lost).sum::<u64>(), rig.counter("events_dropped"));
    let [asked, mut other] = logs;
    drop(asked);
    let mut wire = Wire::new(&rig.machine);
    let before = other.events.len();
    wire.connect("203.0.113.66", 443);
    other.read();
    assert_eq!(other.events.len(), before, "nobody asks for every decision any more");
    drop(other);
    rig.uninstall();
}
