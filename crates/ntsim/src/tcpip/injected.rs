//! Lists that carry injected packets, for as long as a driver may ask who injected them.

use crate::fwpkclnt::inject::Mark;
use crate::machine::Machine;
use nt_abi::NetBufferList;
use nt_abi::packet::{dereference, reference, references};

/// Marks every list that is shown while an injected packet is passed.
#[derive(Debug, Default)]
pub(super) struct InjectedLists {
    /// The current packet's mark.
    current: Option<Mark>,
    /// The packets shown now are not the injected one.
    suspended: bool,
    /// The addresses of marked lists, each with a reference held here: a driver that keeps the list may query it, or
    /// inject a clone of it, much later.
    lists: Vec<usize>,
}

impl InjectedLists {
    /// Sets the current packet's mark.
    pub(super) fn set(&mut self, mark: Option<Mark>) {
        (self.current, self.suspended) = (mark, false);
    }

    /// While suspended, lists that are shown stay unmarked.
    pub(super) fn suspend(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Marks a list that is about to be shown.
    ///
    /// # Safety
    /// `list` is a live list that ntsim made.
    pub(super) unsafe fn show(&mut self, machine: &Machine, list: *mut NetBufferList) {
        let Some(mark) = self.current.as_ref().filter(|_| !self.suspended) else { return };
        if self.lists.contains(&list.addr()) {
            return;
        }
        // SAFETY: `list` is live (this function's contract); `sweep` drops the reference.
        unsafe { reference(list) };
        self.lists.push(list.addr());
        machine.wfp.injections.mark(list, mark);
    }

    /// Forgets the lists that nobody else holds any more.
    pub(super) fn sweep(&mut self, machine: &Machine) {
        self.lists.retain(|&address| {
            let list = address as *mut NetBufferList;
            // SAFETY: the reference held here keeps the list live; when it is the only one, nobody can take another.
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
