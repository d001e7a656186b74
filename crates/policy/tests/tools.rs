//! Explain, test, diff, and warnings.
#![cfg(feature = "std")]

#[path = "tools/ports.rs"]
mod ports;

use sluice_policy::{
    CompileOptions, Direction, Essential, Fact, Flow, Headers, Image, Outcome, Policy, Reference, Verdict, compile,
    depends_on, diff, lint,
    model::{FlowSpec, Moment, assumed_luid},
    parse, parse_endpoint, parse_flow, possible, show, test,
};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

fn policy(text: &str) -> Policy {
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    parse(Path::new("policy.toml"), text, &files).unwrap_or_else(|errors| panic!("{errors}"))
}

fn resolve(path: &str) -> Result<String, String> {
    Ok(path.replacen("C:", r"\Device\HarddiskVolume3", 1))
}

fn options() -> CompileOptions<'static> {
    CompileOptions { application: &resolve, key: [4; 16], at: None }
}

const OFFICE: &str = r#"
[schedule.office]
days = "mon-fri"
hours = "08:00-18:00"
[[rule]]
name = "off"
action = "block"
enabled = false
[[rule]]
name = "chat"
action = "block"
remote-name = ".chat.example"
remote-port = 443
schedule = "office"
[[rule]]
name = "browser"
action = "permit"
application = 'C:\b.exe'
remote-port = 443
[[rule]]
name = "net"
action = "drop"
remote = "203.0.113.0/24"
[[rule.expect]]
remote = "203.0.113.9:80"
[[expect]]
remote = "203.0.113.9:443"
application = 'C:\b.exe'
verdict = "permit"
rule = "browser"
[[expect]]
remote = "203.0.113.9:443"
remote-name = "x.chat.example"
verdict = "block"
at = "mon 09:00"
[[expect]]
remote = "203.0.113.9:443"
remote-name = "x.chat.example"
verdict = "block"
at = "sun 09:00"
"#;

#[test]
fn every_rule_is_explained() {
    let policy = policy(OFFICE);
    let reference = Reference::new(&policy, &options());
    let flow = parse_flow(
        "tcp",
        "10.0.0.5:50000",
        "203.0.113.9:443",
        Direction::Outbound,
        Some(r"C:\other.exe"),
        None,
        None,
        None,
    )
    .unwrap();
    let explained = flow.with(&resolve, |flow| reference.explain(flow)).unwrap();
    let outcomes: Vec<_> = explained.tried.iter().map(|one| (one.name.as_str(), one.outcome)).collect();
    assert_eq!(
        outcomes,
        [
            ("off", Outcome::Inactive),
            ("chat", Outcome::WaitsForName),
            ("browser", Outcome::DoesNotMatch),
            ("net", Outcome::Decides)
        ]
    );
    assert_eq!(explained.tried[2].reasons, ["it is another program"]);
    // Whatever its name, the rule that waits for it blocks too.
    assert!(!explained.decision.needs_name && explained.decision.silent);
    assert!(
        parse_flow("tcp", "10.0.0.5", "::1", Direction::Outbound, None, None, None, None)
            .unwrap_err()
            .contains("families")
    );
}

#[test]
fn expectations_are_tried_at_their_moment() {
    let tested = test(&policy(OFFICE), &options()).unwrap();
    assert_eq!(tested.len(), 4);
    assert!(tested[..3].iter().all(|one| one.failure.is_none()), "{tested:?}");
    // On Sundays no rule blocks the chat by name; the rule on the net drops it.
    assert_eq!(tested[3].failure.as_deref(), Some("expected block, the verdict is drop"));
    assert_eq!(tested[3].rule.as_deref(), Some("net"));
}

#[test]
fn differences_come_with_a_flow() {
    let old = policy(OFFICE);
    assert_eq!(diff(&old, &old, &options()).unwrap().pairs, 0);
    let new = policy(
        &OFFICE
            .replace("203.0.113.0/24", "203.0.113.0/25")
            .replace("name = \"browser\"\naction = \"permit\"", "name = \"browser\"\naction = \"block\""),
    );
    let changes = diff(&old, &new, &options()).unwrap().changes;
    let find = |old: Option<&str>, new: Option<&str>| {
        changes.iter().find(|one| {
            one.old_rule.as_deref() == old
                && one.new_rule.as_deref() == new
                && one.example.direction == Direction::Outbound
        })
    };
    let narrowed = find(Some("net"), None).unwrap_or_else(|| panic!("{changes:?}"));
    assert_eq!((narrowed.old.verdict, narrowed.new.verdict), (Verdict::Block, Verdict::Permit));
    let turned = find(Some("browser"), Some("browser")).unwrap();
    assert_eq!(turned.example.application.as_deref(), Some(r"C:\b.exe"));
}

#[test]
fn what_no_default_decides_is_said_to_be_essential() {
    let text = r#"
        [default]
        outbound = "drop"
        inbound = "drop"
        [[rule]]
        name = "no redirects"
        action = "block"
        protocol = "icmpv6"
        icmp-type = 137
        [[expect]]
        protocol = "icmpv6"
        direction = "inbound"
        local = "[fe80::5]:136"
        remote = "fe80::1"
        verdict = "permit"
        rule = "essential"
        [[expect]]
        protocol = "icmpv6"
        local = "[fe80::5]:137"
        remote = "fe80::1"
        rule = "no redirects"
        [[expect]]
        remote = "fe80::1"
        verdict = "drop"
        rule = "essential"
    "#;
    let one = policy(text);
    let tested = test(&one, &options()).unwrap();
    assert_eq!(tested[0].decision.essential, Some(Essential::NeighbourDiscovery));
    let failures: Vec<_> = tested.iter().map(|one| one.failure.as_deref()).collect();
    assert_eq!(failures, [None, None, Some("expected essential traffic to decide, the default does")]);
    let other = policy(&text.replace("[default]", "[default]\nessential = false"));
    let failure = test(&other, &options()).unwrap().swap_remove(0).failure;
    let expected = "expected permit, the verdict is drop; expected essential traffic to decide, the default does";
    assert_eq!(failure.as_deref(), Some(expected));
    let changes = diff(&one, &other, &options()).unwrap().changes;
    assert_eq!(changes.len(), 2, "one for each direction: {changes:?}");
    assert!(changes.iter().all(|change| change.old.essential.is_some() && change.new.essential.is_none()));
}

#[test]
fn what_is_not_known_is_tried_with_what_the_rules_ask_for() {
    let policy = policy(
        r#"
        [schedule.office]
        days = "mon-fri"
        hours = "08:00-18:00"
        [[rule]]
        name = "wireless"
        action = "block"
        interface = "wireless"
        remote-port = 443
        [[rule]]
        name = "browser of one user"
        action = "permit"
        application = ['C:\b.exe', 'C:\c\*']
        user = "S-1-5-21-1-2-3-1001"
        [[rule]]
        name = "the same and later"
        action = "block"
        application = 'C:\b.exe'
        user = "S-1-5-21-1-2-3-1001"
        [[rule]]
        name = "not in the office"
        action = "drop"
        remote-port = 443
        schedule = "office"
        [[rule]]
        name = "tracker"
        action = "block"
        remote-name = "*.tracker.example"
        [[rule]]
        name = "another port"
        action = "block"
        remote-port = 80
        application = 'C:\x.exe'
        "#,
    );
    let flow = |port: u16, app: Option<&str>, interface: Option<&str>| {
        let remote = format!("203.0.113.9:{port}");
        parse_flow("tcp", "10.0.0.5:50000", &remote, Direction::Outbound, app, None, interface, None).unwrap()
    };
    let outcomes = |flow: &FlowSpec, at: Option<&str>| {
        let at = at.map(|at| Moment::parse(at).unwrap());
        let possible = possible(&policy, &CompileOptions { at, ..options() }, flow).unwrap();
        let names: Vec<_> = possible.iter().map(|one| one.rule.clone().unwrap_or_default()).collect();
        (names.join("|"), depends_on(&possible))
    };
    use Fact::{Interface, Name, Owner, Time};
    let all = "not in the office|wireless|browser of one user||tracker";
    let facts = vec![Fact::Program, Owner, Interface, Name, Time];
    assert_eq!(outcomes(&flow(443, None, None), None), (all.to_owned(), facts));
    // One rule permits, as the default does: that depends on nothing.
    let outside = "|wireless|browser of one user|tracker".to_owned();
    assert_eq!(outcomes(&flow(443, None, None), Some("sun 12:00")), (outside, vec![Interface, Name]));
    // What is known is not tried.
    let known = flow(443, Some(r"C:\other.exe"), Some("ethernet"));
    assert_eq!(outcomes(&known, Some("sun 12:00")), ("|tracker".to_owned(), vec![Name]));
    assert_eq!(outcomes(&flow(80, Some(r"C:\other.exe"), None), None), ("|tracker".to_owned(), vec![Name]));
    let client =
        parse_flow("udp", "0.0.0.0:68", "255.255.255.255:67", Direction::Inbound, None, None, None, None).unwrap();
    assert_eq!(outcomes(&client, None), ("|browser of one user|tracker|".to_owned(), vec![Owner, Name]));
}

#[test]
fn an_interface_has_an_alias_which_its_machine_resolves() {
    let named = policy("[[rule]]\nname = \"one\"\naction = \"block\"\ninterface = [\"alias:Wi-Fi\", \"mobile\"]\n");
    let decides = |policy: &Policy, interface: &str| {
        let image = Image::validate(compile(policy, &options()).unwrap()).unwrap();
        let flow = parse_flow(
            "tcp",
            "10.0.0.5:50000",
            "203.0.113.9:443",
            Direction::Outbound,
            None,
            None,
            Some(interface),
            None,
        )
        .unwrap();
        let reference = Reference::new(policy, &options());
        flow.with(&resolve, |flow| {
            assert_eq!(image.decide(flow), reference.decide(flow), "{interface}");
            image.decide(flow).rule.is_some()
        })
        .unwrap()
    };
    let interfaces = ["alias:Wi-Fi", "alias:wi-fi", "alias:Ethernet", "mobile", "luid:7"];
    let elsewhere = named.on_machine(|alias| Some(assumed_luid(alias)));
    assert_eq!(interfaces.map(|one| decides(&elsewhere, one)), [true, true, false, true, false]);
    let here = named.on_machine(|alias| (alias == "Wi-Fi").then_some(7));
    assert_eq!(interfaces.map(|one| decides(&here, one)), [false, false, false, true, true]);
    // What is not there is matched by nothing, and said.
    assert_eq!(interfaces.map(|one| decides(&named, one)), [false, false, false, true, false]);
    let warnings = sluice_policy::compile_with_warnings(&named, &options()).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].message.starts_with("there is no interface `Wi-Fi`"), "{warnings:?}");
    let alone = policy("[[rule]]\nname = \"one\"\naction = \"block\"\ninterface = \"alias:Wi-Fi\"\n");
    assert_eq!(interfaces.map(|one| decides(&alone, one)), [false; 5]);
}

#[test]
fn shadowed_rules_and_disputed_lists_are_warned_of() {
    let policy = policy(
        r#"
        [list.a]
        entries = ["203.0.113.0/24", "198.51.100.0/24"]
        [list.b]
        entries = ["203.0.113.128/25"]
        [[rule]]
        name = "wide"
        action = "permit"
        remote = ["10.0.0.0/8", "192.168.0.0/16"]
        [[rule]]
        name = "narrow"
        action = "block"
        remote = "10.1.0.0/16"
        remote-port = 80
        [[rule]]
        name = "other"
        action = "block"
        remote = "11.0.0.0/8"
        [[rule]]
        name = "one"
        action = "block"
        remote = "@a"
        [[rule]]
        name = "two"
        action = "permit"
        remote = "@b"
        "#,
    );
    let found: Vec<String> = lint(&policy).iter().map(|one| one.message.clone()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("rule `narrow` can never match: rule `wide` comes first"), "{found:?}");
    assert!(found[1].starts_with("rule `two` can never match: rule `one`"), "{found:?}");
    assert!(found[2].contains("1 address ranges in common"), "{found:?}");
}

/// The warnings of tunnels.
fn warnings(text: &str) -> Vec<String> {
    lint(&policy(text)).into_iter().map(|one| one.message).filter(|one| one.contains("tunnels pass")).collect()
}

#[test]
fn tunnels_that_pass_where_the_rest_is_blocked_are_warned_of() {
    let by_rule = warnings(
        r#"
        default = { outbound = "block" }
        [[rule]]
        name = "no esp"
        action = "block"
        protocol = "esp"
        [[rule]]
        name = "partner"
        action = "permit"
        remote = "203.0.113.0/24"
        "#,
    );
    let [one] = &by_rule[..] else { panic!("{by_rule:?}") };
    let all_but_esp = "ipip (4), ipv6 (41), gre (47), ah (51), l2tp (115), Teredo (UDP 3544)";
    assert!(one.starts_with(&format!("rule `partner` lets tunnels pass: {all_but_esp};")), "{one}");

    let by_default = warnings(
        r#"
        default = { inbound = "block" }
        [[rule]]
        action = "block"
        direction = "outbound"
        protocol = ["tcp", "udp"]
        "#,
    );
    let [one] = &by_default[..] else { panic!("{by_default:?}") };
    assert!(one.starts_with("the default for outbound flows lets tunnels pass: ipip (4),"), "{one}");
    assert!(!one.contains("Teredo"), "the rule takes UDP: {one}");
}

#[test]
fn many_rules_that_let_tunnels_pass_make_one_warning() {
    let rules: String = (0..2000)
        .map(|index| format!("[[rule]]\naction = \"permit\"\nremote = \"45.0.{}.{}\"\n", index / 256, index % 256))
        .collect();
    let found = warnings(&format!("[default]\noutbound = \"block\"\n{rules}"));
    let [one] = &found[..] else { panic!("{found:?}") };
    assert!(one.starts_with("rule `rule 0`, and 1999 more that name no protocol, let tunnels pass: "), "{one}");
}

#[test]
fn tunnels_that_are_meant_or_decided_are_not_warned_of() {
    for rule in [
        "protocol = [41, \"gre\"]",
        "remote-port = 443",
        "remote = [\"@private\", \"fe80::/10\"]",
        "application = 'C:\\vpn.exe'",
        "service = \"IKEEXT\"",
        "interface = \"tunnel\"",
        "protocol = \"udp\"\nremote-port = 3544",
        "enabled = false",
    ] {
        let found = warnings(&format!("default = {{ outbound = \"block\" }}\n[[rule]]\naction = \"permit\"\n{rule}\n"));
        assert_eq!(found, [""; 0], "{rule}");
    }
    assert_eq!(warnings(""), [""; 0], "outbound TCP passes as well");
}

#[test]
fn protocols_of_tunnels_are_named_and_numbered() {
    let image = |rule: &str| {
        let policy = policy(&format!("[[rule]]\naction = \"block\"\nprotocol = {rule}\n"));
        Image::validate(compile(&policy, &options()).unwrap()).unwrap()
    };
    let address = |last| std::net::IpAddr::from([203, 0, 113, last]);
    for (name, number) in [("ipip", 4), ("ipv6", 41), ("gre", 47), ("esp", 50), ("ah", 51), ("l2tp", 115)] {
        for image in [image(&format!("\"{name}\"")), image(&number.to_string())] {
            let decide = |protocol| {
                image.decide(&Flow::new(Direction::Outbound, protocol, address(1), 0, address(2), 0)).verdict
            };
            assert_eq!((decide(number), decide(number - 1)), (Verdict::Block, Verdict::Permit), "{name}");
        }
    }
}

/// A link-local address means another machine on every link: the interface says which is meant, a zone is refused.
#[test]
fn a_link_local_address_is_one_of_an_interface() {
    let policy = policy("[[rule]]\naction = \"block\"\nremote = \"fe80::/10\"\ninterface = \"luid:0x6000001000000\"\n");
    let image = Image::validate(compile(&policy, &options()).unwrap()).unwrap();
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let flow = Flow::new(Direction::Outbound, 17, address("fe80::2"), 5353, address("fe80::1"), 5353);
    assert_eq!(image.decide(&flow.with_interface(0x6_0000_0100_0000)).verdict, Verdict::Block);
    assert_eq!(image.decide(&flow.with_interface(0x6_0000_0200_0000)).verdict, Verdict::Permit);
    assert_eq!(image.decide(&flow).verdict, Verdict::Permit, "an interface that is not known is none");

    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let refused = |text: &str| parse(Path::new("policy.toml"), text, &files).unwrap_err().to_string();
    let rule = refused("[[rule]]\naction = \"block\"\nremote = \"fe80::1%12\"\n");
    assert!(rule.contains("`fe80::1%12` has a zone") && rule.contains("`interface`"), "{rule}");
    let expectation = refused("[[expect]]\nremote = \"[fe80::1%12]:443\"\nverdict = \"permit\"\n");
    assert!(expectation.contains("an address without a zone"), "{expectation}");
}

/// Of what is passed on between others nothing is known but its headers.
#[test]
fn a_forward_rule_asks_for_addresses_ports_and_protocol_only() {
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for (key, value) in [
        ("application", r"'C:\a.exe'"),
        ("user", "\"SYSTEM\""),
        ("group", "\"Users\""),
        ("service", "\"BITS\""),
        ("package", "\"S-1-15-2-1\""),
        ("interface", "\"vpn\""),
        ("remote-name", "\"example.com\""),
    ] {
        let text = format!("[[rule]]\naction = \"block\"\ndirection = \"forward\"\n{key} = {value}\n");
        let errors = parse(Path::new("policy.toml"), &text, &files).unwrap_err().to_string();
        assert!(errors.contains(&format!("`{key}` is not known of packets that are forwarded")), "{errors}");
    }
    let idle =
        "[[rule]]\naction = \"block\"\ndirection = \"forward\"\nremote = \"10.0.0.1\"\nwhen-undecidable = \"match\"";
    assert!(parse(Path::new("policy.toml"), idle, &files).is_err(), "addresses can always be read");
}

/// The other directions' rules and defaults do not see what is forwarded, and the other way round.
#[test]
fn what_is_forwarded_is_a_matter_of_its_own() {
    let image = |text: &str| Image::validate(compile(&policy(text), &options()).unwrap()).unwrap();
    let address = |last| std::net::IpAddr::from([203, 0, 113, last]);
    let flow = |direction| Flow::new(direction, 6, address(1), 50000, address(2), 443);
    let verdicts = |image: Image<Vec<u8>>| Direction::ALL.map(|direction| image.decide(&flow(direction)).verdict);
    let (permit, block) = (Verdict::Permit, Verdict::Block);
    let others = "[default]\noutbound = \"block\"\n[[rule]]\naction = \"block\"\n";
    assert_eq!(verdicts(image(others)), [block, block, permit, permit, permit]);
    let own = "[default]\ninbound = \"permit\"\n[[rule]]\naction = \"block\"\ndirection = \"forward\"\n";
    assert_eq!(verdicts(image(own)), [permit, permit, block, permit, permit]);

    let ports = |undecidable| {
        let head = "[[rule]]\naction = \"block\"\ndirection = \"forward\"\nremote-port = [53, 443]";
        image(&format!("{head}\nwhen-undecidable = \"{undecidable}\"\n"))
    };
    let of = |image: &Image<Vec<u8>>, port, headers| {
        let flow = Flow::new(Direction::Forward, 6, address(1), 50000, address(2), port).with_headers(headers);
        image.decide(&flow).verdict
    };
    for (image, unreadable) in [(ports("skip"), permit), (ports("match"), block)] {
        assert_eq!([443, 80].map(|port| of(&image, port, Headers::Whole)), [block, permit]);
        assert_eq!([Headers::NoPorts, Headers::NoProtocol].map(|headers| of(&image, 0, headers)), [unreadable; 2]);
    }
}

/// The same IPv4 address in the forms of RFC 6052, RFC 3056 and RFC 4380, as those documents write them.
#[test]
fn ipv4_addresses_inside_ipv6_ones_are_seen_where_that_is_asked_for() {
    let image = |text: &str| Image::validate(compile(&policy(text), &options()).unwrap()).unwrap();
    let rules =
        "[list.bad]\nentries = [\"192.0.2.0/24\", \"192.0.2.45\"]\n[[rule]]\naction = \"block\"\nremote = \"@bad\"\n";
    let without = image(rules);
    let with = image(&format!("[default]\nembedded-ipv4 = true\n{rules}"));
    let with_local = image(&format!("[default]\nembedded-ipv4 = true\n{rules}local = [\"ipv4\", \"ipv6\"]\n"));
    let decide = |image: &Image<Vec<u8>>, remote: &str| {
        let local = "2001:db8::5".parse().unwrap();
        image.decide(&Flow::new(Direction::Outbound, 6, local, 50000, remote.parse().unwrap(), 443)).verdict
    };
    for remote in ["64:ff9b::192.0.2.45", "2002:c000:22d::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"] {
        assert_eq!(decide(&without, remote), Verdict::Permit, "{remote}");
        assert_eq!(decide(&with, remote), Verdict::Block, "{remote}");
        assert_eq!(decide(&with_local, remote), Verdict::Permit, "{remote}: no IPv4 address is local");
    }
    for remote in
        ["64:ff9b::192.0.3.1", "64:ff9b:1::192.0.2.45", "2002:c000:32d::1", "2001:db8::c000:22d", "::c000:22d"]
    {
        assert_eq!(decide(&with, remote), Verdict::Permit, "{remote}");
    }
    let policy = policy(&format!("[default]\nembedded-ipv4 = true\n{rules}"));
    let flow = parse_flow("tcp", "[::1]:1", "[2002:c633:6401::1]:443", Direction::Outbound, None, None, None, None);
    let explained = flow.unwrap().with(&resolve, |flow| Reference::new(&policy, &options()).explain(flow)).unwrap();
    assert_eq!(explained.embedded, Some([198, 51, 100, 1].into()));
    let reason = "remote address 2002:c633:6401::1 is not among its addresses, nor is 198.51.100.1 inside it";
    assert_eq!(explained.tried[0].reasons, [reason]);
}

#[test]
fn images_are_laid_open_and_are_the_same_every_time() {
    let policy = policy(OFFICE);
    let bytes = compile(&policy, &options()).unwrap();
    assert_eq!(bytes, compile(&policy, &options()).unwrap());
    let image = Image::validate(&bytes[..]).unwrap();
    let shown = show(&image);
    assert_eq!(shown.rules.len(), 4);
    assert_eq!((shown.rules[0].entries, shown.rules[3].said.action), (0, "drop"));
    assert!(shown.sections.iter().any(|section| section.name == "name_records"));
    let other = compile(&policy, &CompileOptions { key: [5; 16], ..options() }).unwrap();
    assert_ne!(Image::validate(other).unwrap().identity(), image.identity());
}

/// These bytes were made on Linux x86-64; a platform that makes different ones breaks the promise that the same file
/// and key give the same image everywhere. Changes of the layout or of the forest's growth change it too.
#[test]
fn the_bytes_are_those_of_every_platform() {
    let image = Image::validate(compile(&policy(OFFICE), &options()).unwrap()).unwrap();
    let identity: String = image.identity().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(identity, GOLDEN);
}

const GOLDEN: &str = "05299d27874f3ae6e0056e7a53e7d110";

/// The decisions of `old` and `new`, flow by flow, on a grid that holds every edge: what `diff` has to find.
#[test]
fn a_difference_of_small_policies_is_always_found() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |of: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % of
    };
    let mut differed = 0;
    for _ in 0..300 {
        let mut rules: Vec<String> = (0..1 + draw(5))
            .map(|_| {
                let action = ["permit", "block"][draw(2) as usize];
                let (low, ports) = (draw(6), draw(4));
                let high = low + draw(4);
                format!(
                    "[[rule]]\naction = \"{action}\"\ndirection = \"outbound\"\nremote = \"192.0.2.{low}-192.0.2.{high}\"\nprotocol = \"tcp\"\nremote-port = \"{ports}-{}\"\n",
                    ports + draw(3)
                )
            })
            .collect();
        let old = policy(&rules.concat());
        let place = draw(rules.len() as u64) as usize;
        match draw(3) {
            0 => drop(rules.remove(place)),
            1 => rules.rotate_left(place),
            _ => {
                rules[place] =
                    rules[place].replace("permit", "x").replace("block", "permit").replace("\"x\"", "\"block\"")
            }
        }
        let new = policy(&rules.concat());
        let images = [&old, &new].map(|one| Image::validate(compile(one, &options()).unwrap()).unwrap());
        let decided = |image: &Image<Vec<u8>>, host: u8, port: u16| {
            let remote = format!("192.0.2.{host}:{port}");
            let flow =
                parse_flow("tcp", "10.0.0.1:50000", &remote, Direction::Outbound, None, None, None, None).unwrap();
            flow.with(&|_| unreachable!(), |flow| image.decide(flow).verdict).unwrap()
        };
        let differs =
            (0..12).any(|host| (0..8).any(|port| decided(&images[0], host, port) != decided(&images[1], host, port)));
        let found = diff(&old, &new, &options()).unwrap();
        assert!(found.complete);
        assert_eq!(found.pairs > 0, differs, "{}\n---\n{}", rules.concat(), old.path.display());
        differed += usize::from(differs);
    }
    assert!((50..250).contains(&differed), "{differed} of 300 differ");
}

#[test]
fn ten_thousand_rules_are_compared_within_bounds() {
    let rules = |step: u32| -> String {
        let rule = |index: u32| {
            let (action, low) = (["permit", "block"][(index % 2) as usize], index * step % 64_000);
            format!("[[rule]]\naction = \"{action}\"\nprotocol = \"tcp\"\nremote-port = \"{low}-{}\"\n", low + 900)
        };
        (0..10_000).map(rule).collect()
    };
    let found = diff(&policy(&rules(7)), &policy(&rules(11)), &options()).unwrap();
    assert!(found.pairs > 0 && !found.complete);
    assert!(found.tried <= 100_000 * 64, "{} flows", found.tried);
    assert!(found.changes.len() <= sluice_policy::diff::MOST_CHANGES);
}
