//! The verbs that show any machine's Filtering Platform: on files of netsh, and on a served machine with the real
//! sluice.sys in it.

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;
use served::{Text, ended, served, sluice};
use sluice_host::{Filter, FilterAction, Guid, Host, Provider, Sublayer, Weight};
use sluice_protocol::object::CALLOUTS;
use wire::Wire;

/// A file of our own text in the form of netsh's.
fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs the command without a machine, for a terminal of this width.
fn shown(columns: &str, status: i32, arguments: &[&str]) -> Text {
    ended(sluice(arguments).env("COLUMNS", columns).output().unwrap(), status)
}

fn json(arguments: &[&str]) -> Value {
    let text = shown("80", 0, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text.out).unwrap_or_else(|error| panic!("{error}: {}", text.out))
}

#[test]
fn tables_fit_the_terminal() {
    let state = data("wfpstate.xml");
    for width in [80, 120] {
        let columns = width.to_string();
        for verb in ["state", "layers", "callouts", "providers", "sublayers", "filters"] {
            let text = shown(&columns, 0, &[verb, &state]);
            let widest = text.out.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{verb}: {widest} of {width}: {}", text.out);
        }
        let text = shown(&columns, 0, &["netevents", &data("netevents.xml"), "--state", &state]);
        assert!(text.out.lines().all(|line| line.chars().count() <= width), "{}", text.out);
    }
}

#[test]
fn filters_stand_in_the_order_of_evaluation() {
    insta::assert_snapshot!(shown("120", 0, &["filters", &data("wfpstate.xml")]).out);
    insta::assert_snapshot!(shown("80", 0, &["filters", &data("wfpstate.xml"), "--id", "70002", "--id", "68011"]).out);
    let gone = shown("80", 1, &["filters", &data("wfpstate.xml"), "--id", "4711"]);
    assert!(gone.out.contains("no filter has the id 4711"), "{}", gone.out);
}

/// The filters that netsh's conditions choose.
#[test]
fn netshs_conditions_choose_filters() {
    let chosen = |conditions: &[&str]| -> Vec<u64> {
        let found = json(&[&["filters", &data("wfpstate.xml")], conditions].concat());
        found["filters"].as_array().unwrap().iter().map(|filter| filter["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(chosen(&["protocol=udp", "remoteport=53", "dir=out"]), [68010, 70002]);
    assert_eq!(chosen(&["remoteaddr=198.51.100.7"]), [68002]);
    assert_eq!(chosen(&["appid=\\device\\harddiskvolume3\\windows\\system32\\CURL.exe"]), [70001]);
    assert_eq!(chosen(&["userid=S-1-5-32-544"]), [70003]);
    assert_eq!(chosen(&["userid=S-1-5-21-1-2-3-1001"]), [0; 0]);
    assert_eq!(chosen(&["localport=3389", "dir=in"]), [70101]);
    assert_eq!(chosen(&["localport=3389", "dir=in", "verbose=on"]), [70201, 68021, 70110, 70102, 70101, 70109]);
    assert_eq!(chosen(&["remoteaddr=2001:db8::1", "verbose=on"]), [0; 0], "every filter there is for IPv4");
    assert_eq!(chosen(&["--layer", "accept", "--provider", "sluicegate"]), [68021]);
    for (wrong, why) in [
        ("protocol=tcpp", "expected tcp, udp"),
        ("remoteaddr=10.0.0", "expected an IP address"),
        ("dir=sideways", "expected in or out"),
        ("remotehost=x", "is not one of protocol="),
    ] {
        let text = shown("80", 2, &["filters", &data("wfpstate.xml"), wrong]);
        assert!(text.error.contains(why), "{wrong}: {}", text.error);
    }
}

#[test]
fn every_drop_is_joined_to_its_filter() {
    let events = [data("netevents.xml"), data("wfpstate.xml"), data("filters.xml")];
    insta::assert_snapshot!(shown("100", 0, &["netevents", &events[0], "--state", &events[1]]).out);
    let joined = |state: &str, more: &[&str]| -> Vec<Value> {
        let arguments = [&["netevents", &events[0], "--state", state, "--json"], more].concat();
        shown("80", 0, &arguments).out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let of = |found: &[Value], what: &str| -> Vec<Value> { found.iter().map(|one| one[what].clone()).collect() };
    for state in &events[1..] {
        let found = joined(state, &[]);
        let identities: Vec<_> = found.iter().map(|one| one["identity"]["is"].as_str().unwrap()).collect();
        assert_eq!(identities, ["this_one", "this_one", "this_one", "this_one", "gone", "another"], "{state}");
        assert_eq!(of(&found, "provider")[1], "OldVPN");
    }
    let found = joined(&events[1], &["--all", "remoteaddr=203.0.113.9"]);
    assert_eq!(of(&found, "layer"), ["ALE_AUTH_CONNECT_V4"]);
    assert_eq!(found[0]["event"]["kind"], "allow");
}

#[test]
fn a_file_that_is_not_one_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let state = std::fs::read(data("wfpstate.xml")).unwrap();
    for (path, why) in [
        (file("cut.xml", &state[..state.len() / 2]), "it was cut"),
        (file("page.xml", b"<html>\n</html>"), "line 1: <html> is not one of <wfpstate>"),
        (file("empty.xml", b""), "there is no XML element"),
        (file("damaged.cab", b"MSCF and nothing else"), "not a cabinet"),
        (folder.path().to_str().unwrap().to_owned(), "a directory"),
        ("/dev/zero".to_owned(), "a device"),
        (data("none.xml"), "No such file"),
    ] {
        for verb in ["state", "filters", "netevents"] {
            let text = shown("80", 4, &[verb, &path]);
            assert!(text.error.contains(why) && text.error.contains(&path), "{verb} {path}: {}", text.error);
            assert_eq!((text.error.lines().count(), text.out.as_str()), (1, ""), "{}", text.error);
        }
    }
    let none = ended(sluice(&["state"]).output().unwrap(), 2);
    assert!(none.error.contains("name a file of `netsh wfp`"), "{}", none.error);
    let filters = shown("80", 4, &["callouts", &data("filters.xml")]);
    assert!(filters.error.contains("lists no callouts"), "{}", filters.error);
}

#[test]
fn explain_says_who_decides_and_why() {
    let state = data("wfpstate.xml");
    let flow = ["--tcp", "10.0.0.10:50123", "192.0.2.66:443", "--app", r"C:\windows\system32\curl.exe"];
    insta::assert_snapshot!(shown("100", 0, &[&["explain", &state][..], &flow].concat()).out);
    let udp = ["--udp", "10.0.0.10:50123", "9.9.9.9:53"];
    insta::assert_snapshot!(shown("80", 0, &[&["explain", &state][..], &udp].concat()).out);

    let explained = |more: &[&str]| json(&[&["explain", &state], more].concat())["explanation"].clone();
    assert_eq!(explained(&udp)["result"]["is"], "block", "whatever the callouts say");
    // A filter on a group of which nothing is known, then with a token that has it and one that has it not.
    let ssh = ["--tcp", "10.0.0.10:50123", "203.0.113.1:22"];
    let of_ssh = |more: &[&str]| {
        let explanation = explained(&[&ssh[..], more].concat());
        let layers = explanation["layers"].as_array().unwrap().clone();
        let connect = layers.into_iter().find(|layer| layer["layer"] == "ALE_AUTH_CONNECT_V4").unwrap();
        let sublayers = connect["sublayers"].as_array().unwrap().clone();
        let firewall = sublayers.into_iter().find(|one| one["sublayer"] == "MPSSVC_WF").unwrap();
        let filters = firewall["filters"].as_array().unwrap().clone();
        filters.iter().find(|filter| filter["id"] == 70003).map(|filter| filter["matches"].clone())
    };
    assert_eq!(of_ssh(&[]), Some(false.into()), "it may match");
    assert_eq!(of_ssh(&["--user", "S-1-5-32-544"]), Some(true.into()));
    assert_eq!(of_ssh(&["--user", "S-1-5-32-545"]), None);
    // Without callouts in the file, nothing is taken to be unregistered.
    let filters = json(&[&["explain", &data("filters.xml")], &ssh[..]].concat());
    assert!(filters.to_string().contains("unknown: callout"), "{filters}");

    let policy = tempfile::tempdir().unwrap();
    let path = policy.path().join("policy.toml");
    std::fs::write(&path, POLICY).unwrap();
    let with = ["--tcp", "10.0.0.10:50123", "203.0.113.66:25", "--policy", path.to_str().unwrap()];
    assert_eq!(explained(&with)["result"]["at"], "ALE_AUTH_CONNECT_V4");
    let other =
        ["--tcp", "10.0.0.10:50123", "203.0.113.67:25", "--policy", path.to_str().unwrap(), "--app", r"C:\x.exe"];
    assert_eq!(explained(&other)["result"]["is"], "permit");
}

/// Net events and audits of the same drops, with a state in which two of the numbers are others'.
#[test]
fn why_answers_for_every_drop() {
    let state = data("wfpstate.xml");
    insta::assert_snapshot!(shown("100", 0, &["why", &data("netevents.xml"), "--state", &state]).out);
    insta::assert_snapshot!(shown("100", 0, &["why", &data("security.xml"), "--state", &state]).out);

    let answers = |file: &str, more: &[&str]| -> Vec<Value> {
        let text = shown("80", 0, &[&["why", file, "--json"], more].concat());
        text.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let found = answers(&data("security.xml"), &["--state", &state]);
    let audits: Vec<_> = found.iter().map(|one| one["audit"].as_u64().unwrap()).collect();
    assert_eq!(audits, [5157, 5152, 5157, 5031]);
    // The audit of the packet names its source first, which is the other machine here.
    assert_eq!(found[1]["now"]["outcomes"][0]["by"], 70109);
    let without = shown("80", 0, &["why", &data("security.xml")]);
    assert!(without.error.contains("--state FILE"), "{}", without.error);

    // A filter that is gone, and one that its origin names.
    let folder = tempfile::tempdir().unwrap();
    let moved = folder.path().join("moved.xml");
    std::fs::write(&moved, std::fs::read_to_string(&state).unwrap().replace(">70001<", ">80001<")).unwrap();
    let found = answers(&data("security.xml"), &["--state", moved.to_str().unwrap()]);
    assert_eq!((&found[0]["identity"]["is"], &found[0]["named_like_origin"][0]), (&"gone".into(), &80001.into()));

    // Drops that are alike are one answer.
    let events = std::fs::read_to_string(data("netevents.xml")).unwrap();
    let (start, rest) = events.split_once("<netEvents>").unwrap();
    let (items, end) = rest.rsplit_once("</netEvents>").unwrap();
    let many = folder.path().join("many.xml");
    let again = items.replace(">50123<", ">50999<").replace("10:11:12.345", "10:59:12.345");
    std::fs::write(&many, format!("{start}<netEvents>{items}{again}</netEvents>{end}")).unwrap();
    let found = answers(many.to_str().unwrap(), &[]);
    assert_eq!(
        (found.len(), &found[0]["count"], &found[0]["last"]),
        (6, &2.into(), &"2026-03-01T10:59:12.345Z".into())
    );
}

#[test]
fn an_event_log_that_is_damaged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("security.evtx");
    std::fs::write(&path, b"ElfFile\0 and nothing else").unwrap();
    let text = shown("80", 4, &["why", path.to_str().unwrap(), "--state", &data("wfpstate.xml")]);
    assert!(text.error.contains("not an event log") && text.error.lines().count() == 1, "{}", text.error);
}

#[test]
fn the_picture_is_svg_and_never_over_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.xml");
    let text =
        std::fs::read_to_string(data("wfpstate.xml")).unwrap().replace("Block curl", "&lt;b&gt; &amp; \u{1b}[2J");
    std::fs::write(&state, text).unwrap();
    let picture = folder.path().join("picture.svg");
    let flow = ["--tcp", "10.0.0.10:50123", "192.0.2.66:443"];
    let run = |status, svg: &str| {
        shown("80", status, &[&["explain", state.to_str().unwrap(), "--svg", svg], &flow[..]].concat())
    };
    run(0, picture.to_str().unwrap());
    let svg = std::fs::read_to_string(&picture).unwrap();
    let package = sxd_document::parser::parse(&svg).expect("well formed");
    let root = package.as_document().root().children()[0].element().unwrap();
    assert_eq!(root.name().local_part(), "svg");
    assert!(svg.contains("ALE_AUTH_CONNECT_V4 (connect)") && svg.contains("&lt;b&gt; &amp; "), "{svg}");
    assert!(!svg.contains('\u{1b}'));
    let before = std::fs::read(&state).unwrap();
    run(1, state.to_str().unwrap());
    assert_eq!(std::fs::read(&state).unwrap(), before);
    let both = run(0, "-");
    assert!(both.out.starts_with("<svg") && both.error.contains("depends"), "{}", both.error);
}

#[test]
fn the_doctor_warns_of_other_products() {
    let text = shown("80", 0, &["doctor", &data("wfpstate.xml")]).out;
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text);

    // On a machine: a heavier sublayer of a product whose service is gone.
    let served = served();
    served.install();
    let (provider, sublayer) = (Guid(0x2222), Guid(0x3333));
    {
        let mut engine = served.host.open_engine().unwrap();
        let (name, description) = ("Gone product".to_owned(), String::new());
        let service = Some("gone".into());
        engine
            .add_provider(&Provider {
                key: provider,
                name: name.clone(),
                description: description.clone(),
                persistent: false,
                service,
            })
            .unwrap();
        let weight = u16::MAX;
        let (key, provider) = (sublayer, Some(provider));
        engine
            .add_sublayer(&Sublayer {
                key,
                name: name.clone(),
                description: description.clone(),
                persistent: false,
                provider,
                weight,
            })
            .unwrap();
        let filter = Filter {
            key: None,
            name,
            description,
            flags: 0,
            provider,
            layer: Guid(CALLOUTS[0].layer),
            sublayer,
            weight: Weight::Auto,
            conditions: Vec::new(),
            action: FilterAction::Block,
        };
        engine.add_filter(&filter).unwrap();
    }
    let report = served.json(1, &["doctor"]);
    let kinds: Vec<_> =
        report["warnings"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["rival", "orphan"], "{report}");
    assert_eq!(report["findings"].as_array().unwrap().len(), 1, "only the missing policy is wrong: {report}");
}

/// A reader that has seen enough closes the pipe, and nobody complains.
#[test]
fn a_closed_pipe_is_quiet() {
    let events = std::fs::read_to_string(data("netevents.xml")).unwrap();
    let (start, rest) = events.split_once("<netEvents>").unwrap();
    let (items, end) = rest.rsplit_once("</netEvents>").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.xml");
    std::fs::write(&path, format!("{start}<netEvents>{}</netEvents>{end}", items.repeat(2000))).unwrap();
    let mut child =
        sluice(&["netevents", path.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn what_a_file_says_does_not_act_on_the_terminal() {
    let state = std::fs::read_to_string(data("wfpstate.xml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.xml");
    let evil =
        state.replace("Block curl", "Block&#x1b;[2J&#13;\u{202e}curl&#10;x").replace("OldVPN", "Old\u{1b}]0;x\u{7}");
    std::fs::write(&path, evil).unwrap();
    for verb in ["state", "filters", "providers", "callouts", "sublayers"] {
        for more in [&[][..], &["--json"]] {
            let text = shown("120", 0, &[&[verb, path.to_str().unwrap()], more].concat());
            let acts = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
            assert!(!text.out.contains(acts), "{verb}: {:?}", text.out);
        }
    }
}

const POLICY: &str = r#"
[default]
outbound = "permit"
inbound = "permit"

[[rule]]
name = "quarantine"
action = "block"
remote = "203.0.113.66"
"#;

/// The same verbs on a machine: the engine's own drops and those of the driver, with the rule and its line.
#[test]
fn a_live_engine_is_shown_like_a_file() {
    let served = served();
    served.install();
    let policy = served.file("policy.toml", POLICY);
    served.run(0, &["load", &policy]);
    let mut wire = Wire::new(&served.machine);
    wire.connect("203.0.113.66", 443);
    wire.connect("203.0.113.67", 443);
    wire.finish();

    let events = served.run(0, &["netevents", "--policy", &policy]);
    assert!(events.out.contains("203.0.113.66:443"), "{}", events.out);
    assert!(events.out.contains("of Sluicegate, callout"), "{}", events.out);
    assert!(events.out.contains("rule `quarantine` (") && events.out.contains("policy.toml:6)"), "{}", events.out);
    assert!(!events.out.contains("203.0.113.67"), "{}", events.out);
    let none = served.run(0, &["netevents", "remoteaddr=203.0.113.67"]);
    assert_eq!((none.out.as_str(), none.error.trim()), ("", "no such event"));

    let why = served.run(0, &["why", "--policy", &policy]);
    assert!(why.out.contains("its callout blocked") && why.out.contains("policy.toml:6"), "{}", why.out);

    // What is explained is what happened.
    let explained = |remote: &str| {
        let flow = ["explain", "--tcp", "10.0.0.1:50000", remote, "--policy", &policy];
        served.json(0, &flow)["explanation"]["result"].clone()
    };
    assert_eq!(explained("203.0.113.66:443")["at"], "ALE_AUTH_CONNECT_V4");
    assert_eq!(explained("203.0.113.67:443")["is"], "permit");

    let callouts = served.json(0, &["callouts"]);
    let registered = callouts["callouts"].as_array().unwrap().iter().all(|one| {
        one["callout"]["flags"].as_array().unwrap().iter().any(|flag| flag == "FWPM_CALLOUT_FLAG_REGISTERED")
    });
    assert!(registered, "{callouts}");
    let layers = served.json(0, &["layers", "--all"]);
    assert_eq!(layers["layers"].as_array().unwrap().len(), 99);
    let options = served.json(0, &["options"]);
    assert_eq!(options["options"][0]["option"], "COLLECT_NET_EVENTS");
    assert_eq!(options["options"][0]["value"], 1);

    // What the machine tells and what its file tells is the same.
    let mut xml = Vec::new();
    filter_engine::xml::state(&served.machine.wfp.engine, &mut xml).unwrap();
    let file = served.file("wfpstate.xml", std::str::from_utf8(&xml).unwrap());
    for verb in ["filters", "sublayers", "providers", "callouts"] {
        assert_eq!(served.json(0, &[verb]), json(&[verb, &file]), "{verb}");
    }
    served.run(0, &["uninstall"]);
    served.is_clean();
}
