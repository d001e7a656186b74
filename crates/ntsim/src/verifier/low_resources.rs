//! Low resources: every fallible import fails, once for each call stack that leads to it.
//!
//! [`survey`] runs a driver again and again. In each run only the first call stack that has not failed yet fails, so
//! that what goes wrong has one cause; when a run has nothing left to fail, every failure path that it can reach has
//! been taken. Random failures, as Driver Verifier makes them, take them too, given enough time.

use crate::cpu::{self, Bugcheck, Frame};
use crate::machine::{Config, Machine};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What will fail on one machine, and what has.
#[derive(Debug, Default)]
pub struct LowResources {
    enabled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Hashes of the stacks that have failed, here or in earlier runs.
    known: HashSet<u64>,
    /// What failed here.
    sites: Vec<Site>,
    /// How many may fail here.
    left: usize,
}

/// A failure that was injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// The import that failed.
    pub import: String,
    /// The driver's frames, innermost first.
    pub stack: Vec<Frame>,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.import)?;
        self.stack.iter().try_for_each(|frame| write!(f, " < {frame}"))
    }
}

impl LowResources {
    /// Lets up to `count` imports fail from now on, each reached by another call stack.
    pub fn enable(&self, count: usize) {
        self.state.lock().left = count;
        self.enabled.store(true, Ordering::Release);
    }

    /// Stops failing imports; what has failed stays recorded.
    pub fn disable(&self) {
        self.enabled.store(false, Ordering::Release);
    }

    /// Whether the import `what` has to fail now: it does when it is reached by a call stack for the first time.
    ///
    /// Every fallible import calls this, inside [`cpu::enter`], with no lock held.
    #[inline]
    pub fn fails(&self, what: &str) -> bool {
        self.enabled.load(Ordering::Relaxed) && self.fails_here(what)
    }

    #[cold]
    fn fails_here(&self, what: &str) -> bool {
        if self.state.lock().left == 0 {
            return false;
        }
        // Only named frames: a walk without unwind tables can make up addresses in no module.
        let named = |f: &Frame| f.is_driver() && f.module.is_some();
        let stack: Vec<Frame> = cpu::stack_here().into_iter().filter(named).collect();
        if stack.is_empty() {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        for frame in &stack {
            (&frame.module, frame.offset).hash(&mut hasher);
        }
        let mut state = self.state.lock();
        let fails = state.left != 0 && state.known.insert(hasher.finish());
        if fails {
            state.left -= 1;
            state.sites.push(Site { import: what.to_owned(), stack });
        }
        fails
    }

    /// The failures injected so far, in order.
    #[must_use]
    pub fn sites(&self) -> Vec<Site> {
        self.state.lock().sites.clone()
    }
}

/// The result of a survey.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Survey {
    /// Every call stack that failed once.
    pub failed: Vec<Site>,
    /// The failures after which something went wrong, and what.
    pub casualties: Vec<(Site, String)>,
}

impl Survey {
    /// How many call stacks failed once.
    #[must_use]
    pub fn stacks(&self) -> usize {
        self.failed.len()
    }

    /// How many of them the driver survived.
    #[must_use]
    pub fn survived(&self) -> usize {
        self.failed.len() - self.casualties.len()
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} call stacks failed once, {} survived", self.stacks(), self.survived())?;
        self.casualties.iter().try_for_each(|(site, what)| write!(f, "\n{site}: {what}"))
    }
}

/// Runs `run` on fresh machines until every call stack has failed once.
///
/// `run` loads the driver, exercises it, and unloads it. It returns what went wrong in the driver beyond the injected
/// failure: a leak, a bugcheck. A load that fails is not wrong.
///
/// # Errors
/// What goes wrong in a run without an injected failure: the driver, or `run`, is already faulty.
pub fn survey(config: &Config, mut run: impl FnMut(&Arc<Machine>) -> Result<(), String>) -> Result<Survey, String> {
    let mut known = HashSet::new();
    let mut survey = Survey::default();
    loop {
        let machine = Machine::with(config.clone());
        machine.low_resources.state.lock().known = std::mem::take(&mut known);
        machine.low_resources.enable(1);
        let mut result = run(&machine);
        machine.low_resources.disable();
        if let Some(stopped) = machine.stopped() {
            result = Err(Bugcheck::to_string(&stopped));
        }
        let mut state = machine.low_resources.state.lock();
        known = std::mem::take(&mut state.known);
        match (state.sites.pop(), result) {
            (None, Ok(())) => return Ok(survey),
            (None, Err(what)) => return Err(what),
            (Some(site), result) => {
                if let Err(what) = result {
                    survey.casualties.push((site.clone(), what));
                }
                survey.failed.push(site);
            }
        }
    }
}
