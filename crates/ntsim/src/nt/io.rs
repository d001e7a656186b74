//! The I/O manager as user mode sees it: named devices, symbolic links, open files and their requests.

use crate::cpu::{self, Bugcheck, code};

use crate::machine::{DriverState, Machine};
use buffer::SystemBuffer;
use core::cell::Cell;
use filter_engine::token::Token;
use nt_abi::Irql;
use nt_abi::NtStatus;
use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

pub use file::{OpenFile, PendingIo};

mod access;
mod buffer;
pub mod disk;
mod file;
pub(crate) mod layout;
pub mod reinit;
pub mod wdm;

/// An open file (`FILE_OBJECT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct FileId(pub u64);

/// A request (`IRP`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct IrpId(pub u64);

/// What a request asks for. Reads and writes are buffered (`DO_BUFFERED_IO`), controls use the method of their code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum IrpKind {
    /// `IRP_MJ_READ` of at most this many bytes.
    Read {
        /// Bytes.
        length: usize,
    },
    /// `IRP_MJ_WRITE` of this many bytes.
    Write {
        /// Bytes.
        length: usize,
    },
    /// `IRP_MJ_DEVICE_CONTROL`.
    DeviceControl {
        /// The control code.
        code: u32,
        /// Bytes of input in the system buffer.
        input: usize,
        /// Bytes of output the caller takes.
        output: usize,
    },
}

/// The code behind a device: a framework, or WDM dispatch routines.
///
/// Every method is called inside [`cpu::enter`] at PASSIVE_LEVEL, with no lock held.
pub trait DeviceBackend: Send + Sync {
    /// A file is opened (`IRP_MJ_CREATE`); a failure refuses it.
    fn create(&self, file: FileId) -> NtStatus;
    /// The last handle of a file was closed (`IRP_MJ_CLEANUP`): its pending requests must be completed.
    fn cleanup(&self, file: FileId);
    /// The last reference to a file is gone (`IRP_MJ_CLOSE`).
    fn close(&self, file: FileId);
    /// A read, write or control request. It is completed, now or later, by [`IrpRequest::complete`].
    fn submit(&self, irp: IrpRequest);
    /// The caller cancels a request. The backend completes it with STATUS_CANCELLED if it still can, and ignores one
    /// that is already completed.
    fn cancel(&self, irp: IrpId);
}

/// A request as a device receives it. It must be completed once; the I/O manager counts dropped ones.
pub struct IrpRequest {
    shared: Arc<Irp>,
    file: FileId,
}

struct Irp {
    id: IrpId,
    kind: IrpKind,
    buffer: SystemBuffer,
    /// What the caller's output buffer held, for a control whose driver reads it (all except METHOD_BUFFERED).
    direct: Box<[u8]>,
    state: Mutex<IrpState>,
    done: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IrpState {
    Pending,
    /// Dropped by the device without completion: it can never be completed.
    Lost,
    Completed(NtStatus, usize),
}

impl IrpRequest {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> IrpId {
        self.shared.id
    }

    /// The file it was sent to.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }

    /// What it asks for.
    #[must_use]
    pub fn kind(&self) -> IrpKind {
        self.shared.kind
    }

    /// The system buffer: input first, output in the same place. 16-byte aligned; valid until completion. Not null, but
    /// empty when both lengths are 0.
    #[must_use]
    pub fn system_buffer(&self) -> *mut u8 {
        self.shared.buffer.address()
    }

    /// What the caller's output buffer held when the request was sent: the data of a METHOD_IN_DIRECT control. Empty
    /// when the caller gave none. When a control that is not METHOD_BUFFERED is completed, its whole output must be in
    /// the system buffer, because the driver wrote to the caller's memory.
    #[must_use]
    pub fn direct_data(&self) -> &[u8] {
        &self.shared.direct
    }

    /// Completes the request (`IoCompleteRequest`). `information` is how many bytes of output the caller gets.
    ///
    /// Inside [`cpu::enter`], an `information` beyond the output's length stops the machine when the status is a
    /// success: Windows would copy kernel memory to the caller, whose buffer it overruns. Windows would with a warning
    /// too, though the framework's verifier lets a driver report how much it has that way; here the special pool stops
    /// the machine for it. Nothing is copied when the caller takes no output.
    pub fn complete(self, status: NtStatus, information: usize) {
        let (kind, id) = (self.kind(), self.id().0);
        let limit = match kind {
            IrpKind::Read { length } => length,
            IrpKind::DeviceControl { output, .. } if output != 0 => output,
            IrpKind::Write { .. } | IrpKind::DeviceControl { .. } => usize::MAX,
        };
        if information > limit && !status.is_error() && cpu::inside() {
            let strict = cpu::with_machine(|machine| machine.pool.is_special());
            if status.is_success() || strict {
                // The waiter must see the stopped machine, not a completed or lost request.
                core::mem::forget(self);
                cpu::bugcheck(
                    code::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [0x2000, id, information as u64, limit as u64],
                    format!("{kind:?} was completed with {information} bytes, but its caller takes {limit}"),
                );
            }
        }
        self.shared.buffer.give_back();
        *self.shared.state.lock() = IrpState::Completed(status, information);
        self.shared.done.notify_all();
    }
}

impl Drop for IrpRequest {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if *state == IrpState::Pending {
            *state = IrpState::Lost;
            self.shared.done.notify_all();
        }
    }
}

impl fmt::Debug for IrpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrpRequest")
            .field("id", &self.id())
            .field("file", &self.file)
            .field("kind", &self.kind())
            .finish()
    }
}

/// A registered device.
struct Device {
    name: String,
    sddl: String,
    driver: String,
    backend: Arc<dyn DeviceBackend>,
    open: AtomicUsize,
}

/// A device as it is visible without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// The name in the object directory, e.g. `\Device\Sluice`; empty for an unnamed device.
    pub name: String,
    /// The security descriptor it was created with, as SDDL.
    pub sddl: String,
    /// The service whose driver made it.
    pub driver: String,
    /// How many files are open on it.
    pub open_files: usize,
    /// The symbolic links to it.
    pub links: Vec<String>,
}

/// Devices, symbolic links and open files of one machine.
#[derive(Default)]
pub struct IoManager {
    namespace: Mutex<Namespace>,
    next: AtomicU64,
    wdm: wdm::State,
}

#[derive(Default)]
struct Namespace {
    /// By lower-case name.
    devices: BTreeMap<String, Arc<Device>>,
    /// Devices that were removed from the directory and may still have open files.
    deleted: Vec<Arc<Device>>,
    /// Lower-case link to (link as created, target).
    links: BTreeMap<String, (String, String)>,
    /// Requests not completed, for the leak report.
    pending: HashMap<IrpId, (String, Weak<Irp>)>,
}

impl fmt::Debug for IoManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoManager").field("devices", &self.devices()).finish_non_exhaustive()
    }
}

/// The canonical form of an object name: lower case, with one prefix for the DOS devices directory.
fn canonical(path: &str) -> String {
    const PREFIXES: [&str; 4] = [r"\\.\", r"\\?\", r"\DosDevices\", r"\GLOBAL??\"];
    let Some(rest) = PREFIXES.iter().find_map(|prefix| behind(path, prefix)) else { return String::new() };
    // `\??\Global` is a link to the directory of names for all sessions, the only one here.
    format!(r"\??\{}", behind(rest, r"Global\").unwrap_or(rest))
}

/// What follows a prefix.
fn behind<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = path.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn key(path: &str) -> String {
    let made_one = canonical(path);
    if made_one.is_empty() { path.to_lowercase() } else { made_one.to_lowercase() }
}

/// Whether two paths name the same object.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    key(one) == key(other)
}

impl IoManager {
    /// No device yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device into the object directory. `driver` is the service's name.
    ///
    /// STATUS_OBJECT_NAME_COLLISION when the name is taken, STATUS_OBJECT_NAME_INVALID when it does not begin with `\`.
    pub fn register_device(&self, name: &str, sddl: &str, backend: Arc<dyn DeviceBackend>, driver: &str) -> NtStatus {
        if !name.starts_with('\\') {
            return NtStatus::OBJECT_NAME_INVALID;
        }
        let device = Device {
            name: name.to_owned(),
            sddl: sddl.to_owned(),
            driver: driver.to_owned(),
            backend,
            open: AtomicUsize::new(0),
        };
        let mut space = self.namespace.lock();
        match space.devices.entry(key(name)) {
            std::collections::btree_map::Entry::Occupied(_) => NtStatus::OBJECT_NAME_COLLISION,
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Arc::new(device));
                NtStatus::SUCCESS
            }
        }
    }

    /// Removes a device from the directory, whether or not files are open on it.
    pub fn unregister_device(&self, name: &str) -> NtStatus {
        let removed = {
            let mut space = self.namespace.lock();
            let removed = space.devices.remove(&key(name));
            let open = removed.as_ref().filter(|device| device.open.load(Ordering::Acquire) != 0);
            let open = open.map(Arc::clone);
            space.deleted.extend(open);
            removed
        };
        // Dropped with no lock held: the backend may stop the machine.
        if removed.is_some() { NtStatus::SUCCESS } else { NtStatus::OBJECT_NAME_NOT_FOUND }
    }

    /// A driver was unloaded: removes what it left in the directory.
    pub(crate) fn driver_gone(&self, driver: &str, driver_object: usize) {
        let left: Vec<_> = {
            let mut space = self.namespace.lock();
            space.deleted.retain(|device| device.driver != driver);
            space.devices.extract_if(.., |_, device| device.driver == driver).collect()
        };
        drop(left);
        self.wdm.driver_gone(driver_object);
    }

    /// `IoCreateSymbolicLink`. STATUS_OBJECT_NAME_COLLISION when the link exists.
    pub fn create_symlink(&self, link: &str, target: &str) -> NtStatus {
        let mut space = self.namespace.lock();
        match space.links.entry(key(link)) {
            std::collections::btree_map::Entry::Occupied(_) => NtStatus::OBJECT_NAME_COLLISION,
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert((link.to_owned(), target.to_owned()));
                NtStatus::SUCCESS
            }
        }
    }

    /// `IoDeleteSymbolicLink`.
    pub fn delete_symlink(&self, link: &str) -> NtStatus {
        let removed = self.namespace.lock().links.remove(&key(link));
        if removed.is_some() { NtStatus::SUCCESS } else { NtStatus::OBJECT_NAME_NOT_FOUND }
    }

    /// The target of a symbolic link; None when no link has that name.
    #[must_use]
    pub fn symlink_target(&self, link: &str) -> Option<String> {
        self.namespace.lock().links.get(&key(link)).map(|(_, target)| target.clone())
    }

    /// All devices.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let space = self.namespace.lock();
        let info = |d: &Arc<Device>| DeviceInfo {
            name: d.name.clone(),
            sddl: d.sddl.clone(),
            driver: d.driver.clone(),
            open_files: d.open.load(Ordering::Acquire),
            links: space.links.values().filter(|(_, to)| key(to) == key(&d.name)).map(|(l, _)| l.clone()).collect(),
        };
        space.devices.values().map(info).collect()
    }

    /// How many files are open on devices of a driver, including devices deleted since.
    #[must_use]
    pub fn open_files(&self, driver: &str) -> usize {
        let space = self.namespace.lock();
        let devices = space.devices.values().chain(&space.deleted);
        devices.filter(|d| d.driver == driver).map(|d| d.open.load(Ordering::Acquire)).sum()
    }

    /// The requests that a driver has not completed.
    #[must_use]
    pub fn pending(&self, driver: &str) -> Vec<(IrpId, IrpKind)> {
        let mut space = self.namespace.lock();
        space.pending.retain(|_, (_, irp)| {
            irp.upgrade().is_some_and(|irp| !matches!(*irp.state.lock(), IrpState::Completed(..)))
        });
        let of_driver = space.pending.iter().filter(|(_, (owner, _))| owner == driver);
        let mut list: Vec<_> = of_driver.filter_map(|(id, (_, irp))| Some((*id, irp.upgrade()?.kind))).collect();
        list.sort_by_key(|(id, _)| *id);
        list
    }

    /// The links to a device of `driver`, or to no device.
    #[must_use]
    pub fn dangling_links(&self, driver: &str) -> Vec<String> {
        let links: Vec<String> = self.namespace.lock().links.values().map(|(link, _)| link.clone()).collect();
        links.into_iter().filter(|link| self.find(link).is_none_or(|d| d.driver == driver)).collect()
    }

    fn find(&self, path: &str) -> Option<Arc<Device>> {
        let space = self.namespace.lock();
        let mut name = key(path);
        // A link may point to a link; a cycle of links has no target.
        for _ in 0..32 {
            if let Some(device) = space.devices.get(&name) {
                return Some(Arc::clone(device));
            }
            name = key(&space.links.get(&name)?.1);
        }
        None
    }

    /// Runs `f` at PASSIVE_LEVEL on a thread of the calling process: this one, unless a driver calls.
    fn as_caller<R>(machine: &Arc<Machine>, f: impl FnOnce() -> R) -> Result<R, Bugcheck> {
        thread_local! {
            /// This thread as a `KTHREAD` of the program's process, and the number of its machine. Never freed: a
            /// pending request refers to its sender's thread.
            static CALLER: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
        }
        if cpu::inside() {
            return cpu::enter(machine, Irql::PASSIVE, f);
        }
        if CALLER.get().0 != machine.id() {
            CALLER.set((machine.id(), cpu::kpcr::new_thread(machine.caller_process())));
        }
        let (_, caller) = CALLER.get();
        cpu::enter(machine, Irql::PASSIVE, || {
            let processor = cpu::current_processor();
            let before = processor.thread();
            processor.set_thread(caller);
            let result = f();
            processor.set_thread(before);
            result
        })
    }

    /// A driver's entry point has returned with success.
    pub(crate) fn entry_returned(&self, driver_object: usize) {
        self.wdm.entry_returned(driver_object);
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// [`Self::open_as`] for LocalSystem.
    ///
    /// # Errors
    /// As there.
    pub fn open(&self, machine: &Arc<Machine>, path: &str) -> Result<OpenFile, NtStatus> {
        self.open_as(machine, path, &Token::local_system())
    }

    /// Opens a device by its name or a link to it, for reading and writing: `\Device\Sluice`, `\DosDevices\Sluice`,
    /// `\\.\Sluice`.
    ///
    /// # Errors
    /// STATUS_OBJECT_NAME_NOT_FOUND, STATUS_ACCESS_DENIED when the device's security descriptor does not grant `caller`
    /// that, or what the driver's create routine returned.
    pub fn open_as(&self, machine: &Arc<Machine>, path: &str, caller: &Token) -> Result<OpenFile, NtStatus> {
        let device = self.find(path).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        if !access::grants(&device.sddl, caller, access::READ_AND_WRITE) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if machine.driver_state(&device.driver) == Some(DriverState::UnloadPending) {
            return Err(NtStatus::NO_SUCH_DEVICE);
        }
        let file = FileId(self.number());
        device.open.fetch_add(1, Ordering::AcqRel);
        let backend = Arc::clone(&device.backend);
        let created = Self::as_caller(machine, || backend.create(file));
        match created {
            Ok(status) if status.is_success() => Ok(OpenFile::new(machine, device, file)),
            Ok(status) => {
                device.open.fetch_sub(1, Ordering::AcqRel);
                machine.file_closed(&device.driver);
                Err(status)
            }
            // The machine keeps the bugcheck; this open fails.
            Err(_) => Err(NtStatus::UNSUCCESSFUL),
        }
    }
}

#[cfg(test)]
mod tests;
