//! A packet in memory, with the `NET_BUFFER_LIST` that shows it to drivers.

use crate::ndis::{Mdl, NetBuffer, NetBufferList};
use crate::words::Words;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// The reference count of a `NET_BUFFER_LIST`. Every list that this program makes points to its own from
/// `NdisReserved[0]`.
#[derive(Debug)]
pub struct ListOwner {
    references: AtomicU32,
    /// Frees the list and all that belongs to it; called for the last reference.
    release: unsafe fn(*mut NetBufferList),
}

impl ListOwner {
    /// An owner with one reference.
    #[must_use]
    pub const fn new(release: unsafe fn(*mut NetBufferList)) -> Self {
        Self { references: AtomicU32::new(1), release }
    }
}

/// Adds a reference to a list (`FwpsReferenceNetBufferList0`): it and its data stay until [`dereference`].
///
/// # Safety
/// `list` is a live list that this program made (a packet's, or one allocated through an NDIS or Fwps function).
pub unsafe fn reference(list: *mut NetBufferList) {
    // SAFETY: the list is live by this function's contract, and so is its owner.
    let owner = unsafe { &*(*list).ndis_reserved[0].cast::<ListOwner>() };
    owner.references.fetch_add(1, Ordering::Relaxed);
}

/// Drops a reference (`FwpsDereferenceNetBufferList0`); the last one frees the list.
///
/// # Safety
/// `list` is a live list that this program made and the caller owns one reference to it, which it gives up.
pub unsafe fn dereference(list: *mut NetBufferList) {
    // SAFETY: the list is live as long as the caller's reference exists.
    let owner = unsafe { &*(*list).ndis_reserved[0].cast::<ListOwner>() };
    let release = owner.release;
    if owner.references.fetch_sub(1, Ordering::Release) == 1 {
        fence(Ordering::Acquire);
        // SAFETY: that was the last reference, so nothing else uses the list.
        unsafe { release(list) };
    }
}

/// The number of references to a list.
///
/// # Safety
/// As for [`reference`].
#[must_use]
pub unsafe fn references(list: *mut NetBufferList) -> u32 {
    // SAFETY: as in `reference`.
    let owner = unsafe { &*(*list).ndis_reserved[0].cast::<ListOwner>() };
    owner.references.load(Ordering::Acquire)
}

/// What a [`PacketBuffer`] points to; drivers hold pointers into it.
#[repr(C)]
struct Inner {
    list: NetBufferList, // first: a pointer to the list is a pointer to its Inner
    buffer: NetBuffer,
    mdl: Mdl,
    owner: ListOwner,
    storage: Words,
    capacity: usize,
}

/// A packet's bytes and the `NET_BUFFER_LIST`, `NET_BUFFER` and `MDL` over them.
///
/// The structures are made once and set again for each indication, so a packet costs no allocation. A driver may keep
/// the list beyond the classify call by referencing it ([`PacketBuffer::is_kept`]): then this buffer must not be used
/// for the next packet, and the list outlives it until the driver's last dereference.
#[derive(Debug)]
pub struct PacketBuffer {
    inner: NonNull<Inner>,
    len: usize,
}

// SAFETY: the buffer owns what it points to; drivers that kept a reference go through the atomic count.
unsafe impl Send for PacketBuffer {}

impl PacketBuffer {
    /// A buffer for packets of up to `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let inner = Box::into_raw(Box::new(Inner {
            list: NetBufferList::EMPTY,
            buffer: NetBuffer::EMPTY,
            mdl: Mdl::EMPTY,
            owner: ListOwner::new(release),
            storage: Words::for_bytes(capacity),
            capacity,
        }));
        // SAFETY: just made; the links stay valid because an Inner never moves.
        unsafe {
            (*inner).list.first_net_buffer = &raw mut (*inner).buffer;
            (*inner).list.ndis_reserved[0] = (&raw mut (*inner).owner).cast();
            (*inner).buffer.mdl_chain = &raw mut (*inner).mdl;
            Self { inner: NonNull::new_unchecked(inner), len: 0 }
        }
    }

    /// A buffer holding a copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        buffer.fill(bytes);
        buffer
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the storage lives as long as self and has at least `len` bytes; drivers write to it only while self
        // is lent to an indication.
        unsafe { core::slice::from_raw_parts((*self.inner.as_ptr()).storage.as_ptr(), self.len) }
    }

    /// All of the memory, to read a packet into; call [`PacketBuffer::set_len`] after.
    pub fn storage_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, with `capacity` bytes, and `&mut self` makes this the only user.
        unsafe {
            let inner = self.inner.as_ptr();
            core::slice::from_raw_parts_mut((*inner).storage.as_ptr(), (*inner).capacity)
        }
    }

    /// Sets the packet's length in bytes, at most the capacity.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.storage_mut().len());
    }

    /// Replaces the packet with a copy of `bytes`, growing if needed.
    pub fn fill(&mut self, bytes: &[u8]) {
        if bytes.len() > self.storage_mut().len() || self.is_kept() {
            *self = Self::new(bytes.len());
        }
        self.storage_mut()[..bytes.len()].copy_from_slice(bytes);
        self.len = bytes.len();
    }

    /// Whether a driver still holds a reference, so that the memory must be left alone.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        // SAFETY: self holds a reference, so the Inner is live.
        unsafe { (*self.inner.as_ptr()).owner.references.load(Ordering::Acquire) > 1 }
    }

    /// The list, with its MDL starting at byte `start` of the packet and its data (`DataOffset`) at byte `data`, up to
    /// byte `end`. Retreating does not reach what is before `start`, as on Windows, where those headers are not built
    /// yet.
    ///
    /// # Panics
    /// Unless `start <= data <= end <=` the packet's length, which is a bug of the shim.
    pub fn list(&mut self, start: usize, data: usize, end: usize) -> *mut NetBufferList {
        assert!(start <= data && data <= end && end <= self.len, "window {start}..{data}..{end} of {} bytes", self.len);
        let inner = self.inner.as_ptr();
        // SAFETY: the Inner is live, and used by self only; a driver that kept the list may read it, but not rely on
        // where it points after classify.
        unsafe {
            let base = (*inner).storage.as_ptr().add(start);
            (*inner).mdl.next = core::ptr::null_mut();
            (*inner).mdl.describe(base, (end - start) as u32);
            let buffer = &raw mut (*inner).buffer;
            (*buffer).current_mdl = &raw mut (*inner).mdl;
            (*buffer).current_mdl_offset = (data - start) as u32;
            (*buffer).data_offset = (data - start) as u32;
            (*buffer).data_length = (end - data) as u64;
            (*buffer).mdl_chain = &raw mut (*inner).mdl;
            (*inner).list.next = core::ptr::null_mut();
            &raw mut (*inner).list
        }
    }

    /// The current `DataOffset`: a callout must leave it as it found it.
    #[must_use]
    pub fn data_offset(&self) -> u32 {
        // SAFETY: as in `is_kept`.
        unsafe { (*self.inner.as_ptr()).buffer.data_offset }
    }
}

impl Drop for PacketBuffer {
    fn drop(&mut self) {
        // SAFETY: self owns one reference.
        unsafe { dereference(&raw mut (*self.inner.as_ptr()).list) };
    }
}

/// # Safety
/// `list` is the first member of an [`Inner`] of [`PacketBuffer::new`], to which nothing else refers.
unsafe fn release(list: *mut NetBufferList) {
    // SAFETY: see above.
    drop(unsafe { Box::from_raw(list.cast::<Inner>()) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_shows_the_window() {
        let mut packet = PacketBuffer::copy_of(b"IIIITTTTdata");
        let list = packet.list(0, 8, 12);
        // SAFETY: the packet is live.
        let (buffer, mdl) = unsafe { (&*(*list).first_net_buffer, &*(*(*list).first_net_buffer).mdl_chain) };
        assert_eq!((buffer.data_offset, buffer.data_length, buffer.current_mdl_offset), (8, 4, 8));
        assert_eq!(mdl.byte_count, 12);
        assert_eq!(mdl.start_va.addr() % 4096, 0);
        assert_eq!(mdl.start_va.addr() + mdl.byte_offset as usize, mdl.mapped_system_va.addr());
        // SAFETY: the MDL describes the packet's storage.
        let seen = unsafe { core::slice::from_raw_parts(mdl.mapped_system_va.cast::<u8>(), 12) };
        assert_eq!(seen, b"IIIITTTTdata");
    }

    #[test]
    fn headers_before_the_window_are_out_of_reach() {
        let mut packet = PacketBuffer::copy_of(b"IIIITTTTdata");
        let list = packet.list(4, 4, 12);
        // SAFETY: the packet is live.
        let buffer = unsafe { &*(*list).first_net_buffer };
        assert_eq!((buffer.data_offset, buffer.data_length), (0, 8));
    }

    #[test]
    fn a_kept_list_outlives_its_buffer() {
        let mut packet = PacketBuffer::copy_of(b"keep");
        let list = packet.list(0, 0, 4);
        assert!(!packet.is_kept());
        // SAFETY: the list is live.
        unsafe { reference(list) };
        assert!(packet.is_kept());
        drop(packet);
        // SAFETY: our reference keeps the list and its data.
        unsafe {
            let mdl = (*(*list).first_net_buffer).mdl_chain;
            assert_eq!(*(*mdl).mapped_system_va.cast::<[u8; 4]>(), *b"keep");
            dereference(list);
        }
    }

    #[test]
    fn filling_a_kept_buffer_leaves_the_kept_bytes_alone() {
        let mut packet = PacketBuffer::copy_of(b"first");
        let list = packet.list(0, 0, 5);
        // SAFETY: the list is live; the second reference is ours until dereferenced below.
        unsafe { reference(list) };
        packet.fill(b"other");
        assert_eq!(packet.bytes(), b"other");
        // SAFETY: as above.
        unsafe {
            let mdl = (*(*list).first_net_buffer).mdl_chain;
            assert_eq!(*(*mdl).mapped_system_va.cast::<[u8; 5]>(), *b"first");
            dereference(list);
        }
    }
}
