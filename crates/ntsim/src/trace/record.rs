//! The lines of a trace.
//!
//! As text a call is one line when nothing happened inside it, else a line before and one after. As JSON every call and
//! every return is an object.

use super::signature::{Kind, Signature};
use super::value;
use crate::cpu;
use crate::pe::gate::Description;
use nt_abi::Irql;
use parking_lot::Mutex;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// An argument, as text.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Argument {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

impl Argument {
    pub(crate) fn new(name: &'static str, value: impl ToString) -> Self {
        Self { name, value: value.to_string() }
    }
}

/// A call into a driver.
#[derive(Debug)]
pub(crate) struct Callback {
    /// Its name in the documentation: `classifyFn`, `EvtIoRead`.
    pub(crate) name: String,
    /// The driver's function; 0 when the caller does not know it.
    pub(crate) routine: u64,
    pub(crate) arguments: Vec<Argument>,
}

impl Callback {
    pub(crate) fn new(name: impl Into<String>, routine: u64, arguments: Vec<Argument>) -> Self {
        Self { name: name.into(), routine, arguments }
    }
}

/// A call that has not returned.
struct Open {
    /// Its address on the stack: inner calls are below.
    stack: u64,
    irql: Irql,
    /// The line, until an inner call makes it be written.
    unwritten: Option<String>,
    what: String,
}

thread_local! {
    static CALLS: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    static THREAD: Cell<u32> = const { Cell::new(0) };
}

/// A small number for this thread.
fn thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        thread.get()
    })
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    microseconds: u64,
    thread: u32,
    processor: u32,
    irql: Irql,
    depth: usize,
    event: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    module: &'a str,
    function: &'a str,
    /// Who called, or what is called.
    #[serde(skip_serializing_if = "str::is_empty")]
    at: &'a str,
    #[serde(skip_serializing_if = "<[Argument]>::is_empty")]
    arguments: &'a [Argument],
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
}

/// Where the lines go.
pub(super) struct Sink {
    out: Mutex<Out>,
    form: Form,
    start: Instant,
}

struct Out {
    writer: Box<dyn Write + Send>,
    failed: Option<io::Error>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("form", &self.form).finish_non_exhaustive()
    }
}

impl Sink {
    pub(super) fn new(writer: Box<dyn Write + Send>, form: Form) -> Self {
        Self { out: Mutex::new(Out { writer, failed: None }), form, start: Instant::now() }
    }

    pub(super) fn finish(&self) -> io::Result<()> {
        let mut out = self.out.lock();
        let flushed = out.writer.flush();
        match out.failed.take() {
            Some(error) => Err(error),
            None => flushed,
        }
    }

    fn line(&self, line: &str) {
        let mut out = self.out.lock();
        if out.failed.is_none()
            && let Err(error) = writeln!(out.writer, "{line}")
        {
            out.failed = Some(error);
        }
    }

    /// A driver calls an import.
    pub(super) fn called(&self, description: &Description, signature: &Signature, arguments: *const u64) {
        let words = signature.parameters.iter().enumerate();
        let shown = words.filter_map(|(index, parameter)| {
            // SAFETY: the gate stored the registers in the home space, and the caller the rest after it.
            let word = unsafe { arguments.add(index).read() };
            Some(Argument { name: parameter.name, value: value::show(parameter.kind, word)? })
        });
        let shown: Vec<Argument> = shown.collect();
        // SAFETY: the return address is below the home space.
        let caller = cpu::frame_of(unsafe { arguments.sub(1).read() }).to_string();
        self.begin("call", description.module, description.name, &caller, &shown, arguments as u64);
    }

    /// It returned `result`.
    pub(super) fn returned(&self, signature: &Signature, arguments: *const u64, result: u64) {
        let mut text = signature.result.and_then(|kind| value::show(kind, result)).unwrap_or_default();
        for (index, parameter) in signature.parameters.iter().enumerate() {
            if let Kind::Out(bytes) = parameter.kind
                // SAFETY: as in `called`; the function may have overwritten its home space, so the pointer is read only
                // by way of the host's kernel.
                && let Some(written) = value::written(bytes, unsafe { arguments.add(index).read() })
            {
                let _ = write!(text, "{}*{}={written}", if text.is_empty() { "" } else { ", " }, parameter.name);
            }
        }
        self.end(arguments as u64, &text);
    }

    /// ntsim calls the driver from the frame at `stack`.
    pub(super) fn entered(&self, callback: Callback, stack: u64) {
        let routine = if callback.routine == 0 { String::new() } else { value::routine(callback.routine) };
        self.begin("callback", "", &callback.name, &routine, &callback.arguments, stack);
    }

    /// And the driver returned.
    pub(super) fn left(&self, stack: u64, result: &str) {
        self.end(stack, result);
    }

    /// This thread's stack was abandoned.
    pub(super) fn abandoned(&self) {
        for (depth, open) in CALLS.take().into_iter().enumerate().rev() {
            let (module, name) = open.what.split_once('!').unwrap_or(("", &open.what));
            match (self.form, open.unwritten) {
                (Form::Json, _) => self.json("abandoned", open.irql, depth, module, name, "", &[], None),
                (Form::Text, Some(line)) => self.line(&format!("{line} never returns")),
                (Form::Text, None) => {
                    self.line(&format!("{}}} {} never returns", margin(open.irql, depth), open.what));
                }
            }
        }
        let _ = self.out.lock().writer.flush(); // `finish` reports errors
    }

    fn begin(&self, event: &str, module: &str, name: &str, at: &str, arguments: &[Argument], stack: u64) {
        let irql = cpu::irql();
        let mut calls = CALLS.take();
        // Calls that were left by a jump or an abandoned stack are inside this one.
        calls.retain(|open| open.stack > stack);
        if let Some(line) = calls.last_mut().and_then(|open| open.unwritten.take()) {
            self.line(&format!("{line} {{"));
        }
        let depth = calls.len();
        let what = if module.is_empty() { name.to_owned() } else { format!("{module}!{name}") };
        let unwritten = match self.form {
            Form::Text => {
                let mut line = margin(irql, depth);
                let arrow = if event == "callback" { "-> " } else { "" };
                let _ = write!(line, "{arrow}{what}(");
                for (index, Argument { name, value }) in arguments.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    let equals = if name.is_empty() { "" } else { "=" };
                    let _ = write!(line, "{comma}{name}{equals}{value}");
                }
                line.push(')');
                if !at.is_empty() {
                    let _ = write!(line, " {} {at}", if event == "callback" { "at" } else { "from" });
                }
                Some(line)
            }
            Form::Json => {
                self.json(event, irql, depth, module, name, at, arguments, None);
                None
            }
        };
        calls.push(Open { stack, irql, unwritten, what });
        CALLS.set(calls);
    }

    fn end(&self, stack: u64, result: &str) {
        let mut calls = CALLS.take();
        calls.retain(|open| open.stack >= stack);
        let open = if calls.last().is_some_and(|open| open.stack == stack) { calls.pop() } else { None };
        let depth = calls.len();
        CALLS.set(calls);
        let Some(open) = open else { return };
        let irql = cpu::irql();
        if self.form == Form::Json {
            let (module, name) = open.what.split_once('!').unwrap_or(("", &open.what));
            self.json("return", irql, depth, module, name, "", &[], Some(result));
            return;
        }
        let mut line = open.unwritten.unwrap_or_else(|| format!("{}}} {}", margin(irql, depth), open.what));
        if !result.is_empty() {
            let _ = write!(line, " = {result}");
        }
        if irql != open.irql {
            let _ = write!(line, " now {irql}");
        }
        self.line(&line);
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one line")]
    fn json(
        &self,
        event: &str,
        irql: Irql,
        depth: usize,
        module: &str,
        function: &str,
        at: &str,
        arguments: &[Argument],
        result: Option<&str>,
    ) {
        let line = Line {
            microseconds: self.start.elapsed().as_micros() as u64,
            thread: thread(),
            processor: processor(),
            irql,
            depth,
            event,
            module,
            function,
            at,
            arguments,
            result: result.filter(|result| !result.is_empty()),
        };
        if let Ok(text) = serde_json::to_string(&line) {
            self.line(&text);
        }
    }
}

/// The processor this thread runs as; 0 once it has left.
fn processor() -> u32 {
    if cpu::inside() { cpu::current_processor().number() } else { 0 }
}

/// Thread, processor, IRQL and depth.
fn margin(irql: Irql, depth: usize) -> String {
    let processor = processor();
    let level = irql.to_string();
    let level = level.strip_suffix("_LEVEL").unwrap_or(&level);
    format!("T{:<2} P{processor} {level:8} {:width$}", thread(), "", width = 2 * depth)
}
