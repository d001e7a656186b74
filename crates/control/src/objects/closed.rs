//! What a machine that fails closed has besides: filters that block while the driver is not there, and what stays
//! reachable then.
//!
//! A callout filter without FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED blocks while its callout is not registered.
//! Heavier filters for the same callout that do have the flag match only what must stay reachable: they permit it while the
//! driver is not there, and ask the driver when it is. Until the Base Filtering Engine has started there are no such
//! filters, so the same is said once more by boot-time filters, which name no callout.

use super::field;
use super::{FILTER_PERMIT_IF_CALLOUT_UNREGISTERED, FILTER_PERSISTENT, PROVIDER, SUBLAYER, name};
use serde::{Serialize, Serializer};
use sluice_host::{
    Condition, ConditionValue, Filter, FilterAction, Guid, Host, HostError, HostResult, MatchType, Parameter, Weight,
    code,
};
use sluice_protocol::SERVICE_NAME;
use sluice_protocol::object::{self, CalloutObject, Point};
use sluice_protocol::parameter::{FAIL_CLOSED, MANAGEMENT};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// FWPM_FILTER_FLAG_BOOTTIME (fwpmtypes.h).
pub(super) const FILTER_BOOTTIME: u32 = 0x02;
/// The weight range of what stays reachable: above a filter whose weight BFE computes, which is in the lowest range.
const REACHABLE: Weight = Weight::Range(8);
/// How many management prefixes there can be.
pub const MAX_MANAGEMENT: usize = 16;

/// FWP_CONDITION_FLAG_IS_LOOPBACK (fwptypes.h).
pub(crate) const IS_LOOPBACK: u32 = 0x1;

/// What the machine does while the driver is not there, or has no policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fail {
    /// Everything passes as without the driver.
    #[default]
    Open,
    /// Nothing passes but DHCP, neighbour discovery, loopback, and these networks.
    Closed {
        /// Networks from which the machine is administered.
        management: Vec<Prefix>,
    },
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Closed { management } => {
                f.write_str("closed")?;
                management.iter().try_for_each(|prefix| write!(f, ", except {prefix}"))
            }
        }
    }
}

impl Fail {
    /// What the installation declares; open without one.
    ///
    /// # Errors
    /// The machine refused the query, or somebody wrote a value that says nothing.
    pub fn declared(host: &dyn Host) -> HostResult<Self> {
        let wrong = |name: &str, what: String| {
            HostError::with_message("RegGetValueW", code::ERROR_INVALID_DATA, format!("{name} of the service: {what}"))
        };
        match host.service_parameter(SERVICE_NAME, FAIL_CLOSED)? {
            None | Some(Parameter::Number(0)) => return Ok(Self::Open),
            Some(Parameter::Number(_)) => {}
            Some(Parameter::Text(text)) => return Err(wrong(FAIL_CLOSED, format!("{text:?} is not a number"))),
        }
        let management = match host.service_parameter(SERVICE_NAME, MANAGEMENT)? {
            None => Vec::new(),
            Some(Parameter::Text(text)) => {
                let parsed: Result<Vec<Prefix>, String> = text.split_whitespace().map(str::parse).collect();
                parsed.map_err(|what| wrong(MANAGEMENT, what))?
            }
            Some(Parameter::Number(number)) => return Err(wrong(MANAGEMENT, format!("{number} is not a text"))),
        };
        Ok(Self::Closed { management })
    }

    /// Declares it, for the driver too, which reads it at its start.
    ///
    /// # Errors
    /// The machine refused; what was declared before may be half replaced, and then says closed.
    pub(crate) fn declare(&self, host: &dyn Host) -> HostResult<()> {
        let set = |name, value: Option<Parameter>| host.set_service_parameter(SERVICE_NAME, name, value.as_ref());
        match self {
            Self::Open => set(FAIL_CLOSED, None).and_then(|()| set(MANAGEMENT, None)),
            Self::Closed { management } => {
                let text: Vec<String> = management.iter().map(Prefix::to_string).collect();
                let text = (!text.is_empty()).then(|| Parameter::Text(text.join(" ")));
                set(MANAGEMENT, text).and_then(|()| set(FAIL_CLOSED, Some(Parameter::Number(1))))
            }
        }
    }

    /// Whether the filter of a place blocks while the driver is not there: where traffic gets in, out or through. The other
    /// places only see what has passed one of these.
    pub(super) fn blocks_at(&self, place: &CalloutObject) -> bool {
        *self != Self::Open && is_gate(place)
    }

    /// The filters of a place besides the one that calls its callout for everything.
    #[must_use]
    pub(super) fn filters(&self, place: &CalloutObject) -> Vec<Filter> {
        let Self::Closed { management } = self else { return Vec::new() };
        if !is_gate(place) {
            return Vec::new();
        }
        let (number, callout) = (place.number(), Guid(place.callout));
        let reachable = reachable(place, management);
        let persistent = reachable.iter().map(|(index, what, conditions)| Filter {
            key: Some(Guid(object::passage_filter(number, *index))),
            name: format!("{}, {what}", name(place)),
            description: "Asks sluice.sys; permits while it is not there".to_owned(),
            flags: FILTER_PERSISTENT | FILTER_PERMIT_IF_CALLOUT_UNREGISTERED,
            weight: REACHABLE,
            conditions: conditions.clone(),
            action: FilterAction::CalloutUnknown(callout),
            ..bare(place)
        });
        let boot = reachable.iter().map(|(index, what, conditions)| Filter {
            key: Some(Guid(object::boot_filter(number, *index))),
            name: format!("{} at boot, {what}", name(place)),
            weight: REACHABLE,
            conditions: conditions.clone(),
            action: FilterAction::Permit,
            ..bare(place)
        });
        let block = Filter {
            key: Some(Guid(object::boot_filter(number, 0))),
            name: format!("{} at boot", name(place)),
            ..bare(place)
        };
        persistent.chain(boot).chain([block]).collect()
    }
}

/// A boot-time filter that blocks everything at a place.
fn bare(place: &CalloutObject) -> Filter {
    Filter {
        key: None,
        name: String::new(),
        description: "Holds until the Base Filtering Engine has started".to_owned(),
        flags: FILTER_BOOTTIME,
        provider: Some(PROVIDER),
        layer: Guid(place.layer),
        sublayer: SUBLAYER,
        weight: Weight::Auto,
        conditions: Vec::new(),
        action: FilterAction::Block,
    }
}

/// Whether traffic gets in, out or through at a place.
pub(super) const fn is_gate(place: &CalloutObject) -> bool {
    matches!(
        place.point,
        Point::Connect | Point::Accept | Point::OutboundTransport | Point::InboundTransport | Point::Forward
    )
}

/// What stays reachable at a place: a number that never changes, its name, and its conditions.
fn reachable(place: &CalloutObject, management: &[Prefix]) -> Vec<(u8, String, Vec<Condition>)> {
    if place.point == Point::Forward {
        return Vec::new(); // what is passed on between others is not this machine's
    }
    let equal = |field, value| Condition { field, match_type: MatchType::Equal, value };
    let protocol = |number| equal(field::PROTOCOL, ConditionValue::Uint8(number));
    let port = |field, number| equal(field, ConditionValue::Uint16(number));
    let icmp_type = |low, high| Condition {
        field: field::LOCAL_PORT,
        match_type: MatchType::Range,
        value: ConditionValue::Range {
            low: Box::new(ConditionValue::Uint16(low)),
            high: Box::new(ConditionValue::Uint16(high)),
        },
    };
    let dhcp = |client, server| vec![protocol(17), port(field::LOCAL_PORT, client), port(field::REMOTE_PORT, server)];
    let loopback = Condition {
        field: field::FLAGS,
        match_type: MatchType::FlagsAllSet,
        value: ConditionValue::Uint32(IS_LOOPBACK),
    };
    let mut rows = vec![(1, "loopback".to_owned(), vec![loopback])];
    if place.ip_version == 4 {
        rows.push((2, "DHCP".to_owned(), dhcp(68, 67)));
    } else {
        rows.push((2, "DHCP".to_owned(), dhcp(546, 547)));
        rows.push((3, "neighbour discovery".to_owned(), vec![protocol(58), icmp_type(133, 137)]));
        // Without these a switch that watches for groups does not deliver neighbour solicitations.
        rows.push((4, "multicast listeners".to_owned(), vec![protocol(58), icmp_type(130, 132)]));
        rows.push((5, "multicast listeners".to_owned(), vec![protocol(58), icmp_type(143, 143)]));
    }
    for (prefix, index) in management.iter().zip(16_u8..) {
        if prefix.ip_version() == place.ip_version {
            rows.push((index, prefix.to_string(), vec![equal(field::REMOTE_ADDRESS, prefix.condition())]));
        }
    }
    rows
}

/// A network, as `192.0.2.0/24` or `2001:db8::/32`; an address alone is the network of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    const fn ip_version(&self) -> u8 {
        if self.address.is_ipv4() { 4 } else { 6 }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address));
        // A length is at least 1.
        width == other_width && (own ^ other) >> (width - u32::from(self.length)) == 0
    }

    fn condition(&self) -> ConditionValue {
        match self.address {
            IpAddr::V4(address) => ConditionValue::V4AddrMask {
                addr: u32::from(address),
                mask: u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0),
            },
            IpAddr::V6(address) => ConditionValue::V6AddrMask { addr: address.octets(), prefix_length: self.length },
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not a network, as in 192.0.2.0/24 or 2001:db8::/32");
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(most), str::parse).map_err(|_| expected())?;
        if length == 0 || length > most {
            return Err(expected()); // the whole Internet is no network to administer from
        }
        let host_bits = match address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => u128::from(address),
        };
        if length < 128 && host_bits << length != 0 {
            return Err(format!("{text:?} has bits set beyond its length"));
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_protocol::object::CALLOUTS;

    fn closed(management: &[&str]) -> Fail {
        Fail::Closed { management: management.iter().map(|text| text.parse().unwrap()).collect() }
    }

    #[test]
    fn networks_are_read_and_what_is_none_is_refused() {
        for text in ["192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8", "203.0.113.7/32", "::1/128"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        assert_eq!("203.0.113.7".parse::<Prefix>().unwrap().to_string(), "203.0.113.7/32");
        for text in ["", "0.0.0.0/0", "::/0", "192.0.2.1/24", "2001:db8::1/64", "192.0.2.0/33", "x/8", "192.0.2.0/-1"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn open_adds_nothing_and_closed_the_same_at_boot_as_afterwards() {
        for place in &CALLOUTS {
            assert!(Fail::Open.filters(place).is_empty());
            let filters = closed(&["192.0.2.0/24", "2001:db8::/32"]).filters(place);
            assert_eq!(filters.is_empty(), !is_gate(place), "{}", place.name);
            let (boot, later): (Vec<_>, Vec<_>) =
                filters.iter().partition(|filter| filter.flags & FILTER_BOOTTIME != 0);
            let conditions = |filters: &[&Filter]| -> Vec<_> {
                let all = filters.iter().filter(|filter| !filter.conditions.is_empty());
                all.map(|filter| filter.conditions.clone()).collect()
            };
            assert_eq!(conditions(&boot), conditions(&later), "{}", place.name);
            let blocks = boot.iter().filter(|filter| filter.action == FilterAction::Block).count();
            assert_eq!(blocks, usize::from(is_gate(place)), "{}", place.name);
        }
    }

    #[test]
    fn no_two_filters_share_a_key() {
        let fail = Fail::Closed { management: vec!["192.0.2.0/24".parse().unwrap(); MAX_MANAGEMENT] };
        let mut keys: Vec<_> = CALLOUTS.iter().flat_map(|place| fail.filters(place)).map(|one| one.key).collect();
        keys.extend(CALLOUTS.iter().map(|place| Some(Guid(place.filter))));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
