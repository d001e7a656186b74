//! Checks beyond what Windows itself makes: what Driver Verifier would add, and more.

pub(crate) mod callback;
pub mod locks;
pub mod low_resources;
