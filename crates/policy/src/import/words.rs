//! Values common to several firewalls' rules, in the form used by policies.

use crate::model::{address, names};
use std::net::Ipv4Addr;

/// An address, prefix or range, if it is one and does not look like one with a port.
pub(super) fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = match address::parse(text) {
        Ok(parsed) => parsed,
        Err(address::AddressError::HostBits(network, length)) => return Some(format!("{network}/{length}")),
        Err(_) => return None,
    };
    match parsed.range {
        _ if parsed.port_like => None,
        // IPv4 in IPv6 form, or with a netmask in dotted form, is written plainly.
        address::AddressRange::V4(low, high) if parsed.mapped || text.contains('/') => {
            let (first, last) = (Ipv4Addr::from_bits(low), Ipv4Addr::from_bits(high));
            let length = (low ^ high).leading_zeros();
            let prefix = address::prefix(first.into(), length as u8) == parsed.range;
            Some(if prefix { format!("{first}/{length}") } else { format!("{first}-{last}") })
        }
        _ => Some(text.to_owned()),
    }
}

/// A port or range of ports, if it is one.
pub(super) fn port(text: &str) -> Option<String> {
    let text = text.trim();
    let number = |text: &str| text.trim().parse::<u16>().ok();
    match text.split_once('-') {
        Some((low, high)) => {
            let (low, high) = (number(low)?, number(high)?);
            (low <= high).then(|| format!("{low}-{high}"))
        }
        None => number(text).map(|port| port.to_string()),
    }
}

/// A host name, if it is one and not an address.
pub(super) fn host_name(text: &str) -> Option<String> {
    names::normalize(text).filter(|name| address::parse_range(name).is_err())
}

/// The words of a list, none of them empty.
pub(super) fn list<'t>(text: &'t str, separators: &'static [char]) -> impl Iterator<Item = &'t str> {
    text.split(separators).map(str::trim).filter(|word| !word.is_empty())
}
