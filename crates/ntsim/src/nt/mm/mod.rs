//! The memory manager, as far as drivers see it without paging: descriptions of memory, and addresses of routines.

pub mod mdl;
pub mod system;
