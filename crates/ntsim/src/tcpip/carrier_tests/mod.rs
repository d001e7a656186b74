//! Drivers' requests to the stack, through the real filter engine, with callouts that call the exports.

pub(crate) mod bed;
#[path = "../../../../shim/src/fragment/cut.rs"]
mod cut;
mod injector;
mod network;
mod pending;
mod random;
pub(crate) mod redirect;
pub(crate) mod streams;
mod talk;
mod transport;
