//! Checks beyond what Windows itself makes: what Driver Verifier would add, and more.

pub mod low_resources;
