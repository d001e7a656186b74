//! One decision, as the driver reports it.
//!
//! `ReadFile` on the device returns a whole number of events, at least one; it waits until there is one. A buffer
//! shorter than one event is STATUS_BUFFER_TOO_SMALL.
//!
//! A decision is recorded when its rule, or the default that decided, says `log`, as far as the source's budget allows;
//! while a handle has asked for [`crate::ioctl::RECORD_ALL`] every decision is. Each handle gets every event, from the oldest
//! that the driver holds at its first read, in the order of time; or those that it has asked for
//! ([`crate::ioctl::FILTER_EVENTS`]). A handle that reads too slowly loses the oldest, and is told how many.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many bytes of application path an event carries.
pub const APPLICATION_BYTES: usize = 152;

/// How many of them may hold the end of a name instead.
pub const NAME_BYTES: usize = 80;

/// One decision: 256 bytes, little-endian, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Event {
    /// The event's number, counted from 1 since the driver was loaded: one more than that of the reader's event before it
    /// and what `lost` says. The same for every reader that has lost nothing; without a filter there are no other gaps.
    /// 0 in a record of [`verdict::NONE`].
    pub sequence: u64,
    /// When, in 100 ns since 1601-01-01 UTC (FILETIME), to within a millisecond. Events come in the order of time, which
    /// shows here unless the system's clock is set back.
    pub time: u64,
    /// The WFP filter that called the callout (filterId in net events).
    pub filter_id: u64,
    /// The flow's handle, 0 where there is none yet.
    pub flow: u64,
    /// The process, 0 where the layer does not report it.
    pub process_id: u32,
    /// The policy's generation: 1 for the first policy after load, one more for each swap.
    pub epoch: u32,
    /// The deciding rule's index, [`RULE_ESSENTIAL`] or [`RULE_DEFAULT`].
    pub rule: u32,
    /// The run-time layer id (FWPS_LAYER_*).
    pub layer: u16,
    /// [`verdict`]; with [`verdict::NONE`] only `lost` and `time` are meaningful.
    pub verdict: u8,
    /// [`direction`].
    pub direction: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// [`flags`].
    pub flags: u16,
    /// Local port in host order; the ICMP type.
    pub local_port: u16,
    /// Remote port in host order; the ICMP code.
    pub remote_port: u16,
    /// Local address in network order; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Remote address likewise.
    pub remote: [u8; 16],
    /// How many bytes of [`Event::application`] are used.
    pub application_bytes: u16,
    /// How many bytes at the end of [`Event::application`] hold the name that the content asked for.
    pub name_bytes: u8,
    /// Where a rule asks: who has answered, or why nobody was asked ([`asked`]).
    pub asked: u8,
    /// How many events of the same `ring` this reader has lost right before this one, because it was slower than they came.
    /// Whether its filter would have wanted them is not known.
    pub lost: u32,
    /// How many decisions of the same source were not recorded because it had used up its budget in an earlier second.
    /// Sources may share a budget.
    pub unrecorded: u32,
    /// The ring that the event was written to: that of its processor, where there are not more than 64. With
    /// [`verdict::NONE`] the losses are of all rings.
    pub ring: u16,
    /// Zero.
    pub reserved2: [u8; 2],
    /// The application's NT path in UTF-16LE; its end, when [`flags::APPLICATION_CUT`] is set. Behind it, at the end of
    /// the field, the name; its end, when [`flags::NAME_CUT`] is set.
    pub application: [u8; APPLICATION_BYTES],
}

const _: () = assert!(size_of::<Event>() == 256);

impl Event {
    /// An event of zeros.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self {
            sequence: 0,
            time: 0,
            filter_id: 0,
            flow: 0,
            process_id: 0,
            epoch: 0,
            rule: 0,
            layer: 0,
            verdict: 0,
            direction: 0,
            protocol: 0,
            ip_version: 0,
            flags: 0,
            local_port: 0,
            remote_port: 0,
            local: [0; 16],
            remote: [0; 16],
            application_bytes: 0,
            name_bytes: 0,
            asked: 0,
            lost: 0,
            unrecorded: 0,
            ring: 0,
            reserved2: [0; 2],
            application: [0; APPLICATION_BYTES],
        }
    }

    /// Writes the name that the content asked for, keeping its end when it does not fit. Before the application, which
    /// gets what room is left.
    pub fn set_name(&mut self, name: &[u8]) {
        let start = name.len().saturating_sub(NAME_BYTES);
        let end = name.get(start..).unwrap_or_default();
        if start > 0 {
            self.flags |= flags::NAME_CUT;
        }
        // From the last letter on: no length needs to be proved.
        self.name_bytes = 0;
        for (place, letter) in self.application.iter_mut().rev().zip(end.iter().rev()) {
            *place = *letter;
            self.name_bytes = self.name_bytes.saturating_add(1);
        }
    }

    /// The name that the content asked for; empty where there is none.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let start = APPLICATION_BYTES.saturating_sub(usize::from(self.name_bytes));
        self.application.get(start..).unwrap_or_default()
    }

    /// Writes the application's path, keeping its end when it does not fit.
    pub fn set_application(&mut self, utf16le: &[u8]) {
        // Whole characters.
        let room = APPLICATION_BYTES.saturating_sub(usize::from(self.name_bytes)) & !1;
        let start = utf16le.len().saturating_sub(room);
        let end = utf16le.get(start..).unwrap_or_default();
        if start > 0 {
            self.flags |= flags::APPLICATION_CUT;
        }
        if !end.is_empty() // packets have none
            && let Some(space) = self.application.get_mut(..end.len())
        {
            space.copy_from_slice(end);
            self.application_bytes = end.len() as u16;
        }
    }

    /// The bytes of the application's path that count.
    #[must_use]
    pub fn application(&self) -> &[u8] {
        self.application.get(..usize::from(self.application_bytes)).unwrap_or_default()
    }
}

/// [`Event::rule`] when no rule matched and the direction's default decided.
pub const RULE_DEFAULT: u32 = u32::MAX;

/// [`Event::rule`] when no rule matched, and it was permitted because no default decides about traffic of its kind.
pub const RULE_ESSENTIAL: u32 = u32::MAX - 1;

/// Values of [`Event::verdict`].
pub mod verdict {
    /// No decision: the record says how many events were lost at the end of what there was to read.
    pub const NONE: u8 = 0;
    /// Permitted.
    pub const PERMIT: u8 = 1;
    /// Blocked.
    pub const BLOCK: u8 = 2;
    /// No decision: when the driver was loaded, the policy that was kept for it was not put in force.
    /// [`super::Event::rule`] is why ([`crate::status::kept`]), `flow` the NTSTATUS of reading it; besides these only
    /// `sequence`, `time` and `lost` are meaningful.
    pub const NOT_RESTORED: u8 = 3;
}

/// Values of [`Event::direction`].
pub mod direction {
    /// This machine opened the connection or sent the packet.
    pub const OUTBOUND: u8 = 1;
    /// The other side did.
    pub const INBOUND: u8 = 2;
    /// The packet was to be passed on: its source stands as local, its destination as remote.
    pub const FORWARD: u8 = 3;
    /// A program asked to listen on the local port; there is no remote.
    pub const LISTEN: u8 = 4;
    /// A program asked for the local port, or for packets of the protocol; there is no remote.
    pub const BIND: u8 = 5;
}

/// Values of [`Event::asked`]. From [`asked::TIMED_OUT`] on, what holds without an answer has decided.
pub mod asked {
    /// No rule asks.
    pub const NO: u8 = 0;
    /// It was answered.
    pub const ANSWERED: u8 = 1;
    /// An answer for the life of the process was remembered.
    pub const REMEMBERED: u8 = 2;
    /// The program that answers connects itself.
    pub const OWN: u8 = 3;
    /// Nobody answered in time.
    pub const TIMED_OUT: u8 = 4;
    /// Whoever answered has left, or the process has ended, while it was open.
    pub const DROPPED: u8 = 5;
    /// Nobody was there to answer.
    pub const NOBODY: u8 = 6;
    /// Too many questions were open, or memory was short.
    pub const NO_ROOM: u8 = 7;
    /// The connection could not be held: Windows asked about it again, or it came to its rule only after it was established.
    pub const TOO_LATE: u8 = 8;
}

/// Bits of [`Event::flags`].
pub mod flags {
    /// The verdict was written so that filters of lesser weight cannot override it.
    pub const HARD: u16 = 0x0001;
    /// Windows asked again about a connection it had asked about before.
    pub const REAUTHORIZE: u16 = 0x0002;
    /// A new policy took away what an established flow had been granted.
    pub const FLOW_REVOKED: u16 = 0x0004;
    /// The verdict could not be written: an earlier filter had decided and kept the right.
    pub const NO_RIGHT: u16 = 0x0008;
    /// A block was written over a permit without the right to write (the documented veto).
    pub const VETO: u16 = 0x0010;
    /// The packet never leaves this machine.
    pub const LOOPBACK: u16 = 0x0020;
    /// Only the end of the application's path is in the event.
    pub const APPLICATION_CUT: u16 = 0x0040;
    /// It is let through only to ask for its name, by which it is decided then.
    pub const AWAITS_NAME: u16 = 0x0080;
    /// Decided by what its content asked for; without a name in the event, by that it has none that can be read.
    pub const BY_CONTENT: u16 = 0x0100;
    /// Only the end of the name is in the event.
    pub const NAME_CUT: u16 = 0x0200;
    /// The name is one that an answer of DNS gave the address.
    pub const LEARNED: u16 = 0x0400;
    /// The program named no port: the system chose this one.
    pub const PORT_CHOSEN: u16 = 0x0800;
    /// The program asked for every packet of an interface, other programs' included (SIO_RCVALL).
    pub const PROMISCUOUS: u16 = 0x1000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_fits_is_kept_whole() {
        let mut event = Event::zeroed();
        event.set_application(&[7; 10]);
        assert_eq!(event.application(), [7; 10]);
        assert_eq!(event.flags & flags::APPLICATION_CUT, 0);
    }

    #[test]
    fn a_longer_path_keeps_its_end() {
        let mut path = vec![1; 40];
        path.extend([2; APPLICATION_BYTES]);
        let mut event = Event::zeroed();
        event.set_application(&path);
        assert_eq!(event.application(), [2; APPLICATION_BYTES]);
        assert_ne!(event.flags & flags::APPLICATION_CUT, 0);
    }

    #[test]
    fn a_name_shares_the_room_with_the_path() {
        let mut event = Event::zeroed();
        event.set_name(b"ads.example");
        event.set_application(&[7; APPLICATION_BYTES]);
        assert_eq!((event.name(), event.application().len()), (&b"ads.example"[..], APPLICATION_BYTES - 12));
        assert_eq!(event.flags, flags::APPLICATION_CUT);
        let mut event = Event::zeroed();
        let long: Vec<u8> = (0..200).collect();
        event.set_name(&long);
        event.set_application(&[7; 10]);
        assert_eq!((event.name(), event.application()), (&long[200 - NAME_BYTES..], &[7; 10][..]));
        assert_eq!(event.flags, flags::NAME_CUT);
        assert!(Event { name_bytes: 255, ..Event::zeroed() }.name().len() == APPLICATION_BYTES);
        assert!(Event::zeroed().name().is_empty());
    }

    #[test]
    fn a_record_that_claims_more_than_it_holds_reads_as_empty() {
        let event = Event { application_bytes: u16::MAX, ..Event::zeroed() };
        assert!(event.application().is_empty());
    }
}
