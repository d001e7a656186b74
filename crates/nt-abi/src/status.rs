//! NTSTATUS.

use core::fmt;

/// An `NTSTATUS` as it crosses the import boundary. Negative values are errors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[repr(transparent)]
pub struct NtStatus(pub i32);

macro_rules! statuses {
    ($($name:ident = $value:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "the names are those of ntstatus.h and say all there is to say")]
        impl NtStatus {
            $(pub const $name: Self = Self($value as u32 as i32);)*
        }

        fn name(status: NtStatus) -> Option<&'static str> {
            match status {
                $(NtStatus::$name => Some(concat!("STATUS_", stringify!($name))),)*
                _ => None,
            }
        }
    };
}

// Values: ntstatus.h (Windows SDK); the FWP ones are in facility 0x22.
statuses! {
    SUCCESS = 0x0000_0000,
    TIMEOUT = 0x0000_0102,
    PENDING = 0x0000_0103,
    DATATYPE_MISALIGNMENT = 0x8000_0002,
    BUFFER_OVERFLOW = 0x8000_0005,
    NO_MORE_ENTRIES = 0x8000_001A,
    UNSUCCESSFUL = 0xC000_0001,
    NOT_IMPLEMENTED = 0xC000_0002,
    INFO_LENGTH_MISMATCH = 0xC000_0004,
    ACCESS_VIOLATION = 0xC000_0005,
    INVALID_HANDLE = 0xC000_0008,
    INVALID_PARAMETER = 0xC000_000D,
    NO_SUCH_DEVICE = 0xC000_000E,
    INVALID_DEVICE_REQUEST = 0xC000_0010,
    NO_MEMORY = 0xC000_0017,
    ACCESS_DENIED = 0xC000_0022,
    BUFFER_TOO_SMALL = 0xC000_0023,
    OBJECT_TYPE_MISMATCH = 0xC000_0024,
    OBJECT_NAME_INVALID = 0xC000_0033,
    OBJECT_NAME_NOT_FOUND = 0xC000_0034,
    OBJECT_NAME_COLLISION = 0xC000_0035,
    DELETE_PENDING = 0xC000_0056,
    INTEGER_OVERFLOW = 0xC000_0095,
    INSUFFICIENT_RESOURCES = 0xC000_009A,
    NOT_SUPPORTED = 0xC000_00BB,
    OBJECT_NAME_EXISTS = 0x4000_0000,
    NAME_TOO_LONG = 0xC000_0106,
    CANCELLED = 0xC000_0120,
    INVALID_DEVICE_STATE = 0xC000_0184,
    DEVICE_BUSY = 0x8000_0011,
    DATA_NOT_ACCEPTED = 0xC000_021B,
    NOT_FOUND = 0xC000_0225,
    WDF_BUSY = 0xC020_0204,
    FWP_CALLOUT_NOT_FOUND = 0xC022_0001,
    FWP_CONDITION_NOT_FOUND = 0xC022_0002,
    FWP_FILTER_NOT_FOUND = 0xC022_0003,
    FWP_LAYER_NOT_FOUND = 0xC022_0004,
    FWP_PROVIDER_NOT_FOUND = 0xC022_0005,
    FWP_SUBLAYER_NOT_FOUND = 0xC022_0007,
    FWP_NOT_FOUND = 0xC022_0008,
    FWP_ALREADY_EXISTS = 0xC022_0009,
    FWP_IN_USE = 0xC022_000A,
    FWP_DYNAMIC_SESSION_IN_PROGRESS = 0xC022_000B,
    FWP_WRONG_SESSION = 0xC022_000C,
    FWP_NO_TXN_IN_PROGRESS = 0xC022_000D,
    FWP_TXN_IN_PROGRESS = 0xC022_000E,
    FWP_TXN_ABORTED = 0xC022_000F,
    FWP_SESSION_ABORTED = 0xC022_0010,
    FWP_INCOMPATIBLE_TXN = 0xC022_0011,
    FWP_TIMEOUT = 0xC022_0012,
    FWP_INCOMPATIBLE_LAYER = 0xC022_0014,
    FWP_LIFETIME_MISMATCH = 0xC022_0016,
    FWP_BUILTIN_OBJECT = 0xC022_0017,
    FWP_NULL_POINTER = 0xC022_001C,
    FWP_INVALID_FLAGS = 0xC022_001E,
    FWP_INVALID_RANGE = 0xC022_0020,
    FWP_NULL_DISPLAY_NAME = 0xC022_0023,
    FWP_INVALID_ACTION_TYPE = 0xC022_0024,
    FWP_INVALID_WEIGHT = 0xC022_0025,
    FWP_MATCH_TYPE_MISMATCH = 0xC022_0026,
    FWP_TYPE_MISMATCH = 0xC022_0027,
    FWP_OUT_OF_BOUNDS = 0xC022_0028,
    FWP_DUPLICATE_CONDITION = 0xC022_002A,
    FWP_ACTION_INCOMPATIBLE_WITH_LAYER = 0xC022_002C,
    FWP_CALLOUT_NOTIFICATION_FAILED = 0xC022_0037,
    FWP_INVALID_PARAMETER = 0xC022_0035,
    FWP_CANNOT_PEND = 0xC022_0103,
}

impl NtStatus {
    /// `NT_SUCCESS`: success and informational values.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >= 0
    }

    /// `NT_ERROR`. A warning is neither an error nor a success.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 as u32 >> 30 == 3
    }

    /// `Ok` for success and informational values.
    ///
    /// # Errors
    /// The status itself when it is a warning or an error.
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_success() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(*self) {
            Some(name) => write!(f, "{name} ({:#010x})", self.0 as u32),
            None => write!(f, "NTSTATUS {:#010x}", self.0 as u32),
        }
    }
}

impl fmt::Debug for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for NtStatus {}
