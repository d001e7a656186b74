//! The rules' names of policies that are no longer in force: events that a reader comes to later name the rule that
//! decided, and not its number in a policy that nobody has any more.

use alloc::vec::Vec;

use kernel::{
    memory::{try_append, try_reserve},
    spin::SpinLock,
};
use sluice_policy::Image;
use sluice_protocol::ioctl::{MAX_PAST_POLICIES, MAX_RULE_NAMES_BYTES};

/// The names of one policy, as [`sluice_protocol::ioctl::RULE_NAMES`] gives them.
struct Names {
    epoch: u32,
    bytes: Vec<u8>,
}

/// The names of the last policies: at most [`MAX_PAST_POLICIES`] times [`MAX_RULE_NAMES_BYTES`] of nonpaged pool.
pub(crate) struct Past {
    kept: SpinLock<[Option<Names>; MAX_PAST_POLICIES]>,
}

impl Past {
    pub(crate) const fn new() -> Self {
        Self { kept: SpinLock::new([const { None }; MAX_PAST_POLICIES]) }
    }

    /// Keeps the names of a policy that is about to be replaced, in the place of the oldest. They are left out when they
    /// are too long or there is no memory. PASSIVE_LEVEL.
    pub(crate) fn keep(&self, epoch: u32, image: &Image<Vec<u8>>) {
        let names = || (0..image.rule_count()).map(|rule| image.rule_name(rule).unwrap_or_default());
        let length = names().fold(0_usize, |sum, name| sum.saturating_add(4).saturating_add(name.len()));
        if length > MAX_RULE_NAMES_BYTES {
            return;
        }
        let Ok(mut bytes) = try_reserve(length) else { return };
        for name in names() {
            let written = try_append(&mut bytes, &(name.len() as u32).to_le_bytes());
            if written.and_then(|()| try_append(&mut bytes, name.as_bytes())).is_err() {
                return;
            }
        }
        let place = epoch as usize % MAX_PAST_POLICIES;
        let mut kept = self.kept.lock();
        // The lock is released before the old names are freed.
        let replaced = kept.get_mut(place).and_then(|slot| slot.replace(Names { epoch, bytes }));
        drop(kept);
        drop(replaced);
    }

    /// Gives the names of generation `epoch` to `read`, if they are kept. IRQL <= DISPATCH_LEVEL; `read` runs at
    /// DISPATCH_LEVEL.
    pub(crate) fn with<R>(&self, epoch: u32, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let kept = self.kept.lock();
        let names = kept.get(epoch as usize % MAX_PAST_POLICIES)?.as_ref().filter(|names| names.epoch == epoch)?;
        Some(read(&names.bytes))
    }

    /// Forgets all. PASSIVE_LEVEL.
    pub(crate) fn clear(&self) {
        let forgotten = core::mem::replace(&mut *self.kept.lock(), [const { None }; MAX_PAST_POLICIES]);
        drop(forgotten);
    }
}
