//! Bugchecks, as values.

use super::unwind::{self, Registers};
use core::fmt;
use core::ops::Range;
use nt_abi::Irql;
use serde::Serialize;

/// Why a machine stopped: the blue screen's content, with a reason and the driver's stack.
#[derive(Clone, Debug, thiserror::Error, Serialize)]
pub struct Bugcheck {
    /// The stop code (bugcodes.h).
    pub code: u32,
    /// Its symbolic name.
    pub name: &'static str,
    /// The four parameters, with the meaning the code gives them.
    pub parameters: [u64; 4],
    /// What happened, in a sentence.
    pub why: String,
    /// The IRQL at that moment.
    pub irql: Irql,
    /// The frames, innermost first; driver frames by module and offset.
    pub stack: Vec<Frame>,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// The module's file name; None when the address belongs to no known code.
    pub module: Option<String>,
    /// The offset from the module's base (an RVA), or the address itself when there is no module.
    pub offset: u64,
    /// The address.
    pub address: u64,
}

impl Frame {
    /// Whether this is code of a driver, or of no module.
    #[must_use]
    pub fn is_driver(&self) -> bool {
        self.module.as_deref().is_none_or(|m| m.to_ascii_lowercase().ends_with(".sys"))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            Some(module) => write!(f, "{module}+{:#x}", self.offset),
            None => write!(f, "{:#x}", self.address),
        }
    }
}

impl fmt::Display for Bugcheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.parameters;
        write!(f, "bugcheck {:#x} {} ({a:#x}, {b:#x}, {c:#x}, {d:#x})", self.code, self.name)?;
        write!(f, " at {}: {}", self.irql, self.why)?;
        for frame in self.driver_frames() {
            write!(f, "\n  {frame}")?;
        }
        Ok(())
    }
}

impl Bugcheck {
    /// The stack without ntsim's frames; the whole stack when no frame is a driver's.
    pub fn driver_frames(&self) -> impl Iterator<Item = &Frame> {
        let any = self.stack.iter().any(Frame::is_driver);
        self.stack.iter().filter(move |f| !any || f.is_driver())
    }
}

macro_rules! codes {
    ($($name:ident = $value:literal),* $(,)?) => {
        /// Stop codes (bugcodes.h; "Bug Check Code Reference" in the WDK documentation).
        #[allow(missing_docs, reason = "the names are those of bugcodes.h")]
        pub mod code {
            $(pub const $name: u32 = $value;)*
        }

        fn name_of(code: u32) -> &'static str {
            match code {
                $($value => stringify!($name),)*
                _ => "UNKNOWN",
            }
        }
    };
}

codes! {
    APC_INDEX_MISMATCH = 0x01,
    IRQL_NOT_GREATER_OR_EQUAL = 0x09,
    IRQL_NOT_LESS_OR_EQUAL = 0x0A,
    SPIN_LOCK_ALREADY_OWNED = 0x0F,
    SPIN_LOCK_NOT_OWNED = 0x10,
    BAD_POOL_HEADER = 0x19,
    KMODE_EXCEPTION_NOT_HANDLED = 0x1E,
    RESOURCE_NOT_OWNED = 0xE3,
    SYSTEM_SERVICE_EXCEPTION = 0x3B,
    TARGET_MDL_TOO_SMALL = 0x40,
    NO_MORE_IRP_STACK_LOCATIONS = 0x35,
    MULTIPLE_IRP_COMPLETE_REQUESTS = 0x44,
    PFN_LIST_CORRUPT = 0x4E,
    PAGE_FAULT_IN_NONPAGED_AREA = 0x50,
    SYSTEM_THREAD_EXCEPTION_NOT_HANDLED = 0x7E,
    UNEXPECTED_KERNEL_MODE_TRAP = 0x7F,
    ATTEMPTED_WRITE_TO_READONLY_MEMORY = 0xBE,
    BAD_POOL_CALLER = 0xC2,
    DRIVER_VERIFIER_DETECTED_VIOLATION = 0xC4,
    DRIVER_CORRUPTED_EXPOOL = 0xC5,
    TIMER_OR_DPC_INVALID = 0xC7,
    IRQL_UNEXPECTED_VALUE = 0xC8,
    DRIVER_VERIFIER_IOMANAGER_VIOLATION = 0xC9,
    DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS = 0xCB,
    DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS = 0xCE,
    DRIVER_IRQL_NOT_LESS_OR_EQUAL = 0xD1,
    MANUALLY_INITIATED_CRASH = 0xE2,
    WORKER_THREAD_RETURNED_AT_BAD_IRQL = 0xE1,
    WORKER_INVALID = 0xE4,
    ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY = 0xFC,
    WDF_VIOLATION = 0x10D,
    KERNEL_SECURITY_CHECK_FAILURE = 0x139,
    KERNEL_MODE_HEAP_CORRUPTION = 0x13A,
}

/// Builds the bugcheck of a violation found in code.
pub(super) fn raised(
    code: u32,
    parameters: [u64; 4],
    why: String,
    irql: Irql,
    registers: &Registers,
    stack: &Range<u64>,
) -> Bugcheck {
    Bugcheck { code, name: name_of(code), parameters, why, irql, stack: unwind::walk(registers, stack) }
}
