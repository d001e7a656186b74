//! Exports of fwpkclnt.sys: the run-time side, `Fwps*`.
//!
//! Absent, and therefore unresolved imports: FwpsOpenToken0, FwpsClassifyOptionSet0, the ALE endpoint and vSwitch
//! functions, packet and stream queries that need IPsec, and the Redirect handle functions.

use super::abi::{FwpsCallout0, RawGuid};
use super::callout::Registration;
use super::error::BfeResult;
use super::layers::LayerId;
use crate::cpu;
use crate::export::Export;
use crate::irql::Irql;
use crate::status::NtStatus;
use core::ffi::c_void;
use inject::*;
use pend::*;
use sluice_control::host::Guid;

mod inject;
mod pend;

const MODULE: &str = "fwpkclnt.sys";

macro_rules! exports {
    ($($name:ident at $irql:ident),* $(,)?) => {
        &[$(Export::function(MODULE, stringify!($name), Irql::$irql, $name as *const ())),*]
    };
}

/// The exports of this room. IRQLs: fwpsk.h and the reference pages, which agree.
pub const EXPORTS: &[Export] = exports![
    FwpsAcquireClassifyHandle0 at DISPATCH,
    FwpsAcquireWritableLayerDataPointer0 at DISPATCH,
    FwpsApplyModifiedLayerData0 at DISPATCH,
    FwpsCalloutRegister0 at PASSIVE,
    FwpsCalloutRegister1 at PASSIVE,
    FwpsCalloutRegister2 at PASSIVE,
    FwpsCalloutRegister3 at PASSIVE,
    FwpsCalloutUnregisterById0 at PASSIVE,
    FwpsCalloutUnregisterByKey0 at PASSIVE,
    FwpsCompleteClassify0 at DISPATCH,
    FwpsCompleteOperation0 at DISPATCH,
    FwpsFlowAbort0 at DISPATCH,
    FwpsFlowAssociateContext0 at DISPATCH,
    FwpsFlowRemoveContext0 at DISPATCH,
    FwpsInjectForwardAsync0 at DISPATCH,
    FwpsInjectNetworkReceiveAsync0 at DISPATCH,
    FwpsInjectNetworkSendAsync0 at DISPATCH,
    FwpsInjectTransportReceiveAsync0 at DISPATCH,
    FwpsInjectTransportSendAsync0 at DISPATCH,
    FwpsInjectTransportSendAsync1 at DISPATCH,
    FwpsInjectionHandleCreate0 at PASSIVE,
    FwpsInjectionHandleDestroy0 at PASSIVE,
    FwpsPendClassify0 at DISPATCH,
    FwpsPendOperation0 at DISPATCH,
    FwpsQueryPacketInjectionState0 at DISPATCH,
    FwpsReleaseClassifyHandle0 at DISPATCH,
    FwpsStreamContinue0 at DISPATCH,
    FwpsStreamInjectAsync0 at DISPATCH,
];

/// The status of a result, with a note of why a driver was refused.
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
    // SAFETY: the caller's promise.
    let Some(callout) = (unsafe { callout.as_ref() }) else { return NtStatus::FWP_NULL_POINTER };
    status((|| {
        // SAFETY: a driver that calls FwpsCalloutRegisterN passes functions of version N.
        let registration = unsafe { Registration::read(callout, version) }?;
        let id = cpu::with_machine(|machine| machine.wfp.callouts.register(callout.callout_key.into(), registration))?;
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
            // SAFETY: what the import's contract asks of the driver.
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
        let callouts = &machine.wfp.callouts;
        status(callouts.unregister(callouts.by_id(callout_id)))
    })
}

#[allow(non_snake_case, reason = "the export's name")]
unsafe extern "win64" fn FwpsCalloutUnregisterByKey0(key: *const RawGuid) -> NtStatus {
    // SAFETY: the driver passes a GUID or null.
    let Some(key) = (unsafe { key.as_ref() }) else { return NtStatus::FWP_NULL_POINTER };
    cpu::with_machine(|machine| {
        let callouts = &machine.wfp.callouts;
        status(callouts.unregister(callouts.by_key(Guid::from(*key))))
    })
}

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsFlowAssociateContext0(flow: u64, layer: u16, callout_id: u32, context: u64) -> NtStatus {
    cpu::with_machine(|machine| {
        let platform = &machine.wfp;
        platform.flows.associate(flow, LayerId(layer), platform.callouts.by_id(callout_id), context)
    })
}

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsFlowRemoveContext0(flow: u64, layer: u16, callout_id: u32) -> NtStatus {
    cpu::with_machine(|machine| machine.wfp.flows.remove(flow, LayerId(layer), callout_id))
}

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsFlowAbort0(flow: u64) -> NtStatus {
    cpu::with_machine(|machine| machine.wfp.flows.abort(flow))
}
