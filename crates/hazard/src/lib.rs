//! Values that are replaced or removed while others read them: hazard pointers whose fences are on the writer's side.
//!
//! A reader costs two plain stores and takes no lock. It may also never return: a machine that stops abandons the
//! stacks of its processors, and the announcements of such a stack are withdrawn for it ([`rewind`]). Other hazard
//! pointer crates on crates.io cannot do that.

mod current;
mod readers;
mod slot;

pub use current::Current;
pub use readers::{Mark, mark, rewind};
pub use slot::{Slot, Taken};
