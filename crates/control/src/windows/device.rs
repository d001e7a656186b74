//! The control device, with overlapped I/O so that a read can be cancelled.

use super::refusal;
use sluice_host::{Device, HostError, HostResult, code};
use std::fs::{File, OpenOptions};
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::time::Duration;
use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_OPERATION_ABORTED, GetLastError, WAIT_OBJECT_0};
use windows_sys::Win32::Storage::FileSystem::{FILE_FLAG_OVERLAPPED, ReadFile};
use windows_sys::Win32::System::IO::{CancelIoEx, DeviceIoControl, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForSingleObject};

/// An open device.
pub(super) struct Handle(File);

impl Handle {
    pub(super) fn open(path: &str) -> HostResult<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(FILE_FLAG_OVERLAPPED).open(path);
        file.map(Self).map_err(|error| match error.raw_os_error() {
            Some(code) => refusal("CreateFileW", code.cast_unsigned()),
            None => HostError::with_message("CreateFileW", code::ERROR_INVALID_PARAMETER, error.to_string()),
        })
    }

    /// Starts an operation with its own OVERLAPPED and waits until it completes, at most `wait` milliseconds before
    /// cancelling it. Returns how many bytes came, `None` when it was cancelled.
    ///
    /// `start` returns what the Windows call returned. What it passes to that call must outlive this function.
    fn run(&self, operation: &str, wait: u32, start: impl FnOnce(*mut OVERLAPPED) -> i32) -> HostResult<Option<usize>> {
        // SAFETY: no name, default security; a manual-reset event in the unsignalled state.
        let event = unsafe { CreateEventW(null(), 1, 0, null()) };
        if event.is_null() {
            return Err(super::last_error("CreateEventW"));
        }
        // SAFETY: the call succeeded, so this is an open handle that nobody else closes.
        let event = unsafe { OwnedHandle::from_raw_handle(event) };
        let mut overlapped = OVERLAPPED { hEvent: event.as_raw_handle(), ..OVERLAPPED::default() };
        let overlapped = &raw mut overlapped;
        if start(overlapped) == 0 {
            // SAFETY: reads a value of this thread.
            let error = unsafe { GetLastError() };
            if error != ERROR_IO_PENDING {
                return Err(refusal(operation, error));
            }
            // SAFETY: the event is open until the end of this function.
            if wait != INFINITE && unsafe { WaitForSingleObject(event.as_raw_handle(), wait) } != WAIT_OBJECT_0 {
                // The operation may be pending or complete; the wait below tells which.
                // SAFETY: the file is open and `overlapped` is the one the operation was started with.
                unsafe { CancelIoEx(self.0.as_raw_handle(), overlapped) };
            }
        }
        let mut bytes = 0;
        // SAFETY: the file is open; waiting (the last argument) makes the call return only when the system is done
        // with `overlapped` and with the caller's buffers, all of which live until then.
        if unsafe { GetOverlappedResult(self.0.as_raw_handle(), overlapped, &raw mut bytes, 1) } != 0 {
            return Ok(Some(bytes as usize));
        }
        // SAFETY: reads a value of this thread.
        match unsafe { GetLastError() } {
            ERROR_OPERATION_ABORTED if wait != INFINITE => Ok(None),
            error => Err(refusal(operation, error)),
        }
    }
}

impl Device for Handle {
    fn control(&self, code: u32, input: &[u8], output: &mut [u8]) -> HostResult<usize> {
        const OPERATION: &str = "DeviceIoControl";
        let (input_length, output_length) = (length(OPERATION, input)?, length(OPERATION, output)?);
        let bytes = self.run(OPERATION, INFINITE, |overlapped| {
            // SAFETY: both buffers are as long as said and outlive `run`, which waits for the end of the operation;
            // with FILE_FLAG_OVERLAPPED the count may be null.
            unsafe {
                DeviceIoControl(
                    self.0.as_raw_handle(),
                    code,
                    input.as_ptr().cast(),
                    input_length,
                    output.as_mut_ptr().cast(),
                    output_length,
                    null_mut(),
                    overlapped,
                )
            }
        })?;
        Ok(bytes.unwrap_or(0))
    }

    fn read(&self, output: &mut [u8], timeout: Duration) -> HostResult<usize> {
        let length = length("ReadFile", output)?;
        let wait = u32::try_from(timeout.as_millis()).unwrap_or(INFINITE - 1).min(INFINITE - 1);
        let bytes = self.run("ReadFile", wait, |overlapped| {
            // SAFETY: the buffer is as long as said and outlives `run`, which waits for the end of the operation.
            unsafe { ReadFile(self.0.as_raw_handle(), output.as_mut_ptr().cast(), length, null_mut(), overlapped) }
        })?;
        Ok(bytes.unwrap_or(0))
    }
}

fn length(operation: &str, buffer: &[u8]) -> HostResult<u32> {
    u32::try_from(buffer.len()).map_err(|_| {
        let what = format!("a buffer of {} bytes is too long for a request", buffer.len());
        HostError::with_message(operation, code::ERROR_INVALID_PARAMETER, what)
    })
}
