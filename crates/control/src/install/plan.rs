//! What an installation would do: determined first, as steps that people and programs can read, and then done in
//! exactly this order (`run`).

use super::check::{self, Judgement, Obstacle};
use super::{FILE, IMAGE_PATH, NEW, OLD, Options, leftovers};
use crate::device::Control;
use crate::error::ControlError;
use crate::kept;
use crate::native::{self, NativeState};
use crate::objects::{self, Change, Fail, Foreign, Inspection};
use crate::policy::{self, Prepared};
use crate::trust;
use serde::Serialize;
use sluice_bundle::PublicKey;
use sluice_host::system::{Signature, System};
use sluice_host::{Host, ServiceState, StartType};
use sluice_protocol::SERVICE_NAME;
use std::fmt;
use std::path::Path;

/// No driver of ours is larger.
const MAX_DRIVER: u64 = 64 << 20;
/// Where Windows keeps the files of drivers installed from an INF.
const DRIVER_STORE: &str = r"\driverstore\filerepository\";

/// One step of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Delete a file left by an interrupted installation.
    DeleteLeftover {
        /// The file's name in the drivers folder.
        file: &'static str,
    },
    /// Write the driver into a new file in the drivers folder.
    CopyDriver {
        /// The file's name there until it is put in place.
        file: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Keep the installed driver's content in a file, to restore it on failure.
    KeepOld {
        /// The file's name in the drivers folder.
        file: &'static str,
    },
    /// Unload the loaded driver. Its filters stay, and permit or block while it is away, as is declared.
    UnloadDriver,
    /// Give the new file its name, replacing the old file if there is one.
    PlaceDriver {
        /// The file.
        path: String,
    },
    /// Create the service.
    CreateService {
        /// Its ImagePath.
        image_path: &'static str,
        /// When its driver is loaded.
        start: StartType,
    },
    /// Give the service another driver file.
    MoveService {
        /// Its previous ImagePath.
        from: String,
        /// Its ImagePath.
        image_path: &'static str,
    },
    /// Give the service another start type.
    SetStart {
        /// Its previous one.
        from: StartType,
        /// The new one.
        to: StartType,
    },
    /// Declare what the machine does without the driver or a policy.
    Declare {
        /// What was declared before.
        from: Fail,
        /// What is from now on.
        to: Fail,
    },
    /// Trust a key: only bundles that it has signed are put in force.
    Trust {
        /// The key that was trusted before.
        from: Option<String>,
        /// The one that is from now on.
        to: String,
    },
    /// Load the driver.
    LoadDriver,
    /// Load a policy into the driver.
    LoadPolicy {
        /// Where it comes from.
        from: PolicySource,
        /// The length of its image.
        bytes: usize,
    },
    /// Add provider, sublayer, callouts and filters, replacing any that exist.
    AddFilters {
        /// What exists but is not as expected.
        changed: Vec<Change>,
    },
    /// Delete the driver that was replaced.
    DeleteOld {
        /// The file's name in the drivers folder.
        file: &'static str,
    },
}

/// Where a policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicySource {
    /// The file that the caller named.
    File,
    /// The driver being replaced.
    Running,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteLeftover { file } => write!(f, "delete {file}, left by an interrupted installation"),
            Self::CopyDriver { file, bytes } => write!(f, "copy the driver, {bytes} bytes, to {file}"),
            Self::KeepOld { file } => write!(f, "keep the installed driver as {file}"),
            Self::UnloadDriver => f.write_str("unload the driver; its filters stay"),
            Self::PlaceDriver { path } => write!(f, "put the copy in place: {path}"),
            Self::CreateService { image_path, start } => {
                write!(f, "create the service {SERVICE_NAME} for {image_path}, {}", start_text(*start))
            }
            Self::SetStart { from, to } => {
                write!(f, "have the driver loaded {} instead of {}", start_text(*to), start_text(*from))
            }
            Self::Declare { from, to } => write!(f, "declare that the machine fails {to} instead of {from}"),
            Self::Trust { from, to } => {
                write!(f, "take only bundles that {to} has signed")?;
                from.as_ref().map_or(Ok(()), |from| write!(f, ", instead of those of {from}"))
            }
            Self::MoveService { from, image_path } => write!(f, "point the service to {image_path} instead of {from}"),
            Self::LoadDriver => f.write_str("load the driver"),
            Self::LoadPolicy { from: PolicySource::File, bytes } => {
                write!(f, "put the policy in force, {bytes} bytes compiled")
            }
            Self::LoadPolicy { from: PolicySource::Running, bytes } => {
                write!(f, "put the previous policy back in force, {bytes} bytes")
            }
            Self::AddFilters { changed } => {
                f.write_str("add the filters")?;
                changed.iter().try_for_each(|change| write!(f, "; repairs {change}"))
            }
            Self::DeleteOld { file } => write!(f, "delete {file}"),
        }
    }
}

/// When a driver of this start type is loaded.
#[must_use]
pub const fn start_text(start: StartType) -> &'static str {
    match start {
        StartType::Boot => "with the kernel",
        StartType::System => "while Windows starts",
        StartType::Auto => "by the Service Control Manager",
        StartType::Demand => "on demand",
        StartType::Disabled => "never",
    }
}

/// What to do, and with what.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) system: System,
    pub(super) signature: Signature,
    pub(super) notes: Vec<String>,
    pub(super) obstacles: Vec<Obstacle>,
    pub(super) steps: Vec<Step>,
    /// The driver.
    pub(super) content: Vec<u8>,
    /// The installed driver, if it is a different one.
    pub(super) old: Option<Vec<u8>>,
    /// The policy in force, if the driver that holds it is unloaded or gets another.
    pub(super) running: Option<Vec<u8>>,
    /// The policy that is kept for the next start.
    pub(super) kept: Option<Vec<u8>>,
    /// The bundle that was applied last.
    pub(super) bundle: Option<Vec<u8>>,
    /// The policy that the caller named.
    pub(super) policy: Option<Prepared>,
    /// What is declared for a machine without the driver or a policy.
    pub(super) declared: Fail,
    /// What is to be.
    pub(super) fail: Fail,
    /// The key that is trusted.
    pub(super) trusted: Option<PublicKey>,
    /// The one that is to be.
    pub(super) trust: Option<PublicKey>,
    /// The current state of our objects.
    pub(super) objects: Inspection,
}

impl Plan {
    /// Looks; changes nothing.
    pub(super) fn make(host: &dyn Host, options: &Options<'_>) -> Result<Self, ControlError> {
        let (path, content) = read_driver(options.driver)?;
        let machine =
            check::image_machine(&content).ok_or_else(|| invalid(options.driver, "not a driver: not a PE image"))?;
        let system = host.system().map_err(ControlError::step("querying the machine"))?;
        let signature = host.signature(&path).map_err(ControlError::step("checking the driver's signature"))?;
        let Judgement { obstacles, notes } = check::judge(&system, machine, &signature);
        let declared = Fail::declared(host).map_err(ControlError::step("querying the service"))?;
        let fail = options.fail.cloned().unwrap_or_else(|| declared.clone());
        let mut plan = Self {
            system,
            signature,
            notes,
            obstacles,
            steps: Vec::new(),
            content,
            old: None,
            running: None,
            kept: None,
            bundle: None,
            policy: None,
            objects: objects(host, &fail)?,
            declared,
            fail,
            trusted: trust::trusted(host)?,
            trust: options.trust.copied(),
        };
        if let (Some(trusted), true) = (plan.trust.or(plan.trusted), options.policy.is_some()) {
            return Err(ControlError::Untrusted { trusted: Box::new(trusted), signer: None });
        }
        plan.notes.extend(plan.objects.foreign.iter().map(Foreign::to_string));
        let without_driver = host.open_engine().and_then(|mut engine| native::state(&mut *engine));
        if let Some(state) = without_driver.map_err(ControlError::step("querying the filters"))? {
            plan.without_driver(&state, options.policy.is_some());
        }
        plan.policy = options.policy.map(|file| policy::prepare_file(host, file)).transpose()?;
        plan.steps(host, options.start)?;
        Ok(plan)
    }

    /// What the driver takes over from; it must not begin by letting everything pass.
    fn without_driver(&mut self, state: &NativeState, policy: bool) {
        self.notes.push(format!("the {} filters of `load --native` go when the driver's are added", state.filters));
        if !policy {
            self.obstacles.push(Obstacle {
                what: "filters of `load --native` are in force, and the driver without a policy lets everything pass"
                    .to_owned(),
                remedy: "name the policy: `sluice install --policy FILE`, or remove the filters first: `sluice unload`"
                    .to_owned(),
            });
        }
    }

    fn steps(&mut self, host: &dyn Host, wanted: Option<StartType>) -> Result<(), ControlError> {
        let service = host.service_state(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
        if service == ServiceState::StopPending {
            return Err(ControlError::Unloading);
        }
        let image_path = service_image(host)?;
        if let Some(installed) = image_path.as_ref().filter(|path| path.to_lowercase().contains(DRIVER_STORE)) {
            return Err(ControlError::Packaged { installed: installed.clone() });
        }
        self.steps.extend(leftovers(host)?.into_iter().map(|file| Step::DeleteLeftover { file }));
        self.kept = host.read_driver(kept::FILE).map_err(ControlError::step("reading the drivers folder"))?;
        self.bundle = kept::BUNDLE.read(host).map_err(ControlError::step("reading the drivers folder"))?;
        if service == ServiceState::Absent {
            // A new driver must not begin with a policy of an installation that is gone.
            if self.kept.take().is_some() {
                self.steps.push(Step::DeleteLeftover { file: kept::FILE });
            }
            if self.bundle.take().is_some() {
                self.steps.push(Step::DeleteLeftover { file: kept::BUNDLE_FILE });
            }
        }
        let installed = host.read_driver(FILE).map_err(ControlError::step("reading the drivers folder"))?;
        let copy = installed.as_ref() != Some(&self.content);
        let moved = image_path.filter(|path| !path.eq_ignore_ascii_case(IMAGE_PATH));
        let running = service == ServiceState::Running;
        // What is declared is read when the driver starts.
        let declares = self.fail != self.declared;
        let unload = running && (copy || moved.is_some() || declares);
        if copy {
            self.steps.push(Step::CopyDriver { file: NEW, bytes: self.content.len() });
            if installed.is_some() {
                self.steps.push(Step::KeepOld { file: OLD });
            }
            self.old = installed;
        }
        if unload || (running && self.policy.is_some()) {
            match policy_in_force(host) {
                Ok(image) => self.running = image,
                // Once the driver is gone, what it enforced cannot be recovered.
                Err(error) if self.policy.is_none() => return Err(error),
                Err(error) => self.notes.push(format!("if a step fails, the policy in force is lost: {error}")),
            }
        }
        if unload {
            self.steps.push(Step::UnloadDriver);
        }
        if copy {
            self.steps.push(Step::PlaceDriver { path: format!(r"{}\{FILE}", self.system.drivers) });
        }
        match (service, moved) {
            (ServiceState::Absent, _) => {
                let start = wanted.unwrap_or(StartType::System);
                self.steps.push(Step::CreateService { image_path: IMAGE_PATH, start });
            }
            (_, Some(from)) => self.steps.push(Step::MoveService { from, image_path: IMAGE_PATH }),
            _ => {}
        }
        let start = host.service_start(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
        if let (Some(from), Some(to)) = (start, wanted)
            && from != to
        {
            self.steps.push(Step::SetStart { from, to });
        }
        if declares {
            self.steps.push(Step::Declare { from: self.declared.clone(), to: self.fail.clone() });
        }
        if let Some(to) = self.trust.filter(|to| self.trusted != Some(*to)) {
            self.steps.push(Step::Trust { from: self.trusted.map(|from| from.to_string()), to: to.to_string() });
        }
        if unload || !running {
            self.steps.push(Step::LoadDriver);
        }
        match (&self.policy, &self.running) {
            (Some(policy), _) => {
                self.steps.push(Step::LoadPolicy { from: PolicySource::File, bytes: policy.image().len() });
            }
            (None, Some(image)) if unload => {
                self.steps.push(Step::LoadPolicy { from: PolicySource::Running, bytes: image.len() });
            }
            (None, _) => {}
        }
        if !self.objects.complete() {
            self.steps.push(Step::AddFilters { changed: self.objects.changed.clone() });
        }
        if self.old.is_some() {
            self.steps.push(Step::DeleteOld { file: OLD });
        }
        Ok(())
    }
}

/// The ImagePath of our service.
pub(super) fn service_image(host: &dyn Host) -> Result<Option<String>, ControlError> {
    host.service_driver(SERVICE_NAME).map_err(ControlError::step("querying the service's driver"))
}

fn objects(host: &dyn Host, fail: &Fail) -> Result<Inspection, ControlError> {
    let failed = || ControlError::step("querying the filters");
    let mut engine = host.open_engine().map_err(failed())?;
    objects::inspect(&mut *engine, fail).map_err(failed())
}

/// The image the driver decides by now.
fn policy_in_force(host: &dyn Host) -> Result<Option<Vec<u8>>, ControlError> {
    Control::open(host)
        .and_then(|(control, _)| control.policy())
        .map_err(|source| ControlError::PolicyNotCarried { source: Box::new(source) })
}

/// The driver's file, by its absolute path and its content.
fn read_driver(path: &Path) -> Result<(String, Vec<u8>), ControlError> {
    let failed = |source| ControlError::DriverFile { path: path.to_owned(), source };
    let content = sluice_files::read(path, MAX_DRIVER).map_err(failed)?;
    let absolute = std::path::absolute(path).map_err(failed)?;
    let Some(absolute) = absolute.to_str() else {
        return Err(invalid(path, "the path is not Unicode"));
    };
    Ok((absolute.to_owned(), content))
}

fn invalid(path: &Path, what: &str) -> ControlError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
    ControlError::DriverFile { path: path.to_owned(), source }
}
