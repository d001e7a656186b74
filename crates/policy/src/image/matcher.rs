//! First match: the flow is reduced to classes, layers lead to a few entries, and the least rule among those that hold
//! decides.

use super::{
    identifiers,
    layers::{Plain, Tables},
    layout::*,
    names,
    table::{Section, u16_at, u32_at},
    v4, v6,
};
use crate::flow::{Decision, Direction, Flow, Name, Verdict};
use core::net::{IpAddr, Ipv4Addr};

/// No rule.
const NONE: u32 = u32::MAX;

pub(super) fn decide(image: &[u8], header: &Header, flow: &Flow<'_>) -> Decision {
    let mut key: Key = [0; DIMENSIONS];
    identify(image, header, flow, &mut key);
    addresses(image, header, flow, &mut key);
    ports(image, header, flow, &mut key);

    let inbound = flow.direction == Direction::Inbound;
    let plain = Plain {
        remote_port: flow.remote_port,
        local_port: flow.local_port,
        protocol: flow.protocol,
        direction: if inbound { SIGNATURE_INBOUND } else { SIGNATURE_OUTBOUND },
    };
    let tables = Tables::of(image, header);
    let place = tables.place(&key);
    let [deciding, waiting] = header.layers;
    let found = tables.search(&place, deciding, &plain, NONE, |rule| holds(image, header, &key, rule, None));
    let name = Some(Dimension::Name);
    let needs_name = waiting != 0
        && flow.name == Name::Unknown
        && tables.search(&place, waiting, &plain, found, |rule| holds(image, header, &key, rule, name)) < found;

    let rule = header.sections.rules.record(image, found).map(RuleRecord::read);
    let flags = rule.map_or(header.defaults[usize::from(inbound)], |rule| rule.flags);
    Decision {
        verdict: if flags & RULE_PERMIT != 0 { Verdict::Permit } else { Verdict::Block },
        hard: flags & RULE_HARD != 0,
        silent: flags & RULE_SILENT != 0,
        rule: rule.map(|_| found),
        log: flags & RULE_LOG != 0,
        needs_name,
    }
}

/// The class of a remote address.
pub(super) fn remote_class(image: &[u8], header: &Header, remote: IpAddr) -> u32 {
    let sections = &header.sections;
    match remote {
        IpAddr::V4(address) if sections.remote4.length != 0 => v4::class(image, &header.shapes4[0], address.to_bits()),
        IpAddr::V6(address) if sections.remote6.length != 0 => {
            v6::class(sections.remote6.of(image), &header.maps6[0], address.to_bits())
        }
        _ => 0,
    }
}

/// The classes of program, user and name, where rules ask for them.
#[inline]
fn identify(image: &[u8], header: &Header, flow: &Flow<'_>, key: &mut Key) {
    let sections = &header.sections;
    if let Some(application) = flow.application
        && sections.application_slots.length != 0
    {
        key[Dimension::Application as usize] = u64::from(identifiers::application(image, header, application.path()));
    }
    if let Some(user) = flow.user
        && sections.user_slots.length != 0
    {
        key[Dimension::User as usize] = u64::from(identifiers::user(image, header, user.0));
    }
    key[Dimension::Name as usize] = match flow.name {
        Name::Unknown => 0,
        Name::Undecidable => u64::from(header.undecidable),
        Name::Known(name) => u64::from(names::class(image, header, name)),
    };
}

/// The classes of the addresses. Should the caller have mixed families, the IPv4 address is taken in its IPv6 form.
#[inline]
fn addresses(image: &[u8], header: &Header, flow: &Flow<'_>, key: &mut Key) {
    let sections = &header.sections;
    let (remote, local) = match (flow.remote, flow.local) {
        (IpAddr::V4(remote), IpAddr::V4(local)) => {
            let class = |shape: &v4::Shape, map: Section, address: Ipv4Addr| match map.length {
                0 => 0,
                _ => v4::class(image, shape, address.to_bits()),
            };
            let [remote_shape, local_shape] = &header.shapes4;
            (class(remote_shape, sections.remote4, remote), class(local_shape, sections.local4, local))
        }
        (remote, local) => {
            let class = |head: &v6::Map, map: Section, address: IpAddr| match map.length {
                0 => 0,
                _ => v6::class(map.of(image), head, wide(address)),
            };
            let [of_remote, of_local] = &header.maps6;
            (class(of_remote, sections.remote6, remote), class(of_local, sections.local6, local))
        }
    };
    key[Dimension::Remote as usize] = u64::from(remote);
    key[Dimension::Local as usize] = u64::from(local);
}

/// Ports and what else is a number already, and the classes of ports, where rows go by them.
#[inline]
fn ports(image: &[u8], header: &Header, flow: &Flow<'_>, key: &mut Key) {
    let sections = &header.sections;
    let class = |pages: Section, port: u16| {
        if pages.length == 0 {
            return 0;
        }
        let [low, high] = port.to_le_bytes();
        let pages = pages.of(image);
        let page = usize::from(u16_at(pages, usize::from(high) * 2));
        u64::from(u16_at(pages, 512 + page * 512 + usize::from(low) * 2))
    };
    key[Dimension::RemotePortClass as usize] = class(sections.remote_ports, flow.remote_port);
    key[Dimension::LocalPortClass as usize] = class(sections.local_ports, flow.local_port);
    key[Dimension::RemotePort as usize] = u64::from(flow.remote_port);
    key[Dimension::LocalPort as usize] = u64::from(flow.local_port);
    key[Dimension::Protocol as usize] = u64::from(flow.protocol);
    key[Dimension::Interface as usize] = flow.interface.unwrap_or(0);
}

fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Whether the conditions of a rule hold, but for the `ignored` one.
fn holds(image: &[u8], header: &Header, key: &Key, rule: u32, ignored: Option<Dimension>) -> bool {
    let Some(rule) = header.sections.rules.record(image, rule).map(RuleRecord::read) else { return false };
    for index in rule.conditions..rule.conditions.saturating_add(u32::from(rule.condition_count)) {
        let Some(condition) = header.sections.conditions.record(image, index).map(ConditionRecord::read) else {
            return false;
        };
        if ignored.is_some_and(|ignored| ignored as u32 == condition.dimension) {
            continue;
        }
        let value = key[condition.dimension as usize % DIMENSIONS];
        let holds = match condition.within {
            Within::Range(low, high) => value >= u64::from(low) && value <= u64::from(high),
            Within::List(list) => in_list(image, header, list, value),
        };
        if !holds {
            return false;
        }
    }
    true
}

/// Whether `value` lies in one of the ascending ranges of `list`.
fn in_list(image: &[u8], header: &Header, list: u32, value: u64) -> bool {
    let lists = header.sections.lists.of(image);
    let mut low = if list == 0 { 0 } else { u32_at(lists, (list as usize).wrapping_sub(1).wrapping_mul(4)) };
    let mut high = u32_at(lists, (list as usize).wrapping_mul(4));
    let ranges = header.sections.ranges.of(image);
    while low < high {
        let middle = low.midpoint(high);
        let (first, last) = range(ranges, middle);
        if value < first {
            high = middle;
        } else if value > last {
            low = middle + 1;
        } else {
            return true;
        }
    }
    false
}
