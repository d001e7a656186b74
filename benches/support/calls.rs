//! Classify calls as the engine makes them for a flow's packets, without packets.
#![allow(dead_code, unreachable_pub, reason = "every benchmark uses a part of this")]

use filter_engine::{Classify, LayerData, flow::Flow, layers::LayerId};
use nt_abi::fwp::{FwpsIncomingMetadataValues0, consts::FWPS_METADATA_FIELD_FLOW_HANDLE, value::Incoming};
use ntsim::machine::Machine;
use shim::layer::Direction;
use std::{hint::black_box, sync::Arc};

/// What a layer is asked about: an outbound TCP connection.
pub struct Layer {
    pub id: LayerId,
    values: Incoming,
}

impl Layer {
    pub fn new(machine: &Machine, id: LayerId) -> Self {
        let table = machine.wfp.engine.layers().get(id).expect("a layer of the table");
        let mut values = Incoming::new(table.fields.len());
        let at = |name| table.field_index(name).expect("a field of the layer");
        values.u8(at("IP_PROTOCOL"), 6);
        values.u32(at("IP_LOCAL_ADDRESS"), 0x0A4D_0002);
        values.u32(at("IP_REMOTE_ADDRESS"), 0xC000_0207);
        values.u16(at("IP_REMOTE_PORT"), 443);
        values.u16(at("IP_LOCAL_PORT"), 50_000);
        // Without its direction a flow gets no context, and its packets are no decided flow's.
        if let Some(direction) = table.field_index("DIRECTION") {
            values.u32(direction, Direction::Outbound as u32);
        }
        Self { id, values }
    }

    /// One call. At the IRQL of the caller, inside of [`ntsim::cpu::enter`].
    pub fn classify(&self, machine: &Machine, flow: &Arc<Flow>) {
        let metadata = FwpsIncomingMetadataValues0 {
            current_metadata_values: FWPS_METADATA_FIELD_FLOW_HANDLE,
            flow_handle: flow.id(),
            ..Default::default()
        };
        let call = Classify {
            layer: self.id,
            values: self.values.values(),
            metadata: &metadata,
            layer_data: LayerData::None,
            flow: Some(flow),
            request: None,
        };
        black_box(&machine.wfp.classify(black_box(&call), 0, None));
    }
}

/// The lowest tenth and the median: on a machine that others use, too, the first says what it takes without them.
pub fn low_and_median(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    (samples[samples.len() / 10], samples[samples.len() / 2])
}
