//! The readers' announcements: hazard pointers whose fences are on the writer's side.
//!
//! A classify call announces the snapshot that it uses and each callout that it calls by writing the address to a place
//! of its thread, and withdraws the announcement when it is done. That costs a reader two plain stores: no locked
//! instruction, and no cache line that another processor writes. A writer that wants to free something checks the
//! places of all threads, after `membarrier(2)` has made every thread's earlier stores visible. On a system without it
//! the reader pays for the fence.
//!
//! Announcements nest like calls: the last is withdrawn first. An abandoned stack withdraws nothing; its announcements
//! are withdrawn for it ([`rewind`]), because it never runs again and the addresses may be reused.

use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::HashSet;
use std::ptr::null_mut;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, compiler_fence, fence};

/// How many announcements one set of places holds; a thread that needs more gets another set.
const PLACES: usize = 14;

/// The places of one thread.
#[derive(Default)]
#[repr(align(128))]
struct Reader {
    held: [AtomicPtr<()>; PLACES],
}

/// A thread's view of its places.
struct Mine {
    reader: Cell<Option<&'static Reader>>,
    depth: Cell<usize>,
}

thread_local! {
    static MINE: Mine = const { Mine { reader: Cell::new(None), depth: Cell::new(PLACES) } };
    /// Returns the places when the thread ends.
    static RETURN: Return = const { Return };
}

struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        let reader = MINE.with(|mine| {
            mine.depth.set(PLACES);
            mine.reader.take()
        });
        // A thread that ends with announcements keeps them, and their places, forever.
        if let Some(reader) = reader.filter(|reader| reader.is_empty()) {
            READERS.lock().free.push(reader);
        }
    }
}

#[derive(Default)]
struct Readers {
    all: Vec<&'static Reader>,
    free: Vec<&'static Reader>,
}

static READERS: LazyLock<Mutex<Readers>> = LazyLock::new(Mutex::default);

/// Whether the system makes the readers' fences.
static BARRIER: LazyLock<bool> = LazyLock::new(|| {
    let registered = barrier::register();
    ASYMMETRIC.store(registered, Ordering::SeqCst);
    registered
});
static ASYMMETRIC: AtomicBool = AtomicBool::new(false);

impl Reader {
    fn is_empty(&self) -> bool {
        self.held.iter().all(|place| place.load(Ordering::Relaxed).is_null())
    }
}

/// A fence on every processor that runs this process, where the system has one.
#[cfg(all(target_os = "linux", not(miri)))]
mod barrier {
    use rustix::thread::{MembarrierCommand, membarrier};

    pub(super) fn register() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn issue() {
        if let Err(error) = membarrier(MembarrierCommand::PrivateExpedited) {
            panic!("membarrier fails after registration: {error}");
        }
    }
}

/// Without one, the reader pays for the fence.
#[cfg(not(all(target_os = "linux", not(miri))))]
mod barrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn issue() {
        unreachable!("not registered")
    }
}

/// An announcement, withdrawn on drop. Announcements are dropped in reverse order, because this crate does not hand
/// them out.
#[derive(Debug)]
pub(crate) struct Held {
    place: &'static AtomicPtr<()>,
    depth: usize,
}

/// Announces `address`. A read by which the caller then checks that the address is still valid happens after the
/// announcement is visible to [`held`].
#[inline]
pub(crate) fn hold<T>(address: *const T) -> Held {
    MINE.with(|mine| {
        if mine.depth.get() == PLACES {
            more_room(mine);
        }
        let depth = mine.depth.get();
        let Some(reader) = mine.reader.get() else { unreachable!("there is room") };
        let place = &reader.held[depth];
        mine.depth.set(depth + 1);
        place.store(address.cast_mut().cast(), Ordering::Relaxed);
        if ASYMMETRIC.load(Ordering::Relaxed) {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        Held { place, depth }
    })
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        self.place.store(null_mut(), Ordering::Release);
        MINE.with(|mine| mine.depth.set(self.depth));
    }
}

/// Gives this thread its first places, or more when calls nest deeper than its places.
#[cold]
fn more_room(mine: &Mine) {
    let _ = *BARRIER;
    RETURN.with(|_| {});
    let mut readers = READERS.lock();
    let reader = readers.free.pop().unwrap_or_else(|| {
        let new: &'static Reader = Box::leak(Box::default());
        readers.all.push(new);
        new
    });
    mine.reader.set(Some(reader));
    mine.depth.set(0);
}

/// The depth of this thread's announcements.
#[derive(Clone, Copy)]
pub struct Mark {
    reader: Option<&'static Reader>,
    depth: usize,
}

/// This thread's announcements so far.
#[must_use]
#[inline]
pub fn mark() -> Mark {
    MINE.with(|mine| Mark { reader: mine.reader.get(), depth: mine.depth.get() })
}

/// Withdraws what this thread has announced since `mark`, on a stack that was abandoned.
///
/// # Safety
/// `mark` is this thread's, and no code that announced since then runs any more.
#[cold]
pub unsafe fn rewind(mark: Mark) {
    let forget = |reader: Option<&Reader>, from: usize| {
        for place in reader.iter().flat_map(|reader| &reader.held[from..]) {
            place.store(null_mut(), Ordering::Release);
        }
    };
    MINE.with(|mine| {
        forget(mark.reader, mark.depth);
        let now = mine.reader.get();
        if now.map(core::ptr::from_ref) == mark.reader.map(core::ptr::from_ref) {
            mine.depth.set(mark.depth);
        } else {
            // More places were taken since, all by the abandoned stack.
            forget(now, 0);
            mine.depth.set(0);
        }
    });
}

/// All announced addresses. An address that was made unreachable before the call and is not among them will not be read
/// again.
pub(crate) fn held() -> HashSet<usize> {
    if *BARRIER {
        barrier::issue();
    } else {
        fence(Ordering::SeqCst);
    }
    let readers = READERS.lock();
    let places = readers.all.iter().flat_map(|reader| &reader.held);
    places.map(|place| place.load(Ordering::Acquire) as usize).filter(|address| *address != 0).collect()
}

/// Whether `address` is announced.
pub(crate) fn is_held<T>(address: *const T) -> bool {
    held().contains(&(address as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn announcements_nest_deeper_than_there_is_room() {
        // Miri is some thousand times slower.
        let values: Vec<u8> = vec![0; if cfg!(miri) { PLACES + 2 } else { 3 * PLACES }];
        let mut holds: Vec<Held> = values.iter().map(|value| hold(value)).collect();
        assert!(values.iter().all(|value| is_held(value)));
        while let Some(last) = holds.pop() {
            drop(last);
            assert_eq!(values.iter().filter(|value| is_held(*value)).count(), holds.len());
        }
        let again = hold(&values[0]);
        assert!(is_held(&values[0]));
        drop(again);
    }

    #[test]
    fn what_an_abandoned_stack_announced_is_taken_back() {
        let values: Vec<u8> = vec![0; 2 * PLACES];
        let before = hold(&values[0]);
        for count in [3, PLACES + 3] {
            let mark = mark();
            values[1..count].iter().for_each(|value| {
                core::mem::forget(hold(value));
            });
            // SAFETY: nothing uses what was forgotten.
            unsafe { rewind(mark) };
            assert!(is_held(&values[0]) && !values[1..].iter().any(|value| is_held(value)), "{count}");
        }
        drop(before);
        assert!(!is_held(&values[0]));
    }

    #[test]
    fn places_of_a_thread_that_ended_are_used_again() {
        let count = || READERS.lock().all.len();
        std::thread::spawn(|| drop(hold(&0u8))).join().unwrap();
        let before = count();
        for _ in 0..if cfg!(miri) { 25 } else { 50 } {
            std::thread::spawn(|| drop(hold(&0u8))).join().unwrap();
        }
        assert!(count() <= before + 20, "other tests take some: {before}, {}", count());
    }

    #[test]
    fn nothing_is_freed_while_it_is_read() {
        const DEAD: usize = 0xDEAD;
        let value = |n: usize| Arc::into_raw(Arc::new(AtomicUsize::new(n))).cast_mut();
        let current = Arc::new(AtomicPtr::new(value(1)));
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (current, stop) = (current.clone(), stop.clone());
                std::thread::spawn(move || {
                    let mut read = 0;
                    loop {
                        // Before the value is read: who starts when all is over reads the last one.
                        let last = stop.load(Ordering::Acquire);
                        let pointer = current.load(Ordering::Acquire);
                        let held = hold(pointer);
                        if current.load(Ordering::Acquire) == pointer {
                            // SAFETY: announced while it was current.
                            assert_ne!(unsafe { (*pointer).load(Ordering::Relaxed) }, DEAD);
                            read += 1;
                        }
                        drop(held);
                        if last {
                            break read;
                        }
                    }
                })
            })
            .collect();
        for n in 2..if cfg!(miri) { 20 } else { 3000 } {
            let old = current.swap(value(n), Ordering::SeqCst);
            while is_held(old) {
                std::thread::yield_now();
            }
            // SAFETY: from `into_raw`, unreachable, and not being read.
            let old = unsafe { Arc::from_raw(old.cast_const()) };
            old.store(DEAD, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Release);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
        // SAFETY: from `into_raw`; all readers have ended.
        drop(unsafe { Arc::from_raw(current.load(Ordering::Relaxed).cast_const()) });
    }
}
