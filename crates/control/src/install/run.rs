//! The steps of an installation, and how to undo each.

use super::plan::{Plan, PolicySource, Step};
use super::{FILE, IMAGE_PATH, NEW, OLD, unloaded};
use crate::error::ControlError;
use crate::kept;
use crate::objects::{self, Fail};
use crate::policy::{LoadReport, load_image};
use crate::trust;
use sluice_bundle::PublicKey;
use sluice_host::{FilterEntry, Host, HostResult, ServiceConfig, StartType};
use sluice_protocol::{SERVICE_DISPLAY_NAME, SERVICE_NAME};

/// How a step is undone.
#[derive(Debug)]
enum Undo {
    /// Delete a file, if it still has this name.
    Delete(&'static str),
    /// Put the old driver back in place.
    Restore,
    /// Unload the driver.
    Unload,
    /// Load the previous driver, and give it the policy it had.
    Load,
    /// Give the driver the policy it had.
    Policy,
    /// Keep the policy that was kept before.
    Keep,
    /// Delete the service.
    DeleteService,
    /// Give the service its old start type.
    SetStart(StartType),
    /// Declare what was declared before.
    Declare(Fail),
    /// Trust whom the machine trusted before.
    Trust(Option<PublicKey>),
    /// Give the service its old driver file.
    MoveService(String),
}

/// The outcome of the steps.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The filters, if they had to be added.
    pub(super) filters: Option<Vec<FilterEntry>>,
    /// The policy file's policy that was put in force.
    pub(super) policy: Option<LoadReport>,
    /// What was left undone, harmlessly.
    pub(super) notes: Vec<String>,
}

/// Takes all steps of a plan.
///
/// # Errors
/// A step failed; those before it were undone, and what could not be undone is named.
pub(super) fn run(host: &dyn Host, plan: &Plan) -> Result<Outcome, ControlError> {
    let mut run = Run { host, plan, undo: Vec::new(), outcome: Outcome::default() };
    for step in &plan.steps {
        if let Err(error) = run.step(step) {
            return Err(error.leaving(run.undo()));
        }
    }
    Ok(run.outcome)
}

struct Run<'a> {
    host: &'a dyn Host,
    plan: &'a Plan,
    /// One for each step done, in order.
    undo: Vec<Undo>,
    outcome: Outcome,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Result<(), ControlError> {
        let (host, plan) = (self.host, self.plan);
        let failed = || ControlError::step(step.to_string());
        match step {
            Step::DeleteLeftover { file } => host.delete_driver(file).map_err(failed())?,
            Step::CopyDriver { file, .. } => {
                host.write_driver(file, &plan.content).map_err(failed())?;
                self.undo.push(Undo::Delete(file));
                self.same_signature(file)?;
            }
            Step::KeepOld { file } => {
                host.write_driver(file, plan.old.as_deref().unwrap_or_default()).map_err(failed())?;
                self.undo.push(Undo::Delete(file));
            }
            Step::UnloadDriver => {
                host.stop_service(SERVICE_NAME).map_err(failed())?;
                if !unloaded(host)? {
                    return Err(ControlError::Unloading);
                }
                self.undo.push(Undo::Load);
            }
            Step::PlaceDriver { .. } => {
                host.rename_driver(NEW, FILE).map_err(failed())?;
                self.undo.push(if plan.old.is_some() { Undo::Restore } else { Undo::Delete(FILE) });
            }
            Step::CreateService { image_path, start } => {
                let config = ServiceConfig {
                    name: SERVICE_NAME.to_owned(),
                    display_name: SERVICE_DISPLAY_NAME.to_owned(),
                    driver: (*image_path).to_owned(),
                    start: *start,
                };
                host.create_service(&config).map_err(failed())?;
                self.undo.push(Undo::DeleteService);
            }
            Step::MoveService { from, .. } => {
                host.set_service_driver(SERVICE_NAME, IMAGE_PATH).map_err(failed())?;
                self.undo.push(Undo::MoveService(from.clone()));
            }
            Step::SetStart { from, to } => {
                host.set_service_start(SERVICE_NAME, *to).map_err(failed())?;
                self.undo.push(Undo::SetStart(*from));
            }
            Step::Declare { from, to } => {
                // It is several values.
                self.undo.push(Undo::Declare(from.clone()));
                to.declare(host).map_err(failed())?;
            }
            Step::Trust { .. } => {
                trust::set(host, plan.trust.as_ref()).map_err(failed())?;
                self.undo.push(Undo::Trust(plan.trusted));
            }
            Step::LoadDriver => {
                host.start_service(SERVICE_NAME).map_err(failed())?;
                self.undo.push(Undo::Unload);
            }
            Step::LoadPolicy { from, .. } => self.policy(*from)?,
            Step::AddFilters { .. } => self.outcome.filters = Some(objects::write(host, &plan.fail).map_err(failed())?),
            // The new driver works: an old file that stays is no reason to roll back.
            Step::DeleteOld { file } => {
                if let Err(error) = delete_now_or_later(host, file) {
                    self.outcome.notes.push(format!("{file} stays in the drivers folder: {error}"));
                }
            }
        }
        Ok(())
    }

    /// The copied file must be the checked one: somebody may have changed it in between.
    fn same_signature(&self, file: &str) -> Result<(), ControlError> {
        let path = format!(r"{}\{file}", self.plan.system.drivers);
        let signature =
            self.host.signature(&path).map_err(ControlError::step("checking the copied driver's signature"))?;
        if signature == self.plan.signature { Ok(()) } else { Err(ControlError::DriverChanged) }
    }

    fn policy(&mut self, from: PolicySource) -> Result<(), ControlError> {
        match (from, &self.plan.policy, &self.plan.running) {
            (PolicySource::File, Some(policy), _) => {
                // It can fail after the driver has accepted the policy.
                self.undo.extend([Undo::Keep, Undo::Policy]);
                self.outcome.policy = Some(policy.load(self.host, false).map_err(|error| match error {
                    // What is in force now is undone.
                    ControlError::NotKept { source } => ControlError::step("keeping the policy")(source),
                    error => error,
                })?);
            }
            (PolicySource::Running, _, Some(image)) => {
                load_image(self.host, image)
                    .map_err(|source| ControlError::PolicyNotCarried { source: Box::new(source) })?;
            }
            // The plan names only what it has.
            _ => {}
        }
        Ok(())
    }

    /// Undoes what was done, last first, and names what could not be undone.
    fn undo(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        while let Some(undo) = self.undo.pop() {
            if let Err(what) = self.undo_one(&undo) {
                left.push(what);
            }
        }
        left
    }

    fn undo_one(&self, undo: &Undo) -> Result<(), String> {
        let host = self.host;
        let named = |what: &str, result: HostResult<()>| result.map_err(|error| format!("{what}: {error}"));
        match undo {
            Undo::Delete(file) => match host.read_driver(file) {
                Ok(None) => Ok(()),
                _ => named(&format!("deleting {file}"), delete_now_or_later(host, file)),
            },
            Undo::Restore => named("restoring the old driver's file", host.rename_driver(OLD, FILE)),
            Undo::Unload => {
                named("unloading the driver", host.stop_service(SERVICE_NAME))?;
                match unloaded(host) {
                    Ok(true) => Ok(()),
                    Ok(false) => {
                        Err("the driver stays loaded until the last program that has it open closes it".to_owned())
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            Undo::Load => {
                named("loading the old driver again", host.start_service(SERVICE_NAME))?;
                self.undo_one(&Undo::Policy)
            }
            Undo::Policy => match &self.plan.running {
                Some(image) => load_image(host, image)
                    .map(|_| ())
                    .map_err(|error| format!("restoring the driver's policy: {error}")),
                None => Ok(()),
            },
            Undo::Keep => {
                let kept = kept::POLICY.restore(host, self.plan.kept.as_deref());
                let bundle = kept::BUNDLE.restore(host, self.plan.bundle.as_deref());
                named("restoring the kept policy", kept.and(bundle))
            }
            Undo::DeleteService => named("deleting the service", host.delete_service(SERVICE_NAME)),
            Undo::SetStart(from) => {
                named("restoring the service's start type", host.set_service_start(SERVICE_NAME, *from))
            }
            Undo::Declare(from) => named("restoring how the machine fails", from.declare(host)),
            Undo::Trust(before) => named("restoring the trusted key", trust::set(host, before.as_ref())),
            Undo::MoveService(from) => {
                named("restoring the service's old file", host.set_service_driver(SERVICE_NAME, from))
            }
        }
    }
}

/// Deletes a file, or has Windows delete it at the next start if it is in use.
pub(super) fn delete_now_or_later(host: &dyn Host, file: &str) -> HostResult<()> {
    host.delete_driver(file).or_else(|error| host.delete_driver_at_restart(file).map_err(|_| error))
}
