//! An image in memory.

use super::error::LoadError;
use super::image::{Image, Section};
use crate::cpu::{self, CodeModule};
use core::ops::Range;
use core::ptr;
use std::sync::Arc;

/// `__security_cookie` as the linker leaves it; the loader replaces it (`/GS`, "Buffer Security Check").
const DEFAULT_COOKIE: u64 = 0x0000_2b99_2ddf_a232;
/// The bits of a cookie on x64: `__security_check_cookie` treats any bit in the upper sixteen as an overrun.
const COOKIE_BITS: u64 = 0x0000_FFFF_FFFF_FFFF;
const PAGE: usize = 4096;

/// A driver's image in memory. After [`Mapped::unload`] its addresses stay reserved and inaccessible forever, so that a
/// call into an unloaded driver faults there.
#[derive(Debug)]
pub struct Mapped {
    base: *mut u8,
    size: usize,
    sections: Vec<Section>,
}

// SAFETY: the pointer is an address; the memory behind it is the driver's, and this type only changes its protection.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps `image`, relocated, with `slots` (RVA, address) filled in and its sections protected. `name` is its name in
    /// stack walks.
    ///
    /// # Errors
    /// [`LoadError::NoMemory`].
    pub(crate) fn new(mut image: Image, name: &str, slots: &[(u32, u64)], cookie: u64) -> Result<Self, LoadError> {
        let size = image.bytes.len();
        let no_memory = || LoadError::NoMemory { size, error: std::io::Error::last_os_error().to_string() };
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(no_memory());
        }
        let mapped = Self { base: base.cast(), size, sections: std::mem::take(&mut image.sections) };
        image.relocate(mapped.base as u64);
        for &(slot, address) in slots {
            image.put(slot, address);
        }
        if let Some(rva) = image.security_cookie
            && image.get(rva) == Some(DEFAULT_COOKIE)
        {
            image.put(rva, cookie & COOKIE_BITS);
        }
        // SAFETY: the mapping has exactly this size, and nothing else points to it yet.
        unsafe { ptr::copy_nonoverlapping(image.bytes.as_ptr(), mapped.base, size) };
        mapped.protect(0..size, libc::PROT_READ).map_err(|()| no_memory())?;
        for section in &mapped.sections {
            let mut protection = libc::PROT_READ;
            if section.writable {
                protection |= libc::PROT_WRITE;
            }
            if section.executable {
                protection |= libc::PROT_EXEC;
            }
            mapped.protect(section.range(), protection).map_err(|()| no_memory())?;
        }
        cpu::register_module(&CodeModule {
            name: name.to_owned(),
            range: mapped.range(),
            image: Arc::from(image.bytes),
            pdata: image.pdata,
        });
        Ok(mapped)
    }

    /// Its address.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.base as u64..self.base as u64 + self.size as u64
    }

    /// The address of an RVA.
    #[must_use]
    pub fn address(&self, rva: u32) -> u64 {
        self.base as u64 + u64::from(rva)
    }

    /// Discards the sections that are only needed until the entry point has returned.
    pub(crate) fn discard_init(&self) {
        for section in self.sections.iter().filter(|s| s.discardable && s.executable) {
            // Without protection it would still run; a failure changes nothing else.
            let _unchanged = self.protect(section.range(), libc::PROT_NONE);
        }
    }

    /// Makes the whole image inaccessible.
    pub(crate) fn unload(&self, name: &str) {
        let _unchanged = self.protect(0..self.size, libc::PROT_NONE);
        cpu::unregister_module(self.base as u64);
        cpu::register_module(&CodeModule {
            name: format!("<unloaded>_{name}"),
            range: self.range(),
            image: Arc::from([]),
            pdata: 0..0,
        });
    }

    fn protect(&self, range: Range<usize>, protection: libc::c_int) -> Result<(), ()> {
        let end = range.end.next_multiple_of(PAGE).min(self.size);
        if range.start >= end {
            return Ok(());
        }
        // SAFETY: page-aligned and inside this image's own mapping.
        let done = unsafe { libc::mprotect(self.base.add(range.start).cast(), end - range.start, protection) };
        if done == 0 { Ok(()) } else { Err(()) }
    }
}

impl Section {
    fn range(&self) -> Range<usize> {
        self.rva as usize..self.rva as usize + self.size as usize
    }
}

impl Image {
    fn get(&self, rva: u32) -> Option<u64> {
        let at = rva as usize;
        self.bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn put(&mut self, rva: u32, value: u64) {
        let at = rva as usize;
        if let Some(bytes) = self.bytes.get_mut(at..at + 8) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Moves every address in the image from its preferred base to `base`.
    fn relocate(&mut self, base: u64) {
        let delta = base.wrapping_sub(self.preferred_base);
        for rva in std::mem::take(&mut self.relocations) {
            if let Some(value) = self.get(rva) {
                self.put(rva, value.wrapping_add(delta));
            }
        }
    }
}
