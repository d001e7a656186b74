//! What a driver asks of the stack, done: through the real filter engine, with callouts that call the exports.

mod bed;
mod network;
mod pending;
mod redirect;
mod streams;
mod talk;
mod transport;
