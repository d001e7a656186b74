//! Exports of fwpkclnt.sys: the run-time side, `Fwps*`.
//!
//! Absent, and therefore unresolved imports: FwpsOpenToken0, FwpsClassifyOptionSet0,
//! FwpsConstructIpHeaderForTransportPacket0, FwpsQueryConnectionSioFormatRedirectRecords0, the functions of ALE
//! endpoints and of vSwitches, and MAC frames.

use super::leave_if_stopped;
use crate::cpu;
use crate::export::exports;
use core::ffi::c_void;
use filter_engine::BfeResult;
use filter_engine::layers::LayerId;
use inject::*;
use lists::*;
use nt_abi::NtStatus;
use nt_abi::fwp::{FwpsCallout0, RawGuid};
use pend::*;
use sluice_host::Guid;

pub mod callout;
mod inject;
mod lists;
mod pend;
pub mod redirect;

// IRQLs: fwpsk.h and the reference pages, which agree.
exports! {
    "fwpkclnt.sys";
    FwpsAcquireClassifyHandle0: DISPATCH,
    FwpsAcquireWritableLayerDataPointer0: DISPATCH,
    FwpsAllocateCloneNetBufferList0: DISPATCH,
    FwpsAllocateNetBufferAndNetBufferList0: DISPATCH,
    FwpsApplyModifiedLayerData0: DISPATCH,
    FwpsCalloutRegister0: PASSIVE,
    FwpsCalloutRegister1: PASSIVE,
    FwpsCalloutRegister2: PASSIVE,
    FwpsCalloutRegister3: PASSIVE,
    FwpsCalloutUnregisterById0: PASSIVE,
    FwpsCalloutUnregisterByKey0: PASSIVE,
    FwpsCloneStreamData0: DISPATCH,
    FwpsCompleteClassify0: DISPATCH,
    FwpsCompleteOperation0: DISPATCH,
    FwpsCopyStreamDataToBuffer0: DISPATCH,
    FwpsDereferenceNetBufferList0: DISPATCH,
    FwpsDiscardClonedStreamData0: DISPATCH,
    FwpsFlowAbort0: DISPATCH,
    FwpsFlowAssociateContext0: DISPATCH,
    FwpsFlowRemoveContext0: DISPATCH,
    FwpsFreeCloneNetBufferList0: DISPATCH,
    FwpsFreeNetBufferList0: DISPATCH,
    FwpsGetPacketListSecurityInformation0: DISPATCH,
    FwpsInjectForwardAsync0: DISPATCH,
    FwpsInjectNetworkReceiveAsync0: DISPATCH,
    FwpsInjectNetworkSendAsync0: DISPATCH,
    FwpsInjectTransportReceiveAsync0: DISPATCH,
    FwpsInjectTransportSendAsync0: DISPATCH,
    FwpsInjectTransportSendAsync1: DISPATCH,
    FwpsInjectionHandleCreate0: PASSIVE,
    FwpsInjectionHandleDestroy0: PASSIVE,
    FwpsPendClassify0: DISPATCH,
    FwpsPendOperation0: DISPATCH,
    FwpsQueryPacketInjectionState0: DISPATCH,
    FwpsReferenceNetBufferList0: DISPATCH,
    FwpsReleaseClassifyHandle0: DISPATCH,
    FwpsStreamContinue0: DISPATCH,
    FwpsStreamInjectAsync0: DISPATCH,
}

/// The status of a result; logs why a driver was refused.
fn status(result: BfeResult<()>) -> NtStatus {
    match result {
        Ok(()) => NtStatus::SUCCESS,
        Err(error) => {
            tracing::debug!(%error, "refused a driver");
            error.status
        }
    }
}

/// # Safety
/// `callout` is null or an FWPS_CALLOUT of this version; `callout_id` is null or writable.
unsafe fn register(callout: *const FwpsCallout0, callout_id: *mut u32, version: u32) -> NtStatus {
    if super::scarce("FwpsCalloutRegister") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    // SAFETY: the caller's promise.
    let Some(callout) = (unsafe { callout.as_ref() }) else { return NtStatus::FWP_NULL_POINTER };
    status((|| {
        // SAFETY: FwpsCalloutRegisterN demands an FWPS_CALLOUT_N, so the functions are of version N; `registration`
        // checks the required ones for null. The driver cannot unload before it unregisters, which
        // `Callouts::unregister` completes.
        let registration = unsafe { callout::registration(callout, version) }?;
        let id = cpu::with_machine(|machine| {
            machine.wfp.engine.callouts.register(callout.callout_key.into(), registration)
        })?;
        // SAFETY: the caller's promise.
        if let Some(out) = unsafe { callout_id.as_mut() } {
            *out = id;
        }
        Ok(())
    })())
}

macro_rules! register_versions {
    ($($name:ident = $version:literal),*) => {$(
        #[allow(non_snake_case, reason = "the export's name")]
        unsafe extern "win64" fn $name(_device: *mut c_void, callout: *const FwpsCallout0, id: *mut u32) -> NtStatus {
            // SAFETY: the page demands an FWPS_CALLOUT of this version and an optional variable for the id; `register`
            // checks both for null and copies the structure.
            unsafe { register(callout, id, $version) }
        }
    )*};
}
register_versions!(
    FwpsCalloutRegister0 = 0,
    FwpsCalloutRegister1 = 1,
    FwpsCalloutRegister2 = 2,
    FwpsCalloutRegister3 = 3
);

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsCalloutUnregisterById0(callout_id: u32) -> NtStatus {
    cpu::with_machine(|machine| {
        let callouts = &machine.wfp.engine.callouts;
        status(callouts.unregister(callouts.by_id(callout_id), leave_if_stopped))
    })
}

#[allow(non_snake_case, reason = "the export's name")]
unsafe extern "win64" fn FwpsCalloutUnregisterByKey0(key: *const RawGuid) -> NtStatus {
    // SAFETY: the page demands a GUID; null is checked, and the key is copied.
    let Some(key) = (unsafe { key.as_ref() }) else { return NtStatus::FWP_NULL_POINTER };
    cpu::with_machine(|machine| {
        let callouts = &machine.wfp.engine.callouts;
        status(callouts.unregister(callouts.by_key(Guid::from(*key)), leave_if_stopped))
    })
}

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsFlowAssociateContext0(flow: u64, layer: u16, callout_id: u32, context: u64) -> NtStatus {
    if super::scarce("FwpsFlowAssociateContext0") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    cpu::with_machine(|machine| {
        let engine = &machine.wfp.engine;
        engine.flows.associate(flow, LayerId(layer), engine.callouts.by_id(callout_id), context)
    })
}

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsFlowRemoveContext0(flow: u64, layer: u16, callout_id: u32) -> NtStatus {
    cpu::with_machine(|machine| machine.wfp.engine.flows.remove(flow, LayerId(layer), callout_id))
}

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsFlowAbort0(flow: u64) -> NtStatus {
    cpu::with_machine(|machine| machine.wfp.engine.flows.abort(flow))
}
