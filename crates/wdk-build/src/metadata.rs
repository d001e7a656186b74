//! The driver model in the manifests of the workspace that is being built.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{ConfigError, DriverConfig, IoError, KmdfConfig, config::cargo_variable};

/// Asks Cargo for the manifests of the workspace above the build output and reads their one driver model.
pub(crate) fn driver_config_of_workspace() -> Result<DriverConfig, ConfigError> {
    let out_dir = PathBuf::from(cargo_variable("OUT_DIR")?);
    let root = out_dir
        .ancestors()
        .find(|folder| folder.join("Cargo.lock").is_file())
        .ok_or_else(|| ConfigError::WorkspaceNotFound { out_dir: out_dir.clone() })?;
    let metadata = cargo_metadata(&root.join("Cargo.toml"))?;
    for manifest in manifests(&metadata) {
        println!("cargo::rerun-if-changed={manifest}");
    }
    driver_config(&metadata)
}

fn cargo_metadata(manifest: &Path) -> Result<Value, ConfigError> {
    let failed = |why: String| ConfigError::CargoMetadata { manifest: manifest.to_owned(), why };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path"])
        .arg(manifest)
        .output()
        .map_err(|source| IoError::with_path(cargo, source))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn manifests(metadata: &Value) -> impl Iterator<Item = String> {
    let root = metadata["workspace_root"].as_str().map(|root| format!("{root}/Cargo.toml"));
    packages(metadata).filter_map(|package| package["manifest_path"].as_str().map(str::to_owned)).chain(root)
}

/// The one driver model of the workspace: the workspace's own section and those of its packages must agree.
fn driver_config(metadata: &Value) -> Result<DriverConfig, ConfigError> {
    let mut models = std::iter::once(&metadata["metadata"])
        .chain(packages(metadata).map(|package| &package["metadata"]))
        .map(|section| &section["wdk"]["driver-model"])
        .filter(|model| model.is_object());
    let model = models.next().ok_or(ConfigError::NoWdkConfigurationsDetected)?;
    if let Some(other) = models.find(|other| *other != model) {
        return Err(ConfigError::ConflictingWdkConfigurations(model.to_string(), other.to_string()));
    }
    match model["driver-type"].as_str() {
        Some("WDM") => Ok(DriverConfig::Wdm),
        Some("KMDF") => Ok(DriverConfig::Kmdf(KmdfConfig {
            kmdf_version_major: version(model, "kmdf-version-major")?,
            target_kmdf_version_minor: version(model, "target-kmdf-version-minor")?,
            minimum_kmdf_version_minor: match &model["minimum-kmdf-version-minor"] {
                Value::Null => None,
                _ => Some(version(model, "minimum-kmdf-version-minor")?),
            },
        })),
        _ => Err(bad(model, "driver-type", "\"KMDF\" or \"WDM\"; UMDF drivers are built on Windows")),
    }
}

fn version(model: &Value, key: &'static str) -> Result<u8, ConfigError> {
    model[key]
        .as_u64()
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| bad(model, key, "a number from 0 to 255"))
}

fn bad(model: &Value, key: &'static str, expected: &'static str) -> ConfigError {
    let found = match &model[key] {
        Value::Null => "missing".to_owned(),
        value => value.to_string(),
    };
    ConfigError::BadMetadata { key, found, expected }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kmdf(minor: u8) -> Value {
        json!({ "wdk": { "driver-model": {
            "driver-type": "KMDF", "kmdf-version-major": 1, "target-kmdf-version-minor": minor } } })
    }

    #[test]
    fn agreeing_sections_are_one_model() {
        let config = driver_config(&json!({ "metadata": kmdf(15), "packages": [{ "metadata": kmdf(15) }, {}] }));
        let Ok(DriverConfig::Kmdf(kmdf)) = config else { panic!("{config:?}") };
        assert_eq!((kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor), (1, 15));
    }

    #[test]
    fn disagreeing_sections_are_refused() {
        let config = driver_config(&json!({ "metadata": kmdf(15), "packages": [{ "metadata": kmdf(33) }] }));
        assert!(matches!(config, Err(ConfigError::ConflictingWdkConfigurations(..))), "{config:?}");
    }

    #[test]
    fn no_section_is_told_apart() {
        let config = driver_config(&json!({ "metadata": null, "packages": [{}] }));
        assert!(matches!(config, Err(ConfigError::NoWdkConfigurationsDetected)), "{config:?}");
    }

    #[test]
    fn a_missing_or_wrong_key_is_named() {
        let mut section = kmdf(15);
        section["wdk"]["driver-model"]["target-kmdf-version-minor"] = json!("15");
        let error = driver_config(&json!({ "metadata": section })).unwrap_err().to_string();
        assert!(error.contains("target-kmdf-version-minor is \"15\""), "{error}");
        let error = driver_config(&json!({ "metadata": { "wdk": { "driver-model": {} } } })).unwrap_err().to_string();
        assert!(error.contains("driver-type is missing"), "{error}");
    }
}
