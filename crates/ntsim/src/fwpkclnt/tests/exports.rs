//! The Fwpm exports, called as a driver calls them: by name from the export table, with raw structures.

use super::rig::{LAYER, Rig};
use crate::export::{Entry, Export};
use crate::fwpkclnt::{fwpm, fwps};
use core::ffi::c_void;
use core::ptr::{null, null_mut};
use filter_engine::Verdict;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::*;
use nt_abi::fwp::{
    FilterContext, FwpByteBlob, FwpValue0, FwpmAction0, FwpmCallout0, FwpmDisplayData0, FwpmFilter0,
    FwpmFilterCondition0, FwpmFilterEnumTemplate0, FwpmLayer0, FwpmProvider0, FwpmSession0, FwpmSublayer0, RawGuid,
    ValueUnion,
};
use sluice_host::Guid;

/// The entry point of an export.
pub(super) fn entry(name: &str) -> *const () {
    let all = || fwpm::EXPORTS.iter().chain(fwps::EXPORTS);
    let found: Vec<&Export> = all().filter(|export| export.name == name).collect();
    assert_eq!(found.len(), 1, "{name}");
    assert_eq!(found[0].module, "fwpkclnt.sys");
    match found[0].entry {
        Entry::Function(address) => address,
        Entry::Variable(_) => panic!("{name} is a function"),
    }
}

/// Calls an export with arguments of pointer width; enough for those below, which pass integers and pointers only.
macro_rules! call {
    ($name:literal $(, $arg:expr)*) => {{
        let function = entry($name);
        // SAFETY: number and kinds of the arguments are those of the import's prototype; in the win64 convention each
        // takes a register or a slot of eight bytes, whatever its width.
        unsafe {
            let function: unsafe extern "win64" fn($(call!(@word $arg)),*) -> NtStatus = core::mem::transmute(function);
            function($($arg as u64),*)
        }
    }};
    (@word $arg:expr) => { u64 };
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn display(name: &[u16]) -> FwpmDisplayData0 {
    FwpmDisplayData0 { name: name.as_ptr(), description: null() }
}

fn open() -> *mut c_void {
    let mut engine: *mut c_void = null_mut();
    assert_eq!(call!("FwpmEngineOpen0", 0, 10, 0, 0, &raw mut engine), NtStatus::SUCCESS);
    engine
}

#[test]
fn a_driver_builds_its_policy_reads_it_back_and_takes_it_down() {
    let rig = Rig::new();
    let name = wide("from a driver");
    let (provider_key, sublayer_key, callout_key) = (rig.key(), rig.key(), rig.key());
    let provider_raw = RawGuid::from(provider_key);
    rig.run(|| {
        let engine = open();
        assert_eq!(call!("FwpmTransactionBegin0", engine, 0), NtStatus::SUCCESS);
        let mut bytes = *b"xyz";
        let provider = FwpmProvider0 {
            provider_key: provider_raw,
            display_data: display(&name),
            flags: 0,
            provider_data: FwpByteBlob { size: 3, data: bytes.as_mut_ptr() },
            service_name: null(),
        };
        assert_eq!(call!("FwpmProviderAdd0", engine, &raw const provider, 0), NtStatus::SUCCESS);
        let sublayer = FwpmSublayer0 {
            sub_layer_key: sublayer_key.into(),
            display_data: display(&name),
            flags: 0,
            provider_key: &provider_raw,
            provider_data: FwpByteBlob::default(),
            weight: 0x1234,
        };
        assert_eq!(call!("FwpmSubLayerAdd0", engine, &raw const sublayer, 0), NtStatus::SUCCESS);
        let callout = FwpmCallout0 {
            callout_key: callout_key.into(),
            display_data: display(&name),
            flags: 0,
            provider_key: &provider_raw,
            provider_data: FwpByteBlob::default(),
            applicable_layer: rig.layer_key(LAYER).into(),
            callout_id: 0,
        };
        let mut callout_id = 0u32;
        assert_eq!(call!("FwpmCalloutAdd0", engine, &raw const callout, 0, &raw mut callout_id), NtStatus::SUCCESS);
        assert_eq!(rig.machine.wfp.engine.callouts.by_key(callout_key).expect("a slot").id(), callout_id);

        let ports = [FwpValue0 { kind: FWP_UINT16, value: ValueUnion { raw: 443 } }, {
            FwpValue0 { kind: FWP_UINT16, value: ValueUnion { raw: 8443 } }
        }];
        let port = |value| FwpmFilterCondition0 {
            field_key: filter_engine::layers::condition("IP_REMOTE_PORT").expect("known").into(),
            match_type: FWP_MATCH_EQUAL,
            condition_value: value,
        };
        let conditions = ports.map(port);
        let weight = 77u64;
        let filter = FwpmFilter0 {
            filter_key: RawGuid::default(),
            display_data: display(&name),
            flags: 0,
            provider_key: &provider_raw,
            provider_data: FwpByteBlob::default(),
            layer_key: rig.layer_key(LAYER).into(),
            sub_layer_key: sublayer_key.into(),
            weight: FwpValue0 { kind: FWP_UINT64, value: ValueUnion { uint64: &weight } },
            num_filter_conditions: 2,
            filter_condition: conditions.as_ptr(),
            action: FwpmAction0 { kind: FWP_ACTION_CALLOUT_TERMINATING, key: callout_key.into() },
            context: FilterContext { bytes: [0xABCD, 0] },
            reserved: null(),
            filter_id: 0,
            effective_weight: FwpValue0::EMPTY,
        };
        let mut id = 0u64;
        assert_eq!(call!("FwpmFilterAdd0", engine, &raw const filter, 0, &raw mut id), NtStatus::SUCCESS);
        assert_eq!(call!("FwpmTransactionCommit0", engine), NtStatus::SUCCESS);

        let mut read: *mut FwpmFilter0 = null_mut();
        assert_eq!(call!("FwpmFilterGetById0", engine, id, &raw mut read), NtStatus::SUCCESS);
        // SAFETY: returned by the call, with as many conditions as it says.
        unsafe {
            assert_eq!((*read).filter_id, id);
            assert_eq!(Guid::from((*read).sub_layer_key), sublayer_key);
            assert_eq!(*(*read).weight.value.uint64, weight);
            assert_eq!(*(*read).effective_weight.value.uint64, weight);
            assert_eq!((*read).context.raw_context, 0xABCD);
            let conditions = core::slice::from_raw_parts((*read).filter_condition, 2);
            assert_eq!(conditions[1].condition_value.value.uint16, 8443);
            assert_eq!(Guid::from(*(*read).provider_key), provider_key);
        }
        call!("FwpmFreeMemory0", &raw mut read);
        assert!(read.is_null());

        let in_use = call!("FwpmProviderDeleteByKey0", engine, &raw const provider_raw);
        assert_eq!(in_use, NtStatus::FWP_IN_USE);
        assert_eq!(call!("FwpmFilterDeleteById0", engine, id), NtStatus::SUCCESS);
        assert_eq!(call!("FwpmCalloutDeleteById0", engine, callout_id), NtStatus::SUCCESS);
        let raw = RawGuid::from(sublayer_key);
        assert_eq!(call!("FwpmSubLayerDeleteByKey0", engine, &raw const raw), NtStatus::SUCCESS);
        assert_eq!(call!("FwpmProviderDeleteByKey0", engine, &raw const provider_raw), NtStatus::SUCCESS);
        assert_eq!(rig.machine.wfp.leaks(), [("FwpmEngineOpen0", 1)]);
        assert_eq!(call!("FwpmEngineClose0", engine), NtStatus::SUCCESS);
        assert_eq!(call!("FwpmEngineClose0", engine), NtStatus::INVALID_HANDLE);
        assert_eq!(rig.machine.wfp.leaks(), []);
    });
}

#[test]
fn a_dynamic_engine_handle_takes_its_filters_with_it() {
    let rig = Rig::new();
    let name = wide("a filter");
    rig.run(|| {
        let session = FwpmSession0 {
            session_key: RawGuid::default(),
            display_data: display(&name),
            flags: FWPM_SESSION_FLAG_DYNAMIC,
            txn_wait_timeout_in_m_sec: 0,
            process_id: 0,
            sid: null(),
            username: null(),
            kernel_mode: 0,
        };
        let mut engine: *mut c_void = null_mut();
        let opened = call!("FwpmEngineOpen0", 0, 10, 0, &raw const session, &raw mut engine);
        assert_eq!(opened, NtStatus::SUCCESS);
        let filter = FwpmFilter0 {
            filter_key: RawGuid::default(),
            display_data: display(&name),
            flags: 0,
            provider_key: null(),
            provider_data: FwpByteBlob::default(),
            layer_key: rig.layer_key(LAYER).into(),
            sub_layer_key: RawGuid::default(),
            weight: FwpValue0::EMPTY,
            num_filter_conditions: 0,
            filter_condition: null(),
            action: FwpmAction0 { kind: FWP_ACTION_BLOCK, key: RawGuid::default() },
            context: FilterContext { bytes: [0; 2] },
            reserved: null(),
            filter_id: 0,
            effective_weight: FwpValue0::EMPTY,
        };
        assert_eq!(call!("FwpmFilterAdd0", engine, &raw const filter, 0, 0), NtStatus::SUCCESS);
        assert_eq!(rig.classify().verdict, Verdict::Block);

        // The filter is seen by an enumeration of its layer and not by one of another.
        let mut template = FwpmFilterEnumTemplate0 {
            provider_key: null(),
            layer_key: rig.layer_key(LAYER).into(),
            enum_type: 1,
            flags: FWP_FILTER_ENUM_FLAG_SORTED,
            provider_context_template: null(),
            num_filter_conditions: 0,
            filter_condition: null(),
            action_mask: u32::MAX,
            callout_key: null(),
        };
        for (layer, expected) in [(LAYER, 1), (filter_engine::layers::LayerId::STREAM_V6, 0)] {
            template.layer_key = rig.layer_key(layer).into();
            let (mut handle, mut entries, mut count) = (null_mut::<c_void>(), null_mut::<*mut FwpmFilter0>(), 9u32);
            let created = call!("FwpmFilterCreateEnumHandle0", engine, &raw const template, &raw mut handle);
            assert_eq!(created, NtStatus::SUCCESS);
            for round in [expected, 0] {
                let next = call!("FwpmFilterEnum0", engine, handle, 10, &raw mut entries, &raw mut count);
                assert_eq!((next, count), (NtStatus::SUCCESS, round));
                call!("FwpmFreeMemory0", &raw mut entries);
            }
            let wrong = call!("FwpmCalloutEnum0", engine, handle, 10, &raw mut entries, &raw mut count);
            assert_eq!(wrong, filter_engine::error::FWP_INVALID_ENUMERATOR, "a handle of another kind");
            assert_eq!(call!("FwpmFilterDestroyEnumHandle0", engine, handle), NtStatus::SUCCESS);
        }
        assert_eq!(call!("FwpmEngineClose0", engine), NtStatus::SUCCESS);
        assert_eq!(rig.classify().verdict, Verdict::Permit);
    });
}

#[test]
fn layers_options_and_null_pointers() {
    let rig = Rig::new();
    rig.run(|| {
        let engine = open();
        let mut layer: *mut FwpmLayer0 = null_mut();
        assert_eq!(call!("FwpmLayerGetById0", engine, 48, &raw mut layer), NtStatus::SUCCESS);
        // SAFETY: returned by the call, with as many fields as it says.
        unsafe {
            assert_eq!(Guid::from((*layer).layer_key), rig.layer_key(LAYER));
            assert_eq!((*layer).num_fields, 37);
            let port = *(*layer).field.add(7);
            assert_eq!(port.data_type, FWP_UINT16);
            assert_eq!(Some(Guid::from(*port.field_key)), filter_engine::layers::condition("IP_REMOTE_PORT"));
        }
        call!("FwpmFreeMemory0", &raw mut layer);
        assert_eq!(call!("FwpmLayerGetById0", engine, 999, &raw mut layer), NtStatus::FWP_LAYER_NOT_FOUND);
        assert_eq!(call!("FwpmFilterAdd0", engine, 0, 0, 0), NtStatus::FWP_NULL_POINTER);
        assert_eq!(call!("FwpmFilterAdd0", 0, 0, 0, 0), NtStatus::INVALID_HANDLE);
        let on =
            FwpValue0 { kind: FWP_UINT32, value: ValueUnion { raw: FWPM_NET_EVENT_KEYWORD_CLASSIFY_ALLOW.into() } };
        let option = FWPM_ENGINE_NET_EVENT_MATCH_ANY_KEYWORDS;
        assert_eq!(call!("FwpmEngineSetOption0", engine, option, &raw const on), NtStatus::SUCCESS);
        assert!(rig.machine.wfp.engine.events.collects_allow());
        let mut value: *mut FwpValue0 = null_mut();
        assert_eq!(call!("FwpmEngineGetOption0", engine, option, &raw mut value), NtStatus::SUCCESS);
        // SAFETY: returned by the call.
        assert_eq!(unsafe { (*value).value.uint32 }, FWPM_NET_EVENT_KEYWORD_CLASSIFY_ALLOW);
        call!("FwpmFreeMemory0", &raw mut value);
        call!("FwpmEngineClose0", engine);
    });
}

#[test]
fn freeing_what_was_not_given_out_stops_the_machine() {
    let rig = Rig::new();
    let bugcheck = crate::cpu::enter(&rig.machine, nt_abi::Irql::PASSIVE, || {
        let mut own = 5u64;
        let mut pointer: *mut u64 = &raw mut own;
        call!("FwpmFreeMemory0", &raw mut pointer);
    })
    .expect_err("a bugcheck");
    assert_eq!(bugcheck.code, crate::cpu::code::BAD_POOL_CALLER);
}

#[test]
fn a_machine_outlives_no_session_that_a_driver_left_open() {
    let rig = Rig::new();
    rig.run(|| {
        open();
    });
    let weak = std::sync::Arc::downgrade(&rig.machine);
    drop(rig);
    assert!(weak.upgrade().is_none(), "the open session does not keep the machine alive");
}
