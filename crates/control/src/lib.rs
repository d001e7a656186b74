//! What `sluice` does to a machine: install, load a policy, look, remove, over one seam ([`Host`]) with two real
//! implementations: Windows itself and a machine simulated by `ntsim`.

pub mod host;

pub use host::Host;
