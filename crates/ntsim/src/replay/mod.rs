//! To come: replay.
