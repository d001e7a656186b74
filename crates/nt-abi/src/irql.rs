//! Interrupt request levels.

use core::fmt;

/// An interrupt request level (`KIRQL`), as numbered on x64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[repr(transparent)]
pub struct Irql(pub u8);

impl Irql {
    /// Ordinary threads: everything is allowed.
    pub const PASSIVE: Self = Self(0);
    /// Asynchronous procedure calls are blocked.
    pub const APC: Self = Self(1);
    /// The scheduler is blocked: no waiting, no paged memory.
    pub const DISPATCH: Self = Self(2);
    /// The highest level of a device's interrupt (DIRQL) on x64: the clock's is above.
    pub const DEVICE: Self = Self(12);
    /// Everything is blocked.
    pub const HIGH: Self = Self(15);
}

impl fmt::Debug for Irql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PASSIVE => f.write_str("PASSIVE_LEVEL"),
            Self::APC => f.write_str("APC_LEVEL"),
            Self::DISPATCH => f.write_str("DISPATCH_LEVEL"),
            Self::HIGH => f.write_str("HIGH_LEVEL"),
            Self(level) => write!(f, "IRQL {level}"),
        }
    }
}

impl fmt::Display for Irql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
