//! Drivers' requests to the stack, through the real filter engine, with callouts that call the exports.

#[path = "../../../../shim/src/fragment/cut.rs"]
mod cut;
mod injector;
mod network;
mod pending;
mod random;
pub(crate) mod redirect;
pub(crate) mod rig;
pub(crate) mod streams;
mod talk;
mod transport;
