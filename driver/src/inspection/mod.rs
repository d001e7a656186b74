//! Looking at what flows carry, for the name that it asks for, and at answers for the names that addresses have.
//!
//! [`sluice_content`] reads; here is what is kept of it between two calls for a flow ([`Progress`]), within a bound for
//! all of them together. Without room for it a stream's bytes, which are kept back anyway, are read again from the first
//! one on; QUIC is not looked at.

pub(crate) mod datagram;
pub(crate) mod dns;
pub(crate) mod stream;

use core::sync::atomic::{AtomicUsize, Ordering};

use kernel::wfp::protocol;
use sluice_policy::Direction;

use crate::{SLUICE, flow::FlowKey};

/// Whether a flow's content can be looked at.
pub(crate) const fn is_possible(key: &FlowKey) -> bool {
    matches!(key.protocol, protocol::TCP | protocol::UDP)
}

/// The port of DNS servers. Its flows carry many questions: each is decided by itself, and answers teach names.
const DNS: u16 = 53;

/// Whether a flow carries questions of DNS.
pub(crate) fn is_dns(key: &FlowKey) -> bool {
    let server = if key.direction == Direction::Outbound { key.remote_port } else { key.local_port };
    key.protocol == protocol::UDP && server == DNS
}

/// What is kept of a flow while its name is not known.
pub(crate) struct Progress {
    what: What,
    _room: Room,
}

enum What {
    Stream(stream::Reading),
    Quic(datagram::Connection),
    Dns(dns::Questions),
    DnsStream(dns::Dialogue),
}

/// How many bytes all of them take.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the room for all flows' progress, given back when dropped.
struct Room(usize);

impl Room {
    /// So many bytes, unless they are more than what is left. Any IRQL.
    fn take(bytes: usize) -> Option<Self> {
        let room = Self(bytes); // given back if it was too much
        let taken = TAKEN.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        (taken <= SLUICE.limits.progress_bytes()).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}
