//! What a default never decides ([`sluice_policy::essential`]), as filters between the rules and the defaults.

use super::conditions::{Group, between, equal};
use super::descriptor;
use crate::objects::{IS_LOOPBACK, field};
use sluice_host::{Condition, ConditionValue, MatchType};
use sluice_policy::Essential;
use sluice_policy::model::SidBuf;

/// ICMP, IGMP, UDP and ICMPv6.
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The conditions that together are all essential traffic of an IP version, with what they stand for.
pub(super) fn conditions(ip_version: u8) -> Vec<(Essential, Vec<Group>)> {
    let protocol = |number| vec![equal(field::PROTOCOL, ConditionValue::Uint8(number))];
    let types = |ranges: &[(u16, u16)]| -> Group {
        ranges.iter().map(|&(low, high)| between(field::LOCAL_PORT, ConditionValue::Uint16, low, high)).collect()
    };
    let port = |field, number| vec![equal(field, ConditionValue::Uint16(number))];
    // As the driver has it: SYSTEM, LOCAL SERVICE or NETWORK SERVICE. Here the owner is always known.
    let system = || {
        let sids: Vec<SidBuf> =
            ["S-1-5-18", "S-1-5-19", "S-1-5-20"].iter().filter_map(|sid| SidBuf::parse(sid)).collect();
        vec![equal(field::USER_ID, ConditionValue::SecurityDescriptor(descriptor::granting(sids.iter())))]
    };
    let dhcp = |client, server| {
        let ports = [port(field::LOCAL_PORT, client), port(field::REMOTE_PORT, server)];
        [protocol(UDP)].into_iter().chain(ports).chain([system()]).collect::<Vec<_>>()
    };
    let loopback = Condition {
        field: field::FLAGS,
        match_type: MatchType::FlagsAllSet,
        value: ConditionValue::Uint32(IS_LOOPBACK),
    };
    let mut found = vec![(Essential::Loopback, vec![vec![loopback]])];
    if ip_version == 4 {
        found.push((Essential::IcmpError, vec![protocol(ICMP), types(&[(3, 3), (11, 12)])]));
        found.push((Essential::Igmp, vec![protocol(IGMP)]));
        found.push((Essential::Dhcp, dhcp(68, 67)));
    } else {
        found.push((Essential::IcmpError, vec![protocol(ICMPV6), types(&[(1, 4)])]));
        found.push((Essential::MulticastListenerDiscovery, vec![protocol(ICMPV6), types(&[(130, 132), (143, 143)])]));
        found.push((Essential::NeighbourDiscovery, vec![protocol(ICMPV6), types(&[(133, 137)])]));
        found.push((Essential::Dhcp, dhcp(546, 547)));
    }
    found
}
