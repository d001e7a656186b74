//! BFE for a program: the same calls, from a thread that does not run on a simulated processor.

use super::listing;
use crate::cpu::{self, Bugcheck};
use crate::machine::Machine;
use filter_engine::BfeResult;
use filter_engine::bfe::{DisplayData, Lifetime, Session, SessionOptions};
use nt_abi::Irql;
use sluice_host::listing::{ListedEvent, Listing};
use sluice_host::{Callout, Engine, Filter, FilterEntry, Guid, HostError, HostResult, Provider, Sublayer};
use std::sync::Arc;

/// A session of a program, through the seam that the Windows implementation shares. Dropping it closes the session.
#[derive(Debug)]
pub struct UserSession {
    machine: Arc<Machine>,
    session: Option<Session>,
}

impl UserSession {
    /// `FwpmEngineOpen0`.
    #[must_use]
    pub fn open(machine: &Arc<Machine>, dynamic: bool) -> Self {
        let display = DisplayData { name: None, description: None };
        let options = SessionOptions { display, dynamic, process_id: std::process::id(), ..SessionOptions::default() };
        Self { machine: machine.clone(), session: Some(Session::open(&machine.wfp.engine, options)) }
    }

    /// Makes a call on a simulated processor, where a notifyFn can run.
    fn call<R>(&self, operation: &str, call: impl FnOnce(&Session) -> BfeResult<R>) -> HostResult<R> {
        let Some(session) = &self.session else { return Err(closed(operation)) };
        match cpu::enter(&self.machine, Irql::PASSIVE, || call(session)) {
            Ok(result) => result.map_err(|error| error.into_host_error(operation)),
            Err(bugcheck) => Err(stopped(operation, &bugcheck)),
        }
    }
}

/// `ERROR_GEN_FAILURE`, for a machine that has stopped: on Windows nothing would return.
const ERROR_GEN_FAILURE: u32 = 31;

fn closed(operation: &str) -> HostError {
    let message = "the session is closed".to_owned();
    HostError { operation: operation.to_owned(), code: 6, message }
}

fn stopped(operation: &str, bugcheck: &Bugcheck) -> HostError {
    let message = format!("the machine has stopped: {bugcheck}");
    HostError { operation: operation.to_owned(), code: ERROR_GEN_FAILURE, message }
}

impl Drop for UserSession {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let result = cpu::enter(&self.machine, Irql::PASSIVE, || session.close());
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "closing a BFE session"),
                // A machine that has stopped has nothing to clean up, and closing again would enter it again.
                Err(bugcheck) => {
                    tracing::warn!(%bugcheck, "closing a BFE session");
                    std::mem::forget(session);
                }
            }
        }
    }
}

impl Engine for UserSession {
    fn begin(&mut self) -> HostResult<()> {
        self.call("FwpmTransactionBegin0", |session| session.begin(false))
    }

    fn commit(&mut self) -> HostResult<()> {
        self.call("FwpmTransactionCommit0", Session::commit)
    }

    fn abort(&mut self) -> HostResult<()> {
        self.call("FwpmTransactionAbort0", Session::abort)
    }

    fn add_provider(&mut self, provider: &Provider) -> HostResult<()> {
        self.call("FwpmProviderAdd0", |session| session.add_provider(provider.into()))
    }

    fn add_sublayer(&mut self, sublayer: &Sublayer) -> HostResult<()> {
        self.call("FwpmSubLayerAdd0", |session| session.add_sublayer(sublayer.into()))
    }

    fn add_callout(&mut self, callout: &Callout) -> HostResult<u32> {
        self.call("FwpmCalloutAdd0", |session| session.add_callout(callout.into()))
    }

    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64> {
        self.call("FwpmFilterAdd0", |session| session.add_filter(filter.into()))
    }

    fn delete_provider(&mut self, key: Guid) -> HostResult<()> {
        self.call("FwpmProviderDeleteByKey0", |session| session.delete_provider(key))
    }

    fn delete_sublayer(&mut self, key: Guid) -> HostResult<()> {
        self.call("FwpmSubLayerDeleteByKey0", |session| session.delete_sublayer(key))
    }

    fn delete_callout(&mut self, key: Guid) -> HostResult<()> {
        self.call("FwpmCalloutDeleteByKey0", |session| session.delete_callout(key))
    }

    fn delete_filter(&mut self, key: Guid) -> HostResult<()> {
        self.call("FwpmFilterDeleteByKey0", |session| session.delete_filter(key))
    }

    fn provider(&mut self, key: Guid) -> HostResult<Option<Provider>> {
        let Some(session) = &self.session else { return Err(closed("FwpmProviderGetByKey0")) };
        Ok(session.objects().providers.get(&key).map(listing::provider))
    }

    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>> {
        let Some(session) = &self.session else { return Err(closed("FwpmSubLayerGetByKey0")) };
        Ok(session.objects().sublayers.get(&key).map(listing::sublayer))
    }

    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>> {
        let Some(session) = &self.session else { return Err(closed("FwpmCalloutGetByKey0")) };
        Ok(session.objects().callouts.get(&key).map(|callout| listing::callout(&callout.stored)))
    }

    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>> {
        let Some(session) = &self.session else { return Err(closed("FwpmFilterEnum0")) };
        let objects = session.objects();
        let wanted = objects
            .filters
            .values()
            .filter(|f| f.lifetime != Lifetime::BootTime && (provider.is_none() || f.filter.provider == provider));
        Ok(wanted.map(|filter| listing::entry(filter)).collect())
    }

    fn boot_filters(&mut self, layer: Guid) -> HostResult<Vec<FilterEntry>> {
        let Some(session) = &self.session else { return Err(closed("FwpmFilterEnum0")) };
        let objects = session.objects();
        let wanted = objects.filters.values().filter(|f| f.lifetime == Lifetime::BootTime && f.filter.layer == layer);
        Ok(wanted.map(|filter| listing::entry(filter)).collect())
    }

    fn list(&mut self) -> HostResult<Listing> {
        let Some(session) = &self.session else { return Err(closed("FwpmFilterEnum0")) };
        Ok(listing::listing(&self.machine.wfp.engine, &session.objects()))
    }

    fn net_events(&mut self) -> HostResult<Vec<ListedEvent>> {
        Ok(self.machine.wfp.engine.events.to_vec().iter().map(listing::event).collect())
    }

    fn options(&mut self) -> HostResult<Vec<(u32, u32)>> {
        let events = &self.machine.wfp.engine.events;
        // FWPM_NET_EVENT_KEYWORD_CLASSIFY_ALLOW. The other options have no counterpart here.
        let keywords = if events.collects_allow() { 0x10 } else { 0 };
        Ok(vec![(0, events.collects().into()), (1, keywords)])
    }
}
