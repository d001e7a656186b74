//! Registers callouts; the functions the filter engine calls.

use core::{ffi::c_void, slice};

use wdk_sys::{GUID, NTSTATUS};
use wfp_sys::{
    FWPS_CALLOUT_NOTIFY_TYPE, FWPS_CALLOUT3, FWPS_CLASSIFY_OUT0, FWPS_FILTER3, FWPS_INCOMING_METADATA_VALUES0,
    FWPS_INCOMING_VALUES0, FwpsCalloutRegister3, FwpsCalloutUnregisterById0,
};

use super::{Call, Classify, Flow, FlowRef, InSet, callout_flag, guid};
use crate::{
    irql::AtDispatch,
    status::{NtResult, NtStatus},
    time,
    wdf::{ControlDevice, DeviceEvents},
};

/// What a callout does, at one layer or at several.
pub trait Callout: 'static {
    /// What a flow context holds.
    type Flow: InSet;

    /// Answers, at the IRQL of the call, what needs nothing that others could wait for, and returns whether it has. Here
    /// is the path of most packets: it costs no raised IRQL and no call of the kernel.
    fn at_once(_call: &mut Call<'_, Self::Flow>) -> bool {
        false
    }

    /// Decides everything else. Runs at DISPATCH_LEVEL at every layer: the engine calls in the thread of whoever connects
    /// or sends, and while such a thread is suspended, nothing it holds may make others wait.
    fn classify(request: &mut Classify<'_, Self::Flow>);
}

/// A registered callout, as flow contexts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalloutId {
    /// The run-time layer id.
    pub layer: u16,
    /// The callout's run-time id, never 0.
    pub id: u32,
}

/// A callout to register, its type erased.
#[derive(Clone, Copy, Debug)]
pub struct CalloutEntry {
    layer: u16,
    key: u128,
    flags: u32,
    register: fn(*mut c_void, u128, u32) -> NtResult<u32>,
}

impl CalloutEntry {
    /// `C` at the layer with this run-time id, under this calloutKey, with FWP_CALLOUT_FLAG_* `flags`.
    #[must_use]
    pub const fn of<C: Callout>(layer: u16, key: u128, flags: u32) -> Self {
        Self { layer, key, flags, register: register::<C> }
    }
}

/// Registered callouts. Dropping unregisters them, the first one first, and waits until none of their functions runs or will run.
/// IRQL = PASSIVE_LEVEL.
#[derive(Debug)]
pub struct Callouts<const N: usize> {
    ids: [CalloutId; N],
    release_flows: fn(),
}

impl<const N: usize> Callouts<N> {
    /// Registers every entry, the last one first: each is asked only when those behind it are, too. `registered` is told of
    /// each at its index, before the next is registered. `release_flows` asks WFP to remove all flow contexts; it is called
    /// at unload, because a callout with contexts cannot be unregistered.
    ///
    /// # Errors
    /// The status of FwpsCalloutRegister3; callouts already registered are then unregistered.
    pub fn register<E: DeviceEvents>(
        device: &ControlDevice<E>,
        entries: &[CalloutEntry; N],
        registered: impl FnMut(usize, CalloutId),
        release_flows: fn(),
    ) -> NtResult<Self> {
        let object = device.wdm_object();
        let mut this = Self { ids: [CalloutId { layer: 0, id: 0 }; N], release_flows };
        register_all(&mut this.ids, entries, object, registered)?;
        Ok(this)
    }
}

fn register_all<const N: usize>(
    ids: &mut [CalloutId; N],
    entries: &[CalloutEntry; N],
    object: *mut c_void,
    mut registered: impl FnMut(usize, CalloutId),
) -> NtResult<()> {
    for (place, (slot, entry)) in ids.iter_mut().zip(entries).enumerate().rev() {
        *slot = CalloutId { layer: entry.layer, id: (entry.register)(object, entry.key, entry.flags)? };
        registered(place, *slot);
    }
    Ok(())
}

impl<const N: usize> Drop for Callouts<N> {
    fn drop(&mut self) {
        for callout in self.ids.iter().filter(|callout| callout.id != 0) {
            loop {
                // SAFETY: a plain number, at PASSIVE_LEVEL.
                let status = NtStatus::check(unsafe { FwpsCalloutUnregisterById0(callout.id) });
                if is_gone(status) {
                    break;
                }
                (self.release_flows)();
                time::sleep_a_moment();
            }
        }
    }
}

/// Whether a callout that was unregistered with this result is not called any more. With any other status (contexts
/// remain, another thread is registering, memory is short) it may still be called, and the image must stay loaded.
const fn is_gone(unregistered: NtResult<()>) -> bool {
    matches!(unregistered, Ok(()) | Err(NtStatus::FWP_CALLOUT_NOT_FOUND | NtStatus::NOT_FOUND))
}

fn register<C: Callout>(device_object: *mut c_void, key: u128, flags: u32) -> NtResult<u32> {
    register_with(flags, |flags| {
        let callout = FWPS_CALLOUT3 {
            calloutKey: guid(key),
            flags,
            classifyFn: Some(classify::<C>),
            notifyFn: Some(notify),
            flowDeleteFn: Some(flow_delete::<C>),
        };
        let mut id = 0;
        // SAFETY: the device object exists until after unregistration; the structure is copied; the functions live as
        // long as the image, which the driver's contract keeps mapped until all are unregistered.
        NtStatus::check(unsafe { FwpsCalloutRegister3(device_object, &raw const callout, &raw mut id) })?;
        Ok(id)
    })
}

/// Registers with `flags`; where Windows refuses these, without the flags that an older one may not know. They only allow
/// what it does not do, then.
fn register_with(flags: u32, mut register: impl FnMut(u32) -> NtResult<u32>) -> NtResult<u32> {
    const NEWER: u32 = callout_flag::ALLOW_USO | callout_flag::ALLOW_URO;
    match register(flags) {
        Err(NtStatus::INVALID_PARAMETER) if flags & NEWER != 0 => register(flags & !NEWER),
        result => result,
    }
}

unsafe extern "C" fn classify<C: Callout>(
    values: *const FWPS_INCOMING_VALUES0,
    metadata: *const FWPS_INCOMING_METADATA_VALUES0,
    layer_data: *mut c_void,
    _classify_context: *const c_void,
    filter: *const FWPS_FILTER3,
    flow_context: u64,
    out: *mut FWPS_CLASSIFY_OUT0,
) {
    // SAFETY: the engine passes valid structures that live for the time of the call, and exclusive access to `out`.
    let (values, metadata, filter, out) = unsafe {
        match (values.as_ref(), metadata.as_ref(), filter.as_ref(), out.as_mut()) {
            (Some(values), Some(metadata), Some(filter), Some(out)) => (values, metadata, filter, out),
            _ => return,
        }
    };
    let fields = if values.incomingValue.is_null() {
        &[][..]
    } else {
        // SAFETY: the engine passes an array of that many values.
        unsafe { slice::from_raw_parts(values.incomingValue, values.valueCount as usize) }
    };
    // SAFETY: a context that is not 0 is one that this driver associated for this callout (`Flow::associate`), and WFP
    // does not call flowDeleteFn for it while a classify with it runs.
    let flow = unsafe { (flow_context as *const Flow<C::Flow>).as_ref() };
    let mut call = Call { layer: values.layerId, values: fields, metadata, layer_data, filter, flow, out };
    if !C::at_once(&mut call) {
        at_dispatch::<C>(call);
    }
}

/// Apart, so that what [`Callout::at_once`] answers does not pay for its frame.
#[inline(never)]
fn at_dispatch<C: Callout>(call: Call<'_, C::Flow>) {
    let dispatch = AtDispatch::raise();
    C::classify(&mut Classify { call, dispatch: &dispatch });
}

unsafe extern "C" fn notify(
    _kind: FWPS_CALLOUT_NOTIFY_TYPE,
    _filter_key: *const GUID,
    _filter: *mut FWPS_FILTER3,
) -> NTSTATUS {
    // Filters may come and go: a classify gets what it needs of its filter with the call.
    NtStatus::SUCCESS.raw()
}

unsafe extern "C" fn flow_delete<C: Callout>(_layer: u16, _callout: u32, flow_context: u64) {
    // SAFETY: WFP gives back the count that `Flow::associate` gave it, once.
    drop(unsafe { FlowRef::<C::Flow>::from_context(flow_context) });
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use wfp_sys::{FWP_DATA_TYPE_, FWPS_INCOMING_VALUE0};

    use super::*;
    use crate::wfp::FlowSet;

    /// What the callout last read.
    static READ: AtomicU32 = AtomicU32::new(0);

    struct ReadsTheThirdField;

    impl InSet for () {
        fn set() -> &'static FlowSet<Self> {
            static SET: FlowSet<()> = FlowSet::new();
            &SET
        }
    }

    impl Callout for ReadsTheThirdField {
        type Flow = ();

        fn classify(request: &mut Classify<'_, ()>) {
            READ.store(request.u32(2).unwrap_or(u32::MAX), SeqCst);
        }
    }

    #[test]
    fn a_windows_that_does_not_know_a_newer_flag_gets_the_others() {
        use callout_flag::{ALLOW_RSC, ALLOW_URO, ALLOW_USO, CONDITIONAL_ON_FLOW};
        let try_all = |known: u32, flags: u32| {
            let mut tried = std::vec::Vec::new();
            let result = register_with(flags, |flags| {
                tried.push(flags);
                if flags & !known == 0 { Ok(7) } else { Err(NtStatus::INVALID_PARAMETER) }
            });
            (result, tried)
        };
        let old = CONDITIONAL_ON_FLOW | ALLOW_RSC;
        let new = old | ALLOW_USO | ALLOW_URO;
        assert_eq!(try_all(new, new), (Ok(7), std::vec![new]));
        assert_eq!(try_all(old, new), (Ok(7), std::vec![new, old]));
        assert_eq!(try_all(0, new), (Err(NtStatus::INVALID_PARAMETER), std::vec![new, old]));
        assert_eq!(try_all(0, old), (Err(NtStatus::INVALID_PARAMETER), std::vec![old]));
        assert_eq!(register_with(new, |_| Err(NtStatus::DEVICE_BUSY)), Err(NtStatus::DEVICE_BUSY));
    }

    /// The image must not unload under a callout that may still be called.
    #[test]
    fn a_callout_is_gone_only_when_the_engine_says_so() {
        assert!(is_gone(Ok(())));
        for gone in [0xC022_0001_u32, 0xC000_0225] {
            assert!(is_gone(NtStatus::check(gone.cast_signed())), "{gone:#x}");
        }
        // Busy, in use, no memory, no such device, access denied, a time-out, and a warning.
        for status in [0x8000_0011_u32, 0xC022_000A, 0xC000_009A, 0xC000_000E, 0xC000_0022, 0xC022_001B, 0x8000_0005] {
            assert!(!is_gone(NtStatus::check(status.cast_signed())), "{status:#x}");
        }
    }

    /// The headers have fields that older versions of Windows do not pass.
    #[test]
    fn a_field_is_read_below_the_count_only() {
        let mut values = [FWPS_INCOMING_VALUE0::default(); 3];
        for (index, value) in values.iter_mut().enumerate() {
            value.value.type_ = FWP_DATA_TYPE_::FWP_UINT32;
            value.value.__bindgen_anon_1.uint32 = index as u32 + 10;
        }
        let read = |count, array| {
            let values = FWPS_INCOMING_VALUES0 { layerId: 48, valueCount: count, incomingValue: array };
            let (metadata, filter) = Default::default();
            let mut out = FWPS_CLASSIFY_OUT0::default();
            // SAFETY: as the engine calls it; the array has at least that many values, or is null.
            unsafe {
                classify::<ReadsTheThirdField>(
                    &raw const values,
                    &raw const metadata,
                    core::ptr::null_mut(),
                    core::ptr::null(),
                    &raw const filter,
                    0,
                    &raw mut out,
                );
            }
            READ.load(SeqCst)
        };
        let array = values.as_mut_ptr();
        assert_eq!(read(3, array), 12);
        assert_eq!(read(2, array), u32::MAX, "the value exists but is not one of the fields");
        assert_eq!(read(3, core::ptr::null_mut()), u32::MAX);
    }
}
