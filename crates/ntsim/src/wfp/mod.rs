//! The Windows Filtering Platform.
//!
//! [`bfe`] keeps the management objects and hands the [`engine`] a snapshot of the filters; the [`engine`] classifies
//! and arbitrates, calls [`callout`]s with what their [`flow`]s carry, and leaves [`netevent`]s, which [`xml`] writes as
//! `netsh wfp` does. [`fwps`] and [`fwpm`] are the two sides of fwpkclnt.sys as drivers import them.

pub mod bfe;
pub mod callout;
pub mod condition;
pub mod engine;
mod error;
pub mod flow;
pub mod fwpm;
pub mod fwps;
mod handle;
pub mod inject;
pub mod layers;
pub mod names;
pub mod netevent;
pub mod pend;
mod raw;
pub(crate) mod readers;
pub mod redirect;
pub mod security;
pub mod stack;
#[cfg(test)]
mod tests;
pub mod token;
pub mod xml;

pub use bfe::UserSession;
pub use error::{BfeError, BfeResult};

use arc_swap::ArcSwap;
use engine::{Current, Snapshot};
use layers::{LayerTable, WindowsVersion};
use std::fmt;
use std::sync::Arc;

/// The platform's state on one machine.
pub struct Platform {
    table: &'static LayerTable,
    /// The policy that is classified against.
    snapshot: Current<Snapshot>,
    /// The Base Filtering Engine's store.
    pub bfe: bfe::Bfe,
    /// The callouts drivers have registered.
    pub callouts: callout::Callouts,
    /// The data flows.
    pub flows: flow::Flows,
    /// The net events.
    pub events: netevent::EventStore,
    /// Injected packets and the handles they are injected with.
    pub injections: inject::Injections,
    /// Operations of ALE that callouts may pend.
    pub operations: pend::Operations,
    /// Redirect handles.
    pub redirects: redirect::Redirects,
    classify_handles: pend::ClassifyHandles,
    clients: fwpm::Clients,
    stack: ArcSwap<Box<dyn stack::Stack>>,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("version", &self.table.version())
            .field("flows", &self.flows.len())
            .finish_non_exhaustive()
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::new()
    }
}

impl Platform {
    /// A platform with the built-in layers and sublayers and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::of(WindowsVersion::default())
    }

    /// A platform as a version of Windows has it.
    #[must_use]
    pub fn of(version: WindowsVersion) -> Self {
        let table = LayerTable::of(version);
        Self {
            table,
            snapshot: Current::new(Snapshot::empty(table)),
            bfe: bfe::Bfe::default(),
            callouts: callout::Callouts::default(),
            flows: flow::Flows::default(),
            events: netevent::EventStore::default(),
            injections: inject::Injections::default(),
            operations: pend::Operations::default(),
            redirects: redirect::Redirects::default(),
            classify_handles: pend::ClassifyHandles::default(),
            clients: fwpm::Clients::default(),
            stack: ArcSwap::from_pointee(Box::new(stack::NoStack)),
        }
    }

    /// Puts a network stack under the engine, in place of the one before.
    pub fn set_stack(&self, stack: Box<dyn stack::Stack>) {
        self.stack.store(Arc::new(stack));
    }

    /// What drivers have taken through fwpkclnt.sys and not given back, each kind with its number; none means none.
    #[must_use]
    pub fn leaks(&self) -> Vec<(&'static str, usize)> {
        let registered = self.callouts.registered().len();
        let contexts = self.flows.context_count();
        let own = [
            ("registered callouts", registered),
            ("flow contexts", contexts),
            ("injection handles", self.injections.handle_count()),
            ("redirect handles", self.redirects.count()),
            ("classify handles", self.classify_handles.len()),
            ("pended operations", self.operations.pended()),
        ];
        self.clients.open().into_iter().chain(own).filter(|(_, count)| *count != 0).collect()
    }

    /// The layers.
    #[must_use]
    pub fn layers(&self) -> &'static LayerTable {
        self.table
    }
}

/// Whether the import `what` has to fail for want of memory, by the verifier's will.
fn scarce(what: &str) -> bool {
    crate::cpu::with_machine(|machine| machine.low_resources.fails(what))
}
