//! What can go wrong while a network is set up.

use std::io;
use std::path::PathBuf;

/// Why a simulated network cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The system refuses network namespaces.
    #[error(
        "cannot make network namespaces ({source}); run as root, or where user namespaces are \
         allowed (sysctl kernel.unprivileged_userns_clone, user.max_net_namespaces; in a container: CAP_SYS_ADMIN)"
    )]
    Namespaces {
        /// The error of unshare.
        source: io::Error,
    },
    /// A TUN device cannot be opened.
    #[error("cannot open a TUN device ({source}); {advice}")]
    Tun {
        /// The system's error.
        source: io::Error,
        /// What to do about it.
        advice: &'static str,
    },
    /// A network interface cannot be set up.
    #[error("cannot {what}: {source}")]
    Link {
        /// The step that failed.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("cannot run {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A server ended before the command was run.
    #[error("the server `{command}` ended at once ({status}); it must stay in the foreground")]
    ServerEnded {
        /// Its command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// Another call to the operating system failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl NetError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
