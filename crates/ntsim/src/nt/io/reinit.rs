//! Routines of boot drivers that the I/O manager calls when all boot devices have been started.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::trace::{Argument, Callback};
use crate::verifier::callback::{self, At, Keeps};
use core::ops::Range;
use parking_lot::Mutex;

exports! {
    "ntoskrnl.exe";
    IoRegisterBootDriverReinitialization: PASSIVE,
}

/// The routines that have not been called yet, in the order of their registration.
#[derive(Debug, Default)]
pub struct BootRoutines(Mutex<Vec<Routine>>);

#[derive(Clone, Copy, Debug)]
struct Routine {
    driver: u64,
    routine: u64,
    context: u64,
}

impl BootRoutines {
    /// Calls and forgets every routine. Inside [`cpu::enter`], at PASSIVE_LEVEL.
    pub(crate) fn run(&self) {
        let routines = std::mem::take(&mut *self.0.lock());
        for Routine { driver, routine, context } in routines {
            let describe = || Callback::new("DRIVER_REINITIALIZE", routine, vec![Argument::new("Count", 1)]);
            // SAFETY: the driver has registered a routine of this type, and is still loaded, or it would be forgotten; its
            // faults come back from `cpu::enter`.
            let call: extern "win64" fn(u64, u64, u32) = unsafe { core::mem::transmute(routine) };
            let what = At("the reinitialization routine", routine);
            callback::enter(&what, Keeps::All, describe, || call(driver, context, 1), |()| String::new());
        }
    }

    /// The driver in `image` is gone.
    pub(crate) fn forget(&self, image: &Range<u64>) {
        self.0.lock().retain(|registered| !image.contains(&registered.routine));
    }
}

extern "win64" fn IoRegisterBootDriverReinitialization(driver: u64, routine: u64, context: u64) {
    let registered = Routine { driver, routine, context };
    cpu::with_machine(|machine| machine.executive.boot_routines.0.lock().push(registered));
}
