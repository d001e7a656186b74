//! The network stack under the filter engine, as far as drivers act on it through fwpkclnt.sys.
//!
//! Whoever carries the packets of a machine implements [`Stack`] and registers it with
//! [`super::Platform::set_stack`]. A machine without one answers as Windows does before TCP/IP is up.

use super::inject::Injection;
use super::pend::Decision;
use filter_engine::error::FWP_TCPIP_NOT_READY;
use filter_engine::layers::LayerId;
use nt_abi::NetBufferList;
use nt_abi::NtStatus;
use nt_abi::fwp::RedirectRequest;
use std::fmt;

/// The status of a request to a machine without a stack: `STATUS_FWP_TCPIP_NOT_READY`.
pub const NOT_READY: NtStatus = FWP_TCPIP_NOT_READY;

/// The network stack of a machine. Its methods are called on a simulated processor, at DISPATCH_LEVEL or below, and
/// must not call back into the driver before they return, except through [`Injection::complete`].
pub trait Stack: Send + Sync {
    /// A driver injects a packet or stream data. The stack owns the injection and completes it once, now or later.
    ///
    /// # Errors
    /// The status for the driver, and the injection, which it keeps; the completion function is not called.
    fn inject(&self, injection: Box<Injection>) -> Result<(), (NtStatus, Box<Injection>)> {
        Err((FWP_TCPIP_NOT_READY, injection))
    }

    /// FwpsCompleteOperation0: authorize the operation that was offered as `token` and pended again. `packet` is the
    /// list that a driver may pass, and keeps.
    fn complete_operation(&self, token: u64, packet: *mut NetBufferList) {
        let _ = (token, packet);
    }

    /// FwpsCompleteClassify0: the final decision about the pended request `token`; without one, classify it again.
    fn complete_classify(&self, token: u64, decision: Option<Decision>, redirect: Option<Box<RedirectRequest>>) {
        let _ = (token, decision, redirect);
    }

    /// FwpsStreamContinue0: resume a deferred inbound stream.
    fn stream_continue(&self, flow: u64, callout_id: u32, layer: LayerId, flags: u32) -> NtStatus {
        let _ = (flow, callout_id, layer, flags);
        FWP_TCPIP_NOT_READY
    }
}

impl fmt::Debug for dyn Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stack")
    }
}

/// No stack: nothing can be injected.
#[derive(Debug)]
pub(super) struct NoStack;

impl Stack for NoStack {}
