//! Lists that carry injected packets, as long as anybody may ask who injected them.

use crate::fwpkclnt::inject::Mark;
use crate::machine::Machine;
use nt_abi::NetBufferList;
use nt_abi::packet::{dereference, reference, references};

/// Marks every list that is shown while an injected packet is passed.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Of the packet at hand.
    current: Option<Mark>,
    /// The packets shown now are others.
    suspended: bool,
    /// The addresses of marked lists, of each of which a reference is owned: a driver that keeps the list may ask, or
    /// inject a clone of it, long after.
    lists: Vec<usize>,
}

impl Marks {
    /// Says whether the packet at hand was injected.
    pub(super) fn set(&mut self, mark: Option<Mark>) {
        (self.current, self.suspended) = (mark, false);
    }

    /// Leaves lists unmarked that are shown meanwhile.
    pub(super) fn suspend(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Marks a list that is about to be shown.
    ///
    /// # Safety
    /// `list` is a live list made in this program.
    pub(super) unsafe fn show(&mut self, machine: &Machine, list: *mut NetBufferList) {
        let Some(mark) = self.current.as_ref().filter(|_| !self.suspended) else { return };
        if self.lists.contains(&list.addr()) {
            return;
        }
        // SAFETY: the caller's promise; the reference is given back in `sweep`.
        unsafe { reference(list) };
        self.lists.push(list.addr());
        machine.wfp.injections.mark(list, mark);
    }

    /// Forgets the lists that nobody else has any more.
    pub(super) fn sweep(&mut self, machine: &Machine) {
        self.lists.retain(|&address| {
            let list = address as *mut NetBufferList;
            // SAFETY: a reference to the list is owned here, so it is live; when it is the only one, nobody can make
            // another.
            unsafe {
                if references(list) > 1 {
                    return true;
                }
                machine.wfp.injections.unmark(list);
                dereference(list);
            }
            false
        });
    }
}
