//! What the code of sluice.sys can do while the filter engine waits for it, read from the built file.
//!
//! The machine says where each callout's classifyFn is; from there the code is followed through its branches, calls,
//! tables of jumps and vtables.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod code;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use code::Code;
use sluice_host::Guid;
use sluice_protocol::object::{CALLOUTS, Point};
use support::Rig;

/// Wakes those who wait for events (WdfDpcEnqueueTableIndex, wdffuncenum.h).
const WDF_DPC_ENQUEUE: &str = "function 112 of the framework";
/// Sets when a question is closed (WdfTimerStartTableIndex).
const WDF_TIMER_START: &str = "function 319 of the framework";
/// What any decision may ask the kernel for: its level, its processor, the time, to copy and compare bytes, and to wake
/// those who wait.
const ALWAYS: &[&str] = &[
    WDF_DPC_ENQUEUE,
    "KeGetCurrentIrql",
    "KeGetCurrentProcessorNumberEx",
    "KeLowerIrql",
    "KeRaiseIrqlToDpcLevel",
    "KeQueryInterruptTimePrecise",
    "KeQuerySystemTimePrecise",
    // Only while a trace session listens to decisions; any IRQL ("EtwWriteTransfer").
    "EtwWriteTransfer",
    "memcmp",
    "memcpy",
];
const LOCK: [&str; 2] = ["KeAcquireSpinLockRaiseToDpc", "KeReleaseSpinLock"];
const POOL: [&str; 2] = ["ExAllocatePool2", "ExFreePool"];

/// What a place may ask for besides.
const ALSO: &[(Point, &[&[&str]])] = &[
    // When Windows asks again about a connection: is it in the short list of its handle? And only where a rule asks: who
    // asks is kept, the connection is held, and the time to answer in begins.
    (Point::Connect, &[&LOCK, &POOL, &["FwpsPendOperation0", "KeQueryInterruptTimePrecise", WDF_TIMER_START]]),
    (Point::Accept, &[&LOCK]),
    // Once for each flow: its context is allocated and put into that list.
    (Point::Established, &[&LOCK, &POOL, &["FwpsFlowAssociateContext0", "FwpsFlowRemoveContext0", "FwpsFlowAbort0"]]),
    // Only while a flow's name is looked for: what is known so far is kept.
    (Point::Stream, &[&POOL, &["FwpsFlowRemoveContext0", "MmMapLockedPagesSpecifyCache", "memset"]]),
    (Point::Datagrams, &[&POOL, &["FwpsFlowRemoveContext0", "MmMapLockedPagesSpecifyCache", "memset"]]),
    (Point::OutboundTransport, &[&["FwpsFlowAbort0"]]),
    (Point::InboundTransport, &[&["FwpsFlowAbort0"]]),
    (Point::Forward, &[&["NdisGetDataBuffer"]]),
    (Point::OutboundIcmpError, &[&["NdisGetDataBuffer"]]),
];

/// The classifyFn of every callout, by place in the stack. IPv4 and IPv6 share one.
fn classify_functions(rig: &Rig, code: &Code) -> BTreeMap<String, (Point, u64)> {
    let driver = rig.machine.drivers().into_iter().find(|driver| driver.name == "Sluice").expect("it is loaded");
    let callouts = &rig.machine.wfp.engine.callouts;
    let found = CALLOUTS.iter().map(|object| {
        let slot = callouts.by_key(Guid(object.callout)).expect("the callout is known");
        let address = slot.classify_address().expect("the driver registered it");
        (format!("{:?}", object.point), (object.point, code.base() + (address - driver.base)))
    });
    found.collect()
}

fn also(point: Point) -> impl Iterator<Item = &'static str> {
    let row = ALSO.iter().find(|(place, _)| *place == point);
    row.into_iter().flat_map(|(_, groups)| groups.iter().copied().flatten().copied())
}

#[test]
fn a_decision_calls_nothing_that_allocates_waits_or_panics() {
    let rig = Rig::install();
    let code = Code::read(&support::driver());
    let (mut wrong, mut allocates) = (Vec::new(), false);
    for (place, (point, start)) in classify_functions(&rig, &code) {
        let reached = code.reachable(start);
        allocates |= reached.imports.contains("ExAllocatePool2");
        let allowed: BTreeSet<&str> = ALWAYS.iter().copied().chain(also(point)).collect();
        assert!(reached.functions.len() > 10, "{place}: only {:#x?} were followed", reached.functions);
        wrong.extend(
            reached
                .imports
                .iter()
                .filter(|name| !allowed.contains(name.as_str()))
                .map(|name| format!("{place}: {name}")),
        );
    }
    assert!(wrong.is_empty(), "reachable from classify: {wrong:#?}");
    assert!(allocates, "the allocation of a flow's context was not found");
    rig.uninstall();
}

#[test]
fn a_permitted_packet_costs_one_locked_instruction_and_no_call_of_the_kernel() {
    let rig = Rig::install();
    let code = Code::read(&support::driver());
    let functions = classify_functions(&rig, &code);
    for place in ["OutboundTransport", "InboundTransport"] {
        let (_, start) = functions[place];
        let body = code.body(start);
        assert_eq!(body.locked.len(), 1, "{place}: locked instructions at {:#x?}", body.locked);
        assert!(body.imports.is_empty(), "{place} calls {:?}", body.imports);
        assert!(body.indirect.is_empty(), "{place} calls through pointers at {:#x?}", body.indirect);
    }
    rig.uninstall();
}
