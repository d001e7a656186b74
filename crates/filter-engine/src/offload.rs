//! Work that Windows leaves to the network card, as far as the callouts in use allow it.
//!
//! "If this flag is not specified" the offload "is disabled for all traffic that is processed by any filters that
//! specify the callout" (FWPS_CALLOUT2 and 3, flags). Nothing here has a card: whoever writes a driver learns what it
//! would cost.

use crate::{FilterEngine, layers::LayerId};
use nt_abi::fwp::consts;
use sluice_host::Guid;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums, large sends and connections (FWP_CALLOUT_FLAG_ALLOW_OFFLOAD).
    Tasks,
    /// Received TCP segments put together, to packets of up to 64 KiB (FWP_CALLOUT_FLAG_ALLOW_RSC).
    TcpReceive,
    /// Sent UDP datagrams cut from one buffer (FWP_CALLOUT_FLAG_ALLOW_USO).
    UdpSend,
    /// Received UDP datagrams put together (FWP_CALLOUT_FLAG_ALLOW_URO).
    UdpReceive,
}

impl Offload {
    /// Every kind, with the flag by which a callout allows it.
    pub const ALL: [(Self, u32); 4] = [
        (Self::Tasks, consts::FWP_CALLOUT_FLAG_ALLOW_OFFLOAD),
        (Self::TcpReceive, consts::FWP_CALLOUT_FLAG_ALLOW_RSC),
        (Self::UdpSend, consts::FWP_CALLOUT_FLAG_ALLOW_USO),
        (Self::UdpReceive, consts::FWP_CALLOUT_FLAG_ALLOW_URO),
    ];
}

/// A callout that disables an offload for what its filters match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it disables.
    pub offload: Offload,
    /// The layer of the filter.
    pub layer: LayerId,
    /// calloutKey.
    pub callout: Guid,
}

impl FilterEngine {
    /// What registered callouts disable at the layers where filters name them.
    #[must_use]
    pub fn refused_offloads(&self) -> Vec<Refusal> {
        self.snapshot.read(|snapshot| {
            let mut found = Vec::new();
            for layer in self.layers().iter().map(|layer| layer.id) {
                let sublayers = snapshot.layer(layer).into_iter().flat_map(|filters| filters.sublayers.iter());
                let slots =
                    sublayers.flat_map(|sublayer| sublayer.filters.iter()).filter_map(|filter| filter.callout());
                for slot in slots.filter(|slot| slot.is_registered()) {
                    let refused = Offload::ALL.into_iter().filter(|(_, flag)| slot.registered_flags() & flag == 0);
                    found.extend(refused.map(|(offload, _)| Refusal { offload, layer, callout: slot.key() }));
                }
            }
            found
        })
    }
}
