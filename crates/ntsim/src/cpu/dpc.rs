//! Deferred procedure calls of ntsim; `nt::ke` queues the driver's `KDPC`s here.

use super::context;
use nt_abi::Irql;

/// A deferred call.
pub type Dpc = Box<dyn FnOnce() + Send>;

/// Queues `f` to run at DISPATCH_LEVEL on this thread's processor: when its IRQL next falls below DISPATCH_LEVEL, or
/// at once if it is below.
///
/// # Panics
/// Outside [`super::enter`].
pub fn queue_dpc(f: Dpc) {
    context::push_dpc(f);
    if super::irql() < Irql::DISPATCH {
        super::lower(super::raise(Irql::DISPATCH));
    }
}

/// Runs the queued DPCs. The caller is at `irql`; below DISPATCH_LEVEL this raises for each.
pub(super) fn drain(irql: Irql) {
    loop {
        // The queue is released before the call: a DPC may queue others, and may stop the machine.
        let next = context::pop_dpc();
        let Some(dpc) = next else { return };
        if irql < Irql::DISPATCH {
            super::at_irql(Irql::DISPATCH, dpc)
        } else {
            dpc()
        }
        super::expect_irql(irql, "a DPC");
    }
}
