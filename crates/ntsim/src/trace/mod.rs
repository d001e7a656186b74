//! Tracing: every call across the import boundary, both ways.
//!
//! A machine whose [`Hooks`] have a [`Tracer`] gives its drivers hooked gates ([`crate::pe::gate`]) for the imports
//! that the tracer wants; every other import, and every driver of every other machine, keeps the plain gate, so that
//! tracing costs nothing where it is off. Calls into the driver (classifyFn, notifyFn, flowDeleteFn, DPCs, EvtIo*, ...)
//! are reported where they are made, by [`crate::verifier::callback::enter`] through [`entered`] and [`left`]; while no
//! machine of the process traces, that costs one load and a branch.

mod record;
pub(crate) mod signature;
pub mod times;
mod value;

pub use record::Form;
pub(crate) use record::{Argument, Callback};

use crate::cpu;
use crate::pe::gate::Description;
use parking_lot::Mutex;
use record::Sink;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether any machine of this process traces.
static ON: AtomicBool = AtomicBool::new(false);

/// What is between a machine's drivers and their imports, besides the plain gates.
#[derive(Debug, Default)]
pub struct Hooks {
    tracer: OnceLock<Tracer>,
    scheduled: AtomicBool,
    then: OnceLock<Then>,
}

/// What is to be done when a function has returned, once.
struct Then {
    function: String,
    what: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Then").field("function", &self.function).finish_non_exhaustive()
    }
}

impl Hooks {
    /// Starts tracing. Drivers that are already loaded keep their plain gates, so call this before the first load.
    ///
    /// # Errors
    /// `tracer`, when the machine already has one.
    pub fn trace(&self, tracer: Tracer) -> Result<(), Tracer> {
        self.tracer.set(tracer)?;
        ON.store(true, Ordering::Release);
        Ok(())
    }

    /// Lets a [`Schedule`](crate::cpu::baton::Schedule) decide who runs, at every call of a driver that is loaded
    /// from now on. The clock that drivers read goes on by their readings alone.
    pub fn schedule(&self) {
        self.scheduled.store(true, Ordering::Release);
    }

    /// Does this once, when a driver that is loaded from now on has called a function for the first time, before the
    /// driver goes on: whatever others can do just then. It runs on the driver's thread, and must not use the machine
    /// there; other threads may, and it may wait for them.
    ///
    /// # Panics
    /// The second time on one machine.
    pub fn after(&self, function: &str, what: impl FnOnce() + Send + 'static) {
        let then = Then { function: function.to_owned(), what: Mutex::new(Some(Box::new(what))) };
        assert!(self.then.set(then).is_ok(), "there is one such moment");
    }

    /// Whether a schedule decides who runs.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.scheduled.load(Ordering::Acquire)
    }

    /// The tracer.
    #[must_use]
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.get()
    }

    /// Whether an import gets a hooked gate.
    pub(crate) fn wants(&self, module: &str, name: &str) -> bool {
        self.is_scheduled()
            || self.then.get().is_some_and(|then| then.function == name)
            || self.tracer.get().is_some_and(|tracer| tracer.wants(module, name))
    }
}

/// Records calls.
#[derive(Debug)]
pub struct Tracer {
    sink: Sink,
    only: Vec<wildmatch::WildMatch>,
}

impl Tracer {
    /// A tracer that writes to `out` what matches one of the patterns of `only`, or everything when there is none. A
    /// pattern (`*` and `?`, case-insensitive) is compared with `Function` and with `module!Function`.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, form: Form, only: &[String]) -> Self {
        let only = only.iter().map(|pattern| wildmatch::WildMatch::new_case_insensitive(pattern)).collect();
        Self { sink: Sink::new(out, form), only }
    }

    fn wants(&self, module: &str, name: &str) -> bool {
        let either =
            |pattern: &wildmatch::WildMatch| pattern.matches(name) || pattern.matches(&format!("{module}!{name}"));
        self.only.is_empty() || self.only.iter().any(either)
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The first error of any write.
    pub fn finish(&self) -> io::Result<()> {
        self.sink.finish()
    }
}

/// Called by a hooked gate before the function; returns how many of the arguments on the stack the function may read.
pub(crate) fn before(description: &'static Description, arguments: *const u64) -> u64 {
    let signature = signature::of(description.name);
    cpu::baton::called(description.name);
    cpu::with_machine(|machine| {
        if let Some(tracer) = machine.hooks.tracer().filter(|t| t.wants(description.module, description.name)) {
            tracer.sink.called(description, signature, arguments);
        }
    });
    signature.stack_words()
}

/// Called by a hooked gate after the function.
pub(crate) fn after(description: &'static Description, arguments: *const u64, result: u64) {
    cpu::with_machine(|machine| {
        if let Some(tracer) = machine.hooks.tracer() {
            tracer.sink.returned(signature::of(description.name), arguments, result);
        }
    });
    let then = cpu::with_machine(|machine| {
        machine
            .hooks
            .then
            .get()
            .filter(|then| then.function == description.name)
            .and_then(|then| then.what.lock().take())
    });
    if let Some(what) = then {
        what();
    }
}

/// Whether any machine is traced.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Reports a call into a driver; whether it is wanted. `stack` is an address in the caller's frame: all frames of the
/// driver are below it. The caller owns nothing of this while the driver runs: an abandoned stack drops nothing.
#[cold]
#[inline(never)]
pub(crate) fn entered(stack: u64, describe: impl FnOnce() -> Callback) -> bool {
    cpu::with_machine(|machine| {
        let Some(tracer) = machine.hooks.tracer() else { return false };
        let callback = describe();
        let told = tracer.wants("", &callback.name);
        if told {
            tracer.sink.entered(callback, stack);
        }
        told
    })
}

/// Reports the end of a call for which [`entered`] was true.
#[cold]
#[inline(never)]
pub(crate) fn left(stack: u64, result: impl FnOnce() -> String) {
    cpu::with_machine(|machine| {
        if let Some(tracer) = machine.hooks.tracer() {
            tracer.sink.left(stack, &result());
        }
    });
}

/// A machine has stopped while this thread was inside: its open calls never return.
pub(crate) fn abandoned(hooks: &Hooks) {
    if let Some(tracer) = hooks.tracer() {
        tracer.sink.abandoned();
    }
}

#[cfg(test)]
mod tests;
