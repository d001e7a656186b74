//! Network namespaces, which go away with the last process that uses them.

use super::error::NetError;
use rustix::process::{Signal, getgid, getuid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// A network namespace. It lives as long as this handle or a process inside.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
    inode: u64,
}

/// Lets this process make network namespaces: root may, any other user enters a user namespace that keeps their user
/// and group.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// [`NetError::Namespaces`] when the system allows neither.
pub fn gain_privilege() -> Result<(), NetError> {
    let (uid, gid) = (getuid(), getgid());
    if uid.is_root() {
        return Ok(());
    }
    // SAFETY: only the user namespace changes; no file descriptor table or memory is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(|error| NetError::Namespaces { source: error.into() })?;
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")))
        .map_err(|source| NetError::Namespaces { source })
}

impl Namespace {
    /// Makes a namespace and runs `f` inside it, on a new thread.
    ///
    /// # Errors
    /// [`NetError::Namespaces`] when the system refuses, or the error of `f`.
    pub fn create<R: Send>(f: impl FnOnce() -> Result<R, NetError> + Send) -> Result<(Self, R), NetError> {
        on_thread(|| {
            // SAFETY: only the network namespace of this thread changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|error| NetError::Namespaces { source: error.into() })?;
            let file =
                File::open("/proc/thread-self/ns/net").map_err(NetError::system("open the network namespace"))?;
            let inode = file.metadata().map_err(NetError::system("look at the network namespace"))?.ino();
            let result = f()?;
            Ok((Self { file: Arc::new(file), inode }, result))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// What the system answers.
    pub fn join(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// The inode number that `/proc/PID/ns/net` shows.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Makes `command` start inside the namespace, and end when the thread that starts it does.
    pub fn contain<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let file = self.file.clone();
        // SAFETY: between fork and exec the closure only makes two system calls, which are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            })
        }
    }
}

/// Runs `f` on a new thread and waits for it: a thread cannot leave the namespace it joined.
fn on_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| match scope.spawn(f).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
