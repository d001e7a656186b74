//! The tree of headers and libraries: this crate's own, or a real Windows Driver Kit.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{
    ApiSubset, Config, ConfigError, CpuArchitecture, DriverConfig, IoError,
    config::{cargo_variable, target_is_windows},
    letter_case,
};

/// The source of headers and libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    /// `headers/` and `def/` of this crate.
    Own,
    /// A Windows Driver Kit.
    Wdk {
        /// The folder that holds Include and Lib.
        root: PathBuf,
        /// The kit's version, such as 10.0.22621.0: a folder in both.
        version: String,
    },
}

impl Tree {
    pub(crate) fn from_env() -> Result<Self, ConfigError> {
        println!("cargo::rerun-if-env-changed=WDKContentRoot");
        println!("cargo::rerun-if-env-changed=Version_Number");
        let Some(root) = env::var_os("WDKContentRoot").filter(|root| !root.is_empty()).map(PathBuf::from) else {
            return Ok(Self::Own);
        };
        if !target_is_windows()? {
            return Ok(Self::Own); // unit tests on the host, whose C compiler cannot read Microsoft's headers
        }
        if root.is_relative() {
            return Err(ConfigError::RelativeRoot(root)); // build scripts run in their package's folder
        }
        let version = match env::var("Version_Number") {
            Ok(version) => version,
            Err(_) => newest_version(&root)?,
        };
        Ok(Self::Wdk { root, version })
    }
}

/// The newest of the folders named like a kit version that have kernel-mode headers.
fn newest_version(root: &Path) -> Result<String, ConfigError> {
    let include = folder(root, "Include")?;
    fs::read_dir(&include)
        .map_err(|source| IoError::with_path(&include, source))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| folder(&include.join(name), "km").is_ok())
        .filter_map(|name| {
            let numbers: Option<Vec<u32>> = name.split('.').map(|part| part.parse().ok()).collect();
            Some((numbers?, name))
        })
        .max()
        .map(|(_, name)| name)
        .ok_or_else(|| ConfigError::DirectoryNotFound { folder: include.join("10.0.NNNNN.0/km") })
}

/// This crate's folder, which holds its headers and export lists.
pub(crate) fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder of the kit, in any letter case.
fn folder(root: &Path, path: &str) -> Result<PathBuf, ConfigError> {
    letter_case::find(root, path)
        .filter(|folder| folder.is_dir())
        .ok_or_else(|| ConfigError::DirectoryNotFound { folder: root.join(path) })
}

impl Config {
    /// Folders to search for headers. For a kit these are mirrors in the build script's output folder, where headers
    /// are found in the letter case in which the kit's own files include them.
    ///
    /// # Errors
    /// When a folder of the WDK is missing or cannot be mirrored.
    pub fn include_paths(&self) -> Result<impl Iterator<Item = PathBuf> + use<>, ConfigError> {
        let kmdf = match &self.driver_config {
            DriverConfig::Kmdf(kmdf) => Some((kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor)),
            _ => None,
        };
        let (base, framework) = match &self.tree {
            Tree::Own => {
                let (base, framework) = (vec![own("headers/km")], kmdf.map(|_| own("headers/kmdf")));
                for folder in base.iter().chain(&framework) {
                    println!("cargo::rerun-if-changed={}", folder.display());
                }
                (base, framework)
            }
            Tree::Wdk { root, version } => {
                let mut parts = ["km/crt", "km", "shared"].map(|part| format!("{version}/{part}")).to_vec();
                parts.extend(kmdf.map(|(major, minor)| format!("wdf/kmdf/{major}.{minor}")));
                let include = folder(root, "Include")?;
                let originals: Vec<_> = parts.iter().map(|part| folder(&include, part)).collect::<Result<_, _>>()?;
                let mirrors = PathBuf::from(cargo_variable("OUT_DIR")?).join("include");
                let mut places: Vec<_> = parts.iter().map(|part| mirrors.join(part)).collect();
                letter_case::mirror(&originals.into_iter().zip(places.clone()).collect::<Vec<_>>())?;
                let framework = kmdf.and_then(|_| places.pop());
                (places, framework)
            }
        };
        // By these letters in a header's path wdk-sys distinguishes the framework's declarations from the kernel's.
        if let Some(folder) = base.iter().find(|folder| folder.to_string_lossy().to_lowercase().contains("wdf")) {
            return Err(ConfigError::WdfInPath { folder: folder.clone() });
        }
        Ok(base.into_iter().chain(framework))
    }

    /// Folders of the kit to search for libraries, if it has them. Libraries that are missing are made from this
    /// crate's lists.
    ///
    /// # Errors
    /// None; the published crate fails if there are no such folders.
    pub fn library_paths(&self) -> Result<impl Iterator<Item = PathBuf> + use<>, ConfigError> {
        let mut folders = Vec::new();
        if let Tree::Wdk { root, version } = &self.tree {
            let architecture = match self.architecture {
                CpuArchitecture::Amd64 => "x64",
                CpuArchitecture::Arm64 => "arm64",
            };
            folders.extend(folder(root, &format!("Lib/{version}/km/{architecture}")));
            if let DriverConfig::Kmdf(kmdf) = &self.driver_config {
                let (major, minor) = (kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor);
                folders.extend(folder(root, &format!("Lib/wdf/kmdf/{architecture}/{major}.{minor}")));
            }
        }
        Ok(folders.into_iter())
    }

    /// Macros defined for the headers.
    pub fn preprocessor_definitions(&self) -> impl Iterator<Item = (String, Option<String>)> + use<> {
        let architecture: &[(&str, Option<&str>)] = match self.architecture {
            CpuArchitecture::Amd64 => &[("_WIN64", None), ("_AMD64_", None), ("AMD64", None)],
            CpuArchitecture::Arm64 => {
                &[("_ARM64_", None), ("ARM64", None), ("_USE_DECLSPECS_FOR_SAL", Some("1")), ("STD_CALL", None)]
            }
        };
        let mut definitions: Vec<_> =
            architecture.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
        definitions.push(("_KERNEL_MODE".to_owned(), None));
        if let DriverConfig::Kmdf(kmdf) = &self.driver_config {
            let mut define = |name: &str, value: u8| definitions.push((name.to_owned(), Some(value.to_string())));
            define("KMDF_VERSION_MAJOR", kmdf.kmdf_version_major);
            define("KMDF_VERSION_MINOR", kmdf.target_kmdf_version_minor);
            if let Some(minimum) = kmdf.minimum_kmdf_version_minor {
                define("KMDF_MINIMUM_VERSION_REQUIRED", minimum);
            }
        }
        definitions.into_iter()
    }

    /// Headers of a part of the WDK.
    ///
    /// # Errors
    /// For the parts that this crate does not have, unless they are empty for this driver model.
    pub fn headers(&self, subset: ApiSubset) -> Result<impl Iterator<Item = String> + use<>, ConfigError> {
        let headers: &[&str] = match (subset, &self.driver_config) {
            (ApiSubset::Base, _) => &["ntifs.h", "ntddk.h", "ntstrsafe.h"],
            (ApiSubset::Wdf, DriverConfig::Wdm) => &[],
            (ApiSubset::Wdf, _) => &["wdf.h"],
            (other, _) => return Err(ConfigError::HeadersNotIncluded(other)),
        };
        Ok(headers.iter().map(|header| (*header).to_owned()))
    }

    /// A C file that includes the headers of the given parts.
    ///
    /// # Errors
    /// See [`Config::headers`].
    pub fn bindgen_header_contents(&self, subsets: impl IntoIterator<Item = ApiSubset>) -> Result<String, ConfigError> {
        let mut contents = String::new();
        for subset in subsets {
            for header in self.headers(subset)? {
                contents += &format!("#include \"{header}\"\n");
            }
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kmdf_1_15;

    #[test]
    fn own_tree_has_its_folders_and_no_libraries() {
        let config = kmdf_1_15(CpuArchitecture::Arm64);
        assert_eq!(config.include_paths().unwrap().count(), 2);
        assert_eq!(config.library_paths().unwrap().count(), 0);
        let contents = config.bindgen_header_contents([ApiSubset::Base, ApiSubset::Wdf]).unwrap();
        assert_eq!(contents.lines().last(), Some("#include \"wdf.h\""));
        assert!(matches!(
            config.headers(ApiSubset::Usb).map(drop),
            Err(ConfigError::HeadersNotIncluded(ApiSubset::Usb))
        ));
    }

    #[test]
    fn newest_kit_wins_by_number_and_needs_kernel_headers() {
        let root = env::temp_dir().join(format!("wdk-build-{}", std::process::id()));
        let include = root.join("Include");
        for folder in ["10.0.9000.0/km", "10.0.22621.0/km", "10.0.26100.0/um", "wdf/kmdf/1.15"] {
            fs::create_dir_all(include.join(folder)).unwrap();
        }
        let version = newest_version(&root).unwrap();
        assert_eq!(version, "10.0.22621.0");

        let tree = Tree::Wdk { root: root.clone(), version };
        let config = Config { tree, ..kmdf_1_15(CpuArchitecture::Amd64) };
        let missing = config.include_paths().map(drop).unwrap_err().to_string();
        assert!(missing.contains("10.0.22621.0/km/crt"), "{missing}");
        fs::remove_dir_all(root).unwrap();
    }
}
