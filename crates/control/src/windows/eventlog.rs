//! The Windows event log: source Sluicegate in the log Application, whose messages are in sluice.exe.

use super::{check, last_error, wide};
use crate::events::Item;
use crate::service::Notice;
use sluice_host::{HostError, HostResult};
use sluice_protocol::eventlog::{BLOCKED, Entry, MISSING, NOT_RESTORED, PERMITTED, POLICY, SOURCE, TROUBLE};
use std::ptr::{null, null_mut};
use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, HANDLE};
use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE, RegisterEventSourceW,
    ReportEventW,
};
use windows_sys::Win32::System::Registry::{HKEY_LOCAL_MACHINE, REG_DWORD, REG_SZ, RegDeleteTreeW, RegSetKeyValueW};

/// The most UTF-16 units of a string of an event (ReportEventW: 31,839 characters).
const MOST_UNITS: usize = 31_839;

/// An open source of events.
#[derive(Debug)]
pub struct EventLog(HANDLE);

// SAFETY: ReportEventW may be called from any thread, and the handle is closed by its only owner.
unsafe impl Send for EventLog {}

impl Drop for EventLog {
    fn drop(&mut self) {
        // SAFETY: the handle came from a successful registration and is closed only here.
        unsafe { DeregisterEventSource(self.0) };
    }
}

fn key() -> HostResult<Vec<u16>> {
    wide("RegSetKeyValueW", &format!(r"SYSTEM\CurrentControlSet\Services\EventLog\Application\{SOURCE}"))
}

impl EventLog {
    /// Tells Windows that the source's messages are in this program.
    ///
    /// # Errors
    /// The registry cannot be written.
    pub(super) fn register(program: &str) -> HostResult<()> {
        const OPERATION: &str = "RegSetKeyValueW";
        let key = key()?;
        let set = |name: &str, kind, data: *const core::ffi::c_void, bytes: usize| -> HostResult<()> {
            let name = wide(OPERATION, name)?;
            // SAFETY: both names are NUL-terminated; the data is as long as said; all outlive the call, which makes the
            // key if there is none.
            let result =
                unsafe { RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.as_ptr(), name.as_ptr(), kind, data, bytes as u32) };
            check(OPERATION, result)
        };
        let program = wide(OPERATION, program)?;
        set("EventMessageFile", REG_SZ, program.as_ptr().cast(), program.len() * size_of::<u16>())?;
        let types = EVENTLOG_ERROR_TYPE | EVENTLOG_WARNING_TYPE | EVENTLOG_INFORMATION_TYPE;
        let types = u32::from(types);
        set("TypesSupported", REG_DWORD, (&raw const types).cast(), size_of::<u32>())
    }

    /// Takes that back.
    ///
    /// # Errors
    /// The registry cannot be written.
    pub(super) fn unregister() -> HostResult<()> {
        let key = key()?;
        // SAFETY: the name is NUL-terminated and outlives the call.
        match unsafe { RegDeleteTreeW(HKEY_LOCAL_MACHINE, key.as_ptr()) } {
            ERROR_FILE_NOT_FOUND => Ok(()),
            result => check("RegDeleteTreeW", result),
        }
    }

    /// Opens the source.
    ///
    /// # Errors
    /// The event log service refused.
    pub fn open() -> HostResult<Self> {
        const OPERATION: &str = "RegisterEventSourceW";
        let source = wide(OPERATION, SOURCE)?;
        // SAFETY: a null server is this machine; the name is NUL-terminated and outlives the call.
        let handle = unsafe { RegisterEventSourceW(null(), source.as_ptr()) };
        if handle.is_null() { Err(last_error(OPERATION)) } else { Ok(Self(handle)) }
    }

    /// Writes what there is to say. What the log does not take is lost there; the file has it.
    pub fn report(&self, notice: &Notice<'_>) {
        let (entry, strings) = match notice {
            Notice::Item(Item::Event(event)) => {
                let entry = if event.verdict == "permit" { PERMITTED } else { BLOCKED };
                let endpoint = |address: &std::net::IpAddr, port| std::net::SocketAddr::new(*address, port).to_string();
                let strings = vec![
                    event.to_string(),
                    event.verdict.to_string(),
                    event.direction.to_string(),
                    event.protocol.to_string(),
                    endpoint(&event.local_address, event.local_port),
                    endpoint(&event.remote_address, event.remote_port),
                    event.application.clone().unwrap_or_default(),
                    event.rule_name.clone().unwrap_or_default(),
                    event.name.clone().unwrap_or_default(),
                ];
                (entry, strings)
            }
            Notice::Item(Item::Lost { count }) => {
                (MISSING, vec![format!("{count} decisions were lost: they came faster than they were read")])
            }
            Notice::Item(Item::Unrecorded { count }) => {
                (MISSING, vec![format!("{count} decisions were not recorded: too many of one source in a second")])
            }
            Notice::Item(Item::NotRestored { why, .. }) => {
                (NOT_RESTORED, vec![format!("The kept policy was not put in force when the driver was loaded: {why}")])
            }
            Notice::Kept(kept) if kept.lacks.is_empty() => (
                POLICY,
                vec![format!(
                    "In force: {} with {} rules (seen: {})",
                    kept.policy,
                    kept.rules,
                    kept.because.join(", ")
                )],
            ),
            Notice::Kept(kept) => (TROUBLE, vec![format!("Not in force: {}: {}", kept.policy, kept.lacks.join("; "))]),
            Notice::Failed(error) => (TROUBLE, vec![format!("The policy is not kept up to date: {error}")]),
            Notice::NotRead(error) => (TROUBLE, vec![format!("Decisions are not read: {error}")]),
        };
        // There is nobody to tell that the log is full.
        let _ = self.write(entry, &strings);
    }

    /// Writes that something does not work.
    pub fn trouble(&self, what: &str) {
        // As above.
        let _ = self.write(TROUBLE, &[what.to_owned()]);
    }

    fn write(&self, entry: Entry, strings: &[String]) -> Result<(), HostError> {
        let kind = match entry.level {
            2 => EVENTLOG_ERROR_TYPE,
            3 => EVENTLOG_WARNING_TYPE,
            _ => EVENTLOG_INFORMATION_TYPE,
        };
        let units = |text: &String| -> Vec<u16> {
            let plain = text.encode_utf16().filter(|unit| *unit != 0);
            plain.take(MOST_UNITS - 1).chain([0]).collect()
        };
        let strings: Vec<Vec<u16>> = strings.iter().map(units).collect();
        let pointers: Vec<*const u16> = strings.iter().map(|units| units.as_ptr()).collect();
        // SAFETY: the handle is open; there are as many pointers as said, each to a NUL-terminated string, and all outlive
        // the call; there is no user and no data.
        let written = unsafe {
            ReportEventW(self.0, kind, 0, entry.id, null_mut(), pointers.len() as u16, 0, pointers.as_ptr(), null())
        };
        if written == 0 { Err(last_error("ReportEventW")) } else { Ok(()) }
    }
}
