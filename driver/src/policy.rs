//! The policy in force.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use kernel::{
    irql::AtDispatch,
    memory::try_box,
    status::NtResult,
    swap::{Guard, Swap},
    wfp::reauthorize,
};
use sluice_policy::Image;
use sluice_protocol::{
    object::{self, Point},
    status::{Counter, PolicyReply},
};

use crate::{PAST, SLUICE};

/// The layers at which Windows asks about connections, and reauthorizes them.
const AUTHORIZED: [u128; 4] = {
    let (connect, accept) = (object::layer(Point::Connect), object::layer(Point::Accept));
    [connect.v4.key, connect.v6.key, accept.v4.key, accept.v6.key]
};

/// The largest generation, after which 1 comes again: flows keep theirs in 30 bits.
pub(crate) const MAX_EPOCH: u32 = u32::MAX >> 2;

/// A validated image and its generation.
pub(crate) struct Policy {
    pub(crate) image: Image<Vec<u8>>,
    pub(crate) epoch: u32,
    /// Whether a rule asks.
    pub(crate) asks: bool,
}

impl Policy {
    /// Whether names that DNS tells are of use: to rules, or to whoever is asked.
    pub(crate) fn wants_names(&self) -> bool {
        self.asks || self.image.asks_for_names()
    }
}

/// The slot that holds the policy in force. Readers never wait.
pub(crate) struct InForce {
    policy: Swap<Policy>,
    present: Present,
}

/// What every packet reads, in one cache line.
#[repr(align(8))]
struct Present {
    /// The generation in force, which flows compare theirs with; 0 without a policy.
    epoch: AtomicU32,
    /// The second that it is, by [`crate::clock`].
    second: AtomicU32,
}

impl InForce {
    pub(crate) const fn new() -> Self {
        Self { policy: Swap::new(), present: Present { epoch: AtomicU32::new(0), second: AtomicU32::new(0) } }
    }

    /// The policy in force. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn read(&self) -> Option<Guard<'_, Policy>> {
        self.policy.read()
    }

    /// The same, where the processor is known.
    pub(crate) fn read_at(&self, dispatch: &AtDispatch) -> Option<Guard<'_, Policy>> {
        self.policy.read_at(dispatch)
    }

    /// The generation in force. A flow decided under another one must be decided again. Any IRQL.
    pub(crate) fn epoch(&self) -> u32 {
        self.present.epoch.load(Ordering::Acquire)
    }

    /// The second that it is, since 1970. Any IRQL.
    pub(crate) fn second(&self) -> u32 {
        self.present.second.load(Ordering::Relaxed)
    }

    /// Notes the second that it is. Any IRQL.
    pub(crate) fn note_second(&self, second: u32) {
        self.present.second.store(second, Ordering::Relaxed);
    }

    /// [`Self::replace`], and has Windows reauthorize existing connections. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn load(&self, bytes: Vec<u8>) -> NtResult<PolicyReply> {
        let mut reply = self.replace(bytes)?;
        if reply.reason().is_some() {
            return Ok(reply);
        }
        // It fails only with the first policy: then there is none again.
        SLUICE.asking.with_policy().inspect_err(|_| self.clear())?;
        if let Err(status) = ask_again() {
            reply.not_asked_again = status.raw() as u32;
        }
        Ok(reply)
    }

    /// Has Windows reauthorize existing connections, if a policy is in force. PASSIVE_LEVEL.
    pub(crate) fn ask_again(&self) {
        if self.epoch() != 0 {
            let _ = ask_again(); // counted
        }
    }

    /// Validates `bytes` and puts them in force; a refused image changes nothing. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// STATUS_INSUFFICIENT_RESOURCES, and STATUS_DEVICE_BUSY while another policy is being put in force.
    pub(crate) fn replace(&self, bytes: Vec<u8>) -> NtResult<PolicyReply> {
        let size = bytes.len();
        let image = match Image::validate(bytes) {
            Ok(image) => image,
            Err(refusal) => {
                SLUICE.counters.count(Counter::PoliciesRefused);
                let reply = PolicyReply::refused(self.epoch(), &refusal);
                SLUICE.trace.policy_refused(&reply, size);
                return Ok(reply);
            }
        };
        // 0 means "no policy".
        let epoch = self.epoch() % MAX_EPOCH + 1;
        let rules = image.rule_count();
        let asks = image.asks();
        let policy = try_box(Policy { image, epoch, asks })?;
        if policy.wants_names() {
            SLUICE.learned.prepare(policy.image.seed());
        }
        if let Some(before) = self.read() {
            PAST.keep(before.epoch, &before.image);
        }
        // Flows compare their generation with this one: they are decided again as soon as the new policy can be read,
        // not only when the last reader of the old one is done.
        self.policy.replace(Some(policy), || self.present.epoch.store(epoch, Ordering::Release))?;
        SLUICE.questions.policy_changed();
        SLUICE.counters.count(Counter::PoliciesLoaded);
        SLUICE.trace.policy_loaded(epoch, rules, size);
        Ok(PolicyReply::accepted(epoch))
    }

    /// Drops the policy. PASSIVE_LEVEL.
    pub(crate) fn clear(&self) {
        // Nobody else can replace it now: requests are handled one at a time, or the device is gone.
        let _ = self.policy.replace(None, || self.present.epoch.store(0, Ordering::Release));
        SLUICE.questions.policy_changed();
        PAST.clear();
    }
}

/// A connection without a context of ours, because it is older than the driver or there was no memory for one, is decided
/// again only when Windows asks.
fn ask_again() -> NtResult<()> {
    reauthorize(&AUTHORIZED).inspect_err(|status| {
        SLUICE.counters.count(Counter::ReauthorizationsRefused);
        SLUICE.trace.reauthorization_refused(*status);
    })
}
