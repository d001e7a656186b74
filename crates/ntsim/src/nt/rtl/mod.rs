//! The run-time library: memory, strings, printing, versions. IRQL limits: the routines' pages in the WDK documentation.

pub mod format;
pub mod memory;
pub mod print;
pub mod runtime;
pub mod string;

#[cfg(test)]
mod tests;
