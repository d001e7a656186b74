//! Ends flows: idle for too long, their socket closed, or the machine off the network.

use super::{CLOSED_CHECK, Stack};
use crate::classifier::Classifier;
use crate::flow::{Endpoints, FlowKey};
use crate::packet::protocol;
use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

impl<F> Stack<F> {
    /// Ends the flows that have been idle for too long.
    pub fn expire<C: Classifier<Flow = F>>(&mut self, classifier: &mut C, now: Duration) {
        while let Some(&Reverse((deadline, key))) = self.ledger.deadlines.peek() {
            if deadline > now {
                break;
            }
            self.ledger.deadlines.pop();
            let Some(flow) = self.flows.get_mut(&key).filter(|flow| flow.deadline == deadline) else { continue };
            if flow.last + flow.timeout() > now {
                self.ledger.schedule(key, flow);
            } else {
                self.forget(classifier, &key);
            }
        }
        while let Some((key, mut flow)) = self.held.take_forgotten(now) {
            self.ledger.close(classifier, &key, &mut flow);
        }
        if now >= self.next_reassembly_check {
            self.next_reassembly_check = now + Duration::from_secs(1);
            self.reassembly.expire(now);
        }
    }

    /// Ends the flows of closed UDP sockets: "When the local UDP socket is closed, all the ALE flows associated with it
    /// will be deleted" ("ALE Stateful Filtering", win32 desktop-src/FWP/ale-stateful-filtering.md). Checks once per
    /// [`CLOSED_CHECK`], however often it is called.
    pub fn end_closed<C: Classifier<Flow = F>>(
        &mut self,
        classifier: &mut C,
        endpoints: &mut dyn Endpoints,
        now: Duration,
    ) {
        if now < self.next_closed_check {
            return;
        }
        self.next_closed_check = now + CLOSED_CHECK;
        self.close_gone(classifier, |protocol, local| endpoints.is_waiting(protocol, local));
        // A redirected flow's endpoint is not that of the program's socket.
        let asked = |key: &FlowKey| key.protocol == protocol::UDP && !self.redirects.leads_to(key);
        let mut closed: Vec<FlowKey> = self.flows.keys().copied().filter(asked).collect();
        if closed.is_empty() {
            return;
        }
        endpoints.retain_closed(&mut closed);
        closed.sort_unstable();
        for key in closed {
            self.forget(classifier, &key);
        }
    }

    /// One of the machine's addresses goes, with its interface or alone. The stack closes the connections and the flows of
    /// this address, in the order of their keys, and the sockets that are bound to it; nobody answers for it any more. A
    /// socket of every address waits on.
    pub fn lose_address<C: Classifier<Flow = F>>(&mut self, classifier: &mut C, address: IpAddr) {
        let mut flows: Vec<FlowKey> = self.flows.keys().copied().filter(|key| key.local() == address).collect();
        flows.sort_unstable();
        for key in flows {
            self.forget(classifier, &key);
        }
        self.close_bound_to(classifier, address);
    }

    /// Ends a flow and takes it out of the table.
    pub(super) fn forget<C: Classifier<Flow = F>>(&mut self, classifier: &mut C, key: &FlowKey) {
        let Some(mut flow) = self.flows.remove(key) else { return };
        self.redirects.forget(key);
        if self.groups.get(&key.local_endpoint()) == Some(key) {
            self.groups.remove(&key.local_endpoint());
        }
        self.ledger.close(classifier, key, &mut flow);
    }

    /// Ends every flow, in the order of their keys, so that two runs call the same in the same order: the machine goes
    /// off the network.
    pub fn finish<C: Classifier<Flow = F>>(&mut self, classifier: &mut C) {
        let mut flows: Vec<_> = std::mem::take(&mut self.flows).into_iter().chain(self.held.drain()).collect();
        flows.sort_unstable_by_key(|(key, _)| *key);
        for (key, mut flow) in flows {
            self.ledger.close(classifier, &key, &mut flow);
        }
        self.ledger.deadlines.clear();
        self.close_sockets(classifier);
    }
}
