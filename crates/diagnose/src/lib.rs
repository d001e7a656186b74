//! A machine's Windows Filtering Platform as records, wherever they come from.
//!
//! [`read`] takes the files of `netsh wfp show state`, `show filters`, `show netevents` and `netsh wfp capture`, of any
//! version of Windows and any size; [`live`] asks an engine through the seam. [`record`] is what they find, and
//! [`platform`] holds the objects of one machine. [`query`] chooses among them as netsh does, and [`join`]
//! finds the filter that an event names. [`explain`] says why a flow passes or not, and
//! [`neighbours`] what is wrong with the filters of a machine.
#![forbid(unsafe_code)]

pub mod explain;
pub mod join;
pub mod key;
pub mod live;
pub mod neighbours;
pub mod platform;
pub mod query;
pub mod read;
pub mod record;
pub mod traffic;

pub use filter_engine::Verdict;
pub use filter_engine::explain::Answer;
pub use filter_engine::security::Sid;
pub use key::Key;
pub use platform::Platform;
