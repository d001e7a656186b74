//! The `ntsim` command.
fn main() {}
