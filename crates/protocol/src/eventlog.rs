//! The events of the service in the Windows event log: source [`SOURCE`] in the log Application.

/// The source's name.
pub const SOURCE: &str = "Sluicegate";

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its EventID.
    pub id: u32,
    /// Its level, as the log shows it: 2 error, 3 warning, 4 information.
    pub level: u8,
    /// What it is about.
    pub about: &'static str,
}

/// A connection or packet was blocked.
pub const BLOCKED: Entry = Entry { id: 1, level: 3, about: "a decision that blocks" };
/// One was permitted.
pub const PERMITTED: Entry = Entry { id: 2, level: 4, about: "a decision that permits" };
/// Decisions are missing here.
pub const MISSING: Entry = Entry { id: 3, level: 3, about: "decisions that are missing, and how many" };
/// A policy was put in force.
pub const POLICY: Entry = Entry { id: 4, level: 4, about: "a policy was put in force, and why" };
/// Something does not work.
pub const TROUBLE: Entry = Entry { id: 5, level: 2, about: "something does not work; it is tried again" };
/// The kept policy was not put in force.
pub const NOT_RESTORED: Entry =
    Entry { id: 6, level: 2, about: "the kept policy was not put in force when the driver was loaded" };

/// All of them, by their ids.
pub const ENTRIES: [Entry; 6] = [BLOCKED, PERMITTED, MISSING, POLICY, TROUBLE, NOT_RESTORED];
/// The text of each: its first string.
pub const MESSAGE: &str = "%1\r\n";
