//! What an I/O queue decides, without the requests, callbacks and locks it decides about.
//!
//! A queue is a loop that delivers events to the driver until none is left: cancellations first, then the ends of stop
//! and purge, then requests. [`Core::next`] is one turn of that loop. The order of the tests in it, and which events
//! wait until no other thread is delivering, follow KMDF's own dispatcher (`FxIoQueue::DispatchEvents`,
//! microsoft/Windows-Driver-Frameworks). Power states are absent: the queues of control devices are not power managed.

use std::collections::{BTreeMap, VecDeque};

use super::super::status;
use nt_abi::NtStatus;

/// `WDF_IO_QUEUE_DISPATCH_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dispatch {
    /// One request at a time.
    Sequential,
    /// As many at a time as the limit allows.
    Parallel,
    /// The driver asks for requests.
    Manual,
}

impl Dispatch {
    /// The value of the enumeration in the headers.
    #[must_use]
    pub(crate) const fn from_abi(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Sequential),
            2 => Some(Self::Parallel),
            3 => Some(Self::Manual),
            _ => None,
        }
    }
}

/// Something that waits in a queue: cheap to clone, with a number of its own.
pub(crate) trait Item: Clone {
    /// Distinguishes it from every other item.
    fn id(&self) -> u64;
}

/// The driver's next event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<R, N> {
    /// `EvtRequestCancel` of a request that the driver owns and marked cancelable.
    Cancel(R),
    /// `EvtIoCanceledOnQueue`: the driver owns the request again and must complete it.
    CanceledOnQueue(R),
    /// The queue is stopped and the driver owns nothing.
    Stopped(N),
    /// The queue is purged or drained.
    Purged(N),
    /// A manual queue went from empty to not empty.
    Ready(N),
    /// A request for `EvtIo...`; the driver owns it from now on.
    Present(R),
    /// The queue is being deleted and nothing is left in it.
    Deleted,
}

/// `WDF_IO_QUEUE_STATE` bits.
pub(crate) mod state {
    /// Requests are accepted.
    pub(crate) const ACCEPT: u32 = 0x01;
    /// Requests are dispatched.
    pub(crate) const DISPATCH: u32 = 0x02;
    /// No request waits.
    pub(crate) const NO_REQUESTS: u32 = 0x04;
    /// The driver owns no request of this queue.
    pub(crate) const DRIVER_NO_REQUESTS: u32 = 0x08;
}

/// The state of one queue. `R` is a request, `N` what to tell when something is over.
#[derive(Debug)]
pub(crate) struct Core<R, N> {
    dispatch: Dispatch,
    limit: usize,
    accepting: bool,
    dispatching: bool,
    waiting: VecDeque<R>,
    owned: BTreeMap<u64, R>,
    cancelled: VecDeque<R>,
    cancelled_on_queue: VecDeque<R>,
    stopped: Option<N>,
    purged: Option<N>,
    ready: Option<N>,
    from_empty: bool,
    force_from_empty: bool,
    cancel_requeued: bool,
    active: u32,
    disposing: bool,
    deleted: bool,
}

impl<R: Item, N: Clone> Core<R, N> {
    /// A new queue accepts and dispatches. `limit` counts for parallel queues only.
    #[must_use]
    pub(crate) fn new(dispatch: Dispatch, limit: u32) -> Self {
        Self {
            dispatch,
            limit: if dispatch == Dispatch::Parallel { limit as usize } else { usize::MAX },
            accepting: true,
            dispatching: true,
            waiting: VecDeque::new(),
            owned: BTreeMap::new(),
            cancelled: VecDeque::new(),
            cancelled_on_queue: VecDeque::new(),
            stopped: None,
            purged: None,
            ready: None,
            from_empty: false,
            force_from_empty: false,
            cancel_requeued: false,
            active: 0,
            disposing: false,
            deleted: false,
        }
    }

    /// How it dispatches.
    #[must_use]
    pub(crate) fn dispatch(&self) -> Dispatch {
        self.dispatch
    }

    /// [`state`] bits, requests waiting, requests the driver owns.
    #[must_use]
    pub(crate) fn state(&self) -> (u32, usize, usize) {
        let mut bits = 0;
        for (bit, set) in [
            (state::ACCEPT, self.accepting),
            (state::DISPATCH, self.dispatching),
            (state::NO_REQUESTS, self.waiting.is_empty()),
            (state::DRIVER_NO_REQUESTS, self.owned.is_empty()),
        ] {
            if set {
                bits |= bit;
            }
        }
        (bits, self.waiting.len(), self.owned.len())
    }

    /// Whether new requests may be inserted.
    #[must_use]
    pub(crate) fn accepts(&self) -> bool {
        self.accepting
    }

    /// Whether some thread is delivering events.
    #[must_use]
    pub(crate) fn is_active(&self) -> bool {
        self.active != 0
    }

    /// Whether the queue is deleted.
    #[cfg(test)]
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Appends a request. The caller has asked [`Self::accepts`].
    pub(crate) fn insert(&mut self, request: R) {
        self.waiting.push_back(request);
        self.note_transition();
    }

    /// Gives a request back to the head of a manual queue.
    ///
    /// # Errors
    /// The request itself when the queue cancels what the driver gives back (a purge, or a stop with purge).
    pub(crate) fn requeue(&mut self, request: R) -> Result<(), R> {
        self.owned.remove(&request.id());
        if self.cancel_requeued {
            return Err(request);
        }
        self.waiting.push_front(request);
        self.note_transition();
        Ok(())
    }

    fn note_transition(&mut self) {
        if self.waiting.len() == 1 || self.force_from_empty {
            self.from_empty = true;
            self.force_from_empty = false;
        }
    }

    /// Takes a waiting request for the driver, who owns it from now on.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` on a parallel queue, `STATUS_WDF_PAUSED` on a stopped one,
    /// `STATUS_NO_MORE_ENTRIES` when nothing matches.
    pub(crate) fn retrieve(&mut self, wanted: impl Fn(&R) -> bool) -> Result<R, NtStatus> {
        if self.dispatch == Dispatch::Parallel {
            return Err(NtStatus::INVALID_DEVICE_STATE);
        }
        if !self.dispatching {
            return Err(status::WDF_PAUSED);
        }
        let request = self.remove_waiting(wanted).ok_or(NtStatus::NO_MORE_ENTRIES)?;
        self.owned.insert(request.id(), request.clone());
        Ok(request)
    }

    /// The first waiting request after `after` that matches, left where it is.
    ///
    /// # Errors
    /// `STATUS_NOT_FOUND` when `after` does not wait here any more, `STATUS_NO_MORE_ENTRIES` when nothing matches.
    pub(crate) fn find(&self, after: Option<u64>, wanted: impl Fn(&R) -> bool) -> Result<R, NtStatus> {
        let start = match after {
            None => 0,
            Some(id) => 1 + self.waiting.iter().position(|r| r.id() == id).ok_or(NtStatus::NOT_FOUND)?,
        };
        self.waiting.iter().skip(start).find(|r| wanted(r)).cloned().ok_or(NtStatus::NO_MORE_ENTRIES)
    }

    /// Removes a waiting request that is being cancelled.
    pub(crate) fn remove_waiting(&mut self, wanted: impl Fn(&R) -> bool) -> Option<R> {
        let position = self.waiting.iter().position(wanted)?;
        self.waiting.remove(position)
    }

    /// The driver is to hear `EvtIoCanceledOnQueue` for a request that was taken out.
    pub(crate) fn cancelled_on_queue(&mut self, request: R) {
        self.owned.insert(request.id(), request.clone());
        self.cancelled_on_queue.push_back(request);
    }

    /// The driver is to hear `EvtRequestCancel` for a request it owns.
    pub(crate) fn cancelled(&mut self, request: R) {
        self.cancelled.push_back(request);
    }

    /// The driver does not own the request any more: completed, or accepted by another queue.
    pub(crate) fn released(&mut self, id: u64) {
        self.owned.remove(&id);
    }

    /// The requests the driver owns.
    #[must_use]
    pub(crate) fn owned(&self) -> Vec<R> {
        self.owned.values().cloned().collect()
    }

    /// Accept and dispatch again.
    pub(crate) fn start(&mut self) {
        if self.disposing {
            return;
        }
        self.accepting = true;
        self.dispatching = true;
        self.cancel_requeued = false;
        if !self.waiting.is_empty() {
            self.from_empty = true;
            self.force_from_empty = false;
        }
    }

    /// Accept, but do not dispatch. With `cancel` the caller cancels what waits (the requests returned).
    ///
    /// # Errors
    /// `STATUS_DELETE_PENDING` when the queue is deleted, `STATUS_INVALID_DEVICE_REQUEST` when a stop is under way.
    pub(crate) fn stop(&mut self, cancel: bool, notice: Option<N>) -> Result<Vec<R>, NtStatus> {
        if self.deleted {
            return Err(NtStatus::DELETE_PENDING);
        }
        if let Some(notice) = notice {
            if self.stopped.is_some() {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            }
            self.stopped = Some(notice);
        }
        self.accepting = !self.disposing;
        self.dispatching = false;
        self.cancel_requeued |= cancel;
        Ok(if cancel { self.waiting.drain(..).collect() } else { Vec::new() })
    }

    /// Accept nothing more. With `cancel` the caller cancels what waits (the requests returned); without, this is a
    /// drain. `cancel_requeued` is for clients of KMDF 1.11 and later.
    ///
    /// # Errors
    /// `STATUS_DELETE_PENDING` when the queue is deleted, `STATUS_INVALID_DEVICE_REQUEST` when a purge is under way.
    pub(crate) fn purge(&mut self, cancel: bool, cancel_requeued: bool, notice: Option<N>) -> Result<Vec<R>, NtStatus> {
        if self.deleted {
            return Err(NtStatus::DELETE_PENDING);
        }
        if let Some(notice) = notice {
            if self.purged.is_some() {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            }
            self.purged = Some(notice);
        }
        self.accepting = false;
        self.cancel_requeued |= cancel && cancel_requeued;
        Ok(if cancel { self.waiting.drain(..).collect() } else { Vec::new() })
    }

    /// Registers (or with `None` removes) the notice of [`Event::Ready`].
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` on a queue that is not manual, when one is already registered, when there is
    /// none to remove, or when it is removed while the queue dispatches; `STATUS_DELETE_PENDING` when the queue is
    /// deleted.
    pub(crate) fn ready_notify(&mut self, notice: Option<N>) -> Result<(), NtStatus> {
        if self.dispatch != Dispatch::Manual {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        if self.deleted {
            return Err(NtStatus::DELETE_PENDING);
        }
        let refused = match &notice {
            Some(_) => self.ready.is_some(),
            None => self.ready.is_none() || self.dispatching,
        };
        if refused {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        self.ready = notice;
        Ok(())
    }

    /// Deletion begins: [`Event::Deleted`] comes when nothing is left. The caller has purged the queue.
    pub(crate) fn dispose(&mut self) {
        self.disposing = true;
        self.accepting = false;
    }

    /// The driver never gave back what it owns: forgets it, so that deletion can end. Returns what it owned.
    pub(crate) fn abandon(&mut self) -> Vec<R> {
        self.cancelled.clear();
        self.cancelled_on_queue.clear();
        std::mem::take(&mut self.owned).into_values().collect()
    }

    /// This thread begins to deliver events; it calls [`Self::next`] until that says `None`.
    pub(crate) fn enter(&mut self) {
        self.active += 1;
    }

    /// The next event, or `None`, and then this thread has stopped delivering.
    pub(crate) fn next(&mut self) -> Option<Event<R, N>> {
        let event = self.event();
        if event.is_none() || matches!(event, Some(Event::Deleted)) {
            self.active -= 1;
        }
        event
    }

    fn event(&mut self) -> Option<Event<R, N>> {
        if self.deleted {
            return None;
        }
        if let Some(request) = self.cancelled.pop_front() {
            return Some(Event::Cancel(request));
        }
        if let Some(request) = self.cancelled_on_queue.pop_front() {
            return Some(Event::CanceledOnQueue(request));
        }
        // The ends of stop, purge and deletion wait for the last delivering thread: a callback that is still running
        // on another one may not be overtaken by the news that the queue is quiet.
        let last = self.active == 1;
        if last && self.owned.is_empty() {
            if let Some(notice) = self.stopped.take() {
                self.cancel_requeued = false;
                return Some(Event::Stopped(notice));
            }
            if self.waiting.is_empty() {
                if let Some(notice) = self.purged.take() {
                    self.cancel_requeued = false;
                    return Some(Event::Purged(notice));
                }
                if self.disposing {
                    self.deleted = true;
                    return Some(Event::Deleted);
                }
            }
        }
        if !self.dispatching {
            return None;
        }
        match self.dispatch {
            Dispatch::Manual => {
                let notice = self.ready.clone().filter(|_| self.from_empty)?;
                self.from_empty = false;
                Some(Event::Ready(notice))
            }
            Dispatch::Sequential if !self.owned.is_empty() => None,
            Dispatch::Parallel if self.owned.len() >= self.limit => None,
            Dispatch::Sequential | Dispatch::Parallel => {
                let request = self.waiting.pop_front()?;
                self.owned.insert(request.id(), request.clone());
                Some(Event::Present(request))
            }
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
