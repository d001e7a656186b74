//! The indexes of the fields that a decision needs, by layer.

use wfp_sys::layers::Layer;

/// Indexes into the values of a classify, the same for the IPv4 and the IPv6 form of a layer; [`Fields::ABSENT`] for
/// those the layer does not have. An index is valid only below the engine's value count, which every reader of
/// [`super::Classify`] checks.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// IP_LOCAL_ADDRESS; IP_SOURCE_ADDRESS of a packet that is passed on.
    pub local_address: u16,
    /// IP_LOCAL_PORT; ICMP_TYPE where the layer is about ICMP.
    pub local_port: u16,
    /// IP_REMOTE_ADDRESS; IP_DESTINATION_ADDRESS of a packet that is passed on.
    pub remote_address: u16,
    /// IP_REMOTE_PORT; ICMP_CODE where the layer is about ICMP.
    pub remote_port: u16,
    /// IP_PROTOCOL.
    pub protocol: u16,
    /// FLAGS.
    pub flags: u16,
    /// ALE_APP_ID.
    pub application: u16,
    /// ALE_USER_ID.
    pub user: u16,
    /// ALE_PACKAGE_ID.
    pub package: u16,
    /// IP_LOCAL_INTERFACE (NET_LUID).
    pub interface: u16,
    /// DIRECTION (FWP_DIRECTION), if the layer sees both.
    pub direction: u16,
    /// ALE_PROMISCUOUS_MODE: SIO_RCVALL and its like where a program asks for every packet, otherwise 0.
    pub promiscuous: u16,
}

impl Fields {
    /// An index beyond the values of any layer.
    pub const ABSENT: u16 = u16::MAX;

    /// The fields of the layer with the run-time id `v4` and of its IPv6 form, from the headers' numbers. In a
    /// constant, a layer that the bindings do not know, or whose two forms differ, does not compile.
    #[must_use]
    pub const fn of(v4: u16, v6: u16) -> Self {
        Self {
            local_address: either(v4, v6, "IP_LOCAL_ADDRESS", "IP_SOURCE_ADDRESS"),
            local_port: either(v4, v6, "IP_LOCAL_PORT", "ICMP_TYPE"),
            remote_address: either(v4, v6, "IP_REMOTE_ADDRESS", "IP_DESTINATION_ADDRESS"),
            remote_port: either(v4, v6, "IP_REMOTE_PORT", "ICMP_CODE"),
            protocol: index(v4, v6, "IP_PROTOCOL"),
            flags: index(v4, v6, "FLAGS"),
            application: index(v4, v6, "ALE_APP_ID"),
            user: index(v4, v6, "ALE_USER_ID"),
            package: index(v4, v6, "ALE_PACKAGE_ID"),
            interface: index(v4, v6, "IP_LOCAL_INTERFACE"),
            direction: index(v4, v6, "DIRECTION"),
            promiscuous: index(v4, v6, "ALE_PROMISCUOUS_MODE"),
        }
    }
}

const fn index(v4: u16, v6: u16, field: &str) -> u16 {
    either(v4, v6, field, field)
}

/// The field that each form of the layer has under one of two names.
const fn either(v4: u16, v6: u16, name: &str, other: &str) -> u16 {
    match (named(v4, name, other), named(v6, name, other)) {
        (Some(v4), Some(v6)) if v4 == v6 => v4,
        (None, None) => Fields::ABSENT,
        _ => panic!("the IPv4 and the IPv6 form of the layer keep a field in different places"),
    }
}

const fn named(id: u16, name: &str, other: &str) -> Option<u16> {
    match layer(id).field(name) {
        Some(index) => Some(index),
        None => layer(id).field(other),
    }
}

/// Whether the headers give the layer with this run-time id this name, without FWPS_LAYER_. For use in constants.
#[must_use]
pub const fn is_layer(id: u16, name: &str) -> bool {
    layer(id).is_named(name)
}

const fn layer(id: u16) -> Layer {
    match Layer::with_id(id) {
        Some(layer) => layer,
        None => panic!("the bindings have no fields for this layer"),
    }
}
