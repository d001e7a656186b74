//! Flow contexts: the driver's state for a connection.
//!
//! A context has one count for every association WFP holds and one for every [`FlowRef`]. An association's count is
//! given to WFP when the association succeeds and comes back in flowDeleteFn, never otherwise. The set keeps every
//! living context in a list, so that all associations can be removed before the driver goes away: FwpsCalloutUnregister
//! returns STATUS_DEVICE_BUSY while one remains.

use alloc::boxed::Box;
use core::{
    cell::UnsafeCell,
    ops::Deref,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use wfp_sys::{FwpsFlowAbort0, FwpsFlowAssociateContext0, FwpsFlowRemoveContext0};

use super::CalloutId;
use crate::{
    memory::try_box,
    spin::SpinLock,
    status::{NtResult, NtStatus},
};

/// Lists are split by flow handle, so that processors opening connections rarely meet, and a flow is found by its handle
/// among few.
const SHARDS: usize = 4096;
/// The most callouts of a set: a context keeps one bit for each.
const CALLOUTS: usize = u32::BITS as usize;

/// What flow contexts hold. All of one type are in one set, which a context finds without a pointer of its own.
pub trait InSet: Send + Sync + Sized + 'static {
    /// The set of every live context that holds such a value.
    fn set() -> &'static FlowSet<Self>;
}

/// The driver's state for one flow. The value comes first: its own order decides what shares a cache line.
#[repr(C)]
pub struct Flow<T: 'static> {
    value: T,
    handle: u64,
    references: AtomicU32,
    /// One bit for every callout of the set that has the context.
    associated: AtomicU32,
    /// Guarded by the shard's lock.
    next: UnsafeCell<*mut Flow<T>>,
}

/// Every live flow context of one kind. Kept in a static.
pub struct FlowSet<T: 'static> {
    shards: [SpinLock<Head<T>>; SHARDS],
    living: AtomicUsize,
    /// The callouts that contexts can be associated with: layer id and callout id, packed; 0 is none.
    callouts: [AtomicU64; CALLOUTS],
}

struct Head<T: 'static>(*mut Flow<T>);

// SAFETY: the pointers are followed only under the shard's lock, and what they point to is Send + Sync.
unsafe impl<T: Send + Sync> Send for Head<T> {}

impl<T: InSet> Default for FlowSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: InSet> FlowSet<T> {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            shards: [const { SpinLock::new(Head(null_mut())) }; SHARDS],
            living: AtomicUsize::new(0),
            callouts: [const { AtomicU64::new(0) }; CALLOUTS],
        }
    }

    /// Sets a callout that contexts can be associated with; [`Flow::associate`] refers to it by its index, below 32.
    /// Any IRQL.
    pub fn set_callout(&self, place: usize, callout: CalloutId) {
        if let Some(slot) = self.callouts.get(place) {
            slot.store(u64::from(callout.layer) << 32 | u64::from(callout.id), Ordering::Release);
        }
    }

    /// The callout at an index; None if none was set.
    fn callout(&self, place: usize) -> Option<CalloutId> {
        let packed = self.callouts.get(place)?.load(Ordering::Acquire);
        (packed != 0).then_some(CalloutId { layer: (packed >> 32) as u16, id: packed as u32 })
    }

    fn shard(&self, handle: u64) -> &SpinLock<Head<T>> {
        // Handles may be pointers or counters: mix them so that both spread.
        let mixed = handle.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52;
        &self.shards[mixed as usize % SHARDS]
    }

    /// Whether no context is live any more. Any IRQL.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.living.load(Ordering::Acquire) == 0
    }

    /// What `read` finds in the flow's context, None if it has none. IRQL <= DISPATCH_LEVEL; `read` runs at DISPATCH_LEVEL
    /// with a lock held.
    #[must_use]
    pub fn with<R>(&self, handle: u64, read: impl FnOnce(&T) -> R) -> Option<R> {
        let head = self.shard(handle).lock();
        let mut current = head.0;
        // SAFETY: members of the list are alive while the lock is held: freeing one takes the lock first.
        while let Some(flow) = unsafe { current.as_ref() } {
            if flow.handle == handle && flow.associated.load(Ordering::Acquire) != 0 {
                return Some(read(&flow.value));
            }
            // SAFETY: guarded by the lock held.
            current = unsafe { *flow.next.get() };
        }
        None
    }

    /// Calls `visit` for every flow that lives throughout; no lock is held during the calls. IRQL <= DISPATCH_LEVEL.
    pub fn for_each(&'static self, mut visit: impl FnMut(&Flow<T>)) {
        for shard in &self.shards {
            let mut current = Self::next(shard, None);
            while let Some(flow) = current {
                visit(&flow);
                // The current flow is still in the list, because `flow` keeps it alive.
                current = Self::next(shard, Some(&flow));
            }
        }
    }

    /// Calls `visit` for flows from a place on, until it says that it has had enough; no lock is held during the calls. A
    /// place is a list's number in the upper half and the flow's in the list in the lower, which changes when flows of the
    /// list begin and end. IRQL <= DISPATCH_LEVEL.
    pub fn for_each_from(&'static self, from: u64, mut visit: impl FnMut(u64, &Flow<T>) -> bool) {
        let mut skipped = from & u64::from(u32::MAX);
        let first = usize::try_from(from >> u32::BITS).unwrap_or(usize::MAX);
        for (list, shard) in (0_u64..).zip(&self.shards).skip(first) {
            let mut place = 0;
            let mut current = Self::next(shard, None);
            while let Some(flow) = current {
                if place >= skipped && !visit(list << u32::BITS | place, &flow) {
                    return;
                }
                place += 1;
                // The current flow is still in the list, because `flow` keeps it alive.
                current = Self::next(shard, Some(&flow));
            }
            skipped = 0;
        }
    }

    /// The first flow after `after`, or of the list, that is not about to be freed.
    fn next(shard: &SpinLock<Head<T>>, after: Option<&FlowRef<T>>) -> Option<FlowRef<T>> {
        let head = shard.lock();
        let mut candidate = match after {
            // SAFETY: `after` is alive and so in this list; its link is guarded by the lock held.
            Some(flow) => unsafe { *flow.next.get() },
            None => head.0,
        };
        // SAFETY: members of the list are alive while the lock is held: freeing one takes the lock first.
        while let Some(flow) = unsafe { candidate.as_ref() } {
            if flow.try_reference() {
                return Some(FlowRef(NonNull::from(flow)));
            }
            // SAFETY: guarded by the lock held.
            candidate = unsafe { *flow.next.get() };
        }
        None
    }

    fn unlink(&self, flow: &Flow<T>) {
        let mut head = self.shard(flow.handle).lock();
        let mut place = &raw mut head.0;
        // SAFETY: the node is a member of this list, whose members are alive and whose links are guarded by the lock held.
        unsafe {
            while !core::ptr::eq(*place, flow) {
                place = (**place).next.get();
            }
            *place = *flow.next.get();
        }
    }
}

// SAFETY: the link is guarded by the shard's lock, the rest is atomic, constant or T: Sync.
unsafe impl<T: Send + Sync> Sync for Flow<T> {}
// SAFETY: as above, and T: Send.
unsafe impl<T: Send + Sync> Send for Flow<T> {}

impl<T: InSet> Flow<T> {
    /// A context for the flow `handle` in its set, associated with nothing yet, unless `most` are live there. IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    /// STATUS_QUOTA_EXCEEDED, STATUS_INSUFFICIENT_RESOURCES.
    pub fn create(handle: u64, value: T, most: usize) -> NtResult<FlowRef<T>> {
        let set = T::set();
        let not_living = |_: &NtStatus| {
            set.living.fetch_sub(1, Ordering::AcqRel);
        };
        if set.living.fetch_add(1, Ordering::AcqRel) >= most {
            return Err(NtStatus::QUOTA_EXCEEDED).inspect_err(not_living);
        }
        let flow = try_box(Flow {
            value,
            handle,
            references: AtomicU32::new(1),
            associated: AtomicU32::new(0),
            next: UnsafeCell::new(null_mut()),
        })
        .inspect_err(not_living)?;
        let flow = NonNull::from(Box::leak(flow));
        let mut head = set.shard(handle).lock();
        // SAFETY: alive, and its link is guarded by the lock held.
        unsafe { *flow.as_ref().next.get() = head.0 };
        head.0 = flow.as_ptr();
        drop(head);
        Ok(FlowRef(flow))
    }

    /// The flow's handle.
    #[must_use]
    pub const fn handle(&self) -> u64 {
        self.handle
    }

    /// Keeps the context alive. Any IRQL.
    #[must_use]
    pub fn reference(&self) -> FlowRef<T> {
        self.references.fetch_add(1, Ordering::Relaxed);
        FlowRef(NonNull::from(self))
    }

    fn try_reference(&self) -> bool {
        let mut count = self.references.load(Ordering::Relaxed);
        while count != 0 {
            match self.references.compare_exchange_weak(count, count + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }

    /// Makes WFP pass this context to the callout at index `place` of [`FlowSet::set_callout`] with every packet of
    /// the flow; once for each callout. IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    /// The status of FwpsFlowAssociateContext0; STATUS_INVALID_PARAMETER for an index without a callout.
    pub fn associate(&self, place: usize) -> NtResult<()> {
        let callout = T::set().callout(place).ok_or(NtStatus::INVALID_PARAMETER)?;
        let bit = 1 << place;
        if self.associated.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let owned = self.reference().into_context();
        // SAFETY: the context is a separate reference, which WFP gives back through flowDeleteFn of this callout.
        let status = unsafe { FwpsFlowAssociateContext0(self.handle, callout.layer, callout.id, owned) };
        NtStatus::check(status).inspect_err(|_| {
            self.associated.fetch_and(!bit, Ordering::AcqRel);
            // SAFETY: the association failed, so WFP does not hold the reference.
            drop(unsafe { FlowRef::<T>::from_context(owned) });
        })
    }

    /// Asks WFP to remove every association; flowDeleteFn runs now or, while packets are being classified, soon.
    /// IRQL <= DISPATCH_LEVEL.
    pub fn remove_associations(&self) {
        self.remove(u32::MAX);
    }

    /// Asks WFP to remove the association with the callout at this index. It may be the callout that runs: its
    /// flowDeleteFn then runs after it, and it is not called for the flow again. IRQL <= DISPATCH_LEVEL.
    pub fn remove_association(&self, place: usize) {
        self.remove(1_u32.checked_shl(place as u32).unwrap_or(0));
    }

    fn remove(&self, places: u32) {
        let mut associated = self.associated.fetch_and(!places, Ordering::AcqRel) & places;
        while associated != 0 {
            let place = associated.trailing_zeros();
            associated &= associated - 1;
            if let Some(callout) = T::set().callout(place as usize) {
                // SAFETY: plain numbers. STATUS_PENDING means that flowDeleteFn will run; any failure that the flow is
                // gone, in which case flowDeleteFn has run or will.
                let _ = unsafe { FwpsFlowRemoveContext0(self.handle, callout.layer, callout.id) };
            }
        }
    }

    /// Ends the flow: the stack resets the connection. IRQL <= DISPATCH_LEVEL.
    pub fn abort(&self) {
        abort(self.handle);
    }
}

/// Ends the flow with this handle: the stack resets the connection. IRQL <= DISPATCH_LEVEL.
pub fn abort(handle: u64) {
    // SAFETY: a plain number. A failure means that the flow is already gone.
    let _ = unsafe { FwpsFlowAbort0(handle) };
}

impl<T> Deref for Flow<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// One count on a [`Flow`].
pub struct FlowRef<T: InSet>(NonNull<Flow<T>>);

// SAFETY: it gives shared access to a Flow, which is Sync, and may drop it anywhere, because it is Send.
unsafe impl<T: InSet> Send for FlowRef<T> {}

impl<T: InSet> FlowRef<T> {
    fn into_context(self) -> u64 {
        let context = self.0.as_ptr() as u64;
        core::mem::forget(self);
        context
    }

    /// # Safety
    /// `context` came from `into_context` of the same T, and this is the only use of that count.
    pub(super) unsafe fn from_context(context: u64) -> Option<Self> {
        NonNull::new(context as *mut Flow<T>).map(Self)
    }
}

impl<T: InSet> Deref for FlowRef<T> {
    type Target = Flow<T>;
    fn deref(&self) -> &Flow<T> {
        // SAFETY: this count keeps the flow alive.
        unsafe { self.0.as_ref() }
    }
}

impl<T: InSet> Drop for FlowRef<T> {
    fn drop(&mut self) {
        if self.references.fetch_sub(1, Ordering::Release) == 1 {
            core::sync::atomic::fence(Ordering::Acquire);
            let set = T::set();
            set.unlink(self);
            // SAFETY: the count is zero and can't rise again (try_reference refuses zero), and the flow is no longer in
            // the list; it was leaked from a Box.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
            set.living.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
