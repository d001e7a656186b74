//! Executive support: pool, rundown protection, lists, fast mutexes, resources. IRQL limits: the routines' pages in the
//! WDK documentation.

pub mod callback;
pub mod interlocked;
pub mod lookaside;
pub mod mutex;
pub mod pool;
pub mod pushlock;
pub mod resource;
pub mod rundown;
pub mod slist;
pub mod uuid;

#[cfg(test)]
mod tests;
