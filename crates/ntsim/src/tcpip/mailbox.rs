//! Requests of drivers to the network stack, until the carrier of the machine's packets serves them.
//!
//! A driver injects from any thread and from inside classify calls, where nothing can be classified; so requests are
//! queued until the [`super::carrier::Carrier`] serves them.

use super::requests;
use crate::fwpkclnt::inject::{Injection, InjectionPath};
use crate::fwpkclnt::pend::Decision;
use crate::fwpkclnt::stack::{NOT_READY, Stack};
use filter_engine::layers::LayerId;
use nt_abi::NetBufferList;
use nt_abi::NtStatus;
use nt_abi::fwp::RedirectRequest;
use nt_abi::fwp::consts;
use parking_lot::Mutex;
use shim::classifier::{Injected, stream_flag};
use shim::layer::Direction;
use shim::stack::Settled;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// A request of a driver to the stack.
#[derive(Debug)]
pub(super) enum Request {
    /// Carry a packet.
    Inject(Box<Injection>),
    /// Resume a pended operation of an endpoint.
    CompleteOperation(u64),
    /// Resume a request of an endpoint that was pended at a redirect layer; without a decision the layer is called
    /// again.
    CompleteClassify(u64, Option<Settled>),
    /// Resume a flow's inbound stream, which a callout had deferred.
    ContinueStream {
        /// The flow's number.
        flow: u64,
        /// The callout.
        callout_id: u32,
    },
}

/// The queue of requests.
pub(super) struct Mailbox {
    line: Mutex<Line>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Debug)]
struct Line {
    /// A carrier takes requests out.
    open: bool,
    requests: VecDeque<Request>,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Mailbox {
    /// An empty queue. `wake` is called, from any thread and at any IRQL, when a request is put in.
    pub(super) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { line: Mutex::new(Line { open: true, requests: VecDeque::new() }), wake })
    }

    /// The oldest request.
    pub(super) fn take(&self) -> Option<Request> {
        self.line.lock().requests.pop_front()
    }

    /// The data that was put into one direction of a flow's stream, oldest first.
    #[expect(clippy::vec_box, reason = "boxed on arrival, and completed as a box")]
    pub(super) fn take_stream(&self, flow: u64, direction: Direction) -> Vec<Box<Injection>> {
        let mut line = self.line.lock();
        if line.requests.is_empty() {
            return Vec::new();
        }
        let is = |request: &Request| match request {
            Request::Inject(injection) => stream_of(injection) == Some((flow, direction)),
            _ => false,
        };
        let (taken, left): (VecDeque<_>, VecDeque<_>) = line.requests.drain(..).partition(is);
        line.requests = left;
        taken
            .into_iter()
            .filter_map(|request| match request {
                Request::Inject(injection) => Some(injection),
                _ => None,
            })
            .collect()
    }

    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.line.lock().requests.is_empty()
    }

    /// Takes no more requests.
    pub(super) fn close(&self) {
        self.line.lock().open = false;
    }

    /// Puts a request in, or returns it when the mailbox is closed.
    fn put(&self, request: Request) -> Result<(), Request> {
        let mut line = self.line.lock();
        if !line.open {
            return Err(request);
        }
        line.requests.push_back(request);
        drop(line);
        (self.wake)();
        Ok(())
    }
}

/// The flow and direction into which an injection puts data, if it is one into a stream.
pub(super) fn stream_of(injection: &Injection) -> Option<(u64, Direction)> {
    match injection.path {
        InjectionPath::Stream { flow, flags, .. } if flags & stream_flag::RECEIVE != 0 => {
            Some((flow, Direction::Inbound))
        }
        InjectionPath::Stream { flow, .. } => Some((flow, Direction::Outbound)),
        _ => None,
    }
}

/// What an injection puts into a stream, if it is one.
pub(super) fn stream_data(injection: &Injection) -> Option<Injected> {
    let InjectionPath::Stream { callout_id, flags, length, .. } = injection.path else { return None };
    let mut data = injection.packets().concat();
    data.truncate(length);
    let end = flags & (stream_flag::RECEIVE_DISCONNECT | stream_flag::SEND_DISCONNECT) != 0;
    Some(Injected { callout_id, data, end })
}

/// The filter engine's end of the mailbox.
#[derive(Debug)]
pub(super) struct Slot(pub(super) Arc<Mailbox>);

impl Stack for Slot {
    fn inject(&self, injection: Box<Injection>) -> Result<(), (NtStatus, Box<Injection>)> {
        match self.0.put(Request::Inject(injection)) {
            Ok(()) => Ok(()),
            Err(Request::Inject(injection)) => Err((NOT_READY, injection)),
            Err(other) => unreachable!("{other:?} is not what was put in"),
        }
    }

    fn complete_classify(&self, token: u64, decision: Option<Decision>, redirect: Option<Box<RedirectRequest>>) {
        let settled = decision.map(|decision| Settled {
            blocked: decision.action == consts::FWP_ACTION_BLOCK,
            redirect: redirect.as_deref().and_then(requests::read),
        });
        if self.0.put(Request::CompleteClassify(token, settled)).is_err() {
            tracing::debug!(token, "a request was completed after the machine left the network");
        }
    }

    fn stream_continue(&self, flow: u64, callout_id: u32, _layer: LayerId, _flags: u32) -> NtStatus {
        match self.0.put(Request::ContinueStream { flow, callout_id }) {
            Ok(()) => NtStatus::SUCCESS,
            Err(_) => NOT_READY,
        }
    }

    /// The packet is not used: the one that waited is kept here, or the driver injects it.
    fn complete_operation(&self, token: u64, _packet: *mut NetBufferList) {
        if self.0.put(Request::CompleteOperation(token)).is_err() {
            tracing::debug!(token, "an operation was completed after the machine left the network");
        }
    }
}
