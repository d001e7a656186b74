//! Loads a driver: from the bytes of a `.sys` file to callable code.
//!
//! [`image`] reads and checks the file, which may be hostile; [`import`] binds its imports to the gates of [`gate`];
//! [`map`] maps it with its sections protected as they ask. [`crate::machine`] calls the entry point.
//!
//! Format: "PE Format", Microsoft, revision 11; further demands of the kernel's loader are named where they are
//! checked.

pub mod error;
pub mod gate;
pub mod image;
pub mod import;
pub mod map;

pub use error::LoadError;
pub use image::{Image, Section};
pub use import::{Import, Target, unknown_imports};

/// The longest file that is read as a driver. The largest drivers in use have some 100 MiB.
pub const MAX_FILE: u64 = 512 << 20;

/// What the loader accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Bind an import that no simulated module exports to a stub that stops the machine when it is called, instead
    /// of refusing the driver. Windows refuses.
    pub allow_unknown_imports: bool,
    /// Load a section that is writable and executable. Windows does, except under hypervisor-protected code
    /// integrity.
    pub allow_writable_code: bool,
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
