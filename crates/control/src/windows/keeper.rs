//! The service that keeps the policy up to date, as the Service Control Manager sees it.

use super::files::failed as of_file;
use super::{EventLog, environment, refusal, system};
use sluice_host::{HostError, HostResult, code};
use sluice_protocol::{KEEPER_DESCRIPTION, KEEPER_DISPLAY_NAME, KEEPER_NAME};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo,
    ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{ServiceControlHandlerResult, register};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

/// What the service does until it is told to stop.
type Work = Box<dyn Fn(&AtomicBool) -> Result<(), String> + Send + Sync>;

static WORK: OnceLock<Work> = OnceLock::new();
static STOP: AtomicBool = AtomicBool::new(false);

/// Where decisions go unless another file is named: below a folder that only administrators and SYSTEM can open. The
/// folder is made.
///
/// # Errors
/// It cannot be made.
pub fn decisions() -> HostResult<PathBuf> {
    let folder = Path::new(&system::folder()?).join("LogFiles").join("Sluicegate");
    std::fs::create_dir_all(&folder).map_err(|error| of_file("CreateDirectoryW", &error))?;
    Ok(folder.join("decisions.jsonl"))
}

/// The folder of the program that the service runs: a folder that only administrators can write to.
fn home() -> HostResult<PathBuf> {
    let programs = environment::variable("ProgramFiles")?;
    let programs = programs.ok_or_else(|| HostError::new("CreateEnvironmentBlock", code::ERROR_FILE_NOT_FOUND))?;
    Ok(Path::new(&programs).join("Sluicegate"))
}

/// Copies this program there, makes a service that runs it with these arguments, and starts that. One that exists must
/// have been removed. Returns where the program is.
///
/// # Errors
/// A step failed; the copy and the registration of the event source may stay, and do no harm.
pub fn install(arguments: &[String]) -> HostResult<String> {
    let here = std::env::current_exe().map_err(|error| of_file("GetModuleFileNameW", &error))?;
    let folder = home()?;
    let program = folder.join("sluice.exe");
    if program != here {
        std::fs::create_dir_all(&folder).map_err(|error| of_file("CreateDirectoryW", &error))?;
        copied(&here, &program).map_err(|error| of_file("CopyFileExW", &error))?;
    }
    let shown = program.display().to_string();
    EventLog::register(&shown)?;
    let manager = ServiceManager::local_computer(
        None::<&OsStr>,
        ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE,
    )
    .map_err(failed("OpenSCManagerW"))?;
    let info = ServiceInfo {
        name: KEEPER_NAME.into(),
        display_name: KEEPER_DISPLAY_NAME.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program,
        launch_arguments: arguments.iter().map(OsString::from).collect(),
        // None on the driver: Windows would not unload that while this runs.
        dependencies: Vec::new(),
        // LocalSystem, which may open the device.
        account_name: None,
        account_password: None,
    };
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START | ServiceAccess::DELETE;
    let service = manager.create_service(&info, access).map_err(failed("CreateServiceW"))?;
    configured(&service).inspect_err(|_| {
        // One that does not start is not left behind.
        let _ = service.delete();
    })?;
    Ok(shown)
}

/// Copies a program over one that was the service's: that may still be ending when its service has stopped.
fn copied(from: &Path, to: &Path) -> io::Result<()> {
    const TRIES: usize = 50;
    const PAUSE: Duration = Duration::from_millis(100);
    let in_use = |error: &io::Error| {
        matches!(error.raw_os_error(), Some(32)) // ERROR_SHARING_VIOLATION
        || error.kind() == io::ErrorKind::PermissionDenied
    };
    for _ in 1..TRIES {
        match std::fs::copy(from, to) {
            Err(error) if in_use(&error) => std::thread::sleep(PAUSE),
            done => return done.map(drop),
        }
    }
    std::fs::copy(from, to).map(drop)
}

/// Says what the service is and that it is to be started again after a failure, and starts it.
fn configured(service: &Service) -> HostResult<()> {
    service.set_description(KEEPER_DESCRIPTION).map_err(failed("ChangeServiceConfig2W"))?;
    let again = ServiceAction { action_type: ServiceActionType::Restart, delay: Duration::from_secs(5) };
    let actions = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(Duration::from_secs(86_400)),
        reboot_msg: None,
        command: None,
        actions: Some(vec![again.clone(), again.clone(), again]),
    };
    service.update_failure_actions(actions).map_err(failed("ChangeServiceConfig2W"))?;
    service.start::<&OsStr>(&[]).map_err(failed("StartServiceW"))
}

/// Takes back what [`install`] has registered besides the service. The copy of the program stays while it may run.
pub fn clean() {
    // What stays is a name in the registry without effect.
    let _ = EventLog::unregister();
}

define_windows_service!(entry, serve_control_manager);

/// Does `work` as the service, until the Service Control Manager stops it. To be called by a program that it has started.
///
/// # Errors
/// The Service Control Manager has not started this program.
pub fn serve(work: impl Fn(&AtomicBool) -> Result<(), String> + Send + Sync + 'static) -> HostResult<()> {
    // It is called once in a program.
    let _ = WORK.set(Box::new(work));
    service_dispatcher::start(KEEPER_NAME, entry).map_err(failed("StartServiceCtrlDispatcherW"))
}

fn serve_control_manager(_: Vec<OsString>) {
    let handler = |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            STOP.store(true, Ordering::Relaxed);
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    let Ok(status) = register(KEEPER_NAME, handler) else { return };
    let report = |current_state, accepted, exit_code| {
        // There is nobody else to tell.
        let _ = status.set_service_status(ServiceStatus {
            service_type: ServiceType::OWN_PROCESS,
            current_state,
            controls_accepted: accepted,
            exit_code,
            checkpoint: 0,
            wait_hint: Duration::default(),
            process_id: None,
        });
    };
    let accepted = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN;
    report(ServiceState::Running, accepted, ServiceExitCode::Win32(0));
    let done = WORK.get().map_or(Ok(()), |work| work(&STOP));
    let exit = match done {
        Ok(()) => ServiceExitCode::Win32(0),
        Err(what) => {
            if let Ok(log) = EventLog::open() {
                log.trouble(&what);
            }
            ServiceExitCode::ServiceSpecific(1)
        }
    };
    report(ServiceState::Stopped, ServiceControlAccept::empty(), exit);
}

fn failed(operation: &'static str) -> impl FnOnce(windows_service::Error) -> HostError {
    move |error| match &error {
        windows_service::Error::Winapi(source) => match source.raw_os_error() {
            Some(code) => refusal(operation, code.cast_unsigned()),
            None => unknown(operation, source),
        },
        _ => HostError::with_message(operation, code::ERROR_GEN_FAILURE, error.to_string()),
    }
}

fn unknown(operation: &str, error: &io::Error) -> HostError {
    HostError::with_message(operation, code::ERROR_GEN_FAILURE, error.to_string())
}
