use super::*;
use crate::policy::tests::file;
use crate::program::assumed_app_id;
use crate::read::read_policy_elsewhere;
use crate::testing::Memory;
use sluice_policy::CompileOptions;
use std::net::TcpListener;

const POLICY: &str = r#"
[default]
outbound = "block"

[[rule]]
name = "office"
action = "permit"
remote = ["192.0.2.0/24", "2001:db8::7"]
remote-port = [80, "440-450"]

[[rule.expect]]
remote = "192.0.2.9:80"

[[rule]]
name = "everybody's"
action = "permit"
direction = "inbound"
remote = "198.51.100.0/24"

[[rule]]
name = "by name"
action = "permit"
remote = "203.0.113.0/24"
remote-name = "example.com"

[[rule]]
name = "multicast"
action = "permit"
remote = "224.0.0.251"
"#;

fn planned(given: &[&str], allowed: &[&str]) -> Vec<Endpoint> {
    let policy = read_policy_elsewhere(file(POLICY).path()).unwrap();
    let options = CompileOptions { application: &assumed_app_id, key: [0; 16], at: None };
    let given: Vec<SocketAddr> = given.iter().map(|one| one.parse().unwrap()).collect();
    let allowed: Vec<_> = allowed.iter().map(|one| one.parse().unwrap()).collect();
    plan(&policy, &options, Some(r"C:\sluice.exe"), &given, &allowed).unwrap()
}

/// Whoever is asked may permit what is blocked without an answer, and block what is not.
#[test]
fn what_a_rule_asks_about_is_not_judged() {
    for unanswered in ["permit", "block"] {
        let asks = format!(
            "[[rule]]\nname = \"asks\"\naction = \"ask\"\ndirection = \"outbound\"\nwhen-unanswered = \"{unanswered}\"\n"
        );
        let policy = read_policy_elsewhere(file(&asks).path()).unwrap();
        let options = CompileOptions { application: &assumed_app_id, key: [0; 16], at: None };
        let endpoints = plan(&policy, &options, None, &["192.0.2.1:443".parse().unwrap()], &[]).unwrap();
        let [one] = endpoints.as_slice() else { panic!("{endpoints:?}") };
        assert_eq!((one.expected, one.by.as_str()), (None, "depends on who answers rule `asks`"));
    }
}

#[test]
fn endpoints_come_from_expectations_and_rules_and_only_those_allowed_are_connected_to() {
    let endpoints = planned(&["10.9.9.9:22"], &["192.0.2.0/28"]);
    let shown: Vec<_> = endpoints.iter().map(|one| (one.remote.to_string(), one.allowed, one.expected)).collect();
    let expected = [
        ("10.9.9.9:22", true, Some("block")),
        ("192.0.2.9:80", true, Some("permit")),
        ("192.0.2.1:80", true, Some("permit")),
        ("[2001:db8::7]:80", false, Some("permit")),
        // Only its name decides, and a connection of this program asks for none.
        ("203.0.113.1:443", false, None),
    ];
    assert_eq!(shown, expected.map(|(remote, allowed, verdict)| (remote.to_owned(), allowed, verdict)));
    assert!(endpoints[0].by.contains("default") && endpoints[4].by.contains("the name"), "{endpoints:?}");
}

#[test]
fn what_is_not_allowed_is_not_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    let endpoint = |allowed| Endpoint {
        remote,
        from: "given".to_owned(),
        allowed,
        expected: Some("permit"),
        by: "the default".to_owned(),
    };
    let mut seen = Vec::new();
    let mut sink = |one: &Verified| {
        seen.push(one.clone());
        ControlFlow::Continue(())
    };
    verify(&Memory::new(), &[endpoint(false), endpoint(true)], Duration::from_secs(5), &mut sink).unwrap();
    let [one] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((&one.happened, one.judgement), (&Happened::Connected, Judgement::AsExpected));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_ok());
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "one connection and no other");
}

#[test]
fn a_record_decides_and_without_one_a_block_is_not_shown() {
    let block = Decided { verdict: "block".into(), filter: 7, filter_name: None, provider: None, rule: None };
    let permit = Decided { verdict: "permit".into(), ..block.clone() };
    for (expected, happened, decided, judgement) in [
        (Some("block"), Happened::Refused, Some(&block), Judgement::AsExpected),
        (Some("block"), Happened::Refused, None, Judgement::Otherwise),
        (Some("block"), Happened::Connected, Some(&permit), Judgement::Otherwise),
        (Some("permit"), Happened::TimedOut, Some(&permit), Judgement::AsExpected),
        (Some("permit"), Happened::Connected, None, Judgement::AsExpected),
        (Some("permit"), Happened::Denied, Some(&block), Judgement::Otherwise),
        (None, Happened::Connected, None, Judgement::NotJudged),
    ] {
        assert_eq!(judged(expected, &happened, decided), judgement, "{expected:?} {happened:?}");
    }
}
