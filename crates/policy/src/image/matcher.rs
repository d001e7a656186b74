//! First match: the flow is reduced to a key of numbers, and entries are compared in the rules' order.

use super::{
    layout::*,
    table::{Section, u32_at},
};
use crate::flow::{Decision, Direction, Flow, Verdict};
use core::net::IpAddr;

/// A flow as numbers, indexed by [`Dimension`].
type Key = [u64; DIMENSIONS];

pub(super) fn decide(image: &[u8], header: &Header, flow: &Flow<'_>) -> Decision {
    let mut key: Key = [0; DIMENSIONS];
    key[Dimension::RemotePort as usize] = u64::from(flow.remote_port);
    key[Dimension::LocalPort as usize] = u64::from(flow.local_port);
    key[Dimension::Protocol as usize] = u64::from(flow.protocol);
    key[Dimension::Interface as usize] = flow.interface.unwrap_or(0);
    if let Some(application) = flow.application {
        key[Dimension::Application as usize] = identify(image, header, header.applications, 0, application.path());
    }
    if let Some(user) = flow.user {
        let first = last_end(header.applications.of(image));
        key[Dimension::User as usize] = identify(image, header, header.users, first, user.0);
    }
    let inbound = usize::from(flow.direction == Direction::Inbound);
    let found = match (flow.remote, flow.local) {
        (IpAddr::V4(remote), IpAddr::V4(local)) => {
            find4(image, header, header.roots[inbound], &key, remote.to_bits(), local.to_bits())
        }
        (remote, local) => find6(image, header, header.roots[2 + inbound], &key, bits6(remote), bits6(local)),
    };
    let flags = match found {
        Some(rule) => header.rules.record(image, rule).map_or(0, |record| RuleRecord::read(record).flags),
        None => header.defaults[inbound],
    };
    Decision {
        verdict: if flags & RULE_PERMIT != 0 { Verdict::Permit } else { Verdict::Block },
        hard: flags & RULE_HARD != 0,
        silent: flags & RULE_SILENT != 0,
        rule: found,
        log: flags & RULE_LOG != 0,
        needs_name: false,
    }
}

/// An address as an IPv6 number; the families of one flow differ only when the caller made it so.
fn bits6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn find4(image: &[u8], header: &Header, root: Root, key: &Key, remote: u32, local: u32) -> Option<u32> {
    let entries = header.entries4.of(image);
    for index in root.first..root.first.saturating_add(root.count) {
        let entry = Entry4::read(super::table::record(entries, index)?);
        let tail = entry.tail;
        let addresses = u64::from(remote ^ entry.remote).wrapping_shr(32 - u32::from(tail.remote_length))
            | u64::from(local ^ entry.local).wrapping_shr(32 - u32::from(tail.local_length));
        if addresses == 0 && rest_matches(image, header, key, &tail) {
            return Some(tail.rule);
        }
    }
    None
}

fn find6(image: &[u8], header: &Header, root: Root, key: &Key, remote: u128, local: u128) -> Option<u32> {
    let entries = header.entries6.of(image);
    let differs = |a: u128, b: u128, length: u8| (a ^ b).checked_shr(128 - u32::from(length)).unwrap_or(0) != 0;
    for index in root.first..root.first.saturating_add(root.count) {
        let entry = Entry6::read(super::table::record(entries, index)?);
        let tail = entry.tail;
        if !differs(remote, entry.remote, tail.remote_length)
            && !differs(local, entry.local, tail.local_length)
            && rest_matches(image, header, key, &tail)
        {
            return Some(tail.rule);
        }
    }
    None
}

#[inline]
fn rest_matches(image: &[u8], header: &Header, key: &Key, tail: &EntryTail) -> bool {
    let within = |dimension: Dimension, (low, high): (u16, u16)| {
        let value = key[dimension as usize];
        value >= u64::from(low) && value <= u64::from(high)
    };
    within(Dimension::RemotePort, tail.remote_port)
        && within(Dimension::LocalPort, tail.local_port)
        && (tail.flags & ENTRY_ANY_PROTOCOL != 0 || key[Dimension::Protocol as usize] == u64::from(tail.protocol))
        && (tail.flags & ENTRY_CONDITIONS == 0 || conditions_match(image, header, key, tail.rule))
}

fn conditions_match(image: &[u8], header: &Header, key: &Key, rule: u32) -> bool {
    let Some(record) = header.rules.record(image, rule).map(RuleRecord::read) else { return false };
    let first = record.conditions;
    for index in first..first.saturating_add(u32::from(record.condition_count)) {
        let Some(condition) = header.conditions.record(image, index).map(ConditionRecord::read) else { return false };
        if !in_list(image, header, condition.list, key[condition.dimension as usize % DIMENSIONS]) {
            return false;
        }
    }
    true
}

/// Whether `value` lies in one of the ascending ranges of `list`.
fn in_list(image: &[u8], header: &Header, list: u32, value: u64) -> bool {
    let lists = header.lists.of(image);
    let mut low = if list == 0 { 0 } else { u32_at(lists, (list as usize).wrapping_sub(1).wrapping_mul(4)) };
    let mut high = u32_at(lists, (list as usize).wrapping_mul(4));
    let ranges = header.ranges.of(image);
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

/// Where the strings of a table end.
fn last_end(table: &[u8]) -> u32 {
    table.len().checked_sub(8).map_or(0, |at| u32_at(table, at))
}

/// The number of an identifier, 1 where no rule names it. Tables are in byte order.
fn identify(image: &[u8], header: &Header, section: Section, start: u32, wanted: &[u8]) -> u64 {
    let (table, strings) = (section.of(image), header.strings.of(image));
    let (mut low, mut high) = (0, section.count::<8>());
    while low < high {
        let middle = low.midpoint(high);
        let at = middle as usize * 8;
        let begin = if middle == 0 { start } else { u32_at(table, at - 8) };
        let found = strings.get(begin as usize..u32_at(table, at) as usize).unwrap_or(&[]);
        match found.cmp(wanted) {
            core::cmp::Ordering::Less => low = middle + 1,
            core::cmp::Ordering::Greater => high = middle,
            core::cmp::Ordering::Equal => return u64::from(u32_at(table, at + 4)),
        }
    }
    1
}
