//! Kernel handles.

use crate::cpu;
use crate::nt::io::disk::Opened;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The target of a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An object, by address.
    Object(u64),
    /// A registry key, by its path.
    Key(String),
    /// A directory of objects, by its name.
    Directory(String),
    /// A symbolic link, by its target.
    SymbolicLink(String),
    /// A file on the disk.
    File(Arc<Opened>),
}

/// The kernel's handle table.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: BTreeMap<u64, (Target, u64)>,
    next: u64,
}

/// Kernel handles have the upper half set; all are multiples of four.
const KERNEL: u64 = 0xffff_ffff_8000_0000;

impl Handles {
    pub(super) fn open(&mut self, target: Target, by: u64) -> u64 {
        self.next += 4;
        let handle = KERNEL | self.next;
        self.open.insert(handle, (target, by));
        handle
    }

    pub(super) fn target(&self, handle: u64) -> Option<Target> {
        self.open.get(&handle).map(|(target, _)| target.clone())
    }

    pub(super) fn close(&mut self, handle: u64) -> Option<Target> {
        self.open.remove(&handle).map(|(target, _)| target)
    }

    pub(super) fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let theirs = self.open.iter().filter(|(_, (_, by))| range.contains(by));
        let line = |handle: u64, target: &Target, by: u64| {
            let what = match target {
                Target::Object(address) => format!("to object {address:#x}"),
                Target::Key(path) => format!("to key {path}"),
                Target::Directory(path) => format!("to directory {path}"),
                Target::SymbolicLink(to) => format!("to the link to {to}"),
                Target::File(file) => format!("to file {}", file.path),
            };
            format!("handle {handle:#x} {what}, opened by {}", cpu::frame_of(by))
        };
        theirs.map(|(handle, (target, by))| line(*handle, target, *by)).collect()
    }
}
