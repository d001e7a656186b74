//! Third-party code linked into sluice.sys and sluice.exe, read from `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::PackageError;

/// Everything that is linked into the products.
#[derive(Debug, Default)]
pub struct Linked {
    /// Third-party crates, and libraries that come with the tools.
    pub components: Vec<Component>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SPDX expression.
    pub licence: String,
    /// Its source, as a package URL.
    pub url: String,
    /// The products it is linked into.
    pub products: BTreeSet<&'static str>,
    /// The text of its licence files.
    pub text: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for those of the workspace.
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` for normal dependencies, `build` and `dev` for the others.
    kind: Option<String>,
}

impl Linked {
    /// Adds what `root` links into `product`, by the JSON that `cargo metadata --format-version 1` printed for its target.
    /// Crates of the workspace itself are left out, and so are procedural macros and dependencies of build scripts.
    ///
    /// # Errors
    /// When the JSON is not valid, or a crate does not state its licence.
    pub fn add(&mut self, metadata: &str, root: &str, product: &'static str) -> Result<(), PackageError> {
        let metadata: Metadata =
            serde_json::from_str(metadata).map_err(|error| PackageError::Metadata(error.to_string()))?;
        let packages: BTreeMap<_, _> = metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let nodes = metadata.resolve.map(|resolve| resolve.nodes).unwrap_or_default();
        let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (node.id.as_str(), node)).collect();

        let first = metadata.packages.iter().find(|package| package.name == root);
        let first = first.ok_or_else(|| PackageError::Metadata(format!("no package {root}")))?;
        let mut open = vec![first.id.as_str()];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            let (Some(package), Some(node)) = (packages.get(id), nodes.get(id)) else {
                return Err(PackageError::Metadata(format!("{id} is not resolved")));
            };
            if !package.is_linked() || !seen.insert(id) {
                continue;
            }
            if package.source.is_some() {
                self.insert(package.component()?, product);
            }
            let linked = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            open.extend(node.deps.iter().filter(linked).map(|dependency| dependency.pkg.as_str()));
        }
        Ok(())
    }

    /// Adds a library that comes with a tool.
    pub fn insert(&mut self, component: Component, product: &'static str) {
        let same = |other: &&mut Component| other.url == component.url;
        match self.components.iter_mut().find(same) {
            Some(known) => drop(known.products.insert(product)),
            None => self.components.push(Component { products: [product].into(), ..component }),
        }
        self.components.sort();
    }
}

impl Package {
    fn is_linked(&self) -> bool {
        !self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }

    fn component(&self) -> Result<Component, PackageError> {
        let Self { name, version, .. } = self;
        let licence = self.license.as_ref().ok_or_else(|| PackageError::Metadata(format!("{name} has no licence")))?;
        Ok(Component {
            name: name.clone(),
            version: version.clone(),
            // The old form of the field.
            licence: licence.replace('/', " OR "),
            url: format!("pkg:cargo/{name}@{version}"),
            products: BTreeSet::new(),
            text: licence_files(self.manifest_path.parent().unwrap_or(Path::new("")))?,
        })
    }
}

/// The texts of a folder's licence files, sorted by name.
fn licence_files(folder: &Path) -> Result<String, PackageError> {
    const BEGINNINGS: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(PackageError::file(folder))? {
        let path = entry.map_err(PackageError::file(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if path.is_file() && BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) {
            files.push(path);
        }
    }
    files.sort();
    let mut text = String::new();
    for path in files {
        let bytes = fs::read(&path).map_err(PackageError::file(&path))?;
        text.push_str(String::from_utf8_lossy(&bytes).trim());
        text.push_str("\n\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_followed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("LICENSE-MIT"), "the text\n").unwrap();
        let manifest = folder.path().join("Cargo.toml");
        let package = |name: &str, source: &str, kind: &str| {
            format!(
                r#"{{"id":"{name}","name":"{name}","version":"1.0.0","license":"MIT/Apache-2.0","source":{source},
                "manifest_path":{manifest:?},"targets":[{{"kind":["{kind}"]}}]}}"#
            )
        };
        let packages = [
            package("ours", "null", "cdylib"),
            package("linked", "\"r\"", "lib"),
            package("below", "\"r\"", "lib"),
            package("macro", "\"r\"", "proc-macro"),
            package("built-with", "\"r\"", "lib"),
        ];
        let metadata = format!(
            r#"{{"packages":[{}],"resolve":{{"nodes":[
            {{"id":"ours","deps":[{{"pkg":"linked","dep_kinds":[{{"kind":null}}]}},
                {{"pkg":"macro","dep_kinds":[{{"kind":null}}]}},{{"pkg":"built-with","dep_kinds":[{{"kind":"build"}}]}}]}},
            {{"id":"linked","deps":[{{"pkg":"below","dep_kinds":[{{"kind":"dev"}},{{"kind":null}}]}}]}},
            {{"id":"below","deps":[]}},{{"id":"macro","deps":[]}},{{"id":"built-with","deps":[]}}]}}}}"#,
            packages.join(",")
        );
        let mut linked = Linked::default();
        linked.add(&metadata, "ours", "sluice.sys").unwrap();
        linked.add(&metadata, "linked", "sluice.exe").unwrap();
        let names: Vec<_> = linked.components.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["below", "linked"]);
        assert_eq!(linked.components[0].products, ["sluice.exe", "sluice.sys"].into());
        assert_eq!(
            (linked.components[0].licence.as_str(), linked.components[0].text.trim()),
            ("MIT OR Apache-2.0", "the text")
        );
    }
}
