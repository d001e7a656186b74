//! The protocol between `sluice.sys` and the programs that control it: device names, IOCTL codes, the records that
//! cross the boundary, and the fixed GUIDs of its WFP objects.
//!
//! The records are plain little-endian structures without padding. `tests/golden.rs` holds their bytes, so that a
//! driver and a command of different builds cannot disagree unnoticed. [`PROTOCOL_VERSION`] changes with them.
#![cfg_attr(not(test), no_std)]

pub mod ask;
pub mod event;
pub mod eventlog;
pub mod filter;
pub mod flows;
pub mod ioctl;
pub mod names;
pub mod object;
pub mod status;
pub mod trace;
pub mod upload;

pub use event::Event;
pub use status::Status;

/// Changes whenever the meaning of a record or an IOCTL changes. The driver reports it in [`Status`].
pub const PROTOCOL_VERSION: u32 = 10;

/// Build of the oldest Windows that the driver runs on: the first to export ExAllocatePool2. `cargo xtask check-image` derives
/// it from the image's imports; the INF, the command and the documents say the same.
pub const OLDEST_WINDOWS_BUILD: u32 = 19041;
/// That Windows by name.
pub const OLDEST_WINDOWS: &str = "Windows 10, version 2004";

/// The service under which the driver is registered.
pub const SERVICE_NAME: &str = "Sluice";
/// The values of the service's Parameters key that an installation writes.
pub mod parameter {
    /// REG_DWORD: other than 0 if the driver is not asked about anything while no policy is in force, so that what the
    /// filters say of a driver that is not there holds.
    pub const FAIL_CLOSED: &str = "FailClosed";
    /// REG_SZ: the networks that stay reachable then, separated by spaces.
    pub const MANAGEMENT: &str = "Management";
    /// REG_SZ: the public key, `ed25519:` and 64 hexadecimal digits, whose bundles alone `sluice` puts in force. The driver
    /// does not read it.
    pub const TRUSTED_KEY: &str = "TrustedKey";
}

/// The name of the service, a program of user mode, that keeps the policy up to date.
pub const KEEPER_NAME: &str = "SluiceService";
/// Its display name.
pub const KEEPER_DISPLAY_NAME: &str = "Sluicegate policy and decisions";
/// What it does.
pub const KEEPER_DESCRIPTION: &str =
    "Keeps the network filter's policy up to date and writes its decisions down. The filter decides without it, too.";
/// The service's display name.
pub const SERVICE_DISPLAY_NAME: &str = "Sluicegate network filter";
/// The file of the policy that the driver puts in force when it is loaded, as the kernel names it. Only administrators and
/// SYSTEM can write in its folder.
pub const KEPT_POLICY: &str = r"\SystemRoot\System32\drivers\sluice.policy";
/// The control device's NT name.
pub const DEVICE_NAME: &str = r"\Device\Sluice";
/// The symbolic link that makes it visible to user mode.
pub const SYMBOLIC_LINK: &str = r"\DosDevices\Sluice";
/// The path user mode opens: through the directory of the names common to all sessions, since a user's program can put
/// its own link `Sluice` into the session's directory, which is searched first.
pub const DEVICE_PATH: &str = r"\\.\Global\Sluice";
/// Who may open the device: SYSTEM and Administrators, all access; nobody else.
pub const DEVICE_SDDL: &str = "D:P(A;;GA;;;SY)(A;;GA;;;BA)";
