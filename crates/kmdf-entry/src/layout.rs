//! The framework's structures have the layout that KMDF 1.15 expects, checked when this is compiled.
