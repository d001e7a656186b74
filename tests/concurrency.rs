//! The real driver under everything at once: processors classify while policies swap, filters come and go, flows begin
//! and end, events are read, and at last the driver unloads under traffic.
//!
//! What each processor does is drawn from a seed, printed when a test fails. `SLUICE_SEED` sets it;
//! `SLUICE_CONCURRENCY_SECONDS` sets how long the free run lasts (default 3).

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use ntsim::cpu::baton::Schedule;
use shim::{layer::Direction, stack::Verdict};
use sluice_control::{device::Control, load_image, status};
use sluice_host::{Condition, ConditionValue, Filter, FilterAction, Guid, Host, MatchType, Sublayer, Weight};
use sluice_protocol::object::{CALLOUTS, SUBLAYER_WEIGHT};
use support::Rig;
use wire::{Segment, Tcp, Wire, ping};

/// The remotes that the processors connect to; a policy is the set of those it blocks, one bit each.
const REMOTES: [&str; 6] =
    ["203.0.113.66", "203.0.113.10", "198.51.100.7", "2001:db8:1::66", "2001:db8:1::10", "2001:db8:2::7"];
/// The port that the foreign filter (the fence) blocks while it exists.
const FENCED: u16 = 4444;
const FENCE: Guid = Guid(0x1111_2222_3333_4444_5555_6666_7777_8888);
/// Flows one processor keeps open.
const MOST_FLOWS: usize = 16;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        Self((seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)).max(1))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// The seed of this run: what the environment says, or the time.
fn seed() -> u64 {
    match env::var("SLUICE_SEED") {
        Ok(text) => text.parse().expect("SLUICE_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64,
    }
}

/// Prints the seed when the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("repeat with SLUICE_SEED={}", self.0);
        }
    }
}

/// A policy that blocks the remotes of `mask`.
fn policy(mask: u32) -> String {
    let blocked: Vec<String> = REMOTES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask >> bit & 1 == 1)
        .map(|(_, remote)| format!("{remote:?}"))
        .collect();
    let rule = match blocked.as_slice() {
        [] => String::new(),
        blocked => {
            format!("[[rule]]\nname = \"some\"\naction = \"block\"\nlog = true\nremote = [{}]\n", blocked.join(", "))
        }
    };
    format!("[default]\noutbound = \"permit\"\ninbound = \"permit\"\nlog = true\n{rule}")
}

/// Which policies may have been in force, and whether the fence existed, at some moment.
#[derive(Default)]
struct Timeline {
    /// Every policy ever loaded.
    masks: Mutex<Vec<u32>>,
    /// How many loads have begun, and how many have ended.
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// Counts the changes of the fence, each when it begins and when it has ended: 4n absent, 4n + 2 present, odd in
    /// between.
    fence: AtomicUsize,
    /// 1 while the driver is being uninstalled, 2 when it is gone.
    uninstall: AtomicUsize,
    stop: AtomicBool,
}

/// What could be true during a call.
struct Possible {
    masks: Vec<u32>,
    fence: [usize; 2],
    uninstall: [usize; 2],
}

impl Timeline {
    fn load(&self, mask: u32, load: impl FnOnce()) {
        self.masks.lock().unwrap().push(mask);
        self.begun.fetch_add(1, SeqCst);
        load();
        self.ended.fetch_add(1, SeqCst);
    }

    /// Makes a call and returns what could be true during it.
    fn during<R>(&self, call: impl FnOnce() -> R) -> (R, Possible) {
        let before = (self.ended.load(SeqCst), self.fence.load(SeqCst), self.uninstall.load(SeqCst));
        let result = call();
        let after = (self.begun.load(SeqCst), self.fence.load(SeqCst), self.uninstall.load(SeqCst));
        // Loads do not overlap, so the policy in force was the last one loaded before the call, or a later one whose
        // load had begun when the call ended.
        let masks = self.masks.lock().unwrap()[before.0 - 1..after.0].to_vec();
        (result, Possible { masks, fence: [before.1, after.1], uninstall: [before.2, after.2] })
    }
}

impl Possible {
    /// Whether a verdict about `remote` is one of the possible ones; `forwarded` is the verdict.
    fn allows(&self, remote: usize, fenced: bool, forwarded: bool) -> bool {
        let [fence, fence_after] = self.fence;
        let fence_stood = fenced && fence == fence_after && fence % 4 == 2;
        let fence_may = fenced && (fence != fence_after || fence % 4 != 0);
        let policy_may = |blocks: bool| self.masks.iter().any(|mask| (mask >> remote & 1 == 1) == blocks);
        if forwarded {
            !fence_stood && (policy_may(false) || self.uninstall[1] != 0)
        } else {
            fence_may || (policy_may(true) && self.uninstall[0] != 2)
        }
    }
}

/// One processor's work.
struct Processor<'a> {
    timeline: &'a Timeline,
    random: Random,
    wire: Wire,
    flows: Vec<(usize, Tcp)>,
    /// Every verdict, for comparing two runs.
    log: Vec<bool>,
}

impl<'a> Processor<'a> {
    fn new(rig: &Rig, timeline: &'a Timeline, seed: u64, number: u64) -> Self {
        let wire = Wire::new(&rig.machine);
        Self { timeline, random: Random::new(seed, number + 1), wire, flows: Vec::new(), log: Vec::new() }
    }

    fn judge(&mut self, what: &str, remote: usize, fenced: bool, verdict: Verdict, possible: &Possible) -> bool {
        let forwarded = verdict == Verdict::Forward;
        assert!(
            possible.allows(remote, fenced, forwarded),
            "{what} to {}: {verdict:?} under policies {:?}, fence {:?}, uninstall {:?}",
            REMOTES[remote],
            possible.masks,
            possible.fence,
            possible.uninstall
        );
        self.log.push(forwarded);
        forwarded
    }

    fn step(&mut self) {
        let remote = self.random.below(REMOTES.len());
        match self.random.below(100) {
            0..30 => {
                let (verdict, possible) = self.timeline.during(|| self.wire.connect(REMOTES[remote], 443).0);
                self.judge("connect", remote, false, verdict, &possible);
            }
            30..40 => {
                let remote = remote % 3; // the fence is for IPv4
                let (verdict, possible) = self.timeline.during(|| self.wire.connect(REMOTES[remote], FENCED).0);
                self.judge("connect to the fenced port", remote, true, verdict, &possible);
            }
            40..50 => {
                let bytes = ping(REMOTES[remote]);
                let (verdict, possible) = self.timeline.during(|| self.wire.pass(&bytes, Direction::Outbound).verdict);
                self.judge("ping", remote, false, verdict, &possible);
            }
            50..65 => self.open(remote),
            65..90 => self.talk(),
            90..98 => self.close(),
            _ => {
                self.flows.clear();
                self.wire.finish();
            }
        }
    }

    fn open(&mut self, remote: usize) {
        let ((verdict, mut tcp), possible) = self.timeline.during(|| self.wire.connect(REMOTES[remote], 80));
        if !self.judge("opening connect", remote, false, verdict, &possible) {
            return;
        }
        for inbound in [true, false] {
            let (verdict, possible) = self.timeline.during(|| match inbound {
                true => self.wire.receive(&mut tcp, Segment::SynAck),
                false => self.wire.send(&mut tcp, Segment::Ack),
            });
            // Until it is established a connection keeps the verdict it was opened with; only a policy can cut it off.
            if verdict == Verdict::Forward {
                self.log.push(true);
            } else {
                self.judge("handshake", remote, false, verdict, &possible);
                return;
            }
        }
        if self.flows.len() == MOST_FLOWS {
            self.flows.swap_remove(0);
        }
        self.flows.push((remote, tcp));
    }

    fn talk(&mut self) {
        if self.flows.is_empty() {
            return;
        }
        let chosen = self.random.below(self.flows.len());
        let outbound = self.random.below(2) == 0;
        let (remote, mut tcp) = self.flows.swap_remove(chosen);
        let (verdict, possible) = self.timeline.during(|| match outbound {
            true => self.wire.send(&mut tcp, Segment::Data(b"said")),
            false => self.wire.receive(&mut tcp, Segment::Data(b"heard")),
        });
        // A flow that was cut off stays so.
        if self.judge("data", remote, false, verdict, &possible) {
            self.flows.push((remote, tcp));
        }
    }

    fn close(&mut self) {
        let Some((remote, mut tcp)) = self.flows.pop() else { return };
        for (outbound, segment) in [(true, Segment::Fin), (false, Segment::Fin), (true, Segment::Ack)] {
            let (verdict, possible) = self.timeline.during(|| match outbound {
                true => self.wire.send(&mut tcp, segment),
                false => self.wire.receive(&mut tcp, segment),
            });
            if !self.judge("end", remote, false, verdict, &possible) {
                return;
            }
        }
    }
}

/// What the administrator does.
struct Administrator<'a> {
    rig: &'a Rig,
    timeline: &'a Timeline,
    random: Random,
    images: Vec<(u32, Vec<u8>)>,
}

impl<'a> Administrator<'a> {
    fn new(rig: &'a Rig, timeline: &'a Timeline, seed: u64) -> Self {
        let mut random = Random::new(seed, 0);
        let images = (0..8)
            .map(|_| {
                let mask = random.below(1 << REMOTES.len()) as u32;
                (mask, rig.compile(&policy(mask)))
            })
            .collect();
        let new = Self { rig, timeline, random, images };
        new.swap(0);
        new.rig
            .host
            .open_engine()
            .expect("the engine opens")
            .add_sublayer(&Sublayer {
                key: FENCE,
                name: "fence".into(),
                description: String::new(),
                persistent: false,
                provider: None,
                weight: SUBLAYER_WEIGHT + 1,
            })
            .expect("the sublayer is added");
        new
    }

    fn swap(&self, index: usize) {
        let (mask, image) = &self.images[index];
        self.timeline.load(*mask, || {
            load_image(&self.rig.host, image).expect("every swap succeeds");
        });
    }

    /// Adds or removes the foreign filter.
    fn fence(&self) {
        let there = self.timeline.fence.fetch_add(1, SeqCst) % 4 == 2;
        let mut engine = self.rig.host.open_engine().expect("the engine opens");
        if there {
            engine.delete_filter(FENCE).expect("the filter goes");
        } else {
            let port = filter_engine::layers::condition("IP_REMOTE_PORT").expect("a condition of the table");
            let filter = Filter {
                key: Some(FENCE),
                name: "fence".into(),
                description: String::new(),
                flags: 0,
                provider: None,
                layer: Guid(CALLOUTS[0].layer),
                sublayer: FENCE,
                weight: Weight::Auto,
                conditions: vec![Condition {
                    field: port,
                    match_type: MatchType::Equal,
                    value: ConditionValue::Uint16(FENCED),
                }],
                action: FilterAction::Block,
            };
            engine.add_filter(&filter).expect("the filter comes");
        }
        drop(engine);
        self.timeline.fence.fetch_add(1, SeqCst);
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..6 => {
                let index = self.random.below(self.images.len());
                self.swap(index);
            }
            6..9 => self.fence(),
            _ => {
                status(&self.rig.host).expect("a status");
            }
        }
    }
}

/// Reads events as `sluice events` does, so that the driver's DPC completes pended reads. Returns how many bytes came.
fn read_events(rig: &Rig, timeline: &Timeline) -> usize {
    let (control, _) = Control::open(&rig.host).expect("the device opens");
    let (mut buffer, mut bytes) = (vec![0; 0x1_0000], 0);
    while !timeline.stop.load(SeqCst) {
        bytes += control.read(&mut buffer, Duration::from_millis(20)).expect("a read");
    }
    bytes
}

#[test]
fn everything_at_once_and_an_unload_under_traffic() {
    let seed = Seed(seed());
    let seconds = env::var("SLUICE_CONCURRENCY_SECONDS").map_or(3.0, |text| text.parse().expect("a number"));
    let rig = Rig::install();
    let machine = rig.machine.clone();
    let timeline = Timeline::default();
    let mut administrator = Administrator::new(&rig, &timeline, seed.0);
    let traffic_stops = AtomicBool::new(false);
    let (verdicts, events) = thread::scope(|scope| {
        let processors: Vec<_> = (0..4)
            .map(|number| {
                let (rig, timeline, seed, stops) = (&rig, &timeline, seed.0, &traffic_stops);
                scope.spawn(move || {
                    let mut processor = Processor::new(rig, timeline, seed, number);
                    while !stops.load(SeqCst) {
                        processor.step();
                    }
                    processor.wire.finish();
                    processor.log.len()
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let reader = scope.spawn(|| read_events(&rig, &timeline));
        while Instant::now() < end && !processors.iter().any(thread::ScopedJoinHandle::is_finished) {
            administrator.step();
        }
        timeline.stop.store(true, SeqCst);
        let events = reader.join().expect("the reader");
        // Under traffic, and with flows that carry contexts.
        timeline.uninstall.store(1, SeqCst);
        let report = sluice_control::uninstall(&rig.host).expect("the driver uninstalls");
        timeline.uninstall.store(2, SeqCst);
        assert!(!report.waiting, "the unload waits for something");
        thread::sleep(Duration::from_millis(50));
        traffic_stops.store(true, SeqCst);
        let verdicts: usize = processors.into_iter().map(|processor| processor.join().expect("a processor")).sum();
        (verdicts, events)
    });
    if let Some(bugcheck) = machine.stopped() {
        panic!("{bugcheck}");
    }
    let reports = rig.host.unload_reports();
    assert!(reports.iter().all(ntsim::machine::LeakReport::is_clean), "left behind: {}", reports[0]);
    assert_eq!(reports.len(), 1, "the driver was unloaded once");
    assert_eq!(machine.wfp.engine.flows.context_count(), 0, "every flow context was deleted");
    let loads = timeline.ended.load(SeqCst);
    assert!(
        verdicts > 500 && events > 1000 && loads > 10,
        "{verdicts} verdicts, {events} bytes of events, {loads} policies"
    );
    eprintln!("{verdicts} verdicts, {events} bytes of events, {loads} policies");
}

/// Three processors and the administrator, one at a time, for this many steps each: returns what every processor saw,
/// and the order of the calls.
fn scheduled(seed: u64) -> (Vec<Vec<bool>>, (u64, u64)) {
    const PROCESSORS: usize = 3;
    const STEPS: usize = 120;
    let rig = Rig::scheduled();
    // Which events fit a source's budget, and so which are copied, depends on the clock.
    let (watcher, _) = Control::open(&rig.host).expect("the device opens");
    watcher.record_all().expect("every decision");
    let timeline = Timeline::default();
    let mut administrator = Administrator::new(&rig, &timeline, seed);
    let schedule = Schedule::new(seed, PROCESSORS + 1);
    let logs = thread::scope(|scope| {
        let processors: Vec<_> = (0..PROCESSORS)
            .map(|number| {
                let (rig, timeline, schedule) = (&rig, &timeline, &schedule);
                scope.spawn(move || {
                    let mut processor = Processor::new(rig, timeline, seed, number as u64);
                    let _turn = schedule.join(number);
                    for _ in 0..STEPS {
                        processor.step();
                    }
                    processor.wire.finish();
                    processor.log
                })
            })
            .collect();
        let turn = schedule.join(PROCESSORS);
        for _ in 0..STEPS / 4 {
            administrator.step();
        }
        drop(turn);
        processors.into_iter().map(|processor| processor.join().expect("a processor")).collect()
    });
    let machine = rig.machine.clone();
    drop(watcher);
    rig.uninstall();
    assert_eq!(machine.wfp.engine.flows.context_count(), 0, "every flow context was deleted");
    (logs, schedule.fingerprint())
}

#[test]
fn a_seed_repeats_every_interleaving_at_the_import_boundary() {
    let seed = Seed(seed());
    let (logs, calls) = scheduled(seed.0);
    assert!(calls.0 > 1000, "{} calls", calls.0);
    assert_eq!(scheduled(seed.0), (logs, calls), "the same again");
    assert_ne!(scheduled(seed.0.wrapping_add(1)).1, calls, "another seed is another order");
}
