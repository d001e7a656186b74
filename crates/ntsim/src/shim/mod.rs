//! Turns packets into the classify calls that Windows' network stack makes, in Windows' order.
//!
//! [`stack::Stack`] holds the order, the flows and as much of TCP as that takes; it asks a [`classifier::Classifier`]
//! and gives back what becomes of each packet. [`carrier::Carrier`] puts the two together and adds what drivers ask of the
//! stack: it carries what they inject. It knows nothing of devices or files: [`crate::net`] feeds it from TUN devices,
//! [`crate::replay`] from captures.

pub mod carrier;
#[cfg(test)]
pub(crate) mod carrier_tests;
pub mod classifier;
pub mod engine;
pub mod flow;
pub mod fragment;
pub mod layer;
mod mailbox;
mod marks;
pub mod packet;
pub mod reply;
mod requests;
mod rewrite;
mod show;
pub mod stack;
pub mod tcp;
pub mod verdicts;
