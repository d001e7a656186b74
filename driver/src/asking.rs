//! When the filter engine asks the driver: from its start on; on a machine that fails closed, only once a policy is in
//! force.
//!
//! While a callout is not registered, Windows treats the filters that call it as the installation declares: on a machine
//! that fails closed they block, but for what must stay reachable. So a driver without a policy need not know what that is.

use core::sync::atomic::{AtomicBool, Ordering};

use kernel::{
    spin::SpinLock,
    status::NtResult,
    wdf::ControlDevice,
    wfp::{Callouts, EngineWatch},
};
use sluice_protocol::{Status, object::CALLOUTS};

use crate::{SLUICE, callouts, device::Device};

/// The registered callouts and what they need.
pub(crate) struct Asking {
    fails_closed: AtomicBool,
    registered: SpinLock<Option<Registered>>,
}

/// What must be released before the driver goes, in the order of the fields: no callout runs any more when the device
/// is deleted.
struct Registered {
    engine: EngineWatch,
    callouts: Option<Callouts<{ CALLOUTS.len() }>>,
    device: ControlDevice<Device>,
}

/// What is registered of it before the device is open.
pub(crate) struct Prepared {
    engine: EngineWatch,
    callouts: Option<Callouts<{ CALLOUTS.len() }>>,
}

impl Asking {
    pub(crate) const fn new() -> Self {
        Self { fails_closed: AtomicBool::new(false), registered: SpinLock::new(None) }
    }

    /// Registers what is to be registered, with a policy in force or without one. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of registering; nothing is registered then.
    pub(crate) fn prepare(&self, device: &ControlDevice<Device>, fails_closed: bool) -> NtResult<Prepared> {
        self.fails_closed.store(fails_closed, Ordering::Relaxed);
        let engine = EngineWatch::new(device, engine_started)?;
        let waits = fails_closed && SLUICE.policy.epoch() == 0;
        let callouts = if waits { None } else { Some(callouts::register(device)?) };
        // Before the engine starts there are no connections that it could be asked about again.
        if engine.is_running() {
            SLUICE.policy.ask_again();
        }
        Ok(Prepared { engine, callouts })
    }

    /// Lets user mode open the device. A policy may be loaded as soon as that is done, and then finds what it needs.
    /// PASSIVE_LEVEL.
    pub(crate) fn begin(&self, device: ControlDevice<Device>, Prepared { engine, callouts }: Prepared) {
        let opening = device.opening();
        *self.registered.lock() = Some(Registered { engine, callouts, device });
        opening.now();
    }

    /// A policy has come into force: if that was waited for, the driver is asked from now on. PASSIVE_LEVEL, by one caller at
    /// a time.
    ///
    /// # Errors
    /// The status of registering the callouts: the driver is not asked, as before.
    pub(crate) fn with_policy(&self) -> NtResult<()> {
        // Out of the lock, since registering is for PASSIVE_LEVEL. Nobody misses it: the driver does not stop meanwhile.
        let Some(mut registered) = self.registered.lock().take() else { return Ok(()) };
        let result = match &registered.callouts {
            Some(_) => Ok(()),
            None => callouts::register(&registered.device).map(|callouts| registered.callouts = Some(callouts)),
        };
        *self.registered.lock() = Some(registered);
        result
    }

    /// Ends: when it returns, nothing calls the driver any more. PASSIVE_LEVEL, with no handle open to the device.
    pub(crate) fn end(&self) {
        let registered = self.registered.lock().take();
        if let Some(Registered { engine, callouts, device }) = registered {
            drop(engine);
            // While the callouts still decide what Windows asks about again.
            SLUICE.questions.close();
            callouts::close();
            drop(callouts);
            SLUICE.questions.stop();
            SLUICE.events.stop();
            SLUICE.clock.stop();
            drop(device);
        }
    }

    /// Adds it to what the driver reports. Any IRQL.
    pub(crate) fn report(&self, status: &mut Status) {
        status.fails_closed = self.fails_closed.load(Ordering::Relaxed).into();
    }
}

/// The Base Filtering Engine has started, after the driver or again. Connections that its filters have let through until
/// then, or that are older, are decided by the policy. PASSIVE_LEVEL.
fn engine_started() {
    SLUICE.policy.ask_again();
}
