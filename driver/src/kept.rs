//! The policy that outlives a restart: `sluice load` keeps its image in a file, and the driver puts that in force before
//! its first callout is registered.
//!
//! The file is in the drivers folder, where only administrators and SYSTEM can write. It is read and validated like any
//! other image, so one that is damaged is refused; that there is none in force then is said in the status and in an
//! event.

use core::sync::atomic::{AtomicU32, Ordering};

use kernel::{file::File, status::NtStatus, utf16};
use sluice_protocol::{
    Event, KEPT_POLICY,
    event::verdict,
    ioctl::MAX_POLICY_BYTES,
    status::{Status, kept},
};

use crate::SLUICE;

/// Why nothing was restored.
enum Failed {
    /// The file cannot be opened.
    Open(NtStatus),
    /// It cannot be read, or there is no memory for it.
    Read(NtStatus),
}

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

    /// Puts the kept policy in force, if there is one that can be. While Windows starts the disk may not be readable yet:
    /// for a driver that is loaded `with_the_kernel` the answer is false then, and this is to be called again. PASSIVE_LEVEL,
    /// before the callouts are registered; waits for the disk.
    pub(crate) fn restore(&self, with_the_kernel: bool) -> bool {
        let (outcome, status) = match restored() {
            Ok(outcome) => (outcome, 0),
            // That there is none is not sure before the disk is there: which status tells that is not documented.
            Err(Failed::Open(_)) if with_the_kernel => (kept::LATER, 0),
            Err(Failed::Open(NtStatus::OBJECT_NAME_NOT_FOUND)) => (kept::NONE, 0),
            Err(Failed::Open(status) | Failed::Read(status)) => (kept::UNREADABLE, status.raw() as u32),
        };
        self.said(outcome, status);
        outcome != kept::LATER
    }

    /// It was put in force, but nothing asks about it.
    pub(crate) fn failed(&self, status: NtStatus) {
        self.said(kept::UNREADABLE, status.raw() as u32);
    }

    fn said(&self, outcome: u32, status: u32) {
        self.outcome.store(outcome, Ordering::Relaxed);
        self.status.store(status, Ordering::Relaxed);
        if matches!(outcome, kept::REFUSED | kept::UNREADABLE) {
            SLUICE.trace.not_restored(outcome, status);
            SLUICE.events.note(Event {
                verdict: verdict::NOT_RESTORED,
                rule: outcome,
                flow: u64::from(status),
                ..Event::zeroed()
            });
        }
    }

    /// [`kept`]. Any IRQL.
    pub(crate) fn outcome(&self) -> u32 {
        self.outcome.load(Ordering::Relaxed)
    }

    /// Adds it to what the driver reports. Any IRQL.
    pub(crate) fn report(&self, status: &mut Status) {
        status.kept = self.outcome();
        status.kept_status = self.status.load(Ordering::Relaxed);
    }
}

fn restored() -> Result<u32, Failed> {
    let file = File::open(utf16!(KEPT_POLICY)).map_err(Failed::Open)?;
    let reply = file.read(MAX_POLICY_BYTES).and_then(|image| SLUICE.policy.replace(image)).map_err(Failed::Read)?;
    Ok(if reply.reason().is_none() { kept::RESTORED } else { kept::REFUSED })
}
