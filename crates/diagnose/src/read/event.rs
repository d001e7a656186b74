//! Net events, and the audits of the Security log that tell of drops.

use super::ReadError;
use super::convert::hex;
use super::tree::Node;
use crate::record::{Action, Direction, Ends, EventKind, NetEvent, Terminating, wide};
use std::net::IpAddr;
use std::str::FromStr;

/// `netEvents/item` or `events/netEvent`.
pub(super) fn net_event(node: &Node) -> Result<NetEvent, ReadError> {
    let header = node.require("header")?;
    let kind = EventKind::parse(node.require_text("type")?);
    let body = ["classifyDrop", "classifyAllow", "capabilityDrop", "capabilityAllow", "classifyDropMac"]
        .into_iter()
        .find_map(|name| node.child(name));
    let internal = node.child("internalFields");
    // What is not set has a zero there, which means nothing.
    let flags = header.items_of("flags");
    let set = |what: &str| {
        flags.iter().any(|flag| {
            flag.strip_prefix("FWPM_NET_EVENT_FLAG_").and_then(|flag| flag.strip_suffix("_SET")) == Some(what)
        })
    };
    Ok(NetEvent {
        time: header.require_text("timeStamp")?.to_owned(),
        kind,
        protocol: if set("IP_PROTOCOL") { header.number_of("ipProtocol")? } else { None },
        local: if set("LOCAL_ADDR") { address(header, "local")? } else { None },
        local_port: if set("LOCAL_PORT") { header.number_of("localPort")? } else { None },
        remote: if set("REMOTE_ADDR") { address(header, "remote")? } else { None },
        remote_port: if set("REMOTE_PORT") { header.number_of("remotePort")? } else { None },
        ends: Ends::LocalRemote,
        app: match header.child("appId") {
            Some(app) if set("APP_ID") => program(app)?,
            _ => None,
        },
        user: header.text_of("userId").filter(|_| set("USER_ID")).map(str::to_owned),
        package: header.text_of("packageSid").filter(|sid| set("PACKAGE_ID") && *sid != "S-1-0-0").map(str::to_owned),
        filter_id: body.map_or(Ok(None), |body| body.number_of("filterId"))?,
        layer_id: body.map_or(Ok(None), |body| body.number_of("layerId"))?,
        direction: body.and_then(|body| direction(body.text_of("msFwpDirection")?)),
        loopback: body.and_then(|body| body.text_of("isLoopback")).map(|text| text == "true"),
        terminating: internal
            .and_then(|internal| internal.child("terminatingFiltersInfo"))
            .map_or(Ok(Vec::new()), |all| all.children.iter().map(terminating).collect())?,
        origin: internal.and_then(|internal| internal.text_of("filterOrigin")).map(str::to_owned),
        interface: internal
            .map_or(Ok(None), |internal| internal.number_of("interfaceIndex"))?
            .filter(|index| *index != 0),
        process: match header.number_of("processId")? {
            Some(process) => Some(process),
            None => internal.map_or(Ok(None), |internal| internal.number_of("processId"))?,
        },
    })
}

fn terminating(node: &Node) -> Result<Terminating, ReadError> {
    Ok(Terminating {
        filter_id: node.require_number("filterId")?,
        sublayer: node.owned("subLayer"),
        action: Action::parse(node.text_of("actionType").unwrap_or_default()),
    })
}

/// `localAddrV4`, or `localAddrV6.byteArray16`, which is the element's real name; a reader of newer files expects
/// `localAddrV6`.
fn address(header: &Node, side: &str) -> Result<Option<IpAddr>, ReadError> {
    let names = [format!("{side}AddrV4"), format!("{side}AddrV6.byteArray16"), format!("{side}AddrV6")];
    let Some(node) = names.iter().find_map(|name| header.child(name)) else { return Ok(None) };
    parsed(node, "an IP address").map(Some)
}

fn parsed<T: FromStr>(node: &Node, expected: &str) -> Result<T, ReadError> {
    let text = node.text.trim();
    let shown: String = text.chars().take(60).collect();
    let wrong = || ReadError::at(node.line, format!("<{}> is {shown:?}: {expected} was expected", node.name));
    text.parse().map_err(|_| wrong())
}

/// A program's id: its data is UTF-16, while its text differs between versions of Windows.
fn program(node: &Node) -> Result<Option<String>, ReadError> {
    let bytes = node.child("data").map(hex).transpose()?.unwrap_or_default();
    Ok(wide(&bytes).or_else(|| node.text_of("asString").map(str::to_owned)))
}

fn direction(text: &str) -> Option<Direction> {
    // fwpmtypes.h: MS_FWP_DIRECTION_IN, _OUT and _FORWARD are 0x3900 to 0x3902.
    Some(match text {
        "MS_FWP_DIRECTION_IN" | "FWP_DIRECTION_IN" | "14592" => Direction::In,
        "MS_FWP_DIRECTION_OUT" | "FWP_DIRECTION_OUT" | "14593" => Direction::Out,
        "MS_FWP_DIRECTION_FORWARD" | "FWP_DIRECTION_FORWARD" | "14594" => Direction::Forward,
        _ => return None,
    })
}

/// The audits that tell of a drop: packet, connection, application that must not listen, and the firewall's own.
const AUDITS: [(u32, &str); 8] = [
    (5031, "the firewall kept a program from accepting connections"),
    (5150, "a packet was blocked"),
    (5151, "a packet was blocked by a more restrictive filter"),
    (5152, "a packet was blocked"),
    (5153, "a packet was blocked by a more restrictive filter"),
    (5155, "a program was kept from listening"),
    (5157, "a connection was blocked"),
    (5159, "a program was kept from binding a port"),
];

/// What an audit is about.
#[must_use]
pub fn audit_name(number: u32) -> Option<&'static str> {
    AUDITS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// An `Event` of the Security log; `None` when it is no audit of a drop.
pub(super) fn audit(node: &Node) -> Result<Option<(u32, NetEvent)>, ReadError> {
    let system = node.require("System")?;
    let number: u32 = system.require_number("EventID")?;
    if !AUDITS.iter().any(|(known, _)| *known == number) {
        return Ok(None);
    }
    let time =
        system.child("TimeCreated").and_then(|time| time.attributes.iter().find(|(name, _)| &**name == "SystemTime"));
    let empty = Node::default();
    let data = node.child("EventData").unwrap_or(&empty);
    let fields: Vec<(&str, &Node)> = data
        .children
        .iter()
        .filter_map(|field| {
            let (_, name) = field.attributes.iter().find(|(key, _)| &**key == "Name")?;
            Some((name.as_str(), field))
        })
        .collect();
    from_fields(number, time.map(|(_, time)| time.clone()).unwrap_or_default(), &fields)
        .map(|event| Some((number, event)))
}

/// An audit from its named fields.
fn from_fields(number: u32, time: String, fields: &[(&str, &Node)]) -> Result<NetEvent, ReadError> {
    let field = |name: &str| fields.iter().find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, node)| *node);
    let text = |name: &str| field(name).map(|node| node.text.trim()).filter(|text| !matches!(*text, "" | "-"));
    fn number_in<T: FromStr>(node: Option<&Node>) -> Result<Option<T>, ReadError> {
        match node {
            Some(node) if !matches!(node.text.trim(), "" | "-") => parsed(node, "a number").map(Some),
            _ => Ok(None),
        }
    }
    let end = |name: &str| match field(name) {
        Some(node) if !matches!(node.text.trim(), "" | "-") => parsed(node, "an IP address").map(Some),
        _ => Ok(None),
    };
    Ok(NetEvent {
        time,
        kind: EventKind::Drop,
        protocol: number_in(field("Protocol"))?,
        local: end("SourceAddress")?,
        local_port: number_in(field("SourcePort"))?,
        remote: end("DestAddress")?,
        remote_port: number_in(field("DestPort"))?,
        ends: Ends::SourceDestination,
        app: text("Application").map(str::to_owned),
        user: text("UserID").filter(|sid| *sid != "S-1-0-0").map(str::to_owned),
        package: None,
        filter_id: number_in(field("FilterRTID"))?,
        layer_id: number_in(field("LayerRTID"))?,
        direction: match text("Direction") {
            Some("%%14592") => Some(Direction::In),
            Some("%%14593") => Some(Direction::Out),
            Some("%%14594") => Some(Direction::Forward),
            // 5031 is about accepting.
            _ if number == 5031 => Some(Direction::In),
            _ => None,
        },
        loopback: None,
        terminating: Vec::new(),
        origin: text("FilterOrigin").filter(|origin| *origin != "Unknown").map(str::to_owned),
        interface: number_in(field("InterfaceIndex"))?,
        process: match text("ProcessID") {
            Some(process) => match process.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => process.parse().ok(),
            },
            None => None,
        },
    })
}
