//! The Windows Filtering Platform: callouts, what a classify carries and how it is answered, flow contexts.

mod answer;
mod bytes;
mod callout;
mod classify;
mod engine;
pub mod fields;
mod flow;
mod packet;
mod pend;
mod reauthorize;
mod stream;
mod token;
mod traffic;

pub use answer::{Answer, Outcome};
pub use callout::{Callout, CalloutEntry, CalloutId, Callouts};
pub use classify::{Call, Classify};
pub use engine::EngineWatch;
pub use flow::{Flow, FlowRef, FlowSet, InSet, abort};
pub use packet::{Packet, PacketList, PacketTotals};
pub use pend::Pended;
pub use reauthorize::reauthorize;
pub use stream::{Stream, StreamDirection};
pub use token::Token;
pub use traffic::{Moved, Traffic, Way};

/// A GUID from its 128 bits read in order.
pub(crate) const fn guid(bits: u128) -> wdk_sys::GUID {
    let bytes = (bits as u64).to_be_bytes();
    wdk_sys::GUID { Data1: (bits >> 96) as u32, Data2: (bits >> 80) as u16, Data3: (bits >> 64) as u16, Data4: bytes }
}

/// IANA protocol numbers, the values of an IP_PROTOCOL field (IPPROTO, ws2def.h).
pub mod protocol {
    use wfp_sys::IPPROTO;

    /// IPPROTO_TCP.
    pub const TCP: u8 = IPPROTO::IPPROTO_TCP as u8;
    /// IPPROTO_UDP.
    pub const UDP: u8 = IPPROTO::IPPROTO_UDP as u8;
}

/// FWP_DIRECTION_INBOUND of fwptypes.h, the value of a DIRECTION field.
pub const DIRECTION_INBOUND: u32 = 1;

/// Bits of the FLAGS field of a classify (FWP_CONDITION_FLAG_*, fwptypes.h).
pub mod condition_flag {
    pub use wfp_sys::{
        FWP_CONDITION_FLAG_IS_LOOPBACK as IS_LOOPBACK, FWP_CONDITION_FLAG_IS_RAW_ENDPOINT as IS_RAW_ENDPOINT,
        FWP_CONDITION_FLAG_IS_REAUTHORIZE as IS_REAUTHORIZE, FWP_CONDITION_FLAG_IS_WILDCARD_BIND as IS_WILDCARD_BIND,
    };
}

/// Flags of a callout (FWP_CALLOUT_FLAG_*, fwpsk.h).
pub mod callout_flag {
    pub use wfp_sys::{
        FWP_CALLOUT_FLAG_ALLOW_OFFLOAD as ALLOW_OFFLOAD, FWP_CALLOUT_FLAG_ALLOW_RSC as ALLOW_RSC,
        FWP_CALLOUT_FLAG_ALLOW_USO as ALLOW_USO, FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW as CONDITIONAL_ON_FLOW,
    };

    /// FWP_CALLOUT_FLAG_ALLOW_URO, by its number: the headers of older kits do not have it.
    pub const ALLOW_URO: u32 = 0x200;
}
