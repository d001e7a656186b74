//! `sluice.sys`: decides in the kernel which connections and packets pass.
//!
//! The path of a decision: [`callouts`] (one file per place in the stack) reads what the filter engine passes,
//! [`flow::FlowKey`] identifies the conversation, [`policy`] looks it up in the image in force, the verdict goes back
//! with the rights honoured, and [`counters`] and [`events`] record what happened ([`budget`] bounds what one source
//! may record). [`device`] is the control device for user mode.
//!
//! There is no `unsafe` here: what touches the kernel is in the `kernel` crate.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod budget;
mod callouts;
mod counters;
mod device;
mod events;
mod flow;
mod identity;
mod inspection;
mod kept;
mod limits;
mod policy;
mod upload;
mod whose;

use kernel::{
    spin::SpinLock,
    status::NtResult,
    wdf::{ControlDevice, Driver},
    wfp::{Callouts, FlowSet},
};
use sluice_protocol::object::CALLOUTS;

use crate::{
    counters::PerProcessor, device::Device, events::Events, flow::FlowState, identity::Identities, kept::Kept,
    limits::Limits, policy::InForce, upload::Uploads,
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
    registered: SpinLock<Option<Registered>>,
}

/// Apart from the rest, which begins as zeros and takes no room in the file: no upload is not zero.
static UPLOADS: Uploads = Uploads::new();

static SLUICE: Sluice = Sluice {
    policy: InForce::new(),
    counters: PerProcessor::new(),
    events: Events::new(),
    flows: FlowSet::new(),
    identities: Identities::new(),
    limits: Limits::new(),
    kept: Kept::new(),
    registered: SpinLock::new(None),
};

/// What must be released before the driver goes, in the order of the fields: no callout runs any more when the device
/// is deleted.
struct Registered {
    callouts: Callouts<{ CALLOUTS.len() }>,
    device: ControlDevice<Device>,
}

kernel::driver!(start: start, stop: stop);

/// PASSIVE_LEVEL.
fn start(driver: &Driver) -> NtResult<()> {
    SLUICE.limits.set(driver);
    let device = device::create(driver)?;
    // First the policy, then the callouts: the first packet that they are asked about is decided by it.
    SLUICE.kept.restore();
    let result = SLUICE.events.start(&device).and_then(|()| callouts::register(&device));
    let callouts = match result {
        Ok(callouts) => callouts,
        Err(status) => {
            SLUICE.events.stop();
            SLUICE.policy.clear();
            return Err(status); // the device goes with its owner
        }
    };
    SLUICE.policy.ask_again_after_start();
    device.open_for_requests();
    *SLUICE.registered.lock() = Some(Registered { callouts, device });
    Ok(())
}

/// PASSIVE_LEVEL, with no handle open to the device.
fn stop() {
    let registered = SLUICE.registered.lock().take();
    if let Some(Registered { callouts, device }) = registered {
        callouts::close();
        drop(callouts);
        SLUICE.events.stop();
        drop(device);
    }
    SLUICE.policy.clear();
}
