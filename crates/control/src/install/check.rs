//! Predicts whether Windows will load a driver.

use serde::Serialize;
use sluice_host::system::{CodeIntegrity, MACHINE_ARM64, MACHINE_X64, Signature, System, Trust};
use sluice_protocol::{OLDEST_WINDOWS, OLDEST_WINDOWS_BUILD};

/// What prevents an installation, and how to resolve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// The result of [`judge`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// With any of these the driver cannot load.
    pub(crate) obstacles: Vec<Obstacle>,
    /// What else the user should know.
    pub(crate) notes: Vec<String>,
}

/// The machine that a driver's file was built for: its IMAGE_FILE_MACHINE_*, or `None` when it is not a PE image.
pub(super) fn image_machine(file: &[u8]) -> Option<u16> {
    let word = |at: usize| Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?));
    let header = u32::from_le_bytes(*file.get(0x3c..)?.first_chunk()?) as usize; // e_lfanew
    let signature = file.get(header..)?.first_chunk::<4>()?;
    (file.starts_with(b"MZ") && signature == b"PE\0\0").then(|| word(header + 4)).flatten()
}

/// Judges a driver built for `image` with this signature on this machine.
pub(super) fn judge(system: &System, image: u16, signature: &Signature) -> Judgement {
    let mut judgement = Judgement::default();
    if system.build < OLDEST_WINDOWS_BUILD {
        judgement.obstacle(
            format!(
                "this is {} (build {}), and the driver needs {OLDEST_WINDOWS} (build {OLDEST_WINDOWS_BUILD}) or later",
                release(system.build),
                system.build
            ),
            "update Windows",
        );
    }
    if image != system.machine {
        judgement.obstacle(
            format!("the driver is built for {}, and this machine is {}", machine(image), machine(system.machine)),
            format!("use the sluice.sys for {}", machine(system.machine)),
        );
    }
    judgement.signature(system, signature);
    if system.integrity.has(CodeIntegrity::HVCI) {
        judgement.notes.push("memory integrity (HVCI) is on, so the driver's code may never be writable".to_owned());
    }
    judgement
}

impl Judgement {
    fn obstacle(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.obstacles.push(Obstacle { what: what.into(), remedy: remedy.into() });
    }

    fn signature(&mut self, system: &System, signature: &Signature) {
        let integrity = system.integrity;
        if !integrity.has(CodeIntegrity::ENABLED) || integrity.has(CodeIntegrity::DEBUG_MODE) {
            if !matches!(signature, Signature::Signed { trust: Trust::Microsoft, .. }) {
                self.notes.push(
                    "this Windows does not require signatures now (code integrity is off, or a kernel debugger is \
                     allowed)"
                        .to_owned(),
                );
            }
            return;
        }
        let by =
            |by: &Option<String>| by.as_ref().map_or_else(|| "an unnamed signer".to_owned(), |by| format!("`{by}`"));
        match signature {
            Signature::None => self.obstacle(
                "the driver is not signed, and Windows does not load unsigned drivers",
                "use the signed sluice.sys from a package, or sign it (docs/package.md)",
            ),
            Signature::Broken => self.obstacle(
                "the driver's file has changed since it was signed",
                "use an undamaged sluice.sys, or sign it again",
            ),
            Signature::Signed { trust: Trust::Microsoft, .. } => {}
            Signature::Signed { by: signer, .. } if integrity.has(CodeIntegrity::TEST_SIGNING) => {
                self.notes.push(format!("the driver is signed by {}; it loads because test signing is on", by(signer)));
            }
            Signature::Signed { by: signer, trust: Trust::Machine } => self.notes.push(format!(
                "the driver is signed by {}, whom this machine trusts; but the kernel accepts \
                 only drivers signed by Microsoft, unless test signing is on",
                by(signer)
            )),
            Signature::Signed { by: signer, trust: Trust::Nobody(_) } => {
                let remedy = match system.secure_boot {
                    Some(true) => {
                        "turn Secure Boot off in the firmware, turn on test signing (`bcdedit /set testsigning on`) \
                         and restart; or use a driver signed by Microsoft"
                    }
                    _ => {
                        "turn on test signing (`bcdedit /set testsigning on`) and restart; or use a driver signed by \
                         Microsoft"
                    }
                };
                let what = format!(
                    "the driver is signed by {}, whom this machine does not trust, and test signing is off",
                    by(signer)
                );
                self.obstacle(what, remedy);
            }
        }
    }
}

/// A machine's display name.
fn machine(machine: u16) -> String {
    match machine {
        MACHINE_X64 => "x64".to_owned(),
        MACHINE_ARM64 => "ARM64".to_owned(),
        other => format!("machine {other:#06x}"),
    }
}

/// The name of a Windows older than the oldest we support (as in winver; Microsoft's release history).
fn release(build: u32) -> &'static str {
    match build {
        ..=10239 => "a Windows before Windows 10",
        10240..=10585 => "Windows 10, version 1507",
        10586..=14392 => "Windows 10, version 1511",
        14393..=15062 => "Windows 10, version 1607, or Windows Server 2016",
        15063..=16298 => "Windows 10, version 1703",
        16299..=17133 => "Windows 10, version 1709",
        17134..=17762 => "Windows 10, version 1803",
        17763..=18361 => "Windows 10, version 1809, or Windows Server 2019",
        18362 => "Windows 10, version 1903",
        18363..=19040 => "Windows 10, version 1909",
        _ => "Windows",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(integrity: u32) -> System {
        System {
            build: OLDEST_WINDOWS_BUILD,
            machine: MACHINE_X64,
            drivers: r"C:\Windows\System32\drivers".to_owned(),
            integrity: CodeIntegrity(integrity),
            secure_boot: Some(false),
        }
    }

    fn signed(trust: Trust) -> Signature {
        Signature::Signed { by: Some("Sluicegate test".to_owned()), trust }
    }

    const ON: u32 = CodeIntegrity::ENABLED;
    const TEST: u32 = CodeIntegrity::ENABLED | CodeIntegrity::TEST_SIGNING;
    /// CERT_E_UNTRUSTEDROOT.
    const NOBODY: Trust = Trust::Nobody(0x800b_0109);

    #[test]
    fn what_cannot_load_is_an_obstacle_and_what_can_is_none() {
        // (options, signature, obstacle, note)
        let cases = [
            (ON, Signature::None, Some("not signed"), None),
            (TEST, Signature::None, Some("not signed"), None),
            (TEST, Signature::Broken, Some("changed since it was signed"), None),
            (ON, signed(Trust::Microsoft), None, None),
            (ON, signed(Trust::Machine), None, Some("accepts only drivers signed by Microsoft")),
            (ON, signed(NOBODY), Some("test signing is off"), None),
            (TEST, signed(NOBODY), None, Some("it loads because test signing is on")),
            (0, Signature::None, None, Some("does not require signatures")),
            (ON | CodeIntegrity::DEBUG_MODE, Signature::None, None, Some("does not require signatures")),
            (TEST | CodeIntegrity::HVCI, signed(Trust::Microsoft), None, Some("memory integrity")),
        ];
        for (options, signature, obstacle, note) in cases {
            let judgement = judge(&system(options), MACHINE_X64, &signature);
            let what: Vec<&str> = judgement.obstacles.iter().map(|obstacle| obstacle.what.as_str()).collect();
            match obstacle {
                Some(part) => {
                    assert!(what.len() == 1 && what[0].contains(part), "{options:#x} {signature:?}: {what:?}")
                }
                None => assert!(what.is_empty(), "{options:#x} {signature:?}: {what:?}"),
            }
            match note {
                Some(part) => assert!(judgement.notes.iter().any(|note| note.contains(part)), "{:?}", judgement.notes),
                None => assert!(judgement.notes.is_empty(), "{options:#x} {signature:?}: {:?}", judgement.notes),
            }
        }
    }

    #[test]
    fn secure_boot_stands_in_the_way_of_test_signing() {
        let with = System { secure_boot: Some(true), ..system(ON) };
        let remedy = |system| judge(system, MACHINE_X64, &signed(NOBODY)).obstacles.remove(0).remedy;
        assert!(remedy(&with).starts_with("turn Secure Boot off"));
        assert!(remedy(&system(ON)).starts_with("turn on test signing"));
    }

    #[test]
    fn an_older_windows_and_another_machine_are_named() {
        let old = System { build: 17763, ..system(0) };
        let judgement = judge(&old, MACHINE_ARM64, &Signature::None);
        let what: Vec<&str> = judgement.obstacles.iter().map(|obstacle| obstacle.what.as_str()).collect();
        assert!(what[0].contains("version 1809") && what[0].contains(OLDEST_WINDOWS), "{what:?}");
        assert_eq!(what[1], "the driver is built for ARM64, and this machine is x64");
    }

    #[test]
    fn a_machine_is_read_from_a_pe_image_and_from_nothing_else() {
        let mut file = vec![0; 0x80];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
        assert_eq!(image_machine(&file), Some(MACHINE_X64));
        for length in 0..0x46 {
            assert_eq!(image_machine(&file[..length]), None, "{length}");
        }
        file[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(image_machine(&file), None);
    }
}
