//! fwpkclnt.sys: the Windows Filtering Platform as drivers import it, around the filter engine.
//!
//! [`fwps`] and [`fwpm`] are its two sides; [`inject`], [`pend`] and [`redirect`] keep what drivers take through the
//! first, and [`stack`] is what they act on. [`UserSession`] is BFE for a program that does not run on a simulated
//! processor.

pub mod fwpm;
pub mod fwps;
mod handle;
pub mod inject;
mod listing;
pub mod pend;
pub mod redirect;
pub mod stack;
#[cfg(test)]
mod tests;
mod user;

pub use user::UserSession;

use crate::cpu;
use arc_swap::ArcSwap;
use filter_engine::layers::WindowsVersion;
use filter_engine::{Classify, FilterEngine, Outcome};
use nt_abi::fwp::RedirectRequest;
use pend::ClassifyContext;
use std::fmt;
use std::sync::Arc;

/// The platform's state on one machine.
pub struct Platform {
    /// The filter engine. The first field, so that it is dropped before the sessions that drivers left open.
    pub engine: Arc<FilterEngine>,
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
        f.debug_struct("Platform").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::new()
    }
}

impl Platform {
    /// A platform with only the built-in layers and sublayers.
    #[must_use]
    pub fn new() -> Self {
        Self::of(WindowsVersion::default())
    }

    /// The platform of a version of Windows.
    #[must_use]
    pub fn of(version: WindowsVersion) -> Self {
        Self {
            engine: Arc::new(FilterEngine::new(version, leave_if_stopped)),
            injections: inject::Injections::default(),
            operations: pend::Operations::default(),
            redirects: redirect::Redirects::default(),
            classify_handles: pend::ClassifyHandles::default(),
            clients: fwpm::Clients::default(),
            stack: ArcSwap::from_pointee(Box::new(stack::NoStack)),
        }
    }

    /// The platform of the same machine after it was switched off and on; BFE is not running.
    pub(crate) fn restarted(&self) -> Self {
        let engine = self.engine.restarted().expect("what one engine has accepted another accepts");
        Self { engine, ..Self::of(self.engine.layers().version()) }
    }

    /// Classifies a request whose layer data callouts may change (ALE_CONNECT_REDIRECT, ALE_BIND_REDIRECT) and which
    /// they may pend: `token` is the stack's own number for it. For any other indication `token` is 0 and there is no
    /// layer data.
    ///
    /// Must run on a simulated processor, at DISPATCH_LEVEL or below.
    pub fn classify(&self, c: &Classify<'_>, token: u64, redirect: Option<Box<RedirectRequest>>) -> Outcome {
        let context = ClassifyContext::new(c.layer, token, redirect);
        self.engine.classify(&Classify { request: Some(&context), ..*c })
    }

    /// Sets the network stack under the engine, replacing the previous one.
    pub fn set_stack(&self, stack: Box<dyn stack::Stack>) {
        self.stack.store(Arc::new(stack));
    }

    /// What drivers have taken through fwpkclnt.sys and not returned, by kind with its number; kinds without any are
    /// left out.
    #[must_use]
    pub fn leaks(&self) -> Vec<(&'static str, usize)> {
        let registered = self.engine.callouts.registered().len();
        let contexts = self.engine.flows.context_count();
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
}

/// Abandons a wait of the engine when the machine of this processor has stopped.
fn leave_if_stopped() {
    if cpu::inside() {
        cpu::leave_if_stopped();
    }
}

/// Whether the verifier wants the import `what` to fail for lack of memory.
fn scarce(what: &str) -> bool {
    cpu::with_machine(|machine| machine.low_resources.fails(what))
}
