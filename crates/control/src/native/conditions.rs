//! The conditions of a rule as the conditions of filters.

use super::descriptor;
use crate::objects::field;
use sluice_host::{Condition, ConditionValue, Guid, MatchType};
use sluice_policy::Direction;
use sluice_policy::model::address::{AddressBits, Ranges};
use sluice_policy::model::{Action, NumberSet, Rule, SidBuf};

/// One condition of a rule: alternatives on one field, one of which must hold.
pub(super) type Group = Vec<Condition>;

/// A condition of a rule that a filter cannot have, in words that follow "the rule".
pub(super) type Reason = String;

/// The identifier authority of packages and capabilities (SECURITY_APP_PACKAGE_AUTHORITY).
const APP_PACKAGE: u8 = 15;
/// `All Application Packages`, S-1-15-2-1.
const EVERY_PACKAGE: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 15, 2, 0, 0, 0, 1, 0, 0, 0];

pub(super) fn equal(field: Guid, value: ConditionValue) -> Condition {
    Condition { field, match_type: MatchType::Equal, value }
}

fn range(field: Guid, low: ConditionValue, high: ConditionValue) -> Condition {
    let value = ConditionValue::Range { low: Box::new(low), high: Box::new(high) };
    Condition { field, match_type: MatchType::Range, value }
}

/// Whether `value` is between `low` and `high`.
pub(super) fn between<N: PartialEq>(field: Guid, value: impl Fn(N) -> ConditionValue, low: N, high: N) -> Condition {
    if low == high { equal(field, value(low)) } else { range(field, value(low), value(high)) }
}

/// The groups of a rule at the layer of a direction and an IP version; `Ok(None)` if nothing there can match it.
///
/// # Errors
/// A condition that a filter cannot have.
pub(super) fn of(
    rule: &Rule,
    applications: &[Vec<u8>],
    direction: Direction,
    ip_version: u8,
    embedded: bool,
) -> Result<Option<Vec<Group>>, Reason> {
    // All fields by name: a new condition does not compile until it is a filter's, or a reason.
    let Rule {
        name: _,
        note: _,
        action,
        hard: _,
        log: _,
        enabled: _,
        direction: _,
        protocols,
        remote,
        local,
        remote_ports,
        local_ports,
        applications: asked,
        users,
        groups,
        services,
        packages,
        interfaces,
        aliases: _,
        names,
        undecidable_matches: _,
        schedule,
        expectations: _,
        span: _,
    } = rule;
    if matches!(action, Action::Ask(_)) {
        return Err("asks somebody, and filters hold nothing until there is an answer".to_owned());
    }
    if schedule.is_some() {
        return Err("has a schedule, and filters know no time".to_owned());
    }
    if names.is_some() {
        return Err("asks for a name, which only the driver reads".to_owned());
    }
    if embedded && local.is_none() && remote.as_ref().is_some_and(|set| !set.v4.ranges().is_empty()) {
        return Err("sees IPv4 addresses inside IPv6 ones (`embedded-ipv4`), which filters do not".to_owned());
    }
    let forward = direction == Direction::Forward;
    if forward && (protocols.is_some() || remote_ports.is_some() || local_ports.is_some()) {
        return Err(
            "asks for the protocol or ports of what is forwarded, and the layer tells addresses alone".to_owned()
        );
    }
    let owners = [users, groups, services];
    let of_somebody = asked.is_some() || owners.iter().any(|set| set.is_some()) || packages.is_some();
    // None of it is told there: a rule that asks for it does not match.
    if forward && (of_somebody || interfaces.is_some()) {
        return Ok(None);
    }
    let (local_field, remote_field) = if forward {
        (field::SOURCE_ADDRESS, field::DESTINATION_ADDRESS)
    } else {
        (field::LOCAL_ADDRESS, field::REMOTE_ADDRESS)
    };
    let mut found = Vec::new();
    found.push(numbers(field::PROTOCOL, protocols.as_ref(), u8::MAX.into(), |one| ConditionValue::Uint8(one as u8)));
    for (field, set) in [(local_field, local), (remote_field, remote)] {
        found.push(set.as_ref().map(|set| match ip_version {
            4 => addresses(&set.v4, u32::MAX, |low, high| v4(field, low, high)),
            _ => addresses(&set.v6, u128::MAX, |low, high| v6(field, low, high)),
        }));
    }
    for (field, set) in [(field::LOCAL_PORT, local_ports), (field::REMOTE_PORT, remote_ports)] {
        found.push(numbers(field, set.as_ref(), u16::MAX.into(), |one| ConditionValue::Uint16(one as u16)));
    }
    if asked.is_some() {
        found.push(Some(programs(applications)?));
    }
    found.extend(owner(&owners)?.map(Some));
    found.extend(packages.as_ref().map(|sids| package(sids)).transpose()?.map(Some));
    found.push(numbers(field::LOCAL_INTERFACE, interfaces.as_ref(), u64::MAX, ConditionValue::Uint64));
    let mut groups = Vec::new();
    for set in found.into_iter().flatten() {
        match set {
            Set::Everything => {}
            Set::Nothing => return Ok(None),
            Set::Some(group) => groups.push(group),
        }
    }
    Ok(Some(groups))
}

/// What a condition of a rule leaves.
enum Set {
    Everything,
    Nothing,
    Some(Group),
}

impl From<Group> for Set {
    fn from(group: Group) -> Self {
        if group.is_empty() { Self::Nothing } else { Self::Some(group) }
    }
}

fn numbers(field: Guid, set: Option<&NumberSet>, most: u64, value: impl Fn(u64) -> ConditionValue) -> Option<Set> {
    let set = set?;
    if set.covers(&NumberSet::from_ranges(vec![(0, most)])) {
        return Some(Set::Everything);
    }
    let within = set.ranges().iter().filter(|(low, _)| *low <= most);
    let group: Group = within.map(|&(low, high)| between(field, &value, low, high.min(most))).collect();
    Some(group.into())
}

fn addresses<A: AddressBits + Default>(set: &Ranges<A>, most: A, condition: impl Fn(A, A) -> Condition) -> Set {
    if set.ranges() == [(A::default(), most)] {
        return Set::Everything;
    }
    set.ranges().iter().map(|&(low, high)| condition(low, high)).collect::<Group>().into()
}

/// How many bits the ends of a range have in common, if it is a prefix.
fn prefix<A: AddressBits>(low: A, high: A) -> Option<u8> {
    let mut prefixes = Ranges::new(vec![(low, high)]).prefixes().collect::<Vec<_>>();
    let (_, length) = prefixes.pop()?;
    prefixes.is_empty().then_some(length)
}

fn v4(field: Guid, low: u32, high: u32) -> Condition {
    match prefix(low, high) {
        Some(length @ 1..32) => {
            equal(field, ConditionValue::V4AddrMask { addr: low, mask: u32::MAX << (32 - u32::from(length)) })
        }
        _ => between(field, ConditionValue::Uint32, low, high),
    }
}

fn v6(field: Guid, low: u128, high: u128) -> Condition {
    match prefix(low, high) {
        Some(length @ 1..128) => {
            equal(field, ConditionValue::V6AddrMask { addr: low.to_be_bytes(), prefix_length: length })
        }
        _ => between(field, |one: u128| ConditionValue::ByteArray16(one.to_be_bytes()), low, high),
    }
}

/// Programs by their whole paths, with the NUL that ALE_APP_ID has.
fn programs(paths: &[Vec<u8>]) -> Result<Set, Reason> {
    // Windows has no condition for the beginning of a blob: FWP_MATCH_PREFIX compares ends (FWP_MATCH_TYPE documentation).
    if paths.iter().any(|path| path.ends_with(&[b'\\', 0])) {
        return Err("names a folder of programs, and a filter compares whole paths: name each program".to_owned());
    }
    let blob = |path: &Vec<u8>| equal(field::APP_ID, ConditionValue::ByteBlob([&path[..], &[0, 0]].concat()));
    Ok(paths.iter().map(blob).collect::<Group>().into())
}

/// The owner, by a descriptor for each 256 SIDs.
fn owner(asked: &[&Option<Vec<SidBuf>>; 3]) -> Result<Option<Set>, Reason> {
    let mut sets = asked.iter().filter_map(|set| set.as_ref());
    let Some(sids) = sets.next() else { return Ok(None) };
    if sets.next().is_some() {
        return Err(
            "asks for a user, a group and a service at once, and a filter asks for one of several SIDs".to_owned()
        );
    }
    if sids.iter().any(|sid| sid.bytes()[7] == APP_PACKAGE) {
        return Err("names a package or capability as a user; use `package`".to_owned());
    }
    let descriptor = |sids: &[SidBuf]| ConditionValue::SecurityDescriptor(descriptor::granting(sids.iter()));
    let group: Group = sids.chunks(descriptor::MOST).map(|sids| equal(field::USER_ID, descriptor(sids))).collect();
    Ok(Some(group.into()))
}

fn package(sids: &[SidBuf]) -> Result<Set, Reason> {
    if sids.iter().any(|sid| sid.bytes() == EVERY_PACKAGE) {
        return Err("means every package; name each".to_owned());
    }
    let one = |sid: &SidBuf| equal(field::PACKAGE_ID, ConditionValue::Sid(sid.bytes().to_vec()));
    Ok(sids.iter().map(one).collect::<Group>().into())
}
