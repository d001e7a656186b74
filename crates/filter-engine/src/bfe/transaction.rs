//! Transactions: a changed copy of the store, which replaces the store or is discarded.

use super::objects::{Objects, SessionId, StoredFilter};
use super::{Bfe, Lifetime};
use crate::FilterEngine;
use crate::error::{BfeError, BfeResult};
use crate::layers::LayerId;
use crate::snapshot::LayerFilters;
use nt_abi::NtStatus;
use nt_abi::fwp::consts;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// The holder of the store for writing.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) session: SessionId,
    /// Its thread, which cannot get the store again from inside a notifyFn.
    pub(super) thread: ThreadId,
    /// The open transaction; absent while it commits.
    pub(super) transaction: Option<Transaction>,
}

/// Uncommitted changes.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The changed store.
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
        // One that this transaction added was never in force: no callout need be notified.
        match self.added.iter().position(|added| added.id == id) {
            Some(index) => drop(self.added.remove(index)),
            None => self.removed.push(filter),
        }
    }
}

impl Bfe {
    /// Makes a transaction's copy the store. The caller holds the store and keeps it.
    ///
    /// # Errors
    /// `FWP_CALLOUT_NOTIFICATION_FAILED` when a callout's notifyFn refuses a filter; nothing has changed then.
    pub(super) fn commit(&self, engine: &FilterEngine, transaction: Transaction) -> BfeResult<()> {
        let Transaction { objects, added, removed, .. } = transaction;
        for (index, filter) in added.iter().enumerate() {
            let status = notify(filter, consts::FWPS_CALLOUT_NOTIFY_ADD_FILTER);
            if !status.is_success() {
                for told in added[..index].iter().rev() {
                    notify(told, consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER);
                }
                return Err(BfeError::new(
                    NtStatus::FWP_CALLOUT_NOTIFICATION_FAILED,
                    format!("notifyFn of callout {} returned {status}", filter.filter.action_key),
                ));
            }
        }
        let changed: BTreeSet<LayerId> = added.iter().chain(&removed).map(|filter| filter.layer).collect();
        if !changed.is_empty() {
            let running = self.is_running();
            let layers = changed.into_iter().map(|layer| (layer, layer_filters(&objects, layer, running)));
            let new = engine.snapshot.read(|snapshot| snapshot.with(layers));
            engine.snapshot.store(new);
            self.publish(&objects);
            if removed.iter().any(|filter| filter.compiled.callout().is_some_and(|slot| slot.is_registered())) {
                wait_for_readers(engine);
            }
        } else {
            self.publish(&objects);
        }
        engine.callouts.prune(|key| objects.callouts.contains_key(&key));
        for filter in &added {
            let flags = filter.compiled.callout().and_then(|slot| slot.enter(|registration| registration.flags));
            if flags.unwrap_or(0) & consts::FWP_CALLOUT_FLAG_ENABLE_COMMIT_ADD_NOTIFY != 0 {
                notify(filter, consts::FWPS_CALLOUT_NOTIFY_ADD_FILTER_POST_COMMIT);
            }
        }
        for filter in &removed {
            // The callout's result changes nothing here: the filter is deleted (notifyFn1 documentation).
            notify(filter, consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER);
        }
        Ok(())
    }

    fn publish(&self, objects: &Objects) {
        self.state.lock().objects = objects.clone();
    }
}

/// The filters of one layer, for the engine: the boot-time filters until BFE runs, then all others.
pub(super) fn layer_filters(objects: &Objects, layer: LayerId, bfe_runs: bool) -> LayerFilters {
    let of_now = |lifetime| (lifetime == Lifetime::BootTime) != bfe_runs;
    let here = objects.filters.values().filter(|f| f.layer == layer && of_now(f.lifetime));
    let filters = here.filter_map(|filter| {
        let sublayer = objects.sublayers.get(&filter.filter.sublayer)?;
        Some((sublayer.object.key, sublayer.object.weight, sublayer.order, filter.compiled.clone()))
    });
    LayerFilters::new(filters, matches!(layer, LayerId::STREAM_V4 | LayerId::STREAM_V6))
}

/// Calls the notifyFn of a filter's callout, if it is registered.
fn notify(filter: &StoredFilter, kind: u32) -> NtStatus {
    // The key is null for a deletion (notifyFn1 documentation).
    let key = (kind != consts::FWPS_CALLOUT_NOTIFY_DELETE_FILTER).then_some(filter.filter.key);
    let called = filter
        .compiled
        .callout()
        .and_then(|slot| slot.enter(|registration| registration.functions.notify(kind, key, &filter.compiled)));
    called.unwrap_or(NtStatus::SUCCESS)
}

/// Waits until no classify call uses a replaced snapshot: a callout frees a filter's context when it is notified of the
/// deletion.
fn wait_for_readers(engine: &FilterEngine) {
    // Ten seconds are far beyond any classifyFn; the only way to get there is to delete a filter from inside one.
    let patience = Instant::now() + Duration::from_secs(10);
    while engine.snapshot.sweep() > 0 {
        (engine.pause)();
        if Instant::now() > patience {
            tracing::warn!("a classify call has been running for ten seconds while its filter was deleted");
            return;
        }
        std::thread::yield_now();
    }
}

impl Transaction {
    /// Removes all objects of a dynamic session.
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
