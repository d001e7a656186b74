//! Transactions: a copy of the store that is changed, and becomes the store or is thrown away.

use super::objects::{Objects, SessionId, StoredFilter};
use super::{Bfe, Lifetime};
use crate::machine::Machine;
use crate::trace::{self, Argument, Callback};
use crate::verifier::callback;
use crate::wfp::Platform;
use crate::wfp::engine::LayerFilters;
use crate::wfp::error::{BfeError, BfeResult};
use crate::wfp::layers::LayerId;
use nt_abi::NtStatus;
use nt_abi::fwp::{RawGuid, consts};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Who holds the store for writing.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) session: SessionId,
    /// On which thread; one that comes again from inside a notifyFn can never get the store.
    pub(super) thread: ThreadId,
    /// The open transaction; absent while it commits.
    pub(super) transaction: Option<Transaction>,
}

/// Changes that are not the store yet.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The store as it will be.
    pub(super) objects: Objects,
    pub(super) read_only: bool,
    added: Vec<Arc<StoredFilter>>,
    removed: Vec<Arc<StoredFilter>>,
}

impl Transaction {
    pub(super) fn new(objects: &Objects, read_only: bool) -> Self {
        Self { objects: objects.clone(), read_only, added: Vec::new(), removed: Vec::new() }
    }

    pub(super) fn insert_filter(&mut self, filter: StoredFilter) {
        let filter = Arc::new(filter);
        Arc::make_mut(&mut self.objects.filter_ids).insert(filter.filter.key, filter.id);
        Arc::make_mut(&mut self.objects.filters).insert(filter.id, filter.clone());
        self.added.push(filter);
    }

    pub(super) fn remove_filter(&mut self, id: u64) {
        let Some(filter) = Arc::make_mut(&mut self.objects.filters).remove(&id) else { return };
        Arc::make_mut(&mut self.objects.filter_ids).remove(&filter.filter.key);
        // One that this very transaction added never was: nobody needs to hear of it.
        match self.added.iter().position(|added| added.id == id) {
            Some(index) => drop(self.added.remove(index)),
            None => self.removed.push(filter),
        }
    }
}

impl Bfe {
    /// Makes a transaction's copy the store. The caller holds the store and goes on holding it.
    ///
    /// # Errors
    /// `FWP_CALLOUT_NOTIFICATION_FAILED` when a callout's notifyFn refuses a filter; nothing has changed then.
    pub(super) fn commit(&self, machine: &Machine, transaction: Transaction) -> BfeResult<()> {
        let Transaction { objects, added, removed, .. } = transaction;
        for (index, filter) in added.iter().enumerate() {
            let status = notify(filter, consts::FWPS_CALLOUT_NOTIFY_ADD_FILTER);
            if !status.is_success() {
                for told in added[..index].iter().rev() {
                    notify(told, consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER);
                }
                return Err(BfeError::new(
                    NtStatus::FWP_CALLOUT_NOTIFICATION_FAILED,
                    format!("notifyFn of callout {} answered {status}", filter.filter.action_key),
                ));
            }
        }
        let platform = &machine.wfp;
        let changed: BTreeSet<LayerId> = added.iter().chain(&removed).map(|filter| filter.layer).collect();
        if !changed.is_empty() {
            let layers = changed.into_iter().map(|layer| (layer, layer_filters(&objects, layer)));
            let new = platform.snapshot.load().with(layers);
            platform.snapshot.store(new);
            self.publish(&objects);
            if removed.iter().any(|filter| filter.compiled.callout().is_some_and(|slot| slot.is_registered())) {
                wait_for_readers(platform);
            }
        } else {
            self.publish(&objects);
        }
        platform.callouts.prune(|key| objects.callouts.contains_key(&key));
        for filter in &added {
            let wants = filter.compiled.callout().and_then(|slot| slot.enter()).is_some_and(|entered| {
                let wants = entered.registration.flags & consts::FWP_CALLOUT_FLAG_ENABLE_COMMIT_ADD_NOTIFY != 0;
                entered.leave();
                wants
            });
            if wants {
                notify(filter, consts::FWPS_CALLOUT_NOTIFY_ADD_FILTER_POST_COMMIT);
            }
        }
        for filter in &removed {
            // What the callout answers to this changes nothing: the filter is gone (notifyFn1 documentation).
            notify(filter, consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER);
        }
        Ok(())
    }

    fn publish(&self, objects: &Objects) {
        self.state.lock().objects = objects.clone();
    }
}

/// The filters of one layer, for the engine. Boot-time filters are enforced only until BFE runs, which here it does.
fn layer_filters(objects: &Objects, layer: LayerId) -> LayerFilters {
    let here = objects.filters.values().filter(|f| f.layer == layer && f.lifetime != Lifetime::BootTime);
    let filters = here.filter_map(|filter| {
        let sublayer = objects.sublayers.get(&filter.filter.sublayer)?;
        Some((sublayer.object.key, sublayer.object.weight, sublayer.order, filter.compiled.clone()))
    });
    LayerFilters::new(filters, matches!(layer, LayerId::STREAM_V4 | LayerId::STREAM_V6))
}

/// Calls the notifyFn of the callout a filter names, if it is registered.
fn notify(filter: &StoredFilter, kind: u32) -> NtStatus {
    let Some(slot) = filter.compiled.callout() else { return NtStatus::SUCCESS };
    let Some(entered) = slot.enter() else { return NtStatus::SUCCESS };
    let key = RawGuid::from(filter.filter.key);
    // The key is null with a deletion (notifyFn1 documentation).
    let key = if kind == consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER { core::ptr::null() } else { &raw const key };
    let name = callback::At("notifyFn", entered.registration.notify as usize as u64);
    // SAFETY: the driver registered a function of this type and cannot unload before it has returned; it may write the
    // filter's context, which nobody reads before the filter is in a snapshot or after it has left the last one.
    let call = || callback::call(&name, || unsafe { (entered.registration.notify)(kind, key, filter.compiled.fwps()) });
    let describe = || {
        let notice = match kind {
            consts::FWPS_CALLOUT_NOTIFY_ADD_FILTER => "ADD_FILTER".to_owned(),
            consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER => "DELETE_FILTER".to_owned(),
            other => other.to_string(),
        };
        let arguments = vec![Argument::new("notifyType", notice), Argument::new("filterId", filter.id)];
        Callback::new("notifyFn", entered.registration.notify as *const () as u64, arguments)
    };
    let status = trace::callback(describe, call, |status| NtStatus(*status).to_string());
    entered.leave();
    NtStatus(status)
}

/// Waits until no classify call walks a snapshot that was replaced, this time or before: a callout frees a filter's
/// context when it is told that the filter is gone.
fn wait_for_readers(platform: &Platform) {
    // Ten seconds are far beyond any classifyFn; the one way to get there is to delete a filter from within one.
    let patience = Instant::now() + Duration::from_secs(10);
    while platform.snapshot.sweep() > 0 {
        crate::cpu::leave_if_stopped();
        if Instant::now() > patience {
            tracing::warn!("a classify call has been running for ten seconds while its filter was deleted");
            return;
        }
        std::thread::yield_now();
    }
}

impl Transaction {
    /// Takes out everything that belongs to a dynamic session.
    pub(super) fn remove_session(&mut self, session: SessionId) {
        let gone = |lifetime: Lifetime| lifetime == Lifetime::Dynamic(session);
        let filters: Vec<u64> = self.objects.filters.values().filter(|f| gone(f.lifetime)).map(|f| f.id).collect();
        for id in filters {
            self.remove_filter(id);
        }
        Arc::make_mut(&mut self.objects.callouts).retain(|_, callout| !gone(callout.stored.lifetime));
        Arc::make_mut(&mut self.objects.contexts).retain(|_, context| !gone(context.lifetime));
        Arc::make_mut(&mut self.objects.sublayers).retain(|_, sublayer| !gone(sublayer.lifetime));
        Arc::make_mut(&mut self.objects.providers).retain(|_, provider| !gone(provider.lifetime));
    }
}
