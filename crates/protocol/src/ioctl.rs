//! IOCTL codes. All are METHOD_BUFFERED on FILE_DEVICE_NETWORK.
//!
//! Source: the CTL_CODE macro of devioctl.h.

const FILE_DEVICE_NETWORK: u32 = 0x12;
const METHOD_BUFFERED: u32 = 0;
const FILE_READ_DATA: u32 = 1;
const FILE_WRITE_DATA: u32 = 2;

const fn code(function: u32, access: u32) -> u32 {
    (FILE_DEVICE_NETWORK << 16) | (access << 14) | (function << 2) | METHOD_BUFFERED
}

/// Output: one [`crate::Status`]. A shorter buffer is STATUS_BUFFER_TOO_SMALL.
pub const GET_STATUS: u32 = code(0x800, FILE_READ_DATA);

/// Input: a compiled policy image, at most [`MAX_POLICY_BYTES`]. Output: a [`crate::status::PolicyReply`].
///
/// The image is validated before anything changes. A refused image is STATUS_SUCCESS with a reply that says why,
/// because METHOD_BUFFERED returns no output with an error status; the policy in force stays in force.
pub const SET_POLICY: u32 = code(0x801, FILE_WRITE_DATA);

/// Output: the whole image in force. A shorter buffer is STATUS_BUFFER_TOO_SMALL ([`GET_STATUS`] reports the size);
/// no policy is STATUS_NOT_FOUND.
pub const GET_POLICY: u32 = code(0x802, FILE_READ_DATA);

/// From now on every decision makes an event, whatever `log` and budgets say, until the handle is closed. No input, no
/// output. STATUS_DEVICE_BUSY while [`MAX_RECORD_ALL`] handles have asked.
pub const RECORD_ALL: u32 = code(0x803, FILE_READ_DATA);

/// How many handles can ask for [`RECORD_ALL`] at a time.
pub const MAX_RECORD_ALL: usize = 8;

/// The largest image the driver takes, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_ctl_code_makes() {
        assert_eq!(GET_STATUS, 0x0012_6000);
        assert_eq!(SET_POLICY, 0x0012_A004);
        assert_eq!(GET_POLICY, 0x0012_6008);
        assert_eq!(RECORD_ALL, 0x0012_600C);
    }
}
