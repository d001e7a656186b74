//! To come: shim.
