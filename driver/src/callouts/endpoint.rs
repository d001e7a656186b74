//! ALE_RESOURCE_ASSIGNMENT and ALE_AUTH_LISTEN: may this program have this port, and may it listen there?
//!
//! The first is asked by bind(), and by connect() and sendto() of a socket that was not bound; the second by listen() of
//! TCP. Neither is asked again when the policy changes: of a socket that is open already, connections and datagrams are
//! still decided. A socket of every address has an empty local address; one that named no port has that which the system
//! chose, and FWP_CONDITION_FLAG_IS_WILDCARD_BIND. Raw sockets have FWP_CONDITION_FLAG_IS_RAW_ENDPOINT, and only here a
//! program that wants every packet of an interface can be refused (ALE_PROMISCUOUS_MODE). All this: "ALE Layers" and
//! "ALE Reauthorization", win32 desktop-src/FWP.
//!
//! ALE_ENDPOINT_CLOSURE is not a layer of ours: what is kept belongs to a flow, and ends with it by flowDeleteFn.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::wfp::{Answer, Callout, condition_flag, fields::Fields, protocol::TCP};
use sluice_policy::{Direction, Verdict, flow::unspecified};
use sluice_protocol::{event, object, object::Point, status::Counter};

use super::{
    Request, fields_at, process_id,
    verdict::{self, Subject},
};
use crate::{
    SLUICE,
    flow::{FlowKey, FlowState, Owner, decide},
};

/// ALE_RESOURCE_ASSIGNMENT.
pub(super) struct Bind;

impl Callout for Bind {
    type Flow = FlowState;

    fn classify(request: &mut Request<'_>) {
        let fields = const { &fields_at(Point::Bind) };
        let protocol = request.u8(fields.protocol);
        classify(request, fields, Point::Bind, protocol, [Counter::BindsPermitted, Counter::BindsBlocked]);
    }
}

/// ALE_AUTH_LISTEN.
pub(super) struct Listen;

impl Callout for Listen {
    type Flow = FlowState;

    /// The layer has no protocol: only TCP listens.
    fn classify(request: &mut Request<'_>) {
        let fields = const { &fields_at(Point::Listen) };
        classify(request, fields, Point::Listen, Some(TCP), [Counter::ListensPermitted, Counter::ListensBlocked]);
    }
}

/// Decides by the policy in force. One that has no rules about this and permits it by default has nothing to decide: most
/// do not, and every connection that this machine opens would be decided and recorded twice. IRQL <= DISPATCH_LEVEL.
fn classify(
    request: &mut Request<'_>,
    fields: &Fields,
    point: Point,
    protocol: Option<u8>,
    [permitted, blocked]: [Counter; 2],
) {
    let direction = if matches!(point, Point::Listen) { Direction::Listen } else { Direction::Bind };
    let Some(policy) = SLUICE.policy.read().filter(|policy| policy.image.speaks_of(direction)) else {
        request.answer(Answer::Continue);
        return;
    };
    let flags = request.u32(fields.flags).unwrap_or(0);
    let Some(protocol) = protocol else {
        SLUICE.counters.add(request.dispatch(), Counter::FieldsMissing, 1);
        request.answer(Answer::Continue);
        return;
    };
    let local = request.address(fields.local_address).unwrap_or_else(|| every_address(request, point));
    let key = FlowKey {
        direction,
        protocol,
        local,
        local_port: request.u16(fields.local_port).unwrap_or(0),
        remote: unspecified(local),
        remote_port: 0,
        loopback: flags & condition_flag::IS_LOOPBACK != 0,
    };
    let promiscuous = request.u32(fields.promiscuous).is_some_and(|mode| mode != 0);
    // Neither a raw socket nor one that is given every packet has a port to be chosen.
    let port_chosen =
        flags & condition_flag::IS_WILDCARD_BIND != 0 && flags & condition_flag::IS_RAW_ENDPOINT == 0 && !promiscuous;
    let owner = Owner::read(request, fields);
    let decision = decide(&policy, &owner, key.flow().with_port_chosen(port_chosen));
    let epoch = policy.epoch;
    drop(policy);
    let counter = match decision.verdict {
        Verdict::Permit => permitted,
        Verdict::Block => blocked,
    };
    let noted = if port_chosen { event::flags::PORT_CHOSEN } else { 0 }
        | if promiscuous { event::flags::PROMISCUOUS } else { 0 };
    let subject = Subject { process_id: process_id(request), application: owner.application, ..Subject::packet(&key) };
    verdict::give_noting(request, &subject, epoch, decision, counter, flags, noted);
}

/// What an empty local address means: every one of the layer's family.
fn every_address(request: &Request<'_>, point: Point) -> IpAddr {
    if request.layer() == object::layer(point).v4.id {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}
