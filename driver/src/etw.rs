//! What Event Tracing for Windows is told, event by event as in [`sluice_protocol::trace`].
//!
//! While no session listens to decisions, a decision costs one load more. A driver that Windows does not register as a
//! provider decides all the same; that is counted.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::{
    etw::{Describe, Event as EventType, Provider, Value},
    status::NtStatus,
    time,
};
use sluice_protocol::{
    Event, PROTOCOL_VERSION, event,
    status::{Counter, PolicyReply, kept},
    trace::{EVENTS, METADATA, PROVIDER_ID, TRAITS, TraceEvent},
};
use zerocopy::{Immutable, IntoBytes};

use crate::SLUICE;

/// 1 s in the clock's 100 ns.
const SECOND: u64 = 10_000_000;

/// The driver as a provider.
struct Sluicegate;

impl Describe for Sluicegate {
    const ID: u128 = PROVIDER_ID;
    const TRAITS: &'static [u8] = TRAITS;
    const EVENTS: &'static [EventType] = &TYPES;
}

static TYPES: [EventType; EVENTS.len()] = {
    let (mut types, mut at) = ([EventType { level: 0, keyword: 0, metadata: &[] }; EVENTS.len()], 0);
    while at < EVENTS.len() {
        types[at] = EventType { level: EVENTS[at].level, keyword: EVENTS[at].keyword, metadata: METADATA[at] };
        at += 1;
    }
    types
};

/// The provider, and what it has not told yet.
pub(crate) struct Trace {
    provider: Provider<Sluicegate>,
    /// Flows that were not tracked since the last event that said so, and when that was.
    untracked: AtomicU64,
    told_untracked: AtomicU64,
}

impl Trace {
    pub(crate) const fn new() -> Self {
        Self { provider: Provider::new(), untracked: AtomicU64::new(0), told_untracked: AtomicU64::new(0) }
    }

    /// Before anything else. PASSIVE_LEVEL.
    pub(crate) fn begin(&'static self) {
        if self.provider.register().is_err() {
            SLUICE.counters.count(Counter::TracingRefused);
        }
    }

    /// The driver has started. PASSIVE_LEVEL.
    pub(crate) fn started(&self) {
        self.write(
            TraceEvent::DriverStarted,
            [
                Value::bytes(PROTOCOL_VERSION.as_bytes()),
                Value::bytes(word_of(SLUICE.kept.outcome())),
                Value::bytes(&SLUICE.policy.epoch().to_le_bytes()),
            ],
        );
    }

    /// The driver cannot start, and nothing runs any more. PASSIVE_LEVEL.
    pub(crate) fn failed(&self, status: NtStatus) {
        self.write(TraceEvent::DriverFailed, [Value::bytes(&status.raw().to_le_bytes())]);
        self.provider.unregister();
    }

    /// Nothing calls the driver any more. PASSIVE_LEVEL.
    pub(crate) fn end(&self) {
        self.write(TraceEvent::DriverStopped, [Value::bytes(&SLUICE.policy.epoch().to_le_bytes())]);
        self.provider.unregister();
    }

    /// IRQL <= DISPATCH_LEVEL.
    pub(crate) fn policy_loaded(&self, epoch: u32, rules: u32, bytes: usize) {
        self.write(
            TraceEvent::PolicyLoaded,
            [
                Value::bytes(&epoch.to_le_bytes()),
                Value::bytes(&rules.to_le_bytes()),
                Value::bytes(&(bytes as u64).to_le_bytes()),
            ],
        );
    }

    /// IRQL <= DISPATCH_LEVEL.
    pub(crate) fn policy_refused(&self, reply: &PolicyReply, bytes: usize) {
        let reason = reply.reason().unwrap_or_default().as_bytes();
        self.write(
            TraceEvent::PolicyRefused,
            [
                Value::bytes(&reply.epoch.to_le_bytes()),
                Value::bytes(&(bytes as u64).to_le_bytes()),
                Value::bytes(&(reason.len() as u16).to_le_bytes()),
                Value::bytes(reason),
            ],
        );
    }

    /// `outcome` is of [`kept`], `status` an NTSTATUS. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn not_restored(&self, outcome: u32, status: u32) {
        self.write(
            TraceEvent::KeptPolicyNotRestored,
            [Value::bytes(word_of(outcome)), Value::bytes(&status.to_le_bytes())],
        );
    }

    /// IRQL <= DISPATCH_LEVEL.
    pub(crate) fn reauthorization_refused(&self, status: NtStatus) {
        self.write(
            TraceEvent::ReauthorizationRefused,
            [Value::bytes(&status.raw().to_le_bytes()), Value::bytes(&SLUICE.policy.epoch().to_le_bytes())],
        );
    }

    /// A flow of this process is not tracked. Who causes that can cause many: they are told once a second. IRQL <=
    /// DISPATCH_LEVEL.
    pub(crate) fn flow_untracked(&self, status: NtStatus, process_id: u32) {
        if !self.provider.wants(TraceEvent::FlowsUntracked as usize) {
            return;
        }
        self.untracked.fetch_add(1, Ordering::Relaxed);
        let (now, last) = (time::system_time(), self.told_untracked.load(Ordering::Relaxed));
        let due = now.abs_diff(last) >= SECOND;
        if due && self.told_untracked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.write(
                TraceEvent::FlowsUntracked,
                [
                    Value::bytes(&status.raw().to_le_bytes()),
                    Value::bytes(&self.untracked.swap(0, Ordering::Relaxed).to_le_bytes()),
                    Value::bytes(&process_id.to_le_bytes()),
                ],
            );
        }
    }

    /// Whether a session listens to decisions. Any IRQL.
    #[inline]
    pub(crate) fn wants_decisions(&self) -> bool {
        self.provider.wants(TraceEvent::Decision as usize)
    }

    /// IRQL <= DISPATCH_LEVEL.
    #[cold]
    #[inline(never)]
    pub(crate) fn decision(&self, decision: &Event) {
        let verdict: &[u8] = if decision.verdict == event::verdict::BLOCK { b"block\0" } else { b"permit\0" };
        let direction: &[u8] = match decision.direction {
            event::direction::INBOUND => b"inbound\0",
            event::direction::FORWARD => b"forward\0",
            event::direction::LISTEN => b"listen\0",
            event::direction::BIND => b"bind\0",
            _ => b"outbound\0",
        };
        let local = SocketAddress::new(decision.ip_version, decision.local, decision.local_port);
        let remote = SocketAddress::new(decision.ip_version, decision.remote, decision.remote_port);
        let (local, remote) = (local.used(), remote.used());
        let (application, name) = (decision.application(), decision.name());
        self.write(
            TraceEvent::Decision,
            [
                Value::bytes(verdict),
                Value::bytes(&decision.rule.to_le_bytes()),
                Value::bytes(&decision.epoch.to_le_bytes()),
                Value::bytes(direction),
                Value::bytes(&[decision.protocol]),
                Value::bytes(&(local.len() as u16).to_le_bytes()),
                Value::bytes(local),
                Value::bytes(&(remote.len() as u16).to_le_bytes()),
                Value::bytes(remote),
                Value::bytes(&decision.process_id.to_le_bytes()),
                Value::bytes(&(application.len() as u16).to_le_bytes()),
                Value::bytes(application),
                Value::bytes(&(name.len() as u16).to_le_bytes()),
                Value::bytes(name),
                Value::bytes(&decision.layer.to_le_bytes()),
                Value::bytes(&decision.filter_id.to_le_bytes()),
                Value::bytes(&decision.flow.to_le_bytes()),
                Value::bytes(&decision.flags.to_le_bytes()),
            ],
        );
    }

    fn write<const N: usize>(&self, event: TraceEvent, values: [Value<'_>; N]) {
        self.provider.write(event as usize, values);
    }
}

/// What became of the kept policy, in one word and a NUL.
fn word_of(outcome: u32) -> &'static [u8] {
    match outcome {
        kept::RESTORED => b"restored\0",
        kept::REFUSED => b"refused\0",
        kept::UNREADABLE => b"unreadable\0",
        kept::LATER => b"later\0",
        _ => b"none\0",
    }
}

/// A `SOCKADDR_IN6`, or at its beginning a `SOCKADDR_IN` (ws2ipdef.h, ws2def.h).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct SocketAddress {
    family: u16,
    /// In network order.
    port: [u8; 2],
    /// The flow label, or the IPv4 address.
    label: [u8; 4],
    address: [u8; 16],
    scope: [u8; 4],
}

impl SocketAddress {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 23;
    /// The size of a `SOCKADDR_IN`.
    const V4_BYTES: usize = 16;

    fn new(ip_version: u8, address: [u8; 16], port: u16) -> Self {
        let (port, scope) = (port.to_be_bytes(), [0; 4]);
        if ip_version == 4 {
            let [a, b, c, d, ..] = address;
            Self { family: Self::AF_INET, port, label: [a, b, c, d], address: [0; 16], scope }
        } else {
            Self { family: Self::AF_INET6, port, label: [0; 4], address, scope }
        }
    }

    fn used(&self) -> &[u8] {
        let bytes = self.as_bytes();
        if self.family == Self::AF_INET { bytes.get(..Self::V4_BYTES).unwrap_or_default() } else { bytes }
    }
}
