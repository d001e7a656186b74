//! The error codes that cross the seam: Win32 errors (winerror.h) and the Windows Filtering Platform's HRESULTs
//! (fwpmu.h returns them as `DWORD`), with the plain meaning of each.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $message:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`: ", $message, ".")]
            pub const $name: u32 = $value;
        )*

        /// The meaning of a code in a few words.
        #[must_use]
        pub fn message(code: u32) -> &'static str {
            match code {
                $($name => $message,)*
                _ => "unknown error",
            }
        }

        /// The code's name in the Windows headers.
        #[must_use]
        pub fn name(code: u32) -> Option<&'static str> {
            match code {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

codes! {
    ERROR_INVALID_FUNCTION = 1, "the device does not support this request";
    ERROR_FILE_NOT_FOUND = 2, "there is no such file or device";
    ERROR_PATH_NOT_FOUND = 3, "a folder of this path does not exist";
    ERROR_ACCESS_DENIED = 5, "access is denied";
    ERROR_INVALID_HANDLE = 6, "the handle is not open";
    ERROR_INVALID_DATA = 13, "the data is not valid";
    ERROR_BAD_COMMAND = 22, "the device is not in a state to accept this request";
    ERROR_BAD_LENGTH = 24, "the length is wrong";
    ERROR_GEN_FAILURE = 31, "the device failed";
    ERROR_NOT_SUPPORTED = 50, "the request is not supported";
    ERROR_SHARING_VIOLATION = 32, "another program has the file open";
    ERROR_FILE_EXISTS = 80, "the file already exists";
    ERROR_INVALID_PARAMETER = 87, "a parameter is not valid";
    ERROR_INSUFFICIENT_BUFFER = 122, "the buffer is too small for the answer";
    ERROR_INVALID_NAME = 123, "the name is not valid";
    ERROR_BUSY = 170, "the object is in use";
    ERROR_ALREADY_EXISTS = 183, "the object already exists";
    ERROR_BAD_EXE_FORMAT = 193, "the file is not a driver that this system can load";
    ERROR_PIPE_NOT_CONNECTED = 233, "the connection was lost";
    ERROR_MORE_DATA = 234, "there is more data than the buffer holds";
    WAIT_TIMEOUT = 258, "the wait timed out";
    ERROR_DELETE_PENDING = 303, "the object is being deleted";
    ERROR_MR_MID_NOT_FOUND = 317, "the driver's status has no Win32 meaning";
    ERROR_INVALID_IMAGE_HASH = 577, "the driver's signature is not accepted";
    ERROR_PROC_NOT_FOUND = 127, "the driver imports a function that this system does not have";
    ERROR_ELEVATION_REQUIRED = 740, "this needs the rights of an administrator";
    ERROR_OPERATION_ABORTED = 995, "the request was cancelled";
    ERROR_IO_PENDING = 997, "the request is pending";
    ERROR_INVALID_SERVICE_CONTROL = 1052, "the service does not accept this control";
    ERROR_SERVICE_ALREADY_RUNNING = 1056, "the service is already running";
    ERROR_SERVICE_DOES_NOT_EXIST = 1060, "there is no such service";
    ERROR_SERVICE_CANNOT_ACCEPT_CTRL = 1061, "the service cannot accept this control now";
    ERROR_SERVICE_NOT_ACTIVE = 1062, "the service is not running";
    ERROR_SERVICE_MARKED_FOR_DELETE = 1072, "the service is being deleted, once its last handle is closed";
    ERROR_SERVICE_EXISTS = 1073, "the service already exists";
    ERROR_IO_DEVICE = 1117, "the device failed in the middle of the request";
    ERROR_NOT_FOUND = 1168, "nothing of that kind was found";
    ERROR_REVISION_MISMATCH = 1306, "the two sides speak different revisions";
    ERROR_DRIVER_BLOCKED = 1275, "the driver is blocked from loading";
    ERROR_NO_SYSTEM_RESOURCES = 1450, "the system is out of resources";
    EPT_S_NOT_REGISTERED = 1753, "the Base Filtering Engine is not running (service BFE)";
    RPC_S_SERVER_UNAVAILABLE = 1722, "the Base Filtering Engine does not answer (service BFE)";
    FWP_E_CALLOUT_NOT_FOUND = 0x8032_0001, "there is no such callout";
    FWP_E_CONDITION_NOT_FOUND = 0x8032_0002, "there is no such condition";
    FWP_E_FILTER_NOT_FOUND = 0x8032_0003, "there is no such filter";
    FWP_E_LAYER_NOT_FOUND = 0x8032_0004, "there is no such layer";
    FWP_E_PROVIDER_NOT_FOUND = 0x8032_0005, "there is no such provider";
    FWP_E_PROVIDER_CONTEXT_NOT_FOUND = 0x8032_0006, "there is no such provider context";
    FWP_E_SUBLAYER_NOT_FOUND = 0x8032_0007, "there is no such sublayer";
    FWP_E_NOT_FOUND = 0x8032_0008, "there is no such object";
    FWP_E_ALREADY_EXISTS = 0x8032_0009, "an object with this key or name already exists";
    FWP_E_IN_USE = 0x8032_000a, "other objects refer to this one, so it cannot be deleted";
    FWP_E_DYNAMIC_SESSION_IN_PROGRESS = 0x8032_000b, "a dynamic session cannot do this";
    FWP_E_WRONG_SESSION = 0x8032_000c, "the object belongs to another session";
    FWP_E_NO_TXN_IN_PROGRESS = 0x8032_000d, "no transaction is in progress";
    FWP_E_TXN_IN_PROGRESS = 0x8032_000e, "a transaction is already in progress";
    FWP_E_TXN_ABORTED = 0x8032_000f, "the transaction was aborted";
    FWP_E_SESSION_ABORTED = 0x8032_0010, "the session was aborted";
    FWP_E_INCOMPATIBLE_TXN = 0x8032_0011, "a read-only transaction cannot do this";
    FWP_E_TIMEOUT = 0x8032_0012, "another program holds the transaction lock";
    FWP_E_NET_EVENTS_DISABLED = 0x8032_0013, "net events are disabled";
    FWP_E_INCOMPATIBLE_LAYER = 0x8032_0014, "the callout and the filter are for different layers";
    FWP_E_LIFETIME_MISMATCH = 0x8032_0016, "an object cannot refer to one with a shorter lifetime";
    FWP_E_BUILTIN_OBJECT = 0x8032_0017, "a built-in object cannot be changed";
    FWP_E_NULL_POINTER = 0x8032_001c, "a required value is missing";
    FWP_E_INVALID_FLAGS = 0x8032_001e, "the flags contradict each other";
    FWP_E_INVALID_RANGE = 0x8032_0020, "the range's low end is above its high end";
    FWP_E_NULL_DISPLAY_NAME = 0x8032_0023, "the object has no display name";
    FWP_E_INVALID_ACTION_TYPE = 0x8032_0024, "the action is not allowed here";
    FWP_E_INVALID_WEIGHT = 0x8032_0025, "the weight is not valid";
    FWP_E_MATCH_TYPE_MISMATCH = 0x8032_0026, "the match type does not fit the field";
    FWP_E_TYPE_MISMATCH = 0x8032_0027, "the value's type does not fit the field";
    FWP_E_OUT_OF_BOUNDS = 0x8032_0028, "the value is out of bounds";
    FWP_E_DUPLICATE_CONDITION = 0x8032_002a, "the filter has two conditions on the same field";
    FWP_E_ACTION_INCOMPATIBLE_WITH_LAYER = 0x8032_002c, "the layer does not allow this action";
    FWP_E_CALLOUT_NOTIFICATION_FAILED = 0x8032_0037, "the driver refused the filter";
}

/// Shows a code as people look it up: by name and number, HRESULTs in hexadecimal.
pub(crate) struct Shown(pub(crate) u32);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = name(self.0) {
            write!(f, "{name}, ")?;
        }
        if self.0 > 0xffff { write!(f, "error {:#010x}", self.0) } else { write!(f, "error {}", self.0) }
    }
}

/// Whether a code means that the requested object does not exist.
#[must_use]
pub const fn is_absent(code: u32) -> bool {
    matches!(
        code,
        FWP_E_CALLOUT_NOT_FOUND
            | FWP_E_FILTER_NOT_FOUND
            | FWP_E_PROVIDER_NOT_FOUND
            | FWP_E_SUBLAYER_NOT_FOUND
            | FWP_E_NOT_FOUND
    )
}

/// Whether a code means that the Base Filtering Engine is not running.
#[must_use]
pub const fn is_engine_stopped(code: u32) -> bool {
    matches!(code, EPT_S_NOT_REGISTERED | RPC_S_SERVER_UNAVAILABLE)
}

/// The code with which user mode sees an NTSTATUS.
///
/// Statuses of facility 0x22 become the HRESULT `FWP_E_*` of the same low half; the others are mapped as by
/// `RtlNtStatusToDosError`, of which this knows the statuses that a driver's dispatch routine usually returns. Success
/// and informational statuses are 0.
#[must_use]
pub const fn from_ntstatus(status: i32) -> u32 {
    let bits = status as u32;
    if status >= 0 {
        return 0;
    }
    if bits & 0xffff_ff00 == 0xc022_0000 {
        return 0x8032_0000 | (bits & 0xffff);
    }
    match bits {
        0x8000_0005 => ERROR_MORE_DATA,
        0x8000_0011 => ERROR_BUSY,
        0xc000_0001 => ERROR_GEN_FAILURE,
        0xc000_0002 | 0xc000_0010 => ERROR_INVALID_FUNCTION,
        0xc000_0004 => ERROR_BAD_LENGTH,
        0xc000_0008 => ERROR_INVALID_HANDLE,
        0xc000_000d => ERROR_INVALID_PARAMETER,
        0xc000_000f | 0xc000_0034 => ERROR_FILE_NOT_FOUND,
        0xc000_0022 => ERROR_ACCESS_DENIED,
        0xc000_0023 => ERROR_INSUFFICIENT_BUFFER,
        0xc000_0033 => ERROR_INVALID_NAME,
        0xc000_0035 => ERROR_ALREADY_EXISTS,
        0xc000_003a => ERROR_PATH_NOT_FOUND,
        0xc000_0056 => ERROR_DELETE_PENDING,
        0xc000_0059 => ERROR_REVISION_MISMATCH,
        0xc000_007b => ERROR_BAD_EXE_FORMAT,
        0xc000_009a => ERROR_NO_SYSTEM_RESOURCES,
        0xc000_00b5 | 0x0000_0102 => WAIT_TIMEOUT,
        0xc000_00bb => ERROR_NOT_SUPPORTED,
        0xc000_0120 => ERROR_OPERATION_ABORTED,
        0xc000_0139 => ERROR_PROC_NOT_FOUND,
        0xc000_0184 => ERROR_BAD_COMMAND,
        0xc000_0185 => ERROR_IO_DEVICE,
        0xc000_0225 => ERROR_NOT_FOUND,
        0xc000_0428 => ERROR_INVALID_IMAGE_HASH,
        _ => ERROR_MR_MID_NOT_FOUND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wfp_status_becomes_the_hresult_of_the_same_name() {
        assert_eq!(from_ntstatus(0xc022_0009_u32 as i32), FWP_E_ALREADY_EXISTS);
        assert_eq!(from_ntstatus(0xc022_0037_u32 as i32), FWP_E_CALLOUT_NOTIFICATION_FAILED);
    }

    #[test]
    fn success_is_zero_and_an_unknown_failure_is_not() {
        assert_eq!(from_ntstatus(0), 0);
        assert_eq!(from_ntstatus(0x0000_0103), 0);
        assert_eq!(from_ntstatus(0xc0ff_1234_u32 as i32), ERROR_MR_MID_NOT_FOUND);
    }

    #[test]
    fn names_and_messages_belong_together() {
        assert_eq!(name(5), Some("ERROR_ACCESS_DENIED"));
        assert_eq!(name(0x8032_0009), Some("FWP_E_ALREADY_EXISTS"));
        assert_eq!(name(0xdead_beef), None);
        assert_ne!(message(5), message(0xdead_beef));
    }
}
