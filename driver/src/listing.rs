//! The live flows, for whoever asks which there are. Nobody waits for that: a list is locked from one flow to the next.

use kernel::{wdf::Output, wfp::Way};
use sluice_policy::Name;
use sluice_protocol::{Event, event::flags, flows::Record};
use zerocopy::IntoBytes;

use crate::{SLUICE, callouts::settle, clock::filetime, events::set_decision, flow::FlowState};

/// Writes as many flows as fit, from this place on. PASSIVE_LEVEL.
pub(crate) fn list(from: u64, output: &mut Output<'_>) {
    SLUICE.flows.for_each_from(from, |number, flow| {
        let fits = output.room() >= size_of::<Record>();
        if fits {
            output.push(record(number, flow.handle(), flow).as_bytes());
        }
        fits
    });
}

fn record(number: u64, handle: u64, flow: &FlowState) -> Record {
    let (key, name) = (flow.key(), flow.name());
    let mut event = Event { flow: handle, process_id: flow.process_id(), ..key.event() };
    if let Some(policy) = SLUICE.policy.read() {
        let decision = key.decide(&policy, &flow.owner(), name);
        let (decision, asked) = settle(&policy, decision, flow.process_id(), flow.is_answered());
        event.asked = asked;
        event.epoch = policy.epoch;
        set_decision(&mut event, &decision);
        if decision.needs_name {
            event.flags |= flags::AWAITS_NAME;
        }
    }
    if let Name::Known(name) = name {
        event.set_name(name);
    }
    event.set_application(flow.owner().application.unwrap_or_default());
    let [out, back] = [Way::Out, Way::In].map(|way| flow.carried(way));
    let (first, last) = flow.lived();
    Record {
        flow: event,
        number,
        packets_out: out.packets,
        bytes_out: out.bytes,
        packets_in: back.packets,
        bytes_in: back.bytes,
        first: filetime(first),
        last: filetime(last),
    }
}
