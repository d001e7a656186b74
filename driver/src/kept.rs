//! The policy that outlives a restart: `sluice load` keeps its image in a file, and the driver puts that in force before
//! its first callout is registered.
//!
//! The file is in the drivers folder, where only administrators and SYSTEM can write. It is read and validated like any
//! other image, so one that is damaged is refused; that there is none in force then is said in the status and in an
//! event.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::{
    file,
    status::{NtResult, NtStatus},
    utf16,
};
use sluice_protocol::{
    Event, KEPT_POLICY,
    event::verdict,
    ioctl::MAX_POLICY_BYTES,
    status::{Status, kept},
};

use crate::SLUICE;

/// What became of the kept policy when the driver was loaded.
pub(crate) struct Kept {
    /// [`kept`].
    outcome: AtomicU32,
    /// The NTSTATUS of [`kept::UNREADABLE`].
    status: AtomicU32,
}

impl Kept {
    pub(crate) const fn new() -> Self {
        Self { outcome: AtomicU32::new(kept::NONE), status: AtomicU32::new(0) }
    }

    /// Puts the kept policy in force, if there is one that can be. PASSIVE_LEVEL, before the callouts are registered;
    /// waits for the disk.
    pub(crate) fn restore(&self) {
        let (outcome, status) = match restored() {
            Ok(outcome) => (outcome, 0),
            Err(NtStatus::OBJECT_NAME_NOT_FOUND) => (kept::NONE, 0),
            Err(status) => (kept::UNREADABLE, status.raw() as u32),
        };
        self.outcome.store(outcome, Ordering::Relaxed);
        self.status.store(status, Ordering::Relaxed);
        if matches!(outcome, kept::REFUSED | kept::UNREADABLE) {
            SLUICE.events.note(Event {
                verdict: verdict::NOT_RESTORED,
                rule: outcome,
                flow: u64::from(status),
                ..Event::zeroed()
            });
        }
    }

    /// Adds it to what the driver reports. Any IRQL.
    pub(crate) fn report(&self, status: &mut Status) {
        status.kept = self.outcome.load(Ordering::Relaxed);
        status.kept_status = self.status.load(Ordering::Relaxed);
    }
}

fn restored() -> NtResult<u32> {
    let image = file::read(utf16!(KEPT_POLICY), MAX_POLICY_BYTES)?;
    let reply = SLUICE.policy.replace(image)?;
    Ok(if reply.reason().is_none() { kept::RESTORED } else { kept::REFUSED })
}
