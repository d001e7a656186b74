//! The network stack under the filter engine.
//!
//! [`carrier::Carrier`] joins the [`shim`]'s order of calls with the real filter engine ([`engine::EngineClassifier`])
//! and serves drivers' requests to the stack: it carries what they inject. It knows nothing of devices or files:
//! [`crate::net`] feeds it from TUN devices, [`crate::replay`] from captures.

pub mod carrier;
#[cfg(test)]
pub(crate) mod carrier_tests;
pub mod engine;
mod injected;
pub(crate) mod interface;
mod mailbox;
mod requests;
mod show;
pub mod verdicts;
