//! The locks that drivers hold: what each thread has, and in which order locks are taken.
//!
//! Two threads that take two locks in opposite orders can wait for each other forever, even if they never have. So the
//! order is recorded: when a lock is acquired while others are held, an edge leads from each of them to it, with the
//! driver's stack at the first time. An edge that closes a cycle stops the machine before the lock is acquired, as
//! Driver Verifier's deadlock detection does (bugcheck 0xC4, 0x1001).
//!
//! In the graph are spin locks, queued spin locks, reader/writer spin locks acquired exclusively, fast and guarded
//! mutexes, WDFSPINLOCK and WDFWAITLOCK. Shared acquisitions are not: two readers do not wait for each other. Neither
//! is a lock acquired by a try function: a thread that does not wait cannot deadlock; but what is acquired under it
//! counts.
//!
//! A lock is identified by its address. Initializing it again, or freeing the pool block around it, removes its edges.

use crate::cpu::{self, Frame, code};
use core::cell::Cell;
use core::fmt::Write;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

/// What kind of lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Held at DISPATCH_LEVEL or above; a routine must not return with it held.
    Spin,
    /// The same, shared with other readers: it has no place in the order.
    SharedSpin,
    /// One that threads wait for.
    Wait,
}

#[derive(Clone, Copy)]
struct Held {
    lock: u64,
    class: Class,
    caller: u64,
}

/// The most locks of one thread that are recorded; further ones are counted and have no place in the order.
const MOST: usize = 16;

struct Mine {
    count: Cell<usize>,
    /// Locks beyond the most that are recorded.
    more: Cell<usize>,
    spin: Cell<u32>,
    held: [Cell<Held>; MOST],
}

thread_local! {
    // Cells without destructors: reading them is one load.
    static MINE: Mine = const {
        Mine {
            count: Cell::new(0),
            more: Cell::new(0),
            spin: Cell::new(0),
            held: [const { Cell::new(Held { lock: 0, class: Class::Wait, caller: 0 }) }; MOST],
        }
    };
}

impl Mine {
    fn iter(&self) -> impl DoubleEndedIterator<Item = Held> + '_ {
        self.held[..self.count.get()].iter().map(Cell::get)
    }
}

/// This thread is about to wait for `lock`; called before it does, so that a deadlock is reported, not entered.
#[inline]
pub(crate) fn wanted(lock: u64) {
    if MINE.with(|mine| mine.count.get()) != 0 {
        wanted_under_others(lock);
    }
}

#[cold]
fn wanted_under_others(lock: u64) {
    let mut held = [0; MOST];
    let mut count = 0;
    MINE.with(|mine| {
        for other in mine.iter().filter(|other| other.class != Class::SharedSpin && other.lock != lock) {
            held[count] = other.lock;
            count += 1;
        }
    });
    for &other in &held[..count] {
        cpu::with_machine(|machine| machine.lock_order.note(other, lock));
    }
}

/// This thread has acquired it.
#[inline]
pub(crate) fn acquired(lock: u64, class: Class) {
    MINE.with(|mine| {
        let count = mine.count.get();
        match mine.held.get(count) {
            Some(slot) => {
                slot.set(Held { lock, class, caller: cpu::caller() });
                mine.count.set(count + 1);
            }
            None => mine.more.set(mine.more.get() + 1),
        }
        if class != Class::Wait {
            mine.spin.set(mine.spin.get() + 1);
        }
    });
}

/// This thread releases it. The lock itself checks that it is held.
#[inline]
pub(crate) fn released(lock: u64, class: Class) {
    MINE.with(|mine| {
        let count = mine.count.get();
        if let Some(at) = (0..count).rev().find(|&at| mine.held[at].get().lock == lock) {
            for next in at + 1..count {
                mine.held[next - 1].set(mine.held[next].get());
            }
            mine.count.set(count - 1);
        } else if mine.more.get() != 0 {
            mine.more.set(mine.more.get() - 1);
        } else {
            return;
        }
        if class != Class::Wait {
            mine.spin.set(mine.spin.get().saturating_sub(1));
        }
    });
}

/// Whether this thread holds `lock`.
pub(crate) fn holds(lock: u64) -> bool {
    MINE.with(|mine| mine.count.get() != 0 && mine.iter().any(|held| held.lock == lock))
}

/// How many spin locks this thread holds.
#[inline]
pub(crate) fn spin_locks_held() -> u32 {
    MINE.with(|mine| mine.spin.get())
}

/// The spin lock that this thread acquired last and holds, and who acquired it.
pub(crate) fn last_spin_lock() -> Option<(u64, u64)> {
    MINE.with(|mine| mine.iter().rev().find(|held| held.class != Class::Wait).map(|held| (held.lock, held.caller)))
}

/// This thread's stack was abandoned: its locks are never released.
pub(crate) fn abandoned() {
    MINE.with(|mine| {
        mine.count.set(0);
        mine.more.set(0);
        mine.spin.set(0);
    });
}

/// A lock for a message: its place in a driver's image, or its address.
pub(crate) fn name(lock: u64) -> String {
    cpu::frame_of(lock).to_string()
}

/// The order in which the drivers of one machine take locks.
#[derive(Debug, Default)]
pub struct LockOrder {
    /// Whether anything is known, readable without the lock.
    any: AtomicBool,
    after: Mutex<HashMap<u64, Vec<Edge>>>,
}

/// One lock was acquired while another was held.
#[derive(Clone, Debug)]
struct Edge {
    to: u64,
    /// The driver's frames when that was seen first.
    stack: Vec<Frame>,
}

impl LockOrder {
    /// `wanted` is about to be acquired by a thread that holds `held`.
    fn note(&self, held: u64, wanted: u64) {
        {
            let after = self.after.lock();
            if after.get(&held).is_some_and(|edges| edges.iter().any(|edge| edge.to == wanted)) {
                return;
            }
            if let Some(path) = path(&after, wanted, held) {
                drop(after);
                inverted(held, wanted, &path);
            }
        }
        let stack = cpu::stack_here().into_iter().filter(Frame::is_driver).collect();
        self.any.store(true, Ordering::Release);
        self.after.lock().entry(held).or_default().push(Edge { to: wanted, stack });
    }

    /// Forgets the locks within a range of addresses, whose memory is reused.
    pub(crate) fn forget(&self, range: &Range<u64>) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut after = self.after.lock();
        after.retain(|lock, edges| {
            edges.retain(|edge| !range.contains(&edge.to));
            !range.contains(lock) && !edges.is_empty()
        });
        self.any.store(!after.is_empty(), Ordering::Release);
    }
}

/// The edges that lead from one lock to another, if any do.
fn path(after: &HashMap<u64, Vec<Edge>>, from: u64, to: u64) -> Option<Vec<(u64, Edge)>> {
    fn search(
        after: &HashMap<u64, Vec<Edge>>,
        at: u64,
        to: u64,
        seen: &mut HashSet<u64>,
        path: &mut Vec<(u64, Edge)>,
    ) -> bool {
        for edge in after.get(&at).into_iter().flatten() {
            if edge.to == to || seen.insert(edge.to) {
                path.push((at, edge.clone()));
                if edge.to == to || search(after, edge.to, to, seen, path) {
                    return true;
                }
                path.pop();
            }
        }
        false
    }
    let mut found = Vec::new();
    search(after, from, to, &mut HashSet::from([from]), &mut found).then_some(found)
}

#[cold]
fn inverted(held: u64, wanted: u64, path: &[(u64, Edge)]) -> ! {
    let mut why = format!("{} is acquired while {} is held; before it was", name(wanted), name(held));
    for (at, (from, edge)) in path.iter().enumerate() {
        let and = if at == 0 { "" } else { ", and" };
        // Writing to a String does not fail.
        let _ = write!(why, "{and} {} while {} was held, by", name(edge.to), name(*from));
        for frame in &edge.stack {
            let _ = write!(why, " < {frame}");
        }
    }
    cpu::bugcheck(code::DRIVER_VERIFIER_DETECTED_VIOLATION, [0x1001, wanted, held, 0], why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Bugcheck;
    use crate::machine::Machine;
    use nt_abi::Irql;
    use std::sync::Arc;

    /// Acquires locks in order and releases them in reverse order.
    fn take(machine: &Arc<Machine>, locks: &[u64]) -> Result<(), Bugcheck> {
        cpu::enter(machine, Irql::PASSIVE, || {
            for &lock in locks {
                wanted(lock);
                acquired(lock, Class::Wait);
            }
            for &lock in locks.iter().rev() {
                released(lock, Class::Wait);
            }
        })
    }

    #[test]
    fn two_locks_in_both_orders_stop_the_machine_before_the_second_is_taken() {
        let machine = Machine::new();
        take(&machine, &[0x10, 0x20]).unwrap();
        take(&machine, &[0x10, 0x20]).unwrap();
        let stopped = take(&machine, &[0x20, 0x10]).unwrap_err();
        assert_eq!(stopped.parameters[..3], [0x1001, 0x10, 0x20]);
        assert!(stopped.why.contains("0x10 is acquired while 0x20 is held"), "{stopped}");
        assert!(stopped.why.contains("0x20 while 0x10 was held"), "{stopped}");
    }

    #[test]
    fn a_circle_of_three_is_one() {
        let machine = Machine::new();
        take(&machine, &[0x10, 0x20]).unwrap();
        take(&machine, &[0x20, 0x30]).unwrap();
        let stopped = take(&machine, &[0x30, 0x10]).unwrap_err();
        assert!(stopped.why.contains("and 0x30 while 0x20 was held"), "{stopped}");
    }

    #[test]
    fn an_order_that_is_always_the_same_is_right() {
        let machine = Machine::new();
        for locks in [&[0x10, 0x20, 0x30][..], &[0x10, 0x30], &[0x20, 0x30], &[0x30], &[0x10, 0x20]] {
            take(&machine, locks).unwrap();
        }
    }

    #[test]
    fn a_lock_made_anew_has_no_history() {
        let machine = Machine::new();
        take(&machine, &[0x10, 0x20]).unwrap();
        machine.lock_order.forget(&(0x20..0x28));
        take(&machine, &[0x20, 0x10]).unwrap();
    }

    #[test]
    fn readers_do_not_wait_for_each_other() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            acquired(0x10, Class::SharedSpin);
            wanted(0x20);
            released(0x10, Class::SharedSpin);
        })
        .unwrap();
        take(&machine, &[0x20, 0x10]).unwrap();
    }

    #[test]
    fn locks_may_be_released_in_any_order_and_beyond_what_is_remembered() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let many = 1..=20;
            many.clone().for_each(|lock| acquired(lock, Class::Spin));
            assert_eq!(spin_locks_held(), 20);
            many.for_each(|lock| released(lock, Class::Spin));
            assert_eq!((spin_locks_held(), last_spin_lock()), (0, None));
            released(5, Class::Spin);
            assert_eq!(spin_locks_held(), 0);
        })
        .unwrap();
    }
}
