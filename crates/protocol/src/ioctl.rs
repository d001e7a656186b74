//! IOCTL codes. All are METHOD_BUFFERED on FILE_DEVICE_NETWORK.
//!
//! Source: the CTL_CODE macro of devioctl.h.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const FILE_DEVICE_NETWORK: u32 = 0x12;
const METHOD_BUFFERED: u32 = 0;
const FILE_READ_DATA: u32 = 1;
const FILE_WRITE_DATA: u32 = 2;

const fn code(function: u32, access: u32) -> u32 {
    (FILE_DEVICE_NETWORK << 16) | (access << 14) | (function << 2) | METHOD_BUFFERED
}

/// Output: one [`crate::Status`]. A shorter buffer is STATUS_BUFFER_TOO_SMALL.
pub const GET_STATUS: u32 = code(0x800, FILE_READ_DATA);

/// Input: an [`crate::upload::Begin`]. No output. The caller's handle begins to upload an image; an earlier upload of the
/// same handle is dropped.
///
/// STATUS_INVALID_PARAMETER for a length of 0 or above [`MAX_POLICY_BYTES`], STATUS_DEVICE_BUSY while another handle
/// uploads. Closing the handle drops the upload.
pub const BEGIN_POLICY: u32 = code(0x801, FILE_WRITE_DATA);

/// Input: a [`crate::upload::Part`], then 1 to [`MAX_PART_BYTES`] bytes of the image. No output. Parts follow each other
/// without gaps.
///
/// STATUS_NOT_FOUND if the handle has begun no upload. STATUS_INVALID_PARAMETER, and nothing changes, for a part that does
/// not begin where the one before ended, has no or too many bytes, or exceeds the announced length.
pub const POLICY_PART: u32 = code(0x804, FILE_WRITE_DATA);

/// No input. Output: a [`crate::status::PolicyReply`]. Puts the uploaded image in force.
///
/// The image is validated before anything changes. A refused image is STATUS_SUCCESS with a reply that says why,
/// because METHOD_BUFFERED returns no output with an error status; the policy in force stays in force. Either way the
/// upload is over. STATUS_NOT_FOUND if the handle has begun no upload; STATUS_INVALID_PARAMETER if parts are missing,
/// which can still follow.
pub const COMMIT_POLICY: u32 = code(0x805, FILE_WRITE_DATA);

/// The most bytes of an image in one [`POLICY_PART`] or [`READ_POLICY`]: what the I/O manager copies into nonpaged pool at a time.
pub const MAX_PART_BYTES: usize = 256 << 10;

/// Input: an [`crate::upload::Wanted`]. Output: bytes of the image in force from there on, as many as the buffer takes;
/// [`GET_STATUS`] reports generation and size.
///
/// STATUS_NOT_FOUND without a policy, STATUS_REVISION_MISMATCH if another generation is in force.
/// STATUS_INVALID_PARAMETER for a place beyond the image or a buffer of more than [`MAX_PART_BYTES`],
/// STATUS_BUFFER_TOO_SMALL for none.
pub const READ_POLICY: u32 = code(0x802, FILE_READ_DATA);

/// From now on every decision makes an event, whatever `log` and budgets say, until the handle is closed. No input, no
/// output. STATUS_DEVICE_BUSY while [`MAX_RECORD_ALL`] handles have asked.
pub const RECORD_ALL: u32 = code(0x803, FILE_READ_DATA);

/// No input. Output: events as a read returns them, up to as many as fit, but without waiting: none when there are none. A
/// buffer shorter than one event is STATUS_BUFFER_TOO_SMALL, too many readers are STATUS_DEVICE_BUSY.
pub const TAKE_EVENTS: u32 = code(0x807, FILE_READ_DATA);

/// Input: a [`crate::filter::Filter`]. No output. From now on the caller's handle gets only the events that this filter wants,
/// and a read waits for one of them; again with another filter, or with [`crate::filter::Filter::ALL`]. An input that is none
/// is STATUS_INVALID_PARAMETER, too many readers are STATUS_DEVICE_BUSY; nothing changes then.
pub const FILTER_EVENTS: u32 = code(0x808, FILE_READ_DATA);

/// How many events the rings hold together: 4 MiB. Each has an equal share, of as many as there are processors rounded up to
/// a power of two; 64 at most.
pub const EVENTS_HELD: usize = 16_384;

/// Input: a generation (u32, little-endian). Output: the names of the rules of the policy that had it and is no longer in
/// force, in their order, each as its length (u32, little-endian) and that many bytes of UTF-8.
///
/// STATUS_NOT_FOUND if they are not kept: the policy is in force, had longer names than [`MAX_RULE_NAMES_BYTES`], or
/// [`MAX_PAST_POLICIES`] others came after it. STATUS_BUFFER_TOO_SMALL for a shorter buffer than they need.
pub const RULE_NAMES: u32 = code(0x806, FILE_READ_DATA);

/// How many policies that are no longer in force have their rules' names kept.
pub const MAX_PAST_POLICIES: usize = 8;

/// The most bytes that are kept of a policy's names.
pub const MAX_RULE_NAMES_BYTES: usize = 256 << 10;

/// How many handles can read events at a time. A read of another one is STATUS_DEVICE_BUSY.
pub const MAX_READERS: usize = 16;

/// How many handles can ask for [`RECORD_ALL`] at a time.
pub const MAX_RECORD_ALL: usize = 8;

/// Input: a [`From`]. Output: as many [`crate::names::Record`]s as fit, from that number on, in order; none
/// when there are no more. A buffer shorter than one record is STATUS_BUFFER_TOO_SMALL, another input is
/// STATUS_INVALID_PARAMETER.
pub const GET_NAMES: u32 = code(0x810, FILE_READ_DATA);

/// The input of [`GET_NAMES`], [`FLOWS`] and [`OPEN_QUESTIONS`]: 8 bytes, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct From {
    /// The first number of a record that is wanted.
    pub number: u64,
}

/// Forgets every learned name. No input, no output.
pub const FORGET_NAMES: u32 = code(0x811, FILE_WRITE_DATA);

/// Input: a [`From`]. Output: as many [`crate::flows::Record`]s as fit, from that place on, in order; none when
/// there are no more. A buffer shorter than one record is STATUS_BUFFER_TOO_SMALL, another input is
/// STATUS_INVALID_PARAMETER. Flows begin and end between two requests: one can be in two answers, and in a list that is
/// longer than an answer one can be in none.
pub const FLOWS: u32 = code(0x812, FILE_READ_DATA);

/// The caller's program answers what rules ask, until its handle is closed. No input, no output. Its own connections are
/// permitted where a rule asks: those of the process whose thread sends this request.
///
/// STATUS_DEVICE_BUSY while another handle answers. Asking again changes nothing.
pub const ANSWER_QUESTIONS: u32 = code(0x820, FILE_WRITE_DATA);

/// Input: a [`From`]. Output: as many [`crate::ask::Question`]s as fit, from that number on, in order; none when there
/// are no more. Whoever may read can look at them. A question that is not among them any more is closed: answered, out of
/// time, of a process that has ended, or decided by a new policy. A buffer shorter than one record is
/// STATUS_BUFFER_TOO_SMALL, another input is STATUS_INVALID_PARAMETER.
pub const OPEN_QUESTIONS: u32 = code(0x821, FILE_READ_DATA);

/// Input: an [`crate::ask::Answer`]. No output. Answers a question, once.
///
/// STATUS_NOT_FOUND for a number that is no open question's; STATUS_INVALID_DEVICE_REQUEST from a handle that does not
/// answer; STATUS_INVALID_PARAMETER for other values than those there are; STATUS_INSUFFICIENT_RESOURCES, and the question
/// stays open, when no more answers for the life of a process can be remembered, or Windows does not tell the driver of
/// processes that end.
pub const ANSWER: u32 = code(0x822, FILE_WRITE_DATA);

/// The largest image the driver takes, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_ctl_code_makes() {
        assert_eq!(GET_STATUS, 0x0012_6000);
        assert_eq!(BEGIN_POLICY, 0x0012_A004);
        assert_eq!(POLICY_PART, 0x0012_A010);
        assert_eq!(COMMIT_POLICY, 0x0012_A014);
        assert_eq!(READ_POLICY, 0x0012_6008);
        assert_eq!(RECORD_ALL, 0x0012_600C);
        assert_eq!(RULE_NAMES, 0x0012_6018);
        assert_eq!(TAKE_EVENTS, 0x0012_601C);
        assert_eq!(FILTER_EVENTS, 0x0012_6020);
        assert_eq!(GET_NAMES, 0x0012_6040);
        assert_eq!(FLOWS, 0x0012_6048);
        assert_eq!(FORGET_NAMES, 0x0012_A044);
        assert_eq!(ANSWER_QUESTIONS, 0x0012_A080);
        assert_eq!(OPEN_QUESTIONS, 0x0012_6084);
        assert_eq!(ANSWER, 0x0012_A088);
    }
}
