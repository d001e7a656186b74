//! A policy without the driver: filters of Windows that decide by themselves, under a provider and a sublayer of their own.
//!
//! What a filter cannot say is left out, and said: a rule that permits is left to the rules after it, which can only
//! block more; without a rule that blocks the rest would permit more, so that is refused unless the caller accepts it.

mod conditions;
mod descriptor;
mod essential;
mod state;
mod translate;

pub use state::{NativeState, state};
pub use translate::{LeftOut, MOST_ALTERNATIVES, MOST_CONDITIONS, MOST_FILTERS, Translation, translate};

use crate::error::ControlError;
use crate::objects;
use crate::origin;
use crate::policy::expectations_hold;
use crate::program::{app_id, assumed_app_id, missing_interfaces, missing_programs};
use crate::read::{Loadable, read_loadable, read_policy_elsewhere};
use serde::Serialize;
use sluice_host::{Engine, Filter, Guid, Host, HostError, HostResult, Provider, ServiceState, Sublayer, code};
use sluice_policy::model::Policy;
use sluice_policy::{CompileOptions, Diagnostic, lint};
use sluice_protocol::SERVICE_NAME;
use sluice_protocol::object::{self, native};
use std::path::Path;

/// How a policy is made filters of.
#[derive(Clone, Copy, Debug)]
pub struct NativeOptions {
    /// Whether rules that block may be left out where no filter expresses them: the rest then permits more than the policy.
    pub leave_out_blocks: bool,
    /// Whether it is loaded only if the expectations written in it hold.
    pub test: bool,
}

/// What [`load`] added, or [`check`] would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NativeReport {
    /// How many filters there are.
    pub filters: usize,
    /// How many filters of an earlier load they replaced.
    pub replaced: usize,
    /// How many rules they express.
    pub rules: usize,
    /// The rules that they do not express.
    pub left_out: Vec<LeftOut>,
    /// What filters do in another way than the driver.
    pub notes: Vec<String>,
    /// How many expectations that the policy has were tested, and hold.
    pub expectations: usize,
    /// Programs of rules that are not on this machine, as the policy writes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_programs: Vec<String>,
    /// Aliases of interfaces of rules that are not on this machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_interfaces: Vec<String>,
    /// What is probably a mistake.
    pub warnings: Vec<Diagnostic>,
}

impl NativeReport {
    fn of(policy: &Policy, made: &Translation, expectations: usize) -> Self {
        Self {
            filters: made.filters.len(),
            replaced: 0,
            rules: made.rules,
            left_out: made.left.clone(),
            notes: made.notes.clone(),
            expectations,
            missing_programs: Vec::new(),
            missing_interfaces: Vec::new(),
            warnings: policy.warnings.iter().cloned().chain(lint(policy)).collect(),
        }
    }
}

/// Translates a policy away from its machine: needs no machine, and changes nothing.
///
/// # Errors
/// The file cannot be read, is no policy, does not do what it expects of itself, or has rules that block and that no filter
/// expresses.
pub fn check(file: &Path, options: NativeOptions) -> Result<NativeReport, ControlError> {
    let policy = read_policy_elsewhere(file)?;
    let expectations = if options.test { expectations_hold(&policy)? } else { 0 };
    let made = translated(&policy, &assumed_app_id, options)?;
    Ok(NativeReport::of(&policy, &made, expectations))
}

/// Replaces the filters of an earlier load with those of a policy, in one transaction.
///
/// # Errors
/// As [`check`]; the driver is installed, which decides by its own policy; or the Base Filtering Engine refused. Whatever
/// fails, the filters of an earlier load stay.
pub fn load(host: &dyn Host, file: &Path, options: NativeOptions) -> Result<NativeReport, ControlError> {
    let policy = match read_loadable(file)? {
        Loadable::Policy(policy) => policy,
        Loadable::Image(_) => {
            let what = "it is a compiled image, and filters are made of the policy itself (TOML)";
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
            return Err(ControlError::PolicyFile { path: file.to_owned(), source });
        }
    };
    let expectations = if options.test { expectations_hold(&policy)? } else { 0 };
    let now = crate::policy::local_moment();
    let (programs, interfaces) = (missing_programs(host, &policy, now), missing_interfaces(host, &policy, now));
    let policy = policy.on_machine(|alias| host.interface_luid(alias).ok());
    let made = translated(&policy, &|path: &str| app_id(host, path), options)?;
    without_driver(host)?;
    let replaced = write(host, &policy.path, &made.filters).map_err(ControlError::step("adding the filters"))?;
    let report = NativeReport::of(&policy, &made, expectations);
    Ok(NativeReport { replaced, missing_programs: programs, missing_interfaces: interfaces, ..report })
}

/// Removes the filters, their sublayer and their provider in one transaction, and returns how many filters there were;
/// `None` if there was nothing.
///
/// # Errors
/// The Base Filtering Engine refused; nothing has changed.
pub fn unload(host: &dyn Host) -> Result<Option<usize>, ControlError> {
    let failed = || ControlError::step("removing the filters");
    let mut engine = host.open_engine().map_err(failed())?;
    let removed = objects::transaction(&mut *engine, remove).map_err(failed())?;
    Ok(removed.any.then_some(removed.filters))
}

fn translated(
    policy: &Policy,
    application: &dyn Fn(&str) -> Result<String, String>,
    options: NativeOptions,
) -> Result<Translation, ControlError> {
    let made = translate(policy, &CompileOptions { application, key: [0; 16], at: None });
    let opened: Vec<LeftOut> = made.opened().cloned().collect();
    if opened.is_empty() || options.leave_out_blocks { Ok(made) } else { Err(ControlError::NotExpressible(opened)) }
}

/// Refuses a machine where the driver decides, or is to.
fn without_driver(host: &dyn Host) -> Result<(), ControlError> {
    let service = host.service_state(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    let remains = objects::remains(host).map_err(ControlError::step("querying the filters"))?;
    if service == ServiceState::Absent && remains.is_empty() { Ok(()) } else { Err(ControlError::DriverPresent) }
}

fn write(host: &dyn Host, file: &Path, filters: &[Filter]) -> HostResult<usize> {
    let origin = origin::of(file);
    let mut engine = host.open_engine()?;
    objects::transaction(&mut *engine, |engine| {
        let removed = remove(engine)?;
        engine.add_provider(&Provider {
            key: Guid(native::PROVIDER),
            name: format!("{} native", object::NAME),
            description: format!("{}, loaded {} by {}", origin.file, origin.loaded, origin.by),
            persistent: true,
            service: None,
        })?;
        engine.add_sublayer(&Sublayer {
            key: Guid(native::SUBLAYER),
            name: format!("{} native", object::NAME),
            description: state::mark(filters),
            persistent: true,
            provider: Some(Guid(native::PROVIDER)),
            weight: object::SUBLAYER_WEIGHT,
        })?;
        for filter in filters {
            let naming = |error: HostError| HostError {
                message: format!("{} ({}): {}", filter.name, filter.description, error.message),
                ..error
            };
            engine.add_filter(filter).map_err(naming)?;
        }
        Ok(removed.filters)
    })
}

/// What [`remove`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Removed {
    /// How many filters.
    pub(crate) filters: usize,
    /// Whether there was anything at all.
    pub(crate) any: bool,
}

impl Removed {
    /// How many objects.
    pub(crate) const fn objects(self) -> usize {
        if self.any { self.filters + 2 } else { 0 }
    }
}

/// Deletes every filter of the provider and in the sublayer, and both of these. Runs inside the caller's transaction.
///
/// # Errors
/// The Base Filtering Engine refused.
pub(crate) fn remove(engine: &mut dyn Engine) -> HostResult<Removed> {
    let filters = state::ours(engine)?;
    for filter in &filters {
        engine.delete_filter(filter.key)?;
    }
    let there = |result: HostResult<()>| match result {
        Ok(()) => Ok(true),
        Err(error) if code::is_absent(error.code) => Ok(false),
        Err(error) => Err(error),
    };
    let sublayer = there(engine.delete_sublayer(Guid(native::SUBLAYER)))?;
    let provider = there(engine.delete_provider(Guid(native::PROVIDER)))?;
    Ok(Removed { filters: filters.len(), any: sublayer || provider || !filters.is_empty() })
}

#[cfg(test)]
mod tests;
