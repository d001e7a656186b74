//! The values in rules and expectations: protocols, ports, addresses, users, interfaces.

use super::reader::{At, Context, Item, Word, nearest};
use crate::model::{
    NumberSet, SidBuf,
    address::{self, AddressError, AddressRange},
    assumed_luid, program,
};
use std::net::IpAddr;

/// Protocols by name (IANA protocol numbers).
pub(super) const PROTOCOLS: [(&str, u8); 14] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
    ("l2tp", 115),
];

/// Interface types by name (IANA ifType; the top 16 bits of a LUID).
const INTERFACE_TYPES: [(&str, u64); 6] =
    [("ethernet", 6), ("ppp", 23), ("loopback", 24), ("virtual", 53), ("wireless", 71), ("tunnel", 131)];
/// Names for several types. Mobile broadband: WWANPP and WWANPP2. VPN carriers: PPP (the dial-up and VPN
/// connections of Windows), propVirtual (Wintun) and tunnel.
const SEVERAL_TYPES: [(&str, &[u64]); 2] = [("mobile", &[243, 244]), ("vpn", &[23, 53, 131])];

const PROTOCOL_EXPECTED: &str = "`tcp`, `udp`, `icmp`, `icmpv6`, another protocol's name, or a number from 0 to 255";

/// One protocol.
pub(super) fn protocol(context: &mut Context<'_>, word: &Word<'_>) -> Option<u8> {
    let lower = word.text.to_ascii_lowercase();
    let known = PROTOCOLS.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number);
    let found = known.or_else(|| word.text.parse().ok());
    if found.is_none() {
        let near = nearest(&lower, PROTOCOLS.iter().map(|(name, _)| *name));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        context.expected(&word.at, format!("`{}` is not a protocol{hint}", word.text), PROTOCOL_EXPECTED);
    }
    found
}

/// Protocols; `None` is every one (`any`).
pub(super) fn protocols(context: &mut Context<'_>, item: &Item<'_>) -> Option<NumberSet> {
    let words = item.words(context, PROTOCOL_EXPECTED);
    if words.iter().any(|word| word.text.eq_ignore_ascii_case("any")) {
        return None;
    }
    let numbers = words.iter().filter_map(|word| protocol(context, word)).map(|number| (number.into(), number.into()));
    Some(NumberSet::from_ranges(numbers.collect()))
}

/// `443` or `1000-2000`, within `limit`.
pub(super) fn number_range(context: &mut Context<'_>, word: &Word<'_>, limit: u64) -> Option<(u64, u64)> {
    let parse = |text: &str| text.trim().parse::<u64>().ok().filter(|number| *number <= limit);
    let range = match word.text.split_once('-') {
        Some((low, high)) => parse(low).zip(parse(high)),
        None => parse(word.text).map(|number| (number, number)),
    };
    match range {
        Some((low, high)) if low <= high => range,
        Some((low, high)) => {
            context.expected(&word.at, "this range ends before it begins", format!("`{high}-{low}`"));
            None
        }
        None => {
            let message = format!("`{}` is neither a number nor a range", word.text);
            context.expected(&word.at, message, format!("numbers from 0 to {limit}, as in 443 or \"1000-2000\""));
            None
        }
    }
}

/// An address, prefix or range.
pub(super) fn address_range(context: &mut Context<'_>, text: &str, at: &At) -> Option<AddressRange> {
    const FORMS: &str = "an address, a prefix (`10.0.0.0/8`, `2001:db8::/32`), a range (`10.0.0.1-10.0.0.9`), `ipv4`, `ipv6` or `@list`";
    match text {
        "ipv4" => return Some(AddressRange::V4(0, u32::MAX)),
        "ipv6" => return Some(AddressRange::V6(0, u128::MAX)),
        _ => {}
    }
    match address::parse(text) {
        Ok(parsed) => {
            if parsed.mapped {
                let help = "no packet has such an address; write the IPv4 address".to_owned();
                context.warning(at, format!("`{text}` is read as the IPv4 addresses it represents"), Some(help));
            }
            if parsed.port_like {
                let help = "if a port is meant, write the address and `remote-port` or `local-port`".to_owned();
                context.warning(
                    at,
                    format!("the end of `{text}` looks like a port but is part of the address"),
                    Some(help),
                );
            }
            return Some(parsed.range);
        }
        Err(AddressError::HostBits(network, length)) => context.error_with_help(
            at,
            format!("`{text}` has host bits set"),
            format!("write `{network}/{length}` for the network, or the address without `/{length}`"),
        ),
        Err(AddressError::Length) => context.expected(
            at,
            format!("`{text}` has an invalid prefix length"),
            if text.contains(':') { "a length from 0 to 128" } else { "a length from 0 to 32" },
        ),
        Err(AddressError::Order) => {
            context.expected(at, format!("`{text}` is not a range"), "first and last address of one family, in order");
        }
        Err(AddressError::Port) => context.error_with_help(
            at,
            format!("`{text}` is an address with a port"),
            "write the address here and the port as `remote-port` or `local-port`",
        ),
        Err(AddressError::Zone) => context.error_with_help(
            at,
            format!("`{text}` has a zone, which addresses in rules do not have"),
            "remove `%` and what follows, or use `interface` for the interface",
        ),
        Err(AddressError::Syntax) => context.expected(at, format!("`{text}` is not an address"), FORMS),
    }
    None
}

/// A security identifier.
pub(super) fn user(context: &mut Context<'_>, word: &Word<'_>) -> Option<SidBuf> {
    let sid = SidBuf::parse(word.text);
    if sid.is_none() {
        context.expected(
            &word.at,
            format!("`{}` is not a user", word.text),
            "a SID (`S-1-5-21-...-1001`), `SYSTEM`, `Administrators`, `Everyone` or another of Windows' own, or `@group`",
        );
    }
    sid
}

/// A service, by its name.
pub(super) fn service(context: &mut Context<'_>, word: &Word<'_>) -> Option<SidBuf> {
    let sid = SidBuf::of_service(word.text);
    if sid.is_none() {
        let message = format!("`{}` is not a service", word.text);
        context.expected(&word.at, message, "its short name, as `sc query` shows it: `Dnscache`");
    }
    sid
}

/// A package, by its family name or the SID of its app container.
pub(super) fn package(context: &mut Context<'_>, word: &Word<'_>) -> Option<SidBuf> {
    match SidBuf::of_package(word.text) {
        Ok(sid) => Some(sid),
        Err(expected) => {
            context.expected(&word.at, format!("`{}` is not a package", word.text), expected);
            None
        }
    }
}

/// A program's path, in normal form.
pub(super) fn program(context: &mut Context<'_>, word: &Word<'_>) -> Option<String> {
    match program::normalize(word.text) {
        Ok(path) => Some(path),
        Err(why) => {
            context.expected(
                &word.at,
                format!("`{}` {why}", word.text),
                r"`C:\Program Files\App\app.exe`, `C:\Program Files\App\*`, `\Device\HarddiskVolume3\...` or `System`",
            );
            None
        }
    }
}

/// The alias of an interface, as `alias:Ethernet 2` has it.
pub(super) fn alias<'w>(word: &Word<'w>) -> Option<&'w str> {
    let (kind, alias) = word.text.split_at_checked("alias:".len())?;
    let alias = alias.trim();
    (kind.eq_ignore_ascii_case("alias:") && !alias.is_empty()).then_some(alias)
}

/// An interface: a type by name or number, or one interface by its LUID.
pub(super) fn interface(context: &mut Context<'_>, word: &Word<'_>) -> Vec<(u64, u64)> {
    // In a flow; rules have theirs resolved by a machine.
    if let Some(alias) = alias(word) {
        let luid = assumed_luid(alias);
        return vec![(luid, luid)];
    }
    let of_type = |number: u64| (number << 48, number << 48 | ((1 << 48) - 1));
    let lower = word.text.to_ascii_lowercase();
    if let Some((_, numbers)) = SEVERAL_TYPES.iter().find(|(name, _)| *name == lower) {
        return numbers.iter().copied().map(of_type).collect();
    }
    if let Some((_, number)) = INTERFACE_TYPES.iter().find(|(name, _)| *name == lower) {
        return vec![of_type(*number)];
    }
    if let Some(number) = lower.strip_prefix("type:").and_then(|number| number.parse::<u16>().ok()).filter(|n| *n > 0) {
        return vec![of_type(number.into())];
    }
    if let Some(luid) = lower.strip_prefix("luid:").and_then(luid).filter(|luid| *luid > 0) {
        return vec![(luid, luid)];
    }
    context.expected(
        &word.at,
        format!("`{}` is not an interface", word.text),
        "`ethernet`, `wireless`, `mobile`, `vpn`, `ppp`, `loopback`, `virtual`, `tunnel`, `type:NUMBER`, `luid:NUMBER` or `alias:NAME`",
    );
    Vec::new()
}

/// A LUID in decimal or `0x` form.
pub(super) fn luid(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `192.0.2.1:443`, `[2001:db8::1]:443`, or an address alone. One with a zone is none: rules do not see zones.
pub(super) fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    if text.contains('%') {
        return None;
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some((address.ip().to_canonical(), address.port()));
    }
    text.parse().ok().map(|address: IpAddr| (address.to_canonical(), 0))
}

/// Whole seconds or minutes: `30s`, `2m`.
pub(super) fn seconds(text: &str) -> Option<u8> {
    let (number, each) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s')?, 1),
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u8>().ok().filter(|_| digits)?.checked_mul(each)
}
