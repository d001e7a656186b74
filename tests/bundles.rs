//! Bundles, from the key to the machine that refuses what others signed, with the real sluice.sys.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use served::{Served, ended, served, sluice};
use shim::stack::Verdict;
use sluice_host::Host;
use std::path::{Path, PathBuf};
use support::driver;
use tempfile::TempDir;
use wire::Wire;

const FIRST: &str = r#"
[default]
outbound = "permit"
inbound = "permit"

[list.bad]
file = "lists/bad.txt"

[[rule]]
name = "bad"
action = "block"
remote = "@bad"

[[rule.expect]]
remote = "203.0.113.66:443"
"#;

/// A folder where bundles are made.
struct Office(TempDir);

impl Office {
    fn new() -> Self {
        let office = Self(TempDir::new().unwrap());
        std::fs::create_dir(office.path("lists")).unwrap();
        office.write("lists/bad.txt", "203.0.113.66\n2001:db8:1::66\n203.0.113.67\n");
        office.write("office.toml", FIRST);
        office.run(0, &["bundle", "keygen", "fleet.key"]);
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    fn run(&self, status: i32, arguments: &[&str]) -> served::Text {
        ended(sluice(arguments).current_dir(self.0.path()).output().unwrap(), status)
    }

    fn json(&self, status: i32, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(status, &[arguments, &["--json"]].concat()).out).unwrap()
    }

    /// Makes a bundle of office.toml, and returns its path.
    fn bundle(&self, version: u64, key: &str) -> String {
        let name = format!("office-{version}-{key}.bundle");
        self.run(0, &["bundle", "make", "office.toml", "--version", &version.to_string(), "--key", key, "-o", &name]);
        self.path(&name).to_str().unwrap().to_owned()
    }

    fn key(&self) -> String {
        self.path("fleet.pub").to_str().unwrap().to_owned()
    }
}

/// What a machine decides by, and what it keeps: the image in force, the kept one, the kept bundle.
fn state(served: &Served) -> [Option<Vec<u8>>; 3] {
    let in_force = sluice_control::device::Control::open(&served.host).unwrap().0.policy().unwrap();
    let kept = |file| served.host.read_driver(file).unwrap();
    [in_force, kept("sluice.policy"), kept("sluice.bundle")]
}

#[test]
fn a_bundle_is_made_shown_and_verified_anywhere() {
    let office = Office::new();
    for (name, mode) in [("fleet.key", 0o600), ("fleet.pub", 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(office.path(name).metadata().unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    let secret = std::fs::read(office.path("fleet.key")).unwrap();
    assert!(office.run(1, &["bundle", "keygen", "fleet.key"]).error.contains("exists"));
    std::fs::remove_file(office.path("fleet.pub")).unwrap();
    office.run(1, &["bundle", "keygen", "fleet.key"]);
    assert_eq!(std::fs::read(office.path("fleet.key")).unwrap(), secret, "a key is never replaced");
    office.run(2, &["bundle", "keygen", "fleet.pub"]);
    office.run(0, &["bundle", "keygen", "other.key"]);

    let bundle = office.bundle(3, "fleet.key");
    let bytes = std::fs::read(&bundle).unwrap();
    office.bundle(3, "fleet.key");
    assert_eq!(std::fs::read(&bundle).unwrap(), bytes, "the same policy makes the same bundle");
    let shown = office.json(0, &["bundle", "show", &bundle]);
    assert_eq!((&shown["version"], shown["files"].as_array().unwrap().len()), (&3.into(), 2));
    assert_eq!(shown["files"][1]["name"], "lists/bad.txt");
    let key = shown["signer"].as_str().unwrap();
    let text = office.run(0, &["bundle", "show", &bundle]).out;
    assert!(text.contains(key) && text.contains("office.toml"), "{text}");
    assert_eq!(office.run(0, &["bundle", "show", &bundle, "--file", "office.toml"]).out, FIRST);
    office.run(4, &["bundle", "show", &bundle, "--file", "none"]);

    let verified = office.json(0, &["bundle", "verify", &bundle, "--key", key]);
    assert_eq!((&verified["compiles_to_its_image"], &verified["expectations"]), (&true.into(), &1.into()));
    let text = office.run(4, &["bundle", "verify", &bundle, "--key", "other.pub"]);
    assert!(text.error.contains(&format!("it is signed by {key}")), "{}", text.error);
    assert!(office.run(2, &["bundle", "verify", &bundle, "--key", "other.key"]).error.contains("secret key"));

    // What does not do what it says is not signed.
    office.write("lists/bad.txt", "203.0.113.67\n");
    let text =
        office.run(4, &["bundle", "make", "office.toml", "--version", "4", "--key", "fleet.key", "-o", "x.bundle"]);
    assert!(text.error.contains("expectations fail") && !office.path("x.bundle").exists(), "{}", text.error);
    // Nor is a key or a list written over.
    for name in ["fleet.key", "lists/bad.txt", "office.toml"] {
        office.run(
            1,
            &["bundle", "make", "office.toml", "--version", "4", "--key", "fleet.key", "-o", name, "--no-test"],
        );
    }
    assert_eq!(std::fs::read(office.path("fleet.key")).unwrap(), secret);
    office.run(4, &["load", "--check", &bundle]);
}

#[test]
fn applying_twice_changes_nothing_and_says_nothing() {
    let (office, served) = (Office::new(), served());
    served.run(0, &["install", driver().to_str().unwrap(), "--trust", &office.key()]);
    assert!(served.run(0, &["trust"]).out.contains("only bundles that ed25519:"));
    let one = office.bundle(1, "fleet.key");
    assert!(served.run(1, &["apply", "--check", &one]).out.starts_with("would apply version 1 of office.toml: "));
    let text = served.run(0, &["apply", &one]);
    assert!(
        text.out.starts_with("applied version 1 of office.toml: ") && text.out.lines().count() == 1,
        "{}",
        text.out
    );
    let before = state(&served);
    for arguments in [&["apply", &one][..], &["apply", "--check", &one]] {
        let text = served.run(0, arguments);
        assert_eq!((text.out.as_str(), text.error.as_str()), ("", ""));
    }
    assert_eq!(served.json(0, &["apply", &one])["changed"], false);
    assert_eq!(state(&served), before);
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Verdict::Refuse);
    assert_eq!(wire.connect("203.0.113.70", 443).0, Verdict::Forward);

    office.write("lists/bad.txt", "203.0.113.66\n203.0.113.70\n");
    let two = office.bundle(2, "fleet.key");
    let text = served.run(0, &["apply", &two]);
    assert!(text.out.contains("version 1 was applied before"), "{}", text.out);
    assert_eq!(wire.connect("203.0.113.70", 443).0, Verdict::Refuse);
    let status = served.json(0, &["status"]);
    assert_eq!((&status["bundle"]["version"], &status["bundle"]["policy"]), (&2.into(), &"office.toml".into()));
    let text = served.run(0, &["status"]).out;
    assert!(text.contains("version 2 of office.toml, signed by ed25519:"), "{text}");
    assert!(text.contains("office.toml, version 2 of the bundle /"), "{text}");

    let before = state(&served);
    assert!(served.run(4, &["apply", &one]).error.contains("version 2 has been applied"));
    assert_eq!(state(&served), before);
    served.run(0, &["apply", "--allow-rollback", &one]);
    assert_eq!(wire.connect("203.0.113.70", 443).0, Verdict::Forward);
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_machine_that_trusts_a_key_takes_nothing_else() {
    let (office, served) = (Office::new(), served());
    office.run(0, &["bundle", "keygen", "other.key"]);
    served.run(0, &["install", driver().to_str().unwrap(), "--trust", &office.key()]);
    served.run(0, &["apply", &office.bundle(1, "fleet.key")]);
    let before = state(&served);
    let (policy, other) = (office.path("office.toml"), office.bundle(9, "other.key"));
    let policy = policy.to_str().unwrap();
    let image = office.path("office.image");
    office.run(0, &["policy", "compile", "office.toml", "-o", "office.image"]);
    for arguments in [
        &["load", policy][..],
        &["load", "--once", policy],
        &["load", "--watch", policy],
        &["load", "--accept-shrunk", "--no-test", policy],
        &["load", image.to_str().unwrap()],
        &["install", driver().to_str().unwrap(), "--policy", policy],
        &["apply", &other],
        &["apply", "--allow-rollback", "--accept-shrunk", &other],
        &["load", &other],
    ] {
        let text = served.run(4, arguments);
        let said = text.error.contains("this machine takes only bundles that") || text.error.contains("is a bundle");
        assert!(said && text.out.is_empty(), "{arguments:?}: {}", text.error);
        assert_eq!(state(&served), before, "{arguments:?}");
    }
    assert_eq!(served.json(0, &["doctor"])["findings"].as_array().unwrap().len(), 0);

    // Another key, and none.
    served.run(0, &["trust", office.path("other.pub").to_str().unwrap()]);
    let found = served.json(1, &["doctor"])["findings"][0]["what"].as_str().unwrap().to_owned();
    assert!(found.contains("has signed what was applied"), "{found}");
    served.run(0, &["apply", &other]);
    served.run(0, &["trust", "--remove"]);
    assert!(served.run(0, &["trust"]).out.contains("any policy that an administrator loads"));
    served.run(0, &["load", policy]);
    served.run(0, &["uninstall"]);
    served.run(3, &["trust", &office.key()]);
    served.is_clean();
}

/// No byte of a bundle can be changed, and no length is another bundle's.
#[test]
fn a_bundle_that_was_changed_anywhere_changes_nothing() {
    let (office, served) = (Office::new(), served());
    served.run(0, &["install", driver().to_str().unwrap(), "--trust", &office.key()]);
    served.run(0, &["apply", &office.bundle(1, "fleet.key")]);
    office.write("lists/bad.txt", "203.0.113.66\n203.0.113.70\n");
    let bytes = std::fs::read(office.bundle(2, "fleet.key")).unwrap();
    let before = state(&served);
    let refused = |bytes: &[u8], what: &str| {
        let file = office.write("tampered.bundle", bytes);
        let error = sluice_control::apply(&served.host, Path::new(&file), sluice_control::ApplyOptions::DEFAULT);
        let error = error.expect_err(what);
        assert_eq!(error.kind(), sluice_control::Kind::Policy, "{what}: {error}");
    };
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        refused(&changed, &format!("byte {place}"));
        refused(&bytes[..place], &format!("length {place}"));
    }
    refused(&[&bytes[..], &[0]].concat(), "one byte more");
    assert_eq!(state(&served), before);

    let huge = office.path("huge.bundle");
    std::fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let text = served.run(4, &["apply", huge.to_str().unwrap()]);
    assert!(text.error.contains("it is longer than the 256 MiB that are read"), "{}", text.error);
    assert!(served.run(4, &["apply", "/dev/zero"]).error.contains("a device"));
    assert!(served.run(4, &["apply", office.path("none").to_str().unwrap()]).error.contains("bundle"));
    assert_eq!(state(&served), before);
    served.run(0, &["uninstall"]);
    served.is_clean();
}
