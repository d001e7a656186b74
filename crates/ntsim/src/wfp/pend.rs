//! The classify context: what FwpsAcquireClassifyHandle0 turns into a handle.

use super::layers::LayerId;
use core::ffi::c_void;

/// What `classifyContext` points to during one classify call.
#[repr(C)]
#[derive(Debug)]
pub(super) struct ClassifyContext {
    /// Tells a context from any other pointer a driver may pass.
    magic: u64,
    layer: LayerId,
}

const MAGIC: u64 = 0x7466_6c43_7066_774e;

impl ClassifyContext {
    pub(super) fn new(layer: LayerId) -> Self {
        Self { magic: MAGIC, layer }
    }

    /// What the driver is given; opaque to it.
    pub(super) fn as_ptr(&self) -> *const c_void {
        core::ptr::from_ref(self).cast()
    }

    /// Reads a context back from a driver's pointer.
    ///
    /// # Safety
    /// `pointer` is null or readable for the size of a context.
    pub(super) unsafe fn read<'a>(pointer: *const c_void) -> Option<&'a Self> {
        // SAFETY: the caller's promise; whether it is a context at all is checked by its magic number.
        unsafe { pointer.cast::<Self>().as_ref() }.filter(|context| context.magic == MAGIC)
    }

    pub(super) fn layer(&self) -> LayerId {
        self.layer
    }
}
