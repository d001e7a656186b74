//! Passing a capture through the simulated stack.

pub mod capture;
pub mod link;
