//! Which crate of the programs may use which. ARCHITECTURE.md explains the walls.

use std::path::PathBuf;

use serde::Deserialize;
use xtask::process;

use crate::{Error, places::Places, toolchain::host_cargo};

/// Each crate and what it may use of the others, apart from its tests.
const MAY_USE: &[(&str, &[&str])] = &[
    ("filter-engine", &["hazard", "nt-abi", "sluice-host"]),
    ("hazard", &[]),
    ("nt-abi", &["sluice-host"]),
    (
        "ntsim",
        &[
            "filter-engine",
            "hazard",
            "nt-abi",
            "shim",
            "sluice-control",
            "sluice-files",
            "sluice-host",
            "sluice-protocol",
        ],
    ),
    ("shim", &["nt-abi"]),
    (
        "sluice",
        &[
            "sluice-bundle",
            "sluice-control",
            "sluice-diagnose",
            "sluice-files",
            "sluice-host",
            "sluice-policy",
            "sluice-protocol",
        ],
    ),
    ("sluice-bundle", &[]),
    ("sluice-content", &[]),
    ("sluice-control", &["sluice-bundle", "sluice-files", "sluice-host", "sluice-policy", "sluice-protocol"]),
    ("sluice-diagnose", &["filter-engine", "sluice-host"]),
    ("sluice-files", &[]),
    ("sluice-host", &["sluice-protocol"]),
    ("sluice-policy", &["sluice-suffixes"]),
    ("sluice-protocol", &[]),
    ("sluice-suffixes", &[]),
    ("xtask", &["sluice-protocol"]),
];

/// The parts of `cargo metadata` used here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing.
    kind: Option<String>,
    /// The path of a crate that is not from a registry.
    path: Option<PathBuf>,
}

/// Checks the workspace against [`MAY_USE`].
pub(super) fn check(places: &Places) -> Result<(), Error> {
    let metadata = process::output(host_cargo(places).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let broken = broken(&metadata);
    for wall in &broken {
        eprintln!("{wall}");
    }
    if broken.is_empty() { Ok(()) } else { Err(Error::Lint(broken.len())) }
}

/// One line for each crate that is not in the table and each use that it does not allow.
fn broken(metadata: &str) -> Vec<String> {
    let packages = match serde_json::from_str::<Metadata>(metadata) {
        Ok(Metadata { packages }) => packages,
        Err(error) => return vec![format!("cargo metadata: {error}")],
    };
    let mut broken = Vec::new();
    for package in &packages {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == package.name) else {
            broken.push(format!("{}: a crate without a row in crates/xtask/src/lint/walls.rs", package.name));
            continue;
        };
        let used =
            package.dependencies.iter().filter(|used| used.path.is_some() && used.kind.as_deref() != Some("dev"));
        for used in used.filter(|used| !allowed.contains(&used.name.as_str())) {
            broken.push(format!("{} may not use {} (crates/xtask/src/lint/walls.rs)", package.name, used.name));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(name: &str, kind: &str, used: &str) -> String {
        format!(
            r#"{{"packages": [{{"name": "{name}", "dependencies": [
                {{"name": "{used}", "kind": {kind}, "path": "/x"}}, {{"name": "serde", "kind": null}}]}}]}}"#
        )
    }

    #[test]
    fn what_the_table_allows_and_what_tests_use_passes() {
        assert_eq!(broken(&uses("shim", "null", "nt-abi")), [""; 0]);
        assert_eq!(broken(&uses("filter-engine", "\"dev\"", "ntsim")), [""; 0]);
    }

    #[test]
    fn a_wall_that_is_crossed_is_named() {
        for kind in ["null", "\"build\""] {
            assert_eq!(
                broken(&uses("filter-engine", kind, "ntsim")),
                ["filter-engine may not use ntsim (crates/xtask/src/lint/walls.rs)"]
            );
        }
    }

    #[test]
    fn a_new_crate_needs_a_row_and_nonsense_is_no_metadata() {
        assert_eq!(broken(&uses("more", "null", "nt-abi")).len(), 1);
        assert_eq!(broken("{}").len(), 1);
    }
}
