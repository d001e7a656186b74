//! `sluice.sys`: decides in the kernel which connections and packets pass.
//!
//! The path of a decision: [`callouts`] (one file per place in the stack) reads what the filter engine passes,
//! [`flow::FlowKey`] identifies the conversation, [`policy`] looks it up in the image in force, the verdict goes back
//! with the rights honoured, and [`counters`] and [`events`] record what happened ([`budget`] bounds what one source
//! may record). What a rule asks about is held in [`questions`]. [`device`] is the control device for user mode.
//!
//! There is no `unsafe` here: what touches the kernel is in the `kernel` crate.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod asking;
mod budget;
mod callouts;
mod clock;
mod counters;
mod device;
mod etw;
mod events;
mod flow;
mod identity;
mod inspection;
mod kept;
mod learned;
mod limits;
mod listing;
mod past;
mod policy;
mod questions;
mod upload;
mod whose;

use kernel::{status::NtResult, utf16, wdf::Driver, wfp::FlowSet};
use sluice_protocol::parameter::FAIL_CLOSED;

use crate::{
    asking::Asking, clock::Clock, counters::PerProcessor, etw::Trace, events::Events, flow::FlowState,
    identity::Identities, kept::Kept, learned::Learned, limits::Limits, past::Past, policy::InForce,
    questions::Questions, upload::Uploads,
};

/// Everything the callbacks share. A static, because the kernel's callbacks are plain functions.
struct Sluice {
    policy: InForce,
    counters: PerProcessor,
    events: Events,
    flows: FlowSet<FlowState>,
    identities: Identities,
    limits: Limits,
    kept: Kept,
    asking: Asking,
    learned: Learned,
    questions: Questions,
    trace: Trace,
    clock: Clock,
}

/// Apart from the rest, which begins as zeros and takes no room in the file: no upload is not zero.
static UPLOADS: Uploads = Uploads::new();

/// Apart for the same reason.
static PAST: Past = Past::new();

static SLUICE: Sluice = Sluice {
    policy: InForce::new(),
    counters: PerProcessor::new(),
    events: Events::new(),
    flows: FlowSet::new(),
    identities: Identities::new(),
    limits: Limits::new(),
    kept: Kept::new(),
    asking: Asking::new(),
    learned: Learned::new(),
    questions: Questions::new(),
    trace: Trace::new(),
    clock: Clock::new(),
};

kernel::driver!(start: start, stop: stop);

/// PASSIVE_LEVEL.
fn start(driver: &Driver) -> NtResult<()> {
    SLUICE.trace.begin();
    begin(driver).inspect(|()| SLUICE.trace.started()).inspect_err(|status| SLUICE.trace.failed(*status))
}

fn begin(driver: &Driver) -> NtResult<()> {
    SLUICE.events.prepare();
    SLUICE.limits.set(driver);
    // What cannot be read may say closed: then the driver does not load, and the filters do as is declared.
    let fails_closed = driver.parameter(utf16!(FAIL_CLOSED))?.is_some_and(|value| value != 0);
    let boot_start = driver.is_boot_start()?;
    let device = device::create(driver)?;
    // First the policy, then the callouts: the first packet that they are asked about is decided by it.
    let restored = SLUICE.kept.restore(boot_start);
    let started = SLUICE
        .events
        .start(&device)
        .and_then(|()| SLUICE.questions.start(&device))
        .and_then(|()| SLUICE.clock.start(&device));
    match started.and_then(|()| SLUICE.asking.prepare(&device, fails_closed)) {
        Ok(prepared) => SLUICE.asking.begin(device, prepared),
        Err(status) => {
            SLUICE.questions.stop();
            SLUICE.events.stop();
            SLUICE.clock.stop();
            SLUICE.policy.clear();
            SLUICE.learned.clear();
            return Err(status); // the device goes with its owner
        }
    }
    if !restored {
        driver.when_booted(booted);
    }
    Ok(())
}

/// The disk can be read. PASSIVE_LEVEL, before any program runs.
fn booted() {
    SLUICE.kept.restore(false);
    if SLUICE.policy.epoch() != 0
        && let Err(status) = SLUICE.asking.with_policy()
    {
        SLUICE.policy.clear();
        SLUICE.kept.failed(status);
    }
}

/// PASSIVE_LEVEL, with no handle open to the device.
fn stop() {
    SLUICE.asking.end();
    SLUICE.trace.end();
    SLUICE.policy.clear();
    SLUICE.learned.clear();
}
