//! Wait locks, spin locks, and the callback locks of devices and queues.
//!
//! A lock is simulated state, not a lock of this program: the driver holds it between two calls, and a thread whose
//! stack was abandoned by a bugcheck holds it forever. Waiting therefore looks at the machine from time to time.

use core::any::Any;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::abi::{Handle, ObjectAttributes};
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::kernel;
use super::object::{Allowed, Attributes, Body, Object};
use super::violation::{Fault, Violation};
use crate::cpu;
use crate::machine::Machine;
use crate::verifier::locks::{self, Class};
use nt_abi::Irql;
use nt_abi::NtStatus;

/// The functions of this room. `WdfWaitLockAcquire` may be called at DISPATCH_LEVEL with a timeout of zero.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfWaitLockCreate", wait_lock_create as *const ()),
    Function::dispatch("WdfWaitLockAcquire", wait_lock_acquire as *const ()),
    Function::dispatch("WdfWaitLockRelease", wait_lock_release as *const ()),
    Function::dispatch("WdfSpinLockCreate", spin_lock_create as *const ()),
    Function::dispatch("WdfSpinLockAcquire", spin_lock_acquire as *const ()),
    Function::dispatch("WdfSpinLockRelease", spin_lock_release as *const ()),
    Function::dispatch("WdfObjectAcquireLock", object_acquire_lock as *const ()),
    Function::dispatch("WdfObjectReleaseLock", object_release_lock as *const ()),
];

/// Who holds something, and a way to wait for it.
#[derive(Debug, Default)]
struct Ownership {
    owner: Mutex<u64>,
    freed: Condvar,
}

/// How an acquisition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acquired {
    Yes,
    TimedOut,
    /// By the caller itself, before.
    Already,
}

impl Ownership {
    /// How often a waiter looks whether the machine has halted.
    const GLANCE: Duration = Duration::from_millis(20);
    /// How often one with a deadline looks at the machine's clock, which a test may push.
    const TICK: Duration = Duration::from_millis(1);

    /// `deadline` is an interrupt time of the machine.
    fn acquire(&self, machine: &Machine, deadline: Option<u64>) -> Acquired {
        let me = kernel::thread();
        loop {
            {
                let mut owner = self.owner.lock();
                if *owner == me {
                    return Acquired::Already;
                }
                if *owner != 0 && deadline.is_none_or(|deadline| machine.clock.interrupt_time() < deadline) {
                    self.freed.wait_for(&mut owner, if deadline.is_some() { Self::TICK } else { Self::GLANCE });
                }
                if *owner == 0 {
                    *owner = me;
                    return Acquired::Yes;
                }
            }
            if deadline.is_some_and(|deadline| machine.clock.interrupt_time() >= deadline) {
                return Acquired::TimedOut;
            }
            kernel::abandon_if_halted();
        }
    }

    /// Whether the caller held it.
    fn release(&self) -> bool {
        let mut owner = self.owner.lock();
        if *owner != kernel::thread() {
            return false;
        }
        *owner = 0;
        drop(owner);
        self.freed.notify_one();
        true
    }

    fn is_mine(&self) -> bool {
        *self.owner.lock() == kernel::thread()
    }

    fn is_held(&self) -> bool {
        *self.owner.lock() != 0
    }
}

/// The lock behind a synchronization scope, and behind `WdfObjectAcquireLock`: a spin lock where callbacks may run at
/// DISPATCH_LEVEL, else one that waits.
#[derive(Debug)]
pub(crate) struct CallbackLock {
    passive: bool,
    ownership: Ownership,
    previous: AtomicU8,
}

impl CallbackLock {
    /// A free lock.
    #[must_use]
    pub(crate) fn new(passive: bool) -> Self {
        Self { passive, ownership: Ownership::default(), previous: AtomicU8::new(0) }
    }

    /// Acquires it; one for DISPATCH_LEVEL callbacks raises the IRQL.
    ///
    /// # Errors
    /// WDF_VIOLATION 0x2 when the caller holds it.
    pub(crate) fn acquire(&self) -> Result<(), Box<Violation>> {
        let previous = (!self.passive).then(|| kernel::raise(Irql::DISPATCH));
        if cpu::with_machine(|machine| self.ownership.acquire(machine, None)) == Acquired::Already {
            return Err(Violation::recursive_lock(Handle::NULL, Kind::Object));
        }
        if let Some(previous) = previous {
            self.previous.store(previous.0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Releases it.
    ///
    /// # Errors
    /// WDF_VIOLATION 0xB when the caller does not hold it.
    pub(crate) fn release(&self) -> Result<(), Box<Violation>> {
        let previous = Irql(self.previous.load(Ordering::Relaxed));
        if !self.ownership.release() {
            return Err(Violation::lock(
                Handle::NULL,
                true,
                "a callback lock is released by a thread that does not hold it",
            ));
        }
        if !self.passive {
            kernel::lower(previous);
        }
        Ok(())
    }

    /// Whether the calling thread holds it.
    #[must_use]
    pub(crate) fn is_mine(&self) -> bool {
        self.ownership.is_mine()
    }
}

struct WaitLock {
    ownership: Ownership,
}

impl Body for WaitLock {
    fn kind(&self) -> Kind {
        Kind::WaitLock
    }

    fn dispose(&self, _machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
        deleted_while_held(&self.ownership, object)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct SpinLock {
    ownership: Ownership,
    previous: AtomicU8,
}

impl Body for SpinLock {
    fn kind(&self) -> Kind {
        Kind::SpinLock
    }

    fn dispose(&self, _machine: &Arc<Machine>, object: &Arc<Object>) -> Result<(), Box<Violation>> {
        deleted_while_held(&self.ownership, object)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn deleted_while_held(ownership: &Ownership, object: &Object) -> Result<(), Box<Violation>> {
    if ownership.is_held() {
        return Err(Violation::lock(
            object.handle,
            false,
            format!("{} {:?} is deleted while it is held", object.kind(), object.handle),
        ));
    }
    Ok(())
}

/// Creates a lock; shared by both kinds.
///
/// # Safety
/// `attributes` as for [`Attributes::read`]; `out` is null or writable.
unsafe fn create(
    globals: Globals,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
    function: &str,
    body: Box<dyn Body>,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, function, "Lock")?;
        // SAFETY: the caller's promise.
        let attributes = unsafe { Attributes::read(attributes, Allowed::PARENT)? };
        let parent = ddi::parent_or_driver(machine, &client, &attributes)?;
        let object = Object::create(machine, &client, Some(&parent), &attributes, body)?;
        // SAFETY: not null, and writable by the caller's promise.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

extern "win64" fn wait_lock_create(
    globals: Globals,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    let lock = Box::new(WaitLock { ownership: Ownership::default() });
    // SAFETY: the driver passes pointers as WdfWaitLockCreate documents them.
    unsafe { create(globals, attributes, out, "WdfWaitLockCreate", lock) }
}

/// The timeout is in 100 ns units, negative for relative; NULL waits forever.
extern "win64" fn wait_lock_acquire(_: Globals, lock: Handle, timeout: *const i64) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, lock, Kind::WaitLock)?;
        // SAFETY: null or a LONGLONG, as WdfWaitLockAcquire documents it.
        let timeout = (!timeout.is_null()).then(|| unsafe { timeout.read_unaligned() });
        if timeout != Some(0) && kernel::irql() > Irql::PASSIVE {
            return Err(
                kernel::irql_violation("WdfWaitLockAcquire with a timeout other than zero", Irql::PASSIVE).into()
            );
        }
        let deadline = timeout.map(|timeout| machine.clock.due(timeout));
        if timeout != Some(0) {
            locks::wanted(lock.0);
        }
        match ddi::body::<WaitLock>(&object)?.ownership.acquire(machine, deadline) {
            Acquired::Yes => {
                locks::acquired(lock.0, Class::Wait);
                Ok(())
            }
            Acquired::TimedOut => Err(Fault::Status(NtStatus::TIMEOUT)),
            Acquired::Already => Err(Violation::recursive_lock(lock, Kind::WaitLock).into()),
        }
    })
}

extern "win64" fn wait_lock_release(_: Globals, lock: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, lock, Kind::WaitLock)?;
        if ddi::body::<WaitLock>(&object)?.ownership.release() {
            locks::released(lock.0, Class::Wait);
            return Ok(());
        }
        Err(Violation::lock(lock, true, format!("WDFWAITLOCK {lock:?} is released by a thread that does not hold it")))
    });
}

extern "win64" fn spin_lock_create(
    globals: Globals,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    let lock = Box::new(SpinLock { ownership: Ownership::default(), previous: AtomicU8::new(0) });
    // SAFETY: the driver passes pointers as WdfSpinLockCreate documents them.
    unsafe { create(globals, attributes, out, "WdfSpinLockCreate", lock) }
}

extern "win64" fn spin_lock_acquire(_: Globals, lock: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, lock, Kind::SpinLock)?;
        let spin = ddi::body::<SpinLock>(&object)?;
        let previous = kernel::raise(Irql::DISPATCH);
        locks::wanted(lock.0);
        if spin.ownership.acquire(machine, None) == Acquired::Already {
            return Err(Violation::recursive_lock(lock, Kind::SpinLock));
        }
        spin.previous.store(previous.0, Ordering::Relaxed);
        locks::acquired(lock.0, Class::Spin);
        Ok(())
    });
}

extern "win64" fn spin_lock_release(_: Globals, lock: Handle) {
    ddi::run(|machine| {
        let object = ddi::object(machine, lock, Kind::SpinLock)?;
        let spin = ddi::body::<SpinLock>(&object)?;
        let previous = Irql(spin.previous.load(Ordering::Relaxed));
        if !spin.ownership.release() {
            let why = format!("WDFSPINLOCK {lock:?} is released by a thread that does not hold it");
            return Err(Violation::lock(lock, true, why));
        }
        locks::released(lock.0, Class::Spin);
        kernel::lower(previous);
        Ok(())
    });
}

fn presentation_lock(machine: &Machine, handle: Handle) -> Result<Arc<CallbackLock>, Box<Violation>> {
    let object = ddi::any_object(machine, handle)?;
    object.body().presentation_lock().ok_or_else(|| {
        Violation::lock(handle, false, format!("{} {handle:?} has no synchronization lock", object.kind()))
    })
}

extern "win64" fn object_acquire_lock(_: Globals, object: Handle) {
    ddi::run(|machine| presentation_lock(machine, object)?.acquire());
}

extern "win64" fn object_release_lock(_: Globals, object: Handle) {
    ddi::run(|machine| presentation_lock(machine, object)?.release());
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
