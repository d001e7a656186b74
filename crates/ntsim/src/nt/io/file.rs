//! Open files, and the requests that are under way on them.

use super::buffer::SystemBuffer;
use super::{Device, DeviceBackend, FileId, IoManager, Irp, IrpId, IrpKind, IrpRequest, IrpState};
use crate::cpu::{self, Bugcheck, code};
use crate::machine::Machine;
use nt_abi::Irql;
use nt_abi::NtStatus;
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a driver may take to complete a request it was asked to cancel before that counts as a violation.
const CANCEL_PATIENCE: Duration = Duration::from_secs(20);

/// A handle to a device. Dropping it closes it: cleanup, then close.
pub struct OpenFile {
    machine: Arc<Machine>,
    device: Arc<Device>,
    file: FileId,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("device", &self.device.name).field("file", &self.file).finish_non_exhaustive()
    }
}

impl OpenFile {
    /// A file that its driver has accepted and the device counts.
    pub(super) fn new(machine: &Arc<Machine>, device: Arc<Device>, file: FileId) -> Self {
        Self { machine: Arc::clone(machine), device, file }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.file
    }

    /// `DeviceIoControl`: sends `input`, takes at most `out_len` bytes, waits for completion.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn ioctl(&self, code: u32, input: &[u8], out_len: usize) -> Result<(NtStatus, Vec<u8>), Bugcheck> {
        self.start(IrpKind::DeviceControl { code, input: input.len(), output: out_len }, input)?.wait(None)
    }

    /// `ReadFile`: takes at most `length` bytes. After `timeout` the request is cancelled, and what comes back is what
    /// the driver then completed it with: STATUS_CANCELLED, or data that won the race.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn read(&self, length: usize, timeout: Option<Duration>) -> Result<(NtStatus, Vec<u8>), Bugcheck> {
        self.start(IrpKind::Read { length }, &[])?.wait(timeout)
    }

    /// `WriteFile`.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn write(&self, data: &[u8]) -> Result<NtStatus, Bugcheck> {
        Ok(self.start(IrpKind::Write { length: data.len() }, data)?.wait(None)?.0)
    }

    /// Sends a request without waiting (`FILE_FLAG_OVERLAPPED`).
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn start(&self, kind: IrpKind, input: &[u8]) -> Result<PendingIo, Bugcheck> {
        self.start_direct(kind, input, &[])
    }

    /// [`Self::start`] with what the caller's output buffer holds, for a control whose driver reads it
    /// (METHOD_IN_DIRECT, and METHOD_OUT_DIRECT, whose pages are readable too).
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn start_direct(&self, kind: IrpKind, input: &[u8], data: &[u8]) -> Result<PendingIo, Bugcheck> {
        let output = match kind {
            IrpKind::Read { length } => length,
            IrpKind::DeviceControl { output, .. } => output,
            IrpKind::Write { .. } => 0,
        };
        let irp = Arc::new(Irp {
            id: IrpId(self.machine.io.number()),
            kind,
            buffer: SystemBuffer::new(&self.machine, input, output),
            direct: data.into(),
            state: Mutex::new(IrpState::Pending),
            done: Condvar::new(),
        });
        let entry = (self.device.driver.clone(), Arc::downgrade(&irp));
        self.machine.io.namespace.lock().pending.insert(irp.id, entry);
        let request = IrpRequest { shared: Arc::clone(&irp), file: self.file };
        let backend = Arc::clone(&self.device.backend);
        IoManager::as_caller(&self.machine, || backend.submit(request))?;
        Ok(PendingIo { machine: Arc::clone(&self.machine), backend: Arc::clone(&self.device.backend), irp, output })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let backend = Arc::clone(&self.device.backend);
        let file = self.file;
        // A stopped machine keeps its bugcheck; there is nothing to close on it any more.
        let _stopped = IoManager::as_caller(&self.machine, || {
            backend.cleanup(file);
            backend.close(file);
        });
        if self.device.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The last file of a deleted device; the device itself goes with this handle.
            self.machine.io.namespace.lock().deleted.retain(|device| !Arc::ptr_eq(device, &self.device));
        }
        // Inside driver code (a driver that closes a handle) the unload waits for the next close outside.
        if !cpu::inside() {
            self.machine.file_closed(&self.device.driver);
        }
    }
}

/// A request under way. Dropping it forgets it without cancelling it.
pub struct PendingIo {
    machine: Arc<Machine>,
    backend: Arc<dyn DeviceBackend>,
    irp: Arc<Irp>,
    output: usize,
}

impl fmt::Debug for PendingIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingIo").field("irp", &self.irp.id).finish_non_exhaustive()
    }
}

impl PendingIo {
    /// Whether it is completed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(*self.irp.state.lock(), IrpState::Completed(..))
    }

    /// `CancelIoEx`.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn cancel(&self) -> Result<(), Bugcheck> {
        if self.is_done() {
            return Ok(());
        }
        IoManager::as_caller(&self.machine, || self.backend.cancel(self.irp.id))
    }

    /// Waits for completion; after `timeout` cancels, and then waits for what becomes of that. Returned are the bytes
    /// that `IoStatus.Information` counts.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine; a driver that does not complete a request it was asked to cancel, or
    /// that lost it, is one.
    pub fn wait(self, timeout: Option<Duration>) -> Result<(NtStatus, Vec<u8>), Bugcheck> {
        let (status, information) = self.completed(timeout)?;
        Ok((status, self.irp.buffer.first(self.copied(status, information))))
    }

    /// [`Self::wait`] for a caller that looks at its output buffer afterwards, which `output` becomes. Returned is
    /// `IoStatus.Information`. The driver of a control that is not METHOD_BUFFERED writes to the buffer itself,
    /// whatever it then completes the request with.
    ///
    /// # Errors
    /// As there.
    pub fn wait_into(self, output: &mut [u8], timeout: Option<Duration>) -> Result<(NtStatus, usize), Bugcheck> {
        const METHOD: u32 = 3;
        let (status, information) = self.completed(timeout)?;
        let written = match self.irp.kind {
            IrpKind::DeviceControl { code, .. } if code & METHOD != 0 => self.output,
            _ => self.copied(status, information),
        };
        for (to, from) in output.iter_mut().zip(self.irp.buffer.first(written)) {
            *to = from;
        }
        Ok((status, information))
    }

    /// How many bytes the I/O manager copies back: none when the status is an error (severity 3).
    fn copied(&self, status: NtStatus, information: usize) -> usize {
        if status.is_error() { 0 } else { information.min(self.output) }
    }

    fn completed(&self, timeout: Option<Duration>) -> Result<(NtStatus, usize), Bugcheck> {
        let mut deadline = timeout.map(|t| Instant::now() + t);
        let mut cancelled = false;
        loop {
            if let Some(result) = self.wait_until(deadline)? {
                return Ok(result);
            }
            if cancelled {
                return Err(self.violation("was asked to cancel", "and did not complete it"));
            }
            self.cancel()?;
            cancelled = true;
            deadline = Some(Instant::now() + CANCEL_PATIENCE);
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<(NtStatus, usize)>, Bugcheck> {
        /// Another thread may stop the machine, which completes nothing.
        const LOOK: Duration = Duration::from_millis(50);
        let mut state = self.irp.state.lock();
        loop {
            match *state {
                IrpState::Completed(status, information) => return Ok(Some((status, information))),
                IrpState::Lost => {
                    drop(state);
                    return Err(self.violation("was given", "and lost it: nobody can complete it any more"));
                }
                IrpState::Pending => {}
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return Ok(None);
            }
            let look = Instant::now() + LOOK;
            self.irp.done.wait_until(&mut state, deadline.map_or(look, |d| d.min(look)));
            if *state == IrpState::Pending {
                self.machine.check_running()?;
            }
        }
    }

    fn violation(&self, was: &str, did: &str) -> Bugcheck {
        let why = format!("the driver {was} {:?} {did}", self.irp.kind);
        let stopped = cpu::enter(&self.machine, Irql::PASSIVE, || {
            cpu::bugcheck(code::DRIVER_VERIFIER_IOMANAGER_VIOLATION, [0, self.irp.id.0, 0, 0], why.clone());
        });
        match stopped {
            Err(bugcheck) => bugcheck,
            Ok(()) => unreachable!("a bugcheck does not return"),
        }
    }
}
