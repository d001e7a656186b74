//! A program, or a peer, reaches a forbidden IPv4 address by an IPv6 address that leads to it.

use shim::stack::Verdict;

use crate::{support::Rig, wire::Wire};

/// 203.0.113.66, behind a NAT64, as a 6to4 router and as a Teredo client.
const FORMS: [&str; 3] = ["64:ff9b::203.0.113.66", "2002:cb00:7142::1", "2001:0:4136:e378:8000:63bf:34ff:8ebd"];
const RULES: &str = "[[rule]]\naction = \"block\"\nremote = \"@bad\"\n[list.bad]\nentries = [\"203.0.113.66\"]\n";

#[test]
fn of_every_form_that_the_policy_looks_into() {
    let rig = Rig::with_policy(RULES);
    let mut wire = Wire::new(&rig.machine);
    for remote in FORMS {
        assert_eq!(wire.connect(remote, 443).0, Verdict::Forward, "{remote}: docs/policy.md says so");
    }
    rig.load(&format!("[default]\nembedded-ipv4 = true\n{RULES}"));
    for remote in FORMS {
        assert_eq!(wire.connect(remote, 443).0, Verdict::Refuse, "{remote}");
    }
    for remote in ["64:ff9b::203.0.113.67", "2002:cb00:7143::1", "2001:db8::66"] {
        assert_eq!(wire.connect(remote, 443).0, Verdict::Forward, "{remote}");
    }
    wire.finish();
    rig.uninstall();
}
