//! Sessions: what FwpmEngineOpen0 opens, and the calls made through it.

use super::check::{self, refuse};
use super::objects::{
    Callout, DisplayData, Filter, FilterContext, Lifetime, Objects, Provider, ProviderContext, SessionId, Stored,
    StoredCallout, StoredFilter, Sublayer,
};
use super::transaction::{Holder, Transaction};
use super::weight;
use crate::FilterEngine;
use crate::error::{BfeError, BfeResult, FWP_PROVIDER_CONTEXT_NOT_FOUND};
use crate::filter::{CompiledFilter, FilterParts};
use crate::names::{Named, SUBLAYER_UNIVERSAL};
use nt_abi::NtStatus;
use nt_abi::fwp::consts;
use sluice_host::Guid;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How a session is opened (`FWPM_SESSION0`).
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// sessionKey; when zero, BFE makes one.
    pub key: Option<Guid>,
    /// displayData.
    pub display: DisplayData,
    /// FWPM_SESSION_FLAG_DYNAMIC: objects that the session adds are deleted with it.
    pub dynamic: bool,
    /// txnWaitTimeoutInMSec: how long to wait for another session's transaction; 0 means the default of 15 seconds, and
    /// `u32::MAX` forever.
    pub wait_ms: u32,
    /// Opened by a driver.
    pub kernel_mode: bool,
    /// processId.
    pub process_id: u32,
}

/// An open session, as BFE lists it.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its number.
    pub id: SessionId,
    /// sessionKey.
    pub key: Guid,
    /// The options.
    pub options: SessionOptions,
}

/// An open session. Its methods must run where the callouts' functions can, at PASSIVE_LEVEL, because they may call a
/// notifyFn.
#[derive(Debug)]
pub struct Session {
    /// Weak, because the owner of the engine also keeps the sessions that drivers leave open.
    engine: Weak<FilterEngine>,
    id: SessionId,
    dynamic: bool,
    wait: Option<Duration>,
    closed: AtomicBool,
}

impl Session {
    /// `FwpmEngineOpen0`.
    #[must_use]
    pub fn open(engine: &Arc<FilterEngine>, options: SessionOptions) -> Self {
        const DEFAULT_WAIT: Duration = Duration::from_secs(15);
        let bfe = &engine.bfe;
        let id = SessionId(bfe.next_session.fetch_add(1, Ordering::Relaxed));
        let key = options.key.unwrap_or_else(|| bfe.make_key(id.0 << 32));
        let dynamic = options.dynamic;
        let wait = match options.wait_ms {
            0 => Some(DEFAULT_WAIT),
            u32::MAX => None,
            ms => Some(Duration::from_millis(ms.into())),
        };
        bfe.state.lock().sessions.insert(id, SessionInfo { id, key, options });
        Self { engine: Arc::downgrade(engine), id, dynamic, wait, closed: AtomicBool::new(false) }
    }

    /// The session's number.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The engine. Every call comes from one of its callouts or from its owner.
    fn engine(&self) -> Arc<FilterEngine> {
        self.engine.upgrade().expect("an engine outlives the calls made on it")
    }

    /// The objects as this session sees them: with its own uncommitted changes.
    #[must_use]
    pub fn objects(&self) -> Objects {
        let engine = self.engine();
        let state = engine.bfe.state.lock();
        match &state.holder {
            Some(Holder { session, transaction: Some(transaction), .. }) if *session == self.id => {
                transaction.objects.clone()
            }
            _ => state.objects.clone(),
        }
    }

    fn in_transaction(&self) -> bool {
        let engine = self.engine();
        let state = engine.bfe.state.lock();
        state.holder.as_ref().is_some_and(|holder| holder.session == self.id)
    }

    /// `FwpmTransactionBegin0`.
    ///
    /// # Errors
    /// `FWP_TXN_IN_PROGRESS` inside a transaction, `FWP_TIMEOUT` when another session's does not end in time.
    pub fn begin(&self, read_only: bool) -> BfeResult<()> {
        if self.in_transaction() {
            return refuse(NtStatus::FWP_TXN_IN_PROGRESS, "the session has a transaction in progress");
        }
        self.acquire(read_only)
    }

    /// Waits for the store and opens a transaction on it.
    fn acquire(&self, read_only: bool) -> BfeResult<()> {
        // The wait is in slices so that the engine's owner can end it.
        const SLICE: Duration = Duration::from_millis(20);
        let engine = self.engine();
        let bfe = &engine.bfe;
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let thread = std::thread::current().id();
        loop {
            {
                let mut state = bfe.state.lock();
                match &state.holder {
                    None => {
                        let transaction = Some(Transaction::new(&state.objects, read_only));
                        state.holder = Some(Holder { session: self.id, thread, transaction });
                        return Ok(());
                    }
                    // This thread is in a commit: the call comes from a notifyFn.
                    Some(holder) if holder.thread == thread && holder.transaction.is_none() => {
                        let what = "BFE cannot be changed from within a notifyFn";
                        return refuse(NtStatus::FWP_TXN_IN_PROGRESS, what);
                    }
                    Some(_) => {
                        bfe.released.wait_for(&mut state, SLICE);
                    }
                }
            }
            (engine.pause)();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return refuse(NtStatus::FWP_TIMEOUT, "another session's transaction did not end in time");
            }
        }
    }

    fn release(&self) {
        let engine = self.engine();
        let bfe = &engine.bfe;
        bfe.state.lock().holder = None;
        bfe.released.notify_all();
    }

    /// Takes the transaction out of the holder, which keeps the store.
    fn take(&self) -> BfeResult<Transaction> {
        let engine = self.engine();
        let mut state = engine.bfe.state.lock();
        let mine = state.holder.as_mut().filter(|holder| holder.session == self.id);
        mine.and_then(|holder| {
            holder.thread = std::thread::current().id();
            holder.transaction.take()
        })
        .ok_or_else(|| BfeError::new(NtStatus::FWP_NO_TXN_IN_PROGRESS, "the session has no transaction in progress"))
    }

    /// `FwpmTransactionCommit0`. The transaction is over whether or not it succeeds.
    ///
    /// # Errors
    /// `FWP_NO_TXN_IN_PROGRESS`, `FWP_CALLOUT_NOTIFICATION_FAILED`.
    pub fn commit(&self) -> BfeResult<()> {
        let transaction = self.take()?;
        let result = self.commit_to(transaction);
        self.release();
        result
    }

    fn commit_to(&self, transaction: Transaction) -> BfeResult<()> {
        let engine = self.engine();
        engine.bfe.commit(&engine, transaction)
    }

    /// `FwpmTransactionAbort0`.
    ///
    /// # Errors
    /// `FWP_NO_TXN_IN_PROGRESS`.
    pub fn abort(&self) -> BfeResult<()> {
        drop(self.take()?);
        self.release();
        Ok(())
    }

    /// Makes one change: in the open transaction, or in one of its own.
    fn change<R>(&self, change: impl FnOnce(&mut Transaction) -> BfeResult<R>) -> BfeResult<R> {
        let explicit = self.in_transaction();
        if !explicit {
            self.acquire(false)?;
        }
        let result = {
            let engine = self.engine();
            let mut state = engine.bfe.state.lock();
            match state.holder.as_mut().and_then(|holder| holder.transaction.as_mut()) {
                Some(transaction) if transaction.read_only => {
                    refuse(NtStatus::FWP_INCOMPATIBLE_TXN, "the transaction is read-only")
                }
                Some(transaction) => change(transaction),
                None => refuse(NtStatus::FWP_TXN_IN_PROGRESS, "BFE cannot be changed from within a notifyFn"),
            }
        };
        if explicit {
            return result;
        }
        match result {
            Ok(value) => self.commit().map(|()| value),
            Err(error) => {
                self.abort()?;
                Err(error)
            }
        }
    }

    /// `FwpmProviderAdd0`.
    ///
    /// # Errors
    /// `FWP_ALREADY_EXISTS`, `FWP_NULL_DISPLAY_NAME`, `FWP_INVALID_FLAGS`.
    pub fn add_provider(&self, provider: Provider) -> BfeResult<()> {
        let of = format!("provider {}", Named(provider.key));
        check::display(&provider.display, &of)?;
        check::flags(provider.flags, consts::FWPM_PROVIDER_FLAG_PERSISTENT, &of)?;
        let persistent = provider.flags & consts::FWPM_PROVIDER_FLAG_PERSISTENT != 0;
        let lifetime = check::lifetime(persistent, self.id, self.dynamic, &of)?;
        let order = self.engine().bfe.new_order();
        self.change(|transaction| {
            if transaction.objects.providers.contains_key(&provider.key) {
                return refuse(NtStatus::FWP_ALREADY_EXISTS, format!("{of} already exists"));
            }
            let stored = Stored { object: provider, lifetime, order };
            Arc::make_mut(&mut transaction.objects.providers).insert(stored.object.key, stored);
            Ok(())
        })
    }

    /// `FwpmSubLayerAdd0`.
    ///
    /// # Errors
    /// `FWP_ALREADY_EXISTS`, `FWP_PROVIDER_NOT_FOUND`, `FWP_LIFETIME_MISMATCH`, and as for a provider.
    pub fn add_sublayer(&self, sublayer: Sublayer) -> BfeResult<()> {
        let of = format!("sublayer {}", Named(sublayer.key));
        check::display(&sublayer.display, &of)?;
        check::flags(sublayer.flags, consts::FWPM_SUBLAYER_FLAG_PERSISTENT, &of)?;
        let persistent = sublayer.flags & consts::FWPM_SUBLAYER_FLAG_PERSISTENT != 0;
        let lifetime = check::lifetime(persistent, self.id, self.dynamic, &of)?;
        let order = self.engine().bfe.new_order();
        self.change(|transaction| {
            if transaction.objects.sublayers.contains_key(&sublayer.key) {
                return refuse(NtStatus::FWP_ALREADY_EXISTS, format!("{of} already exists"));
            }
            check::provider(&transaction.objects, &of, lifetime, sublayer.provider)?;
            let stored = Stored { object: sublayer, lifetime, order };
            Arc::make_mut(&mut transaction.objects.sublayers).insert(stored.object.key, stored);
            Ok(())
        })
    }

    /// `FwpmCalloutAdd0`; returns the run-time id, which is also the driver's.
    ///
    /// # Errors
    /// `FWP_ALREADY_EXISTS`, `FWP_LAYER_NOT_FOUND`, and as for a sublayer.
    pub fn add_callout(&self, callout: Callout) -> BfeResult<u32> {
        let of = format!("callout {}", Named(callout.key));
        check::display(&callout.display, &of)?;
        let known = consts::FWPM_CALLOUT_FLAG_PERSISTENT | consts::FWPM_CALLOUT_FLAG_USES_PROVIDER_CONTEXT;
        check::flags(callout.flags, known, &of)?;
        let persistent = callout.flags & consts::FWPM_CALLOUT_FLAG_PERSISTENT != 0;
        let lifetime = check::lifetime(persistent, self.id, self.dynamic, &of)?;
        if self.engine().layers().by_key(callout.layer).is_none() {
            let what = format!("{of} applies to layer {}, which does not exist", Named(callout.layer));
            return refuse(NtStatus::FWP_LAYER_NOT_FOUND, what);
        }
        let order = self.engine().bfe.new_order();
        self.change(|transaction| {
            if transaction.objects.callouts.contains_key(&callout.key) {
                return refuse(NtStatus::FWP_ALREADY_EXISTS, format!("{of} already exists"));
            }
            check::provider(&transaction.objects, &of, lifetime, callout.provider)?;
            let slot = self.engine().callouts.slot(callout.key);
            let id = slot.id();
            let stored = StoredCallout { stored: Stored { object: callout, lifetime, order }, slot };
            Arc::make_mut(&mut transaction.objects.callouts).insert(stored.stored.object.key, stored);
            Ok(id)
        })
    }

    /// `FwpmProviderContextAdd`, for contexts that are a plain buffer; returns the run-time id.
    ///
    /// # Errors
    /// As for a sublayer.
    pub fn add_provider_context(&self, context: ProviderContext) -> BfeResult<u64> {
        let of = format!("provider context {}", Named(context.key));
        check::display(&context.display, &of)?;
        check::flags(context.flags, consts::FWPM_PROVIDER_CONTEXT_FLAG_PERSISTENT, &of)?;
        let persistent = context.flags & consts::FWPM_PROVIDER_CONTEXT_FLAG_PERSISTENT != 0;
        let lifetime = check::lifetime(persistent, self.id, self.dynamic, &of)?;
        let order = self.engine().bfe.new_order();
        self.change(|transaction| {
            if transaction.objects.contexts.contains_key(&context.key) {
                return refuse(NtStatus::FWP_ALREADY_EXISTS, format!("{of} already exists"));
            }
            check::provider(&transaction.objects, &of, lifetime, context.provider)?;
            let stored = Stored { object: context, lifetime, order };
            Arc::make_mut(&mut transaction.objects.contexts).insert(stored.object.key, stored);
            Ok(order)
        })
    }

    /// The lifetime of a filter with these flags.
    fn filter_lifetime(&self, flags: u32) -> BfeResult<Lifetime> {
        let persistent = flags & consts::FWPM_FILTER_FLAG_PERSISTENT != 0;
        let boot_time = flags & consts::FWPM_FILTER_FLAG_BOOTTIME != 0;
        let lifetime = check::lifetime(persistent || boot_time, self.id, self.dynamic, "filter")?;
        Ok(if boot_time { Lifetime::BootTime } else { lifetime })
    }

    /// `FwpmFilterAdd0`; returns the run-time id.
    ///
    /// # Errors
    /// For an invalid filter: `FWP_LAYER_NOT_FOUND`, `FWP_SUBLAYER_NOT_FOUND`, `FWP_CALLOUT_NOT_FOUND`,
    /// `FWP_CONDITION_NOT_FOUND`, `FWP_TYPE_MISMATCH`, `FWP_MATCH_TYPE_MISMATCH`, `FWP_INVALID_RANGE`,
    /// `FWP_INVALID_WEIGHT`, `FWP_INVALID_FLAGS`, `FWP_INVALID_ACTION_TYPE`, and more; and
    /// `FWP_CALLOUT_NOTIFICATION_FAILED` when its callout refuses it.
    pub fn add_filter(&self, mut filter: Filter) -> BfeResult<u64> {
        check::display(&filter.display, "filter")?;
        check::filter_flags(&filter)?;
        let has_callout = check::filter_action(filter.action)?;
        let lifetime = self.filter_lifetime(filter.flags)?;
        let layer = self.engine().layers().by_key(filter.layer).ok_or_else(|| {
            let what = format!("filter is at layer {}, which does not exist", Named(filter.layer));
            BfeError::new(NtStatus::FWP_LAYER_NOT_FOUND, what)
        })?;
        if filter.sublayer == Guid(0) {
            filter.sublayer = SUBLAYER_UNIVERSAL;
        }
        let effective_weight = weight::effective(&filter)?;
        let engine = self.engine();
        let id = engine.bfe.new_filter_id();
        if filter.key == Guid(0) {
            filter.key = engine.bfe.make_key(id);
        }
        self.change(|transaction| {
            let objects = &transaction.objects;
            if objects.filter_ids.contains_key(&filter.key) {
                return refuse(NtStatus::FWP_ALREADY_EXISTS, format!("filter {} already exists", filter.key));
            }
            check::provider(objects, "filter", lifetime, filter.provider)?;
            check::filter_context(objects, &filter, lifetime)?;
            let sublayer = filter_sublayer(objects, &filter, lifetime)?;
            let callout = match has_callout {
                true => Some(filter_callout(objects, &filter, lifetime)?),
                false => None,
            };
            let (context, provider_context) = match filter.context {
                FilterContext::Raw(raw) => (raw, None),
                FilterContext::Provider(key) => {
                    let stored = objects.contexts.get(&key);
                    (stored.map_or(0, |stored| stored.order), stored)
                }
            };
            let compiled = CompiledFilter::new(FilterParts {
                id,
                layer,
                sublayer_weight: sublayer.object.weight,
                weight: effective_weight,
                flags: filter.flags,
                conditions: &filter.conditions,
                action: filter.action,
                callout,
                context,
                provider_context,
            })?;
            let (compiled, layer) = (Arc::new(compiled), layer.id);
            transaction.insert_filter(StoredFilter { id, filter, lifetime, layer, effective_weight, compiled });
            Ok(id)
        })
    }

    /// `FwpmProviderDeleteByKey0`.
    ///
    /// # Errors
    /// `FWP_PROVIDER_NOT_FOUND`, `FWP_IN_USE`, `FWP_WRONG_SESSION`.
    pub fn delete_provider(&self, key: Guid) -> BfeResult<()> {
        let of = format!("provider {}", Named(key));
        self.change(|transaction| {
            let objects = &transaction.objects;
            let stored = objects.providers.get(&key);
            let stored = stored.ok_or_else(|| BfeError::new(NtStatus::FWP_PROVIDER_NOT_FOUND, of.clone()))?;
            check::deletable(&of, stored.lifetime, self.id)?;
            let by = Some(key);
            let used = objects.filters.values().any(|f| f.filter.provider == by)
                || objects.sublayers.values().any(|s| s.object.provider == by)
                || objects.callouts.values().any(|c| c.stored.object.provider == by)
                || objects.contexts.values().any(|c| c.object.provider == by);
            if used {
                return refuse(NtStatus::FWP_IN_USE, format!("{of} has objects"));
            }
            Arc::make_mut(&mut transaction.objects.providers).remove(&key);
            Ok(())
        })
    }

    /// `FwpmSubLayerDeleteByKey0`.
    ///
    /// # Errors
    /// `FWP_SUBLAYER_NOT_FOUND`, `FWP_IN_USE`, `FWP_BUILTIN_OBJECT`, `FWP_WRONG_SESSION`.
    pub fn delete_sublayer(&self, key: Guid) -> BfeResult<()> {
        let of = format!("sublayer {}", Named(key));
        self.change(|transaction| {
            let objects = &transaction.objects;
            let stored = objects.sublayers.get(&key);
            let stored = stored.ok_or_else(|| BfeError::new(NtStatus::FWP_SUBLAYER_NOT_FOUND, of.clone()))?;
            check::deletable(&of, stored.lifetime, self.id)?;
            if objects.filters.values().any(|f| f.filter.sublayer == key) {
                return refuse(NtStatus::FWP_IN_USE, format!("{of} has filters"));
            }
            Arc::make_mut(&mut transaction.objects.sublayers).remove(&key);
            Ok(())
        })
    }

    /// `FwpmCalloutDeleteByKey0`.
    ///
    /// # Errors
    /// `FWP_CALLOUT_NOT_FOUND`, `FWP_IN_USE`, `FWP_WRONG_SESSION`.
    pub fn delete_callout(&self, key: Guid) -> BfeResult<()> {
        let of = format!("callout {}", Named(key));
        self.change(|transaction| {
            let objects = &transaction.objects;
            let stored = objects.callouts.get(&key);
            let stored = stored.ok_or_else(|| BfeError::new(NtStatus::FWP_CALLOUT_NOT_FOUND, of.clone()))?;
            check::deletable(&of, stored.stored.lifetime, self.id)?;
            let names_it = |f: &StoredFilter| f.compiled.callout().is_some_and(|slot| slot.key() == key);
            if objects.filters.values().any(|f| names_it(f)) {
                return refuse(NtStatus::FWP_IN_USE, format!("{of} has filters"));
            }
            Arc::make_mut(&mut transaction.objects.callouts).remove(&key);
            Ok(())
        })
    }

    /// `FwpmProviderContextDeleteByKey0`.
    ///
    /// # Errors
    /// `FWP_PROVIDER_CONTEXT_NOT_FOUND`, `FWP_IN_USE`, `FWP_WRONG_SESSION`.
    pub fn delete_provider_context(&self, key: Guid) -> BfeResult<()> {
        let of = format!("provider context {}", Named(key));
        self.change(|transaction| {
            let objects = &transaction.objects;
            let not_found = || BfeError::new(FWP_PROVIDER_CONTEXT_NOT_FOUND, of.clone());
            let stored = objects.contexts.get(&key).ok_or_else(not_found)?;
            check::deletable(&of, stored.lifetime, self.id)?;
            if objects.filters.values().any(|f| f.filter.context == FilterContext::Provider(key)) {
                return refuse(NtStatus::FWP_IN_USE, format!("{of} has filters"));
            }
            Arc::make_mut(&mut transaction.objects.contexts).remove(&key);
            Ok(())
        })
    }

    /// `FwpmProviderContextDeleteById0`.
    ///
    /// # Errors
    /// As by key.
    pub fn delete_provider_context_by_id(&self, id: u64) -> BfeResult<()> {
        let objects = self.objects();
        let key = objects.contexts.values().find(|c| c.order == id).map(|c| c.object.key);
        let not_found = || BfeError::new(FWP_PROVIDER_CONTEXT_NOT_FOUND, format!("provider context {id}"));
        self.delete_provider_context(key.ok_or_else(not_found)?)
    }

    /// `FwpmCalloutDeleteById0`.
    ///
    /// # Errors
    /// As by key.
    pub fn delete_callout_by_id(&self, id: u32) -> BfeResult<()> {
        let objects = self.objects();
        let key = objects.callouts.values().find(|c| c.slot.id() == id).map(|c| c.stored.object.key);
        let not_found = || BfeError::new(NtStatus::FWP_CALLOUT_NOT_FOUND, format!("callout {id}"));
        self.delete_callout(key.ok_or_else(not_found)?)
    }

    /// `FwpmFilterDeleteByKey0`.
    ///
    /// # Errors
    /// `FWP_FILTER_NOT_FOUND`, `FWP_WRONG_SESSION`.
    pub fn delete_filter(&self, key: Guid) -> BfeResult<()> {
        self.change(|transaction| {
            let id = transaction.objects.filter_ids.get(&key).copied();
            self.delete_filter_in(transaction, id, &format!("filter {{{key}}}"))
        })
    }

    /// `FwpmFilterDeleteById0`.
    ///
    /// # Errors
    /// `FWP_FILTER_NOT_FOUND`, `FWP_WRONG_SESSION`.
    pub fn delete_filter_by_id(&self, id: u64) -> BfeResult<()> {
        self.change(|transaction| self.delete_filter_in(transaction, Some(id), &format!("filter {id}")))
    }

    fn delete_filter_in(&self, transaction: &mut Transaction, id: Option<u64>, of: &str) -> BfeResult<()> {
        let found = id.and_then(|id| transaction.objects.filters.get(&id)).map(|f| (f.id, f.lifetime));
        let (id, lifetime) = found.ok_or_else(|| BfeError::new(NtStatus::FWP_FILTER_NOT_FOUND, of))?;
        check::deletable(of, lifetime, self.id)?;
        transaction.remove_filter(id);
        Ok(())
    }

    /// `FwpmEngineClose0`: aborts a transaction in progress and, for a dynamic session, deletes what it added.
    ///
    /// # Errors
    /// `FWP_TIMEOUT` when a dynamic session cannot get the store to clean up.
    pub fn close(&self) -> BfeResult<()> {
        // Without the engine there is nothing to close.
        if self.closed.swap(true, Ordering::AcqRel) || self.engine.strong_count() == 0 {
            return Ok(());
        }
        if self.in_transaction() {
            self.abort()?;
        }
        let cleaned = if self.dynamic {
            self.acquire(false).and_then(|()| {
                let mut transaction = self.take()?;
                transaction.remove_session(self.id);
                let result = self.commit_to(transaction);
                self.release();
                result
            })
        } else {
            Ok(())
        };
        self.engine().bfe.state.lock().sessions.remove(&self.id);
        cleaned
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "closing a BFE session");
        }
    }
}

/// The sublayer of a filter, which must exist and live as long.
fn filter_sublayer<'a>(objects: &'a Objects, filter: &Filter, lifetime: Lifetime) -> BfeResult<&'a Stored<Sublayer>> {
    let to = format!("sublayer {}", Named(filter.sublayer));
    let sublayer = objects.sublayers.get(&filter.sublayer).ok_or_else(|| {
        BfeError::new(NtStatus::FWP_SUBLAYER_NOT_FOUND, format!("filter names {to}, which does not exist"))
    })?;
    check::outlives("filter", lifetime, &to, sublayer.lifetime)?;
    Ok(sublayer)
}

/// The callout of a filter, which must exist, live as long, and apply to the filter's layer.
fn filter_callout(
    objects: &Objects,
    filter: &Filter,
    lifetime: Lifetime,
) -> BfeResult<Arc<crate::callout::CalloutSlot>> {
    let to = format!("callout {}", Named(filter.action_key));
    let callout = objects.callouts.get(&filter.action_key).ok_or_else(|| {
        BfeError::new(NtStatus::FWP_CALLOUT_NOT_FOUND, format!("filter names {to}, which does not exist"))
    })?;
    check::outlives("filter", lifetime, &to, callout.stored.lifetime)?;
    if callout.stored.object.layer != filter.layer {
        let applies = Named(callout.stored.object.layer);
        let what = format!("filter is at {}, but {to} applies to {applies}", Named(filter.layer));
        return refuse(NtStatus::FWP_INCOMPATIBLE_LAYER, what);
    }
    Ok(callout.slot.clone())
}
