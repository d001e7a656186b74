//! Exports of fwpkclnt.sys: the management side for drivers, `Fwpm*`.
//!
//! Absent, and therefore unresolved imports: IPsec and IKE, connections, vSwitch events, system ports, security
//! descriptors of objects, net-event enumeration, and provider contexts of other types than a plain buffer.

mod enumerate;
mod read;

use super::handle::Handles;
use crate::cpu;
use crate::export::exports;
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, At, Keeps};
use core::ffi::c_void;
use enumerate::*;
use filter_engine::bfe::{Session, SessionOptions};
use filter_engine::layers::LayerId;
use filter_engine::{BfeError, BfeResult, marshal};
use nt_abi::NtStatus;
use nt_abi::fwp::arena::Arena;
use nt_abi::fwp::{
    FwpValue0, FwpmCallout0, FwpmFilter0, FwpmProvider0, FwpmProviderContext0, FwpmSession0, FwpmSublayer0, RawGuid,
    ValueUnion, consts,
};
use parking_lot::Mutex;
use sluice_host::Guid;
use std::collections::HashMap;
use std::sync::Arc;

/// What drivers hold from the management side.
#[derive(Debug)]
pub(super) struct Clients {
    engines: Handles<Session>,
    enumerations: Handles<Enumeration>,
    subscriptions: Handles<Subscription>,
    /// Memory handed out, by the address that FwpmFreeMemory0 takes.
    memory: Mutex<HashMap<usize, Arena>>,
}

/// A driver that wants to know when BFE starts and stops.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    /// FWPM_SERVICE_STATE_CHANGE_CALLBACK0.
    callback: u64,
    context: u64,
}

/// Tells every driver that has subscribed that BFE's state is now `state`. Inside [`cpu::enter`], at PASSIVE_LEVEL.
pub(crate) fn state_changed(state: u32) {
    for Subscription { callback, context } in cpu::with_machine(|machine| machine.wfp.clients.subscriptions.all()) {
        let describe =
            || Callback::new("FWPM_SERVICE_STATE_CHANGE_CALLBACK0", callback, vec![Argument::new("newState", state)]);
        // SAFETY: the driver subscribed with a function of this type; its faults come back from `cpu::enter`.
        let call: extern "win64" fn(u64, u32) = unsafe { core::mem::transmute(callback) };
        callback::enter(
            &At("the BFE state callback", callback),
            Keeps::All,
            describe,
            || call(context, state),
            |()| String::new(),
        );
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            engines: Handles::new(0xFFFF_E100_0000_1000),
            enumerations: Handles::new(0xFFFF_E100_4000_1000),
            subscriptions: Handles::new(0xFFFF_E100_8000_1000),
            memory: Mutex::default(),
        }
    }
}

impl Clients {
    /// What drivers have not returned: engine handles, enumerations, BFE state subscriptions, memory.
    pub(super) fn open(&self) -> [(&'static str, usize); 4] {
        [
            ("FwpmEngineOpen0", self.engines.len()),
            ("enumeration handles", self.enumerations.len()),
            ("FwpmBfeStateSubscribeChanges0", self.subscriptions.len()),
            ("memory for FwpmFreeMemory0", self.memory.lock().len()),
        ]
    }

    /// Hands out a structure, which lives until FwpmFreeMemory0.
    fn hand_out<T: Copy>(&self, mut arena: Arena, root: T) -> *mut T {
        let root = arena.put(root);
        self.memory.lock().insert(root as usize, arena);
        root
    }
}

// IRQLs: fwpmk.h and the reference pages, which agree.
exports! {
    "fwpkclnt.sys";
    FwpmBfeStateGet0: DISPATCH,
    FwpmBfeStateSubscribeChanges0: PASSIVE,
    FwpmBfeStateUnsubscribeChanges0: PASSIVE,
    FwpmCalloutAdd0: PASSIVE,
    FwpmCalloutCreateEnumHandle0: PASSIVE,
    FwpmCalloutDeleteById0: PASSIVE,
    FwpmCalloutDeleteByKey0: PASSIVE,
    FwpmCalloutDestroyEnumHandle0: PASSIVE,
    FwpmCalloutEnum0: PASSIVE,
    FwpmCalloutGetById0: PASSIVE,
    FwpmCalloutGetByKey0: PASSIVE,
    FwpmEngineClose0: PASSIVE,
    FwpmEngineGetOption0: PASSIVE,
    FwpmEngineOpen0: PASSIVE,
    FwpmEngineSetOption0: PASSIVE,
    FwpmFilterAdd0: PASSIVE,
    FwpmFilterCreateEnumHandle0: PASSIVE,
    FwpmFilterDeleteById0: PASSIVE,
    FwpmFilterDeleteByKey0: PASSIVE,
    FwpmFilterDestroyEnumHandle0: PASSIVE,
    FwpmFilterEnum0: PASSIVE,
    FwpmFilterGetById0: PASSIVE,
    FwpmFilterGetByKey0: PASSIVE,
    FwpmFreeMemory0: DISPATCH,
    FwpmLayerGetById0: PASSIVE,
    FwpmLayerGetByKey0: PASSIVE,
    FwpmProviderAdd0: PASSIVE,
    FwpmProviderContextAdd0: PASSIVE,
    FwpmProviderContextAdd1: PASSIVE,
    FwpmProviderContextAdd2: PASSIVE,
    FwpmProviderContextAdd3: PASSIVE,
    FwpmProviderContextDeleteById0: PASSIVE,
    FwpmProviderContextDeleteByKey0: PASSIVE,
    FwpmProviderCreateEnumHandle0: PASSIVE,
    FwpmProviderDeleteByKey0: PASSIVE,
    FwpmProviderDestroyEnumHandle0: PASSIVE,
    FwpmProviderEnum0: PASSIVE,
    FwpmProviderGetByKey0: PASSIVE,
    FwpmSubLayerAdd0: PASSIVE,
    FwpmSubLayerCreateEnumHandle0: PASSIVE,
    FwpmSubLayerDeleteByKey0: PASSIVE,
    FwpmSubLayerDestroyEnumHandle0: PASSIVE,
    FwpmSubLayerEnum0: PASSIVE,
    FwpmSubLayerGetByKey0: PASSIVE,
    FwpmTransactionAbort0: PASSIVE,
    FwpmTransactionBegin0: PASSIVE,
    FwpmTransactionCommit0: PASSIVE,
}

/// What a session gets while BFE does not run; the documentation names no status for it.
const RPC_SERVER_UNAVAILABLE: NtStatus = NtStatus(0xC002_0017_u32 as i32);

/// A `HANDLE` as drivers hold it.
type Handle = *mut c_void;

fn status(result: BfeResult<()>) -> NtStatus {
    match result {
        Ok(()) => NtStatus::SUCCESS,
        Err(error) => {
            tracing::debug!(%error, "refused a driver");
            error.status
        }
    }
}

fn null(what: &str) -> BfeError {
    BfeError::new(NtStatus::FWP_NULL_POINTER, format!("{what} is null"))
}

/// Fails when the verifier wants the import `what` to fail for lack of memory.
fn enough_memory(what: &str) -> BfeResult<()> {
    match super::scarce(what) {
        true => Err(BfeError::new(NtStatus::INSUFFICIENT_RESOURCES, what)),
        false => Ok(()),
    }
}

/// The session behind an engine handle.
fn session(handle: Handle) -> BfeResult<Arc<Session>> {
    let found = cpu::with_machine(|machine| machine.wfp.clients.engines.get(handle as u64));
    found.ok_or_else(|| BfeError::new(NtStatus::INVALID_HANDLE, format!("engine handle {handle:p}")))
}

/// Makes a call through an engine handle.
fn through(handle: Handle, call: impl FnOnce(&Session) -> BfeResult<()>) -> NtStatus {
    status(session(handle).and_then(|session| call(&session)))
}

/// # Safety
/// `pointer` is null or points to a live value.
unsafe fn given<'a, T>(pointer: *const T, what: &str) -> BfeResult<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
}

/// # Safety
/// `key` is null or points to a GUID.
unsafe fn key(key: *const RawGuid) -> BfeResult<Guid> {
    // SAFETY: the caller's promise.
    unsafe { given(key, "key") }.map(|key| Guid::from(*key))
}

/// Writes a result.
///
/// # Safety
/// `out` is null or writable.
unsafe fn put<T>(out: *mut T, value: T, what: &str) -> BfeResult<()> {
    if out.is_null() {
        return Err(null(what));
    }
    // SAFETY: not null, so writable by this function's contract; the old value is not dropped.
    unsafe { out.write(value) };
    Ok(())
}

// The pages of all functions below demand the same: a pointer is null or points to a structure of its type that is live
// for the call. Null is checked (`given`, `key`, `put`, `as_ref`); what is read is copied before the function returns,
// and memory handed out is freed by FwpmFreeMemory0.
macro_rules! functions {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty $body:block)*) => {$(
        $(#[$doc])*
        #[allow(non_snake_case, reason = "the export's name")]
        unsafe extern "win64" fn $name($($arg: $type),*) -> $ret {
            // SAFETY: the contract above `functions`, which each body checks for null.
            #[allow(unused_unsafe, reason = "some of the functions follow no pointer")]
            unsafe { $body }
        }
    )*};
}

functions! {
    fn FwpmBfeStateGet0() -> u32 {
        let running = cpu::with_machine(|machine| machine.wfp.engine.bfe.is_running());
        if running { consts::FWPM_SERVICE_RUNNING } else { consts::FWPM_SERVICE_STOPPED }
    }

    fn FwpmBfeStateSubscribeChanges0(device: Handle, callback: Handle, context: Handle, out: *mut Handle) -> NtStatus {
        status((|| {
            if device.is_null() || callback.is_null() {
                return Err(null("deviceObject or callback"));
            }
            enough_memory("FwpmBfeStateSubscribeChanges0")?;
            let subscription = Subscription { callback: callback as u64, context: context as u64 };
            let handle = cpu::with_machine(|machine| machine.wfp.clients.subscriptions.add(subscription));
            put(out, handle as Handle, "changeHandle")
        })())
    }

    fn FwpmBfeStateUnsubscribeChanges0(handle: Handle) -> NtStatus {
        match cpu::with_machine(|machine| machine.wfp.clients.subscriptions.remove(handle as u64)) {
            Some(_) => NtStatus::SUCCESS,
            None => NtStatus::INVALID_HANDLE,
        }
    }

    fn FwpmEngineOpen0(
        server: *const u16,
        _authn_service: u32,
        _identity: Handle,
        session: *const FwpmSession0,
        out: *mut Handle,
    ) -> NtStatus {
        status((|| {
            if !server.is_null() {
                return Err(BfeError::new(NtStatus::NOT_SUPPORTED, "serverName must be null: the engine is this machine's"));
            }
            enough_memory("FwpmEngineOpen0")?;
            if !cpu::with_machine(|machine| machine.wfp.engine.bfe.is_running()) {
                return Err(BfeError::new(RPC_SERVER_UNAVAILABLE, "BFE is not running"));
            }
            let mut options = SessionOptions { kernel_mode: true, process_id: 4, ..SessionOptions::default() };
            if let Some(raw) = session.as_ref() {
                if raw.flags & !consts::FWPM_SESSION_FLAG_DYNAMIC != 0 {
                    let what = format!("session flags {:#x}", raw.flags);
                    return Err(BfeError::new(NtStatus::FWP_INVALID_FLAGS, what));
                }
                options.display = read::display(&raw.display_data);
                options.dynamic = raw.flags & consts::FWPM_SESSION_FLAG_DYNAMIC != 0;
                options.wait_ms = raw.txn_wait_timeout_in_m_sec;
                options.key = read::nonzero(raw.session_key);
            }
            let handle = cpu::with_machine(|machine| {
                machine.wfp.clients.engines.add(Session::open(&machine.wfp.engine, options))
            });
            put(out, handle as Handle, "engineHandle")
        })())
    }

    fn FwpmEngineClose0(engine: Handle) -> NtStatus {
        match cpu::with_machine(|machine| machine.wfp.clients.engines.remove(engine as u64)) {
            Some(session) => status(session.close()),
            None => NtStatus::INVALID_HANDLE,
        }
    }

    /// COLLECT_NET_EVENTS and NET_EVENT_MATCH_ANY_KEYWORDS; the other options are for parts of WFP that are absent.
    fn FwpmEngineGetOption0(engine: Handle, option: u32, out: *mut *mut FwpValue0) -> NtStatus {
        through(engine, |_| cpu::with_machine(|machine| {
            let events = &machine.wfp.engine.events;
            let value = match option {
                consts::FWPM_ENGINE_COLLECT_NET_EVENTS => u32::from(events.collects()),
                consts::FWPM_ENGINE_NET_EVENT_MATCH_ANY_KEYWORDS if events.collects_allow() => {
                    consts::FWPM_NET_EVENT_KEYWORD_CLASSIFY_ALLOW
                }
                consts::FWPM_ENGINE_NET_EVENT_MATCH_ANY_KEYWORDS => 0,
                other => return Err(BfeError::new(NtStatus::NOT_SUPPORTED, format!("engine option {other}"))),
            };
            let value = FwpValue0 { kind: consts::FWP_UINT32, value: ValueUnion { raw: value.into() } };
            put(out, machine.wfp.clients.hand_out(Arena::default(), value), "value")
        }))
    }

    fn FwpmEngineSetOption0(engine: Handle, option: u32, value: *const FwpValue0) -> NtStatus {
        through(engine, |_| {
            let value = given(value, "newValue")?;
            if value.kind != consts::FWP_UINT32 {
                return Err(BfeError::new(NtStatus::FWP_TYPE_MISMATCH, "an engine option is an FWP_UINT32"));
            }
            let value = value.value.uint32;
            cpu::with_machine(|machine| {
                let events = &machine.wfp.engine.events;
                match option {
                    consts::FWPM_ENGINE_COLLECT_NET_EVENTS => events.set_collect(value != 0),
                    consts::FWPM_ENGINE_NET_EVENT_MATCH_ANY_KEYWORDS => {
                        events.set_collect_allow(value & consts::FWPM_NET_EVENT_KEYWORD_CLASSIFY_ALLOW != 0);
                    }
                    other => return Err(BfeError::new(NtStatus::NOT_SUPPORTED, format!("engine option {other}"))),
                }
                Ok(())
            })
        })
    }

    fn FwpmTransactionBegin0(engine: Handle, flags: u32) -> NtStatus {
        through(engine, |session| {
            if flags & !consts::FWPM_TXN_READ_ONLY != 0 {
                return Err(BfeError::new(NtStatus::FWP_INVALID_FLAGS, format!("transaction flags {flags:#x}")));
            }
            enough_memory("FwpmTransactionBegin0")?;
            session.begin(flags & consts::FWPM_TXN_READ_ONLY != 0)
        })
    }

    fn FwpmTransactionCommit0(engine: Handle) -> NtStatus {
        through(engine, Session::commit)
    }

    fn FwpmTransactionAbort0(engine: Handle) -> NtStatus {
        through(engine, Session::abort)
    }

    fn FwpmProviderAdd0(engine: Handle, provider: *const FwpmProvider0, _sd: Handle) -> NtStatus {
        through(engine, |session| {
            enough_memory("FwpmProviderAdd0")?;
            session.add_provider(read::provider(given(provider, "provider")?))
        })
    }

    fn FwpmProviderDeleteByKey0(engine: Handle, provider: *const RawGuid) -> NtStatus {
        through(engine, |session| session.delete_provider(key(provider)?))
    }

    fn FwpmProviderGetByKey0(engine: Handle, provider: *const RawGuid, out: *mut *mut FwpmProvider0) -> NtStatus {
        through(engine, |session| {
            let key = key(provider)?;
            let objects = session.objects();
            let not_found = || BfeError::new(NtStatus::FWP_PROVIDER_NOT_FOUND, format!("provider {key}"));
            let stored = objects.providers.get(&key).ok_or_else(not_found)?;
            give(out, "provider", |arena| marshal::provider(arena, &stored.object))
        })
    }

    fn FwpmSubLayerAdd0(engine: Handle, sublayer: *const FwpmSublayer0, _sd: Handle) -> NtStatus {
        through(engine, |session| {
            enough_memory("FwpmSubLayerAdd0")?;
            session.add_sublayer(read::sublayer(given(sublayer, "subLayer")?))
        })
    }

    fn FwpmSubLayerDeleteByKey0(engine: Handle, sublayer: *const RawGuid) -> NtStatus {
        through(engine, |session| session.delete_sublayer(key(sublayer)?))
    }

    fn FwpmSubLayerGetByKey0(engine: Handle, sublayer: *const RawGuid, out: *mut *mut FwpmSublayer0) -> NtStatus {
        through(engine, |session| {
            let key = key(sublayer)?;
            let objects = session.objects();
            let not_found = || BfeError::new(NtStatus::FWP_SUBLAYER_NOT_FOUND, format!("sublayer {key}"));
            let stored = objects.sublayers.get(&key).ok_or_else(not_found)?;
            give(out, "subLayer", |arena| marshal::sublayer(arena, &stored.object))
        })
    }

    fn FwpmCalloutAdd0(engine: Handle, callout: *const FwpmCallout0, _sd: Handle, id: *mut u32) -> NtStatus {
        through(engine, |session| {
            enough_memory("FwpmCalloutAdd0")?;
            let given = session.add_callout(read::callout(given(callout, "callout")?))?;
            if let Some(id) = id.as_mut() {
                *id = given;
            }
            Ok(())
        })
    }

    fn FwpmCalloutDeleteById0(engine: Handle, id: u32) -> NtStatus {
        through(engine, |session| session.delete_callout_by_id(id))
    }

    fn FwpmCalloutDeleteByKey0(engine: Handle, callout: *const RawGuid) -> NtStatus {
        through(engine, |session| session.delete_callout(key(callout)?))
    }

    fn FwpmCalloutGetById0(engine: Handle, id: u32, out: *mut *mut FwpmCallout0) -> NtStatus {
        through(engine, |session| {
            let objects = session.objects();
            let not_found = || BfeError::new(NtStatus::FWP_CALLOUT_NOT_FOUND, format!("callout {id}"));
            let stored = objects.callouts.values().find(|c| c.slot.id() == id).ok_or_else(not_found)?;
            give(out, "callout", |arena| marshal::callout(arena, stored))
        })
    }

    fn FwpmCalloutGetByKey0(engine: Handle, callout: *const RawGuid, out: *mut *mut FwpmCallout0) -> NtStatus {
        through(engine, |session| {
            let key = key(callout)?;
            let objects = session.objects();
            let not_found = || BfeError::new(NtStatus::FWP_CALLOUT_NOT_FOUND, format!("callout {key}"));
            let stored = objects.callouts.get(&key).ok_or_else(not_found)?;
            give(out, "callout", |arena| marshal::callout(arena, stored))
        })
    }

    fn FwpmFilterAdd0(engine: Handle, filter: *const FwpmFilter0, _sd: Handle, id: *mut u64) -> NtStatus {
        through(engine, |session| {
            enough_memory("FwpmFilterAdd0")?;
            let given = session.add_filter(read::filter(given(filter, "filter")?)?)?;
            if let Some(id) = id.as_mut() {
                *id = given;
            }
            Ok(())
        })
    }

    fn FwpmFilterDeleteById0(engine: Handle, id: u64) -> NtStatus {
        through(engine, |session| session.delete_filter_by_id(id))
    }

    fn FwpmFilterDeleteByKey0(engine: Handle, filter: *const RawGuid) -> NtStatus {
        through(engine, |session| session.delete_filter(key(filter)?))
    }

    fn FwpmFilterGetById0(engine: Handle, id: u64, out: *mut *mut FwpmFilter0) -> NtStatus {
        through(engine, |session| {
            let objects = session.objects();
            let not_found = || BfeError::new(NtStatus::FWP_FILTER_NOT_FOUND, format!("filter {id}"));
            let stored = objects.filters.get(&id).ok_or_else(not_found)?;
            give(out, "filter", |arena| marshal::filter(arena, stored))
        })
    }

    fn FwpmFilterGetByKey0(engine: Handle, filter: *const RawGuid, out: *mut *mut FwpmFilter0) -> NtStatus {
        through(engine, |session| {
            let key = key(filter)?;
            let objects = session.objects();
            let not_found = || BfeError::new(NtStatus::FWP_FILTER_NOT_FOUND, format!("filter {key}"));
            let stored = objects.filter(key).ok_or_else(not_found)?;
            give(out, "filter", |arena| marshal::filter(arena, stored))
        })
    }

    fn FwpmLayerGetById0(engine: Handle, id: u16, out: *mut *mut nt_abi::fwp::FwpmLayer0) -> NtStatus {
        through(engine, |_| {
            let table = cpu::with_machine(|machine| machine.wfp.engine.layers());
            let not_found = || BfeError::new(NtStatus::FWP_LAYER_NOT_FOUND, format!("layer {id}"));
            let layer = table.get(LayerId(id)).ok_or_else(not_found)?;
            give(out, "layer", |arena| marshal::layer(arena, layer))
        })
    }

    fn FwpmLayerGetByKey0(engine: Handle, layer: *const RawGuid, out: *mut *mut nt_abi::fwp::FwpmLayer0) -> NtStatus {
        through(engine, |_| {
            let key = key(layer)?;
            let table = cpu::with_machine(|machine| machine.wfp.engine.layers());
            let not_found = || BfeError::new(NtStatus::FWP_LAYER_NOT_FOUND, format!("layer {key}"));
            let layer = table.by_key(key).ok_or_else(not_found)?;
            give(out, "layer", |arena| marshal::layer(arena, layer))
        })
    }

    fn FwpmProviderContextDeleteById0(engine: Handle, id: u64) -> NtStatus {
        through(engine, |session| session.delete_provider_context_by_id(id))
    }

    fn FwpmProviderContextDeleteByKey0(engine: Handle, context: *const RawGuid) -> NtStatus {
        through(engine, |session| session.delete_provider_context(key(context)?))
    }
}

macro_rules! provider_context_add {
    ($($name:ident),*) => {functions! {$(
        fn $name(engine: Handle, context: *const FwpmProviderContext0, _sd: Handle, id: *mut u64) -> NtStatus {
            through(engine, |session| {
                enough_memory(stringify!($name))?;
                let given = session.add_provider_context(read::provider_context(given(context, "providerContext")?)?)?;
                if let Some(id) = id.as_mut() {
                    *id = given;
                }
                Ok(())
            })
        }
    )*}};
}
provider_context_add!(
    FwpmProviderContextAdd0,
    FwpmProviderContextAdd1,
    FwpmProviderContextAdd2,
    FwpmProviderContextAdd3
);

/// Returns a structure to the driver, which frees it with FwpmFreeMemory0.
///
/// # Safety
/// `out` is null or writable.
unsafe fn give<T: Copy>(out: *mut *mut T, what: &str, build: impl FnOnce(&mut Arena) -> T) -> BfeResult<()> {
    enough_memory(what)?;
    let mut arena = Arena::default();
    let root = build(&mut arena);
    let pointer = cpu::with_machine(|machine| machine.wfp.clients.hand_out(arena, root));
    // SAFETY: the caller's promise.
    unsafe { put(out, pointer, what) }
}

#[allow(non_snake_case, reason = "the export's name")]
unsafe extern "win64" fn FwpmFreeMemory0(pointer: *mut *mut c_void) {
    // SAFETY: FwpmFreeMemory0 takes the address of the driver's pointer. Null is checked, and the pointer's value is
    // looked up, not followed.
    let Some(slot) = (unsafe { pointer.as_mut() }) else { return };
    let address = core::mem::replace(slot, core::ptr::null_mut());
    if address.is_null() {
        return;
    }
    let found = cpu::with_machine(|machine| machine.wfp.clients.memory.lock().remove(&(address as usize)));
    if found.is_none() {
        let why = "FwpmFreeMemory0 of memory that no Fwpm function returned, or that is already freed";
        cpu::bugcheck(cpu::code::BAD_POOL_CALLER, [0x46, address as u64, 0, 0], why);
    }
}
