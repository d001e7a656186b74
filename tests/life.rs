//! A long random life of one installation: policies, flows, readers, restarts of the driver, of the Base Filtering Engine
//! and of the machine, repairs, failures for lack of memory. Whatever happened, the machine does what `sluice status` says
//! it does, no rule of the verifier is violated, and nothing is left behind by an unload.
//!
//! What happens is drawn from a seed, printed when the test fails; `SLUICE_SEED` sets it. A life has 300 steps;
//! `SLUICE_LIFE_SECONDS` lets it last that long instead.

#[path = "support/passing.rs"]
mod passing;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    collections::BTreeMap,
    env,
    ops::ControlFlow,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use ntsim::{
    host::LocalHost,
    machine::{Config, Machine},
};
use passing::{ALL, BY_POLICY, ESSENTIAL, FORBIDDEN, MANAGER, PERMITTED, POLICY, Passing, closed, passes};
use shim::stack::Verdict as Passed;
use sluice_control::{
    Answerer, ControlError, EventOptions, Loading, Scope, events,
    install::{Options, install_with},
    load_with,
    objects::Fail,
    status, uninstall,
};
use sluice_host::{Host, ServiceConfig, ServiceState, StartType, code};
use sluice_policy::Verdict;
use sluice_protocol::{KEPT_POLICY, SERVICE_NAME};
use support::{Rig, driver};
use tempfile::TempDir;
use wire::{Segment, Tcp, Wire};

const STEPS: usize = 300;
/// The policies, with what passes under each.
const POLICIES: [(&str, Passing); 4] = [
    (POLICY, BY_POLICY),
    (
        "[default]\noutbound = \"block\"\ninbound = \"block\"\nforward = \"block\"\n",
        Passing { permitted: false, manager: false, ..BY_POLICY },
    ),
    ("[default]\noutbound = \"permit\"\ninbound = \"permit\"\nlog = true\n", ALL),
    // Nobody answers while it is looked at what passes.
    (
        "[default]\nforward = \"block\"\n[[rule]]\nname = \"asks\"\naction = \"ask\"\ndirection = \"outbound\"\n\
         answer-within = \"1s\"\nremote = [\"203.0.113.66\", \"2001:db8:1::66\"]\n",
        BY_POLICY,
    ),
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// Prints how to repeat a test that fails, and what had happened.
struct Log {
    seed: u64,
    steps: Vec<String>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("repeat with SLUICE_SEED={}; the last steps:", self.seed);
            self.steps.iter().rev().take(8).rev().for_each(|step| eprintln!("  {step}"));
        }
    }
}

struct Life {
    random: Random,
    host: LocalHost,
    files: TempDir,
    /// Connections that are open, on a network card of the present machine.
    wire: Wire,
    open: Vec<Tcp>,
    /// The policies by the identities that their images have had.
    known: BTreeMap<String, usize>,
    log: Log,
}

impl Life {
    fn new(seed: u64) -> Self {
        let machine = Machine::with(Config { special_pool: true, ..Config::default() });
        Self {
            random: Random(seed | 1),
            host: LocalHost::new(machine.clone()),
            files: TempDir::new().unwrap(),
            wire: Wire::new(&machine),
            open: Vec::new(),
            known: BTreeMap::new(),
            log: Log { seed, steps: Vec::new() },
        }
    }

    fn policy(&mut self) -> (usize, PathBuf) {
        let which = self.random.below(POLICIES.len());
        let path = self.files.path().join("policy.toml");
        std::fs::write(&path, POLICIES[which].0).unwrap();
        (which, path)
    }

    fn step(&mut self) {
        let what = match self.random.below(25) {
            0..=4 => self.load(),
            5..=8 => self.traffic(),
            9 => self.read(),
            10 => self.service(),
            11 | 12 => self.restart(),
            13 => self.engine(),
            14 => self.install(),
            15 => self.damage(),
            16 => self.remove(),
            17 | 18 => self.without_memory(),
            20 | 21 => self.ask(),
            22 => self.sleep(),
            23 => self.lose_address(),
            24 => self.set_clock_back(),
            _ => self.listen(),
        };
        self.log.steps.push(what);
        self.check();
    }

    fn load(&mut self) -> String {
        let (which, path) = self.policy();
        let once = self.random.below(4) == 0;
        match load_with(&self.host, &path, Loading { once, ..Loading::DEFAULT }) {
            Ok(report) => {
                self.known.insert(report.identity, which);
                format!("loaded {which}, once: {once}")
            }
            Err(error) => format!("did not load {which}: {error}"),
        }
    }

    fn traffic(&mut self) -> String {
        let remote = [PERMITTED, FORBIDDEN, MANAGER][self.random.below(3)][self.random.below(2)];
        let (verdict, mut tcp) = self.wire.connect(remote, 443);
        if verdict == Passed::Forward
            && self.wire.receive(&mut tcp, Segment::SynAck) == Passed::Forward
            && self.wire.send(&mut tcp, Segment::Ack) == Passed::Forward
        {
            self.open.push(tcp);
        }
        for tcp in &mut self.open {
            self.wire.send(tcp, Segment::Data(b"more"));
        }
        if self.open.len() > 12 {
            let mut tcp = self.open.remove(0);
            self.wire.send(&mut tcp, Segment::Fin);
        }
        format!("{remote}: {verdict:?}, {} open", self.open.len())
    }

    fn read(&mut self) -> String {
        let options = EventOptions { all: self.random.below(2) == 0, ..EventOptions::default() };
        format!("events: {:?}", events(&self.host, &options, &mut |_| ControlFlow::Continue(())))
    }

    /// A reader of all decisions while there are some.
    fn listen(&mut self) -> String {
        let host = self.host.clone();
        let options = EventOptions {
            all: true,
            count: Some(3),
            timeout: Some(Duration::from_millis(20)),
            follow: true,
            ..EventOptions::default()
        };
        let reader = thread::spawn(move || {
            let _ = events(&host, &options, &mut |_| ControlFlow::Continue(()));
        });
        let what = self.traffic();
        reader.join().unwrap();
        format!("with a reader, {what}")
    }

    /// Somebody answers what is asked, or does not, while other things happen; then he ends.
    fn ask(&mut self) -> String {
        let mut answerer = match Answerer::begin(&self.host) {
            Ok(answerer) => answerer,
            Err(error) => return format!("nobody answers: {error}"),
        };
        let mut what = Vec::new();
        for _ in 0..1 + self.random.below(6) {
            what.push(match self.random.below(8) {
                0 => self.load(),
                1 => {
                    self.host.machine().clock.push(Duration::from_millis(700));
                    "time passed".to_owned()
                }
                2 => {
                    self.host.machine().low_resources.enable(1);
                    let traffic = self.traffic();
                    self.host.machine().low_resources.disable();
                    format!("with failing calls, {traffic}")
                }
                _ => self.traffic(),
            });
            for asked in answerer.open().expect("questions") {
                let verdict = [Verdict::Permit, Verdict::Block][self.random.below(2)];
                if self.random.below(2) == 0 {
                    // Once, so that what passes afterwards is what the policy says.
                    let answered = answerer.answer(asked.id, verdict, Scope::Once);
                    what.push(format!("{verdict:?}: {answered:?}"));
                }
            }
        }
        format!("somebody answered: {}", what.join(", "))
    }

    fn sleep(&mut self) -> String {
        let time = Duration::from_secs([1, 600, 40_000][self.random.below(3)]);
        self.host.machine().sleep(time);
        format!("slept {time:?}, then {}", self.traffic())
    }

    fn set_clock_back(&mut self) -> String {
        let time = Duration::from_secs([1, 5000, 90_000_000][self.random.below(3)]);
        self.host.machine().clock.set(-(time.as_secs() as i64) * 10_000_000);
        format!("clock set back {time:?}, then {}", self.traffic())
    }

    /// The network card gets another address: the stack closes what the old one had.
    fn lose_address(&mut self) -> String {
        for address in ["10.77.0.2", "fd77::2"] {
            self.wire.lose_address(address.parse().unwrap());
        }
        self.open.clear();
        format!("another address, then {}", self.traffic())
    }

    fn service(&mut self) -> String {
        let done = match self.host.service_state(SERVICE_NAME).unwrap() {
            ServiceState::Running => self.host.stop_service(SERVICE_NAME),
            _ => self.host.start_service(SERVICE_NAME),
        };
        format!("started or stopped: {done:?}")
    }

    fn restart(&mut self) -> String {
        let mut boot = self.host.power_on();
        while let Some(stage) = boot.step() {
            if self.random.below(3) == 0 {
                let now = passes(boot.host());
                if status(boot.host()).unwrap().fail != Fail::Open {
                    let at_most = |policy: &Passing| now == ESSENTIAL || now == *policy;
                    assert!(POLICIES.iter().any(|(_, policy)| at_most(policy)), "{stage:?}: {now:?}");
                }
            }
        }
        self.host = boot.finish();
        self.wire = Wire::new(self.host.machine());
        self.open.clear();
        "restarted".to_owned()
    }

    fn engine(&mut self) -> String {
        self.host.set_engine(false);
        let load = self.load();
        self.host.set_engine(true);
        format!("without the engine, {load}")
    }

    fn install(&mut self) -> String {
        let fail = [Some(Fail::Open), Some(closed()), None][self.random.below(3)].clone();
        let start =
            [Some(StartType::Boot), Some(StartType::System), Some(StartType::Demand), None][self.random.below(4)];
        let policy = (self.random.below(2) == 0).then(|| self.policy());
        let driver = driver();
        let path = policy.as_ref().map(|(_, path)| path.as_path());
        match install_with(&self.host, &Options { policy: path, start, fail: fail.as_ref(), ..Options::of(&driver) }) {
            Ok(report) => {
                self.known.extend(report.policy.into_iter().map(|loaded| loaded.identity).zip(policy.map(|one| one.0)));
                format!("installed {fail:?} {start:?}")
            }
            Err(error) => format!("not installed: {error}"),
        }
    }

    fn damage(&mut self) -> String {
        let disk = &self.host.machine().disk;
        if let Some(image) = disk.read(KEPT_POLICY) {
            let mut image = image.to_vec();
            let at = self.random.below(image.len().max(1));
            match self.random.below(3) {
                0 => image.truncate(at),
                1 => image.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x40),
                _ => return format!("the kept policy was deleted: {}", disk.remove(KEPT_POLICY).is_some()),
            }
            disk.write(KEPT_POLICY, image);
        }
        "the kept policy was damaged".to_owned()
    }

    fn remove(&mut self) -> String {
        let removed: Result<bool, ControlError> = uninstall(&self.host).map(|report| report.changed());
        format!("removed: {removed:?}")
    }

    /// The next calls for memory fail, each reached by another call stack.
    fn without_memory(&mut self) -> String {
        self.host.machine().low_resources.enable(1 + self.random.below(3));
        let what = match self.random.below(4) {
            0 => self.load(),
            1 => self.traffic(),
            2 => self.service(),
            _ => self.install(),
        };
        self.host.machine().low_resources.disable();
        format!("with failing calls, {what}")
    }

    /// The machine does what its status says.
    fn check(&mut self) {
        if let Some(bugcheck) = self.host.machine().stopped() {
            panic!("{bugcheck}");
        }
        for report in self.host.unload_reports() {
            assert!(report.is_clean(), "left behind: {report}");
        }
        let report = status(&self.host).expect("a status");
        let without = if report.fail == Fail::Open { ALL } else { ESSENTIAL };
        let policy = report.driver.and_then(|driver| driver.policy);
        let expected = match policy.map(|policy| self.known.get(&policy.identity).copied()) {
            // Loaded, and the command failed afterwards.
            Some(None) => return,
            _ if report.filters.is_empty() => ALL,
            Some(Some(which)) => POLICIES[which].1,
            None => without,
        };
        assert_eq!(passes(&self.host), expected);
    }
}

#[test]
fn a_random_life_keeps_every_promise() {
    let seed = env::var("SLUICE_SEED").map_or_else(
        |_| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64,
        |text| text.parse().expect("SLUICE_SEED is a number"),
    );
    let seconds: Option<u64> =
        env::var("SLUICE_LIFE_SECONDS").ok().map(|text| text.parse().expect("SLUICE_LIFE_SECONDS is a number"));
    let mut life = Life::new(seed);
    let begun = Instant::now();
    for step in 0.. {
        match seconds {
            Some(seconds) if begun.elapsed() >= Duration::from_secs(seconds) => break,
            None if step == STEPS => break,
            _ => life.step(),
        }
    }
    life.wire.finish();
    uninstall(&life.host).expect("it uninstalls");
    life.check();
}

/// Another service with the same driver: its device exists already.
#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let rig = Rig::with_policy(POLICY);
    assert_eq!(rig.host.start_service(SERVICE_NAME).unwrap_err().code, code::ERROR_SERVICE_ALREADY_RUNNING);
    let config = ServiceConfig {
        name: "Sluice2".to_owned(),
        display_name: "A second one".to_owned(),
        driver: driver().to_str().unwrap().to_owned(),
        start: StartType::Demand,
    };
    rig.host.create_service(&config).unwrap();
    let error = rig.host.start_service("Sluice2").unwrap_err();
    assert!(error.message.contains("STATUS_OBJECT_NAME_COLLISION"), "{error}");
    assert_eq!(rig.host.service_state("Sluice2"), Ok(ServiceState::Stopped));
    assert_eq!(passes(&rig.host), BY_POLICY);
    rig.host.delete_service("Sluice2").unwrap();
    rig.uninstall();
}
