//! Processes and threads.

pub mod notify;
pub mod process;
pub mod query;
pub mod thread;
