//! Event Tracing for Windows, as drivers provide events.
//!
//! A test listens with a [`Session`]. Without one nothing is enabled, and events are discarded, as documented.
//! Registrations are counted, because a driver that unloads with one crashes Windows.

#![allow(non_snake_case, reason = "exports have their Windows names")]

mod decode;
mod session;
pub mod wpp;

pub use decode::Value;
pub use session::{Asked, Record, Session};

use crate::cpu;
use crate::export::exports;
use crate::nt::violation;
use crate::verifier::callback::{self, At};
use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use nt_abi::NtStatus;
use nt_abi::fwp::RawGuid;
use parking_lot::RwLock;
use session::{Listener, Written};
use sluice_host::Guid;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

exports! {
    "ntoskrnl.exe";
    EtwRegister: PASSIVE,
    EtwUnregister: PASSIVE,
    EtwSetInformation: PASSIVE,
    EtwWrite: HIGH,
    EtwWriteEx: HIGH,
    EtwWriteTransfer: HIGH,
    EtwWriteString: HIGH,
    EtwEventEnabled: HIGH,
    EtwProviderEnabled: HIGH,
    EtwActivityIdControl: HIGH,
}

/// Bugcheck 0xC4's first parameter for a registration that is none.
const NOT_REGISTERED: u64 = 0xDC;
/// The same for a malformed event; Windows has no number for it: the event is written, and cannot be decoded.
const MALFORMED: u64 = 0x0008_0011;
/// MAX_EVENT_DATA_DESCRIPTORS (evntprov.h).
const MOST_DESCRIPTORS: u32 = 128;
/// An event's size is a USHORT (`EVENT_HEADER.Size`), header included.
const MOST_BYTES: usize = 65535 - 80;

/// `ETWENABLECALLBACK`: source, control code, level, any keyword, all keywords, filter, context.
type EnableCallback = unsafe extern "win64" fn(*const RawGuid, u32, u8, u64, u64, *const c_void, u64);

/// `EVENT_DESCRIPTOR`.
#[repr(C)]
struct EventDescriptor {
    id: u16,
    version: u8,
    channel: u8,
    level: u8,
    opcode: u8,
    task: u16,
    keyword: u64,
}

/// `EVENT_DATA_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DataDescriptor {
    pointer: u64,
    size: u32,
    /// EVENT_DATA_DESCRIPTOR_TYPE_*.
    kind: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<EventDescriptor>() == 16 && size_of::<DataDescriptor>() == 16);

/// The providers and sessions of one machine.
#[derive(Debug, Default)]
pub struct Tracing {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    providers: BTreeMap<u64, Arc<Provider>>,
    listeners: Vec<Arc<Listener>>,
    /// Device objects registered for WMI, and who did.
    wmi: BTreeMap<u64, u64>,
}

/// A registration.
#[derive(Debug)]
struct Provider {
    id: Guid,
    /// Who registered it.
    by: u64,
    callback: Option<EnableCallback>,
    context: u64,
    /// How many calls of the callback are under way.
    running: AtomicUsize,
    traits: OnceLock<Vec<u8>>,
    /// Whether the types of data descriptors count: with traits, and on request.
    typed: AtomicBool,
}

impl State {
    /// What the sessions want of a provider, together; None when none listens.
    fn asked(&self, id: Guid) -> Option<Asked> {
        let theirs = self.listeners.iter().filter(|listener| listener.provider == id);
        theirs.map(|listener| listener.asked).reduce(|all, one| all.joined(&one))
    }

    fn provider(&self, handle: u64, function: &str) -> Arc<Provider> {
        self.providers.get(&handle).map(Arc::clone).unwrap_or_else(|| not_registered(handle, function))
    }
}

impl Tracing {
    /// Registrations of code within `range` that were not undone.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let state = self.state.read();
        let line = |what: &str, by: u64| format!("{what} registration, made by {}", cpu::frame_of(by));
        let providers = state.providers.values().map(|provider| provider.by).filter(|by| range.contains(by));
        let wmi = state.wmi.values().copied().filter(|by| range.contains(by));
        providers.map(|by| line("ETW", by)).chain(wmi.map(|by| line("WMI", by))).collect()
    }
}

#[cold]
fn not_registered(handle: u64, function: &str) -> ! {
    violation([NOT_REGISTERED, handle, 0, 0], format!("{function} was given {handle:#x}, which is not a registration"))
}

/// Tells registered providers what is wanted of them now.
fn tell(which: impl Fn(&Provider) -> bool) {
    const DISABLE: u32 = 0;
    const ENABLE: u32 = 1;
    let told: Vec<_> = cpu::with_machine(|machine| {
        let state = machine.executive.tracing.state.read();
        let providers = state.providers.values().filter(|provider| which(provider) && provider.callback.is_some());
        providers
            .inspect(|provider| _ = provider.running.fetch_add(1, Ordering::AcqRel))
            .map(|provider| (Arc::clone(provider), state.asked(provider.id)))
            .collect()
    });
    for (provider, asked) in told {
        if let Some(function) = provider.callback {
            let (code, asked) = (if asked.is_some() { ENABLE } else { DISABLE }, asked.unwrap_or(Asked::EVERYTHING));
            let source = RawGuid::default();
            let call = || {
                // SAFETY: an ETWENABLECALLBACK with the context of its registration (EtwRegister). EtwUnregister waits
                // while it runs, so its driver cannot unload.
                unsafe {
                    function(
                        &raw const source,
                        code,
                        asked.level,
                        asked.any,
                        asked.all,
                        core::ptr::null(),
                        provider.context,
                    );
                }
            };
            callback::call(&At("the enable callback", function as usize as u64), "EnableCallback", call);
        }
        provider.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A session that listens already is told before this returns, and before the handle is written.
unsafe extern "win64" fn EtwRegister(
    provider: *const RawGuid,
    callback: Option<EnableCallback>,
    context: u64,
    handle: *mut u64,
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the page demands the provider's GUID.
    let id = Guid::from(unsafe { provider.read_unaligned() });
    let registered = cpu::with_machine(|machine| {
        if machine.low_resources.fails("EtwRegister") {
            return None;
        }
        let mut state = machine.executive.tracing.state.write();
        state.last += 1;
        let (running, traits, typed) = (AtomicUsize::new(0), OnceLock::new(), AtomicBool::new(false));
        let provider = Arc::new(Provider { id, by, callback, context, running, traits, typed });
        let handle = state.last;
        state.providers.insert(handle, Arc::clone(&provider));
        Some((handle, provider, state.asked(id).is_some()))
    });
    let Some((registered, provider, wanted)) = registered else { return NtStatus::INSUFFICIENT_RESOURCES };
    if wanted {
        tell(|other| core::ptr::eq(other, &raw const *provider));
    }
    // SAFETY: the page demands a variable for the REGHANDLE. The driver ends the registration with EtwUnregister; else
    // it is in the leak report.
    unsafe { handle.write(registered) };
    NtStatus::SUCCESS
}

/// Waits until the callback is not running. The callback itself must not call it: it would wait forever.
extern "win64" fn EtwUnregister(handle: u64) -> NtStatus {
    let removed = cpu::with_machine(|machine| machine.executive.tracing.state.write().providers.remove(&handle));
    let Some(provider) = removed else { not_registered(handle, "EtwUnregister") };
    cpu::with_machine(|machine| {
        machine.dispatcher.wait_until(machine, || provider.running.load(Ordering::Acquire) == 0);
    });
    NtStatus::SUCCESS
}

/// EVENT_INFO_CLASS (evntprov.h). Traits are set once; "any further attempts to set the traits on that registration will
/// fail" ("Provider Traits").
unsafe extern "win64" fn EtwSetInformation(handle: u64, class: u32, data: *const u8, length: u32) -> NtStatus {
    const SET_TRAITS: u32 = 2;
    const USE_DESCRIPTOR_TYPE: u32 = 3;
    if handle == 0 {
        return NtStatus::INVALID_HANDLE;
    }
    let provider =
        cpu::with_machine(|machine| machine.executive.tracing.state.read().provider(handle, "EtwSetInformation"));
    if matches!(class, SET_TRAITS | USE_DESCRIPTOR_TYPE) && (data.is_null() || length == 0) {
        return NtStatus::INVALID_PARAMETER;
    }
    match class {
        SET_TRAITS => {
            // SAFETY: the page demands a buffer of this length, which is not null; it is copied.
            let traits = unsafe { core::slice::from_raw_parts(data, length as usize) }.to_vec();
            if decode::traits_name(&traits).is_err() || provider.traits.get().is_some() {
                return NtStatus::INVALID_PARAMETER;
            }
            if cpu::with_machine(|machine| machine.low_resources.fails("EtwSetInformation")) {
                return NtStatus::INSUFFICIENT_RESOURCES;
            }
            let _ = provider.traits.set(traits);
            provider.typed.store(true, Ordering::Release);
            NtStatus::SUCCESS
        }
        USE_DESCRIPTOR_TYPE => {
            // SAFETY: the page demands a buffer of this length, which is not 0.
            provider.typed.store(unsafe { data.read() } != 0, Ordering::Release);
            NtStatus::SUCCESS
        }
        0 | 1 => NtStatus::SUCCESS,
        _ => NtStatus::INVALID_PARAMETER,
    }
}

fn wanted(handle: u64, level: u8, keyword: u64) -> bool {
    cpu::with_machine(|machine| {
        let state = machine.executive.tracing.state.read();
        let Some(provider) = state.providers.get(&handle) else { return false };
        let mut listeners = state.listeners.iter().filter(|listener| listener.provider == provider.id);
        listeners.any(|listener| listener.asked.takes(level, keyword))
    })
}

unsafe extern "win64" fn EtwEventEnabled(handle: u64, event: *const EventDescriptor) -> u8 {
    if event.is_null() {
        return 0;
    }
    // SAFETY: the page demands an EVENT_DESCRIPTOR, and it is not null.
    let (level, keyword) = unsafe { ((*event).level, (*event).keyword) };
    wanted(handle, level, keyword).into()
}

extern "win64" fn EtwProviderEnabled(handle: u64, level: u8, keyword: u64) -> u8 {
    wanted(handle, level, keyword).into()
}

/// STATUS_INVALID_HANDLE without a registration; one that has been undone is memory that was freed, on Windows.
///
/// # Safety
/// `event` is an `EVENT_DESCRIPTOR`, `data` that many `EVENT_DATA_DESCRIPTOR`s of readable memory.
unsafe fn write(
    function: &str,
    handle: u64,
    event: *const EventDescriptor,
    count: u32,
    data: *const DataDescriptor,
) -> NtStatus {
    if handle == 0 {
        return NtStatus::INVALID_HANDLE;
    }
    if event.is_null() || count > MOST_DESCRIPTORS || count > 0 && data.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    // SAFETY: an EVENT_DESCRIPTOR by this function's contract, and not null.
    let &EventDescriptor { channel, level, keyword, .. } = unsafe { &*event };
    let (provider, listeners) = cpu::with_machine(|machine| {
        let state = machine.executive.tracing.state.read();
        let provider = state.provider(handle, function);
        let theirs = state.listeners.iter().filter(|listener| listener.provider == provider.id);
        let theirs: Vec<_> = theirs.filter(|listener| listener.asked.takes(level, keyword)).map(Arc::clone).collect();
        (provider, theirs)
    });
    if listeners.is_empty() {
        return NtStatus::SUCCESS;
    }
    let typed = provider.typed.load(Ordering::Acquire);
    let (mut payload, mut metadata, mut attached) = (Vec::new(), None, None);
    for at in 0..count as usize {
        // SAFETY: one of the descriptors, by this function's contract.
        let part = unsafe { data.add(at).read_unaligned() };
        let bytes = if part.size == 0 {
            &[]
        } else {
            // SAFETY: readable memory, by this function's contract; memory that is not faults, as on Windows.
            unsafe { core::slice::from_raw_parts(part.pointer as *const u8, part.size as usize) }
        };
        match (typed, part.kind) {
            (false, _) | (true, 0) => payload.extend_from_slice(bytes),
            (true, 1) => metadata = Some(bytes),
            (true, 2) => attached = Some(bytes),
            (true, 3) => {}
            (true, kind) => violation(
                [MALFORMED, handle, at as u64, kind.into()],
                format!("{function}: data descriptor {at} has type {kind}, which is none of evntprov.h"),
            ),
        }
        if typed && part.reserved != [0; 3] {
            let why = format!("{function}: the reserved bytes of data descriptor {at} are not 0");
            violation([MALFORMED, handle, at as u64, 0], why)
        }
    }
    let traits = provider.traits.get().map(Vec::as_slice).or(attached);
    if payload.len() + metadata.map_or(0, <[u8]>::len) + traits.map_or(0, <[u8]>::len) > MOST_BYTES {
        return NtStatus::INTEGER_OVERFLOW;
    }
    for listener in &listeners {
        listener.record(&Written { channel, level, keyword, traits, metadata, data: &payload });
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn EtwWrite(
    handle: u64,
    event: *const EventDescriptor,
    _activity: *const RawGuid,
    count: u32,
    data: *const DataDescriptor,
) -> NtStatus {
    // SAFETY: what the page demands.
    unsafe { write("EtwWrite", handle, event, count, data) }
}

unsafe extern "win64" fn EtwWriteEx(
    handle: u64,
    event: *const EventDescriptor,
    _filter: u64,
    _flags: u32,
    _activity: *const RawGuid,
    _related: *const RawGuid,
    count: u32,
    data: *const DataDescriptor,
) -> NtStatus {
    // SAFETY: what the page demands.
    unsafe { write("EtwWriteEx", handle, event, count, data) }
}

unsafe extern "win64" fn EtwWriteTransfer(
    handle: u64,
    event: *const EventDescriptor,
    _activity: *const RawGuid,
    _related: *const RawGuid,
    count: u32,
    data: *const DataDescriptor,
) -> NtStatus {
    // SAFETY: what the page demands.
    unsafe { write("EtwWriteTransfer", handle, event, count, data) }
}

/// An event without a descriptor: no session of a test asks for these.
extern "win64" fn EtwWriteString(_handle: u64) -> NtStatus {
    NtStatus::SUCCESS
}

/// Makes identifiers; a thread has no activity to get or set.
unsafe extern "win64" fn EtwActivityIdControl(control: u32, id: *mut [u8; 16]) -> NtStatus {
    const CREATE: u32 = 3;
    match control {
        1 => {
            // SAFETY: the page makes `ActivityId` a GUID to write for this control code.
            unsafe { id.write([0; 16]) };
            NtStatus::SUCCESS
        }
        2 => NtStatus::SUCCESS,
        CREATE => {
            // SAFETY: the page makes `ActivityId` a GUID to write for this control code.
            unsafe { id.write(super::ex::uuid::random()) };
            NtStatus::SUCCESS
        }
        _ => NtStatus::INVALID_PARAMETER,
    }
}

#[cfg(test)]
mod tests;
