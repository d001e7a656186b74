//! To come: net.
