//! A machine's start as the filter engine sees it: boot-time filters until BFE runs, persistent ones from then on.
//!
//! Source: "WFP Operation" and "Object Management" (win32 documentation). The change is atomic: a provider that has both
//! kinds is never without. Not modelled: that BFE skips the persistent objects of a provider whose service is not
//! auto-start.

use super::objects::{Lifetime, Objects};
use super::session::{Session, SessionOptions};
use super::transaction::layer_filters;
use crate::FilterEngine;
use crate::error::BfeResult;
use crate::layers::LayerId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl FilterEngine {
    /// The engine of the same machine after it was switched off and on: persistent objects and boot-time filters are
    /// there, and BFE is not running.
    ///
    /// # Errors
    /// An object that was added before is refused now: a fault of this crate.
    pub fn restarted(&self) -> BfeResult<Arc<Self>> {
        let engine = Arc::new(Self::new(self.table.version(), self.pause));
        engine.bfe.running.store(false, Ordering::Release);
        let session = Session::open(&engine, SessionOptions::default());
        session.begin(false)?;
        restore(&session, &self.bfe.objects())?;
        session.commit()?;
        session.close()?;
        Ok(engine)
    }

    /// BFE stops. Its filters stay in force; it takes no calls.
    pub fn stop_bfe(&self) {
        self.bfe.running.store(false, Ordering::Release);
    }

    /// BFE has started: its filters replace the boot-time filters, in one step.
    ///
    /// # Errors
    /// Another session does not end its transaction.
    pub fn start_bfe(self: &Arc<Self>) -> BfeResult<()> {
        let session = Session::open(self, SessionOptions::default());
        session.begin(false)?;
        self.bfe.running.store(true, Ordering::Release);
        let objects = self.bfe.objects();
        let layers: BTreeSet<LayerId> = objects.filters.values().map(|filter| filter.layer).collect();
        let layers = layers.into_iter().map(|layer| (layer, layer_filters(&objects, layer, true)));
        let new = self.snapshot.read(|snapshot| snapshot.with(layers));
        self.snapshot.store(new);
        session.abort()?;
        session.close()
    }
}

/// Adds what outlives a restart, referred to before referring.
fn restore(session: &Session, objects: &Objects) -> BfeResult<()> {
    let stays = |lifetime| matches!(lifetime, Lifetime::Persistent | Lifetime::BootTime);
    for stored in objects.providers.values().filter(|stored| stays(stored.lifetime)) {
        session.add_provider(stored.object.clone())?;
    }
    for stored in objects.sublayers.values().filter(|stored| stays(stored.lifetime)) {
        session.add_sublayer(stored.object.clone())?;
    }
    for callout in objects.callouts.values().filter(|callout| stays(callout.stored.lifetime)) {
        session.add_callout(callout.stored.object.clone())?;
    }
    for stored in objects.contexts.values().filter(|stored| stays(stored.lifetime)) {
        session.add_provider_context(stored.object.clone())?;
    }
    for filter in objects.filters.values().filter(|filter| stays(filter.lifetime)) {
        session.add_filter(filter.filter.clone())?;
    }
    Ok(())
}
