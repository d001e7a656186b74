//! Associates a context with a flow and unloads without removing it.
#![no_std]

use planted::{Classify, Defect, wfp_sys::*};

struct Planted;

impl Defect for Planted {
    unsafe fn classify(call: &Classify) {
        let (flow, layer) = ((*call.metadata).flowHandle, (*call.values).layerId);
        let _ = FwpsFlowAssociateContext0(flow, layer, planted::callout(), 1);
    }
}

planted::driver!(Planted);
