//! Questions of rules that ask: who wants to connect where, for the program that answers.
//!
//! The program opens the device, says with [`crate::ioctl::ANSWER_QUESTIONS`] that it answers, takes the open questions
//! with [`crate::ioctl::OPEN_QUESTIONS`] as often as it likes, and answers each with [`crate::ioctl::ANSWER`]. It answers as
//! long as its handle is open: when that is closed, which Windows does when a process ends however it ends, every open
//! question gets what its rule says of no answer, and none is asked until another program answers.
//!
//! What the driver keeps is bounded: [`MAX_QUESTIONS`] open questions, of which one process has at most
//! [`MAX_QUESTIONS_OF_ONE`], [`MAX_HELD`] connections, of which it has at most [`MAX_HELD_BY_ONE`], and [`MAX_REMEMBERED`]
//! answers for the life of a process.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many questions can be open.
pub const MAX_QUESTIONS: usize = 64;

/// How many of them one process can have.
pub const MAX_QUESTIONS_OF_ONE: usize = 16;

/// How many connections can be held, and permitted by an answer and not established yet.
pub const MAX_HELD: usize = 256;

/// How many of them one process can have.
pub const MAX_HELD_BY_ONE: usize = 64;

/// How many answers are remembered for the life of a process.
pub const MAX_REMEMBERED: usize = 256;

/// How many bytes of application path a question carries.
pub const APPLICATION_BYTES: usize = 520;

/// How many bytes of SIDs it carries.
pub const SIDS_BYTES: usize = 304;

/// How many bytes of the name that DNS has told.
pub const NAME_BYTES: usize = 104;

/// One open question: 1024 bytes, little-endian, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Question {
    /// Its number. Numbers grow from 1 and are not used again until the driver is loaded anew.
    pub id: u64,
    /// When it was asked, in 100 ns since 1601-01-01 UTC (FILETIME).
    pub asked: u64,
    /// When its process was created, likewise; 0 when that is not known any more. A process is told from a later one with
    /// the same number by this.
    pub process_created: u64,
    /// How many milliseconds are left to answer in.
    pub milliseconds: u32,
    /// The policy's generation.
    pub epoch: u32,
    /// The index of the rule that asks.
    pub rule: u32,
    /// The process that connects, 0 where the layer does not report it.
    pub process_id: u32,
    /// The process that created it, 0 when not known. It may have ended, and its number be another one's.
    pub parent_id: u32,
    /// How many connections wait for the answer: the same process connects to the same place several times.
    pub held: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// What holds without an answer: [`crate::event::verdict`].
    pub unanswered: u8,
    /// [`flags`].
    pub flags: u8,
    /// Local port of the first connection in host order; the ICMP type.
    pub local_port: u16,
    /// Remote port in host order; the ICMP code.
    pub remote_port: u16,
    /// Local address of the first connection in network order; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Remote address likewise.
    pub remote: [u8; 16],
    /// How many bytes of [`Question::application`] are used.
    pub application_bytes: u16,
    /// How many bytes of [`Question::sids`] are used.
    pub sids_bytes: u16,
    /// How many bytes of [`Question::name`] are used.
    pub name_bytes: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// A name that DNS has told of the remote address, in lower case and without a final dot.
    pub name: [u8; NAME_BYTES],
    /// SIDs in their binary form, one after the other, as many as fit: the user's first; those of services (S-1-5-80); the
    /// package's (S-1-15-2).
    pub sids: [u8; SIDS_BYTES],
    /// The application's NT path in UTF-16LE; its end, when [`flags::APPLICATION_CUT`] is set.
    pub application: [u8; APPLICATION_BYTES],
}

const _: () = assert!(size_of::<Question>() == 1024);

/// Bits of [`Question::flags`].
pub mod flags {
    /// Only the end of the application's path is in the question.
    pub const APPLICATION_CUT: u8 = 0x01;
    /// Not all of the SIDs that it carries otherwise fit.
    pub const SIDS_CUT: u8 = 0x02;
}

impl Question {
    /// A question of zeros.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self {
            id: 0,
            asked: 0,
            process_created: 0,
            milliseconds: 0,
            epoch: 0,
            rule: 0,
            process_id: 0,
            parent_id: 0,
            held: 0,
            protocol: 0,
            ip_version: 0,
            unanswered: 0,
            flags: 0,
            local_port: 0,
            remote_port: 0,
            local: [0; 16],
            remote: [0; 16],
            application_bytes: 0,
            sids_bytes: 0,
            name_bytes: 0,
            reserved: [0; 3],
            name: [0; NAME_BYTES],
            sids: [0; SIDS_BYTES],
            application: [0; APPLICATION_BYTES],
        }
    }

    /// Writes the name.
    pub fn set_name(&mut self, name: &[u8]) {
        self.name_bytes = fill(&mut self.name, name) as u8;
    }

    /// Writes the application's path, keeping its end when it does not fit.
    pub fn set_application(&mut self, utf16le: &[u8]) {
        let start = utf16le.len().saturating_sub(APPLICATION_BYTES);
        if start > 0 {
            self.flags |= flags::APPLICATION_CUT;
        }
        let end = utf16le.get(start..).unwrap_or_default();
        self.application_bytes = fill(&mut self.application, end) as u16;
    }

    /// Adds a SID, if it fits.
    pub fn add_sid(&mut self, sid: &[u8]) {
        let room = self.sids.get_mut(usize::from(self.sids_bytes)..).unwrap_or_default();
        if sid.len() > room.len() {
            self.flags |= flags::SIDS_CUT;
            return;
        }
        self.sids_bytes = self.sids_bytes.saturating_add(fill(room, sid) as u16);
    }

    /// The bytes of the name that count.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.name_bytes)).unwrap_or_default()
    }

    /// The bytes of the application's path that count.
    #[must_use]
    pub fn application(&self) -> &[u8] {
        self.application.get(..usize::from(self.application_bytes)).unwrap_or_default()
    }

    /// The SIDs; what is not one ends them.
    pub fn sids(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.sids.get(..usize::from(self.sids_bytes)).unwrap_or_default();
        core::iter::from_fn(move || {
            let length = 8 + 4 * usize::from(*rest.get(1)?);
            let (sid, others) = rest.split_at_checked(length)?;
            rest = others;
            Some(sid)
        })
    }
}

/// Copies what fits; returns how many bytes that were.
fn fill(room: &mut [u8], bytes: &[u8]) -> usize {
    room.iter_mut().zip(bytes).map(|(place, byte)| *place = *byte).count()
}

/// The input of [`crate::ioctl::ANSWER`]: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Answer {
    /// The question's number.
    pub id: u64,
    /// [`crate::event::verdict::PERMIT`] or [`crate::event::verdict::BLOCK`].
    pub verdict: u8,
    /// [`scope`].
    pub scope: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Values of [`Answer::scope`].
pub mod scope {
    /// The connections that wait for this answer, and no others.
    pub const ONCE: u8 = 1;
    /// These, and as long as the process lives everything that the rule of the same name asks about it.
    pub const PROCESS: u8 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_said() {
        let mut question = Question::zeroed();
        question.set_application(&[&[1; 2][..], &[2; APPLICATION_BYTES]].concat());
        assert_eq!((question.application(), question.flags), (&[2; APPLICATION_BYTES][..], flags::APPLICATION_CUT));
        question.set_name(b"www.example.com");
        assert_eq!(question.name(), b"www.example.com");
        let long = [&[1, 15][..], &[7; 66]].concat();
        (0..5).for_each(|_| question.add_sid(&long));
        assert_eq!(question.sids().count(), 4);
        assert!(question.sids().all(|sid| sid == long));
        assert_ne!(question.flags & flags::SIDS_CUT, 0);
        question.sids[1] = 255;
        assert_eq!(question.sids().count(), 0, "what is no SID is none");
    }
}
