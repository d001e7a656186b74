//! Decisions about packets, who made them, and the packets that they produce.

use crate::classifier::Outcome;
use crate::flow::Owner;
use crate::layer::{Direction, Layer};
use crate::packet::Malformed;
use nt_abi::PacketBuffer;
use std::sync::Arc;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It travels on, after any fragments in [`Output::earlier`].
    Forward,
    /// It disappears.
    Drop,
    /// It disappears, and its local sender gets an answer at once: [`Output::to_local`].
    Refuse,
    /// It disappears and both ends of its connection are reset: [`Output::to_local`], [`Output::to_remote`].
    Abort,
    /// It is a fragment and waits for the others, or a callout has pended its decision.
    Hold,
    /// It ends here; what callouts leave of its bytes goes on in segments of the stack ([`Output::relayed`]).
    Relayed,
    /// It is malformed and disappears.
    Malformed(Malformed),
}

/// The layer and filter that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// The layer.
    pub layer: Layer,
    /// The filter; 0 when no filter decided.
    pub filter_id: u64,
}

/// A verdict and its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Who decided: for a packet that does not travel on, what stopped it; for the first packet of a flow, what
    /// authorized the flow.
    pub by: Option<By>,
    /// The packet opened a flow.
    pub opened: bool,
}

impl Decision {
    pub(super) const FORWARD: Self = Self { verdict: Verdict::Forward, by: None, opened: false };

    pub(super) const fn stopped(verdict: Verdict, layer: Layer, outcome: Outcome) -> Self {
        Self { verdict, by: Some(By { layer, filter_id: outcome.filter_id }), opened: false }
    }
}

/// Packets that a decision produces. The buffers are reused for the next packet.
#[derive(Debug, Default)]
pub struct Output {
    /// A packet for this machine; empty when there is none.
    pub to_local: Vec<u8>,
    /// A packet for the other side; empty when there is none.
    pub to_remote: Vec<u8>,
    /// Fragments that waited, to be sent before the packet.
    pub earlier: Vec<PacketBuffer>,
    /// Segments of relayed connections, with their directions.
    pub relayed: Vec<(Direction, PacketBuffer)>,
    /// The process that asked for the flow which the packet opens or was refused.
    pub owner: Option<Arc<Owner>>,
}

impl Output {
    pub(super) fn clear(&mut self) {
        self.to_local.clear();
        self.to_remote.clear();
        self.earlier.clear();
        self.relayed.clear();
        self.owner = None;
    }
}
