//! The machine's System32\drivers, and its code integrity check of drivers' signatures.

use crate::nt::io::disk::Disk;
use sha2::{Digest, Sha256};
use sluice_host::system::{CodeIntegrity, MACHINE_X64, Signature, System, Trust, is_driver_file};
use sluice_host::{HostError, HostResult, code};
use std::sync::Arc;

/// The folder, as user mode writes it.
pub(super) const FOLDER: &str = r"C:\Windows\System32\drivers";
/// The folder, as it is in a service's ImagePath.
const NT_FOLDER: &str = r"\SystemRoot\System32\drivers";

/// A Windows 10 22H2 that does not check signatures, so that any driver can be tried on it.
pub(super) fn system() -> System {
    System {
        build: crate::nt::rtl::runtime::BUILD,
        machine: MACHINE_X64,
        drivers: FOLDER.to_owned(),
        integrity: CodeIntegrity(0),
        secure_boot: Some(false),
    }
}

/// The machine's environment, as far as policies may refer to it. Names are case-insensitive.
pub(super) fn environment(name: &str) -> Option<&'static str> {
    const VARIABLES: [(&str, &str); 6] = [
        ("ProgramData", r"C:\ProgramData"),
        ("ProgramFiles", r"C:\Program Files"),
        ("ProgramFiles(x86)", r"C:\Program Files (x86)"),
        ("SystemDrive", "C:"),
        ("SystemRoot", r"C:\Windows"),
        ("windir", r"C:\Windows"),
    ];
    VARIABLES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
}

/// The name of the file in the drivers folder that a path names, if it names one.
pub(super) fn name(path: &str) -> Option<&str> {
    [FOLDER, NT_FOLDER].iter().find_map(|folder| {
        let (start, name) = path.split_at_checked(folder.len())?;
        start.eq_ignore_ascii_case(folder).then(|| name.strip_prefix('\\')).flatten()
    })
}

/// The files in the folder, by their names in lower case. They are on the machine's disk, not on this system's.
#[derive(Debug)]
pub(super) struct Drivers {
    disk: Arc<Disk>,
    /// The files that the next start of the machine deletes.
    doomed: Vec<String>,
}

/// A file's path on the machine's disk.
fn path(name: &str) -> String {
    format!(r"{NT_FOLDER}\{name}")
}

impl Drivers {
    pub(super) fn on(disk: &Arc<Disk>) -> Self {
        Self { disk: Arc::clone(disk), doomed: Vec::new() }
    }

    /// The folder after a restart.
    pub(super) fn after(before: &Self, disk: &Arc<Disk>) -> Self {
        Self { disk: Arc::clone(disk), doomed: before.doomed.clone() }
    }

    /// What Windows does at its start.
    pub(super) fn delete_doomed(&mut self) {
        for name in self.doomed.drain(..) {
            self.disk.remove(&path(&name));
        }
    }

    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.disk.read(&path(name)).map(|content| content.to_vec())
    }

    pub(super) fn write(&mut self, name: &str, content: &[u8]) -> HostResult<()> {
        const OPERATION: &str = "CreateFileW";
        let name = checked(OPERATION, name)?;
        if self.disk.read(&path(&name)).is_some() {
            return Err(HostError::new(OPERATION, code::ERROR_FILE_EXISTS));
        }
        self.disk.write(&path(&name), content);
        Ok(())
    }

    /// `in_use`: the files that loaded drivers came from.
    pub(super) fn rename(&mut self, from: &str, to: &str, in_use: &[String]) -> HostResult<()> {
        const OPERATION: &str = "MoveFileExW";
        let (from, to) = (checked(OPERATION, from)?, checked(OPERATION, to)?);
        if in_use.contains(&to) {
            return Err(HostError::new(OPERATION, code::ERROR_ACCESS_DENIED));
        }
        let content = self.disk.remove(&path(&from));
        let content = content.ok_or_else(|| HostError::new(OPERATION, code::ERROR_FILE_NOT_FOUND))?;
        self.disk.write(&path(&to), content);
        Ok(())
    }

    pub(super) fn delete(&mut self, name: &str, in_use: &[String]) -> HostResult<()> {
        const OPERATION: &str = "DeleteFileW";
        let name = checked(OPERATION, name)?;
        if in_use.contains(&name) {
            return Err(HostError::new(OPERATION, code::ERROR_ACCESS_DENIED));
        }
        let deleted = self.disk.remove(&path(&name));
        deleted.map(|_| ()).ok_or_else(|| HostError::new(OPERATION, code::ERROR_FILE_NOT_FOUND))
    }

    pub(super) fn delete_at_restart(&mut self, name: &str) -> HostResult<()> {
        let name = checked("MoveFileExW", name)?;
        self.doomed.push(name);
        Ok(())
    }

    /// The files that the next start of the machine deletes.
    pub(super) fn doomed(&self) -> &[String] {
        &self.doomed
    }
}

fn checked(operation: &str, name: &str) -> HostResult<String> {
    if is_driver_file(name) {
        Ok(name.to_lowercase())
    } else {
        Err(HostError::with_message(operation, code::ERROR_INVALID_NAME, format!("{name:?} is not a driver's file")))
    }
}

/// Whether the kernel loads an image with this signature, as StartServiceW reports it.
pub(super) fn admit(integrity: CodeIntegrity, signature: &Signature) -> HostResult<()> {
    let admitted = !integrity.has(CodeIntegrity::ENABLED)
        || integrity.has(CodeIntegrity::DEBUG_MODE)
        || match signature {
            Signature::None | Signature::Broken => false,
            Signature::Signed { trust, .. } => *trust == Trust::Microsoft || integrity.has(CodeIntegrity::TEST_SIGNING),
        };
    if admitted {
        return Ok(());
    }
    Err(HostError::new("StartServiceW", code::ERROR_INVALID_IMAGE_HASH))
}

/// The signature in an image: whether there is one, and whether it is of this image. The signer is not checked: `trust`
/// says whether the machine trusts it.
///
/// A signature (PKCS #7 in the certificate table) contains the image's SHA-256 hash as an OCTET STRING, and that is all
/// that is looked for: no other image with that hash can be found.
pub(super) fn signature(image: &[u8], trust: Trust) -> Signature {
    let Some(table) = Table::of(image) else { return Signature::None };
    let mut hash = Sha256::new();
    hash.update(&image[..table.checksum]);
    hash.update(&image[table.checksum + 4..table.entry]);
    hash.update(&image[table.entry + 8..table.start]);
    let octets: Vec<u8> = [0x04, 0x20].into_iter().chain(hash.finalize()).collect();
    if image[table.start..].windows(octets.len()).any(|window| window == octets) {
        Signature::Signed { by: None, trust }
    } else {
        Signature::Broken
    }
}

/// Where an image's certificate table is, and what its hash leaves out (Microsoft's "Windows Authenticode Portable
/// Executable Signature Format").
struct Table {
    /// The header's CheckSum.
    checksum: usize,
    /// The data directory's entry of the table.
    entry: usize,
    /// The table, which reaches to the end of the file.
    start: usize,
}

impl Table {
    fn of(image: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
        let optional = long(0x3c)? + 24; // the signature and the file header
        let entry = optional + 112 + 4 * 8; // PE32+: IMAGE_DIRECTORY_ENTRY_SECURITY
        let (start, length) = (long(entry)?, long(entry + 4)?);
        let whole = length > 0 && start >= entry + 8 && start + length == image.len();
        whole.then_some(Self { checksum: optional + 64, entry, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CERT_E_UNTRUSTEDROOT.
    const NOBODY: Trust = Trust::Nobody(0x800b_0109);

    #[test]
    fn both_ways_to_write_the_folder_name_its_files() {
        assert_eq!(name(r"C:\WINDOWS\system32\DRIVERS\x.sys"), Some("x.sys"));
        assert_eq!(name(r"\SystemRoot\System32\drivers\x.sys"), Some("x.sys"));
        for path in [r"C:\Windows\System32\drivers", r"C:\Windows\System32\driversx\x.sys", "/x.sys", ""] {
            assert_eq!(name(path), None, "{path}");
        }
    }

    #[test]
    fn a_file_in_use_can_be_renamed_and_not_replaced() {
        let mut drivers = Drivers::on(&Arc::default());
        drivers.write("A.sys", b"a").unwrap();
        assert_eq!(drivers.write("a.sys", b"b").unwrap_err().code, code::ERROR_FILE_EXISTS);
        drivers.write("b.sys", b"b").unwrap();
        let in_use = ["a.sys".to_owned()];
        assert_eq!(drivers.rename("b.sys", "a.sys", &in_use).unwrap_err().code, code::ERROR_ACCESS_DENIED);
        assert_eq!(drivers.delete("A.sys", &in_use).unwrap_err().code, code::ERROR_ACCESS_DENIED);
        drivers.rename("a.sys", "c.sys", &in_use).unwrap();
        drivers.rename("b.sys", "c.sys", &[]).unwrap();
        assert_eq!(drivers.read("c.sys").unwrap(), b"b");
        drivers.delete_at_restart("c.sys").unwrap();
        assert_eq!(drivers.doomed(), ["c.sys"]);
        assert_eq!(drivers.write(r"..\x.sys", b"").unwrap_err().code, code::ERROR_INVALID_NAME);
    }

    #[test]
    fn a_signature_is_that_of_its_image_only() {
        // The smallest image with all the fields: a PE32+ header and a certificate table.
        let mut image = vec![0; 0x200];
        image[0x3c] = 0x40;
        let (optional, entry) = (0x40 + 24, 0x40 + 24 + 112 + 32);
        assert_eq!(signature(&image, NOBODY), Signature::None);
        image[0x1f0] = 0x5a; // content
        let hash = {
            let mut hash = Sha256::new();
            hash.update(&image[..optional + 64]);
            hash.update(&image[optional + 68..entry]);
            hash.update(&image[entry + 8..]);
            hash.finalize()
        };
        image[entry..entry + 4].copy_from_slice(&0x200_u32.to_le_bytes());
        image.extend([0x30, 0x04, 0x20]);
        image.extend(hash);
        let length = image.len() as u32 - 0x200;
        image[entry + 4..entry + 8].copy_from_slice(&length.to_le_bytes());
        let signed = Signature::Signed { by: None, trust: NOBODY };
        assert_eq!(signature(&image, NOBODY), signed);
        image[optional + 64] = 7; // the checksum is not signed
        assert_eq!(signature(&image, NOBODY), signed);
        image[0x1f0] ^= 1;
        assert_eq!(signature(&image, NOBODY), Signature::Broken);
        for length in 0..image.len() {
            let _ = signature(&image[..length], NOBODY);
        }
    }

    #[test]
    fn code_integrity_admits_what_windows_admits() {
        let signed = |trust| Signature::Signed { by: None, trust };
        for (options, signature, admitted) in [
            (0, Signature::None, true),
            (CodeIntegrity::ENABLED, Signature::None, false),
            (CodeIntegrity::ENABLED, signed(NOBODY), false),
            (CodeIntegrity::ENABLED, signed(Trust::Machine), false),
            (CodeIntegrity::ENABLED, signed(Trust::Microsoft), true),
            (CodeIntegrity::ENABLED | CodeIntegrity::TEST_SIGNING, signed(NOBODY), true),
            (CodeIntegrity::ENABLED | CodeIntegrity::TEST_SIGNING, Signature::Broken, false),
            (CodeIntegrity::ENABLED | CodeIntegrity::DEBUG_MODE, Signature::None, true),
        ] {
            assert_eq!(admit(CodeIntegrity(options), &signature).is_ok(), admitted, "{options:#x} {signature:?}");
        }
    }
}
