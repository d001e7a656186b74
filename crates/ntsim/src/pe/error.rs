//! Why a driver cannot be loaded.

use crate::cpu::Bugcheck;
use crate::machine::LeakReport;
use nt_abi::NtStatus;
use std::fmt;

/// Why a driver was not loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// Not a PE file.
    #[error("not a PE image: {0}")]
    NotPe(String),
    /// Code for another processor.
    #[error("the image is for machine {0:#06x}; ntsim runs x64 drivers, {AMD64:#06x}")]
    WrongMachine(u16),
    /// A program or a library for user mode.
    #[error("the image's subsystem is {0}; a driver's is 1 (native)")]
    NotNative(u16),
    /// A header field the kernel's loader refuses.
    #[error("header field {field} is {value:#x}; expected {expected}")]
    BadHeader {
        /// The field, by its name in winnt.h.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        expected: &'static str,
    },
    /// A section that does not fit the file or the image.
    #[error("section {section}: {problem}")]
    BadSection {
        /// Its name.
        section: String,
        /// What is wrong.
        problem: String,
    },
    /// A section that is both writable and executable.
    #[error(
        "section {0} is writable and executable, which Windows refuses under hypervisor-protected code integrity; \
         link without merging code and data (ntsim load --allow-writable-code loads it all the same)"
    )]
    WritableCode(String),
    /// A directory (imports, relocations, exports, exceptions, load config) that does not make sense.
    #[error("the {directory} directory is damaged: {problem}")]
    BadDirectory {
        /// Which.
        directory: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The image cannot be moved from its preferred address.
    #[error("the image has no relocations; link with /DYNAMICBASE")]
    NotRelocatable,
    /// Imports that no simulated module exports.
    #[error("{}", UnknownImports(.0))]
    UnknownImports(Vec<String>),
    /// Another driver of that name is loaded.
    #[error("a driver named {0} is already loaded")]
    AlreadyLoaded(String),
    /// No memory could be mapped for it.
    #[error("cannot map {size} bytes for the image: {error}")]
    NoMemory {
        /// Bytes.
        size: usize,
        /// The error of mmap.
        error: String,
    },
    /// The entry point returned an error; the driver is unloaded again.
    #[error("the driver's entry point returned {status}{}", LeftBehind(.leaks))]
    EntryFailed {
        /// What it returned.
        status: NtStatus,
        /// What it left behind.
        leaks: Box<LeakReport>,
    },
    /// The entry point stopped the machine, or the machine had stopped before.
    #[error(transparent)]
    Bugcheck(#[from] Bugcheck),
}

/// IMAGE_FILE_MACHINE_AMD64.
pub(super) const AMD64: u16 = 0x8664;

struct UnknownImports<'a>(&'a [String]);

impl fmt::Display for UnknownImports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one] => write!(f, "unknown import {one}"),
            many => write!(f, "{} unknown imports: {}", many.len(), many.join(", ")),
        }
    }
}

struct LeftBehind<'a>(&'a LeakReport);

impl fmt::Display for LeftBehind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_clean() { Ok(()) } else { write!(f, ", leaving behind {}", self.0) }
    }
}
