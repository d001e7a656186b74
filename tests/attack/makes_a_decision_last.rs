//! Somebody makes one decision take so long that the machine stands still.

use shim::stack::Verdict;
use sluice_policy::image;

use crate::{support::Rig, wire::Wire};

const POLICY: &str = "[default]\noutbound = \"permit\"\n\
    [[rule]]\nname = \"program\"\naction = \"block\"\napplication = '\\device\\volume\\program.exe'\n";

/// Hashing it alone takes more steps than a decision may.
fn endless_path() -> String {
    format!(r"\device\volume\{}.exe", "x".repeat(image::MOST_STEPS as usize * 32))
}

#[test]
fn with_a_path_that_takes_long_to_look_up() {
    let rig = Rig::with_policy(POLICY);
    let mut ordinary = Wire::of_program(&rig.machine, 4000, r"\device\volume\other.exe");
    assert_eq!(ordinary.connect("203.0.113.10", 443).0, Verdict::Forward);
    assert_eq!(rig.counter("decisions_over_budget"), 0);
    let mut endless = Wire::of_program(&rig.machine, 4004, &endless_path());
    assert_eq!(endless.connect("203.0.113.10", 443).0, Verdict::Refuse, "what cannot be decided is blocked");
    assert_eq!((rig.counter("decisions_over_budget"), rig.counter("connects_blocked")), (1, 1));
    rig.uninstall();
}
