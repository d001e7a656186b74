//! Violations of the framework's rules: bugcheck 0x10D with a plain sentence.
//!
//! Codes: "Bug Check 0x10D: WDF_VIOLATION" (Microsoft, debugger reference).

use super::abi::Handle;
use super::handle::{Invalid, Kind};
use crate::cpu;
use nt_abi::NtStatus;

/// `WDF_VIOLATION`.
pub(crate) const WDF_VIOLATION: u32 = 0x10D;

/// A broken rule, on its way to becoming a bugcheck. Every framework function returns it to its entry point, where
/// nothing is held or owned any more, and only there it halts the machine.
#[derive(Debug)]
#[must_use]
pub(crate) struct Violation {
    /// The bugcheck's four parameters.
    pub(crate) parameters: [u64; 4],
    /// What the driver did, and what it should have done.
    pub(crate) why: String,
}

impl Violation {
    const RECURSIVE_LOCK: u64 = 0x2;
    const VERIFIER: u64 = 0x3;
    const NULL_PARAMETER: u64 = 0x4;
    const INVALID_HANDLE: u64 = 0x5;
    const REQUEST: u64 = 0x6;
    const OBJECT: u64 = 0x7;
    const QUEUE: u64 = 0xA;
    const LOCK: u64 = 0xB;
    const CALLBACK_IRQL: u64 = 0xE;

    fn new(code: u64, p2: u64, p3: u64, why: impl Into<String>) -> Box<Self> {
        Box::new(Self { parameters: [code, p2, p3, 0], why: why.into() })
    }

    /// A lock acquired by its owner (0x2).
    pub(crate) fn recursive_lock(lock: Handle, kind: Kind) -> Box<Self> {
        Self::new(Self::RECURSIVE_LOCK, lock.0, 0, format!("the thread that holds {kind} {lock:?} acquires it again"))
    }

    /// A rule that only the framework's verifier knows a code for (0x3).
    pub(crate) fn verifier(handle: Handle, why: impl Into<String>) -> Box<Self> {
        Self::new(Self::VERIFIER, handle.0, 0, why)
    }

    /// A null pointer where the function needs one that is not (0x4).
    pub(crate) fn null(function: &str, parameter: &str) -> Box<Self> {
        Self::new(Self::NULL_PARAMETER, 0, 0, format!("{function}: {parameter} is NULL"))
    }

    /// A value that is not a handle of the wanted kind (0x5).
    pub(crate) fn handle(handle: Handle, wanted: &str, found: Invalid) -> Box<Self> {
        let why = match found {
            Invalid::Null => format!("a {wanted} is expected, the handle is NULL"),
            Invalid::Unknown => format!("a {wanted} is expected, {handle:?} never was a framework handle"),
            Invalid::Stale(Kind::Request) => {
                format!("a {wanted} is expected, {handle:?} is a WDFREQUEST that was completed; it is gone")
            }
            Invalid::Stale(kind) => format!("a {wanted} is expected, {handle:?} is a {kind} that was deleted"),
        };
        Self::new(Self::INVALID_HANDLE, handle.0, 0, why)
    }

    /// A value other than a handle that does not name an object (0x5).
    pub(crate) fn handle_like(value: u64, why: impl Into<String>) -> Box<Self> {
        Self::new(Self::INVALID_HANDLE, value, 0, why)
    }

    /// A live handle of another kind (0x5).
    pub(crate) fn kind(handle: Handle, wanted: &str, found: Kind) -> Box<Self> {
        Self::new(Self::INVALID_HANDLE, handle.0, 0, format!("a {wanted} is expected, {handle:?} is a {found}"))
    }

    /// A request used against its state (0x6).
    pub(crate) fn request(request: Handle, why: impl Into<String>) -> Box<Self> {
        Self::new(Self::REQUEST, 0, request.0, why)
    }

    /// More bytes reported than the buffer holds (0x6, 0x4).
    pub(crate) fn information(request: Handle, information: usize, length: usize) -> Box<Self> {
        let why = format!("WDFREQUEST {request:?} is completed with {information} bytes, its buffer holds {length}");
        Self::new(Self::REQUEST, 4, request.0, why)
    }

    /// An object deleted or dereferenced wrongly (0x7).
    pub(crate) fn object(handle: Handle, why: impl Into<String>) -> Box<Self> {
        Self::new(Self::OBJECT, handle.0, 0, why)
    }

    /// A queue used against its state (0xA).
    pub(crate) fn queue(queue: Handle, why: impl Into<String>) -> Box<Self> {
        Self::new(Self::QUEUE, queue.0, 0, why)
    }

    /// A lock released by somebody else, or an object that has no lock (0xB).
    pub(crate) fn lock(handle: Handle, released: bool, why: impl Into<String>) -> Box<Self> {
        Self::new(Self::LOCK, handle.0, u64::from(released), why)
    }

    /// A callback that returned at another IRQL than it was called at (0xE).
    pub(crate) fn callback_irql(callback: &str, before: nt_abi::Irql, after: nt_abi::Irql) -> Box<Self> {
        let why = format!("{callback} was called at {before} and returned at {after}");
        Self::new(Self::CALLBACK_IRQL, u64::from(before.0), u64::from(after.0), why)
    }

    /// A function of the table that this simulation does not have (0x3, no code of Windows).
    pub(crate) fn not_implemented(function: &str) -> Box<Self> {
        Self::new(Self::VERIFIER, 0, 0, format!("{function} is not implemented by ntsim; the driver called it"))
    }

    /// Halts the machine. The caller holds no lock; what it owns is leaked with its stack.
    pub(crate) fn bugcheck(self) -> ! {
        let Self { parameters, why } = self;
        cpu::bugcheck(WDF_VIOLATION, parameters, why)
    }
}

/// What ends a framework function early: a status for the driver, or a violation.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The driver gets this status.
    Status(NtStatus),
    /// The machine halts.
    Violation(Box<Violation>),
}

impl From<NtStatus> for Fault {
    fn from(status: NtStatus) -> Self {
        Self::Status(status)
    }
}

impl From<Box<Violation>> for Fault {
    fn from(violation: Box<Violation>) -> Self {
        Self::Violation(violation)
    }
}
