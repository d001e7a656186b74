//! The filter engine: walks a layer's sublayers and filters, calls callouts and arbitrates between their decisions.
//!
//! What is classified against is an immutable snapshot; whoever changes filters builds another and swaps it in, so a
//! classify call takes no lock and sees one state of the policy.

mod arbitrate;
mod current;
mod filter;
mod snapshot;
mod told;

pub use arbitrate::{Outcome, StreamAction, StreamOutcome, TerminatingFilter, Verdict};
pub(super) use current::Current;
pub(super) use filter::{CompiledFilter, FilterParts};
pub(super) use snapshot::{LayerFilters, Snapshot};

use super::flow::Flow;
use super::layers::LayerId;
use super::netevent;
use super::pend::{ClassifyContext, RedirectRequest};
use crate::machine::Machine;
use arbitrate::Arbiter;
use core::ffi::c_void;
use nt_abi::fwp::value::Value;
use nt_abi::fwp::{FwpsIncomingMetadataValues0, consts};
use std::sync::Arc;

/// One indication of traffic to a layer.
#[derive(Clone, Copy, Debug)]
pub struct Classify<'a> {
    /// The layer.
    pub layer: LayerId,
    /// One value per field, by index; the layer's table says which types.
    pub values: &'a [Value<'a>],
    /// inMetaValues, handed to callouts as it is.
    pub metadata: &'a FwpsIncomingMetadataValues0,
    /// layerData: a NET_BUFFER_LIST, at the stream layers an FWPS_STREAM_CALLOUT_IO_PACKET0, or null.
    pub layer_data: *mut c_void,
    /// The data flow, where there is one.
    pub flow: Option<&'a Arc<Flow>>,
}

/// Classifies: asks every matching filter of the layer, and says what becomes of the traffic.
///
/// A drop is recorded as a net event, and so is the authorization of a connection when that is switched on. A layer that
/// discards has its `_DISCARD` twin classified too.
///
/// Must run on a simulated processor, at DISPATCH_LEVEL or below.
pub fn classify(machine: &Machine, c: &Classify<'_>) -> Outcome {
    classify_request(machine, c, 0, None)
}

/// [`classify`] for a request whose layer data callouts may change (ALE_CONNECT_REDIRECT, ALE_BIND_REDIRECT) and which
/// they may pend: `token` is the stack's own number for it.
pub fn classify_request(
    machine: &Machine,
    c: &Classify<'_>,
    token: u64,
    redirect: Option<Box<RedirectRequest>>,
) -> Outcome {
    let platform = &machine.wfp;
    let snapshot = platform.snapshot.load();
    let mut outcome = Outcome::default();
    let Some(layer) = snapshot.layer(c.layer) else { return outcome };
    let context = ClassifyContext::new(c.layer, token, redirect);
    Arbiter::new(c, layer.is_stream(), context, &mut outcome).run(layer);
    let blocked = outcome.verdict == Verdict::Block && !outcome.absorb;
    if blocked || platform.events.wants_allow(c.layer, &outcome) {
        netevent::record(platform, c, &outcome);
    }
    if blocked && let Some(twin) = snapshot.discard_twin(c.layer) {
        let mut metadata = *c.metadata;
        metadata.current_metadata_values |= consts::FWPS_METADATA_FIELD_DISCARD_REASON;
        metadata.discard_metadata.discard_module = consts::FWPS_DISCARD_MODULE_GENERAL;
        metadata.discard_metadata.discard_reason = consts::FWPS_DISCARD_FIREWALL_POLICY;
        metadata.discard_metadata.filter_id = outcome.filter_id;
        // What callouts say at a discard layer changes nothing: the traffic is gone.
        let discarded = Classify { layer: LayerId(c.layer.0 + 1), metadata: &metadata, ..*c };
        let context = ClassifyContext::new(discarded.layer, 0, None);
        Arbiter::new(&discarded, false, context, &mut Outcome::default()).run(twin);
    }
    outcome
}

/// [`classify`] for stream data that the callout `injector` has put in: only the sublayers lighter than its own are asked
/// ("Injected stream data will not be reindicated to the callout, but it will be made available to stream callouts from
/// lower-weight sublayers", FwpsStreamInjectAsync0 documentation).
pub fn classify_below(machine: &Machine, c: &Classify<'_>, injector: u32) -> Outcome {
    let snapshot = machine.wfp.snapshot.load();
    let Some(layer) = snapshot.layer(c.layer) else { return Outcome::default() };
    let mut outcome = Outcome::default();
    let context = ClassifyContext::new(c.layer, 0, None);
    Arbiter::new(c, layer.is_stream(), context, &mut outcome).run_below(layer, injector);
    if outcome.verdict == Verdict::Block && !outcome.absorb {
        netevent::record(&machine.wfp, c, &outcome);
    }
    outcome
}

/// Whether any filter stands at a layer. A shim may leave out building what only a classify call would need.
#[must_use]
pub fn has_filters(machine: &Machine, layer: LayerId) -> bool {
    machine.wfp.snapshot.load().layer(layer).is_some()
}

/// A number that changes whenever a filter is added to a layer or removed from it: flows authorized under another one
/// must be authorized again.
#[must_use]
pub fn generation(machine: &Machine, layer: LayerId) -> u64 {
    machine.wfp.snapshot.load().generation(layer)
}
