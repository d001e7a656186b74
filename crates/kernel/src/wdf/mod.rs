//! The Kernel-Mode Driver Framework, as far as a non-PnP driver with one control device needs it.

mod device;
mod dpc;
mod driver;
mod queue;
mod request;
mod timer;

pub use device::{ControlDevice, DeviceConfig, DeviceEvents};
pub use dpc::{Dpc, Routine};
pub use driver::Driver;
pub use queue::ManualQueue;
pub use request::{FileId, Output, Request};
pub use timer::Timer;

use wdk_sys::{_WDF_EXECUTION_LEVEL, _WDF_SYNCHRONIZATION_SCOPE, WDF_OBJECT_ATTRIBUTES};

/// WDF_OBJECT_ATTRIBUTES_INIT of wdfobject.h.
const fn attributes() -> WDF_OBJECT_ATTRIBUTES {
    WDF_OBJECT_ATTRIBUTES {
        Size: size_of::<WDF_OBJECT_ATTRIBUTES>() as u32,
        EvtCleanupCallback: None,
        EvtDestroyCallback: None,
        ExecutionLevel: _WDF_EXECUTION_LEVEL::WdfExecutionLevelInheritFromParent,
        SynchronizationScope: _WDF_SYNCHRONIZATION_SCOPE::WdfSynchronizationScopeInheritFromParent,
        ParentObject: core::ptr::null_mut(),
        ContextSizeOverride: 0,
        ContextTypeInfo: core::ptr::null(),
    }
}
