//! The network stack under the filter engine.
//!
//! [`carrier::Carrier`] puts the orders of the [`shim`] and the real filter engine ([`engine::EngineClassifier`]) together
//! and adds what drivers ask of the stack: it carries what they inject. It knows nothing of devices or files:
//! [`crate::net`] feeds it from TUN devices, [`crate::replay`] from captures.

pub mod carrier;
#[cfg(test)]
pub(crate) mod carrier_tests;
pub mod engine;
mod mailbox;
mod marks;
mod requests;
mod show;
pub mod verdicts;
