//! Simulated processors: what a thread carries while it runs driver code.
