//! Driver code must come back as it was called: at the same IRQL, holding no spin lock that it took, and in no critical
//! region that it entered.
//!
//! There is one way into driver code, [`enter`], and every call of a driver's routine takes it: the call is traced, and
//! what the routine leaves behind is reported when it returns, under its name, not where it does harm. Parts of a
//! routine that is still running do not take it: exception filters and handlers, and the routines of a cancel-safe
//! queue, which return with its lock held. A test below checks the sources for that.

use super::locks;
use crate::cpu::{self, code};
use crate::nt::ke::apc;
use crate::trace::{self, Callback};
use core::fmt::Display;
use nt_abi::Irql;

/// The first parameter of bugcheck 0xC4 for a spin lock that a routine keeps. Windows has no number for it: there a
/// processor hangs later.
const SPIN_LOCK_KEPT: u64 = 0x0008_0010;

/// The state that a routine must leave as it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    irql: Irql,
    spin_locks: u32,
    regions: u32,
}

impl State {
    /// The state of this processor now.
    #[inline]
    pub(crate) fn now() -> Self {
        let processor = cpu::current_processor();
        Self { irql: processor.irql(), spin_locks: locks::spin_locks_held(), regions: apc::regions(processor) }
    }

    /// Stops the machine if more spin locks are held than before.
    fn expect_spin_locks(self, what: &dyn Display) {
        let now = Self::now();
        if now.spin_locks > self.spin_locks {
            self.locks_differ(now, what);
        }
    }

    /// Stops the machine unless locks and regions are as they were; the level is not checked.
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

/// A routine of a driver for a message: what it is, and where.
pub(crate) struct At(pub(crate) &'static str, pub(crate) u64);

impl Display for At {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.0, cpu::frame_of(self.1))
    }
}

/// The state that a routine must leave as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// The level, the regions and the spin locks.
    All,
    /// The regions and the spin locks: the caller checks the level.
    Locks,
    /// The spin locks: the caller checks the level and the regions.
    SpinLocks,
    /// Nothing, or the caller checks everything: the routine releases what the caller acquired, or need not return.
    Nothing,
}

/// Calls a routine of a driver: the one way into driver code. To be called inside [`cpu::enter`], with no lock of ntsim
/// held.
///
/// `what` names the routine when it does not leave what it `keeps`; `describe` and `result` are for a trace.
#[inline(always)]
pub(crate) fn enter<R>(
    what: &dyn Display,
    keeps: Keeps,
    describe: impl FnOnce() -> Callback,
    call: impl FnOnce() -> R,
    result: impl FnOnce(&R) -> String,
) -> R {
    let here = 0u8;
    let stack = (&raw const here) as u64;
    let traced = trace::is_on() && trace::entered(stack, describe);
    // One place, so that the call becomes part of its caller: most calls take a few nanoseconds.
    let value = checked(what, keeps, call);
    if traced {
        trace::left(stack, || result(&value));
    }
    value
}

/// [`enter`] for a routine that must leave all of it as it was; a trace shows it as `name`, without arguments.
pub(crate) fn call<R>(at: &At, name: &'static str, f: impl FnOnce() -> R) -> R {
    enter(at, Keeps::All, || Callback::new(name, at.1, Vec::new()), f, |_| String::new())
}

/// Runs `f` and stops the machine if it changes what it must keep.
#[inline(always)]
pub(crate) fn checked<R>(what: &dyn Display, keeps: Keeps, f: impl FnOnce() -> R) -> R {
    let before = State::now();
    let value = f();
    match keeps {
        Keeps::All => {
            // The lock first: a routine that keeps a spin lock also keeps its level, by one mistake.
            before.expect_locks(what);
            if cpu::irql() != before.irql {
                before.level_differs(what);
            }
        }
        Keeps::Locks => before.expect_locks(what),
        Keeps::SpinLocks => before.expect_spin_locks(what),
        Keeps::Nothing => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn stopped(f: impl FnOnce()) -> String {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || checked(&"the routine", Keeps::All, f)).unwrap_err().to_string()
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
            checked(&"the routine", Keeps::All, || locks::released(0x1230, locks::Class::Spin));
        })
        .unwrap();
    }

    /// The types of win64 functions in the sources, by file, and what is called through them other than a driver's
    /// routine through [`enter`] or [`call`].
    const POINTERS: &[(&str, usize, &str)] = &[
        ("cpu/seh/mod.rs", 1, "a handler: part of a routine that runs"),
        ("cpu/seh/scope.rs", 2, "filters and __finally: part of a routine that runs"),
        ("fwpkclnt/fwpm/mod.rs", 1, ""),
        ("fwpkclnt/fwps/callout.rs", 4, ""),
        ("fwpkclnt/inject.rs", 1, ""),
        ("machine/driver.rs", 2, ""),
        ("ndis/data.rs", 2, ""),
        ("ndis/miniport.rs", 2, ""),
        ("netio/nmr.rs", 4, ""),
        ("nt/cm/query.rs", 1, ""),
        ("nt/etw/mod.rs", 1, ""),
        ("nt/ex/callback.rs", 1, ""),
        ("nt/ex/lookaside.rs", 1, ""),
        ("nt/io/reinit.rs", 1, ""),
        ("nt/io/wdm/cancel.rs", 15, "one DRIVER_CANCEL; a cancel-safe queue's take its lock and return with it"),
        ("nt/io/wdm/complete.rs", 1, ""),
        ("nt/io/wdm/irp.rs", 1, ""),
        ("nt/ke/dpc.rs", 1, ""),
        ("nt/ke/stack.rs", 1, ""),
        ("nt/ps/notify.rs", 2, ""),
        ("nt/ps/thread.rs", 1, ""),
        ("nt/rtl/avl.rs", 3, ""),
        ("nt/rtl/copy.rs", 1, "code of ours"),
        ("nt/work.rs", 4, ""),
        ("trace/times.rs", 1, "an empty function of ours, timed for what timing takes"),
        ("wdf/abi.rs", 12, "through wdf/callback.rs, as all of the framework's"),
        ("wdf/device/io.rs", 1, ""),
        ("wdf/device/mod.rs", 1, ""),
        ("wdf/dpc.rs", 1, ""),
        ("wdf/driver.rs", 1, ""),
        ("wdf/request/mod.rs", 1, ""),
        ("wdf/table/slots.rs", 1, "functions of ours"),
        ("wdf/timer.rs", 1, ""),
        ("wdf/workitem.rs", 1, ""),
    ];

    /// Whether a file holds only tests and their support.
    fn is_for_tests(path: &str) -> bool {
        let file = path.rsplit('/').next().unwrap_or(path);
        path.contains("tests/") || file == "tests.rs" || file == "testing.rs" || file.ends_with("_tests.rs")
    }

    /// The lines of code in the sources, without tests, by file.
    fn sources(folder: &std::path::Path, root: &std::path::Path, found: &mut Vec<(String, Vec<String>)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, root, found);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if !name.ends_with(".rs") || is_for_tests(&name) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//")).map(str::to_owned);
            found.push((name, lines.collect()));
        }
    }

    #[test]
    fn there_is_one_way_into_driver_code() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &root, &mut files);
        files.sort();
        let with = |text: &str| -> Vec<(&str, usize)> {
            let counts = files.iter().map(|(file, lines)| {
                (file.as_str(), lines.iter().map(|line| line.matches(text).count()).sum::<usize>())
            });
            counts.filter(|(_, count)| *count != 0).collect()
        };
        let expected: Vec<(&str, usize)> = POINTERS.iter().map(|(file, count, _)| (*file, *count)).collect();
        assert_eq!(
            with("extern \"win64\" fn("),
            expected,
            "a routine of a driver is called through `callback::enter` or `call`; then its type is counted in POINTERS"
        );
        assert_eq!(with("trace::entered("), [("verifier/callback.rs", 1)], "a trace of a call without its checks");
        assert_eq!(with("callback::checked("), [("cpu/mod.rs", 1)], "checks of a call without its trace");
    }
}
