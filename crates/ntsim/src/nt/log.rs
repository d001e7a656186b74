//! What drivers print to the debugger.

use parking_lot::Mutex;
use std::collections::VecDeque;

/// The most lines kept; older ones are dropped.
const MOST: usize = 4096;

/// The debugger's log of one machine.
#[derive(Debug, Default)]
pub struct DebugLog {
    lines: Mutex<VecDeque<String>>,
}

impl DebugLog {
    /// Adds a line, and passes it to this program's tracing.
    pub fn write(&self, text: &str) {
        let line = text.trim_end_matches(['\r', '\n']);
        tracing::info!(target: "driver", "{line}");
        let mut lines = self.lines.lock();
        if lines.len() == MOST {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().iter().cloned().collect()
    }
}
