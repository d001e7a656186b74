//! The package, made from the built drivers and examined as its recipient would.
//!
//! Needs target/sluice, which `./dev test` and `./dev build` make, osslsigncode and openssl.
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use xtask::{
    image::{self, Defect},
    inf::{Architecture, Inf},
    package::{self, Inputs, archive, catalog, dependencies::Linked, sign::Signer},
    signature::{self, SignatureError},
};

/// 2026-01-02.
const TIME: Duration = Duration::from_secs(1_767_312_000);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn product(architecture: &str, name: &str) -> PathBuf {
    let path = root().join("target/sluice").join(architecture).join(name);
    assert!(path.is_file(), "{} is missing: run `./dev build` first", path.display());
    path
}

/// A package and the certificate it was signed with.
struct Package {
    folder: TempDir,
    zip: PathBuf,
    members: BTreeMap<String, Vec<u8>>,
}

impl Package {
    fn make(architecture: Architecture) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::made_in(&folder.path().join("signing"), None).unwrap();
        let zip = make(architecture, &signer, folder.path());
        let members = archive::read(&zip).unwrap().into_iter().collect();
        Self { folder, zip, members }
    }

    /// What osslsigncode reports about a member, and whether it accepts it.
    fn osslsigncode(&self, arguments: &[&str]) -> (bool, String) {
        let certificate = self.folder.path().join("signing/certificate.pem");
        let mut tool = Command::new("osslsigncode");
        tool.current_dir(self.zip.with_file_name("x64")).arg("verify").arg("-CAfile").arg(certificate).args(arguments);
        let output = tool.output().expect("osslsigncode is installed");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

fn make(architecture: Architecture, signer: &Signer, folder: &Path) -> PathBuf {
    let products = match architecture {
        Architecture::X64 => "x86_64",
        Architecture::Arm64 => "aarch64",
    };
    package::make(&Inputs {
        root: &root(),
        architecture,
        version: "0.1.0",
        time: TIME,
        driver: &product(products, "sluice.sys"),
        command: &product("x86_64", "sluice.exe"),
        linked: &Linked::default(),
        signer,
        folder,
    })
    .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_zip_holds_what_the_document_lists_and_its_sums_are_right() {
    let document = fs::read_to_string(root().join("docs/package.md")).unwrap();
    for (architecture, name) in [(Architecture::X64, "x64"), (Architecture::Arm64, "arm64")] {
        let package = Package::make(architecture);
        assert_eq!(package.zip.file_name().unwrap().to_str(), Some(format!("sluice-0.1.0-{name}.zip").as_str()));
        let listed: Vec<_> = archive::read(&package.zip).unwrap().into_iter().map(|(name, _)| name).collect();
        let in_document = document
            .lines()
            .filter_map(|line| Some(line.strip_prefix("    ")?.split_once("  ")?.0))
            .collect::<Vec<_>>();
        assert_eq!(listed, in_document, "docs/package.md lists the content of the zip file");

        let sums = String::from_utf8(package.members["SHA256SUMS"].clone()).unwrap();
        let named: Vec<_> = sums.lines().map(|line| line.split_once(" *").unwrap()).collect();
        assert_eq!(named.len(), listed.len() - 1, "every file except the checksums themselves");
        for (sum, name) in named {
            let own: String = Sha256::digest(&package.members[name]).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(own, sum, "{name}");
        }
        let readable = String::from_utf8(package.members["README.txt"].clone()).unwrap();
        assert!(readable.contains("Sluicegate 0.1.0\r\n") && !readable.contains('@'), "{readable}");
        Inf::read(std::str::from_utf8(&package.members["sluice.inf"]).unwrap()).unwrap();
    }
}

#[test]
fn the_same_files_signed_with_the_same_key_make_the_same_zip() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::made_in(&folder.path().join("signing"), None).unwrap();
    let unsigned = |name: &str| {
        let zip = make(Architecture::X64, &signer, &folder.path().join(name));
        // The parts that a signature changes contain the time of signing.
        let signed = ["sluice.sys", "sluice.exe", "sluice.cat", "SHA256SUMS", "sluice.cdx.json"];
        let mut members = archive::read(&zip).unwrap();
        members.retain(|(name, _)| !signed.contains(&name.as_str()));
        members
    };
    assert!(unsigned("one") == unsigned("two"));
}

#[test]
fn osslsigncode_and_our_reader_find_the_signature_good_until_a_byte_changes() {
    let package = Package::make(Architecture::X64);
    for file in ["sluice.sys", "sluice.exe"] {
        let (good, said) = package.osslsigncode(&["-in", file]);
        assert!(good && said.contains("Page hash"), "{said}");
        let signature = signature::verify(&package.members[file]).unwrap().expect("it is signed");
        assert_eq!(signature.signer, "CN=Sluicegate test signing");
        assert!(signature.pages > 10, "{signature:?}");
    }

    let driver = &package.members["sluice.sys"];
    let unsigned = fs::read(product("x86_64", "sluice.sys")).unwrap();
    assert_eq!(signature::verify(&unsigned), Ok(None));
    assert!(driver.starts_with(&unsigned[..64]));
    // One byte of code: the hash of the image differs, for both.
    let mut changed = driver.clone();
    changed[0x1000] ^= 1;
    assert_eq!(signature::verify(&changed), Err(SignatureError::Differs("the hash of the image".into())));
    let defects = image::check(&changed).unwrap_err();
    assert!(
        defects.iter().any(|defect| matches!(defect, Defect::Signature(SignatureError::Differs(_)))),
        "{defects:?}"
    );
    fs::write(package.zip.with_file_name("x64").join("changed.sys"), &changed).unwrap();
    let (good, said) = package.osslsigncode(&["-in", "changed.sys"]);
    assert!(!good, "{said}");
    // The checksum is not part of any hash.
    let checksum = driver.len() - 1;
    assert!(signature::verify(&driver[..checksum]).is_err(), "a truncated table");
}

#[test]
fn the_catalog_lists_the_driver_and_the_inf_under_both_hashes() {
    let package = Package::make(Architecture::X64);
    let (driver, inf) = (&package.members["sluice.sys"], &package.members["sluice.inf"]);
    let mut expected = vec![
        (signature::image_hash::<Sha1>(driver).unwrap(), "sluice.sys".to_owned()),
        (signature::image_hash::<Sha256>(driver).unwrap(), "sluice.sys".to_owned()),
        (Sha1::digest(inf).to_vec(), "sluice.inf".to_owned()),
        (Sha256::digest(inf).to_vec(), "sluice.inf".to_owned()),
    ];
    expected.sort();
    assert_eq!(catalog::members(&package.members["sluice.cat"]).unwrap(), expected);

    let (good, said) = package.osslsigncode(&["-catalog", "sluice.cat", "-in", "sluice.sys"]);
    assert!(good, "{said}");
    let mut changed = driver.clone();
    changed[0x1000] ^= 1;
    fs::write(package.zip.with_file_name("x64").join("changed.sys"), &changed).unwrap();
    let (good, said) = package.osslsigncode(&["-catalog", "sluice.cat", "-in", "changed.sys"]);
    assert!(!good, "{said}");
}
