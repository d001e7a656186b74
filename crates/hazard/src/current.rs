//! The snapshot in force: read by every classify call, replaced from time to time.

use crate::readers;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that is replaced while others read it.
#[derive(Debug)]
pub struct Current<T> {
    pointer: AtomicPtr<T>,
    owned: Mutex<Owned<T>>,
}

#[derive(Debug)]
struct Owned<T> {
    current: Arc<T>,
    /// Replaced values that may still be read: a reader may be several replacements behind.
    retired: Vec<Arc<T>>,
}

impl<T> Current<T> {
    /// A current value.
    pub fn new(value: T) -> Self {
        let current = Arc::new(value);
        let pointer = AtomicPtr::new(Arc::as_ptr(&current).cast_mut());
        Self { pointer, owned: Mutex::new(Owned { current, retired: Vec::new() }) }
    }

    /// Reads the current value, which stays until `read` returns.
    #[inline]
    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        loop {
            let pointer = self.pointer.load(Ordering::Acquire);
            let held = readers::hold(pointer);
            if self.pointer.load(Ordering::Acquire) == pointer {
                // SAFETY: `owned` keeps the current value, and a replaced one while it is announced; this one was
                // current after it had been announced, and the announcement outlives the call.
                return read(unsafe { &*pointer });
            }
            drop(held);
        }
    }

    /// Replaces the current value.
    pub fn store(&self, value: T) {
        let new = Arc::new(value);
        let mut owned = self.owned.lock();
        self.pointer.store(Arc::as_ptr(&new).cast_mut(), Ordering::SeqCst);
        let old = core::mem::replace(&mut owned.current, new);
        owned.retired.push(old);
        drop(owned);
        self.sweep();
    }

    /// Frees replaced values that are not being read; returns how many are.
    pub fn sweep(&self) -> usize {
        let free: Vec<Arc<T>> = {
            let mut owned = self.owned.lock();
            if owned.retired.is_empty() {
                return 0;
            }
            let held = readers::held();
            let is_held = |value: &Arc<T>| held.contains(&(Arc::as_ptr(value) as usize));
            owned.retired.extract_if(.., |value| !is_held(value)).collect()
        };
        drop(free); // without the lock
        self.owned.lock().retired.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_value_lives_as_long_as_it_is_read() {
        let first = Arc::new(());
        let current = Current::new(Some(first.clone()));
        current.read(|value| {
            current.store(None);
            assert_eq!((current.sweep(), Arc::strong_count(&first)), (1, 2));
            assert!(value.is_some() && current.read(Option::is_none));
        });
        assert_eq!((current.sweep(), Arc::strong_count(&first)), (0, 1));
    }
}
