//! A remote peer or a local program causes so many decisions that events are lost, or makes the log misreport what it
//! lost.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use shim::stack::Verdict;
use sluice_control::{EventLine, EventOptions, Item, device::Control, events};
use sluice_protocol::status::Counter;

use crate::{
    support::Rig,
    wire::{Segment, Tcp, Wire},
};

/// More events than the ring holds.
const FLOOD: u32 = 5000;

/// The events that a reader sees.
#[derive(Default)]
struct Log {
    events: Vec<EventLine>,
    lost: u64,
    unrecorded: u64,
    elsewhere: u64,
}

impl Log {
    /// Adds what the ring holds now.
    fn read(&mut self, rig: &Rig) {
        events(&rig.host, &EventOptions::default(), &mut |item| {
            match item {
                Item::Event(line) => self.events.push((**line).clone()),
                Item::Lost { count } => self.lost += count,
                Item::Unrecorded { count } => self.unrecorded += count,
                Item::Elsewhere { count } => self.elsewhere += count,
                Item::NotRestored { why, .. } => panic!("nothing was kept: {why}"),
            }
            ControlFlow::Continue(())
        })
        .expect("events");
    }

    fn of(rig: &Rig) -> Self {
        let mut log = Self::default();
        log.read(rig);
        log
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
    for port in 0..FLOOD {
        knock(&mut wire, "198.51.100.9", port as u16);
    }
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    let log = Log::of(&rig);
    assert_eq!((log.events.len(), log.about("203.0.113.66"), log.lost), (1, 1, 0));
    rig.uninstall();
}

#[test]
fn from_one_address_that_is_logged() {
    let rig = Rig::with_policy(&format!("[default]\ninbound = \"block\"\nlog = true\n{QUARANTINE}"));
    let mut wire = Wire::new(&rig.machine);
    for port in 0..FLOOD {
        knock(&mut wire, "198.51.100.9", port as u16);
    }
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    let log = Log::of(&rig);
    assert_eq!((log.about("203.0.113.66"), log.lost), (1, 0), "the local block is there");
    let (recorded, refused) = (log.about("198.51.100.9") as u64, rig.counter("events_over_budget"));
    assert_eq!(recorded + refused, u64::from(FLOOD), "what is not recorded is counted");
    assert!(recorded >= 32 && refused > 0, "{recorded} recorded, {refused} refused");
    assert!(log.unrecorded <= refused);
    rig.uninstall();
}

#[test]
fn from_many_addresses_that_are_logged() {
    let rig = Rig::with_policy(&format!("[default]\ninbound = \"block\"\nlog = true\n{QUARANTINE}"));
    let mut wire = Wire::new(&rig.machine);
    let mut log = Log::default();
    for n in 0..3 * FLOOD {
        knock(&mut wire, &format!("198.18.{}.{}", n / 250, n % 250 + 1), 22);
        if n % 1000 == 0 {
            log.read(&rig); // so that the duration of the flood does not matter
        }
    }
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    log.read(&rig);
    assert_eq!((log.about("203.0.113.66"), log.lost), (1, 0));
    let recorded = log.events.len() as u64 - 1;
    assert_eq!(recorded + rig.counter("events_over_budget"), u64::from(3 * FLOOD));
    rig.uninstall();
}

/// Asks for every decision until it is dropped.
fn watch(rig: &Rig) -> Control {
    let (watcher, _) = Control::open(&rig.host).expect("the device opens");
    watcher.record_all().expect("every decision");
    watcher
}

#[test]
fn so_that_events_are_lost_unseen() {
    let rig = Rig::with_policy("[default]\noutbound = \"block\"\n");
    let watcher = watch(&rig);
    let mut wire = Wire::new(&rig.machine);
    for _ in 0..FLOOD {
        wire.connect("203.0.113.66", 443);
    }
    // Reading begins with a full ring and ends after the loss.
    let log = Log::of(&rig);
    let dropped = rig.counter("events_dropped");
    assert!(dropped > 0, "the ring holds more than {FLOOD}");
    assert_eq!((log.events.len() as u64 + dropped, log.lost), (u64::from(FLOOD), dropped));
    // Lost again; the next event that fits reports it.
    for _ in 0..FLOOD {
        wire.connect("203.0.113.66", 443);
    }
    let mut one = [0; 256];
    assert_eq!(watcher.read(&mut one, std::time::Duration::from_secs(20)).expect("an event"), one.len());
    wire.connect("203.0.113.66", 80);
    let log = Log::of(&rig);
    assert_eq!(log.lost, rig.counter("events_dropped") - dropped);
    assert_eq!(log.events.last().map(|event| event.remote_port), Some(80));
    drop(watcher);
    rig.uninstall();
}

#[test]
fn so_that_events_come_out_of_order() {
    const EACH: u32 = 20_000;
    let rig = Rig::with_policy("[default]\noutbound = \"block\"\n");
    let watcher = watch(&rig);
    let stop = AtomicBool::new(false);
    let log = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut log = Log::default();
            while !stop.load(Ordering::Relaxed) {
                log.read(&rig);
            }
            log.read(&rig);
            log
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
        reader.join().expect("the reader")
    });
    for (event, number) in log.events.iter().zip(1..) {
        assert_eq!(event.sequence, number, "in the order of their numbers, with no gap");
    }
    assert_eq!(log.elsewhere, 0);
    assert_eq!(log.lost, rig.counter("events_dropped"));
    assert_eq!(log.events.len() as u64 + log.lost, u64::from(3 * EACH));
    drop(watcher);
    let mut wire = Wire::new(&rig.machine);
    wire.connect("203.0.113.66", 443);
    assert!(Log::of(&rig).events.is_empty(), "nobody asks for every decision any more");
    assert!(Counter::ALL.iter().any(|(_, name)| *name == "events_over_budget"));
    rig.uninstall();
}
