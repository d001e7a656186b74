//! A machine's Windows Filtering Platform as records, wherever they come from.
//!
//! [`read`] takes the files of `netsh wfp show state`, `show filters`, `show netevents` and `netsh wfp capture`, of any
//! version of Windows and any size; [`record`] is what it finds in them.
#![forbid(unsafe_code)]

pub mod key;
pub mod read;
pub mod record;

pub use key::Key;
