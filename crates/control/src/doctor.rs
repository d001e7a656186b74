//! What is wrong with an installation, and the command that fixes it.
//!
//! Only looks. Each question is asked separately, so that one that cannot be answered (the filter engine is stopped,
//! the driver is from another build) does not hide the others.

use crate::apply;
use crate::device::Control;
use crate::error::ControlError;
use crate::install::{FILE, IMAGE_PATH, judge_file, leftovers};
use crate::kept;
use crate::native::{self, NativeState};
use crate::objects::{self, Fail};
use crate::status::identity;
use serde::Serialize;
use sluice_host::{Host, HostError, ServiceState, code};
use sluice_protocol::SERVICE_NAME;

/// What [`doctor`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// What keeps the driver from deciding by its policy. Empty when nothing is wrong.
    pub findings: Vec<Finding>,
    /// What is in order, and what else the user should know.
    pub notes: Vec<String>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: String,
    /// What to do about it: a command where there is one.
    pub mend: String,
}

/// Checks every part of an installation.
///
/// # Errors
/// The machine cannot be queried at all.
pub fn doctor(host: &dyn Host) -> Result<DoctorReport, ControlError> {
    let mut report = DoctorReport::default();
    let service = host.service_state(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    // Why it cannot be asked is found below.
    let native = host.open_engine().and_then(|mut engine| native::state(&mut *engine)).ok().flatten();
    if let Some(native) = native.filter(|_| service == ServiceState::Absent) {
        report.native(&native);
        report.filters(host, service);
        return Ok(report);
    }
    report.driver(host, service)?;
    report.file(host, service)?;
    report.filters(host, service);
    if service == ServiceState::Running {
        report.policy(host);
    }
    Ok(report)
}

impl DoctorReport {
    fn wrong(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), mend: mend.into() });
    }

    /// Filters that decide without the driver.
    fn native(&mut self, native: &NativeState) {
        self.notes.push(format!("{} filters decide without the driver: {}", native.filters, native.policy));
        for what in &native.changed {
            self.wrong(what.clone(), "sluice load --native FILE");
        }
    }

    fn driver(&mut self, host: &dyn Host, service: ServiceState) -> Result<(), ControlError> {
        match service {
            ServiceState::Absent => self.wrong("the driver is not installed", "sluice install --policy FILE"),
            ServiceState::Stopped => self
                .wrong("the driver is installed but not loaded, so its filters decide alone: they permit, or block on a machine that fails closed", "sluice install --policy FILE"),
            ServiceState::StopPending => {
                self.wrong("the driver is unloading", "close the programs that have its device open (`sluice events`)");
            }
            ServiceState::Running => self.notes.push("the driver is loaded".to_owned()),
        }
        let path = host.service_driver(SERVICE_NAME).map_err(ControlError::step("querying the service's driver"))?;
        if let Some(path) = path.filter(|path| !path.eq_ignore_ascii_case(IMAGE_PATH)) {
            self.wrong(format!("the service uses {path}, not {IMAGE_PATH}"), "sluice install");
        }
        Ok(())
    }

    fn file(&mut self, host: &dyn Host, service: ServiceState) -> Result<(), ControlError> {
        for file in leftovers(host)? {
            self.wrong(format!("{file} was left by an interrupted installation"), "sluice install");
        }
        match judge_file(host)? {
            Some(judgement) => {
                for obstacle in judgement.obstacles {
                    self.wrong(obstacle.what, obstacle.remedy);
                }
                self.notes.extend(judgement.notes);
            }
            None if service == ServiceState::Absent => {}
            None => self.wrong(format!("{FILE} is missing from the drivers folder"), "sluice install"),
        }
        Ok(())
    }

    fn filters(&mut self, host: &dyn Host, service: ServiceState) {
        let looked = Fail::declared(host)
            .and_then(|fail| host.open_engine().and_then(|mut engine| objects::inspect(&mut *engine, &fail)));
        let objects = match looked {
            Ok(objects) => objects,
            Err(error) if code::is_engine_stopped(error.code) => {
                return self.wrong("the Base Filtering Engine is stopped", "sc start BFE");
            }
            Err(error) => return self.wrong(format!("the filters cannot be queried: {error}"), advice(error)),
        };
        if service == ServiceState::Absent {
            if !objects.filters.is_empty() {
                self.wrong(format!("{} filters remain without a driver", objects.filters.len()), "sluice uninstall");
            }
        } else {
            if objects.disabled() {
                self.wrong("the filters are switched off, so nothing is decided", "sluice enable");
            }
            for what in objects.missing.iter().filter(|_| !objects.disabled()) {
                self.wrong(format!("{what} is missing"), "sluice install");
            }
            for change in &objects.changed {
                self.wrong(format!("{change}"), "sluice install");
            }
            if objects.complete() {
                self.notes.push(format!("all {} filters are present and as expected", objects.filters.len()));
            }
        }
        for foreign in &objects.foreign {
            self.wrong(
                foreign.to_string(),
                "remove the product that added it (`netsh wfp show filters` shows its provider)",
            );
        }
    }

    fn policy(&mut self, host: &dyn Host) {
        match Control::open(host) {
            Ok((_, status)) if status.policy_bytes == 0 => {
                self.wrong("no policy is in force, so nothing is decided", "sluice load FILE");
            }
            Ok((_, status)) => {
                self.notes.push(format!("a policy of {} rules is in force", status.rules));
                self.kept(host, &identity(&status.policy_identity));
                self.bundle(host);
            }
            Err(error) => {
                let mend = error.advice().unwrap_or_else(|| "sluice install".to_owned());
                self.wrong(error.to_string(), mend);
            }
        }
    }
}

impl DoctorReport {
    /// Whether the next start of the driver brings the policy in force.
    fn kept(&mut self, host: &dyn Host, in_force: &str) {
        let load = "sluice load FILE";
        match kept::look(host) {
            None => self.wrong("the policy in force is not kept: the next start of the driver has none", load),
            Some(kept) => match (kept.damaged, kept.identity) {
                (Some(why), _) => {
                    self.wrong(format!("the policy that is kept for the next start is damaged: {why}"), load)
                }
                (None, Some(identity)) if identity == in_force => {
                    self.notes.push("it is kept for the next start of the driver".to_owned());
                }
                _ => self.wrong("another policy than the one in force is kept for the next start of the driver", load),
            },
        }
    }
}

impl DoctorReport {
    /// Whether what is in force is the bundle that was applied last, and of whom the machine trusts.
    fn bundle(&mut self, host: &dyn Host) {
        const APPLY: &str = "sluice apply BUNDLE";
        match apply::unlike_its_bundle(host) {
            Ok(None) => {}
            Ok(Some(what)) => self.wrong(what, APPLY),
            Err(error) => {
                let mend = error.advice().unwrap_or_else(|| APPLY.to_owned());
                self.wrong(error.to_string(), mend);
            }
        }
    }
}

fn advice(error: HostError) -> String {
    let error = ControlError::step("querying the filters")(error);
    error.advice().unwrap_or_else(|| "try again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{load, tests::file};
    use crate::testing::{Memory, installed};
    use sluice_host::FilterAction;
    use sluice_host::system::CodeIntegrity;

    fn findings(memory: &Memory) -> Vec<(String, String)> {
        doctor(memory).unwrap().findings.into_iter().map(|finding| (finding.what, finding.mend)).collect()
    }

    fn well() -> Memory {
        let memory = installed();
        let policy = file("[default]\noutbound = \"permit\"\ninbound = \"permit\"\n");
        load(&memory, policy.path()).unwrap();
        memory
    }

    #[test]
    fn a_sound_installation_has_no_findings() {
        assert!(findings(&well()).is_empty(), "{:?}", findings(&well()));
    }

    /// Each kind of damage is found, with the command that fixes it.
    #[test]
    fn every_damage_is_found_with_its_remedy() {
        type Damage = (&'static str, &'static str, fn(&mut Memory));
        let damages: [Damage; 14] = [
            ("not installed", "sluice install", |memory| *memory = Memory::new()),
            ("not loaded", "sluice install", |memory| {
                memory.service.borrow_mut().as_mut().unwrap().1 = ServiceState::Stopped;
            }),
            ("the service uses", "sluice install", |memory| {
                memory.service.borrow_mut().as_mut().unwrap().0.driver = r"C:\x.sys".into();
            }),
            ("was left by an interrupted", "sluice install", |memory| {
                memory.files.borrow_mut().insert("sluice-old.sys".into(), Vec::new());
            }),
            ("sluice.sys is missing", "sluice install", |memory| memory.files.borrow_mut().clear()),
            ("not signed", "docs/package.md", |memory| {
                memory.system.integrity = CodeIntegrity(CodeIntegrity::ENABLED);
            }),
            ("Engine is stopped", "sc start BFE", |memory| memory.engine_stopped.set(true)),
            ("is missing", "sluice install", |memory| drop(memory.objects.borrow_mut().filters.pop())),
            ("action is", "sluice install", |memory| {
                memory.objects.borrow_mut().filters[0].action = FilterAction::Permit;
            }),
            ("no policy", "sluice load", |memory| memory.driver.lock().unwrap().status.policy_bytes = 0),
            ("is not kept", "sluice load", |memory| drop(memory.files.borrow_mut().remove(kept::FILE))),
            ("start is damaged", "sluice load", |memory| {
                memory.files.borrow_mut().insert(kept::FILE.into(), b"?".to_vec());
            }),
            ("another policy", "sluice load", |memory| {
                memory.driver.lock().unwrap().status.policy_identity = [1; 16];
            }),
            ("speaks protocol", "same build", |memory| memory.driver.lock().unwrap().status.protocol_version = 99),
        ];
        for (what, mend, damage) in damages {
            let mut memory = well();
            damage(&mut memory);
            let found = findings(&memory);
            let matching = found.iter().find(|finding| finding.0.contains(what));
            let finding = matching.unwrap_or_else(|| panic!("{what}: {found:?}"));
            assert!(finding.1.contains(mend), "{finding:?}");
        }
    }

    #[test]
    fn filters_without_a_driver_are_found() {
        let memory = well();
        *memory.service.borrow_mut() = None;
        let found = findings(&memory);
        assert!(
            found.iter().any(|(what, mend)| what.contains("without a driver") && mend == "sluice uninstall"),
            "{found:?}"
        );
    }
}
