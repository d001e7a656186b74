//! Sockets that wait for the other side: what bind() and listen() ask.
//!
//! | event | layers |
//! |---|---|
//! | bind() | ALE_BIND_REDIRECT (TCP and UDP), ALE_RESOURCE_ASSIGNMENT |
//! | listen() of TCP | ALE_AUTH_LISTEN |
//! | the socket is closed | ALE_RESOURCE_RELEASE |
//!
//! "ALE Layers" (win32 desktop-src/FWP/ale-layers.md). A callout that pends a decision here is taken for one that blocks:
//! it can pend what packets begin, and nothing here comes with a packet.

use super::{By, Context, Stack};
use crate::classifier::{Classifier, Data, Indication, Outcome, condition_flag};
use crate::flow::{FlowKey, Owner};
use crate::layer::{Direction, Layer};
use crate::packet::protocol;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a program asks for with bind().
#[derive(Clone, Debug)]
pub struct Request {
    /// The protocol.
    pub protocol: u8,
    /// The address, which may be the unspecified one for all, and the port.
    pub local: SocketAddr,
    /// The program.
    pub owner: Option<Arc<Owner>>,
    /// Of which kind it is.
    pub kind: RequestKind,
}

/// Whether a socket waits for a packet that begins a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// One does.
    Yes,
    /// There is none: the packet is discarded, and the host's own stack answers it.
    Nobody,
    /// The one that there is was refused: the packet is discarded, and must not reach the host's own stack.
    Refused,
}

/// The kinds of [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// The program names the port.
    Port,
    /// It names none: `local` has the one that the system chose (FWP_CONDITION_FLAG_IS_WILDCARD_BIND).
    ChosenPort,
    /// A raw socket (FWP_CONDITION_FLAG_IS_RAW_ENDPOINT).
    Raw,
    /// A raw socket that asks for every packet, by an IOCTL like SIO_RCVALL (ALE_PROMISCUOUS_MODE).
    Promiscuous(u32),
}

/// A socket that waits.
#[derive(Debug)]
struct Socket {
    request: Request,
    key: FlowKey,
    endpoint: u64,
}

/// The sockets of a machine that wait.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: BTreeMap<u64, Socket>,
    /// Those that were noticed by their packets, by protocol and local end; with `None` where it was refused.
    noticed: BTreeMap<(u8, SocketAddr), Option<u64>>,
}

impl<F> Stack<F> {
    /// Binds a socket. Returns its number.
    ///
    /// # Errors
    /// The layer and the filter that refuse it: bind() fails with WSAEACCES.
    pub fn bind<C: Classifier<Flow = F>>(&mut self, classifier: &mut C, mut request: Request) -> Result<u64, By> {
        self.ledger.next_endpoint += 1;
        let endpoint = self.ledger.next_endpoint;
        let mut key = FlowKey::of_socket(request.protocol, request.local);
        if matches!(request.protocol, protocol::TCP | protocol::UDP) {
            let outcome = ask(classifier, Layer::AleBindRedirect, &key, &request, endpoint);
            refused(Layer::AleBindRedirect, outcome)?;
            if let Some(redirect) = outcome.redirect {
                request.local = redirect.local;
                key = FlowKey::of_socket(request.protocol, request.local);
            }
        }
        refused(Layer::AleResourceAssignment, ask(classifier, Layer::AleResourceAssignment, &key, &request, endpoint))?;
        self.sockets.open.insert(endpoint, Socket { request, key, endpoint });
        Ok(endpoint)
    }

    /// Has a bound socket of TCP listen.
    ///
    /// # Errors
    /// The layer and the filter that refuse it: listen() fails. The socket stays bound.
    pub fn listen<C: Classifier<Flow = F>>(&mut self, classifier: &mut C, socket: u64) -> Result<(), By> {
        let Some(socket) = self.sockets.open.get(&socket) else { return Ok(()) };
        let outcome = ask(classifier, Layer::AleAuthListen, &socket.key, &socket.request, socket.endpoint);
        refused(Layer::AleAuthListen, outcome)
    }

    /// Closes a socket that was bound.
    pub fn close_socket<C: Classifier<Flow = F>>(&mut self, classifier: &mut C, socket: u64) {
        if let Some(socket) = self.sockets.open.remove(&socket) {
            ask(classifier, Layer::AleResourceRelease, &socket.key, &socket.request, socket.endpoint);
        }
    }

    /// Whether the socket that waits for this packet, which begins a flow, may have it. A socket that is seen for the
    /// first time is bound and listens now: of programs that run elsewhere nothing was seen before. One that is refused
    /// is as if it were not there.
    pub(super) fn waits<C: Classifier<Flow = F>>(&mut self, context: &mut Context<'_, C>) -> Waits {
        if !context.endpoints.is_open(&context.key) {
            return Waits::Nobody;
        }
        let protocol = context.packet.protocol;
        if protocol == protocol::UDP && self.ledger.is_bound(&context.key) {
            return Waits::Yes; // the socket has sent before, and was bound then
        }
        let Some(local) = context.endpoints.waiting(&context.key) else { return Waits::Yes };
        let said = |granted| if granted { Waits::Yes } else { Waits::Refused };
        if let Some(known) = self.sockets.noticed.get(&(protocol, local)) {
            return said(known.is_some());
        }
        let owner = context.endpoints.owner(&context.key);
        let request = Request { protocol, local, owner, kind: RequestKind::Port };
        let bound = self.bind(context.classifier, request).and_then(|socket| {
            let listens = if protocol == protocol::TCP { self.listen(context.classifier, socket) } else { Ok(()) };
            listens.map(|()| socket).inspect_err(|_| self.close_socket(context.classifier, socket))
        });
        self.sockets.noticed.insert((protocol, local), bound.ok());
        said(bound.is_ok())
    }

    /// Closes the sockets that were noticed and are not there any more.
    pub(super) fn close_gone<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        mut is_there: impl FnMut(u8, SocketAddr) -> bool,
    ) {
        let mut gone = Vec::new();
        self.sockets.noticed.retain(|(protocol, local), socket| {
            let stays = is_there(*protocol, *local);
            gone.extend(socket.filter(|_| !stays));
            stays
        });
        for socket in gone {
            self.close_socket(classifier, socket);
        }
    }

    /// Closes the sockets that are bound to this address alone.
    pub(super) fn close_bound_to<C: Classifier<Flow = F>>(&mut self, classifier: &mut C, address: IpAddr) {
        self.sockets.noticed.retain(|(_, local), _| local.ip() != address);
        let bound = self.sockets.open.iter().filter(|(_, socket)| socket.key.local() == address);
        for socket in bound.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.close_socket(classifier, socket);
        }
    }

    /// Closes every socket: the machine goes off the network.
    pub(super) fn close_sockets<C: Classifier<Flow = F>>(&mut self, classifier: &mut C) {
        self.sockets.noticed.clear();
        while let Some(socket) = self.sockets.open.keys().next().copied() {
            self.close_socket(classifier, socket);
        }
    }
}

fn ask<C: Classifier>(classifier: &mut C, layer: Layer, key: &FlowKey, request: &Request, endpoint: u64) -> Outcome {
    if !classifier.wants(layer, key.version()) {
        return Outcome::default();
    }
    // Only at the layer of bind() do these say what is asked for.
    let (flags, promiscuous) = match request.kind {
        _ if layer != Layer::AleResourceAssignment => (0, 0),
        RequestKind::Port => (0, 0),
        RequestKind::ChosenPort => (condition_flag::IS_WILDCARD_BIND, 0),
        RequestKind::Raw => (condition_flag::IS_RAW_ENDPOINT, 0),
        RequestKind::Promiscuous(mode) => (condition_flag::IS_RAW_ENDPOINT, mode),
    };
    classifier.classify(Indication {
        layer,
        key,
        direction: Direction::Inbound,
        flow_direction: Direction::Inbound,
        packet: None,
        flags,
        reason: 0,
        flow: None,
        owner: request.owner.as_deref(),
        endpoint,
        injected_by: 0,
        promiscuous,
        data: Data::None,
    })
}

fn refused(layer: Layer, outcome: Outcome) -> Result<(), By> {
    if outcome.blocked { Err(By { layer, filter_id: outcome.filter_id }) } else { Ok(()) }
}
