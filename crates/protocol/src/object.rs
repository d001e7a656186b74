//! The WFP objects that belong to us, under GUIDs that never change.

/// A GUID as its 128 bits read: the first hexadecimal digit is the highest.
pub type GuidBits = u128;

/// Our provider.
pub const PROVIDER: GuidBits = 0xb24b702c_4e2a_4a61_9888_2076da07973f;
/// Our sublayer.
pub const SUBLAYER: GuidBits = 0x8fddff7a_47d4_4ab0_8d30_d1b4bc03d3ef;
/// Our sublayer's weight: above the sublayers of Windows' own firewall, below none that wants to come first.
pub const SUBLAYER_WEIGHT: u16 = 0x9000;
/// The name our provider, sublayer, callouts and filters begin with.
pub const NAME: &str = "Sluicegate";

/// What a callout may answer, and so which filter action calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Permit, block or continue: FWP_ACTION_CALLOUT_UNKNOWN.
    Decide,
    /// Always continue: FWP_ACTION_CALLOUT_INSPECTION.
    Observe,
}

/// A place in the stack where the driver is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// connect(), or the first packet of an outbound conversation.
    Connect,
    /// The first packet of an inbound conversation.
    Accept,
    /// A conversation is established and gets its flow context.
    Established,
    /// TCP data in order, both ways.
    Stream,
    /// A packet about to be sent.
    OutboundTransport,
    /// A packet received.
    InboundTransport,
}

/// One callout and the filter that calls it.
#[derive(Clone, Copy, Debug)]
pub struct CalloutObject {
    /// The place.
    pub point: Point,
    /// 4 or 6.
    pub ip_version: u8,
    /// calloutKey.
    pub callout: GuidBits,
    /// filterKey of the one filter that calls it.
    pub filter: GuidBits,
    /// layerKey.
    pub layer: GuidBits,
    /// The run-time layer id (FWPS_LAYER_*): equal in every Windows since Vista.
    pub layer_id: u16,
    /// The layer's name without its FWPM_LAYER_ prefix.
    pub name: &'static str,
    /// What it may answer.
    pub role: Role,
}

const fn object(
    point: Point,
    ip_version: u8,
    number: u128,
    layer: GuidBits,
    layer_id: u16,
    name: &'static str,
) -> CalloutObject {
    let role = match point {
        Point::Established => Role::Observe,
        _ => Role::Decide,
    };
    CalloutObject {
        point,
        ip_version,
        callout: CALLOUT_BASE + number,
        filter: FILTER_BASE + number,
        layer,
        layer_id,
        name,
        role,
    }
}

const CALLOUT_BASE: GuidBits = 0x60ad1b93_635d_4cc4_b275_c9e66f39bf00;
const FILTER_BASE: GuidBits = 0xa4b6a1d8_2d7b_4b5a_bfa4_3815b2840700;

/// Every callout, in the order in which the driver registers them. Numbers already given stay; new ones come behind.
pub const CALLOUTS: [CalloutObject; 12] = [
    object(Point::Connect, 4, 1, 0xc38d57d1_05a7_4c33_904f_7fbceee60e82, 48, "ALE_AUTH_CONNECT_V4"),
    object(Point::Connect, 6, 2, 0x4a72393b_319f_44bc_84c3_ba54dcb3b6b4, 50, "ALE_AUTH_CONNECT_V6"),
    object(Point::Accept, 4, 3, 0xe1cd9fe7_f4b5_4273_96c0_592e487b8650, 44, "ALE_AUTH_RECV_ACCEPT_V4"),
    object(Point::Accept, 6, 4, 0xa3b42c97_9f04_4672_b87e_cee9c483257f, 46, "ALE_AUTH_RECV_ACCEPT_V6"),
    object(Point::Established, 4, 5, 0xaf80470a_5596_4c13_9992_539e6fe57967, 52, "ALE_FLOW_ESTABLISHED_V4"),
    object(Point::Established, 6, 6, 0x7021d2b3_dfa4_406e_afeb_6afaf7e70efd, 54, "ALE_FLOW_ESTABLISHED_V6"),
    object(Point::Stream, 4, 7, 0x3b89653c_c170_49e4_b1cd_e0eeeee19a3e, 20, "STREAM_V4"),
    object(Point::Stream, 6, 8, 0x47c9137a_7ec4_46b3_b6e4_48e926b1eda4, 22, "STREAM_V6"),
    object(Point::OutboundTransport, 4, 9, 0x09e61aea_d214_46e2_9b21_b26b0b2f28c8, 16, "OUTBOUND_TRANSPORT_V4"),
    object(Point::OutboundTransport, 6, 10, 0xe1735bde_013f_4655_b351_a49e15762df0, 18, "OUTBOUND_TRANSPORT_V6"),
    object(Point::InboundTransport, 4, 11, 0x5926dfc8_e3cf_4426_a283_dc393f5d0f9d, 12, "INBOUND_TRANSPORT_V4"),
    object(Point::InboundTransport, 6, 12, 0x634a869f_fc23_4b90_b0c1_bf620a36ae6f, 14, "INBOUND_TRANSPORT_V6"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_objects_share_a_guid() {
        let mut all: Vec<_> =
            CALLOUTS.iter().flat_map(|object| [object.callout, object.filter, object.layer]).collect();
        all.extend([PROVIDER, SUBLAYER]);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
