//! The client side's loopback interface, whose packets this process reads and writes.
//!
//! Linux hands what a program sends to its own machine over on `lo`: for 127.0.0.0/8, for `::1`, and for the addresses of
//! every other interface. Filters of traffic control lead what leaves `lo` out through a TUN device, and what is written
//! to that device in through `lo`. So nothing arrives that this process has not passed on, and programs see the addresses
//! they asked for.

use super::error::NetError;
use super::link::{Links, link_error, sysctl, try_sysctl};
use super::tun::Tun;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
    TcFilterU32, TcFilterU32Option, TcHandle, TcHeader, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};

/// The device beside `lo`.
const BESIDE: &str = "loop0";

/// Opens the loopback interface of the calling thread's namespace.
///
/// # Errors
/// [`NetError`] where the kernel was built without what this takes, or /proc/sys is read-only; `lo` is then as it was.
pub(super) fn open(links: &mut Links) -> Result<Tun, NetError> {
    // A packet that comes in anew is judged as one from outside: by default Linux drops it for a source of this machine,
    // and for an address of 127.0.0.0/8.
    for name in ["route_localnet", "accept_local"] {
        try_sysctl(&format!("net.ipv4.conf.lo.{name}"), "1")?;
    }
    for interface in ["all", "lo"] {
        try_sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0")?;
    }
    let tun = Tun::open(BESIDE)?;
    sysctl(&format!("net.ipv6.conf.{BESIDE}.disable_ipv6"), "1"); // no route of its own, for groups neither
    let (lo, beside) = (links.up("lo")?, links.up(BESIDE)?);
    links.lead(Way::In, beside, lo)?;
    links.lead(Way::Out, lo, beside)?; // the last: from here on nothing arrives by itself
    Ok(tun)
}

/// A way through an interface, as traffic control sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Into the machine.
    In,
    /// Out of it.
    Out,
}

impl Way {
    const fn place(self) -> u16 {
        match self {
            Self::In => TcHandle::MIN_INGRESS,
            Self::Out => TcHandle::MIN_EGRESS,
        }
    }

    const fn redirection(self) -> TcMirrorActionType {
        match self {
            Self::In => TcMirrorActionType::IngressRedir,
            Self::Out => TcMirrorActionType::EgressRedir,
        }
    }
}

impl Links {
    /// Leads every packet that goes one way through the interface `from` the same way through another.
    ///
    /// # Errors
    /// [`NetError::Link`] with the kernel's answer: it may have been built without what this takes.
    fn lead(&mut self, way: Way, from: u32, to: u32) -> Result<(), NetError> {
        let failed = |what: &'static str| move |source| link_error(format!("{what} interface {from}"), source);
        let about = |handle, parent| {
            let mut header = TcHeader::default();
            (header.index, header.handle, header.parent) = (from as i32, handle, parent);
            TcMessage::from_parts(header, Vec::new())
        };
        let mut hook = about(TcHandle { major: TcHandle::CLSACT.major, minor: 0 }, TcHandle::CLSACT);
        hook.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        self.ask(RouteNetlinkMessage::NewQueueDiscipline(hook), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed("filter (sch_ingress) at"))?;

        let mut mirror = TcMirror::default();
        (mirror.generic.action, mirror.eaction, mirror.ifindex) = (TcActionType::Stolen, way.redirection(), to);
        let mut action = TcAction::default();
        action.attributes.push(TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()));
        let mirror = TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror));
        action.attributes.push(TcActionAttribute::Options(vec![mirror]));
        // One key that every packet has: of its first four bytes, none is looked at.
        let mut any = TcU32Selector::default();
        (any.flags, any.nkeys, any.keys) = (TcU32SelectorFlags::Terminal, 1, vec![TcU32Key::default()]);
        let mut filter = about(TcHandle::UNSPEC, TcHandle { minor: way.place(), ..TcHandle::CLSACT });
        filter.header.info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be()); // the first, for every protocol
        filter.attributes.push(TcAttribute::Kind(TcFilterU32::KIND.to_owned()));
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(any)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]));
        self.ask(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed("redirect (cls_u32, act_mirred) at"))
    }
}
