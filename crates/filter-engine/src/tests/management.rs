//! BFE: who may add what, transactions, lifetimes, notifications.

use super::rig::{Functions, LAYER, Rig, Script};
use crate::bfe::{DisplayData, Filter, Provider, Session, Sublayer};
use crate::condition::ConditionValue;
use crate::error::{BfeResult, FWP_INVALID_NET_MASK};
use crate::layers::LayerId;
use crate::{CompiledFilter, Verdict};
use nt_abi::NtStatus;
use nt_abi::fwp::consts::*;
use parking_lot::Mutex;
use sluice_host::{Guid, MatchType, Weight};

fn refused<T: std::fmt::Debug>(result: BfeResult<T>) -> NtStatus {
    result.expect_err("must be refused").status
}

fn provider(key: Guid, flags: u32) -> Provider {
    Provider { key, display: DisplayData::new("provider", ""), flags, data: Vec::new(), service: None }
}

#[test]
fn a_rolled_back_transaction_leaves_nothing() {
    let rig = Rig::new();
    let session = rig.session();
    session.begin(false).expect("nobody else");
    let sublayer = rig.sublayer(&session, 7);
    let mut filter = rig.filter(FWP_ACTION_BLOCK);
    filter.sublayer = sublayer;
    let id = rig.add(&session, filter.clone());
    assert!(session.objects().filters.contains_key(&id), "the session sees its own changes");
    assert!(!rig.engine.bfe.objects().filters.contains_key(&id), "nobody else does");
    assert_eq!(rig.classify().verdict, Verdict::Permit);
    session.abort().expect("in a transaction");
    assert!(!session.objects().sublayers.contains_key(&sublayer));
    assert_eq!(rig.classify().verdict, Verdict::Permit);

    session.begin(false).expect("nobody else");
    filter.sublayer = rig.sublayer(&session, 7);
    let second = rig.add(&session, filter);
    session.commit().expect("nothing refuses");
    assert_eq!(rig.classify().filter_id, second);
    assert!(second > id, "an id is never given twice");
}

#[test]
fn transactions_have_their_errors() {
    let rig = Rig::new();
    let (one, two) = (rig.session(), rig.session());
    assert_eq!(refused(one.commit()), NtStatus::FWP_NO_TXN_IN_PROGRESS);
    assert_eq!(refused(one.abort()), NtStatus::FWP_NO_TXN_IN_PROGRESS);
    one.begin(false).expect("nobody else");
    assert_eq!(refused(one.begin(false)), NtStatus::FWP_TXN_IN_PROGRESS);
    assert_eq!(refused(two.begin(false)), NtStatus::FWP_TIMEOUT);
    assert_eq!(refused(two.add_provider(provider(rig.key(), 0))), NtStatus::FWP_TIMEOUT);
    one.abort().expect("in a transaction");
    two.begin(true).expect("nobody else");
    assert_eq!(refused(two.add_provider(provider(rig.key(), 0))), NtStatus::FWP_INCOMPATIBLE_TXN);
    drop(two);
    one.begin(false).expect("closing a session aborts its transaction");
}

#[test]
fn objects_that_are_referred_to_cannot_go() {
    let rig = Rig::new();
    let session = rig.session();
    let owner = rig.key();
    session.add_provider(provider(owner, 0)).expect("new");
    assert_eq!(refused(session.add_provider(provider(owner, 0))), NtStatus::FWP_ALREADY_EXISTS);
    let sublayer = rig.sublayer(&session, 1);
    let callout = rig.callout(&session);
    let mut filter = rig.filter(FWP_ACTION_CALLOUT_UNKNOWN);
    (filter.provider, filter.sublayer, filter.action_key) = (Some(owner), sublayer, callout);
    filter.context = rig.script(&Script::silent());
    let id = rig.add(&session, filter);
    assert_eq!(refused(session.delete_provider(owner)), NtStatus::FWP_IN_USE);
    assert_eq!(refused(session.delete_sublayer(sublayer)), NtStatus::FWP_IN_USE);
    assert_eq!(refused(session.delete_callout(callout)), NtStatus::FWP_IN_USE);
    session.delete_filter_by_id(id).expect("it is there");
    session.delete_callout(callout).expect("unused");
    session.delete_sublayer(sublayer).expect("unused");
    session.delete_provider(owner).expect("unused");
    assert_eq!(refused(session.delete_provider(owner)), NtStatus::FWP_PROVIDER_NOT_FOUND);
    assert_eq!(refused(session.delete_sublayer(sublayer)), NtStatus::FWP_SUBLAYER_NOT_FOUND);
    assert_eq!(refused(session.delete_callout(callout)), NtStatus::FWP_CALLOUT_NOT_FOUND);
    assert_eq!(refused(session.delete_filter_by_id(id)), NtStatus::FWP_FILTER_NOT_FOUND);
    let universal = crate::names::SUBLAYER_UNIVERSAL;
    assert_eq!(refused(session.delete_sublayer(universal)), NtStatus::FWP_BUILTIN_OBJECT);
}

#[test]
fn a_bad_filter_is_refused_for_its_reason() {
    let rig = Rig::new();
    let session = rig.session();
    let other_layer = rig.callout_at(&session, LayerId::STREAM_V4, 0);
    let on = |field: &str, match_type, value| vec![rig.condition(field, match_type, value)];
    let range = |low, high| ConditionValue::Range { low: Box::new(low), high: Box::new(high) };
    let (p16, p32) = (ConditionValue::Uint16(1), ConditionValue::Uint32(1));
    let mask = |mask| ConditionValue::V4AddrMask { addr: 0, mask };
    type Spoil<'a> = Box<dyn Fn(&mut Filter) + 'a>;
    let cases: Vec<(NtStatus, Spoil<'_>)> = vec![
        (NtStatus::FWP_NULL_DISPLAY_NAME, Box::new(|f| f.display.name = None)),
        (NtStatus::FWP_LAYER_NOT_FOUND, Box::new(|f| f.layer = Guid(1))),
        (NtStatus::FWP_SUBLAYER_NOT_FOUND, Box::new(|f| f.sublayer = Guid(1))),
        (NtStatus::FWP_PROVIDER_NOT_FOUND, Box::new(|f| f.provider = Some(Guid(1)))),
        (NtStatus::FWP_INVALID_ACTION_TYPE, Box::new(|f| f.action = FWP_ACTION_CONTINUE)),
        (NtStatus::FWP_CALLOUT_NOT_FOUND, Box::new(|f| f.action = FWP_ACTION_CALLOUT_UNKNOWN)),
        (
            NtStatus::FWP_INCOMPATIBLE_LAYER,
            Box::new(|f| (f.action, f.action_key) = (FWP_ACTION_CALLOUT_UNKNOWN, other_layer)),
        ),
        (NtStatus::FWP_INVALID_WEIGHT, Box::new(|f| f.weight = Weight::Range(16))),
        (NtStatus::FWP_INVALID_FLAGS, Box::new(|f| f.flags = FWPM_FILTER_FLAG_DISABLED)),
        (NtStatus::FWP_INVALID_FLAGS, Box::new(|f| f.flags = FWPM_FILTER_FLAG_PERSISTENT | FWPM_FILTER_FLAG_BOOTTIME)),
        (NtStatus::FWP_INVALID_FLAGS, Box::new(|f| f.flags = FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED)),
        (
            NtStatus::FWP_CONDITION_NOT_FOUND,
            Box::new(|f| f.conditions = on("IP_FORWARD_INTERFACE", MatchType::Equal, p32.clone())),
        ),
        (NtStatus::FWP_TYPE_MISMATCH, Box::new(|f| f.conditions = on("IP_REMOTE_PORT", MatchType::Equal, p32.clone()))),
        (
            NtStatus::FWP_MATCH_TYPE_MISMATCH,
            Box::new(|f| f.conditions = on("IP_REMOTE_PORT", MatchType::Range, p16.clone())),
        ),
        (
            NtStatus::FWP_MATCH_TYPE_MISMATCH,
            Box::new(|f| f.conditions = on("IP_REMOTE_PORT", MatchType::EqualCaseInsensitive, p16.clone())),
        ),
        (
            NtStatus::FWP_MATCH_TYPE_MISMATCH,
            Box::new(|f| f.conditions = on("IP_REMOTE_ADDRESS", MatchType::Greater, mask(0))),
        ),
        (
            NtStatus::FWP_INVALID_RANGE,
            Box::new(|f| {
                let backwards = range(ConditionValue::Uint16(2), ConditionValue::Uint16(1));
                f.conditions = on("IP_REMOTE_PORT", MatchType::Range, backwards);
            }),
        ),
        (
            NtStatus::FWP_TYPE_MISMATCH,
            Box::new(|f| {
                let mixed = range(ConditionValue::Uint16(1), ConditionValue::Uint32(2));
                f.conditions = on("IP_REMOTE_PORT", MatchType::Range, mixed);
            }),
        ),
        (
            FWP_INVALID_NET_MASK,
            Box::new(|f| f.conditions = on("IP_REMOTE_ADDRESS", MatchType::Equal, mask(0xFF00_FF00))),
        ),
    ];
    for (row, (expected, spoil)) in cases.iter().enumerate() {
        let mut filter = rig.filter(FWP_ACTION_BLOCK);
        spoil(&mut filter);
        assert_eq!(refused(session.add_filter(filter)), *expected, "case {row}");
    }
    assert!(session.objects().filters.is_empty());
    rig.add(&session, rig.filter(FWP_ACTION_BLOCK));
}

#[test]
fn an_object_refers_only_to_what_lives_as_long() {
    let rig = Rig::new();
    let (session, dynamic, other) = (rig.session(), rig.dynamic_session(), rig.dynamic_session());
    let sublayer = |key, flags, provider| Sublayer {
        key,
        display: DisplayData::new("sublayer", ""),
        flags,
        provider,
        data: Vec::new(),
        weight: 0,
    };
    let add = |session: &Session, s| session.add_sublayer(s);
    let (fleeting, stays, persists) = (rig.key(), rig.key(), rig.key());
    dynamic.add_provider(provider(fleeting, 0)).expect("new");
    session.add_provider(provider(stays, 0)).expect("new");
    session.add_provider(provider(persists, FWPM_PROVIDER_FLAG_PERSISTENT)).expect("new");
    let persistent = FWPM_SUBLAYER_FLAG_PERSISTENT;
    let mismatch = NtStatus::FWP_LIFETIME_MISMATCH;
    assert_eq!(refused(add(&session, sublayer(rig.key(), 0, Some(fleeting)))), mismatch);
    assert_eq!(refused(add(&session, sublayer(rig.key(), persistent, Some(stays)))), mismatch);
    assert_eq!(refused(add(&other, sublayer(rig.key(), 0, Some(fleeting)))), NtStatus::FWP_WRONG_SESSION);
    add(&session, sublayer(rig.key(), persistent, Some(persists))).expect("both persist");
    add(&dynamic, sublayer(rig.key(), 0, Some(fleeting))).expect("its own");
    let in_dynamic = refused(dynamic.add_provider(provider(rig.key(), FWPM_PROVIDER_FLAG_PERSISTENT)));
    assert_eq!(in_dynamic, NtStatus::FWP_DYNAMIC_SESSION_IN_PROGRESS);
    assert_eq!(refused(session.delete_provider(fleeting)), NtStatus::FWP_WRONG_SESSION);
}

#[test]
fn a_dynamic_session_takes_its_objects_with_it() {
    let rig = Rig::new();
    let session = rig.dynamic_session();
    let mut filter = rig.filter(FWP_ACTION_BLOCK);
    filter.sublayer = rig.sublayer(&session, 1);
    rig.add(&session, filter);
    assert_eq!(rig.classify().verdict, Verdict::Block);
    let before = rig.engine.bfe.objects().sublayers.len();
    session.close().expect("closes");
    assert_eq!(rig.classify().verdict, Verdict::Permit);
    let objects = rig.engine.bfe.objects();
    assert!(objects.filters.is_empty() && objects.filter_ids.is_empty());
    assert_eq!(objects.sublayers.len(), before - 1);
    assert!(rig.engine.bfe.sessions().is_empty());
}

#[test]
fn a_boot_time_filter_is_kept_but_not_enforced_while_bfe_runs() {
    let rig = Rig::new();
    let session = rig.session();
    let mut filter = rig.filter(FWP_ACTION_BLOCK);
    filter.flags = FWPM_FILTER_FLAG_BOOTTIME;
    let id = rig.add(&session, filter);
    assert!(session.objects().filters.contains_key(&id));
    assert_eq!(rig.classify().verdict, Verdict::Permit);
}

#[test]
fn after_a_restart_boot_time_filters_hold_until_bfe_runs() {
    let mut rig = Rig::new();
    let session = rig.session();
    let add = |flags, weight, action| {
        let mut filter = rig.filter(action);
        (filter.flags, filter.weight) = (flags, Weight::Range(weight));
        rig.add(&session, filter);
    };
    add(FWPM_FILTER_FLAG_BOOTTIME, 1, FWP_ACTION_BLOCK);
    add(FWPM_FILTER_FLAG_PERSISTENT, 2, FWP_ACTION_PERMIT);
    add(0, 3, FWP_ACTION_BLOCK);
    session.close().expect("closes");
    assert_eq!(rig.classify().verdict, Verdict::Block, "the static filter");
    rig.engine = rig.engine.restarted().expect("the objects are there again");
    assert!(!rig.engine.bfe.is_running());
    assert_eq!(rig.classify().verdict, Verdict::Block, "the boot-time filter");
    assert_eq!(rig.engine.bfe.objects().filters.len(), 2, "the static filter is gone");
    rig.engine.start_bfe().expect("BFE starts");
    assert_eq!(rig.classify().verdict, Verdict::Permit, "the persistent filter");
    assert!(rig.engine.bfe.is_running());
}

#[test]
fn weights_are_as_given_or_lie_in_their_range() {
    let rig = Rig::new();
    let session = rig.session();
    let weight = |weight| {
        let mut filter = rig.filter(FWP_ACTION_PERMIT);
        filter.weight = weight;
        let id = rig.add(&session, filter);
        session.objects().filters[&id].effective_weight
    };
    assert_eq!(weight(Weight::Exact(u64::MAX)), u64::MAX);
    assert_eq!(weight(Weight::Auto) >> 60, 0);
    assert_eq!(weight(Weight::Range(15)) >> 60, 15);
    assert_eq!(weight(Weight::Range(3)) & ((1 << 60) - 1), weight(Weight::Auto));
}

/// What notifyFn was told: the kind, the filter's id, whether it had a key.
static TOLD: Mutex<Vec<(u32, u64, bool)>> = Mutex::new(Vec::new());
/// The filter id notifyFn refuses, when it is not zero.
static REFUSE_WEIGHT: Mutex<u64> = Mutex::new(0);

fn notify(kind: u32, key: Option<Guid>, filter: &CompiledFilter) -> NtStatus {
    TOLD.lock().push((kind, filter.id(), key.is_some()));
    let refuse = kind == FWPS_CALLOUT_NOTIFY_ADD_FILTER && filter.weight() == *REFUSE_WEIGHT.lock();
    if refuse { NtStatus::UNSUCCESSFUL } else { NtStatus::SUCCESS }
}

#[test]
fn callouts_hear_of_filters_and_may_refuse_them() {
    let rig = Rig::new();
    let session = rig.session();
    let key = rig.key();
    rig.add_callout(&session, key, LAYER);
    let filter = |weight| {
        let mut filter = rig.filter(FWP_ACTION_CALLOUT_UNKNOWN);
        (filter.action_key, filter.weight) = (key, Weight::Exact(weight));
        filter.context = rig.script(&Script::silent());
        filter
    };
    let early = rig.add(&session, filter(1));
    let functions = Functions { notify: Box::new(notify), ..rig.functions() };
    rig.register(key, FWP_CALLOUT_FLAG_ENABLE_COMMIT_ADD_NOTIFY, functions).expect("new");
    assert_eq!(*TOLD.lock(), [], "a callout does not hear of filters that were there before it");

    session.begin(false).expect("nobody else");
    let (a, b) = (rig.add(&session, filter(2)), rig.add(&session, filter(3)));
    let never = rig.add(&session, filter(4));
    session.delete_filter_by_id(never).expect("it is there");
    assert_eq!(*TOLD.lock(), [], "nothing happens before the commit");
    session.commit().expect("nothing refuses");
    let (add, committed, delete) =
        (FWPS_CALLOUT_NOTIFY_ADD_FILTER, FWPS_CALLOUT_NOTIFY_ADD_FILTER_POST_COMMIT, FWPS_CALLOUT_NOTIFY_DELETE_FILTER);
    assert_eq!(*TOLD.lock(), [(add, a, true), (add, b, true), (committed, a, true), (committed, b, true)]);
    TOLD.lock().clear();

    *REFUSE_WEIGHT.lock() = 6;
    session.begin(false).expect("nobody else");
    let c = rig.add(&session, filter(5));
    let d = rig.add(&session, filter(6));
    session.delete_filter_by_id(a).expect("it is there");
    assert_eq!(refused(session.commit()), NtStatus::FWP_CALLOUT_NOTIFICATION_FAILED);
    assert_eq!(*TOLD.lock(), [(add, c, true), (add, d, true), (delete, c, false)]);
    let left: Vec<u64> = session.objects().filters.keys().copied().collect();
    assert_eq!(left, [early, a, b], "the whole transaction is undone");
    TOLD.lock().clear();

    session.delete_filter_by_id(b).expect("it is there");
    assert_eq!(*TOLD.lock(), [(delete, b, false)], "a deletion comes without the key");
}

#[test]
fn registering_twice_is_refused() {
    let rig = Rig::new();
    let key = rig.key();
    let id = rig.register(key, 0, rig.functions()).expect("new");
    assert_eq!(refused(rig.register(key, 0, rig.functions())), NtStatus::FWP_ALREADY_EXISTS);
    let session = rig.session();
    rig.add_callout(&session, key, LAYER);
    let stored = session.objects().callouts[&key].slot.id();
    assert_eq!(stored, id, "both sides know it by one id");
    assert_eq!(refused(rig.register(Guid(0), 0, rig.functions())), NtStatus::INVALID_PARAMETER);
}
