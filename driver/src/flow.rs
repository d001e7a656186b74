//! A conversation: how it is identified, and what is kept for it once it is established.
//!
//! While its content is looked at for a name ([`crate::inspection`]), it stands [`Standing::Awaited`]; then it is
//! decided by the name, which is kept for later policies.

use alloc::vec::Vec;
use core::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use kernel::{
    memory::{try_box, try_copy},
    shared::Shared,
    stage::{Known, Stage},
    wfp::{Call, DIRECTION_INBOUND, FlowSet, InSet, Moved, PacketTotals, Traffic, Way, condition_flag, fields::Fields},
};
use sluice_policy::{AppId, Decision, Direction, Flow as PolicyFlow, Identities, Name, Verdict};
use sluice_protocol::{Event, event, status::Counter};

use crate::{SLUICE, identity::Identity, inspection::Progress, policy::Policy, whose::Whose};

/// What a decision is made from, except whose conversation it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowKey {
    pub(crate) direction: Direction,
    pub(crate) protocol: u8,
    pub(crate) local: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote: IpAddr,
    pub(crate) remote_port: u16,
    /// From this machine to itself.
    pub(crate) loopback: bool,
}

impl FlowKey {
    /// Reads the conversation from a classify; None when the layer left a field out.
    ///
    /// `direction` is given for layers that see only one direction.
    pub(crate) fn read<F>(request: &Call<'_, F>, fields: &Fields, direction: Option<Direction>) -> Option<Self> {
        let direction = match direction {
            Some(direction) => direction,
            None if request.u32(fields.direction)? == DIRECTION_INBOUND => Direction::Inbound,
            None => Direction::Outbound,
        };
        Some(Self {
            direction,
            protocol: request.u8(fields.protocol)?,
            local: request.address(fields.local_address)?,
            local_port: request.u16(fields.local_port).unwrap_or(0),
            remote: request.address(fields.remote_address)?,
            remote_port: request.u16(fields.remote_port).unwrap_or(0),
            loopback: request.u32(fields.flags).unwrap_or(0) & condition_flag::IS_LOOPBACK != 0,
        })
    }

    /// As policies speak of it, without its owner.
    pub(crate) fn flow(&self) -> PolicyFlow<'static> {
        PolicyFlow::new(self.direction, self.protocol, self.local, self.local_port, self.remote, self.remote_port)
    }

    /// The policy's decision on it.
    pub(crate) fn decide(&self, policy: &Policy, owner: &Owner<'_>, name: Name<'_>) -> Decision {
        decide(policy, owner, self.flow().with_name(name).with_loopback(self.loopback))
    }

    /// An event for it, which the caller completes.
    pub(crate) fn event(&self) -> Event {
        let mut event = Event::zeroed();
        self.write(&mut event);
        event
    }

    /// Writes it into an event of zeros.
    pub(crate) fn write(&self, event: &mut Event) {
        (event.ip_version, event.local) = octets(self.local);
        (_, event.remote) = octets(self.remote);
        event.direction = match self.direction {
            Direction::Outbound => event::direction::OUTBOUND,
            Direction::Inbound => event::direction::INBOUND,
            Direction::Forward => event::direction::FORWARD,
            Direction::Listen => event::direction::LISTEN,
            Direction::Bind => event::direction::BIND,
        };
        event.protocol = self.protocol;
        (event.local_port, event.remote_port) = (self.local_port, self.remote_port);
    }
}

/// A policy's decision on a conversation, or on what a program asks for, of this owner.
pub(crate) fn decide<'a>(policy: &Policy, owner: &'a Owner<'a>, mut flow: PolicyFlow<'a>) -> Decision {
    flow.application = owner.application.map(AppId);
    flow.others = owner.whose.is_known().then_some(&owner.whose as &dyn Identities);
    flow.interface = owner.interface;
    let decision = policy.image.decide(&flow);
    if decision.over_budget {
        SLUICE.counters.count(Counter::DecisionsOverBudget);
    }
    decision
}

/// Whose conversation it is and where it leaves the machine, as far as the layer reports it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// The application's path as ALE_APP_ID gives it.
    pub(crate) application: Option<&'a [u8]>,
    /// Its owner.
    pub(crate) whose: Whose<'a>,
    /// The local interface's LUID.
    pub(crate) interface: Option<u64>,
}

impl<'a> Owner<'a> {
    pub(crate) fn read<F>(request: &Call<'a, F>, fields: &Fields) -> Self {
        Self {
            application: request.blob(fields.application),
            whose: Whose::Told { token: request.token(fields.user), package: request.sid(fields.package) },
            interface: request.u64(fields.interface),
        }
    }
}

/// The IP version, and the address in network order, IPv4 in the first four bytes.
fn octets(address: IpAddr) -> (u8, [u8; 16]) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        IpAddr::V6(address) => (6, address.octets()),
    }
}

/// What is kept for an established flow: the context that WFP passes along with its packets. What a packet of a
/// permitted flow touches comes first, so that it is in one cache line.
#[repr(C)]
pub(crate) struct FlowState {
    traffic: Traffic,
    /// The generation it was decided under, and in the lowest bits how it stands under that policy.
    standing: AtomicU32,
    /// The second of [`crate::clock`] in which its last packet came.
    last: AtomicU32,
    moved: Moved,
    key: KeptKey,
    /// The second in which it was established.
    first: u32,
    /// Its owner and interface.
    identity: Shared<Identity>,
    /// The search for its name, and what that found. What was never looked for can no more be found: a flow's beginning
    /// is seen once.
    content: Stage<Progress, Vec<u8>>,
}

/// Read and written for every packet: in one cache line wherever the pool puts the context, since its blocks begin at a
/// multiple of 16.
const _: () = assert!(core::mem::offset_of!(FlowState, standing) == 16 && core::mem::offset_of!(FlowState, last) == 20);

/// A flow takes 128 bytes of pool: these, what [`kernel::wfp::Flow`] keeps, and the pool's own 16. Beside them are, while
/// its content is looked at, its progress, and afterwards the name that was found.
const _: () = assert!(size_of::<kernel::wfp::Flow<FlowState>>() <= 112);

impl InSet for FlowState {
    fn set() -> &'static FlowSet<Self> {
        &SLUICE.flows
    }
}

/// How the policy treats the packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The policy in force permits the flow.
    Permitted,
    /// It does not.
    Revoked,
    /// It decides by the name that the flow's content asks for. Without a name it would come to this.
    Awaited(Verdict),
}

impl Standing {
    /// What a decision makes of the packets of a flow.
    pub(crate) const fn of(decision: &Decision) -> Self {
        match (decision.needs_name, decision.verdict) {
            (true, verdict) => Self::Awaited(verdict),
            (false, Verdict::Permit) => Self::Permitted,
            (false, Verdict::Block) => Self::Revoked,
        }
    }
}

impl FlowState {
    /// A flow whose connection was permitted. It counts as decided under no policy, so its first packet is decided
    /// under the one in force: a swap between connection and establishment is not missed. `looked_at`: its content will
    /// be looked at from its first byte on. `answered`: its connection was permitted by whoever was asked about it.
    pub(crate) fn new(key: &FlowKey, identity: Shared<Identity>, looked_at: bool, answered: bool) -> Self {
        SLUICE.counters.count(Counter::FlowsOpened);
        let standing = AtomicU32::new(pack(0, Standing::Permitted));
        let content = if looked_at { Stage::begun() } else { Stage::idle() };
        let first = SLUICE.policy.second();
        let (traffic, moved, last) = (Traffic::new(), Moved::new(), AtomicU32::new(first));
        Self { traffic, standing, last, moved, key: KeptKey::of(key, answered), first, identity, content }
    }

    pub(crate) fn key(&self) -> FlowKey {
        self.key.get()
    }

    pub(crate) fn owner(&self) -> Owner<'_> {
        self.identity.owner()
    }

    /// Whether its connection was permitted by whoever was asked about it.
    pub(crate) const fn is_answered(&self) -> bool {
        self.key.flags & KeptKey::ANSWERED != 0
    }

    /// 0 when not known.
    pub(crate) fn process_id(&self) -> u32 {
        self.identity.process_id
    }

    /// Counts what a packet carries, and notes when it came: a write once in a second, of the line that was read.
    #[inline(always)]
    pub(crate) fn count(&self, way: Way, totals: PacketTotals) {
        self.traffic.add(&self.moved, way, totals);
        let now = SLUICE.policy.second();
        if self.last.load(Ordering::Relaxed) != now {
            self.last.store(now, Ordering::Relaxed);
        }
    }

    /// How much it has carried.
    pub(crate) fn carried(&self, way: Way) -> PacketTotals {
        self.traffic.total(&self.moved, way)
    }

    /// The seconds in which it was established and in which its last packet came.
    pub(crate) fn lived(&self) -> (u32, u32) {
        (self.first, self.last.load(Ordering::Relaxed))
    }

    /// What is known of the name that its content asks for.
    pub(crate) fn name(&self) -> Name<'_> {
        match self.content.known() {
            Known::NotYet => Name::Unknown,
            Known::Nothing => Name::Undecidable,
            Known::Result(name) => Name::Known(name),
        }
    }

    /// The search for its name.
    pub(crate) const fn content(&self) -> &Stage<Progress, Vec<u8>> {
        &self.content
    }

    /// Ends the search for its name, and keeps what was found. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn set_name(&self, name: Name<'_>) {
        let kept = match name {
            Name::Known(name) => try_copy(name).and_then(try_box).ok(),
            Name::Unknown | Name::Undecidable => None,
        };
        if kept.is_none() && matches!(name, Name::Known(_)) {
            SLUICE.counters.count(Counter::NamesForgotten);
        }
        self.content.end(kept);
    }

    /// How the flow stands, if it was decided under the policy in force. Any IRQL.
    pub(crate) fn known_standing(&self) -> Option<Standing> {
        let known = self.standing.load(Ordering::Relaxed);
        (known >> 2 == SLUICE.policy.epoch()).then(|| unpack_standing(known))
    }

    /// How the flow stood when it was last decided, and a token for [`FlowState::replace_standing`]. Any IRQL.
    pub(crate) fn last_standing(&self) -> (Standing, u32) {
        let known = self.standing.load(Ordering::Relaxed);
        (unpack_standing(known), known)
    }

    /// Sets how it stands under the policy of generation `epoch`, unless somebody else has decided since `before`. Returns
    /// how it stands now, and whether that is this call's doing. Any IRQL.
    pub(crate) fn replace_standing(&self, before: u32, epoch: u32, standing: Standing) -> (Standing, bool) {
        let new = pack(epoch, standing);
        match self.standing.compare_exchange(before, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => (standing, true),
            Err(now) => (unpack_standing(now), false),
        }
    }

    /// Sets how it stands under the policy of generation `epoch`; returns how it stood before. Any IRQL.
    pub(crate) fn set_standing(&self, epoch: u32, standing: Standing) -> Standing {
        unpack_standing(self.standing.swap(pack(epoch, standing), Ordering::Relaxed))
    }
}

impl Drop for FlowState {
    fn drop(&mut self) {
        SLUICE.counters.add_traffic(self);
        SLUICE.counters.count(Counter::FlowsClosed);
    }
}

/// `epoch` is at most [`crate::policy::MAX_EPOCH`], 30 bits.
const fn pack(epoch: u32, standing: Standing) -> u32 {
    let standing = match standing {
        Standing::Permitted => 0,
        Standing::Revoked => 1,
        Standing::Awaited(Verdict::Permit) => 2,
        Standing::Awaited(Verdict::Block) => 3,
    };
    epoch << 2 | standing
}

const fn unpack_standing(packed: u32) -> Standing {
    match packed & 3 {
        0 => Standing::Permitted,
        1 => Standing::Revoked,
        2 => Standing::Awaited(Verdict::Permit),
        _ => Standing::Awaited(Verdict::Block),
    }
}

/// A [`FlowKey`] in 36 bytes instead of 42.
struct KeptKey {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: u16,
    remote_port: u16,
    protocol: u8,
    /// [`Self::IPV4`], [`Self::INBOUND`], [`Self::LOOPBACK`], [`Self::ANSWERED`].
    flags: u8,
}

impl KeptKey {
    const IPV4: u8 = 1;
    const INBOUND: u8 = 2;
    const LOOPBACK: u8 = 4;
    const ANSWERED: u8 = 8;

    /// The key of an established flow, which is not [`Direction::Forward`].
    fn of(key: &FlowKey, answered: bool) -> Self {
        let FlowKey { direction, protocol, local, local_port, remote, remote_port, loopback } = *key;
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(local.is_ipv4(), Self::IPV4)
            | flag(direction == Direction::Inbound, Self::INBOUND)
            | flag(loopback, Self::LOOPBACK)
            | flag(answered, Self::ANSWERED);
        Self { local: octets(local).1, remote: octets(remote).1, local_port, remote_port, protocol, flags }
    }

    fn get(&self) -> FlowKey {
        let is = |flag| self.flags & flag != 0;
        let address = |octets: [u8; 16]| match octets {
            [a, b, c, d, ..] if is(Self::IPV4) => IpAddr::from([a, b, c, d]),
            octets => IpAddr::from(octets),
        };
        FlowKey {
            direction: if is(Self::INBOUND) { Direction::Inbound } else { Direction::Outbound },
            protocol: self.protocol,
            local: address(self.local),
            local_port: self.local_port,
            remote: address(self.remote),
            remote_port: self.remote_port,
            loopback: is(Self::LOOPBACK),
        }
    }
}
