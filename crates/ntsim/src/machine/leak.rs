//! What a driver left behind.

use crate::nt::io::{IrpId, IrpKind};
use crate::nt::pool::Block;
use core::fmt;
use serde::Serialize;

/// What a driver still had when it was unloaded: nothing, if it is correct.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeakReport {
    /// The service's name.
    pub driver: String,
    /// Pool blocks allocated by its code and not freed.
    pub pool: Vec<Block>,
    /// Devices not deleted.
    pub devices: Vec<String>,
    /// Symbolic links to its devices, or to deleted devices.
    pub links: Vec<String>,
    /// Requests not completed.
    pub requests: Vec<(IrpId, IrpKind)>,
    /// System threads that still run.
    pub threads: usize,
    /// What other rooms found, as text: callouts, flow contexts, timers, process notifications.
    pub others: Vec<String>,
}

impl LeakReport {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lines().is_empty()
    }

    /// One line for each thing left behind.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.pool.iter().map(|b| {
            format!("{} bytes of {:?} pool, tag '{}', allocated by {}", b.size, b.kind, b.tag, b.allocated_by)
        }));
        lines.extend(self.devices.iter().map(|name| format!("device {name}")));
        lines.extend(self.links.iter().map(|name| format!("symbolic link {name}")));
        lines.extend(self.requests.iter().map(|(id, kind)| format!("request {}, {kind:?}, not completed", id.0)));
        if self.threads != 0 {
            lines.push(format!("{} system threads still running", self.threads));
        }
        lines.extend(self.others.iter().cloned());
        lines
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines().as_slice() {
            [] => f.write_str("nothing"),
            lines => f.write_str(&lines.join("; ")),
        }
    }
}
