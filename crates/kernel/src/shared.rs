//! Values shared by many owners, and looked up by content.
//!
//! A value lives as long as it has an owner. Owners are counted under the lock of its shard, so that the last owner and
//! one that is just looking up the value cannot miss each other; the same count bounds how many owners the value and
//! its kin may have.

use alloc::boxed::Box;
use core::{
    cell::UnsafeCell,
    ops::Deref,
    ptr::{NonNull, null_mut},
};

use crate::{
    memory::try_box,
    processor::Padded,
    spin::SpinLock,
    status::{NtResult, NtStatus},
};

/// Lists are split by hash, so that processors rarely meet.
const SHARDS: usize = 16;

/// Every shared value of one kind. Kept in a static.
pub struct SharedSet<T: 'static> {
    shards: [Padded<SpinLock<Head<T>>>; SHARDS],
}

struct Head<T: 'static>(*mut Entry<T>);

// SAFETY: the pointers are followed only under the shard's lock, and what they point to is Send + Sync.
unsafe impl<T: Send + Sync> Send for Head<T> {}

struct Entry<T: 'static> {
    value: T,
    set: &'static SharedSet<T>,
    hash: u32,
    /// Guarded by the shard's lock.
    links: UnsafeCell<Links<T>>,
}

struct Links<T: 'static> {
    owners: u32,
    next: *mut Entry<T>,
}

/// What a value is looked up by.
pub struct Wanted<'a, T> {
    /// The same for every value that is `kin`.
    pub hash: u32,
    /// Whether this is the wanted value.
    pub same: &'a dyn Fn(&T) -> bool,
    /// Whether this value counts towards `most`.
    pub kin: &'a dyn Fn(&T) -> bool,
    /// How many owners the value and its kin may have together.
    pub most: u32,
}

impl<T: Send + Sync + 'static> Default for SharedSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync + 'static> SharedSet<T> {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { shards: [const { Padded(SpinLock::new(Head(null_mut()))) }; SHARDS] }
    }

    /// Becomes an owner of the wanted value, made by `make` if nobody owns it yet. IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    /// STATUS_QUOTA_EXCEEDED when it and its kin have as many owners as allowed; the error of `make`;
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub fn own(&'static self, wanted: &Wanted<'_, T>, make: impl FnOnce() -> NtResult<T>) -> NtResult<Shared<T>> {
        let shard = self.shard(wanted.hash);
        if let Some(found) = find(&shard.lock(), wanted)? {
            return Ok(found);
        }
        // Made without the lock. If another processor was faster, this one is dropped.
        let links = UnsafeCell::new(Links { owners: 1, next: null_mut() });
        let mut made = try_box(Entry { value: make()?, set: self, hash: wanted.hash, links })?;
        let mut head = shard.lock();
        if let Some(found) = find(&head, wanted)? {
            drop(head);
            return Ok(found);
        }
        made.links.get_mut().next = head.0;
        let made = NonNull::from(Box::leak(made));
        head.0 = made.as_ptr();
        Ok(Shared(made))
    }

    fn shard(&self, hash: u32) -> &SpinLock<Head<T>> {
        &self.shards[hash as usize % SHARDS].0
    }
}

/// One more owner of the wanted value; None when nobody owns it. `head` is locked.
fn find<T: Send + Sync>(head: &Head<T>, wanted: &Wanted<'_, T>) -> NtResult<Option<Shared<T>>> {
    let (mut owners, mut found, mut current) = (0_u32, None, head.0);
    // SAFETY: members of the list are alive while the lock is held: freeing one takes the lock first. The links are
    // guarded by it.
    while let Some(entry) = unsafe { current.as_ref() } {
        // SAFETY: as above.
        let links = unsafe { &*entry.links.get() };
        if (wanted.kin)(&entry.value) {
            owners = owners.saturating_add(links.owners);
        }
        if (wanted.same)(&entry.value) {
            found = Some(entry);
        }
        current = links.next;
    }
    if owners >= wanted.most {
        return Err(NtStatus::QUOTA_EXCEEDED);
    }
    Ok(found.map(|entry| {
        // SAFETY: guarded by the lock held; no other reference to the links lives. The count is below `most`.
        unsafe { (*entry.links.get()).owners += 1 };
        Shared(NonNull::from(entry))
    }))
}

/// One owner of a shared value.
pub struct Shared<T: Send + Sync + 'static>(NonNull<Entry<T>>);

// SAFETY: it gives shared access to a T, which is Sync, and may drop it anywhere, because it is Send.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T: Send + Sync> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this owner keeps the entry alive.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T: Send + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: this owner keeps the entry alive.
        let (set, hash) = unsafe { (self.0.as_ref().set, self.0.as_ref().hash) };
        let mut head = set.shard(hash).lock();
        // SAFETY: the links are guarded by the lock held; the members of the list are alive, this entry is one of them.
        unsafe {
            let links = self.0.as_ref().links.get();
            (*links).owners -= 1;
            if (*links).owners != 0 {
                return;
            }
            let mut place = &raw mut head.0;
            while *place != self.0.as_ptr() {
                place = &raw mut (*(**place).links.get()).next;
            }
            *place = (*links).next;
        }
        drop(head);
        // SAFETY: the entry is no longer in the list and nobody owns it; it was leaked from a Box.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        vec::Vec,
    };

    /// Counts the live ones.
    struct Value(u32, &'static AtomicUsize);

    impl Drop for Value {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn own(
        set: &'static SharedSet<Value>,
        number: u32,
        most: u32,
        living: &'static AtomicUsize,
    ) -> NtResult<Shared<Value>> {
        let (same, kin) = (|value: &Value| value.0 == number, |value: &Value| value.0 / 10 == number / 10);
        set.own(&Wanted { hash: number / 10, same: &same, kin: &kin, most }, || {
            living.fetch_add(1, Ordering::SeqCst);
            Ok(Value(number, living))
        })
    }

    #[test]
    fn a_value_lives_while_it_is_owned_and_is_bounded_with_its_kin() {
        static SET: SharedSet<Value> = SharedSet::new();
        static LIVING: AtomicUsize = AtomicUsize::new(0);
        let own = |number| own(&SET, number, 3, &LIVING);
        let first = own(41).unwrap();
        let second = own(41).unwrap();
        assert!(core::ptr::eq(&*first, &*second));
        let kin = own(42).unwrap();
        assert_eq!(own(41).err(), Some(NtStatus::QUOTA_EXCEEDED));
        assert_eq!(own(43).err(), Some(NtStatus::QUOTA_EXCEEDED));
        let other = own(51).unwrap();
        assert_eq!(LIVING.load(Ordering::SeqCst), 3);
        drop(first);
        assert_eq!((*own(43).unwrap()).0, 43);
        drop((second, kin, other));
        assert_eq!(LIVING.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn owners_come_and_go_on_many_threads() {
        static SET: SharedSet<Value> = SharedSet::new();
        static LIVING: AtomicUsize = AtomicUsize::new(0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(|| {
                    for round in 0..20_000 {
                        let shared = own(&SET, round % 7, u32::MAX, &LIVING).unwrap();
                        assert_eq!((*shared).0, round % 7);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(LIVING.load(Ordering::SeqCst), 0);
    }
}
