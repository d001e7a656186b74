//! The files that a policy names.

use sluice_policy::Files;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

/// The longest policy file that is read. The largest in use have some 100,000 rules in 20 MiB.
pub(crate) const MAX_POLICY_FILE: u64 = 64 << 20;

/// The longest list file that is read: twice the image's own limit, which its entries have to fit.
const MAX_LIST_FILE: u64 = 512 << 20;

/// The file system, which remembers what was read from it.
#[derive(Debug, Default)]
pub struct Disk {
    read: RefCell<Vec<PathBuf>>,
}

impl Disk {
    /// What was read, so that no output goes there.
    #[must_use]
    pub fn into_read(self) -> Vec<PathBuf> {
        self.read.into_inner()
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read.borrow_mut().push(path.to_owned());
        sluice_files::read(path, MAX_LIST_FILE)
    }
}
