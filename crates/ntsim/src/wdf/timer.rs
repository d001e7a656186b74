//! Timers, in real time.

use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::Arc;

use parking_lot::Mutex;

use super::abi::{Handle, ObjectAttributes, TIMER_CONFIG_SIZE_V1_7, TIMER_CONFIG_SIZE_V1_11, TimerConfig};
use super::activity::Activity;
use super::callback;
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::kernel;
use super::lock::CallbackLock;
use super::object::{Allowed, Attributes, Body, LEVEL_PASSIVE, Object};
use super::status;
use super::violation::Violation;
use crate::cpu;
use crate::machine::Machine;
use crate::nt::clock::units;
use nt_abi::Irql;
use nt_abi::NtStatus;

/// The functions of this room. `WdfTimerStop` may wait at PASSIVE_LEVEL only.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfTimerCreate", create as *const ()),
    Function::dispatch("WdfTimerStart", start as *const ()),
    Function::dispatch("WdfTimerStop", stop as *const ()),
    Function::dispatch("WdfTimerGetParentObject", get_parent as *const ()),
];

/// `WDFTIMER`.
struct Timer {
    callback: unsafe extern "win64" fn(Handle),
    /// 100 ns units.
    period: Option<u64>,
    passive: bool,
    lock: Option<Arc<CallbackLock>>,
    /// The number of the appointment that counts, and the interrupt time it is due at; `None` when the timer is not in
    /// the queue.
    armed: Mutex<(u64, Option<u64>)>,
    /// Calls of a passive timer that wait for a worker thread.
    handed_over: AtomicU32,
    running: Activity,
}

impl Timer {
    /// Whether it was in the queue.
    fn disarm(&self) -> bool {
        self.armed.lock().1.take().is_some()
    }

    /// The next appointment of a periodic timer, and whether this one counts.
    fn begin(&self, number: u64) -> Option<Option<(u64, u64)>> {
        let mut armed = self.armed.lock();
        let due = armed.1.filter(|_| armed.0 == number)?;
        *armed = match self.period {
            // The period counts from when it was due, not from when its callback ran.
            Some(period) => (number + 1, Some(due + period)),
            None => (number, None),
        };
        // Under the lock: a stop after this sees that a call is in progress.
        if self.passive {
            self.handed_over.fetch_add(1, Ordering::AcqRel);
        } else {
            self.running.begin();
        }
        Some(armed.1.map(|next| (armed.0, next)))
    }

    fn wait(&self) {
        self.running.wait(|| self.handed_over.load(Ordering::Acquire) == 0);
    }
}

impl Body for Timer {
    fn kind(&self) -> Kind {
        Kind::Timer
    }

    fn passive_dispose(&self) -> bool {
        true
    }

    fn dispose(&self, _machine: &Arc<Machine>, _object: &Arc<Object>) -> Result<(), Box<Violation>> {
        self.disarm();
        self.wait();
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Reads a config of any released size; fields that it has not are zero.
///
/// # Safety
/// `config` points to a `WDF_TIMER_CONFIG` of the size its first field says.
unsafe fn read(config: *const TimerConfig) -> Result<TimerConfig, NtStatus> {
    // SAFETY: every form begins with its size.
    let size = unsafe { config.cast::<u32>().read_unaligned() };
    ddi::size(size, &[TIMER_CONFIG_SIZE_V1_7, TIMER_CONFIG_SIZE_V1_11, size_of::<TimerConfig>() as u32])?;
    let mut whole = core::mem::MaybeUninit::<TimerConfig>::zeroed();
    // SAFETY: the source has `size` bytes and the destination at least as many; zeros are valid for every field.
    unsafe {
        core::ptr::copy_nonoverlapping(config.cast::<u8>(), whole.as_mut_ptr().cast(), size as usize);
        Ok(whole.assume_init())
    }
}

extern "win64" fn create(
    globals: Globals,
    config: *const TimerConfig,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(config, "WdfTimerCreate", "Config")?;
        ddi::not_null(attributes, "WdfTimerCreate", "Attributes")?;
        ddi::not_null(out, "WdfTimerCreate", "Timer")?;
        let allowed = Allowed { parent: true, execution_level: true, synchronization_scope: false };
        // SAFETY: not null, and of these types.
        let (config, attributes) = unsafe { (read(config)?, Attributes::read(attributes, allowed)?) };
        let callback = config.callback.ok_or(NtStatus::INVALID_PARAMETER)?;
        let parent = ddi::required_parent(machine, &attributes)?;
        if parent.ancestor(Kind::Device).is_none() {
            return Err(NtStatus::INVALID_DEVICE_REQUEST.into());
        }
        let passive = attributes.execution_level == LEVEL_PASSIVE;
        if passive && config.period != 0 {
            return Err(NtStatus::NOT_SUPPORTED.into());
        }
        if config.period > i32::MAX as u32 {
            return Err(NtStatus::INVALID_PARAMETER.into());
        }
        let constraints = parent.constraints();
        if config.automatic_serialization != 0 && constraints.passive && !passive {
            return Err(status::WDF_INCOMPATIBLE_EXECUTION_LEVEL.into());
        }
        let period = (config.period != 0).then(|| units(Duration::from_millis(u64::from(config.period))));
        let body = Box::new(Timer {
            callback,
            period,
            passive,
            lock: constraints.lock.filter(|_| config.automatic_serialization != 0),
            armed: Mutex::new((0, None)),
            handed_over: AtomicU32::new(0),
            running: Activity::default(),
        });
        let object = Object::create(machine, &client, Some(&parent), &attributes, body)?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

/// The timer thread's side: at DISPATCH_LEVEL, or on a worker thread for a passive timer.
fn fire(machine: &Arc<Machine>, object: &Arc<Object>, number: u64) {
    let Some(timer) = object.get::<Timer>() else { return };
    let Some(next) = timer.begin(number) else { return };
    if let Some((number, due)) = next {
        machine.wdf.wheel.at(machine, due, object, number, fire);
    }
    let object = Arc::clone(object);
    let passive = timer.passive;
    // A bugcheck stops the machine, and every caller sees it; nothing to report here.
    let _stopped = cpu::enter(machine, if passive { Irql::PASSIVE } else { Irql::DISPATCH }, || {
        if passive {
            // The callback may wait; the other timers may not wait for it.
            kernel::spawn_passive(machine, move |_| {
                let timer = ddi::body::<Timer>(&object)?;
                timer.running.begin();
                timer.handed_over.fetch_sub(1, Ordering::AcqRel);
                call(&object)
            });
        } else if let Err(violation) = call(&object) {
            violation.bugcheck();
        }
    });
}

fn call(object: &Arc<Object>) -> Result<(), Box<Violation>> {
    let timer = ddi::body::<Timer>(object)?;
    let handle = object.handle;
    // SAFETY: the driver registered the callback for this timer.
    let called = callback::locked(timer.lock.as_deref(), &"EvtTimerFunc", || unsafe { (timer.callback)(handle) });
    timer.running.end();
    called
}

/// TRUE when the timer was in the queue; it is then set again.
extern "win64" fn start(_: Globals, timer: Handle, due: i64) -> u8 {
    ddi::run(|machine| {
        let object = ddi::object(machine, timer, Kind::Timer)?;
        let timer = ddi::body::<Timer>(&object)?;
        let due = machine.clock.due(due);
        let (number, was_armed) = {
            let mut armed = timer.armed.lock();
            let was = armed.1.is_some();
            *armed = (armed.0 + 1, Some(due));
            (armed.0, was)
        };
        machine.wdf.wheel.at(machine, due, &object, number, fire);
        Ok(u8::from(was_armed))
    })
}

/// TRUE when the timer was in the queue.
extern "win64" fn stop(_: Globals, timer: Handle, wait: u8) -> u8 {
    ddi::run(|machine| {
        let object = ddi::object(machine, timer, Kind::Timer)?;
        let timer = ddi::body::<Timer>(&object)?;
        if wait != 0 && kernel::irql() > Irql::PASSIVE {
            return Err(kernel::irql_violation("WdfTimerStop that waits", Irql::PASSIVE));
        }
        if wait != 0 && timer.running.is_mine() {
            return Err(Violation::verifier(object.handle, "WdfTimerStop waits for the callback that it is called in"));
        }
        let was_armed = timer.disarm();
        if wait != 0 {
            timer.wait();
        }
        Ok(u8::from(was_armed))
    })
}

extern "win64" fn get_parent(_: Globals, timer: Handle) -> Handle {
    ddi::run(|machine| {
        let object = ddi::object(machine, timer, Kind::Timer)?;
        Ok(object.parent().map_or(Handle::NULL, |parent| parent.handle))
    })
}
