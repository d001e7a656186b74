//! What the flows of a stack share: deadlines, ports in use, endpoint numbers; and how flows begin and end.

use super::{Context, Flow, Flows, Head, Kind};
use crate::classifier::{Classifier, Data, Indication};
use crate::flow::FlowKey;
use crate::layer::{Direction, Layer};
use crate::tcp::Connection;
use foldhash::HashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::Entry;
use std::time::Duration;

/// A local port in use: protocol, address and port (of ICMP: the identifier's flow).
type Bind = (u8, std::net::IpAddr, u16);

/// What the flows of a stack share.
#[derive(Debug)]
pub(super) struct Ledger {
    /// When to check whether a flow is still in use. An entry whose time is not the flow's is void.
    pub(super) deadlines: BinaryHeap<Reverse<(Duration, FlowKey)>>,
    /// How many flows use a local port.
    pub(super) binds: HashMap<Bind, u32>,
    pub(super) next_endpoint: u64,
}

impl Ledger {
    /// A flow that `context`'s packet opens.
    pub(super) fn flow<C: Classifier>(
        &mut self,
        context: &mut Context<'_, C>,
        direction: Direction,
        kind: Kind,
    ) -> Flow<C::Flow> {
        self.next_endpoint += 1;
        let mut head = Head {
            direction,
            owner: context.endpoints.owner(&context.key),
            handle: None,
            endpoint: self.next_endpoint,
            generation: 0,
        };
        head.generation = context.classifier.generation(head.authority(), context.key.version());
        Flow { head, kind, relay: None, bound: false, last: context.now, deadline: Duration::ZERO }
    }

    /// Adds a flow.
    pub(super) fn insert<'a, F>(
        &mut self,
        flows: &'a mut Flows<F>,
        key: FlowKey,
        mut flow: Flow<F>,
    ) -> &'a mut Flow<F> {
        self.schedule(key, &mut flow);
        match flows.entry(key) {
            Entry::Occupied(mut old) => {
                old.insert(flow);
                old.into_mut()
            }
            Entry::Vacant(place) => place.insert(flow),
        }
    }

    pub(super) fn schedule<F>(&mut self, key: FlowKey, flow: &mut Flow<F>) {
        flow.deadline = flow.last + flow.timeout();
        self.deadlines.push(Reverse((flow.deadline, key)));
    }

    /// Counts a local port as used; `true` when this is its first use.
    pub(super) fn bind(&mut self, key: &FlowKey) -> bool {
        let users = self.binds.entry(bind_of(key)).or_insert(0);
        *users += 1;
        *users == 1
    }

    /// Whether a local port is in use.
    pub(super) fn is_bound(&self, key: &FlowKey) -> bool {
        self.binds.contains_key(&bind_of(key))
    }

    /// `true` when that was its last use.
    pub(super) fn unbind(&mut self, key: &FlowKey) -> bool {
        let Entry::Occupied(mut users) = self.binds.entry(bind_of(key)) else { return false };
        *users.get_mut() -= 1;
        let last = *users.get() == 0;
        if last {
            users.remove();
        }
        last
    }

    /// Ends a flow: the engine deletes its contexts, then the endpoint's closure is indicated. A TCP flow may stay in
    /// the table, closed, so that its last segments are recognized.
    pub(super) fn close<C: Classifier>(&mut self, classifier: &mut C, key: &FlowKey, flow: &mut Flow<C::Flow>) {
        if let Some(handle) = flow.head.handle.take() {
            classifier.end_flow(handle);
            if matches!(flow.kind, Kind::Tcp(_)) {
                tell(classifier, Layer::AleEndpointClosure, key, &flow.head);
            }
        }
        if std::mem::take(&mut flow.bound) && self.unbind(key) {
            tell(classifier, Layer::AleResourceRelease, key, &flow.head);
        }
        flow.relay = None;
        if let Kind::Tcp(connection) = &mut flow.kind {
            **connection = Connection::closed();
            self.schedule(*key, flow);
        }
    }
}

fn bind_of(key: &FlowKey) -> Bind {
    (key.protocol, key.local(), key.local_port)
}

/// Indicates an event without a packet to a layer.
fn tell<C: Classifier>(classifier: &mut C, layer: Layer, key: &FlowKey, flow: &Head<C::Flow>) {
    if classifier.wants(layer, key.version()) {
        let view = flow.view();
        classifier.classify(Indication {
            layer,
            key,
            direction: flow.direction,
            flow_direction: flow.direction,
            packet: None,
            flags: 0,
            reason: 0,
            flow: view.handle,
            owner: view.owner,
            endpoint: view.endpoint,
            injected_by: 0,
            promiscuous: 0,
            data: Data::None,
        });
    }
}
