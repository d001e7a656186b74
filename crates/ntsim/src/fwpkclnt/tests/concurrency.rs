//! Processors classify while filters are added and deleted and callouts register and unregister.

use super::rig::{LAYER, Rig};
use crate::cpu;
use core::ffi::c_void;
use filter_engine::{Classify, LayerData};
use nt_abi::Irql;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{
    FwpsCallout0, FwpsClassifyOut0, FwpsFilter0, FwpsIncomingMetadataValues0, FwpsIncomingValues0, RawGuid,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A filter's context, as a driver would keep one: made when the filter is added, freed when it is deleted. Here it is
/// poisoned instead, so that a late use is seen.
struct Context {
    alive: AtomicBool,
}

static LIVING: AtomicU64 = AtomicU64::new(0);
static USES: AtomicU64 = AtomicU64::new(0);
static LATE: AtomicU64 = AtomicU64::new(0);
/// How many threads are inside the classify function, and whether any entered after it was unregistered.
static UNLOADED: AtomicBool = AtomicBool::new(false);

unsafe extern "win64" fn notify(kind: u32, _: *const RawGuid, filter: *mut FwpsFilter0) -> i32 {
    // SAFETY: the engine passes a filter it owns; its context is one of the leaked ones below.
    unsafe {
        match kind {
            FWPS_CALLOUT_NOTIFY_ADD_FILTER => {
                LIVING.fetch_add(1, Ordering::SeqCst);
                (*filter).context =
                    Box::leak(Box::new(Context { alive: AtomicBool::new(true) })) as *mut Context as u64;
            }
            FWPS_CALLOUT_NOTIFY_DELETE_FILTER => {
                LIVING.fetch_sub(1, Ordering::SeqCst);
                (*((*filter).context as *const Context)).alive.store(false, Ordering::SeqCst);
            }
            _ => {}
        }
    }
    NtStatus::SUCCESS.0
}

unsafe extern "win64" fn uses_context(
    _fixed: *const FwpsIncomingValues0,
    _metadata: *const FwpsIncomingMetadataValues0,
    _layer_data: *mut c_void,
    _context: *const c_void,
    filter: *const FwpsFilter0,
    _flow_context: u64,
    out: *mut FwpsClassifyOut0,
) {
    // SAFETY: as above.
    unsafe {
        let context = &*((*filter).context as *const Context);
        for _ in 0..20 {
            if !context.alive.load(Ordering::SeqCst) || UNLOADED.load(Ordering::SeqCst) {
                LATE.fetch_add(1, Ordering::SeqCst);
            }
            std::hint::spin_loop();
        }
        USES.fetch_add(1, Ordering::Relaxed);
        (*out).action_type = FWP_ACTION_PERMIT;
    }
}

#[test]
fn a_deleted_filter_and_an_unregistered_callout_are_in_use_nowhere() {
    let rig = Rig::new();
    let session = rig.session();
    let key = rig.key();
    let raw = FwpsCallout0 {
        callout_key: key.into(),
        flags: 0,
        classify_fn: uses_context as *const c_void,
        notify_fn: notify as *const c_void,
        flow_delete_fn: core::ptr::null(),
    };
    rig.register(&raw).expect("new");
    rig.add_callout(&session, key, LAYER);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let metadata = FwpsIncomingMetadataValues0::default();
                let c = Classify {
                    layer: LAYER,
                    values: &[],
                    metadata: &metadata,
                    layer_data: LayerData::None,
                    flow: None,
                    request: None,
                };
                cpu::enter(&rig.machine, Irql::DISPATCH, || {
                    while !stop.load(Ordering::Relaxed) {
                        rig.machine.wfp.classify(&c, 0, None);
                    }
                })
                .expect("no bugcheck");
            });
        }
        for _ in 0..60 {
            let mut filter = rig.filter(FWP_ACTION_CALLOUT_UNKNOWN);
            filter.action_key = key;
            let ids = [rig.add(&session, filter.clone()), rig.add(&session, filter)];
            while USES.swap(0, Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            rig.run(|| session.begin(false)).expect("nobody else");
            for id in ids {
                rig.run(|| session.delete_filter_by_id(id)).expect("it is there");
            }
            rig.run(|| session.commit()).expect("nothing refuses");
        }
        assert_eq!(LIVING.load(Ordering::SeqCst), 0, "every context was freed");
        // Again with filters in place, for a callout that is unregistered under them.
        let mut filter = rig.filter(FWP_ACTION_CALLOUT_UNKNOWN);
        filter.action_key = key;
        rig.add(&session, filter);
        let callouts = &rig.machine.wfp.engine.callouts;
        rig.run(|| callouts.unregister(callouts.by_key(key), || {})).expect("nothing holds it");
        UNLOADED.store(true, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(20));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(LATE.load(Ordering::SeqCst), 0);
}
