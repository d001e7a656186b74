//! Every place that names the oldest Windows names the one that the image's imports decide (tests/image.rs).
//!
//! The INF is held to it by `inf::rules`.

use std::{fs, path::Path};

use sluice_protocol::{OLDEST_WINDOWS, OLDEST_WINDOWS_BUILD};

#[test]
fn documents_name_the_oldest_windows_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in ["README.md", "SPECIFICATION.md"] {
        let text = fs::read_to_string(root.join(name)).unwrap();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!("{OLDEST_WINDOWS} (build {OLDEST_WINDOWS_BUILD})")), "{name} does not say it");
        for (at, _) in words.match_indices("(build ") {
            assert!(
                words[at..].starts_with(&format!("(build {OLDEST_WINDOWS_BUILD})")),
                "{name}: {}",
                &words[at..at + 20]
            );
        }
    }
}
