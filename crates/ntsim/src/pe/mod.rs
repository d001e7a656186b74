//! Loading a driver: from the bytes of a `.sys` file to code that can be called.
//!
//! [`image`] reads and checks the file, which may be hostile; [`import`] binds what it imports to the gates of [`gate`];
//! [`map`] puts it into memory with its sections protected as they ask. [`crate::machine`] calls the entry point.
//!
//! Format: "PE Format", Microsoft, revision 11; what the kernel's loader demands beyond it is said where it is checked.

pub mod error;
pub mod gate;
pub mod image;
pub mod import;
pub mod map;

pub use error::LoadError;
pub use image::{Image, Section};
pub use import::{Import, Target, unknown_imports};

/// What a loader may let pass.
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
