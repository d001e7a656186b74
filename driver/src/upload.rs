//! A policy image on its way into the driver: one at a time, of one handle, once in nonpaged pool.

use alloc::vec::Vec;

use kernel::{
    memory::{try_append, try_reserve},
    spin::SpinLock,
    status::{NtResult, NtStatus},
    wdf::FileId,
};
use sluice_protocol::{
    ioctl::{MAX_PART_BYTES, MAX_POLICY_BYTES},
    upload::{Begin, Part},
};
use zerocopy::FromBytes;

/// An image of which some bytes have arrived.
struct Upload {
    file: FileId,
    length: usize,
    image: Vec<u8>,
}

/// The one upload there can be. IOCTLs are handled one at a time; only the close of a file can run beside one.
pub(crate) struct Uploads {
    current: SpinLock<Option<Upload>>,
}

impl Uploads {
    pub(crate) const fn new() -> Self {
        Self { current: SpinLock::new(None) }
    }

    /// `file` announces an image; what it has uploaded before is dropped. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// STATUS_INVALID_PARAMETER if the input is not a valid length, STATUS_DEVICE_BUSY while another file uploads,
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub(crate) fn begin(&self, file: FileId, input: &[u8]) -> NtResult<()> {
        let begin = Begin::read_from_bytes(input).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        let length = usize::try_from(begin.bytes).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        if length == 0 || length > MAX_POLICY_BYTES {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if self.current.lock().as_ref().is_some_and(|upload| upload.file != file) {
            return Err(NtStatus::DEVICE_BUSY);
        }
        // First, or both would be in pool at the same time.
        self.abandon(file);
        let image = try_reserve(length)?;
        *self.current.lock() = Some(Upload { file, length, image });
        Ok(())
    }

    /// Takes the next part from `file`. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// STATUS_NOT_FOUND if it has begun no upload, STATUS_INVALID_PARAMETER for a part that is not the next one.
    pub(crate) fn part(&self, file: FileId, input: &[u8]) -> NtResult<()> {
        let (part, bytes) = Part::read_from_prefix(input).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        if bytes.is_empty() || bytes.len() > MAX_PART_BYTES {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let mut current = self.current.lock();
        let upload = current.as_mut().filter(|upload| upload.file == file).ok_or(NtStatus::NOT_FOUND)?;
        let left = upload.length.saturating_sub(upload.image.len());
        if part.offset != upload.image.len() as u64 || bytes.len() > left {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        try_append(&mut upload.image, bytes)
    }

    /// The image that `file` has uploaded; the upload is over. PASSIVE_LEVEL.
    ///
    /// # Errors
    /// STATUS_NOT_FOUND if it has begun no upload, STATUS_INVALID_PARAMETER if parts are missing: the upload stays then.
    pub(crate) fn take(&self, file: FileId) -> NtResult<Vec<u8>> {
        let mut current = self.current.lock();
        let upload = current.as_ref().filter(|upload| upload.file == file).ok_or(NtStatus::NOT_FOUND)?;
        if upload.image.len() != upload.length {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        current.take().map(|upload| upload.image).ok_or(NtStatus::NOT_FOUND)
    }

    /// Drops what `file` has uploaded so far. IRQL <= DISPATCH_LEVEL.
    pub(crate) fn abandon(&self, file: FileId) {
        // The lock is released before the image is freed.
        let abandoned = self.current.lock().take_if(|upload| upload.file == file);
        drop(abandoned);
    }
}
