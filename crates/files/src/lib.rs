//! Files that a person names on a command line or in a policy.
//!
//! [`read`](mod@read) takes regular files of a stated size and refuses everything else at once: a pipe would make the program
//! wait, a device has no end, and a file of gigabytes takes the machine's memory. A person who means a pipe says `-`.
//! [`write`](mod@write) replaces a regular file by rename, so that nobody sees half of it, streams into what is not one, and
//! never touches a file that was read.
#![forbid(unsafe_code)]

mod read;
mod rotate;
mod write;

pub use read::{STDIN, open, read, read_or_stdin};
pub use rotate::{Lines, Written};
pub use write::{STDOUT, is_stdout, not_over, replace};
