//! A value that every packet reads and an administrator replaces occasionally.
//!
//! Readers never wait and never take a lock: they announce themselves in a counter of their processor, check which of
//! two places is current, and read. A writer fills the other place, makes it current, and waits until nobody reads the
//! first one any more.
//!
//! ```text
//! reader: count up (place, processor)   writer: put the value in the free place
//!         is the place still current?           make it current
//!         no: count down, again                 wait until every counter of the old place is 0
//!         yes: read, count down                 free the old value
//! ```
//!
//! Why a reader that passed the check is safe: counting up and checking are both sequentially consistent, and so are
//! the writer's change and its read of the counters. If the reader saw the place as current, its count came before the
//! change in the single total order, so the writer sees it and waits.
//!
//! Cost of a read: two locked additions on a cache line that only this processor uses.

use alloc::boxed::Box;
use core::{
    ops::Deref,
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
};

use crate::{
    irql::AtDispatch,
    processor::{self, Padded, SLOTS},
    status::{NtResult, NtStatus},
    time,
};

struct Place<T> {
    value: AtomicPtr<T>,
    readers: [Padded<AtomicU32>; SLOTS],
}

impl<T> Place<T> {
    const fn new() -> Self {
        Self { value: AtomicPtr::new(null_mut()), readers: [const { Padded(AtomicU32::new(0)) }; SLOTS] }
    }
}

/// The replaceable value; empty at first.
pub struct Swap<T> {
    places: [Place<T>; 2],
    /// Counts replacements; its lowest bit names the current place.
    generation: AtomicUsize,
    writing: AtomicBool,
}

// SAFETY: the value is shared with readers on any processor (T: Sync) and dropped by the writer (T: Send); the counters
// keep the two apart.
unsafe impl<T: Send + Sync> Sync for Swap<T> {}

impl<T> Default for Swap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Swap<T> {
    /// An empty swap.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: [Place::new(), Place::new()], generation: AtomicUsize::new(0), writing: AtomicBool::new(false) }
    }

    /// The current value, which lives at least as long as the guard; None when there is none. IRQL <= DISPATCH_LEVEL.
    pub fn read(&self) -> Option<Guard<'_, T>> {
        self.read_in(processor::slot())
    }

    /// The same where the processor is known: one call of the kernel less. DISPATCH_LEVEL.
    pub fn read_at(&self, dispatch: &AtDispatch) -> Option<Guard<'_, T>> {
        self.read_in(dispatch.processor() % SLOTS)
    }

    fn read_in(&self, slot: usize) -> Option<Guard<'_, T>> {
        loop {
            let generation = self.generation.load(Ordering::SeqCst);
            let place = &self.places[generation & 1];
            let readers = &place.readers[slot % SLOTS].0;
            readers.fetch_add(1, Ordering::SeqCst);
            if self.generation.load(Ordering::SeqCst) == generation {
                let value = place.value.load(Ordering::Acquire);
                if value.is_null() {
                    readers.fetch_sub(1, Ordering::Release);
                    return None;
                }
                // SAFETY: the place was current after this reader was counted, so no writer frees the value before the
                // guard counts down (see the module's text).
                return Some(Guard { value: unsafe { &*value }, readers });
            }
            readers.fetch_sub(1, Ordering::Release);
        }
    }

    /// Makes `new` current, calls `published`, and frees the old value once nobody reads it. IRQL = PASSIVE_LEVEL: it
    /// waits for readers, so readers in arbitrary threads must read at DISPATCH_LEVEL ([`crate::irql::AtDispatch`]),
    /// where nobody suspends them.
    ///
    /// # Errors
    /// STATUS_DEVICE_BUSY when another replacement is in progress; `new` is dropped and nothing has changed.
    pub fn replace(&self, new: Option<Box<T>>, published: impl FnOnce()) -> NtResult<()> {
        if self.writing.swap(true, Ordering::Acquire) {
            return Err(NtStatus::DEVICE_BUSY);
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let (old, next) = (&self.places[generation & 1], &self.places[(generation + 1) & 1]);
        next.value.store(new.map_or(null_mut(), Box::into_raw), Ordering::Release);
        self.generation.store(generation.wrapping_add(1), Ordering::SeqCst);
        published();
        for readers in &old.readers {
            while readers.0.load(Ordering::SeqCst) != 0 {
                time::sleep_a_moment();
            }
        }
        let value = old.value.swap(null_mut(), Ordering::AcqRel);
        if !value.is_null() {
            // SAFETY: it came from Box::into_raw above, no reader is left, and the place no longer points to it.
            drop(unsafe { Box::from_raw(value) });
        }
        self.writing.store(false, Ordering::Release);
        Ok(())
    }
}

/// A value being read.
pub struct Guard<'a, T> {
    value: &'a T,
    readers: &'a AtomicU32,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{sync::Arc, thread, vec::Vec};

    /// Detects a read after free: its content never changes while it lives.
    struct Value {
        number: usize,
        check: usize,
        gone: Arc<AtomicUsize>,
    }

    impl Value {
        fn boxed(number: usize, gone: &Arc<AtomicUsize>) -> Box<Self> {
            Box::new(Self { number, check: !number, gone: gone.clone() })
        }
    }

    impl Drop for Value {
        fn drop(&mut self) {
            self.check = 0;
            self.gone.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn every_value_is_freed_once_and_none_while_it_is_read() {
        const SWAPS: usize = 300;
        let gone = Arc::new(AtomicUsize::new(0));
        let swap = Arc::new(Swap::<Value>::new());
        assert!(swap.read().is_none());
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (swap, stop) = (swap.clone(), stop.clone());
                thread::spawn(move || {
                    let mut last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        if let Some(value) = swap.read() {
                            assert!(value.number >= last, "an older value came back");
                            last = value.number;
                            thread::yield_now();
                            assert_eq!(value.check, !value.number, "freed while it was read");
                        }
                    }
                })
            })
            .collect();
        for number in 1..=SWAPS {
            swap.replace(Some(Value::boxed(number, &gone)), || {}).unwrap();
            assert_eq!(gone.load(Ordering::SeqCst), number - 1);
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        swap.replace(None, || {}).unwrap();
        assert_eq!(gone.load(Ordering::SeqCst), SWAPS);
        assert!(swap.read().is_none());
    }

    #[test]
    fn a_second_writer_is_refused_and_its_value_freed() {
        let gone = Arc::new(AtomicUsize::new(0));
        let swap = Swap::<Value>::new();
        swap.writing.store(true, Ordering::SeqCst);
        assert_eq!(swap.replace(Some(Value::boxed(1, &gone)), || panic!("published")), Err(NtStatus::DEVICE_BUSY));
        assert_eq!(gone.load(Ordering::SeqCst), 1);
    }
}
