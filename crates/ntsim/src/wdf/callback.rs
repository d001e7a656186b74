//! Calling the driver back: the one place where framework code enters driver code.
//!
//! No lock of this program is held across a call. What looks like one, the callback lock of a device or queue with a
//! synchronization scope, is simulated state that survives an abandoned stack.

use core::fmt::Display;

use super::kernel;
use super::lock::CallbackLock;
use super::violation::Violation;
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, Keeps};

/// Calls a driver function and checks that it comes back at the IRQL it was called at, with the locks and in the
/// regions it was called with.
///
/// # Errors
/// WDF_VIOLATION 0xE when it does not.
pub(crate) fn unlocked<R>(name: &dyn Display, call: impl FnOnce() -> R) -> Result<R, Box<Violation>> {
    told(name, || (0, Vec::new()), call)
}

/// The same, with the function's address and arguments for a trace.
fn told<R>(
    name: &dyn Display,
    describe: impl FnOnce() -> (u64, Vec<Argument>),
    call: impl FnOnce() -> R,
) -> Result<R, Box<Violation>> {
    let before = kernel::irql();
    let result = callback::enter(
        name,
        Keeps::Locks,
        || {
            let (routine, arguments) = describe();
            // Some names end with the routine's place, which a trace has in a column of its own.
            let full = name.to_string();
            let short =
                full.rsplit_once(' ').filter(|(_, place)| place.contains("+0x")).map(|(name, _)| name.to_owned());
            Callback::new(short.unwrap_or(full), routine, arguments)
        },
        call,
        |_| String::new(),
    );
    let after = kernel::irql();
    if before == after { Ok(result) } else { Err(Violation::callback_irql(&name.to_string(), before, after)) }
}

/// The same under the callback lock that synchronizes the driver's callbacks, when there is one.
///
/// # Errors
/// As [`unlocked`], and WDF_VIOLATION 0x2 when this thread holds the lock already.
pub(crate) fn locked<R>(
    lock: Option<&CallbackLock>,
    name: &dyn Display,
    call: impl FnOnce() -> R,
) -> Result<R, Box<Violation>> {
    locked_told(lock, name, || (0, Vec::new()), call)
}

/// The same, with the function's address and arguments for a trace.
///
/// # Errors
/// As [`locked`].
pub(crate) fn locked_told<R>(
    lock: Option<&CallbackLock>,
    name: &dyn Display,
    describe: impl FnOnce() -> (u64, Vec<Argument>),
    call: impl FnOnce() -> R,
) -> Result<R, Box<Violation>> {
    let Some(lock) = lock else { return told(name, describe, call) };
    lock.acquire()?;
    let result = told(name, describe, call)?;
    lock.release()?;
    Ok(result)
}
