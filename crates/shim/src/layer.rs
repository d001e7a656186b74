//! The layers a packet passes, with their run-time identifiers.

/// The version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The direction of a packet, or of the packet that opened a flow. The numbers are those of `FWP_DIRECTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Direction {
    /// From this machine.
    Outbound = 0,
    /// To this machine.
    Inbound = 1,
}

impl Direction {
    /// The opposite direction.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Outbound => Self::Inbound,
            Self::Inbound => Self::Outbound,
        }
    }

    /// "outbound" or "inbound".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// A layer of the filter engine, without its IP version.
///
/// Run-time identifiers: `FWPS_BUILTIN_LAYERS` in fwpsk.h. Those used here have not changed since Windows 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of FWPS_LAYER_*")]
pub enum Layer {
    InboundIpPacket,
    OutboundIpPacket,
    IpForward,
    InboundTransport,
    InboundTransportDiscard,
    OutboundTransport,
    Stream,
    DatagramData,
    InboundIcmpError,
    OutboundIcmpError,
    AleResourceAssignment,
    AleAuthListen,
    AleAuthRecvAccept,
    AleAuthConnect,
    AleFlowEstablished,
    AleResourceRelease,
    AleEndpointClosure,
    AleConnectRedirect,
    AleBindRedirect,
}

impl Layer {
    /// Every layer the shim indicates to.
    pub const ALL: [Self; 19] = [
        Self::InboundIpPacket,
        Self::OutboundIpPacket,
        Self::IpForward,
        Self::InboundTransport,
        Self::InboundTransportDiscard,
        Self::OutboundTransport,
        Self::Stream,
        Self::DatagramData,
        Self::InboundIcmpError,
        Self::OutboundIcmpError,
        Self::AleResourceAssignment,
        Self::AleAuthListen,
        Self::AleAuthRecvAccept,
        Self::AleAuthConnect,
        Self::AleFlowEstablished,
        Self::AleResourceRelease,
        Self::AleEndpointClosure,
        Self::AleConnectRedirect,
        Self::AleBindRedirect,
    ];

    /// The run-time identifier (`FWPS_LAYER_*`).
    #[must_use]
    pub const fn id(self, version: IpVersion) -> u16 {
        // Up to ALE_FLOW_ESTABLISHED each layer is followed by its _DISCARD twin, so V6 is two further on.
        let (v4, step) = match self {
            Self::InboundIpPacket => (0, 2),
            Self::OutboundIpPacket => (4, 2),
            Self::IpForward => (8, 2),
            Self::InboundTransport => (12, 2),
            Self::InboundTransportDiscard => (13, 2),
            Self::OutboundTransport => (16, 2),
            Self::Stream => (20, 2),
            Self::DatagramData => (24, 2),
            Self::InboundIcmpError => (28, 2),
            Self::OutboundIcmpError => (32, 2),
            Self::AleResourceAssignment => (36, 2),
            Self::AleAuthListen => (40, 2),
            Self::AleAuthRecvAccept => (44, 2),
            Self::AleAuthConnect => (48, 2),
            Self::AleFlowEstablished => (52, 2),
            Self::AleResourceRelease => (62, 1),
            Self::AleEndpointClosure => (64, 1),
            Self::AleConnectRedirect => (66, 1),
            Self::AleBindRedirect => (68, 1),
        };
        match version {
            IpVersion::V4 => v4,
            IpVersion::V6 => v4 + step,
        }
    }

    /// The name in the form of fwpmu.h, without `FWPM_LAYER_`.
    #[must_use]
    pub const fn name(self, version: IpVersion) -> &'static str {
        macro_rules! by_version {
            ($name:literal) => {
                match version {
                    IpVersion::V4 => concat!($name, "_V4"),
                    IpVersion::V6 => concat!($name, "_V6"),
                }
            };
        }
        match self {
            Self::InboundIpPacket => by_version!("INBOUND_IPPACKET"),
            Self::OutboundIpPacket => by_version!("OUTBOUND_IPPACKET"),
            Self::IpForward => by_version!("IPFORWARD"),
            Self::InboundTransport => by_version!("INBOUND_TRANSPORT"),
            Self::InboundTransportDiscard => match version {
                IpVersion::V4 => "INBOUND_TRANSPORT_V4_DISCARD",
                IpVersion::V6 => "INBOUND_TRANSPORT_V6_DISCARD",
            },
            Self::OutboundTransport => by_version!("OUTBOUND_TRANSPORT"),
            Self::Stream => by_version!("STREAM"),
            Self::DatagramData => by_version!("DATAGRAM_DATA"),
            Self::InboundIcmpError => by_version!("INBOUND_ICMP_ERROR"),
            Self::OutboundIcmpError => by_version!("OUTBOUND_ICMP_ERROR"),
            Self::AleResourceAssignment => by_version!("ALE_RESOURCE_ASSIGNMENT"),
            Self::AleAuthListen => by_version!("ALE_AUTH_LISTEN"),
            Self::AleAuthRecvAccept => by_version!("ALE_AUTH_RECV_ACCEPT"),
            Self::AleAuthConnect => by_version!("ALE_AUTH_CONNECT"),
            Self::AleFlowEstablished => by_version!("ALE_FLOW_ESTABLISHED"),
            Self::AleResourceRelease => by_version!("ALE_RESOURCE_RELEASE"),
            Self::AleEndpointClosure => by_version!("ALE_ENDPOINT_CLOSURE"),
            Self::AleConnectRedirect => by_version!("ALE_CONNECT_REDIRECT"),
            Self::AleBindRedirect => by_version!("ALE_BIND_REDIRECT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_windows() {
        assert_eq!(Layer::AleAuthConnect.id(IpVersion::V4), 48);
        assert_eq!(Layer::AleAuthConnect.id(IpVersion::V6), 50);
        assert_eq!(Layer::AleAuthRecvAccept.id(IpVersion::V6), 46);
        assert_eq!(Layer::InboundTransport.id(IpVersion::V6), 14);
        assert_eq!(Layer::AleEndpointClosure.id(IpVersion::V6), 65);
        assert_eq!(Layer::AleResourceRelease.id(IpVersion::V4), 62);
    }

    #[test]
    fn no_two_layers_share_an_id() {
        let mut ids: Vec<u16> = Layer::ALL.iter().flat_map(|l| [l.id(IpVersion::V4), l.id(IpVersion::V6)]).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 2 * Layer::ALL.len());
    }
}
