//! Running at DISPATCH_LEVEL for a while.

use core::marker::PhantomData;

use wdk_sys::{
    DISPATCH_LEVEL, KIRQL,
    ntddk::{KeGetCurrentIrql, KeLowerIrql, KeRaiseIrqlToDpcLevel},
};

use crate::processor;

/// Evidence that this thread is at DISPATCH_LEVEL: until it is dropped nobody suspends the thread, moves it to another
/// processor or runs on this processor, except interrupts, which touch nothing of ours. So whoever waits for this work
/// waits for instructions, not for a scheduler; and per-processor data needs no locked instruction.
#[derive(Debug)]
pub struct AtDispatch {
    /// The IRQL to return to; none when the thread was already at DISPATCH_LEVEL.
    before: Option<KIRQL>,
    processor: usize,
    _not_send: PhantomData<*const ()>,
}

impl AtDispatch {
    /// Raises to DISPATCH_LEVEL, unless the thread is already there. IRQL <= DISPATCH_LEVEL; evidence is dropped in the
    /// reverse order of its creation.
    #[must_use]
    #[inline]
    pub fn raise() -> Self {
        // SAFETY: KeGetCurrentIrql may be called at any IRQL; KeRaiseIrqlToDpcLevel at IRQL <= DISPATCH_LEVEL, which is
        // this function's contract.
        let before = unsafe {
            if u32::from(KeGetCurrentIrql()) < DISPATCH_LEVEL { Some(KeRaiseIrqlToDpcLevel()) } else { None }
        };
        Self { before, processor: processor::number(), _not_send: PhantomData }
    }

    /// The number of the processor, which does not change while `self` lives.
    #[must_use]
    pub const fn processor(&self) -> usize {
        self.processor
    }
}

impl Drop for AtDispatch {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: the level that the matching raise on this thread returned (`self` is not Send).
            unsafe { KeLowerIrql(before) };
        }
    }
}
