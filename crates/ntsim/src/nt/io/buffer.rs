//! The system buffers of requests.

use crate::cpu;
use crate::machine::Machine;
use crate::nt::pool::Kind;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// The system buffer of a buffered request: the larger of input and output, as on Windows. It is a pool block, so that
/// a driver that writes past its end, or after it completed the request, is found as for a block of its own.
pub(super) struct SystemBuffer {
    machine: Weak<Machine>,
    length: usize,
    state: Mutex<BufferState>,
}

enum BufferState {
    /// At this address, until the request is completed.
    Lent(usize),
    /// What the driver left in it when it completed the request.
    Returned(Vec<u8>),
}

impl SystemBuffer {
    /// The I/O manager's tag on Windows.
    const TAG: u32 = u32::from_le_bytes(*b"Io  ");

    /// One that holds `input`.
    pub(super) fn new(machine: &Arc<Machine>, input: &[u8], output: usize) -> Self {
        let length = input.len().max(output);
        let address = machine.pool.allocate_for(0, Self::TAG, length, Kind::NonPaged);
        assert!(!address.is_null(), "no memory for a request of {length} bytes");
        // SAFETY: the block is at least as long as the input, and nobody else has it yet.
        unsafe { core::ptr::copy_nonoverlapping(input.as_ptr(), address, input.len()) };
        Self { machine: Arc::downgrade(machine), length, state: Mutex::new(BufferState::Lent(address as usize)) }
    }

    /// Its address, null once the request is completed.
    pub(super) fn address(&self) -> *mut u8 {
        match *self.state.lock() {
            BufferState::Lent(address) => address as *mut u8,
            BufferState::Returned(_) => core::ptr::null_mut(),
        }
    }

    /// The request is completed: copies the block's content and frees it, which stops the machine when the driver wrote
    /// around it.
    pub(super) fn give_back(&self) {
        let address = self.address();
        let Some(machine) = self.machine.upgrade().filter(|_| !address.is_null()) else { return };
        // SAFETY: within the block, which is lent until here; the driver has no right to it any more, and one that
        // writes even so tears only this copy.
        let bytes = unsafe { core::slice::from_raw_parts(address, self.length) }.to_vec();
        *self.state.lock() = BufferState::Returned(bytes);
        drop(machine);
        // By reference: a bugcheck abandons this stack and drops nothing.
        if cpu::inside() {
            cpu::with_machine(|machine| machine.pool.free(address, Self::TAG));
        } else if let Some(machine) = self.machine.upgrade() {
            machine.pool.discard(address);
        }
    }

    /// The first bytes of a completed request's.
    pub(super) fn first(&self, length: usize) -> Vec<u8> {
        match &*self.state.lock() {
            BufferState::Returned(bytes) => bytes[..length.min(bytes.len())].to_vec(),
            BufferState::Lent(_) => Vec::new(),
        }
    }
}

impl Drop for SystemBuffer {
    fn drop(&mut self) {
        let BufferState::Lent(address) = *self.state.get_mut() else { return };
        // A machine that is torn down takes its pool with it.
        if let Some(machine) = self.machine.upgrade() {
            machine.pool.discard(address as *mut u8);
        }
    }
}
