//! Low resources: every fallible import fails, once for each call stack that leads to it.
//!
//! A driver that is exercised again and again under this meets each of its failure paths once; when a run has no new
//! stack left to fail, all have been met. Random failure, as Driver Verifier has it, finds the same paths if one waits
//! long enough.

use crate::cpu;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to fail on one machine, and what has.
#[derive(Debug, Default)]
pub struct LowResources {
    enabled: AtomicBool,
    failed: Mutex<Failed>,
}

#[derive(Debug, Default)]
struct Failed {
    stacks: HashSet<u64>,
    sites: Vec<Site>,
}

/// A failure that was injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// The import that failed.
    pub import: String,
    /// The driver's frames, innermost first.
    pub stack: Vec<cpu::Frame>,
}

impl LowResources {
    /// Begins to fail imports.
    pub fn enable(&self) {
        self.enabled.store(true, Ordering::Release);
    }

    /// Ends it; what has failed stays known.
    pub fn disable(&self) {
        self.enabled.store(false, Ordering::Release);
    }

    /// Whether the import `what` has to fail now: it does when it is reached by a call stack for the first time.
    ///
    /// Every fallible import asks this, inside [`cpu::enter`], with no lock held.
    #[inline]
    pub fn fails(&self, what: &str) -> bool {
        self.enabled.load(Ordering::Relaxed) && self.fails_here(what)
    }

    #[cold]
    fn fails_here(&self, what: &str) -> bool {
        // Only named frames: an address in no module is what a walk without unwind tables makes up.
        let named = |f: &cpu::Frame| f.is_driver() && f.module.is_some();
        let stack: Vec<cpu::Frame> = cpu::stack_here().into_iter().filter(named).collect();
        if stack.is_empty() {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        for frame in &stack {
            (&frame.module, frame.offset).hash(&mut hasher);
        }
        let mut failed = self.failed.lock();
        let new = failed.stacks.insert(hasher.finish());
        if new {
            failed.sites.push(Site { import: what.to_owned(), stack });
        }
        new
    }

    /// The failures injected so far, in order.
    #[must_use]
    pub fn sites(&self) -> Vec<Site> {
        self.failed.lock().sites.clone()
    }
}
