//! Kernel core: IRQL, spin locks, dispatcher objects, DPCs, timers, time. IRQL limits: the routines' pages in the WDK
//! documentation.

pub mod apc;
pub mod dispatcher;
pub mod dpc;
pub mod irql;
pub mod spinlock;
pub mod stack;
pub mod system;
pub mod time;
pub mod timer;

#[cfg(test)]
mod tests;
