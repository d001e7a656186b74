//! Classify calls: evaluates a layer's sublayers and filters, calls callouts, and arbitrates their decisions.
//!
//! A classify call uses an immutable snapshot; a change of filters builds another and swaps it in, so a classify call
//! takes no lock and sees one state of the policy.

use crate::arbitrate::{Arbiter, Outcome, Verdict};
use crate::filter::CompiledFilter;
use crate::flow::Flow;
use crate::layers::LayerId;
use crate::{FilterEngine, netevent};
use core::cell::Cell;
use core::ffi::c_void;
use nt_abi::fwp::value::Value;
use nt_abi::fwp::{FwpsIncomingMetadataValues0, FwpsStreamCalloutIoPacket0, RedirectRequest, consts};
use std::fmt;
use std::sync::Arc;

/// layerData.
#[derive(Clone, Copy, Debug)]
pub enum LayerData<'a> {
    /// None.
    None,
    /// What the layer's documentation says, mostly a NET_BUFFER_LIST. The engine only passes it on.
    Pointer(*mut c_void),
    /// At the stream layers: an FWPS_STREAM_CALLOUT_IO_PACKET0, and how many bytes its stream data has.
    Stream(&'a Cell<FwpsStreamCalloutIoPacket0>, usize),
}

impl LayerData<'_> {
    /// The pointer that a callout gets.
    #[must_use]
    pub const fn as_ptr(self) -> *mut c_void {
        match self {
            Self::None => core::ptr::null_mut(),
            Self::Pointer(pointer) => pointer,
            Self::Stream(packet, _) => packet.as_ptr().cast(),
        }
    }
}

/// The request of a classify call, for callouts that acquire a handle to it (FwpsAcquireClassifyHandle0).
pub trait ClassifyRequest: fmt::Debug {
    /// What `classifyContext` points to; it lives as long as the call.
    fn context(&self) -> *const c_void;

    /// What callouts did to the request: whether one pended it, and the layer data as they changed it.
    fn outcome(&self) -> (bool, Option<Box<RedirectRequest>>);
}

/// One indication of traffic to a layer.
#[derive(Clone, Copy, Debug)]
pub struct Classify<'a> {
    /// The layer.
    pub layer: LayerId,
    /// One value per field, by index; the layer's table says which types.
    pub values: &'a [Value<'a>],
    /// inMetaValues, passed to callouts unchanged.
    pub metadata: &'a FwpsIncomingMetadataValues0,
    /// layerData.
    pub layer_data: LayerData<'a>,
    /// The data flow, where there is one.
    pub flow: Option<&'a Arc<Flow>>,
    /// The request of the call, where callouts may acquire a handle to it.
    pub request: Option<&'a dyn ClassifyRequest>,
}

impl FilterEngine {
    /// Classifies: evaluates the matching filters of the layer and returns the outcome.
    ///
    /// A drop is recorded as a net event, and so is the authorization of a connection when that is switched on. When a
    /// layer discards, its `_DISCARD` twin is classified too.
    pub fn classify(&self, c: &Classify<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        self.snapshot.read(|snapshot| {
            let Some(layer) = snapshot.layer(c.layer) else { return };
            Arbiter::new(c, layer.is_stream(), &mut outcome).run(layer);
            let blocked = outcome.verdict == Verdict::Block && !outcome.absorb;
            if blocked || self.events.wants_allow(c.layer, &outcome) {
                netevent::record(self, c, &outcome);
            }
            if blocked && let Some(twin) = snapshot.discard_twin(c.layer) {
                let mut metadata = *c.metadata;
                metadata.current_metadata_values |= consts::FWPS_METADATA_FIELD_DISCARD_REASON;
                metadata.discard_metadata.discard_module = consts::FWPS_DISCARD_MODULE_GENERAL;
                metadata.discard_metadata.discard_reason = consts::FWPS_DISCARD_FIREWALL_POLICY;
                metadata.discard_metadata.filter_id = outcome.filter_id;
                // The answers at a discard layer change nothing: the traffic is already dropped.
                let discarded = Classify { layer: LayerId(c.layer.0 + 1), metadata: &metadata, request: None, ..*c };
                Arbiter::new(&discarded, false, &mut Outcome::default()).run(twin);
            }
        });
        outcome
    }

    /// [`Self::classify`] for stream data that the callout `injector` has injected: only sublayers lighter than its own
    /// are evaluated ("Injected stream data will not be reindicated to the callout, but it will be made available to
    /// stream callouts from lower-weight sublayers", FwpsStreamInjectAsync0 documentation).
    pub fn classify_below(&self, c: &Classify<'_>, injector: u32) -> Outcome {
        let mut outcome = Outcome::default();
        self.snapshot.read(|snapshot| {
            let Some(layer) = snapshot.layer(c.layer) else { return };
            Arbiter::new(c, layer.is_stream(), &mut outcome).run_below(layer, injector);
            if outcome.verdict == Verdict::Block && !outcome.absorb {
                netevent::record(self, c, &outcome);
            }
        });
        outcome
    }

    /// Whether a layer has any filter. Without one, a shim need not build what only a classify call needs.
    #[must_use]
    pub fn has_filters(&self, layer: LayerId) -> bool {
        self.snapshot.read(|snapshot| snapshot.layer(layer).is_some())
    }

    /// Whether a layer has any filter that may concern a flow: another one than those whose callouts are called only for
    /// flows with a context of theirs, which this one has not.
    #[must_use]
    pub fn concerns(&self, layer: LayerId, flow: &Flow) -> bool {
        let asks = |filter: &Arc<CompiledFilter>| filter.callout().is_none_or(|slot| slot.is_called_for(layer, flow));
        self.snapshot.read(|snapshot| {
            let sublayers = snapshot.layer(layer).into_iter().flat_map(|filters| filters.sublayers.iter());
            sublayers.flat_map(|sublayer| sublayer.filters.iter()).any(asks)
        })
    }

    /// A number that changes whenever a filter is added to a layer or removed from it: flows authorized under another one
    /// must be authorized again.
    #[must_use]
    pub fn generation(&self, layer: LayerId) -> u64 {
        self.snapshot.read(|snapshot| snapshot.generation(layer))
    }
}
