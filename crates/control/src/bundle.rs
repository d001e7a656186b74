//! Bundles are made of policy files, and read again as policies.

use crate::disk::{Disk, MAX_POLICY_FILE};
use crate::error::ControlError;
use crate::policy::{EXAMINED_KEY, expectations_hold, image};
use crate::program::assumed_app_id;
use crate::read::policy_of;
use serde::Serialize;
use sluice_bundle::{Bundle, Contents, InvalidBundle, MAX_BYTES, PublicKey, SecretKey};
use sluice_policy::model::{Policy, assumed_luid};
use sluice_policy::{Diagnostic, Files};
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What a bundle was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Making {
    /// Its version.
    pub version: u64,
    /// Who signed it.
    pub signer: String,
    /// Its SHA-256.
    pub digest: String,
    /// How long it is.
    pub bytes: usize,
    /// The policy's name, then its lists'.
    pub files: Vec<String>,
    /// How many rules it has.
    pub rules: u32,
    /// How many expectations hold.
    pub expectations: usize,
    /// What compiles but is probably a mistake.
    pub warnings: Vec<Diagnostic>,
    /// What was read to make it, so that it is not written there.
    #[serde(skip)]
    pub read: Vec<PathBuf>,
}

/// Makes a bundle of a policy file and its lists. The same files, version and key make the same bytes.
///
/// # Errors
/// A file cannot be read, the policy does not compile or does not do what its expectations say (with `test`), or it is too
/// large for a bundle.
pub fn make_bundle(file: &Path, version: u64, key: &SecretKey, test: bool) -> Result<(Vec<u8>, Making), ControlError> {
    let failed = |source| ControlError::PolicyFile { path: file.to_owned(), source };
    let text = sluice_files::read_or_stdin(file, MAX_POLICY_FILE).map_err(failed)?;
    let named = (file.as_os_str() != sluice_files::STDIN).then(|| file.file_name()).flatten();
    let name = named.map_or_else(|| "policy.toml".to_owned(), |name| name.to_string_lossy().into_owned());
    let folder = file.parent().map_or_else(PathBuf::new, PathBuf::from);
    let lists = Lists { folder, disk: Disk::default(), found: RefCell::default() };
    let policy = policy_of(Path::new(&name), text.clone(), &lists)?;
    let expectations = if test { expectations_hold(&policy)? } else { 0 };
    let (image, found) = image(&elsewhere(&policy), &assumed_app_id, None, EXAMINED_KEY)?;
    let mut files = vec![(name, text)];
    files.extend(lists.found.into_inner());
    let names = files.iter().map(|(name, _)| name.clone()).collect();
    let bytes = Contents { version, files, image: image.as_bytes().to_vec() }.sign(key)?;
    let wrong = |source| ControlError::Bundle { path: file.to_owned(), source };
    let bundle = Bundle::read(bytes).map_err(wrong)?;
    let mut read = lists.disk.into_read();
    read.push(file.to_owned());
    let making = Making {
        version,
        signer: bundle.signer().to_string(),
        digest: bundle.digest(),
        bytes: bundle.as_bytes().len(),
        files: names,
        rules: image.rule_count(),
        expectations,
        warnings: policy.warnings.iter().cloned().chain(found).chain(sluice_policy::lint(&policy)).collect(),
        read,
    };
    Ok((bundle.as_bytes().to_vec(), making))
}

/// Reads a bundle, or standard input for `-`. Where a key is `trusted`, nothing that another has signed is looked into.
///
/// # Errors
/// It cannot be read, is no bundle, was changed, or is not signed by the key.
pub fn read_bundle(file: &Path, trusted: Option<&PublicKey>) -> Result<Bundle, ControlError> {
    let failed = |source| ControlError::BundleFile { path: file.to_owned(), source };
    let bytes = sluice_files::read_or_stdin(file, MAX_BYTES as u64).map_err(failed)?;
    let bundle = match trusted {
        Some(trusted) => Bundle::read_trusted(bytes, trusted),
        None => Bundle::read(bytes),
    };
    bundle.map_err(|source| match (source, trusted) {
        (InvalidBundle::Signer(signer), Some(trusted)) => {
            ControlError::Untrusted { trusted: Box::new(*trusted), signer: Some(signer) }
        }
        (source, _) => ControlError::Bundle { path: file.to_owned(), source },
    })
}

/// The policy of a bundle, with the lists that are in it.
///
/// # Errors
/// It is no policy.
pub(crate) fn policy_in(bundle: &Bundle) -> Result<Policy, ControlError> {
    let (name, text) = bundle.policy();
    policy_of(Path::new(name), text.to_vec(), &Within(bundle))
}

/// What [`check_bundle`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedBundle {
    /// Whether this program compiles the bundle's policy to the bundle's image. One of another version may not.
    pub compiles_to_its_image: bool,
    /// How many expectations hold.
    pub expectations: usize,
}

/// Compiles what is in a bundle again.
///
/// # Errors
/// The policy is not valid, or does not do what its expectations say.
pub fn check_bundle(bundle: &Bundle) -> Result<CheckedBundle, ControlError> {
    let policy = policy_in(bundle)?;
    let expectations = expectations_hold(&policy)?;
    let (image, _) = image(&elsewhere(&policy), &assumed_app_id, None, EXAMINED_KEY)?;
    Ok(CheckedBundle { compiles_to_its_image: image.as_bytes() == bundle.image(), expectations })
}

/// A policy away from its machine: interfaces that it names are taken to be there.
fn elsewhere(policy: &Policy) -> Policy {
    policy.on_machine(|alias| Some(assumed_luid(alias)))
}

/// The lists beside a policy, which remember their names and contents.
struct Lists {
    folder: PathBuf,
    disk: Disk,
    found: RefCell<Vec<(String, Vec<u8>)>>,
}

impl Files for Lists {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let Some(name) = path.to_str() else {
            return Err(io::Error::new(ErrorKind::InvalidData, "its name is not Unicode"));
        };
        let content = self.disk.read(&self.folder.join(path))?;
        let mut found = self.found.borrow_mut();
        if found.iter().all(|(other, _)| other != name) {
            found.push((name.to_owned(), content.clone()));
        }
        Ok(content)
    }
}

/// The lists in a bundle.
struct Within<'a>(&'a Bundle);

impl Files for Within<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = path.to_str().and_then(|name| self.0.file(name));
        found.map(<[u8]>::to_vec).ok_or_else(|| io::Error::new(ErrorKind::NotFound, "it is not in the bundle"))
    }
}
