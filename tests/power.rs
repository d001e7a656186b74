//! The power fails at each step of `load` and `install`; then the machine starts again.
//!
//! What the policies before and after both forbid passes at no moment of that start, what must stay reachable always does,
//! and the verb, run again, finishes.

#[path = "support/passing.rs"]
mod passing;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{cell::Cell, path::Path};

use ntsim::{host::LocalHost, machine::Machine};
use passing::{ALL, BY_POLICY, ESSENTIAL, POLICY, closed, passes, stages};
use sluice_control::{
    ControlError,
    install::{Options, install_with},
    load,
    objects::Fail,
    status,
};
use sluice_host::{
    Device, Engine, Host, HostError, HostResult, Parameter, ServiceConfig, ServiceState, StartType,
    system::{Signature, System},
};
use support::driver;
use tempfile::TempDir;

/// A machine whose power fails at one call that changes something: it and all later ones do nothing.
struct Failing<'a> {
    host: &'a LocalHost,
    /// How many calls are left.
    left: Cell<usize>,
}

impl Failing<'_> {
    fn on(&self) -> HostResult<&LocalHost> {
        match self.left.get() {
            0 => Err(HostError::with_message("the machine", 31, "the power has failed")),
            left => {
                self.left.set(left - 1);
                Ok(self.host)
            }
        }
    }
}

impl Host for Failing<'_> {
    fn service_state(&self, name: &str) -> HostResult<ServiceState> {
        self.host.service_state(name)
    }
    fn service_driver(&self, name: &str) -> HostResult<Option<String>> {
        self.host.service_driver(name)
    }
    fn set_service_driver(&self, name: &str, driver: &str) -> HostResult<()> {
        self.on()?.set_service_driver(name, driver)
    }
    fn service_start(&self, name: &str) -> HostResult<Option<StartType>> {
        self.host.service_start(name)
    }
    fn set_service_start(&self, name: &str, start: StartType) -> HostResult<()> {
        self.on()?.set_service_start(name, start)
    }
    fn service_parameter(&self, name: &str, value: &str) -> HostResult<Option<Parameter>> {
        self.host.service_parameter(name, value)
    }
    fn set_service_parameter(&self, name: &str, value: &str, to: Option<&Parameter>) -> HostResult<()> {
        self.on()?.set_service_parameter(name, value, to)
    }
    fn create_service(&self, config: &ServiceConfig) -> HostResult<()> {
        self.on()?.create_service(config)
    }
    fn start_service(&self, name: &str) -> HostResult<()> {
        self.on()?.start_service(name)
    }
    fn stop_service(&self, name: &str) -> HostResult<()> {
        self.on()?.stop_service(name)
    }
    fn delete_service(&self, name: &str) -> HostResult<()> {
        self.on()?.delete_service(name)
    }
    fn system(&self) -> HostResult<System> {
        self.host.system()
    }
    fn environment(&self, name: &str) -> HostResult<Option<String>> {
        self.host.environment(name)
    }
    fn signature(&self, path: &str) -> HostResult<Signature> {
        self.host.signature(path)
    }
    fn read_driver(&self, file: &str) -> HostResult<Option<Vec<u8>>> {
        self.host.read_driver(file)
    }
    fn write_driver(&self, file: &str, content: &[u8]) -> HostResult<()> {
        if self.left.get() == 1 {
            // The worst moment: a part is on the disk.
            let _ = self.on()?.write_driver(file, &content[..content.len() / 2]);
        }
        self.on()?.write_driver(file, content)
    }
    fn rename_driver(&self, from: &str, to: &str) -> HostResult<()> {
        self.on()?.rename_driver(from, to)
    }
    fn delete_driver(&self, file: &str) -> HostResult<()> {
        self.on()?.delete_driver(file)
    }
    fn delete_driver_at_restart(&self, file: &str) -> HostResult<()> {
        self.on()?.delete_driver_at_restart(file)
    }
    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>> {
        self.on()?.open_engine()
    }
    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>> {
        self.on()?.open_device(path)
    }
    fn app_id(&self, path: &str) -> HostResult<String> {
        self.host.app_id(path)
    }
    fn interface_luid(&self, alias: &str) -> HostResult<u64> {
        self.host.interface_luid(alias)
    }
}

/// Runs `verb` on machines from `make` whose power fails after no call, after one, and so on until the verb is through.
/// `after` gets each machine before it is switched on again.
fn at_every_step(
    make: impl Fn() -> LocalHost,
    verb: impl Fn(&dyn Host) -> Result<(), ControlError>,
    after: impl Fn(usize, LocalHost),
) -> usize {
    for calls in 0.. {
        let host = make();
        let failing = Failing { host: &host, left: Cell::new(calls) };
        let done = verb(&failing).is_ok() && failing.left.get() > 0;
        after(calls, host);
        if done {
            return calls;
        }
    }
    unreachable!("it ends")
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn machine(&self, fail: &Fail) -> LocalHost {
        let host = LocalHost::new(Machine::new());
        install(&host, &driver(), Some(fail), Some(&self.file("policy.toml", POLICY))).expect("it installs");
        host
    }
}

fn install(host: &dyn Host, driver: &Path, fail: Option<&Fail>, policy: Option<&Path>) -> Result<(), ControlError> {
    install_with(host, &Options { policy, fail, ..Options::of(driver) }).map(|_| ())
}

/// As [`POLICY`], and nothing else passes either.
const STRICTER: &str = "[default]\noutbound = \"block\"\ninbound = \"block\"\nforward = \"block\"\n";

#[test]
fn a_load_that_is_cut_off_leaves_the_old_policy_or_the_new() {
    let files = Files::new();
    let stricter = files.file("stricter.toml", STRICTER);
    let new = passing::Passing { permitted: false, manager: false, ..BY_POLICY };
    for fail in [closed(), Fail::Open] {
        let steps = at_every_step(
            || files.machine(&fail),
            |host| load(host, &stricter).map(|_| ()),
            |calls, host| {
                let (host, seen) = stages(&host);
                let last = seen.last().unwrap().1;
                assert!(last == BY_POLICY || last == new, "{fail}, call {calls}: {last:?}");
                assert_eq!(status(&host).unwrap().driver.unwrap().at_start, "restored", "{fail}, call {calls}");
                let before = if fail == Fail::Open { ALL } else { ESSENTIAL };
                assert!(seen.iter().all(|(_, now)| *now == before || *now == last), "{fail}, call {calls}: {seen:?}");
                load(&host, &stricter).expect("the next load finishes");
                assert_eq!(passes(&host), new);
            },
        );
        assert!(steps > 3, "{steps}");
    }
}

#[test]
fn an_installation_that_is_cut_off_is_open_or_closed_and_never_between() {
    let files = Files::new();
    let policy = files.file("policy.toml", POLICY);
    let verb = |host: &dyn Host| install(host, &driver(), Some(&closed()), Some(&policy));
    let steps = at_every_step(
        || LocalHost::new(Machine::new()),
        verb,
        |calls, host| {
            let (host, seen) = stages(&host);
            // Its last step adds the filters: before it nothing is decided, after it everything.
            let open = seen.iter().all(|(_, now)| *now == ALL);
            let closed = seen.iter().all(|(_, now)| *now == ESSENTIAL || *now == BY_POLICY);
            assert!(open || closed, "call {calls}: {seen:?}");
            verb(&host).expect("the next installation finishes");
            assert_eq!(passes(&host), BY_POLICY, "call {calls}");
        },
    );
    assert!(steps > 8, "{steps}");
}

#[test]
fn an_upgrade_that_is_cut_off_leaves_a_closed_machine_closed() {
    let files = Files::new();
    let mut image = std::fs::read(driver()).unwrap();
    image.push(0);
    let newer = files.file("newer.sys", image);
    let verb = |host: &dyn Host| install(host, &newer, None, None);
    let steps = at_every_step(
        || files.machine(&closed()),
        verb,
        |calls, host| {
            assert!([BY_POLICY, ESSENTIAL].contains(&passes(&host)), "call {calls}");
            let (host, seen) = stages(&host);
            assert!(seen.iter().all(|(_, now)| *now == ESSENTIAL || *now == BY_POLICY), "call {calls}: {seen:?}");
            assert_eq!(passes(&host), BY_POLICY, "call {calls}: the old driver or the new one, with the policy");
            verb(&host).expect("the next upgrade finishes");
            assert_eq!(passes(&host), BY_POLICY);
        },
    );
    assert!(steps > 6, "{steps}");
}
