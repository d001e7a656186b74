//! Rules about who listens on, and who binds, a port.

use super::*;

#[test]
fn a_rule_about_ports_asks_for_this_machine_only() {
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let parsed = |text: &str| parse(Path::new("policy.toml"), text, &files);
    for direction in ["listen", "bind"] {
        let head = format!("[[rule]]\naction = \"block\"\ndirection = \"{direction}\"\n");
        for (key, value) in [
            ("remote", "\"10.0.0.1\""),
            ("remote-port", "80"),
            ("interface", "\"vpn\""),
            ("remote-name", "\"example.com\""),
        ] {
            let errors = parsed(&format!("{head}{key} = {value}\n")).unwrap_err().to_string();
            assert!(errors.contains(&format!("`{key}` is not known when a program asks to {direction}")), "{errors}");
        }
        for key in ["icmp-type", "icmp-code"] {
            let errors = parsed(&format!("{head}{key} = 8\n")).unwrap_err().to_string();
            assert!(errors.contains("is not known when a program asks for a port"), "{errors}");
        }
        let errors = parsed(&format!("{head}when-undecidable = \"match\"\n")).unwrap_err().to_string();
        assert!(errors.contains("no condition that could be undecidable"), "{errors}");
        let all = "application = 'C:\\a.exe'\nuser = \"SYSTEM\"\ngroup = \"Users\"\nservice = \"BITS\"\npackage = \"S-1-15-2-1\"\n\
                   local = [\"0.0.0.0\", \"10.0.0.5\"]\nlocal-port = 80\n";
        parsed(&format!("{head}{all}")).unwrap_or_else(|errors| panic!("{errors}"));
        let mixed = "[[expect]]\ndirection = \"listen\"\nremote = \"10.0.0.1:80\"\nverdict = \"block\"\n";
        let errors = parsed(mixed).unwrap_err().to_string();
        assert!(errors.contains("no `local`") && errors.contains("there is no `remote`"), "{errors}");
    }
    let udp = "[[rule]]\naction = \"block\"\ndirection = \"listen\"\nprotocol = \"udp\"\n";
    assert!(parsed(udp).unwrap_err().to_string().contains("only TCP listens"));
    assert!(parsed(&udp.replace("listen", "bind")).is_ok());
}

/// Nobody's policy changes its meaning: without a word about ports every program has the one that it asks for.
#[test]
fn ports_are_a_matter_of_their_own() {
    const SERVERS: &str = r#"
[default]
outbound = "block"
bind = "block"

[[rule]]
name = "web"
action = "permit"
direction = "listen"
local-port = [80, 443]
application = 'C:\web.exe'

[[rule]]
name = "none else"
action = "drop"
direction = "listen"

[[rule]]
name = "low"
action = "permit"
direction = "bind"
local-port = [80, 443]
application = 'C:\web.exe'

[[expect]]
direction = "listen"
local = "0.0.0.0:443"
application = 'C:\web.exe'
rule = "web"

[[expect]]
direction = "listen"
local = "[::]:8080"
verdict = "drop"

[[expect]]
direction = "bind"
local = "0.0.0.0:80"
verdict = "block"
rule = "default"

[[expect]]
direction = "bind"
protocol = "udp"
local = "0.0.0.0:0"
rule = "essential"
"#;
    let tested = test(&policy(SERVERS), &options()).unwrap();
    assert!(tested.iter().all(|one| one.failure.is_none()), "{tested:?}");
    assert_eq!(tested.len(), 4);
    let flow = parse_endpoint("udp", "[::]:53", Direction::Bind, None).unwrap();
    assert_eq!(flow.to_string(), "bind udp [::]:53");
    assert!(parse_endpoint("udp", "0.0.0.0:53", Direction::Listen, None).is_err());

    let shown = show(&Image::validate(compile(&policy(SERVERS), &options()).unwrap()).unwrap());
    assert_eq!((shown.default_listen.action, shown.default_bind.action), ("permit", "block"));
    let silent = policy("[[rule]]\naction = \"block\"\n");
    for other in ["[default]\nbind = \"block\"\n", "[default]\nlisten = \"drop\"\n"] {
        let changes =
            diff(&silent, &policy(&format!("{other}[[rule]]\naction = \"block\"\n")), &options()).unwrap().changes;
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].example.direction.is_local(), "{changes:?}");
    }
    let web = diff(&policy(SERVERS), &policy(&SERVERS.replace("[80, 443]", "80")), &options()).unwrap().changes;
    let seen = |direction| web.iter().any(|one| one.example.direction == direction && one.example.local.1 == 443);
    assert!(seen(Direction::Listen) && seen(Direction::Bind), "{web:?}");
}

/// Who listens on every address listens on each.
#[test]
fn a_rule_that_misses_who_listens_on_every_address_is_told() {
    let warned = |local: &str, action: &str| {
        let text = format!("[[rule]]\naction = \"{action}\"\ndirection = \"listen\"\nlocal = {local}\n");
        lint(&policy(&text)).iter().any(|one| one.message.contains("on every address"))
    };
    assert!(warned("\"192.0.2.1\"", "block") && warned("[\"192.0.2.1\", \"0.0.0.0\", \"2001:db8::1\"]", "drop"));
    assert!(!warned("[\"192.0.2.1\", \"0.0.0.0\"]", "block") && !warned("\"!@loopback\"", "block"));
    assert!(!warned("\"192.0.2.1\"", "permit"), "what is not permitted is decided further on");
}
