//! Attacks by a hostile program or peer, and an administrator's mistakes, each tried on the real driver. SECURITY.md
//! names the tests.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wire.rs"]
mod wire;

mod exhausts_the_pool;
mod flushes_the_event_log;
mod is_forwarded;
mod makes_a_decision_last;
mod outlives_the_policy;
mod scans_the_ports;
mod suspends_its_own_thread;
mod uploads_a_policy;
mod writes_ipv4_as_ipv6;

/// Every test that SECURITY.md names exists: `file` (test), or a module's file for `tests/attack`.
#[test]
fn the_tests_that_security_names_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let mut named = 0;
    for part in text.split("`tests/").skip(1) {
        let (file, rest) = part.split_once('`').expect("the end of a name");
        let Some(test) = rest.strip_prefix(" (").and_then(|rest| rest.split(')').next()) else {
            assert!(root.join("tests").join(file).exists(), "{file}");
            continue;
        };
        named += 1;
        if file == "attack" {
            assert!(root.join(format!("tests/attack/{test}.rs")).is_file(), "{test}");
        } else {
            let source = std::fs::read_to_string(root.join("tests").join(file)).expect("a test program");
            assert!(source.contains(&format!("fn {test}(")), "{file}: {test}");
        }
    }
    assert!(named >= 5, "only {named} tests are named");
}
