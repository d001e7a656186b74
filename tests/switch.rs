//! `sluice disable` and `enable` on a machine with the real sluice.sys in it.

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use served::served;
use shim::stack::Verdict;
use support::BLOCK_ALL;
use wire::Wire;

#[test]
fn nothing_is_decided_while_it_is_off_and_everything_as_before_afterwards() {
    let served = served();
    served.run(3, &["disable"]);
    served.run(3, &["enable"]);
    served.install();
    let policy = served.file("policy.toml", BLOCK_ALL);
    let loaded = served.json(0, &["load", &policy]);
    let connects = |verdict| {
        let mut wire = Wire::new(&served.machine);
        assert_eq!(wire.connect("203.0.113.66", 443).0, verdict);
        wire.finish();
    };
    connects(Verdict::Refuse);
    assert!(served.run(0, &["disable"]).out.starts_with("off: "));
    connects(Verdict::Forward);
    assert!(served.run(0, &["disable"]).out.starts_with("off, and was already: "));
    let status = served.json(0, &["status"]);
    assert_eq!((&status["disabled"], &status["driver"]["policy"]["identity"]), (&true.into(), &loaded["identity"]));
    assert!(served.run(0, &["status"]).out.contains("switched off; `sluice enable` switches them on"));
    assert!(served.run(3, &["load", &policy]).out.contains("the filters are switched off"));
    assert!(served.run(0, &["enable"]).out.starts_with("on: "));
    connects(Verdict::Refuse);
    assert!(served.run(0, &["enable"]).out.contains("already"));
    served.run(0, &["uninstall"]);
    served.is_clean();
}
