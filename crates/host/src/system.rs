//! What a machine reports about itself and a driver's file before the driver is installed.

use serde::{Deserialize, Serialize};

/// A machine's Windows, and what it requires of drivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// `RtlGetVersion`: dwBuildNumber, as in 19045.
    pub build: u32,
    /// `IsWow64Process2`: the machine's own IMAGE_FILE_MACHINE_*, which a driver must be built for.
    pub machine: u16,
    /// The drivers folder: `GetSystemDirectoryW` and `\drivers`.
    pub drivers: String,
    /// `NtQuerySystemInformation(SystemCodeIntegrityInformation)`.
    pub integrity: CodeIntegrity,
    /// UEFI's Secure Boot; `None` on a machine without it.
    pub secure_boot: Option<bool>,
}

/// `SYSTEM_CODEINTEGRITY_INFORMATION.CodeIntegrityOptions` (NtQuerySystemInformation's documentation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeIntegrity(pub u32);

impl CodeIntegrity {
    /// CODEINTEGRITY_OPTION_ENABLED: drivers need a signature.
    pub const ENABLED: u32 = 0x1;
    /// CODEINTEGRITY_OPTION_TESTSIGN: any signature will do.
    pub const TEST_SIGNING: u32 = 0x2;
    /// CODEINTEGRITY_OPTION_DEBUGMODE_ENABLED: a kernel debugger may be attached, which lifts the requirement.
    pub const DEBUG_MODE: u32 = 0x80;
    /// CODEINTEGRITY_OPTION_HVCI_KMCI_ENABLED: memory integrity protects the kernel's code.
    pub const HVCI: u32 = 0x400;

    /// Whether an option is set.
    #[must_use]
    pub const fn has(self, option: u32) -> bool {
        self.0 & option != 0
    }
}

/// IMAGE_FILE_MACHINE_AMD64.
pub const MACHINE_X64: u16 = 0x8664;
/// IMAGE_FILE_MACHINE_ARM64.
pub const MACHINE_ARM64: u16 = 0xaa64;

/// How a machine judges a file's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// None, neither in the file nor in a catalog that the machine knows.
    None,
    /// There is one, but the file has changed since it was signed.
    Broken,
    /// There is one, and it is this file's.
    Signed {
        /// The signing certificate's subject, as far as it can be read.
        by: Option<String>,
        /// Who vouches for the certificate.
        trust: Trust,
    },
}

/// Who vouches for a signing certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Microsoft, as a signer of drivers: after WHQL tests or by attestation.
    Microsoft,
    /// A root that this machine trusts.
    Machine,
    /// Nobody: the code that `WinVerifyTrust` gave, as in 0x800B0109, CERT_E_UNTRUSTEDROOT.
    Nobody(u32),
}

/// Whether `name` can be a driver's file in the drivers folder: a plain name that ends with `.sys`, or with `.policy` for
/// a policy that is kept for the driver.
///
/// The seam takes names, not paths, so that it writes to no other folder.
#[must_use]
pub fn is_driver_file(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let stem = [".sys", ".policy", ".bundle"].iter().find_map(|suffix| name.strip_suffix(suffix));
    name.len() <= 64 && stem.is_some_and(|stem| !stem.is_empty() && stem.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_file_is_a_plain_name() {
        assert!(is_driver_file("sluice.sys") && is_driver_file("sluice-new.sys"));
        assert!(is_driver_file("sluice.bundle") && !is_driver_file("sluicebundle"));
        assert!(is_driver_file("sluice.policy") && !is_driver_file(".policy") && !is_driver_file("a.sys.policy"));
        for name in ["", ".sys", "sluice", "sluice.exe", r"..\sluice.sys", "a/b.sys", "a:b.sys", "a.b.sys", "ä.sys"] {
            assert!(!is_driver_file(name), "{name}");
        }
        assert!(!is_driver_file(&format!("{}.sys", "a".repeat(61))));
    }
}
