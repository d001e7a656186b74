//! The package's documents: README.txt, licences, the bill of materials and the checksums.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};
use sluice_protocol::{OLDEST_WINDOWS, OLDEST_WINDOWS_BUILD};

use super::{Inputs, PackageError, dependencies::Component, write};

const BILL_OF_MATERIALS: &str = "sluice.cdx.json";
const SUMS: &str = "SHA256SUMS";

/// Files of the repository that go into the package, with their names in it.
const COPIED: [(&str, &str); 3] =
    [("tests/vm/try.ps1", "try.ps1"), ("LICENSE-APACHE", "LICENSE-APACHE.txt"), ("LICENSE-MIT", "LICENSE-MIT.txt")];

/// The members of the zip file, in their order.
pub(super) const MEMBERS: [&str; 12] = [
    "README.txt",
    "try.ps1",
    "sluice.exe",
    "sluice.sys",
    "sluice.inf",
    "sluice.cat",
    "sluice.cer",
    "LICENSE-APACHE.txt",
    "LICENSE-MIT.txt",
    "THIRD-PARTY.txt",
    BILL_OF_MATERIALS,
    SUMS,
];

/// Writes them into `stage`, the checksums last.
pub(super) fn write_all(inputs: &Inputs<'_>, stage: &Path) -> Result<(), PackageError> {
    for (from, to) in COPIED {
        let from = inputs.root.join(from);
        fs::copy(&from, stage.join(to)).map_err(PackageError::file(from))?;
    }
    let template = inputs.root.join("resources/package.txt");
    let text = fs::read_to_string(&template).map_err(PackageError::file(template))?;
    let oldest = format!("{OLDEST_WINDOWS} (build {OLDEST_WINDOWS_BUILD})");
    let text = text.replace("@VERSION@", inputs.version).replace("@OLDEST@", &oldest);
    write(&stage.join("README.txt"), with_windows_ends(&text).as_bytes())?;
    write(&stage.join("THIRD-PARTY.txt"), with_windows_ends(&third_party(&inputs.linked.components)).as_bytes())?;
    let bill = bill_of_materials(inputs, stage)?;
    write(&stage.join(BILL_OF_MATERIALS), bill.as_bytes())?;

    let mut sums = String::new();
    for name in MEMBERS.into_iter().filter(|name| *name != SUMS) {
        sums.push_str(&format!("{} *{name}\n", sum_of(&stage.join(name))?));
    }
    write(&stage.join(SUMS), sums.as_bytes())
}

fn with_windows_ends(text: &str) -> String {
    text.lines().map(|line| [line.trim_end(), "\r\n"].concat()).collect()
}

/// SHA-256 of a file in hexadecimal digits.
fn sum_of(path: &Path) -> Result<String, PackageError> {
    let content = fs::read(path).map_err(PackageError::file(path))?;
    Ok(Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Every component with its licence; each text once, below all components that share it.
fn third_party(components: &[Component]) -> String {
    let mut text = String::from(
        "Third-party code linked into sluice.sys and sluice.exe, with the licences under which it is used.\n\n",
    );
    for Component { name, version, licence, products, .. } in components {
        let products = products.iter().copied().collect::<Vec<_>>().join(", ");
        text.push_str(&format!("{name} {version}: {licence} ({products})\n"));
    }
    let mut texts: Vec<(&str, Vec<&str>)> = Vec::new();
    for component in components {
        match texts.iter_mut().find(|(text, _)| *text == component.text) {
            Some((_, names)) => names.push(&component.name),
            None => texts.push((&component.text, vec![&component.name])),
        }
    }
    for (licence, names) in texts {
        let licence = if licence.is_empty() { "(It comes without a licence text.)\n" } else { licence };
        text.push_str(&format!("\n{}\n{}\n\n{licence}", "=".repeat(78), names.join(", ")));
    }
    text
}

/// CycloneDX 1.5: the files of the package, and their components.
fn bill_of_materials(inputs: &Inputs<'_>, stage: &Path) -> Result<String, PackageError> {
    use serde_json::{Value, json};
    let ours = json!([{ "expression": "MIT OR Apache-2.0" }]);
    let mut components: Vec<Value> = Vec::new();
    let mut dependencies: Vec<Value> = Vec::new();
    for product in ["sluice.sys", "sluice.exe"] {
        components.push(json!({
            "type": "application", "bom-ref": product, "name": product, "version": inputs.version, "licenses": ours,
            "hashes": [{ "alg": "SHA-256", "content": sum_of(&stage.join(product))? }],
        }));
        let linked = inputs.linked.components.iter().filter(|component| component.products.contains(product));
        let linked: Vec<_> = linked.map(|component| component.url.as_str()).collect();
        dependencies.push(json!({ "ref": product, "dependsOn": linked }));
    }
    for Component { name, version, licence, url, .. } in &inputs.linked.components {
        components.push(json!({
            "type": "library", "bom-ref": url, "name": name, "version": version, "purl": url,
            "licenses": [{ "expression": licence }],
        }));
    }
    let time = der::DateTime::from_unix_duration(inputs.time).map_err(|_| PackageError::Time(inputs.time))?;
    let bill = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "timestamp": time.to_string(),
            "component": {
                "type": "application", "bom-ref": "sluice", "name": "Sluicegate", "version": inputs.version,
                "licenses": ours,
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    let text = serde_json::to_string_pretty(&bill).map_err(|error| PackageError::Metadata(error.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_components_share_stands_there_once() {
        let component = |name: &str, text: &str| Component {
            name: name.into(),
            version: "1".into(),
            licence: "MIT".into(),
            url: name.into(),
            products: ["sluice.sys"].into(),
            text: text.into(),
        };
        let text = third_party(&[component("a", "T1"), component("b", "T2"), component("c", "T1"), component("d", "")]);
        assert_eq!(text.matches("T1").count(), 1);
        assert!(text.contains("\na, c\n") && text.contains("c 1: MIT (sluice.sys)"), "{text}");
        assert!(text.contains("without a licence text"), "{text}");
    }
}
