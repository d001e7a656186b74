//! What `sluice` does to a machine: install, load a policy, inspect, remove, over one seam ([`sluice_host::Host`]) with
//! two real implementations: Windows itself (module `windows`) and a machine simulated by `ntsim`.
//!
//! Every verb takes the host first, changes all or nothing, and returns a report that a program can read; printing is
//! up to the command. [`ControlError`] says what failed, where, and (through [`ControlError::advice`]) what to do.

mod answer_rule;
mod apply;
mod ask;
mod bundle;
pub mod device;
mod disk;
pub mod doctor;
pub mod error;
pub mod events;
mod flows;
pub mod install;
pub mod kept;
mod names;
pub mod native;
pub mod objects;
mod origin;
pub mod policy;
mod program;
mod read;
mod secret;
pub mod service;
pub mod sources;
pub mod status;
mod switch;
pub mod trust;
pub mod verify;
pub mod watch;
#[cfg(windows)]
pub mod windows;

pub use answer_rule::answer_by_rule;
pub use apply::{AppliedBundle, ApplyOptions, ApplyReport, apply};
pub use ask::{Answered, Answerer, Question, Scope};
pub use bundle::{CheckedBundle, Making, check_bundle, make_bundle, read_bundle};
pub use disk::Disk;
pub use doctor::{DoctorReport, Finding, doctor};
pub use error::{ControlError, Kind};
pub use events::{EventFilter, EventLine, EventOptions, EventReader, Item, events, utc_now};
pub use flows::{FlowLine, flows};
pub use install::{InstallReport, UninstallReport, install, uninstall};
pub use jiff::Timestamp;
pub use names::{LearnedName, forget_names, names};
pub use policy::{
    CheckReport, ListReport, LoadReport, Loading, check, diff_in_force, load, load_image, load_with, local_moment,
};
pub use program::assumed_app_id;
pub use read::{read_policy, read_policy_elsewhere, read_policy_with};
pub use secret::write_secret;
pub use service::remove as remove_service;
pub use sources::{Moved, Shrinking, Shrunk};
pub use status::{StatusReport, status};
pub use switch::{SwitchReport, disable, enable};
pub use watch::watch;

#[cfg(test)]
mod testing;
