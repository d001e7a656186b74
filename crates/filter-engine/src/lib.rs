//! The filter engine of the Windows Filtering Platform, and the Base Filtering Engine that manages it.
//!
//! [`bfe`] keeps the management objects and gives the engine a snapshot of the filters; [`FilterEngine::classify`]
//! evaluates them and arbitrates, calls [`callout`]s with the contexts of their [`flow`]s, and records [`netevent`]s,
//! which [`xml`] writes as `netsh wfp` does. [`explain`] arbitrates with
//! less than full knowledge. A callout is a [`callout::CalloutFunctions`], whose implementation calls
//! the driver. Nothing else here depends on drivers or on a machine.
#![forbid(unsafe_code)]

mod arbitrate;
pub mod bfe;
pub mod callout;
mod classify;
pub mod condition;
pub mod error;
pub mod explain;
mod filter;
pub mod flow;
pub mod layers;
pub mod marshal;
pub mod names;
pub mod netevent;
pub mod offload;
mod raw;
pub mod security;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod token;
pub mod xml;

pub use arbitrate::{Outcome, StreamAction, StreamOutcome, TerminatingFilter, Verdict};
pub use classify::{Classify, ClassifyRequest, LayerData};
pub use error::{BfeError, BfeResult};
pub use filter::CompiledFilter;

use hazard::Current;
use layers::{LayerTable, WindowsVersion};
use snapshot::Snapshot;
use std::fmt;

/// The filter engine of one machine.
pub struct FilterEngine {
    table: &'static LayerTable,
    /// The policy in force.
    snapshot: Current<Snapshot>,
    /// The Base Filtering Engine's store.
    pub bfe: bfe::Bfe,
    /// The callouts.
    pub callouts: callout::Callouts,
    /// The data flows.
    pub flows: flow::Flows,
    /// The net events.
    pub events: netevent::EventStore,
    /// Called again and again while a call waits.
    pause: fn(),
}

impl fmt::Debug for FilterEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterEngine")
            .field("version", &self.table.version())
            .field("flows", &self.flows.len())
            .finish_non_exhaustive()
    }
}

impl Default for FilterEngine {
    fn default() -> Self {
        Self::new(WindowsVersion::default(), || {})
    }
}

impl FilterEngine {
    /// The engine of a version of Windows, with only the built-in layers and sublayers.
    ///
    /// `pause` is called at least every 20 ms while a call waits for another session or for a callout that is running;
    /// no lock is held then. It may not return: a machine that has stopped abandons the call there.
    #[must_use]
    pub fn new(version: WindowsVersion, pause: fn()) -> Self {
        let table = LayerTable::of(version);
        Self {
            table,
            snapshot: Current::new(Snapshot::empty(table)),
            bfe: bfe::Bfe::default(),
            callouts: callout::Callouts::default(),
            flows: flow::Flows::default(),
            events: netevent::EventStore::default(),
            pause,
        }
    }

    /// The layers.
    #[must_use]
    pub fn layers(&self) -> &'static LayerTable {
        self.table
    }
}
