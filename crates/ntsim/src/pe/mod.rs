//! To come: pe.
