//! Sluicegate's policy: one language, compiled to one image, decided by one matcher.
//!
//! ```text
//! policy.toml + lists --parse--> Policy --compile--> bytes --Image::validate--> Image --decide(flow)--> Decision
//!                      user mode, feature `std`               |            no_std, no allocation
//! ```
//!
//! The driver links only the right half. [`Image::validate`] accepts or refuses hostile bytes in time linear in their
//! size; afterwards [`Image::decide`] cannot fail, does not allocate, does not recurse and uses a small fixed amount of
//! stack.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)] // except in `image::lanes`

extern crate alloc;

pub mod essential;
pub mod flow;
pub mod image;

pub use essential::Essential;
pub use flow::{AppId, Decision, Direction, Flow, Headers, Identities, Name, Sid, Verdict, embedded_ipv4};
pub use image::{Image, InvalidImage, StableBytes};

#[cfg(feature = "std")]
mod compile;
#[cfg(feature = "std")]
pub mod depends;
#[cfg(feature = "std")]
pub mod diagnostic;
#[cfg(feature = "std")]
pub mod diff;
#[cfg(feature = "std")]
pub mod expect;
#[cfg(feature = "std")]
mod file;
#[cfg(feature = "std")]
pub mod import;
#[cfg(feature = "std")]
pub mod lint;
#[cfg(feature = "std")]
pub mod model;
pub mod packet;
#[cfg(feature = "std")]
pub mod reference;
#[cfg(feature = "std")]
pub mod show;
#[cfg(feature = "std")]
pub mod text;

#[cfg(feature = "std")]
pub use self::{
    compile::{CompileOptions, Compiled, compile, compile_with_warnings, resolved_applications},
    depends::{Fact, Possible, depends_on, possible},
    diagnostic::{Diagnostic, Errors, Severity, render},
    diff::{Change, Difference, diff, diff_with_image},
    expect::{Tested, test},
    file::{Files, parse, parse_endpoint, parse_flow},
    lint::lint,
    model::Policy,
    reference::{Explanation, Outcome, Reference, Tried},
    show::{Shown, show},
};
