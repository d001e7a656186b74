//! Signing: osslsigncode, or on Windows signtool, with a certificate made on the spot or the caller's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::PackageError;
use crate::process;

/// The subject of the certificate made on the spot. Only those who import it trust it.
const TEST_SUBJECT: &str = "Sluicegate test signing";

/// The key and certificate to sign with.
#[derive(Debug, Clone)]
pub struct Signer {
    credentials: Credentials,
    /// URL of an RFC 3161 time stamping authority. Without one a signature expires with its certificate.
    timestamp: Option<String>,
}

#[derive(Debug, Clone)]
enum Credentials {
    /// Both in PEM.
    Files { key: PathBuf, certificate: PathBuf },
    /// Windows: a certificate in this store, whose public half is in a file.
    Store { store: &'static str, public: PathBuf },
    /// Windows: a .pfx file, which holds both.
    Pfx(PathBuf),
}

impl Signer {
    /// The caller's key and certificate: PEM files; on Windows one .pfx file and no key.
    #[must_use]
    pub fn own(key: Option<PathBuf>, certificate: PathBuf, timestamp: Option<String>) -> Self {
        let credentials = match key {
            Some(key) => Credentials::Files { key, certificate },
            None => Credentials::Pfx(certificate),
        };
        Self { credentials, timestamp }
    }

    /// A key that only its owner can read, and a certificate for it, both made in `folder` unless they exist and are
    /// valid for another day, so that the certificate need not be trusted anew after every build.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn made_in(folder: &Path, timestamp: Option<String>) -> Result<Self, PackageError> {
        fs::create_dir_all(folder).map_err(PackageError::file(folder))?;
        let credentials = if cfg!(windows) { in_store(folder)? } else { in_files(folder)? };
        Ok(Self { credentials, timestamp })
    }

    /// Signs an image or a catalog. An image gets hashes of its pages too, so that the kernel can check each page as it
    /// is read from disk.
    ///
    /// # Errors
    /// When the tool cannot be run, or refuses.
    pub fn sign(&self, from: &Path, to: &Path) -> Result<(), PackageError> {
        let mut tool = match &self.credentials {
            Credentials::Files { key, certificate } => {
                let mut tool = Command::new("osslsigncode");
                tool.args(["sign", "-h", "sha256"]).arg("-certs").arg(certificate).arg("-key").arg(key);
                if to.extension().is_none_or(|extension| extension != "cat") {
                    tool.arg("-ph");
                }
                if let Some(url) = &self.timestamp {
                    tool.args(["-ts", url]);
                }
                tool.arg("-in").arg(from).arg("-out").arg(to);
                return Ok(process::run_quietly(&mut tool)?);
            }
            Credentials::Store { store, .. } => {
                let mut tool = Command::new("signtool");
                tool.args(["sign", "/q", "/fd", "SHA256", "/s", store, "/n", TEST_SUBJECT]);
                tool
            }
            Credentials::Pfx(file) => {
                let mut tool = Command::new("signtool");
                tool.args(["sign", "/q", "/fd", "SHA256", "/f"]).arg(file);
                tool
            }
        };
        // signtool signs in place.
        fs::copy(from, to).map_err(PackageError::file(from))?;
        if to.extension().is_none_or(|extension| extension != "cat") {
            tool.arg("/ph");
        }
        if let Some(url) = &self.timestamp {
            tool.args(["/tr", url, "/td", "SHA256"]);
        }
        Ok(process::run(tool.arg(to))?)
    }

    /// The certificate in DER, as Windows imports it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn certificate(&self) -> Result<Vec<u8>, PackageError> {
        let mut tool = match &self.credentials {
            Credentials::Store { public, .. } => return fs::read(public).map_err(PackageError::file(public)),
            Credentials::Files { certificate, .. } => {
                let mut openssl = Command::new("openssl");
                openssl.args(["x509", "-outform", "DER", "-in"]).arg(certificate);
                openssl
            }
            Credentials::Pfx(file) => {
                let mut shell = Command::new("powershell");
                let script =
                    "[Console]::OpenStandardOutput().Write(($c = (Get-PfxCertificate $args[0]).RawData), 0, $c.Length)";
                shell.args(["-NoProfile", "-Command", script]).arg(file);
                shell
            }
        };
        Ok(process::output_bytes(&mut tool)?)
    }
}

/// `key.pem` and `certificate.pem`, by openssl.
fn in_files(folder: &Path) -> Result<Credentials, PackageError> {
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let mut still_valid = Command::new("openssl");
    still_valid.args(["x509", "-noout", "-checkend", "86400", "-in"]).arg(&certificate);
    let kept = key.is_file() && certificate.is_file() && process::run_quietly(&mut still_valid).is_ok();
    if !kept {
        make_private(&key)?;
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:3072", "-sha256", "-noenc", "-days", "365"]);
        openssl.args(["-subj", &format!("/CN={TEST_SUBJECT}"), "-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=codeSigning"]);
        process::run_quietly(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
        eprintln!("made a test certificate: {}, with its key beside it", certificate.display());
    }
    Ok(Credentials::Files { key, certificate })
}

/// An empty file that only its owner can read, from before anything is written to it.
fn make_private(path: &Path) -> Result<(), PackageError> {
    if path.exists() {
        fs::remove_file(path).map_err(PackageError::file(path))?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(PackageError::file(path))
}

/// A certificate in one of this user's stores, made by makecert.
fn in_store(folder: &Path) -> Result<Credentials, PackageError> {
    const STORE: &str = "SluiceTestStore";
    let public = folder.join("certificate.cer");
    if !public.is_file() {
        let mut makecert = Command::new("makecert");
        makecert.args(["-r", "-pe", "-a", "sha256", "-len", "3072", "-eku", "1.3.6.1.5.5.7.3.3", "-ss", STORE]);
        process::run(makecert.arg("-n").arg(format!("CN={TEST_SUBJECT}")).arg(&public))?;
    }
    Ok(Credentials::Store { store: STORE, public })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_reads_the_key_and_both_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::made_in(folder.path(), None).unwrap();
        let key = folder.path().join("key.pem");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
        let first = signer.certificate().unwrap();
        let again = Signer::made_in(folder.path(), None).unwrap();
        assert!(again.certificate().unwrap() == first);
        fs::remove_file(&key).unwrap();
        let other = Signer::made_in(folder.path(), None).unwrap();
        assert!(other.certificate().unwrap() != first);
    }
}
