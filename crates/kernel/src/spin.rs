//! A spin lock that owns its data.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use wdk_sys::{
    KIRQL, KSPIN_LOCK,
    ntddk::{KeAcquireSpinLockRaiseToDpc, KeReleaseSpinLock},
};

/// Data that one processor at a time may access. Acquired at IRQL <= DISPATCH_LEVEL, held at DISPATCH_LEVEL.
#[derive(Debug)]
pub struct SpinLock<T> {
    lock: UnsafeCell<KSPIN_LOCK>,
    data: UnsafeCell<T>,
}

// SAFETY: the data is reached only through a guard, and KSPIN_LOCK lets one guard exist at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked lock. A KSPIN_LOCK of zero is what KeInitializeSpinLock makes (wdm.h).
    pub const fn new(data: T) -> Self {
        Self { lock: UnsafeCell::new(0), data: UnsafeCell::new(data) }
    }

    /// Waits for the lock and raises to DISPATCH_LEVEL until the guard is dropped. IRQL <= DISPATCH_LEVEL.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        // SAFETY: the lock was initialised by `new` and lives as long as `self`; the caller is at IRQL <= DISPATCH_LEVEL
        // by this function's contract.
        let irql = unsafe { KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        SpinGuard { owner: self, irql, _not_send: PhantomData }
    }
}

/// Evidence that the lock is held by this processor.
#[derive(Debug)]
pub struct SpinGuard<'a, T> {
    owner: &'a SpinLock<T>,
    irql: KIRQL,
    _not_send: PhantomData<*const ()>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.owner.data.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and this guard is borrowed mutably.
        unsafe { &mut *self.owner.data.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: acquired in `lock` by this processor (the guard is not Send); restores the IRQL it was acquired at.
        unsafe { KeReleaseSpinLock(self.owner.lock.get(), self.irql) };
    }
}
