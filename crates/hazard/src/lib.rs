//! Values that are replaced or taken away while others read them: hazard pointers whose fences are the writer's.
//!
//! A reader costs two plain stores and takes no lock. It may also never come back: a machine that stops abandons the stacks
//! of its processors, and what such a stack had announced is taken back for it ([`rewind`]). That is what the crates that
//! do the same on crates.io cannot do.

mod current;
mod readers;
mod slot;

pub use current::Current;
pub use readers::{Mark, mark, rewind};
pub use slot::{Slot, Taken};
