//! What is compared at once.
//!
//! x86-64 has SSE2 in every processor, and kernel code may use it there; the compiler does not come upon the few
//! instructions this takes by itself. This module, with its parts, is the crate's only one with `unsafe` in it.

mod letters;
mod signed;
pub(super) mod six;

pub(super) use letters::Sixteen;
pub(super) use signed::{Compared, compared};
