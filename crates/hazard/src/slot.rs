//! A value that is set and removed while others are inside it.

use crate::readers;
use parking_lot::Mutex;
use std::fmt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A place for a value. A caller that is inside sees the value that was there when it entered; a removed value lives as
/// long as the slot, because such a caller may still use it.
pub struct Slot<T> {
    current: AtomicPtr<T>,
    /// All values that ever were in the slot, each in its own box: `current` points to one.
    values: Mutex<Vec<Box<T>>>,
}

/// A value that was taken out of a slot.
pub struct Taken<'a, T> {
    slot: &'a Slot<T>,
    value: *mut T,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { current: AtomicPtr::default(), values: Mutex::default() }
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("filled", &self.is_filled()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Taken<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taken")
    }
}

impl<T> Slot<T> {
    /// Whether the slot has a value.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        !self.current.load(Ordering::Acquire).is_null()
    }

    /// Announces the caller and passes it the value; `None` without a value.
    #[inline]
    pub fn enter<R>(&self, inside: impl FnOnce(&T) -> R) -> Option<R> {
        let held = readers::hold(self);
        let value = self.current.load(Ordering::Acquire);
        // SAFETY: a value lives in `values` as long as this slot; null is `None`.
        let result = unsafe { value.as_ref() }.map(inside);
        drop(held);
        result
    }

    /// Whether any caller is inside.
    #[must_use]
    pub fn is_entered(&self) -> bool {
        readers::is_held(self)
    }

    /// Sets the value, replacing the one that is there.
    pub fn fill(&self, value: T) {
        let mut values = self.values.lock();
        values.push(Box::new(value));
        let newest: *const T = &**values.last().expect("one was pushed");
        self.current.store(newest.cast_mut(), Ordering::SeqCst);
    }

    /// Removes the value: callers that enter from now on find none. It does not wait for those that are inside
    /// ([`Self::is_entered`]).
    pub fn take(&self) -> Option<Taken<'_, T>> {
        let value = self.current.swap(null_mut(), Ordering::SeqCst);
        (!value.is_null()).then_some(Taken { slot: self, value })
    }
}

impl<T> Taken<'_, T> {
    /// Puts the value back.
    pub fn put_back(self) {
        self.slot.current.store(self.value, Ordering::SeqCst);
    }
}

// SAFETY: the pointer points to a value that the slot owns; values are only shared, so a slot is like a list of them.
unsafe impl<T: Send + Sync> Send for Slot<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_stays_with_those_inside() {
        let slot = Slot::default();
        assert_eq!(slot.enter(|value: &u32| *value), None);
        slot.fill(1);
        let inside = slot.enter(|value| {
            let taken = slot.take().expect("it is filled");
            assert!(slot.is_entered() && slot.enter(|_| ()).is_none() && *value == 1);
            taken.put_back();
            slot.take();
            slot.fill(2);
            *value
        });
        assert_eq!((inside, slot.is_entered(), slot.enter(|value| *value)), (Some(1), false, Some(2)));
    }
}
