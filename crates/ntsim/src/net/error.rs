//! What can go wrong while a network is set up.

use std::io;
use std::path::PathBuf;

/// Why there is no simulated network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The system refuses network namespaces.
    #[error(
        "this system does not let me make network namespaces ({source}); run as root, or where user namespaces are \
         allowed (sysctl kernel.unprivileged_userns_clone, user.max_net_namespaces; in a container: CAP_SYS_ADMIN)"
    )]
    Namespaces {
        /// What unshare answered.
        source: io::Error,
    },
    /// There is no TUN device.
    #[error("cannot open a TUN device ({source}); {advice}")]
    Tun {
        /// What the system answered.
        source: io::Error,
        /// What may help.
        advice: &'static str,
    },
    /// A network interface cannot be set up.
    #[error("cannot {what}: {source}")]
    Link {
        /// What was to be done.
        what: String,
        /// What the kernel answered.
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
    /// Something else with the operating system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl NetError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
