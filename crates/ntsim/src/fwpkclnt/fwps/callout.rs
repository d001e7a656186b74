//! The functions of a callout: the engine's calls into a driver.

use super::super::pend::ClassifyContext;
use crate::cpu;
use crate::trace::{Argument, Callback, times};
use crate::verifier::callback::{self, At, Keeps};
use core::ffi::c_void;
use core::mem::transmute;
use filter_engine::callout::{CalloutFunctions, ClassifyCall, Registration};
use filter_engine::layers::{FieldKind, LayerId};
use filter_engine::{BfeError, BfeResult, CompiledFilter};
use nt_abi::NtStatus;
use nt_abi::fwp::value::Read;
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0, RawGuid, consts,
};
use sluice_host::Guid;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// `FWPS_CALLOUT_CLASSIFY_FN0`.
pub type ClassifyFn0 = unsafe extern "win64" fn(
    *const FwpsIncomingValues0,
    *const FwpsIncomingMetadataValues0,
    *mut c_void,
    *const FwpsFilter0,
    u64,
    *mut FwpsClassifyOut0,
);

/// `FWPS_CALLOUT_CLASSIFY_FN1` to `FWPS_CALLOUT_CLASSIFY_FN3`: with the classify context.
pub type ClassifyFn1 = unsafe extern "win64" fn(
    *const FwpsIncomingValues0,
    *const FwpsIncomingMetadataValues0,
    *mut c_void,
    *const c_void,
    *const FwpsFilter0,
    u64,
    *mut FwpsClassifyOut0,
);

/// `FWPS_CALLOUT_NOTIFY_FN0` to `FWPS_CALLOUT_NOTIFY_FN3`.
pub type NotifyFn = unsafe extern "win64" fn(u32, *const RawGuid, *mut FwpsFilter0) -> i32;

/// `FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0`.
pub type FlowDeleteFn = unsafe extern "win64" fn(u16, u32, u64);

/// A classifyFn, of the version that it was registered with.
#[derive(Clone, Copy)]
enum ClassifyFn {
    /// FwpsCalloutRegister0: no classify context.
    V0(ClassifyFn0),
    /// FwpsCalloutRegister1 to 3.
    V1(ClassifyFn1),
}

impl ClassifyFn {
    /// Its address.
    fn address(self) -> u64 {
        match self {
            Self::V0(f) => f as usize as u64,
            Self::V1(f) => f as usize as u64,
        }
    }
}

/// The functions of one registration.
struct Functions {
    classify: ClassifyFn,
    notify: NotifyFn,
    flow_delete: Option<FlowDeleteFn>,
}

/// Reads the structure a driver passed to FwpsCalloutRegister0 (`version` 0) to 3.
///
/// # Errors
/// `INVALID_PARAMETER` when a required function is null.
///
/// # Safety
/// `callout`'s functions have the types of `version`, and can be called while the callout is registered or flows carry
/// its contexts.
pub(in crate::fwpkclnt) unsafe fn registration(callout: &FwpsCallout0, version: u32) -> BfeResult<Registration> {
    let missing = |name| BfeError::new(NtStatus::INVALID_PARAMETER, format!("FWPS_CALLOUT{version}.{name} is null"));
    if callout.classify_fn.is_null() {
        return Err(missing("classifyFn"));
    }
    if callout.notify_fn.is_null() {
        return Err(missing("notifyFn"));
    }
    // SAFETY: checked for null above, and of these types by this function's contract; pointers to code and to data have
    // the same size on x64.
    let functions = unsafe {
        Functions {
            classify: if version == 0 {
                ClassifyFn::V0(transmute::<*const c_void, ClassifyFn0>(callout.classify_fn))
            } else {
                ClassifyFn::V1(transmute::<*const c_void, ClassifyFn1>(callout.classify_fn))
            },
            notify: transmute::<*const c_void, NotifyFn>(callout.notify_fn),
            flow_delete: transmute::<*const c_void, Option<FlowDeleteFn>>(callout.flow_delete_fn),
        }
    };
    let has_flow_delete = functions.flow_delete.is_some();
    Ok(Registration { flags: callout.flags, has_flow_delete, functions: Arc::new(functions) })
}

impl CalloutFunctions for Functions {
    fn classify(&self, call: &ClassifyCall<'_>, out: &mut FwpsClassifyOut0) {
        let c = call.classify;
        let may_write = out.rights & consts::FWPS_RIGHT_ACTION_WRITE != 0;
        // Without a request, the callout gets a context through which no handle can be acquired.
        let empty;
        let context = match c.request {
            Some(request) => request.context(),
            None => {
                empty = ClassifyContext::new(c.layer, 0, None);
                empty.as_ptr()
            }
        };
        let (layer_data, filter, flow_context) = (c.layer_data.as_ptr(), call.filter.fwps(), call.flow_context);
        let answer: *mut FwpsClassifyOut0 = out;
        let routine = self.classify.address();
        let run = || {
            // SAFETY: a classifyFn of this version (`registration`). The call is counted in, and unregistering waits for
            // it, so the driver cannot unload before it returns. All pointers are to memory that outlives the call;
            // `layer_data` is of the layer's type.
            unsafe {
                match self.classify {
                    ClassifyFn::V0(f) => f(call.fixed, c.metadata, layer_data, filter, flow_context, answer),
                    ClassifyFn::V1(f) => f(call.fixed, c.metadata, layer_data, context, filter, flow_context, answer),
                }
            }
        };
        let classify = || times::classify(routine, c.layer, run);
        callback::enter(
            &At("classifyFn", routine),
            Keeps::All,
            || describe(call, routine, may_write),
            classify,
            // SAFETY: `out` above; the callout has returned, so nothing writes to it.
            |()| self::answer(unsafe { &*answer }),
        );
    }

    fn notify(&self, kind: u32, key: Option<Guid>, filter: &CompiledFilter) -> NtStatus {
        let key = key.map(RawGuid::from);
        let key = key.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
        let routine = self.notify as usize as u64;
        // SAFETY: a notifyFn (`registration`), of a driver that cannot unload before it returns. It may write the
        // filter's context, which is not read before the filter is in a snapshot or after it has left the last one.
        let call = || unsafe { (self.notify)(kind, key, filter.fwps()) };
        let describe = || {
            let notice = match kind {
                consts::FWPS_CALLOUT_NOTIFY_ADD_FILTER => "ADD_FILTER".to_owned(),
                consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER => "DELETE_FILTER".to_owned(),
                other => other.to_string(),
            };
            let arguments = vec![Argument::new("notifyType", notice), Argument::new("filterId", filter.id())];
            Callback::new("notifyFn", routine, arguments)
        };
        let told = |status: &i32| NtStatus(*status).to_string();
        NtStatus(callback::enter(&At("notifyFn", routine), Keeps::All, describe, call, told))
    }

    fn delete_flow_context(&self, layer: LayerId, callout_id: u32, context: u64) {
        let Some(flow_delete) = self.flow_delete else { return };
        let routine = flow_delete as usize as u64;
        // SAFETY: a flowDeleteFn (`registration`), of a driver that cannot unload while flows carry its contexts: until
        // then unregistering fails with DEVICE_BUSY.
        let call = || unsafe { flow_delete(layer.0, callout_id, context) };
        let describe = || {
            let arguments = vec![
                Argument::new("layer", format_args!("{layer:?}")),
                Argument::new("calloutId", callout_id),
                Argument::new("flowContext", format_args!("{context:#x}")),
            ];
            Callback::new("flowDeleteFn", routine, arguments)
        };
        callback::enter(&At("flowDeleteFn", routine), Keeps::All, describe, call, |()| String::new());
    }

    fn classify_address(&self) -> Option<u64> {
        Some(self.classify.address())
    }
}

/// The call, with every field that has a value and is not a blob.
fn describe(call: &ClassifyCall<'_>, routine: u64, may_write: bool) -> Callback {
    let layer = cpu::with_machine(|machine| machine.wfp.engine.layers().get(call.classify.layer));
    let mut arguments = vec![
        Argument::new("layer", layer.map_or("?", |layer| layer.name)),
        Argument::new("filterId", call.filter.id()),
        Argument::new("flowContext", format_args!("{:#x}", call.flow_context)),
        Argument::new("rights", if may_write { "WRITE" } else { "none" }),
    ];
    for (field, value) in layer.iter().flat_map(|layer| &layer.fields).zip(call.classify.values) {
        let shown = match value.read() {
            Read::Unsigned(consts::FWP_UINT32, v) if field.kind == FieldKind::IpAddress => {
                Ipv4Addr::from(v as u32).to_string()
            }
            Read::Unsigned(_, v) if field.kind == FieldKind::Flags => format!("{v:#x}"),
            Read::Unsigned(_, v) => v.to_string(),
            Read::Bytes16(v) => Ipv6Addr::from(*v).to_string(),
            _ => continue,
        };
        arguments.push(Argument::new(field.name, shown));
    }
    Callback::new("classifyFn", routine, arguments)
}

/// The callout's answer, as text.
fn answer(out: &FwpsClassifyOut0) -> String {
    let action = match out.action_type {
        consts::FWP_ACTION_PERMIT => "PERMIT".to_owned(),
        consts::FWP_ACTION_BLOCK => "BLOCK".to_owned(),
        consts::FWP_ACTION_CONTINUE => "CONTINUE".to_owned(),
        other => format!("action {other:#x}"),
    };
    let rights = if out.rights & consts::FWPS_RIGHT_ACTION_WRITE == 0 { ", right cleared" } else { "" };
    let flags = if out.flags == 0 { String::new() } else { format!(", flags {:#x}", out.flags) };
    format!("{action}{rights}{flags}")
}
