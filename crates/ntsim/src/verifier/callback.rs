//! Driver code must come back as it was called: at the same IRQL, holding no spin lock that it took, and in no critical
//! region that it entered.
//!
//! Every place that calls a driver's routine does it through [`call`], so that what a routine leaves behind is found when
//! it returns and under its own name, not where it hurts. Parts of a routine that is still running are not: filters and
//! handlers of exceptions, and the routines of a cancel-safe queue, which take its lock and return with it.

use super::locks;
use crate::cpu::{self, code};
use crate::nt::ke::apc;
use core::fmt::Display;
use nt_abi::Irql;

/// The first parameter of a bugcheck 0xC4 for a spin lock held too long. Windows has no number for it: there the
/// processor hangs later.
const SPIN_LOCK_KEPT: u64 = 0x0008_0010;

/// What a routine must leave as it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    irql: Irql,
    spin_locks: u32,
    regions: u32,
}

impl State {
    /// As it is now, on this processor.
    #[inline]
    pub(crate) fn now() -> Self {
        let processor = cpu::current_processor();
        Self { irql: processor.irql(), spin_locks: locks::spin_locks_held(), regions: apc::regions(processor) }
    }

    /// The level.
    pub(crate) fn irql(self) -> Irql {
        self.irql
    }

    /// Stops the machine if a spin lock is held that was not.
    pub(crate) fn expect_spin_locks(self, what: &dyn Display) {
        let now = Self::now();
        if now.spin_locks > self.spin_locks {
            self.locks_differ(now, what);
        }
    }

    /// Stops the machine unless locks and regions are as they were; the level is not looked at.
    #[inline]
    pub(crate) fn expect_locks(self, what: &dyn Display) {
        let now = Self::now();
        if now.spin_locks > self.spin_locks || now.regions != self.regions {
            self.locks_differ(now, what);
        }
    }

    #[cold]
    fn locks_differ(self, now: Self, what: &dyn Display) -> ! {
        if now.spin_locks > self.spin_locks {
            let (lock, caller) = locks::last_spin_lock().unwrap_or_default();
            cpu::bugcheck(
                code::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [SPIN_LOCK_KEPT, lock, caller, 0],
                format!(
                    "{what} returned holding the spin lock {}, acquired by {}",
                    locks::name(lock),
                    cpu::frame_of(caller)
                ),
            );
        }
        // What Windows checks when a thread goes back to user mode.
        cpu::bugcheck(
            code::APC_INDEX_MISMATCH,
            [0, u64::from(self.regions), u64::from(now.regions), 0],
            format!("{what} was called outside a critical or guarded region that it returned in, or the reverse"),
        )
    }

    #[cold]
    fn level_differs(self, what: &dyn Display) -> ! {
        let now = cpu::irql();
        cpu::bugcheck(
            code::IRQL_UNEXPECTED_VALUE,
            [u64::from(now.0), u64::from(self.irql.0), 0, 0],
            format!("{what} was called at {} and returned at {now}", self.irql),
        )
    }
}

/// A routine of a driver in a sentence: what it is, and where.
pub(crate) struct At(pub(crate) &'static str, pub(crate) u64);

impl Display for At {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.0, cpu::frame_of(self.1))
    }
}

/// Calls driver code and checks that it leaves everything as it was. Inside [`cpu::enter`]; `what` names the routine.
#[inline]
pub(crate) fn call<R>(what: &dyn Display, f: impl FnOnce() -> R) -> R {
    let before = State::now();
    let value = f();
    // The lock first: a routine that took one and did not lower either did both with one mistake.
    before.expect_locks(what);
    if cpu::irql() != before.irql {
        before.level_differs(what);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn stopped(f: impl FnOnce()) -> String {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || call(&"the routine", f)).unwrap_err().to_string()
    }

    #[test]
    fn a_routine_that_changes_the_level_is_named() {
        let text = stopped(|| {
            cpu::raise(Irql::DISPATCH);
        });
        assert!(text.contains("the routine was called at PASSIVE_LEVEL and returned at DISPATCH_LEVEL"), "{text}");
        assert!(text.starts_with("bugcheck 0xc8 "), "{text}");
    }

    #[test]
    fn a_routine_that_keeps_a_spin_lock_is_named_with_it() {
        let text = stopped(|| locks::acquired(0x1230, locks::Class::Spin));
        assert!(text.contains("the routine returned holding the spin lock 0x1230"), "{text}");
    }

    #[test]
    fn a_routine_that_stays_in_a_critical_region_is_named() {
        let text = stopped(|| apc::KeEnterCriticalRegion());
        assert!(text.starts_with("bugcheck 0x1 ") && text.contains("the routine"), "{text}");
    }

    #[test]
    fn a_routine_may_release_what_was_held_before_it() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            locks::acquired(0x1230, locks::Class::Spin);
            call(&"the routine", || locks::released(0x1230, locks::Class::Spin));
        })
        .unwrap();
    }
}
