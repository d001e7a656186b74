//! Executive support: pool, rundown protection, lists, fast mutexes, resources. IRQL limits: the routines' pages in the
//! WDK documentation.

pub mod pool;
pub mod rundown;

#[cfg(test)]
mod tests;
