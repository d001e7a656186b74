//! `netsh wfp show netevents`.
//!
//! Order and spelling follow the samples in Microsoft's windows-itpro-docs: quarantine.md (October 2020, with the
//! filter's origin and the interface, which came with Windows 11: "Filter origin audit log") and
//! troubleshooting-uwp-firewall.md (earlier that year, without them). A classifyAllow ends after currentProfile there,
//! although the structure goes on; so it does here. Program ids read as one character for each byte there, dots for
//! NULs, and so they do in aleConnectedEndpoints of the live wfpstate.xml that keploy/keploy has. Windows 11 24H2
//! spells the types `..._PUBLIC_CLASSIFY_DROP` and `..._ALLOW`, as readers of its files expect; they also read an
//! internalFields/processId, but no sample shows where it stands, nor whether netEvents has numItems, so neither is
//! written.

use super::{Xml, flags, time, value};
use crate::FilterEngine;
use crate::Verdict;
use crate::layers::WindowsVersion;
use crate::names::Named;
use crate::netevent::{Direction, NetEvent, NetEventKind};
use crate::security::Sid;
use std::io::{self, Write};
use std::net::IpAddr;

/// Writes the net events, oldest first.
///
/// # Errors
/// Those of `out`.
pub fn net_events(engine: &FilterEngine, out: impl Write) -> io::Result<()> {
    let version = engine.layers().version();
    let mut xml = Xml::new(out)?;
    let events = engine.events.to_vec();
    if events.is_empty() {
        xml.empty("netEvents")?;
        return xml.finish();
    }
    xml.element("netEvents", |xml| {
        events.iter().try_for_each(|event| xml.element("item", |xml| item(xml, event, version)))
    })?;
    xml.finish()
}

/// Whether net events tell of the filter's origin and the interface: Windows 11's do, and of the versions here, 22H2 and
/// 24H2 are also its.
fn tells_origin(version: WindowsVersion) -> bool {
    matches!(version, WindowsVersion::Win22H2 | WindowsVersion::Win24H2)
}

fn item<W: Write>(xml: &mut Xml<W>, event: &NetEvent, version: WindowsVersion) -> io::Result<()> {
    let public = if version == WindowsVersion::Win24H2 { "PUBLIC_" } else { "" };
    xml.element("header", |xml| header(xml, event))?;
    match event.kind {
        NetEventKind::ClassifyDrop => {
            xml.text("type", format!("FWPM_NET_EVENT_TYPE_{public}CLASSIFY_DROP"))?;
            xml.element("classifyDrop", |xml| {
                decision(xml, event)?;
                xml.text("msFwpDirection", direction(event.direction))?;
                xml.text("isLoopback", event.loopback)?;
                xml.empty("vSwitchId")?;
                xml.text("vSwitchSourcePort", 0)?;
                xml.text("vSwitchDestinationPort", 0)
            })?;
        }
        NetEventKind::ClassifyAllow => {
            xml.text("type", format!("FWPM_NET_EVENT_TYPE_{public}CLASSIFY_ALLOW"))?;
            xml.element("classifyAllow", |xml| decision(xml, event))?;
        }
    }
    xml.element("internalFields", |xml| {
        xml.empty("internalFlags")?;
        xml.empty("capabilities")?;
        xml.text("fqbnVersion", 0)?;
        xml.empty("fqbnName")?;
        xml.items("terminatingFiltersInfo", &event.terminating, |xml, filter| {
            xml.element("item", |xml| {
                xml.text("filterId", filter.filter_id)?;
                xml.text("subLayer", Named(filter.sublayer))?;
                let action = match filter.verdict {
                    Verdict::Permit => "FWP_ACTION_PERMIT",
                    Verdict::Block => "FWP_ACTION_BLOCK",
                };
                xml.text("actionType", action)
            })
        })?;
        if tells_origin(version) {
            xml.empty("filterOrigin")?; // a rule of Windows Firewall or the name of one of its defaults: never here
            xml.text("interfaceIndex", event.interface)?;
        }
        Ok(())
    })
}

fn header<W: Write>(xml: &mut Xml<W>, event: &NetEvent) -> io::Result<()> {
    let v6 = match event.local.or(event.remote) {
        Some(IpAddr::V4(_)) => Some(false),
        Some(IpAddr::V6(_)) => Some(true),
        None => None,
    };
    xml.text("timeStamp", time(event.time))?;
    xml.flags("flags", event.flags(), flags::NET_EVENT)?;
    let ip_version = match v6 {
        Some(false) => "FWP_IP_VERSION_V4",
        Some(true) => "FWP_IP_VERSION_V6",
        None => "FWP_IP_VERSION_NONE",
    };
    xml.text("ipVersion", ip_version)?;
    xml.text("ipProtocol", event.protocol.unwrap_or(0))?;
    address(xml, "local", event.local, v6)?;
    address(xml, "remote", event.remote, v6)?;
    xml.text("localPort", event.local_port.unwrap_or(0))?;
    xml.text("remotePort", event.remote_port.unwrap_or(0))?;
    xml.text("scopeId", event.scope_id.unwrap_or(0))?;
    xml.blob("appId", event.app_id.as_deref().unwrap_or_default(), value::printable)?;
    xml.text("userId", event.user.as_ref().map(Sid::to_string).unwrap_or_default())?;
    let family = match v6 {
        Some(false) => "FWP_AF_INET",
        Some(true) => "FWP_AF_INET6",
        None => "FWP_AF_NONE",
    };
    xml.text("addressFamily", family)?;
    xml.text("packageSid", event.package.as_ref().unwrap_or(&Sid::null()))?;
    xml.empty("enterpriseId")?;
    xml.text("policyFlags", 0)?;
    xml.empty("effectiveName")
}

/// `localAddrV4`, or `localAddrV6.byteArray16`, which is the element's real name.
fn address<W: Write>(xml: &mut Xml<W>, side: &str, address: Option<IpAddr>, v6: Option<bool>) -> io::Result<()> {
    let text = |unset: &str| address.map_or_else(|| unset.to_owned(), |address| address.to_string());
    match v6 {
        Some(true) => xml.text(&format!("{side}AddrV6.byteArray16"), text("::")),
        _ => xml.text(&format!("{side}AddrV4"), text("0.0.0.0")),
    }
}

fn decision<W: Write>(xml: &mut Xml<W>, event: &NetEvent) -> io::Result<()> {
    xml.text("filterId", event.filter_id)?;
    xml.text("layerId", event.layer.0)?;
    xml.text("reauthReason", event.reauth_reason)?;
    xml.text("originalProfile", event.original_profile)?;
    xml.text("currentProfile", event.current_profile)
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "MS_FWP_DIRECTION_IN",
        Direction::Out => "MS_FWP_DIRECTION_OUT",
        Direction::Forward => "MS_FWP_DIRECTION_FORWARD",
    }
}
