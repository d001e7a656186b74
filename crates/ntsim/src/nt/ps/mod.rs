//! Processes and threads.

pub mod notify;
pub mod process;
pub mod thread;
