//! Turns packets into the classify calls that Windows' network stack makes, in Windows' order.
//!
//! [`stack::Stack`] holds the order, the flows and as much of TCP as that takes; it calls a [`classifier::Classifier`]
//! and returns the decision about each packet. It does not depend on devices, files, drivers or the filter engine: the
//! caller supplies packets and a classifier.
#![forbid(unsafe_code)]

pub mod classifier;
pub mod coalesce;
mod extension;
pub mod flow;
pub mod fragment;
pub mod layer;
pub mod packet;
pub mod reply;
pub mod rewrite;
pub mod stack;
pub mod tcp;
