//! What is kept of work that goes on from call to call and then has a result, in one word.
//!
//! ```text
//! idle: nothing to do, or a result that nobody keeps
//! going on, with nothing kept   <--take/put-->   going on, with its progress kept
//! over: the result, which stays as long as the stage
//! ```
//!
//! Whoever works takes the progress out, so that it has one owner and nobody waits: a second processor finds none, and
//! what it puts back is dropped if the first was faster. Nothing may depend on the progress being there.

use alloc::boxed::Box;
use core::{
    marker::PhantomData,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
};

/// The stage of work with progress `P` and result `R`. Any IRQL, except that dropping a box frees pool
/// (IRQL <= DISPATCH_LEVEL).
#[derive(Debug)]
pub struct Stage<P, R> {
    /// An address from a box, or null, and what it is in the lowest bits.
    word: AtomicPtr<u8>,
    _owns: PhantomData<(Box<P>, Box<R>)>,
}

const MARK: usize = 3;
/// Null, or a `Box<P>`.
const GOES_ON: usize = 1;
/// A `Box<R>`.
const OVER: usize = 2;

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'a, R> {
    /// It was never begun, or ended without a result.
    Nothing,
    /// It goes on.
    NotYet,
    /// Its result.
    Result(&'a R),
}

fn mark(word: *mut u8) -> usize {
    word.addr() & MARK
}

impl<P, R> Stage<P, R> {
    const ALIGNED: () =
        assert!(align_of::<P>() > MARK && align_of::<R>() > MARK, "the lowest bits of an address are used");

    /// Work that is not begun.
    #[must_use]
    pub const fn idle() -> Self {
        let () = Self::ALIGNED;
        Self { word: AtomicPtr::new(null_mut()), _owns: PhantomData }
    }

    /// Work that has begun, with nothing kept of it.
    #[must_use]
    pub const fn begun() -> Self {
        let () = Self::ALIGNED;
        Self { word: AtomicPtr::new(core::ptr::without_provenance_mut(GOES_ON)), _owns: PhantomData }
    }

    /// How far it is.
    pub fn known(&self) -> Known<'_, R> {
        let word = self.word.load(Ordering::Acquire);
        match mark(word) {
            GOES_ON => Known::NotYet,
            // SAFETY: the mark says that this is a result from a box. It is never replaced, and freed with `self`.
            OVER => Known::Result(unsafe { &*word.map_addr(|address| address & !MARK).cast::<R>() }),
            _ => Known::Nothing,
        }
    }

    /// Takes the progress out, if there is any.
    pub fn take(&self) -> Option<Box<P>> {
        let nothing = core::ptr::without_provenance_mut(GOES_ON);
        let mut word = self.word.load(Ordering::Acquire);
        while mark(word) == GOES_ON && word != nothing {
            match self.word.compare_exchange_weak(word, nothing, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: the mark says that this is progress from a box, and it was taken out by this call.
                Ok(_) => return Some(unsafe { Box::from_raw(word.map_addr(|address| address & !MARK).cast::<P>()) }),
                Err(now) => word = now,
            }
        }
        None
    }

    /// Keeps progress, unless the work is over or other progress is kept.
    pub fn put(&self, progress: Box<P>) {
        let nothing = core::ptr::without_provenance_mut(GOES_ON);
        let kept = Box::into_raw(progress);
        let word = kept.cast::<u8>().map_addr(|address| address | GOES_ON);
        if self.word.compare_exchange(nothing, word, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: from `into_raw` above; it was not stored.
            drop(unsafe { Box::from_raw(kept) });
        }
    }

    /// Ends the work, with a result or without. False when it was over or idle already; the result is then dropped.
    pub fn end(&self, result: Option<Box<R>>) -> bool {
        let raw = result.map_or(null_mut(), Box::into_raw);
        let end = if raw.is_null() { null_mut() } else { raw.cast::<u8>().map_addr(|address| address | OVER) };
        let mut word = self.word.load(Ordering::Acquire);
        while mark(word) == GOES_ON {
            match self.word.compare_exchange_weak(word, end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    free::<P>(word);
                    return true;
                }
                Err(now) => word = now,
            }
        }
        free::<R>(end);
        false
    }
}

/// Frees the box that a word holds, if it holds one. Its caller owns it.
fn free<T>(word: *mut u8) {
    let address = word.map_addr(|address| address & !MARK).cast::<T>();
    if !address.is_null() {
        // SAFETY: every word that is not null but for its mark has its address from the box of that mark's type, and
        // each caller has just taken it out, or never stored it.
        drop(unsafe { Box::from_raw(address) });
    }
}

impl<P, R> Drop for Stage<P, R> {
    fn drop(&mut self) {
        let word = *self.word.get_mut();
        match mark(word) {
            GOES_ON => free::<P>(word),
            OVER => free::<R>(word),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        thread,
        vec::Vec,
    };

    /// Counts the live ones.
    struct Counted(u64, Arc<AtomicUsize>);

    impl Counted {
        fn boxed(value: u64, living: &Arc<AtomicUsize>) -> Box<Self> {
            living.fetch_add(1, SeqCst);
            Box::new(Self(value, living.clone()))
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(1, SeqCst);
        }
    }

    type Work = Stage<Counted, Counted>;

    fn result(work: &Work) -> Option<u64> {
        match work.known() {
            Known::Result(value) => Some(value.0),
            _ => None,
        }
    }

    #[test]
    fn progress_has_one_owner_and_a_result_stays() {
        let living = Arc::new(AtomicUsize::new(0));
        let work = Work::begun();
        assert!(work.take().is_none());
        work.put(Counted::boxed(1, &living));
        work.put(Counted::boxed(2, &living));
        assert_eq!(living.load(SeqCst), 1, "the second was not needed");
        let progress = work.take().unwrap();
        assert_eq!(progress.0, 1);
        assert!(work.take().is_none());
        work.put(progress);
        assert!(work.end(Some(Counted::boxed(3, &living))));
        assert_eq!((result(&work), living.load(SeqCst)), (Some(3), 1));
        work.put(Counted::boxed(4, &living));
        assert!(!work.end(Some(Counted::boxed(5, &living))) && work.take().is_none());
        assert_eq!((result(&work), living.load(SeqCst)), (Some(3), 1));
        drop(work);
        assert_eq!(living.load(SeqCst), 0);
    }

    #[test]
    fn what_ends_without_a_result_is_idle() {
        let living = Arc::new(AtomicUsize::new(0));
        let work = Work::begun();
        work.put(Counted::boxed(1, &living));
        assert!(work.end(None) && !work.end(None));
        assert!(matches!(work.known(), Known::Nothing));
        assert_eq!(living.load(SeqCst), 0);
        let idle = Work::idle();
        idle.put(Counted::boxed(1, &living));
        assert!(!idle.end(Some(Counted::boxed(1, &living))) && idle.take().is_none());
        let dropped = Work::begun();
        dropped.put(Counted::boxed(1, &living));
        drop((idle, dropped));
        assert_eq!(living.load(SeqCst), 0);
    }

    #[test]
    fn many_threads_lose_and_free_nothing_twice() {
        for _ in 0..50 {
            let (living, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let work = Arc::new(Work::begun());
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let (work, living, ended) = (work.clone(), living.clone(), ended.clone());
                    thread::spawn(move || {
                        for round in 0..100 {
                            let progress = work.take().unwrap_or_else(|| Counted::boxed(round, &living));
                            work.put(progress);
                            if round == 50 + number && work.end(Some(Counted::boxed(round, &living))) {
                                ended.fetch_add(1, SeqCst);
                            }
                            if let Some(round) = result(&work) {
                                assert!((50..54).contains(&round));
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!((ended.load(SeqCst), living.load(SeqCst)), (1, 1));
            drop(work);
            assert_eq!(living.load(SeqCst), 0);
        }
    }
}
