//! The seam: a Windows machine as an administrator's program sees it.
//!
//! Plain data and a few verbs, so that the two implementations (Windows through windows-sys; ntsim, in process or over
//! a socket) can be compared line by line. Names and numbers are those of the Service Control Manager, fwpmu.h and
//! DeviceIoControl.

pub mod code;
mod error;
mod guid;
pub mod listing;
mod record;
#[cfg(target_os = "linux")]
pub mod remote;
pub mod system;

pub use error::{HostError, HostResult};
pub use guid::{Guid, GuidError};
pub use record::{
    Callout, Condition, ConditionValue, Filter, FilterAction, FilterEntry, MatchType, Parameter, Provider,
    ServiceConfig, ServiceState, StartType, Sublayer, Weight,
};

/// A machine as an administrator's program sees it.
pub trait Host {
    /// `QueryServiceStatus`, or [`ServiceState::Absent`] when the service does not exist.
    fn service_state(&self, name: &str) -> HostResult<ServiceState>;
    /// `QueryServiceConfigW`: the path of the service's .sys file as it was given when the service was created
    /// (without the `\??\` that the Service Control Manager puts before it), or `None` when there is no such service.
    fn service_driver(&self, name: &str) -> HostResult<Option<String>>;
    /// `ChangeServiceConfigW`: another driver file for a service.
    fn set_service_driver(&self, name: &str, driver: &str) -> HostResult<()>;
    /// `QueryServiceConfigW`: when the service's driver is loaded, or `None` when there is no such service.
    fn service_start(&self, name: &str) -> HostResult<Option<StartType>>;
    /// `ChangeServiceConfigW`: another start type for a service.
    fn set_service_start(&self, name: &str, start: StartType) -> HostResult<()>;
    /// `RegGetValueW`: a value of the service's Parameters key, or `None` when there is no such value.
    fn service_parameter(&self, name: &str, value: &str) -> HostResult<Option<Parameter>>;
    /// `RegSetKeyValueW`, or `RegDeleteKeyValueW` for `None`: a value of the Parameters key of a service that exists.
    fn set_service_parameter(&self, name: &str, value: &str, to: Option<&Parameter>) -> HostResult<()>;
    /// `CreateServiceW`.
    fn create_service(&self, config: &ServiceConfig) -> HostResult<()>;
    /// `StartServiceW`: loads the driver and runs its DriverEntry.
    fn start_service(&self, name: &str) -> HostResult<()>;
    /// `ControlService(SERVICE_CONTROL_STOP)`: unloads the driver.
    fn stop_service(&self, name: &str) -> HostResult<()>;
    /// `DeleteService`.
    fn delete_service(&self, name: &str) -> HostResult<()>;
    /// What the machine reports about itself.
    fn system(&self) -> HostResult<system::System>;
    /// A variable of the machine's own environment, which no user's program can set: `CreateEnvironmentBlock` without a
    /// token. `None` when there is no such variable.
    fn environment(&self, name: &str) -> HostResult<Option<String>>;
    /// `WinVerifyTrust` for a driver's file, or for a catalog that has its hash.
    fn signature(&self, path: &str) -> HostResult<system::Signature>;
    /// The content of a file in the drivers folder, by its name there ([`system::is_driver_file`]); `None` when there
    /// is no such file.
    fn read_driver(&self, file: &str) -> HostResult<Option<Vec<u8>>>;
    /// `CreateFileW(CREATE_NEW)`, `WriteFile` and `FlushFileBuffers`: a new file in the drivers folder, with the
    /// rights that the folder gives its files.
    fn write_driver(&self, file: &str, content: &[u8]) -> HostResult<()>;
    /// `MoveFileExW(MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)` within the drivers folder. A loaded driver's
    /// file can be renamed but not replaced.
    fn rename_driver(&self, from: &str, to: &str) -> HostResult<()>;
    /// `DeleteFileW` in the drivers folder.
    fn delete_driver(&self, file: &str) -> HostResult<()>;
    /// `MoveFileExW(MOVEFILE_DELAY_UNTIL_REBOOT)`: deletes a file in the drivers folder when Windows starts again.
    fn delete_driver_at_restart(&self, file: &str) -> HostResult<()>;
    /// `FwpmEngineOpen0`, with a session that is not dynamic.
    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>>;
    /// `CreateFileW` on a device, e.g. `\\.\Sluice`, for reading and writing.
    fn open_device(&self, path: &str) -> HostResult<Box<dyn Device>>;
    /// `FwpmGetAppIdFromFileName0`: the lower-case NT path that ALE_APP_ID carries for this file, without the
    /// terminating NUL. The file must exist.
    fn app_id(&self, path: &str) -> HostResult<String>;
    /// `ConvertInterfaceAliasToLuid`: the NET_LUID of the interface with this alias (`Ethernet 2`).
    fn interface_luid(&self, alias: &str) -> HostResult<u64>;
}

/// An open session with the Base Filtering Engine. Dropping it closes the handle (`FwpmEngineClose0`), which aborts
/// a transaction in progress.
pub trait Engine {
    /// `FwpmTransactionBegin0`.
    fn begin(&mut self) -> HostResult<()>;
    /// `FwpmTransactionCommit0`.
    fn commit(&mut self) -> HostResult<()>;
    /// `FwpmTransactionAbort0`.
    fn abort(&mut self) -> HostResult<()>;
    /// `FwpmProviderAdd0`.
    fn add_provider(&mut self, provider: &Provider) -> HostResult<()>;
    /// `FwpmSubLayerAdd0`.
    fn add_sublayer(&mut self, sublayer: &Sublayer) -> HostResult<()>;
    /// `FwpmCalloutAdd0`; returns the run-time id.
    fn add_callout(&mut self, callout: &Callout) -> HostResult<u32>;
    /// `FwpmFilterAdd0`; returns the run-time id.
    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64>;
    /// `FwpmProviderDeleteByKey0`.
    fn delete_provider(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmSubLayerDeleteByKey0`.
    fn delete_sublayer(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmCalloutDeleteByKey0`.
    fn delete_callout(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmFilterDeleteByKey0`.
    fn delete_filter(&mut self, key: Guid) -> HostResult<()>;
    /// `FwpmProviderGetByKey0`; `None` when there is no such provider.
    fn provider(&mut self, key: Guid) -> HostResult<Option<Provider>>;
    /// `FwpmSubLayerGetByKey0`; `None` when there is no such sublayer.
    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>>;
    /// `FwpmCalloutGetByKey0`; `None` when there is no such callout.
    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>>;
    /// `FwpmFilterEnum0` over all filters of a provider, or of all providers, except boot-time filters.
    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>>;
    /// `FwpmFilterEnum0` over the boot-time filters of one layer (FWP_FILTER_ENUM_FLAG_BOOTTIME_ONLY).
    fn boot_filters(&mut self, layer: Guid) -> HostResult<Vec<FilterEntry>>;
    /// The enumerations of layers, providers, sublayers, callouts and filters, each whole. They are not in one
    /// transaction: an object that is added or deleted meanwhile may be missing.
    fn list(&mut self) -> HostResult<listing::Listing>;
    /// `FwpmNetEventEnum2`: the recorded net events, oldest first.
    fn net_events(&mut self) -> HostResult<Vec<listing::ListedEvent>>;
    /// `FwpmEngineGetOption0` for each of [`listing::ENGINE_OPTIONS`] that this Windows has.
    fn options(&mut self) -> HostResult<Vec<(u32, u32)>>;
}

/// An open device. Dropping it closes the handle, which cancels pending requests on it.
pub trait Device: Send {
    /// `DeviceIoControl`; returns how many bytes of `output` were written.
    fn control(&self, code: u32, input: &[u8], output: &mut [u8]) -> HostResult<usize>;
    /// `ReadFile`; waits at most `timeout`, then cancels the read (`CancelIoEx`) and returns 0.
    fn read(&self, output: &mut [u8], timeout: std::time::Duration) -> HostResult<usize>;
}
