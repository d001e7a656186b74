//! The WFP objects that belong to us, under GUIDs that never change.

/// A GUID from its 128 bits as written: the first hexadecimal digit is the highest.
pub type GuidBits = u128;

/// Our provider.
pub const PROVIDER: GuidBits = 0xb24b702c_4e2a_4a61_9888_2076da07973f;
/// Our sublayer.
pub const SUBLAYER: GuidBits = 0x8fddff7a_47d4_4ab0_8d30_d1b4bc03d3ef;
/// Our sublayer's weight: above the sublayers of Windows' own firewall, but below any that must come first.
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
    /// TCP data in order, both ways, of a connection whose content is looked at.
    Stream,
    /// A packet about to be sent.
    OutboundTransport,
    /// A packet received.
    InboundTransport,
    /// A packet to be passed on between other machines.
    Forward,
    /// A received packet that the transport layer discards, as for want of a socket.
    InboundDiscard,
    /// An ICMP error about to be sent.
    OutboundIcmpError,
    /// A datagram, both ways, of a flow whose content is looked at.
    Datagrams,
    /// bind(), or what else gives a socket its port or its protocol.
    Bind,
    /// listen() of TCP.
    Listen,
}

/// Which flows carry a context of ours to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// None: the layer comes before the flow, or makes the context.
    None,
    /// Every established flow.
    EveryFlow,
    /// TCP's whose content is looked at. The layer sees only flows that carry a context
    /// (FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW).
    LookedAtTcp,
    /// UDP's whose content is looked at, likewise.
    LookedAtUdp,
}

/// A layer at which the driver is asked, for IPv4 and IPv6.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The place in the stack.
    pub point: Point,
    /// What its callouts may answer.
    pub role: Role,
    /// Which flows carry a context there.
    pub carried: Carried,
    /// The IPv4 form.
    pub v4: LayerForm,
    /// The IPv6 form.
    pub v6: LayerForm,
    /// The name without its FWPM_LAYER_ prefix and its version.
    pub name: &'static str,
    /// What the driver does there, in a few words.
    pub about: &'static str,
}

/// One of the two forms of a layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerForm {
    /// The name without its FWPM_LAYER_ prefix.
    pub name: &'static str,
    /// The run-time id (FWPS_LAYER_*): equal in every Windows since Vista.
    pub id: u16,
    /// layerKey.
    pub key: GuidBits,
}

macro_rules! layer {
    ($point:ident $name:ident + $suffix:ident $role:ident $carried:ident V4 $v4:literal $v4_key:literal V6 $v6:literal $v6_key:literal $about:literal) => {
        Layer {
            v4: LayerForm {
                name: concat!(stringify!($name), "_V4_", stringify!($suffix)),
                id: $v4,
                key: $v4_key,
            },
            v6: LayerForm {
                name: concat!(stringify!($name), "_V6_", stringify!($suffix)),
                id: $v6,
                key: $v6_key,
            },
            name: concat!(stringify!($name), "_", stringify!($suffix)),
            ..layer!($point $name $role $carried V4 $v4 $v4_key V6 $v6 $v6_key $about)
        }
    };
    ($point:ident $name:ident $role:ident $carried:ident V4 $v4:literal $v4_key:literal V6 $v6:literal $v6_key:literal $about:literal) => {
        Layer {
            point: Point::$point,
            role: Role::$role,
            carried: Carried::$carried,
            v4: LayerForm { name: concat!(stringify!($name), "_V4"), id: $v4, key: $v4_key },
            v6: LayerForm { name: concat!(stringify!($name), "_V6"), id: $v6, key: $v6_key },
            name: stringify!($name),
            about: $about,
        }
    };
}

/// Every layer, one row each. Rows keep their order, because our objects' GUIDs are numbered by it; new ones go at the
/// end. Those of connections come first: they let some through for others to see to, so they are registered last.
///
/// Derived from a row are the driver's callouts and their registration, the contexts of its flows, and the objects that
/// `install` adds and `status` lists. A new row needs a [`Point`] and a file in the driver's `callouts/`.
pub const LAYERS: [Layer; 12] = [
    layer!(Connect ALE_AUTH_CONNECT Decide None
        V4 48 0xc38d57d1_05a7_4c33_904f_7fbceee60e82 V6 50 0x4a72393b_319f_44bc_84c3_ba54dcb3b6b4
        "decides a connection that this machine opens"),
    layer!(Accept ALE_AUTH_RECV_ACCEPT Decide None
        V4 44 0xe1cd9fe7_f4b5_4273_96c0_592e487b8650 V6 46 0xa3b42c97_9f04_4672_b87e_cee9c483257f
        "decides a connection that another machine opens"),
    layer!(Established ALE_FLOW_ESTABLISHED Observe None
        V4 52 0xaf80470a_5596_4c13_9992_539e6fe57967 V6 54 0x7021d2b3_dfa4_406e_afeb_6afaf7e70efd
        "gives the flow its context"),
    layer!(Stream STREAM Decide LookedAtTcp
        V4 20 0x3b89653c_c170_49e4_b1cd_e0eeeee19a3e V6 22 0x47c9137a_7ec4_46b3_b6e4_48e926b1eda4
        "keeps a client's first bytes back until their name decides"),
    layer!(OutboundTransport OUTBOUND_TRANSPORT Decide EveryFlow
        V4 16 0x09e61aea_d214_46e2_9b21_b26b0b2f28c8 V6 18 0xe1735bde_013f_4655_b351_a49e15762df0
        "counts the packets of flows, drops revoked flows"),
    layer!(InboundTransport INBOUND_TRANSPORT Decide EveryFlow
        V4 12 0x5926dfc8_e3cf_4426_a283_dc393f5d0f9d V6 14 0x634a869f_fc23_4b90_b0c1_bf620a36ae6f
        "counts the packets of flows, drops revoked flows"),
    layer!(Forward IPFORWARD Decide None
        V4 8 0xa82acc24_4ee1_4ee1_b465_fd1d25cb10a4 V6 10 0x7b964818_19c7_493a_b71f_832c3684d28c
        "decides each packet that is passed on"),
    layer!(InboundDiscard INBOUND_TRANSPORT + DISCARD Decide None
        V4 13 0xac4a9833_f69d_4648_b261_6dc84835ef39 V6 15 0x2a6ff955_3b2b_49d2_9848_ad9d72dcaab7
        "keeps resets of closed ports from a stranger"),
    layer!(OutboundIcmpError OUTBOUND_ICMP_ERROR Decide None
        V4 32 0x41390100_564c_4b32_bc1d_718048354d7c V6 34 0x7fb03b60_7b8d_4dfa_badd_980176fc4e12
        "keeps ICMP errors of closed ports from a stranger"),
    layer!(Datagrams DATAGRAM_DATA Decide LookedAtUdp
        V4 24 0x3d08bf4e_45f6_4930_a922_417098e20027 V6 26 0xfa45fe2f_3cba_4427_87fc_57b9a4b10d00
        "decides by a datagram's question or hello"),
    layer!(Bind ALE_RESOURCE_ASSIGNMENT Decide None
        V4 36 0x1247d66d_0b60_4a15_8d44_7155d0f53a0c V6 38 0x55a650e1_5f0a_4eca_a653_88f53b26aa8c
        "decides who may have which port"),
    layer!(Listen ALE_AUTH_LISTEN Decide None
        V4 40 0x88bb5dad_76d7_4227_9c71_df0a3ed7be7e V6 42 0x7ac9de24_17dd_4814_b4bd_a9fbc95a321b
        "decides who may listen on which port"),
];

/// The row of a place.
#[must_use]
pub const fn layer(point: Point) -> &'static Layer {
    const ROWS: &[Layer] = &LAYERS;
    let mut at = 0;
    while at < ROWS.len() {
        if ROWS[at].point as u8 == point as u8 {
            return &ROWS[at];
        }
        at += 1;
    }
    panic!("a place without a row")
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
    /// The run-time layer id.
    pub layer_id: u16,
    /// The layer's name without its FWPM_LAYER_ prefix.
    pub name: &'static str,
    /// What it may answer.
    pub role: Role,
    /// Which flows carry a context of ours there.
    pub carried: Carried,
}

const CALLOUT_BASE: GuidBits = 0x60ad1b93_635d_4cc4_b275_c9e66f39bf00;
const FILTER_BASE: GuidBits = 0xa4b6a1d8_2d7b_4b5a_bfa4_3815b2840700;

/// The bases of the filters that a machine that fails closed has besides: 256 numbers for each callout.
const PASSAGE_BASE: GuidBits = 0x5d2c0f0e_93a7_4f0e_8f0a_6a1f3b7c0000;
const BOOT_BASE: GuidBits = 0x1f6f6b1c_7a5d_4bb2_9c53_0d9e5e2a0000;

/// filterKey of the filter that lets something pass callout `number` while its driver is not there.
#[must_use]
pub const fn passage_filter(number: u8, index: u8) -> GuidBits {
    PASSAGE_BASE + ((number as u128) << 8) + index as u128
}

/// filterKey of a boot-time filter at the layer of callout `number`; the one of index 0 blocks what the others do not permit.
#[must_use]
pub const fn boot_filter(number: u8, index: u8) -> GuidBits {
    BOOT_BASE + ((number as u128) << 8) + index as u128
}

/// The objects of `load --native`: filters that decide by themselves, without the driver.
pub mod native {
    use super::GuidBits;

    /// Their provider.
    pub const PROVIDER: GuidBits = 0x3f0c9a52_6d1e_4b27_9a44_5b6e0c1d7f10;
    /// Their sublayer.
    pub const SUBLAYER: GuidBits = 0x3f0c9a52_6d1e_4b27_9a44_5b6e0c1d7f11;
    const FILTER_BASE: GuidBits = 0x8a1d5e30_2c47_4f9b_b6e2_000000000000;

    /// filterKey of the filter with this number.
    #[must_use]
    pub const fn filter(number: u32) -> GuidBits {
        FILTER_BASE + number as u128
    }
}

impl CalloutObject {
    /// Its number, from 1.
    #[must_use]
    pub const fn number(&self) -> u8 {
        (self.callout - CALLOUT_BASE) as u8
    }
}

/// Every callout; the driver registers the last one first. Two for each row of [`LAYERS`].
pub const CALLOUTS: [CalloutObject; 2 * LAYERS.len()] = {
    let mut callouts = [object(0); 2 * LAYERS.len()];
    let mut at = 1;
    while at < callouts.len() {
        callouts[at] = object(at);
        at += 1;
    }
    callouts
};

const fn object(at: usize) -> CalloutObject {
    let row = LAYERS[at / 2];
    let (ip_version, form) = if at.is_multiple_of(2) { (4, row.v4) } else { (6, row.v6) };
    let number = at as u128 + 1;
    CalloutObject {
        point: row.point,
        ip_version,
        callout: CALLOUT_BASE + number,
        filter: FILTER_BASE + number,
        layer: form.key,
        layer_id: form.id,
        name: form.name,
        role: row.role,
        carried: row.carried,
    }
}

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

    #[test]
    fn numbers_already_given_stay() {
        let place = |name| CALLOUTS.iter().find(|object| object.name == name).expect("a callout");
        assert_eq!(place("ALE_AUTH_CONNECT_V4").callout, CALLOUT_BASE + 1);
        assert_eq!(place("ALE_FLOW_ESTABLISHED_V6").filter, FILTER_BASE + 6);
        assert_eq!(place("INBOUND_TRANSPORT_V6").callout, CALLOUT_BASE + 12);
        for row in &LAYERS {
            assert_eq!(layer(row.point).name, row.name);
        }
    }

    /// SPECIFICATION.md has a row for every layer, and for no other.
    #[test]
    fn the_specification_lists_the_layers() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../SPECIFICATION.md");
        let text = std::fs::read_to_string(file).expect("the specification");
        let table = text.split("\n## Per layer\n").nth(1).expect("its table").split("\n## ").next().unwrap_or_default();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| ")).skip(1);
        let listed: Vec<_> = rows.flat_map(|row| row.split(" |").next().unwrap_or_default().split(", ")).collect();
        assert_eq!(listed, LAYERS.map(|row| row.name));
    }
}
