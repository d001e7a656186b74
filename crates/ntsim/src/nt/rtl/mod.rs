//! The run-time library: memory, strings, printing, versions. IRQL limits: the routines' pages in the WDK
//! documentation.

pub mod avl;
pub mod calendar;
pub mod convert;
pub mod copy;
pub mod exception;
pub mod format;
pub mod memory;
pub mod print;
pub mod random;
pub mod runtime;
pub mod string;

#[cfg(test)]
mod tests;
