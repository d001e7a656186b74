//! The driver's state, counters and replies.

use core::fmt::{self, Write};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The driver's state: little-endian, no padding. All counters count since the driver was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Status {
    /// [`crate::PROTOCOL_VERSION`] of the driver.
    pub protocol_version: u32,
    /// The policy's generation, 0 without a policy.
    pub epoch: u32,
    /// How many rules the policy in force has.
    pub rules: u32,
    /// What became of the kept policy when the driver was loaded: [`kept`].
    pub kept: u32,
    /// The size of the image in force, in bytes.
    pub policy_bytes: u64,
    /// The identity of the image in force, zeros without a policy.
    pub policy_identity: [u8; 16],
    /// With [`kept::UNREADABLE`], the NTSTATUS of reading the file; otherwise 0.
    pub kept_status: u32,
    /// Other than 0 if the driver is not asked about anything until a policy is in force: the machine fails closed.
    pub fails_closed: u32,
    /// What was decided and seen.
    pub counters: Counters,
}

const _: () = assert!(size_of::<Status>() == 48 + size_of::<Counters>());

/// Values of [`Status::kept`]: what became of the kept policy ([`crate::KEPT_POLICY`]) when the driver was loaded.
pub mod kept {
    /// None was kept.
    pub const NONE: u32 = 0;
    /// It was put in force.
    pub const RESTORED: u32 = 1;
    /// The file is damaged, or of another version's format: it was refused, as it would be by an upload.
    pub const REFUSED: u32 = 2;
    /// The file could not be read, is empty or too long, or there was no memory for it.
    pub const UNREADABLE: u32 = 3;
    /// The disk cannot be read yet: Windows is starting, and the driver reads the file when all boot devices are there.
    pub const LATER: u32 = 4;
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident: $variant:ident),* $(,)?) => {
        /// The driver's counters.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        /// One of [`Counters`]' fields; its value is the field's index.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        impl Counter {
            /// Every counter, in the order of the fields, with its name.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$variant, stringify!($field)),)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
        }

        impl Counters {
            /// One counter by its name in the code.
            #[must_use]
            pub const fn get(&self, counter: Counter) -> u64 {
                match counter { $(Counter::$variant => self.$field,)* }
            }

            /// The same, mutable.
            pub const fn get_mut(&mut self, counter: Counter) -> &mut u64 {
                match counter { $(Counter::$variant => &mut self.$field,)* }
            }
        }
    };
}

counters! {
    /// Outbound connections permitted at ALE_AUTH_CONNECT.
    connects_permitted: ConnectsPermitted,
    /// Outbound connections blocked there.
    connects_blocked: ConnectsBlocked,
    /// Inbound connections permitted at ALE_AUTH_RECV_ACCEPT.
    accepts_permitted: AcceptsPermitted,
    /// Inbound connections blocked there.
    accepts_blocked: AcceptsBlocked,
    /// Packets without a flow (ICMP and the like) permitted at the transport layers.
    packets_permitted: PacketsPermitted,
    /// Packets without a flow blocked there.
    packets_blocked: PacketsBlocked,
    /// Packets to be passed on between other machines that were permitted at IPFORWARD.
    forwards_permitted: ForwardsPermitted,
    /// Packets blocked there.
    forwards_blocked: ForwardsBlocked,
    /// Ports that programs were given at ALE_RESOURCE_ASSIGNMENT, where the policy speaks of that.
    binds_permitted: BindsPermitted,
    /// Ports that they were refused there.
    binds_blocked: BindsBlocked,
    /// Programs that may listen, at ALE_AUTH_LISTEN, where the policy speaks of that.
    listens_permitted: ListensPermitted,
    /// Programs that may not.
    listens_blocked: ListensBlocked,
    /// Packets that no socket wanted and a `drop` forbids: no reset or ICMP error answers them.
    discards_silenced: DiscardsSilenced,
    /// ICMP errors about packets that a `drop` forbids: not sent.
    icmp_errors_silenced: IcmpErrorsSilenced,
    /// Decisions that could not be written because an earlier filter had kept the right.
    decisions_without_right: DecisionsWithoutRight,
    /// Decisions that took more steps than allowed (`MOST_STEPS` of the policy's image): the flow was blocked.
    decisions_over_budget: DecisionsOverBudget,
    /// Connections, and packets without a flow, whose layer did not report a protocol or an address: left undecided.
    fields_missing: FieldsMissing,
    /// Connections that Windows asked about again.
    reauthorizations: Reauthorizations,
    /// Flows that were given a context.
    flows_opened: FlowsOpened,
    /// Flows whose context was freed.
    flows_closed: FlowsClosed,
    /// Flows that could not be given a context (too many, out of memory, or WFP refused); they pass uncounted, and are
    /// decided when Windows asks about them.
    flows_untracked: FlowsUntracked,
    /// Those of them that exceeded the limit of their process or the overall limit.
    flows_refused: FlowsRefused,
    /// Flows that a new policy forbade after they were established.
    flows_revoked: FlowsRevoked,
    /// Packets of revoked flows, and of untracked ones that the policy forbids, that were dropped.
    revoked_packets: RevokedPackets,
    /// Packets of tracked flows sent.
    packets_out: PacketsOut,
    /// Packets of tracked flows received.
    packets_in: PacketsIn,
    /// Bytes of those packets after the transport header, sent.
    bytes_out: BytesOut,
    /// The same, received.
    bytes_in: BytesIn,
    /// Connections and flows let through so that their content can be asked for a name.
    names_awaited: NamesAwaited,
    /// Flows whose content asked for a name.
    names_found: NamesFound,
    /// Flows whose content has no name that can be read: rules decided by their `when-undecidable`.
    names_undecidable: NamesUndecidable,
    /// Those of them whose content could not be looked at for want of memory, or because too many were looked at.
    names_not_looked_for: NamesNotLookedFor,
    /// Names that could not be kept for the next policy, for want of memory: to it they are undecidable.
    names_forgotten: NamesForgotten,
    /// Flows ended because of what their content asked for, or because that could not be read.
    flows_blocked_by_name: FlowsBlockedByName,
    /// Addresses with names learned from answers to this machine's questions.
    names_learned: NamesLearned,
    /// Addresses that such answers have and that could not be kept.
    names_not_learned: NamesNotLearned,
    /// Connections decided by a learned name: refused, or permitted where nothing can be read from them.
    decided_by_learned_name: DecidedByLearnedName,
    /// Questions of DNS dropped because of the name asked about, or because that could not be read.
    datagrams_blocked_by_name: DatagramsBlockedByName,
    /// Questions that rules have asked.
    questions_asked: QuestionsAsked,
    /// Questions that were answered.
    questions_answered: QuestionsAnswered,
    /// Questions that nobody answered in time.
    questions_timed_out: QuestionsTimedOut,
    /// Questions that ended otherwise: whoever answers has left, the process has ended, or a new policy decides.
    questions_dropped: QuestionsDropped,
    /// Connections held until a question is answered.
    connections_held: ConnectionsHeld,
    /// Connections that were not asked about, because nobody was there to answer.
    not_asked_for_nobody: NotAskedForNobody,
    /// Connections that were not asked about, because too many questions were open, or memory was short.
    not_asked_for_want_of_room: NotAskedForWantOfRoom,
    /// Connections that were not asked about, because they could not be held: Windows asks about them again, or refused.
    not_asked_too_late: NotAskedTooLate,
    /// Events written to the ring.
    events_written: EventsWritten,
    /// Events that readers lost because they were slower than the events came, of all readers together.
    events_dropped: EventsDropped,
    /// Decisions not recorded because their source had used up its budget for the second.
    events_over_budget: EventsOverBudget,
    /// Policies put in force.
    policies_loaded: PoliciesLoaded,
    /// Policies refused.
    policies_refused: PoliciesRefused,
    /// Policies put in force for which the filter engine refused to reauthorize the existing connections.
    reauthorizations_refused: ReauthorizationsRefused,
    /// 1 if Windows refused to register the driver as an event provider: no trace session gets its events.
    tracing_refused: TracingRefused,
}

/// The answer to [`crate::ioctl::COMMIT_POLICY`]: 256 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyReply {
    /// The generation now in force.
    pub epoch: u32,
    /// How many bytes of [`PolicyReply::reason`] are used: 0 when the image is in force.
    pub reason_bytes: u32,
    /// The NTSTATUS with which the filter engine refused to reauthorize connections older than the policy; 0 when it
    /// reauthorizes them, and in a refusal.
    pub not_asked_again: u32,
    /// Zero.
    pub reserved: u32,
    /// Why the image was refused, in UTF-8.
    pub reason: [u8; 240],
}

const _: () = assert!(size_of::<PolicyReply>() == 256);

impl PolicyReply {
    /// The image is in force.
    #[must_use]
    pub const fn accepted(epoch: u32) -> Self {
        Self { epoch, reason_bytes: 0, not_asked_again: 0, reserved: 0, reason: [0; 240] }
    }

    /// The image was refused; a reason that does not fit is cut.
    #[must_use]
    pub fn refused(epoch: u32, reason: &dyn fmt::Display) -> Self {
        let mut reply = Self::accepted(epoch);
        // Writing fails only when the buffer is full, and then the rest is left out.
        let _ = write!(reply, "{reason}");
        if reply.reason_bytes == 0 {
            let _ = reply.write_str("refused");
        }
        reply
    }

    /// Why the image was refused; None when it is in force.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let reason = self.reason.get(..self.reason_bytes as usize).unwrap_or(&self.reason);
        (!reason.is_empty()).then(|| core::str::from_utf8(reason).unwrap_or("refused, with an unreadable reason"))
    }
}

impl Write for PolicyReply {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.reason.get_mut(self.reason_bytes as usize..).unwrap_or_default();
        let mut length = text.len().min(room.len());
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        if let (Some(room), Some(text)) = (room.get_mut(..length), text.as_bytes().get(..length)) {
            room.copy_from_slice(text);
            self.reason_bytes += length as u32;
        }
        if length < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_names_its_own_field() {
        for (place, (counter, _)) in Counter::ALL.iter().enumerate() {
            let mut counters = Counters::default();
            *counters.get_mut(*counter) = 1;
            let words: Vec<u64> =
                counters.as_bytes().as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            assert_eq!(words.iter().position(|&word| word == 1), Some(place));
        }
    }

    #[test]
    fn a_refusal_keeps_its_reason_and_cuts_what_does_not_fit() {
        assert_eq!(PolicyReply::accepted(3).reason(), None);
        assert_eq!(PolicyReply::refused(3, &"damaged").reason(), Some("damaged"));
        let long = "é".repeat(200);
        assert_eq!(PolicyReply::refused(3, &long).reason(), Some("é".repeat(120).as_str()));
        assert_eq!(PolicyReply::refused(3, &"").reason(), Some("refused"));
    }
}
