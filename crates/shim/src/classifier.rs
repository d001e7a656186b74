//! The shim's view of a filter engine. ntsim's `EngineClassifier` is the real one; tests use a scripted one.

use super::flow::{FlowKey, Owner};
use super::layer::{Direction, IpVersion, Layer};
use super::packet::Packet;
use nt_abi::Irql;
use nt_abi::PacketBuffer;
use std::net::SocketAddr;
use std::ops::Range;

/// `FWP_CONDITION_FLAG_*` (fwptypes.h), as far as the shim sets them.
pub mod condition_flag {
    #![allow(missing_docs, reason = "the names are those of FWP_CONDITION_FLAG_*")]
    pub const IS_LOOPBACK: u32 = 0x1;
    pub const IS_REAUTHORIZE: u32 = 0x4;
    pub const IS_WILDCARD_BIND: u32 = 0x8;
    pub const IS_RAW_ENDPOINT: u32 = 0x10;
    pub const IS_FRAGMENT: u32 = 0x20;
    pub const REQUIRES_ALE_CLASSIFY: u32 = 0x100;
    pub const IS_REASSEMBLED: u32 = 0x400;
    pub const IS_CONNECTION_REDIRECTED: u32 = 0x10_0000;
}

/// `FWP_CONDITION_REAUTHORIZE_REASON_POLICY_CHANGE`.
pub const REASON_POLICY_CHANGE: u32 = 0x1;
/// `FWP_CONDITION_REAUTHORIZE_REASON_CLASSIFY_COMPLETION`: a callout pended the decision, and now it is due.
pub const REASON_COMPLETION: u32 = 0x10;

/// `FWPS_STREAM_FLAG_*` (fwpsk.h), as far as the shim sets them.
pub mod stream_flag {
    #![allow(missing_docs, reason = "the names are those of FWPS_STREAM_FLAG_*")]
    pub const RECEIVE: u32 = 0x1;
    pub const RECEIVE_EXPEDITED: u32 = 0x2;
    pub const RECEIVE_DISCONNECT: u32 = 0x4;
    pub const RECEIVE_ABORT: u32 = 0x8;
    pub const RECEIVE_PUSH: u32 = 0x10;
    pub const SEND: u32 = 0x1_0000;
    pub const SEND_EXPEDITED: u32 = 0x2_0000;
    pub const SEND_DISCONNECT: u32 = 0x8_0000;
    pub const SEND_ABORT: u32 = 0x10_0000;
}

/// One classify call, before it is converted to Windows' structures.
#[derive(Debug)]
pub struct Indication<'a, F> {
    /// The layer.
    pub layer: Layer,
    /// Who talks to whom.
    pub key: &'a FlowKey,
    /// The packet's direction; where there is no packet, the flow's.
    pub direction: Direction,
    /// Who opened the flow.
    pub flow_direction: Direction,
    /// The packet, at layers that show one.
    pub packet: Option<&'a Packet>,
    /// [`condition_flag`]s.
    pub flags: u32,
    /// Why the flow is authorized again (`REASON_*`); 0 when it is not.
    pub reason: u32,
    /// The flow, once established.
    pub flow: Option<&'a F>,
    /// The process on this machine, where it is known.
    pub owner: Option<&'a Owner>,
    /// A number for the local endpoint (`transportEndpointHandle`).
    pub endpoint: u64,
    /// The callout that injected the data of a stream, 0 when none did: only lighter sublayers are evaluated.
    pub injected_by: u32,
    /// ALE_PROMISCUOUS_MODE: the IOCTL by which a program asks for every packet, otherwise 0.
    pub promiscuous: u32,
    /// The packet's bytes.
    pub data: Data<'a>,
}

impl<F> Indication<'_, F> {
    /// IPv4 or IPv6.
    #[must_use]
    pub const fn version(&self) -> IpVersion {
        self.key.version()
    }

    /// The IRQL at which Windows makes this call: binding, listening and connecting happen in the thread of the process that asks,
    /// everything else may happen in packet processing, at DISPATCH_LEVEL (the documentation promises no more than
    /// "IRQL <= DISPATCH_LEVEL" for classifyFn).
    #[must_use]
    pub const fn irql(&self) -> Irql {
        match self.layer {
            Layer::AleAuthConnect if self.flags & condition_flag::IS_REAUTHORIZE == 0 => Irql::PASSIVE,
            Layer::AleResourceAssignment
            | Layer::AleAuthListen
            | Layer::AleConnectRedirect
            | Layer::AleBindRedirect => Irql::PASSIVE,
            _ => Irql::DISPATCH,
        }
    }
}

/// The bytes behind an indication.
#[derive(Debug)]
pub enum Data<'a> {
    /// None (`layerData` is NULL).
    None,
    /// A `NET_BUFFER_LIST` over `buffer` from byte `start`, its data beginning at byte `offset`, up to byte `end`.
    Packet {
        /// The packet.
        buffer: &'a mut PacketBuffer,
        /// The first byte in reach.
        start: usize,
        /// Where the data begins.
        offset: usize,
        /// Where the packet ends, without link-layer padding.
        end: usize,
    },
    /// An `FWPS_STREAM_CALLOUT_IO_PACKET0` over these bytes of a packet.
    Stream {
        /// The packet and the part of it; `None` for a disconnect or an abort, which carry no data.
        data: Option<(&'a mut PacketBuffer, Range<usize>)>,
        /// [`stream_flag`]s.
        flags: u32,
    },
}

/// What a callout at the STREAM layer asked for besides its verdict (`FWPS_STREAM_ACTION_TYPE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamAction {
    /// FWPS_STREAM_ACTION_NONE: the verdict counts.
    #[default]
    None,
    /// FWPS_STREAM_ACTION_NEED_MORE_DATA: call again with at least this many more bytes.
    NeedMoreData(u32),
    /// FWPS_STREAM_ACTION_DROP_CONNECTION.
    DropConnection,
    /// FWPS_STREAM_ACTION_DEFER, by this callout.
    Defer(u32),
}

/// Data that a driver injects into a stream (`FwpsStreamInjectAsync0`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// The injecting callout: only lighter sublayers are evaluated.
    pub callout_id: u32,
    /// The data.
    pub data: Vec<u8>,
    /// The stream ends after it.
    pub end: bool,
}

/// The result of a classify call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Blocked; permitted otherwise, also when no filter decided.
    pub blocked: bool,
    /// Blocked silently (`FWPS_CLASSIFY_OUT_FLAG_ABSORB`).
    pub absorbed: bool,
    /// A callout pended the decision (`FwpsPendOperation0`, `FwpsPendClassify0`), which comes later with the endpoint's
    /// number.
    pub pended: bool,
    /// The filter that decided; 0 when none did.
    pub filter_id: u64,
    /// The stream action.
    pub stream: StreamAction,
    /// How many of the leading bytes of a stream the verdict is about (`countBytesEnforced`); 0 means all of them.
    pub enforced: usize,
    /// The endpoints to which callouts redirect a connection, at the redirect layers.
    pub redirect: Option<Redirect>,
}

/// The endpoints of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The local one.
    pub local: SocketAddr,
    /// The remote one; a bind has none.
    pub remote: Option<SocketAddr>,
}

/// A filter engine.
pub trait Classifier {
    /// The engine's flow.
    type Flow;

    /// Whether this layer has any filter; if not, the shim permits without a call.
    fn wants(&self, layer: Layer, version: IpVersion) -> bool;

    /// Whether any filter at this layer may concern this flow; if not, the shim permits without a call.
    fn concerns(&self, layer: Layer, version: IpVersion, flow: &Self::Flow) -> bool;

    /// Classifies.
    fn classify(&mut self, indication: Indication<'_, Self::Flow>) -> Outcome;

    /// A number that changes whenever a filter is added to this layer or removed from it.
    fn generation(&self, layer: Layer, version: IpVersion) -> u64;

    /// Makes a flow.
    fn create_flow(&mut self) -> Self::Flow;

    /// Ends a flow: contexts that callouts associated with it are deleted (flowDeleteFn).
    fn end_flow(&mut self, flow: Self::Flow);

    /// Whether a callout aborted the flow (`FwpsFlowAbort0`).
    fn is_aborted(&self, flow: &Self::Flow) -> bool;

    /// Whether the packets shown from now on are the stack's own, which no driver injected.
    fn speak_for_itself(&mut self, own: bool);

    /// The number by which drivers know a flow (`flowHandle`).
    fn flow_id(&self, flow: &Self::Flow) -> u64;

    /// Takes what callouts have injected into one direction of a flow's stream since the last call about it.
    fn take_injected(&mut self, flow: &Self::Flow, direction: Direction) -> Vec<Injected>;
}
