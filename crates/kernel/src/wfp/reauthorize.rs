//! Makes Windows reauthorize the existing connections.
//!
//! ALE reauthorizes a connection, at its next packet, after a filter was added to or deleted from its authorization
//! layer ("ALE Reauthorization"). A new policy changes no filter, so the driver adds one that matches nothing and
//! deletes it again.

use core::ptr::{null, null_mut};

use wdk_sys::{GUID, HANDLE};
use wfp_sys::{
    FWP_ACTION_PERMIT, FWP_CONDITION_VALUE0, FWP_DATA_TYPE_, FWP_MATCH_TYPE_, FWPM_DISPLAY_DATA0,
    FWPM_FILTER_CONDITION0, FWPM_FILTER0, FWPM_SESSION_FLAG_DYNAMIC, FWPM_SESSION0, FwpmEngineClose0, FwpmEngineOpen0,
    FwpmFilterAdd0, FwpmFilterDeleteById0, FwpmTransactionAbort0, FwpmTransactionBegin0, FwpmTransactionCommit0,
};

use super::guid;
use crate::status::{NtResult, NtStatus};

/// FWPM_CONDITION_IP_PROTOCOL and FWPM_CONDITION_IP_REMOTE_PORT (fwpmu.h).
const IP_PROTOCOL: u128 = 0x3971ef2b_623e_4f9a_8cb1_6e79b806b9a7;
const IP_REMOTE_PORT: u128 = 0xc35a604d_d22b_4e1a_91b4_68f674ee674b;
/// Reserved by IANA: only a raw socket can use it, and raw sockets have no port.
const NO_PROTOCOL: u8 = 255;
/// A port that a conversation without ports does not have.
const SOME_PORT: u16 = u16::MAX;
/// How long to wait for another program's transaction.
const PATIENCE_MS: u32 = 5000;
/// "Sluicegate", and the NUL that ends it.
const NAME: [u16; 11] = {
    let (text, mut name, mut at) = (b"Sluicegate", [0; 11], 0);
    while at < text.len() {
        name[at] = text[at] as u16;
        at += 1;
    }
    name
};

/// Makes Windows reauthorize every connection at the layers with these layerKeys. IRQL = PASSIVE_LEVEL; waits for the
/// Base Filtering Engine.
///
/// # Errors
/// The engine's status, for example that it is not running. No filter is left behind.
pub fn reauthorize<const N: usize>(layers: &[u128; N]) -> NtResult<()> {
    let engine = Engine::open()?;
    let mut ids = [0; N];
    engine.transaction(|| {
        layers.iter().zip(&mut ids).try_for_each(|(layer, id)| engine.add_filter_that_matches_nothing(*layer, id))
    })?;
    engine.transaction(|| ids.iter().try_for_each(|id| engine.delete_filter(*id)))
}

/// A dynamic session: what it added and did not delete is removed when it is closed.
struct Engine(HANDLE);

impl Engine {
    fn open() -> NtResult<Self> {
        let session = FWPM_SESSION0 {
            flags: FWPM_SESSION_FLAG_DYNAMIC,
            txnWaitTimeoutInMSec: PATIENCE_MS,
            ..FWPM_SESSION0::default()
        };
        let mut engine = null_mut();
        // SAFETY: this machine's engine, with the driver's own identity; the session is copied, the handle is written.
        NtStatus::check(unsafe {
            FwpmEngineOpen0(null(), RPC_C_AUTHN_WINNT, null_mut(), &raw const session, &raw mut engine)
        })?;
        Ok(Self(engine))
    }

    fn transaction(&self, steps: impl FnOnce() -> NtResult<()>) -> NtResult<()> {
        // SAFETY: an open session without a transaction; flags 0 begin a read/write one.
        NtStatus::check(unsafe { FwpmTransactionBegin0(self.0, 0) })?;
        // SAFETY: an open session in a transaction.
        let done = steps().and_then(|()| NtStatus::check(unsafe { FwpmTransactionCommit0(self.0) }));
        done.inspect_err(|_| {
            // SAFETY: as above; a commit that failed has left the transaction, or the engine says that there is none.
            let _ = unsafe { FwpmTransactionAbort0(self.0) };
        })
    }

    fn add_filter_that_matches_nothing(&self, layer: u128, id: &mut u64) -> NtResult<()> {
        let equal = |field, value| FWPM_FILTER_CONDITION0 {
            fieldKey: guid(field),
            matchType: FWP_MATCH_TYPE_::FWP_MATCH_EQUAL,
            conditionValue: value,
        };
        let mut protocol = FWP_CONDITION_VALUE0 { type_: FWP_DATA_TYPE_::FWP_UINT8, ..Default::default() };
        protocol.__bindgen_anon_1.uint8 = NO_PROTOCOL;
        let mut port = FWP_CONDITION_VALUE0 { type_: FWP_DATA_TYPE_::FWP_UINT16, ..Default::default() };
        port.__bindgen_anon_1.uint16 = SOME_PORT;
        // Conditions on two fields must both hold.
        let mut conditions = [equal(IP_PROTOCOL, protocol), equal(IP_REMOTE_PORT, port)];
        let mut filter = FWPM_FILTER0 {
            displayData: FWPM_DISPLAY_DATA0 { name: NAME.as_ptr().cast_mut(), description: null_mut() },
            layerKey: guid(layer),
            subLayerKey: GUID::default(), // the default sublayer: ours may not exist
            numFilterConditions: conditions.len() as u32,
            filterCondition: conditions.as_mut_ptr(),
            ..FWPM_FILTER0::default()
        };
        filter.action.type_ = FWP_ACTION_PERMIT;
        // SAFETY: an open session; the filter and what it points to are copied, the id is written.
        NtStatus::check(unsafe { FwpmFilterAdd0(self.0, &raw const filter, null_mut(), id) })
    }

    fn delete_filter(&self, id: u64) -> NtResult<()> {
        // SAFETY: an open session and a plain number.
        NtStatus::check(unsafe { FwpmFilterDeleteById0(self.0, id) })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, closed once. After a failure nothing can be done.
        let _ = unsafe { FwpmEngineClose0(self.0) };
    }
}

/// RPC_C_AUTHN_WINNT (rpcdce.h), the authentication service that FwpmEngineOpen0 asks for.
const RPC_C_AUTHN_WINNT: u32 = 10;
