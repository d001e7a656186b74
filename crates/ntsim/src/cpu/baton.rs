//! Repeatable interleavings: one thread runs at a time, chosen by a seed.
//!
//! A [`Schedule`] has one baton. Of its threads only the one with the baton runs; the others wait. The baton may be
//! passed on at every call of a driver through an import gate, and is passed on wherever a thread waits for another, so
//! that two runs with one seed call the same functions in the same order, whatever the host does. Nothing is
//! interleaved between two gates: a race that needs another thread between two instructions of the driver is not found
//! this way. Other threads are not scheduled.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

/// How long a thread waits for the baton before it panics.
const PATIENCE: Duration = Duration::from_secs(60);
/// One in this many calls passes the baton on.
const RARITY: u64 = 4;

/// A schedule of threads.
#[derive(Debug)]
pub struct Schedule {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    random: u64,
    /// How many threads must join before the first runs.
    expected: usize,
    /// Those that have joined and not left, in ascending order.
    ready: Vec<usize>,
    running: Option<usize>,
    steps: u64,
    fingerprint: u64,
}

thread_local! {
    /// The schedule this thread takes part in, and its number there.
    static MINE: Cell<(*const Schedule, usize)> = const { Cell::new((ptr::null(), 0)) };
}

/// A thread's part in a schedule; it leaves when this is dropped.
#[derive(Debug)]
pub struct Turn {
    schedule: Arc<Schedule>,
    number: usize,
}

impl Schedule {
    /// A schedule for `threads` threads.
    #[must_use]
    pub fn new(seed: u64, threads: usize) -> Arc<Self> {
        let state = State {
            random: (seed ^ 0x9E37_79B9_7F4A_7C15).max(1),
            expected: threads,
            ready: Vec::new(),
            running: None,
            steps: 0,
            fingerprint: 0xcbf2_9ce4_8422_2325,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Makes this thread number `number` of the schedule, below the number of threads, and waits for its turn.
    ///
    /// # Panics
    /// When the others do not join, or one of them has the number.
    #[must_use]
    pub fn join(self: &Arc<Self>, number: usize) -> Turn {
        let mut state = self.state.lock();
        let Err(place) = state.ready.binary_search(&number) else { panic!("two threads with the number {number}") };
        state.ready.insert(place, number);
        if state.ready.len() == state.expected {
            state.expected = 0; // from now on threads only leave
            state.running = Some(state.another(None));
            self.changed.notify_all();
        }
        self.wait(number, &mut state);
        drop(state);
        MINE.set((Arc::as_ptr(self), number));
        Turn { schedule: self.clone(), number }
    }

    /// The number of calls, and a hash that is equal for two runs with the same calls in the same order.
    #[must_use]
    pub fn fingerprint(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.steps, state.fingerprint)
    }

    fn wait(&self, number: usize, state: &mut MutexGuard<'_, State>) {
        while state.running != Some(number) {
            if self.changed.wait_for(state, PATIENCE).timed_out() && state.running != Some(number) {
                panic!("thread {:?} has had the baton for a minute: does it wait for another?", state.running);
            }
        }
    }

    fn pass(&self, number: usize, always: bool) {
        let mut state = self.state.lock();
        let random = state.draw();
        if state.ready.len() > 1 && (always || random.is_multiple_of(RARITY)) {
            state.running = Some(state.another(Some(number)));
            self.changed.notify_all();
            self.wait(number, &mut state);
        }
    }

    fn called(&self, number: usize, function: &str) {
        let mut state = self.state.lock();
        state.steps += 1;
        let bytes = [number as u8].into_iter().chain(function.bytes());
        state.fingerprint =
            bytes.fold(state.fingerprint, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        drop(state);
        // Sleeping with the baton would only block the others.
        self.pass(number, function == "KeDelayExecutionThread");
    }
}

impl State {
    /// xorshift64*.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
    }

    /// One of the ready threads other than `me`.
    fn another(&mut self, me: Option<usize>) -> usize {
        let random = self.draw() as usize;
        let others: Vec<usize> = self.ready.iter().copied().filter(|number| Some(*number) != me).collect();
        others[random % others.len()]
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        MINE.set((ptr::null(), 0));
        let mut state = self.schedule.state.lock();
        state.ready.retain(|number| *number != self.number);
        if state.running == Some(self.number) {
            state.running = if state.ready.is_empty() { None } else { Some(state.another(None)) };
        }
        self.schedule.changed.notify_all();
    }
}

/// The schedule of this thread, if it takes part in one.
fn mine() -> Option<(&'static Schedule, usize)> {
    let (schedule, number) = MINE.get();
    // SAFETY: set while a `Turn` of this thread keeps the schedule; the reference does not leave the functions below.
    unsafe { schedule.as_ref() }.map(|schedule| (schedule, number))
}

/// This thread's driver calls `function`: the baton may go to another thread.
pub(crate) fn called(function: &str) {
    if let Some((schedule, number)) = mine() {
        schedule.called(number, function);
    }
}

/// This thread waits for another: the baton goes to that or any other thread.
pub(crate) fn pause() {
    if let Some((schedule, number)) = mine() {
        schedule.pass(number, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    /// Three threads that call functions, and one that waits for the first.
    fn run(seed: u64) -> (Vec<usize>, (u64, u64)) {
        let schedule = Schedule::new(seed, 4);
        let order = Mutex::new(Vec::new());
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for number in 0..4 {
                let (schedule, order, done) = (&schedule, &order, &done);
                scope.spawn(move || {
                    let _turn = schedule.join(number);
                    if number == 3 {
                        while done.load(Ordering::Relaxed) < 3 {
                            pause();
                        }
                    } else {
                        for _ in 0..20 {
                            called("KeGetCurrentIrql");
                            order.lock().push(number);
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        (order.into_inner(), schedule.fingerprint())
    }

    #[test]
    fn one_seed_is_one_order() {
        let first = run(7);
        assert_eq!(first.1.0, 60);
        assert_eq!(run(7), first);
        let others: Vec<_> = (8..12).map(run).collect();
        assert!(others.iter().all(|other| *other != first), "a different seed gives a different order");
        assert!(first.0.windows(2).any(|pair| pair[0] > pair[1]), "the threads take turns: {:?}", first.0);
    }
}
