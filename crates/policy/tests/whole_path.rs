//! From a policy's text to decisions.
#![cfg(feature = "std")]

use sluice_policy::{
    AppId, CompileOptions, Direction, Errors, Files, Flow, Identities, Image, Policy, Sid, Verdict, compile,
    model::SidBuf, parse,
};
use std::{collections::BTreeMap, net::IpAddr, path::Path, path::PathBuf};

fn files(list: &[(&str, &str)]) -> BTreeMap<PathBuf, Vec<u8>> {
    list.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect()
}

fn policy(text: &str, files: &dyn Files) -> Result<Policy, Errors> {
    parse(Path::new("policy.toml"), text, files)
}

fn nt_path(path: &str) -> Result<String, String> {
    Ok(path.replacen(r"C:\", r"\Device\HarddiskVolume3\", 1))
}

fn image(text: &str) -> Image<Vec<u8>> {
    let policy = policy(text, &files(&[])).unwrap_or_else(|errors| panic!("{errors}"));
    let options = CompileOptions { application: &nt_path, key: [7; 16], at: None };
    Image::validate(compile(&policy, &options).unwrap()).unwrap()
}

fn tcp(remote: &str, port: u16) -> Flow<'static> {
    let remote: IpAddr = remote.parse().unwrap();
    let local = if remote.is_ipv4() { "10.0.0.5" } else { "2001:db8::5" };
    Flow::new(Direction::Outbound, 6, local.parse().unwrap(), 50000, remote, port)
}

fn wide(path: &str) -> Vec<u8> {
    path.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn the_first_rule_that_matches_decides() {
    let image = image(
        r#"
        [default]
        outbound = "permit"
        inbound = "drop"
        log = true

        [[rule]]
        name = "one host"
        action = "permit"
        remote = "203.0.113.9"

        [[rule]]
        name = "the net"
        action = "block"
        log = true
        remote = ["203.0.113.0/24", "2001:db8:bad::/48"]
        remote-port = ["1-1023", 8080]
        "#,
    );
    assert_eq!(image.rule_count(), 2);
    let decision = image.decide(&tcp("203.0.113.9", 443));
    assert_eq!((decision.verdict, decision.hard, decision.rule), (Verdict::Permit, false, Some(0)));
    let decision = image.decide(&tcp("203.0.113.10", 8080));
    assert_eq!((decision.verdict, decision.hard, decision.rule), (Verdict::Block, true, Some(1)));
    assert!(decision.log && !decision.silent);
    assert_eq!(image.rule_name(1), Some("the net"));
    assert_eq!(image.rule_name(2), None);
    assert_eq!(image.decide(&tcp("203.0.113.10", 8081)).rule, None);
    assert_eq!(image.decide(&tcp("2001:db8:bad::1", 80)).rule, Some(1));
    assert_eq!(image.decide(&tcp("2001:db8:bae::1", 80)).rule, None);

    let mut inbound = tcp("198.51.100.1", 1);
    inbound.direction = Direction::Inbound;
    let decision = image.decide(&inbound);
    assert_eq!((decision.verdict, decision.silent, decision.log, decision.rule), (Verdict::Block, true, true, None));
}

#[test]
fn ports_mean_tcp_and_udp_and_icmp_has_its_own_keys() {
    let image = image(
        r#"
        [[rule]]
        action = "block"
        remote-port = 53
        [[rule]]
        action = "block"
        icmp-type = 8
        "#,
    );
    let mut flow = tcp("192.0.2.1", 53);
    assert_eq!(image.decide(&flow).rule, Some(0));
    flow.protocol = 17;
    assert_eq!(image.decide(&flow).rule, Some(0));
    flow.protocol = 47;
    assert_eq!(image.decide(&flow).rule, None);
    flow.protocol = 1;
    (flow.local_port, flow.remote_port) = (8, 0);
    assert_eq!(image.decide(&flow).rule, Some(1));
    flow.local_port = 0;
    assert_eq!(image.decide(&flow).rule, None);
}

#[test]
fn applications_users_and_interfaces() {
    let image = image(
        r#"
        [group.tools]
        applications = ['C:\Tools\Curl.exe', '\Device\HarddiskVolume3\tools\wget.exe']
        [[rule]]
        action = "block"
        application = "@tools"
        [[rule]]
        action = "block"
        user = ["S-1-5-21-1-2-3-1001", "SYSTEM"]
        interface = "wireless"
        "#,
    );
    let flow = tcp("192.0.2.1", 80);
    assert_eq!(image.decide(&flow).rule, None, "an unknown program matches no rule that names one");
    for path in [r"\device\harddiskvolume3\tools\curl.exe", "\\device\\harddiskvolume3\\tools\\wget.exe\0"] {
        let path = wide(path);
        assert_eq!(image.decide(&flow.with_application(AppId(&path))).rule, Some(0));
    }
    let other = wide(r"\device\harddiskvolume3\tools\curl.exe2");
    assert_eq!(image.decide(&flow.with_application(AppId(&other))).rule, None);

    let sid = SidBuf::parse("S-1-5-18").unwrap();
    let luid = 71u64 << 48 | 0x8000;
    assert_eq!(image.decide(&flow.with_user(Sid(sid.bytes())).with_interface(luid)).rule, Some(1));
    assert_eq!(image.decide(&flow.with_user(Sid(sid.bytes()))).rule, None);
    let stranger = SidBuf::parse("S-1-5-21-1-2-3-1002").unwrap();
    assert_eq!(image.decide(&flow.with_user(Sid(stranger.bytes())).with_interface(luid)).rule, None);
}

#[derive(Debug)]
struct Token(Vec<SidBuf>);

impl Identities for Token {
    fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
        self.0.iter().for_each(|sid| visit(Sid(sid.bytes())));
    }
}

#[test]
fn every_identity_of_the_token_counts() {
    let image = image(
        r#"
        [[rule]]
        name = "both"
        action = "block"
        service = "Dnscache"
        group = "Administrators"
        [[rule]]
        name = "service"
        action = "block"
        service = ["Dnscache", "BITS"]
        [[rule]]
        name = "store"
        action = "block"
        package = "Microsoft.WindowsStore_8wekyb3d8bbwe"
        [[rule]]
        name = "by its SID"
        action = "block"
        user = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
        [[rule]]
        name = "everyone"
        action = "block"
        user = "Everyone"
        remote-port = 81
        "#,
    );
    let service = |name: &str| SidBuf::of_service(name).unwrap();
    let package = |name: &str| SidBuf::of_package(name).unwrap();
    let well_known = |name: &str| SidBuf::parse(name).unwrap();
    let flow = tcp("192.0.2.1", 80);
    for (sids, rule) in [
        (vec![], None),
        (vec![service("dnscache")], Some(1)),
        (vec![service("Dnscache"), well_known("Administrators")], Some(0)),
        (vec![well_known("Administrators"), service("BITS")], Some(1)),
        (vec![well_known("Administrators")], None),
        (vec![package("Microsoft.WindowsStore_8wekyb3d8bbwe")], Some(2)),
        (vec![service("TrustedInstaller")], Some(3)),
    ] {
        // Among many that no rule uses.
        let mut all: Vec<SidBuf> = (0..200).map(|n| well_known(&format!("S-1-5-21-1-2-3-{n}"))).collect();
        let middle = all.len() / 2;
        all.splice(middle..middle, sids);
        let token = Token(all);
        assert_eq!(image.decide(&flow.with_others(&token)).rule, rule, "{rule:?}");
    }
    let everyone = Token(vec![well_known("Everyone")]);
    assert_eq!(image.decide(&tcp("192.0.2.1", 81).with_others(&everyone)).rule, Some(4));
    assert_eq!(image.decide(&tcp("192.0.2.1", 81)).rule, None, "its owner is not known");
}

#[test]
fn more_sets_of_identities_than_there_can_be_are_refused() {
    let rules = |count: usize| -> String {
        (0..count).map(|n| format!("[[rule]]\naction = \"block\"\nservice = \"service{n}\"\n")).collect()
    };
    let options = CompileOptions { application: &nt_path, key: [7; 16], at: None };
    let compiled = |count| compile(&policy(&rules(count), &files(&[])).unwrap(), &options);
    assert!(compiled(1024).is_ok());
    assert!(compiled(1025).unwrap_err().to_string().contains("1024 are possible"));
}

#[test]
fn paths_of_programs_are_brought_into_one_form() {
    let image = image(
        r#"
        [[rule]]
        action = "block"
        application = ['C:\Tools\..\Apps\\a.exe', '\\?\C:\Apps\b.exe', 'C:/Apps/c.exe', 'C:\Apps\d\\*']
        "#,
    );
    for program in ["a.exe", "b.exe", "c.exe", "d\\x.exe"] {
        let path = wide(&format!(r"\device\harddiskvolume3\apps\{program}"));
        let flow = tcp("192.0.2.1", 80);
        assert_eq!(image.decide(&flow.with_application(AppId(&path))).rule, Some(0), "{program}");
    }
    for (path, said) in [
        (r"C:\PROGRA~1\a.exe", "short (8.3) name"),
        (r"C:\Apps\", "ends like a folder"),
        (r"Apps\a.exe", "is not the full path"),
        (r"C:\a.exe:stream", "a character that is not allowed in file names"),
    ] {
        let text = format!("[[rule]]\naction = \"block\"\napplication = '{path}'\n");
        let errors = policy(&text, &files(&[])).unwrap_err().to_string();
        assert!(errors.contains(said), "{errors}");
    }
}

#[test]
fn everything_wrong_is_said_at_once_with_its_place() {
    let errors = policy(
        "[[rule]]\nname = \"a\"\naction = \"blok\"\nremote = [\"10.0.0.1/8\", \"@bad\"]\nremote-prt = 3\n\n[[rule]]\nname = \"a\"\nremote-port = \"70000\"\n",
        &files(&[]),
    )
    .unwrap_err();
    let shown: Vec<String> = errors.diagnostics.iter().map(ToString::to_string).collect();
    let expected = [
        "policy.toml:3:10: error: rule[0].action: `blok` is not understood; did you mean `block`?",
        "policy.toml:4:11: error: rule[0].remote[0]: `10.0.0.1/8` has host bits set; write `10.0.0.0/8`",
        "policy.toml:4:25: error: rule[0].remote[1]: there is no list or group `bad`",
        "policy.toml:5:1: error: rule[0].remote-prt: unknown key `remote-prt`; did you mean `remote-port`?",
        "policy.toml:7:1: error: rule[1]: the rule has no `action`",
        "policy.toml:7:1: error: rule[1]: rule 0 is also called `a`",
        "policy.toml:9:15: error: rule[1].remote-port: `70000` is neither a number nor a range",
    ];
    assert_eq!(shown.len(), expected.len(), "{errors}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(shown.starts_with(expected), "{shown}\n{expected}");
    }
    let rendered = errors.render(false);
    assert!(rendered.contains("policy.toml:4:11") && rendered.contains("^^^^^^^^^^^^"), "{rendered}");
}

#[test]
fn damaged_bytes_are_refused() {
    let good = image("[[rule]]\naction = \"block\"\nremote = \"192.0.2.0/24\"\n");
    let bytes = good.as_bytes();
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        assert!(Image::validate(damaged).is_err(), "byte {at}");
        assert!(Image::validate(&bytes[..at]).is_err(), "length {at}");
    }
}
