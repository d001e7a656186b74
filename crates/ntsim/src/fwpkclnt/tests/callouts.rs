//! Tests that need a driver's functions: callouts of the first version, contexts set by notifyFn, refusals.

use super::rig::{LAYER, Rig, Script, scripted0};
use crate::fwpkclnt::fwps::callout;
use core::ffi::c_void;
use filter_engine::Verdict;
use filter_engine::bfe::FilterContext;
use filter_engine::security::Sid;
use filter_engine::token::Token;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{FwpsFilter0, RawGuid};
use parking_lot::Mutex;

#[test]
fn a_callout_of_the_first_version_gets_no_classify_context() {
    let rig = Rig::new();
    let session = rig.session();
    let callout = rig.key();
    let mut raw = Rig::raw_callout(callout, 0);
    raw.classify_fn = scripted0 as *const c_void;
    // SAFETY: the classify function is of version 0, the rest is the same in every version.
    let registration = unsafe { callout::registration(&raw, 0) }.expect("good");
    rig.machine.wfp.engine.callouts.register(callout, registration).expect("new");
    rig.add_callout(&session, callout, LAYER);
    let script = Script::says(FWP_ACTION_BLOCK);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_TERMINATING);
    filter.action_key = callout;
    filter.context = rig.script(&script);
    rig.add(&session, filter);
    assert_eq!(rig.classify().verdict, Verdict::Block);
    assert_eq!(script.calls(), 1);
}

#[test]
fn the_context_that_notify_sets_is_the_one_classify_gets() {
    static SCRIPT: Mutex<u64> = Mutex::new(0);
    unsafe extern "win64" fn sets_context(kind: u32, _: *const RawGuid, filter: *mut FwpsFilter0) -> i32 {
        if kind == FWPS_CALLOUT_NOTIFY_ADD_FILTER {
            // SAFETY: the engine passes a filter that is in no snapshot yet.
            unsafe { (*filter).context = *SCRIPT.lock() };
        }
        0
    }
    let rig = Rig::new();
    let session = rig.session();
    let script = Script::says(FWP_ACTION_BLOCK);
    if let FilterContext::Raw(raw) = rig.script(&script) {
        *SCRIPT.lock() = raw;
    }
    let key = rig.key();
    let mut raw = Rig::raw_callout(key, 0);
    raw.notify_fn = sets_context as *const c_void;
    rig.register(&raw).expect("new");
    rig.add_callout(&session, key, LAYER);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_TERMINATING);
    filter.action_key = key;
    rig.add(&session, filter);
    assert_eq!(rig.classify().verdict, Verdict::Block);
    assert_eq!(script.calls(), 1);
}

#[test]
fn a_callout_without_a_notify_function_is_refused() {
    let rig = Rig::new();
    let mut bad = Rig::raw_callout(rig.key(), 0);
    bad.notify_fn = core::ptr::null();
    let refused = rig.register(&bad).expect_err("it has none");
    assert_eq!(refused.status, NtStatus::INVALID_PARAMETER);
}

#[test]
fn a_driver_finds_the_user_as_shipped_drivers_do() {
    let blob = Token { sids: vec![Sid::new(5, &[21, 1, 2, 3, 1001]), Sid::new(1, &[0])] }.to_blob();
    // SAFETY: each pointer points into the blob, which is aligned to 8 bytes and still alive; this is what is tested.
    let user = unsafe {
        let hash = *blob.bytes().as_ptr().cast::<*const *const *const [u8; 28]>();
        let attributes = *hash.add(1);
        **attributes.cast::<*const [u8; 28]>()
    };
    assert_eq!(user, Sid::new(5, &[21, 1, 2, 3, 1001]).bytes());
}
