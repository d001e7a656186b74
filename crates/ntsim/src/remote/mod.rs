//! To come: remote.
