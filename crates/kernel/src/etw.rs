//! A provider of Event Tracing for Windows, whose events bring the names and types of their fields along (TraceLogging).
//!
//! Whether anybody listens to an event is one bit of one word, which the enable callback keeps: asking costs a load.
//! Writing copies nothing and allocates nothing; Windows copies the fields into the buffers of the sessions that listen.
//!
//! Facts: "EtwRegister", "EtwWriteTransfer", "EtwSetInformation", "EtwEnableCallback" (wdm.h), EVENT_DATA_DESCRIPTOR
//! (evntprov.h), "Provider Traits", and "EnableTraceEx2" for what levels and keywords mean.
//!
//! Microsoft's `tracelogging` crate 1.2.1 is `no_std` and has a feature `kernel_mode`, and was read: its registration
//! panics in two places, which a driver that must not import KeBugCheckEx cannot link, and its callback writes what the
//! hot path reads, without atomics.

use core::{
    marker::PhantomData,
    ptr::{from_ref, null},
    sync::atomic::{AtomicU64, Ordering},
};

use wdk_sys::{
    _EVENT_INFO_CLASS, EVENT_DATA_DESCRIPTOR, EVENT_DESCRIPTOR, GUID, LPCGUID, PEVENT_FILTER_DESCRIPTOR, PVOID,
    REGHANDLE, UCHAR, ULONG, ULONGLONG,
    ntddk::{EtwRegister, EtwSetInformation, EtwUnregister, EtwWriteTransfer},
};

use crate::{
    irql::AtDispatch,
    memory::try_box,
    status::{NtResult, NtStatus},
    swap::Swap,
    wfp::guid,
};

/// WINEVENT_CHANNEL_TRACELOGGING (winmeta.h).
const CHANNEL: u8 = 11;
/// MAX_EVENT_DATA_DESCRIPTORS (evntprov.h).
const MOST_DESCRIPTORS: usize = 128;
/// EVENT_DATA_DESCRIPTOR_TYPE_* (evntprov.h).
const DATA: u32 = 0;
const EVENT_METADATA: u32 = 1;
const PROVIDER_METADATA: u32 = 2;

/// What kind of events there are: their levels, keywords and metadata.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// TRACE_LEVEL_* (evntrace.h): 1 critical to 5 verbose.
    pub level: u8,
    /// The keywords; the upper 16 bits are Microsoft's.
    pub keyword: u64,
    /// Its name and fields, as TraceLogging describes them.
    pub metadata: &'static [u8],
}

/// What a provider is.
pub trait Describe: 'static {
    /// Its GUID, the 128 bits read in order.
    const ID: u128;
    /// Its name, as "Provider Traits" describes it.
    const TRAITS: &'static [u8];
    /// Its events, at most 64; the other functions name them by their place here.
    const EVENTS: &'static [Event];
}

/// A provider, in a static; it begins as zeros.
pub struct Provider<D> {
    /// A bit for each event: whether a session listens to it.
    wanted: AtomicU64,
    registration: Swap<Registration>,
    _description: PhantomData<fn() -> D>,
}

/// Ends when dropped, which waits for the callback. PASSIVE_LEVEL.
struct Registration(REGHANDLE);

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: a handle of EtwRegister, unregistered once. PASSIVE_LEVEL. It cannot fail for such a handle.
        let _ = unsafe { EtwUnregister(self.0) };
    }
}

/// A part of an event's data, which outlives the event's writing. An EVENT_DATA_DESCRIPTOR, of which kits of different ages
/// declare the last 32 bits as a number or as a union.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pointer: u64,
    bytes: u32,
    kind: u32,
    _data: PhantomData<&'a [u8]>,
}

const _: () = assert!(size_of::<Value<'_>>() == size_of::<EVENT_DATA_DESCRIPTOR>());
const _: () = assert!(align_of::<Value<'_>>() == align_of::<EVENT_DATA_DESCRIPTOR>());

impl<'a> Value<'a> {
    /// These bytes. They are in nonpaged memory, as everything is that Rust code of a driver has. Any IRQL.
    #[must_use]
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self::of_kind(bytes, DATA)
    }

    fn of_kind(bytes: &'a [u8], kind: u32) -> Self {
        // An event has less than 64 KiB: Windows refuses one that says more.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { pointer: bytes.as_ptr() as u64, bytes: length, kind, _data: PhantomData }
    }
}

/// The array that EtwWriteTransfer takes.
#[repr(C)]
struct Written<'a, const N: usize> {
    traits: Value<'a>,
    metadata: Value<'a>,
    values: [Value<'a>; N],
}

impl<D: Describe> Default for Provider<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Describe> Provider<D> {
    /// One that is not registered: nobody listens.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(D::EVENTS.len() <= 64, "a bit for each event") };
        Self { wanted: AtomicU64::new(0), registration: Swap::new(), _description: PhantomData }
    }

    /// Registers it; sessions that listen already get its events from now on. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of EtwRegister or EtwSetInformation, STATUS_INSUFFICIENT_RESOURCES; then nobody listens.
    pub fn register(&'static self) -> NtResult<()> {
        let registered = self.try_register();
        if registered.is_err() {
            self.wanted.store(0, Ordering::Relaxed);
        }
        registered
    }

    fn try_register(&'static self) -> NtResult<()> {
        let (id, mut handle): (GUID, REGHANDLE) = (guid(D::ID), 0);
        let context = from_ref(self).cast_mut().cast();
        // SAFETY: the GUID is copied; the callback and its context, a static, live as long as the image, before whose
        // end the driver's contract has the provider unregistered. PASSIVE_LEVEL.
        NtStatus::check(unsafe { EtwRegister(&raw const id, Some(changed::<D>), context, &raw mut handle) })?;
        let registration = Registration(handle);
        // Without traits Windows takes the metadata for data, and no tool can read the events.
        // SAFETY: a registration's handle, and a buffer of the length said, which is only read. PASSIVE_LEVEL.
        NtStatus::check(unsafe {
            EtwSetInformation(
                handle,
                _EVENT_INFO_CLASS::EventProviderSetTraits,
                D::TRAITS.as_ptr().cast_mut().cast(),
                D::TRAITS.len() as u32,
            )
        })?;
        self.registration.replace(Some(try_box(registration)?), || {})
    }

    /// Undoes it, when nothing writes any more events; what does so all the same loses them. PASSIVE_LEVEL.
    pub fn unregister(&self) {
        // It can only be busy with another call of this.
        let _ = self.registration.replace(None, || {});
        self.wanted.store(0, Ordering::Relaxed);
    }

    /// Whether a session listens to the event at this place. Any IRQL.
    #[inline]
    #[must_use]
    pub fn wants(&self, event: usize) -> bool {
        self.wanted.load(Ordering::Relaxed) & bit(event) != 0
    }

    /// Writes an event if a session listens to it. `values` are the bytes of its fields, in order. Whatever becomes of it
    /// concerns only the sessions, which count what they lose. IRQL <= DISPATCH_LEVEL.
    pub fn write<const N: usize>(&self, event: usize, values: [Value<'_>; N]) {
        const { assert!(N + 2 <= MOST_DESCRIPTORS) };
        let Some(kind) = D::EVENTS.get(event).filter(|_| self.wants(event)) else { return };
        // Nobody suspends a thread that holds the registration.
        let _level = AtDispatch::raise();
        let Some(registration) = self.registration.read() else { return };
        let descriptor = EVENT_DESCRIPTOR {
            Id: 0,
            Version: 0,
            Channel: CHANNEL,
            Level: kind.level,
            Opcode: 0,
            Task: 0,
            Keyword: kind.keyword,
        };
        let mut written = Written {
            traits: Value::of_kind(D::TRAITS, PROVIDER_METADATA),
            metadata: Value::of_kind(kind.metadata, EVENT_METADATA),
            values,
        };
        // SAFETY: a registration, which is not undone while it is read; a complete descriptor; and an array of as many
        // data descriptors as said, each of memory that is borrowed and not paged. Any IRQL.
        let _ = unsafe {
            EtwWriteTransfer(
                registration.0,
                &raw const descriptor,
                null(),
                null(),
                N as u32 + 2,
                (&raw mut written).cast(),
            )
        };
    }
}

const fn bit(event: usize) -> u64 {
    if event < 64 { 1 << event } else { 0 }
}

/// The events that sessions want which ask for this level and these keywords. 0 asks for every level or every event; an
/// event without keywords is always wanted.
fn wanted(events: &[Event], level: u8, any: u64, all: u64) -> u64 {
    events.iter().enumerate().fold(0, |wanted, (at, event)| {
        let by_level = level == 0 || event.level <= level;
        let keyword = event.keyword;
        let by_keyword = keyword == 0 || any == 0 || keyword & any != 0 && keyword & all == all;
        if by_level && by_keyword { wanted | bit(at) } else { wanted }
    })
}

/// ETWENABLECALLBACK: sessions come and go. It may run before EtwRegister returns. PASSIVE_LEVEL.
unsafe extern "C" fn changed<D: Describe>(
    _source: LPCGUID,
    control: ULONG,
    level: UCHAR,
    any: ULONGLONG,
    all: ULONGLONG,
    _filter: PEVENT_FILTER_DESCRIPTOR,
    context: PVOID,
) {
    /// EVENT_CONTROL_CODE_* (evntcons.h).
    const DISABLE: u32 = 0;
    const ENABLE: u32 = 1;
    // SAFETY: the context of the registration, a static provider.
    let provider = unsafe { &*context.cast_const().cast::<Provider<D>>() };
    match control {
        DISABLE => provider.wanted.store(0, Ordering::Relaxed),
        ENABLE => provider.wanted.store(wanted(D::EVENTS, level, any, all), Ordering::Relaxed),
        _ => {} // to write its state, of which this provider has none
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &[Event] = &[
        Event { level: 2, keyword: 1, metadata: &[] },
        Event { level: 4, keyword: 2, metadata: &[] },
        Event { level: 5, keyword: 6, metadata: &[] },
        Event { level: 4, keyword: 0, metadata: &[] },
    ];

    #[test]
    fn levels_and_keywords_choose_events() {
        assert_eq!(wanted(EVENTS, 0, 0, 0), 0b1111);
        assert_eq!(wanted(EVENTS, 4, 0, 0), 0b1011);
        assert_eq!(wanted(EVENTS, 255, 2, 0), 0b1110);
        assert_eq!(wanted(EVENTS, 255, 2, 4), 0b1100);
        assert_eq!(wanted(EVENTS, 1, 1, 0), 0);
    }

    #[test]
    fn the_callback_says_who_listens() {
        struct Told;
        impl Describe for Told {
            const ID: u128 = 1;
            const TRAITS: &'static [u8] = b"\x03\0\0";
            const EVENTS: &'static [Event] = EVENTS;
        }
        static PROVIDER: Provider<Told> = Provider::new();
        let tell = |control, level| {
            let context = from_ref(&PROVIDER).cast_mut().cast();
            // SAFETY: the context is the provider.
            unsafe { changed::<Told>(null(), control, level, 0, 0, core::ptr::null_mut(), context) };
        };
        assert!(!PROVIDER.wants(0));
        tell(1, 2);
        assert_eq!([0, 1, 2, 3, 64].map(|event| PROVIDER.wants(event)), [true, false, false, false, false]);
        tell(2, 5);
        assert!(PROVIDER.wants(0) && !PROVIDER.wants(2), "asking for its state changes nothing");
        tell(0, 0);
        assert!(!PROVIDER.wants(0));
    }
}
