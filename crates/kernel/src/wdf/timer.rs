//! A function that runs after a time, once or again and again.

use core::{
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
};

use wdk_sys::{WDF_TIMER_CONFIG, WDFOBJECT, WDFTIMER, call_unsafe_wdf_function_binding};

use super::{ControlDevice, DeviceEvents, Routine, attributes};
use crate::status::{NtResult, NtStatus};

/// A timer that runs one function at DISPATCH_LEVEL. A static one works once [`Timer::create`] has run.
#[derive(Debug)]
pub struct Timer {
    handle: AtomicPtr<core::ffi::c_void>,
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer {
    /// No timer yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { handle: AtomicPtr::new(null_mut()) }
    }

    /// Creates the timer as a child of `device`; deleting the device stops it and waits for it. IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of WdfTimerCreate.
    pub fn create<R: Routine, E: DeviceEvents>(&self, device: &ControlDevice<E>) -> NtResult<()> {
        self.make::<R, E>(device, 0)
    }

    /// The same, and has the function run every `period` milliseconds from then on. Windows may put it off by half a
    /// period to let a processor sleep, and does not wake a machine for it. IRQL = PASSIVE_LEVEL.
    ///
    /// # Errors
    /// The status of WdfTimerCreate.
    pub fn every<R: Routine, E: DeviceEvents>(&self, device: &ControlDevice<E>, period: u32) -> NtResult<()> {
        self.make::<R, E>(device, period)?;
        self.start(u64::from(period) * 10_000);
        Ok(())
    }

    fn make<R: Routine, E: DeviceEvents>(&self, device: &ControlDevice<E>, period: u32) -> NtResult<()> {
        let mut config = WDF_TIMER_CONFIG {
            Size: size_of::<WDF_TIMER_CONFIG>() as u32,
            EvtTimerFunc: Some(on_timer::<R>),
            Period: period,
            TolerableDelay: period / 2,
            AutomaticSerialization: 0, // the device's callbacks run at PASSIVE_LEVEL; a timer cannot join their lock
            ..WDF_TIMER_CONFIG::default()
        };
        let mut attributes = attributes();
        attributes.ParentObject = device.handle() as WDFOBJECT;
        // The device's own level is PASSIVE_LEVEL, at which a timer runs in a work item.
        attributes.ExecutionLevel = wdk_sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelDispatch;
        let mut timer: WDFTIMER = null_mut();
        // SAFETY: the structures are complete and outlive the call; the parent exists.
        let status = unsafe {
            call_unsafe_wdf_function_binding!(WdfTimerCreate, &raw mut config, &raw mut attributes, &raw mut timer)
        };
        NtStatus::check(status)?;
        self.handle.store(timer.cast(), Ordering::Release);
        Ok(())
    }

    /// Has the function run after so many units of 100 ns, and not when it was to run before; does nothing without a timer.
    /// IRQL <= DISPATCH_LEVEL. Nobody may call it while [`Timer::forget`] runs.
    pub fn start(&self, after: u64) {
        let timer = self.handle.load(Ordering::Acquire);
        if !timer.is_null() {
            // A negative time is relative, and 0 none (WdfTimerStart).
            let due = -i64::try_from(after.max(1)).unwrap_or(i64::MAX);
            // SAFETY: the timer exists until its device is deleted, and is cleared here before that. The result says
            // whether it was already to run.
            let _ = unsafe { call_unsafe_wdf_function_binding!(WdfTimerStart, timer.cast(), due) };
        }
    }

    /// Stops the timer, waits for its function and clears it, before its device is deleted. IRQL = PASSIVE_LEVEL.
    pub fn forget(&self) {
        let timer = self.handle.swap(null_mut(), Ordering::AcqRel);
        if !timer.is_null() {
            // SAFETY: the timer exists; waiting is allowed at PASSIVE_LEVEL. The result says whether it was to run.
            let _ = unsafe { call_unsafe_wdf_function_binding!(WdfTimerStop, timer.cast(), 1) };
        }
    }
}

unsafe extern "C" fn on_timer<R: Routine>(_timer: WDFTIMER) {
    R::run();
}
