//! Handles: numbers by which drivers name objects of fwpkclnt.sys.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The objects of one kind behind their handles.
#[derive(Debug)]
pub(super) struct Handles<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: HashMap<u64, Arc<T>>,
    next: u64,
}

impl<T> Handles<T> {
    /// Handles counted from `first` in steps of eight. Each kind of object has its own range, so a handle passed to the
    /// wrong function is not valid there.
    pub(super) fn new(first: u64) -> Self {
        Self { inner: Mutex::new(Inner { objects: HashMap::new(), next: first }) }
    }

    pub(super) fn add(&self, object: T) -> u64 {
        let mut inner = self.inner.lock();
        let handle = inner.next;
        inner.next += 8;
        inner.objects.insert(handle, Arc::new(object));
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Option<Arc<T>> {
        self.inner.lock().objects.get(&handle).cloned()
    }

    pub(super) fn remove(&self, handle: u64) -> Option<Arc<T>> {
        self.inner.lock().objects.remove(&handle)
    }

    /// What is behind every handle.
    pub(super) fn all(&self) -> Vec<T>
    where
        T: Copy,
    {
        self.inner.lock().objects.values().map(|object| **object).collect()
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().objects.len()
    }
}
