//! The input and output of a decision.

use crate::essential::Essential;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who opened the conversation, from this machine's view; or that it is not this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Direction {
    /// This machine connects or sends first.
    Outbound,
    /// Another machine connects or sends first.
    Inbound,
    /// A packet that this machine passes on between others. Each is decided by itself: its source stands as `local`,
    /// its destination as `remote`.
    Forward,
    /// A program asks to have TCP connections brought to a port: `listen()`. There is no other machine yet.
    Listen,
    /// A program asks for a port, or for packets of a protocol: `bind()`. There is no other machine yet.
    Bind,
}

impl Direction {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Outbound, Self::Inbound, Self::Forward, Self::Listen, Self::Bind];

    /// Whether it is that of conversations, of which there may be a name.
    #[must_use]
    pub const fn is_of_conversations(self) -> bool {
        matches!(self, Self::Outbound | Self::Inbound)
    }

    /// Whether it is of what a program asks of this machine alone: the other side is then the unspecified address.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(self, Self::Listen | Self::Bind)
    }

    /// The word that policies use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Forward => "forward",
            Self::Listen => "listen",
            Self::Bind => "bind",
        }
    }
}

/// The verdict on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Verdict {
    /// Let it pass.
    Permit,
    /// Refuse it.
    Block,
}

/// How many seconds a rule may give whoever answers.
pub const ANSWER_SECONDS: core::ops::RangeInclusive<u8> = 1..=240;

/// An application as `FWPS_FIELD_ALE_AUTH_CONNECT_V4_ALE_APP_ID` carries it: the UTF-16LE bytes of the image's NT path
/// in lower case (`\device\harddiskvolume3\windows\system32\svchost.exe`), with or without the terminating NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppId<'a>(pub &'a [u8]);

impl<'a> AppId<'a> {
    /// The bytes without the terminating NUL.
    #[must_use]
    pub fn path(self) -> &'a [u8] {
        self.0.strip_suffix(&[0, 0]).filter(|rest| rest.len() % 2 == 0).unwrap_or(self.0)
    }
}

/// A user's security identifier in its binary form (`SID` of winnt.h: revision, count, authority, sub-authorities).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sid<'a>(pub &'a [u8]);

/// Identities that a flow's owner has besides its user: the enabled groups and services of the token, and the package.
pub trait Identities {
    /// Visits every one of them. May be called more than once for a flow.
    fn each(&self, visit: &mut dyn FnMut(Sid<'_>));
}

// Not required of each implementation: its code would be in the driver, from the table of the trait's functions.
impl core::fmt::Debug for dyn Identities + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut list = f.debug_list();
        self.each(&mut |sid| {
            list.entry(&sid);
        });
        list.finish()
    }
}

/// What is known about the name that the flow's content asks for (TLS SNI, HTTP Host, DNS question).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Name<'a> {
    /// No content has been seen yet. A rule with a name does not match, and [`Decision::needs_name`] says when one
    /// might. It stays so for what is neither TCP nor UDP.
    #[default]
    Unknown,
    /// Content has been seen and has no name, or one that cannot be read. Only rules that say
    /// `when-undecidable = "match"` match.
    Undecidable,
    /// The name as it was sent: ASCII, any case, with or without a final dot.
    Known(&'a [u8]),
}

/// How much of a forwarded packet's headers could be read. Of every other flow all is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Headers {
    /// All that rules ask for.
    #[default]
    Whole,
    /// The protocol, but no ports: a fragment that is not the first, or a packet that ends too early. A rule with ports
    /// matches only if it says `when-undecidable = "match"`.
    NoPorts,
    /// Addresses alone: a chain of extension headers that does not end. The same holds for a rule with a protocol.
    NoProtocol,
}

/// The IPv4 address inside an IPv6 one, for the forms that lead to it: NAT64's 64:ff9b::/96 (RFC 6052), 6to4's 2002::/16
/// (RFC 3056), and Teredo's 2001::/32, where it is the client's, each bit turned over (RFC 4380).
#[must_use]
pub const fn embedded_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let bits = address.to_bits();
    let inside = if bits >> 32 == 0x0064_ff9b_0000_0000_0000_0000 {
        bits as u32
    } else if bits >> 112 == 0x2002 {
        (bits >> 80) as u32
    } else if bits >> 96 == 0x2001_0000 {
        !(bits as u32)
    } else {
        return None;
    };
    Some(Ipv4Addr::from_bits(inside))
}

/// The unspecified address in the family of another.
#[must_use]
pub const fn unspecified(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// A flow to decide: the fields of a classify call that rules can use.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Flow<'a> {
    /// Who opened it.
    pub direction: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// This machine's address.
    pub local: IpAddr,
    /// This machine's port; the ICMP type for ICMP and ICMPv6.
    pub local_port: u16,
    /// The other machine's address.
    pub remote: IpAddr,
    /// The other machine's port; the ICMP code for ICMP and ICMPv6.
    pub remote_port: u16,
    /// The program, where the layer knows it. A rule with an application does not match a flow without.
    pub application: Option<AppId<'a>>,
    /// The user, where the layer knows it. A rule with a user does not match a flow without.
    pub user: Option<Sid<'a>>,
    /// Its owner's other identities, where the layer knows them. Rules on users, groups, services and packages compare
    /// with both these and the user.
    pub others: Option<&'a dyn Identities>,
    /// The local interface as `NET_LUID` (its top 16 bits are the IANA interface type), where the layer knows it.
    pub interface: Option<u64>,
    /// The name its content asks for.
    pub name: Name<'a>,
    /// Whether it goes from this machine to itself, where the layer tells; otherwise its addresses do.
    pub loopback: Option<bool>,
    /// What of the fields above could be read, for [`Direction::Forward`].
    pub headers: Headers,
    /// The system has chosen the port, since the program named none, for [`Direction::Bind`].
    pub port_chosen: bool,
}

impl<'a> Flow<'a> {
    /// A flow of which only the 5-tuple and direction are known.
    #[must_use]
    pub fn new(
        direction: Direction,
        protocol: u8,
        local: IpAddr,
        local_port: u16,
        remote: IpAddr,
        remote_port: u16,
    ) -> Self {
        Self {
            direction,
            protocol,
            local,
            local_port,
            remote,
            remote_port,
            application: None,
            user: None,
            others: None,
            interface: None,
            name: Name::Unknown,
            loopback: None,
            headers: Headers::Whole,
            port_chosen: false,
        }
    }

    /// What a program asks of this machine alone; `direction` is one for which [`Direction::is_local`] holds.
    #[must_use]
    pub fn of_endpoint(direction: Direction, protocol: u8, local: IpAddr, local_port: u16) -> Self {
        Self::new(direction, protocol, local, local_port, unspecified(local), 0)
    }

    /// The same, with a port that the system has chosen.
    #[must_use]
    pub fn with_port_chosen(mut self, port_chosen: bool) -> Self {
        self.port_chosen = port_chosen;
        self
    }

    /// The same, with no more of its headers read.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// The same, with this program.
    #[must_use]
    pub fn with_application(mut self, application: AppId<'a>) -> Self {
        self.application = Some(application);
        self
    }

    /// The same, with this user.
    #[must_use]
    pub fn with_user(mut self, user: Sid<'a>) -> Self {
        self.user = Some(user);
        self
    }

    /// The same, with these further identities.
    #[must_use]
    pub fn with_others(mut self, others: &'a dyn Identities) -> Self {
        self.others = Some(others);
        self
    }

    /// Whether its content can have a name: TCP's and UDP's can.
    #[must_use]
    pub const fn carries_a_name(&self) -> bool {
        matches!(self.protocol, 6 | 17)
    }

    /// Visits every known identity of the flow's owner.
    pub fn identities(&self, visit: &mut dyn FnMut(Sid<'_>)) {
        if let Some(user) = self.user {
            visit(user);
        }
        if let Some(others) = self.others {
            others.each(visit);
        }
    }

    /// The same, on this interface.
    #[must_use]
    pub fn with_interface(mut self, luid: u64) -> Self {
        self.interface = Some(luid);
        self
    }

    /// The same, from this machine to itself or not.
    #[must_use]
    pub fn with_loopback(mut self, loopback: bool) -> Self {
        self.loopback = Some(loopback);
        self
    }

    /// The same, with the name from its content.
    #[must_use]
    pub fn with_name(mut self, name: Name<'a>) -> Self {
        self.name = name;
        self
    }
}

/// A policy's decision on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Decision {
    /// Permit or block.
    pub verdict: Verdict,
    /// The rule asks: how many seconds an answer may take. [`Decision::verdict`] is what holds without one, and wherever
    /// nobody can be asked.
    #[cfg_attr(feature = "std", serde(skip_serializing_if = "Option::is_none"))]
    pub asks: Option<u8>,
    /// The verdict takes away the right of filters of lower weight to override it (`FWPS_RIGHT_ACTION_WRITE` cleared).
    pub hard: bool,
    /// A block that the program is not notified of, where the layer allows that (`action = "drop"`).
    pub silent: bool,
    /// Deciding took more steps than allowed ([`crate::image::MOST_STEPS`]): no rule decided, and the verdict is a hard
    /// block. A valid image does that only for flows with more SIDs than a Windows token has, with repeated SIDs, or with
    /// longer paths.
    pub over_budget: bool,
    /// The 0-based index in the file of the rule that decided; `None` where none did.
    pub rule: Option<u32>,
    /// Why it is permitted though no rule matches, whatever the direction's default says.
    #[cfg_attr(feature = "std", serde(skip_serializing_if = "Option::is_none"))]
    pub essential: Option<Essential>,
    /// The rule, or the default, requests an event.
    pub log: bool,
    /// [`Name::Unknown`] only: an earlier rule has a condition on the name and would match with the right one. The
    /// verdict is what the flow gets without that rule; until its content is seen, the flow is let through to ask for
    /// its name. For a blocked flow only rules that permit count: whatever its name, others leave it blocked.
    pub needs_name: bool,
}

impl Decision {
    /// The action that a policy has for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.asks, self.verdict, self.silent) {
            (Some(_), ..) => "ask",
            (None, Verdict::Permit, _) => "permit",
            (None, Verdict::Block, false) => "block",
            (None, Verdict::Block, true) => "drop",
        }
    }

    /// What an answer makes of a decision that asks, or that there is none. A block is hard, and a permit soft; what is
    /// blocked is not let through to ask for its name.
    #[must_use]
    pub fn settled(self, answer: Option<Verdict>) -> Self {
        let verdict = answer.unwrap_or(self.verdict);
        let blocked = verdict == Verdict::Block;
        Self { verdict, hard: blocked, asks: None, needs_name: self.needs_name && !blocked, ..self }
    }
}
