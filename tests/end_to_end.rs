//! Real programs in network namespaces, their connections decided by the real sluice.sys.
//!
//! Where the system does not allow namespaces or a TUN device, these tests say so and do nothing: a real connect()
//! cannot be classified in another way.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// The folder of the programs made by this build.
fn programs() -> PathBuf {
    let test = env::current_exe().expect("this program has a path");
    test.ancestors().nth(2).expect("it is in the deps folder of a target folder").to_owned()
}

fn driver() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sluice/x86_64/sluice.sys");
    env::var_os("SLUICE_SYS").map_or_else(built, PathBuf::from)
}

/// Runs a shell command behind the driver; None if the system does not allow it.
fn behind_the_driver(policy: &str, servers: &[&str], command: &str) -> Option<(Output, String)> {
    let ntsim = programs().join("ntsim");
    assert!(ntsim.is_file(), "{} is missing: run `./dev test`, or `cargo build -p ntsim`", ntsim.display());
    let folder = TempDir::new().expect("a folder");
    let (policy_file, netevents) = (folder.path().join("policy.toml"), folder.path().join("netevents.xml"));
    fs::write(&policy_file, policy).expect("the policy is written");
    let mut run = Command::new(ntsim);
    run.arg("net").arg("--driver").arg(driver()).arg("--policy").arg(&policy_file);
    run.arg("--netevents").arg(&netevents);
    for server in servers {
        run.arg("--server").arg(server);
    }
    run.args(["--address", "203.0.113.0/24", "--address", "2001:db8:1::/64", "--", "sh", "-c", command]);
    let output = run.output().expect("ntsim starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("network namespaces") || stderr.contains("TUN device") {
        eprintln!("SKIPPED: {stderr}");
        return None;
    }
    let events = fs::read_to_string(&netevents).unwrap_or_else(|error| panic!("no net events ({error}): {stderr}"));
    Some((output, events))
}

/// The demo's web server, which answers every connection with one line.
fn web_server() -> String {
    format!("'{}' serve", programs().join("examples/demo").display())
}

const CURL: &str = "curl --silent --show-error --max-time 10 --noproxy '*' --globoff";

const QUARANTINE: &str = r#"
    [default]
    outbound = "permit"
    inbound = "block"
    [[rule]]
    name = "quarantine"
    action = "block"
    remote = ["203.0.113.66", "2001:db8:1::66"]
"#;

#[test]
fn curl_reaches_what_is_permitted_and_is_refused_what_is_not() {
    let demo = programs().join("examples/demo");
    let script = format!(
        "{CURL} http://203.0.113.10/ && {CURL} 'http://[2001:db8:1::10]/'
         {CURL} http://203.0.113.66/; echo v4 $?
         {CURL} 'http://[2001:db8:1::66]/'; echo v6 $?
         '{demo}' probe 203.0.113.67 && '{demo}' probe 203.0.113.66",
        demo = demo.display()
    );
    let Some((output, events)) = behind_the_driver(QUARANTINE, &[&web_server()], &script) else { return };
    let stdout = String::from_utf8_lossy(&output.stdout);
    // 7 is curl's "failed to connect"; a timeout would be 28.
    let expected = "hello from 203.0.113.10\nhello from 2001:db8:1::10\nv4 7\nv6 7\nhello from 203.0.113.67\n";
    assert_eq!(stdout, expected, "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Connection refused"), "what connect() answers: {stderr}");

    let dropped: Vec<&str> =
        events.split("</item>\n\t<item>").filter(|item| item.contains("_CLASSIFY_DROP<")).collect();
    for (remote, layer) in [("<remoteAddrV4>203.0.113.66<", 48), ("2001:db8:1::66", 50)] {
        let of_ours = |item: &&&str| item.contains(remote) && item.contains(&format!("<layerId>{layer}<"));
        let drops: Vec<_> = dropped.iter().filter(of_ours).collect();
        let programs: Vec<_> = drops.iter().filter(|item| item.contains(r"\.c.u.r.l...</asString>")).collect();
        assert_eq!(programs.len(), 1, "one drop of curl at layer {layer} for {remote}:\n{events}");
    }
}

#[test]
fn a_rule_on_a_program_meets_that_program_only() {
    let curl = Command::new("sh").args(["-c", "readlink -f $(command -v curl)"]).output().expect("sh runs");
    let curl = String::from_utf8(curl.stdout).expect("a path");
    let policy = format!("[[rule]]\nname = \"no curl\"\naction = \"block\"\napplication = \"{}\"\n", curl.trim());
    let probe = format!("'{}' probe 203.0.113.10", programs().join("examples/demo").display());
    let script = format!("{CURL} http://203.0.113.10/; echo curl $?; {probe}; echo probe $?");
    let Some((output, _)) = behind_the_driver(&policy, &[&web_server()], &script) else { return };
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout, "curl 7\nhello from 203.0.113.10\nprobe 0\n", "{output:?}");
}

#[test]
fn programs_of_the_machine_itself_are_asked_at_both_ends() {
    const POLICY: &str = r#"
        [default]
        outbound = "permit"
        inbound = "permit"
        [[rule]]
        name = "may not leave"
        action = "block"
        direction = "outbound"
        remote = "127.0.0.9"
        [[rule]]
        name = "may not arrive"
        action = "block"
        direction = "inbound"
        remote = "fd77::2"
    "#;
    let script = format!(
        "{} >/dev/null 2>&1 &
         for i in $(seq 300); do {CURL} http://127.0.0.1/ 2>/dev/null && break; sleep 0.1; done
         {CURL} http://10.77.0.2/ && {CURL} 'http://[::1]/'
         {CURL} http://127.0.0.9/; echo leaves $?
         {CURL} --max-time 1 'http://[fd77::2]/'; echo arrives $?",
        web_server()
    );
    let Some((output, events)) = behind_the_driver(POLICY, &[], &script) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("loopback") {
        eprintln!("SKIPPED: {stderr}");
        return;
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    // 28 is curl's timeout: nobody answers what may not arrive.
    let expected = "hello from 127.0.0.1\nhello from 10.77.0.2\nhello from ::1\nleaves 7\narrives 28\n";
    assert_eq!(stdout, expected, "{output:?}");
    for (layer, remote, program) in
        [(48, "AddrV4>127.0.0.9<", "c.u.r.l."), (46, "AddrV6.byteArray16>fd77::2<", "d.e.m.o.")]
    {
        let drops: Vec<&str> = events
            .split("</item>\n\t<item>")
            .filter(|item| item.contains("_CLASSIFY_DROP<") && item.contains(&format!("<layerId>{layer}<")))
            .collect();
        assert!(!drops.is_empty(), "a drop at layer {layer}:\n{events}");
        for drop in drops {
            assert!(drop.contains("<isLoopback>true<") && drop.contains(&format!("<remote{remote}")), "{drop}");
            assert!(drop.contains(&format!("{program}..</asString>")), "{drop}");
        }
    }
}

/// What a default may not decide, with real programs: what they say to each other on the machine itself.
#[test]
fn programs_of_the_machine_talk_though_its_default_blocks_everything() {
    let script = format!(
        "{} >/dev/null 2>&1 &
         for i in $(seq 300); do ss -Hltn 2>/dev/null | grep -q ':80 ' && break; sleep 0.1; done
         {CURL} --max-time 5 http://127.0.0.1/; echo $?
         {CURL} --max-time 5 http://10.77.0.2/; echo $?
         {CURL} --max-time 5 'http://[::1]/'; echo $?
         {CURL} http://203.0.113.10/; echo out $?",
        web_server()
    );
    for (essential, within) in
        [(true, ["hello from 127.0.0.1\n0", "hello from 10.77.0.2\n0", "hello from ::1\n0"]), (false, ["7"; 3])]
    {
        let policy = format!("[default]\noutbound = \"block\"\ninbound = \"block\"\nessential = {essential}\n");
        let Some((output, _)) = behind_the_driver(&policy, &[], &script) else { return };
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("loopback") {
            eprintln!("SKIPPED: {stderr}");
            return;
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout, format!("{}\nout 7\n", within.join("\n")), "{output:?}");
    }
}

#[test]
fn a_megabyte_arrives_whole_both_ways() {
    let server = format!("'{}' echo", programs().join("examples/demo").display());
    let script = "head -c 1048576 /dev/urandom > $$.out; ".to_owned()
        + &format!("'{}' exchange 203.0.113.10 < $$.out > $$.in", programs().join("examples/demo").display())
        + " && cmp $$.out $$.in && echo same; rm -f $$.out $$.in";
    let Some((output, _)) = behind_the_driver(QUARANTINE, &[&server], &format!("cd /tmp; {script}")) else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "same\n", "{output:?}");
}

/// curl and dig ask for names; openssl's server writes down every hello that it receives.
#[test]
fn names_that_real_clients_ask_for_decide() {
    const POLICY: &str = "[[rule]]\nname = \"ads\"\naction = \"block\"\nremote-name = \".ads.example\"\n";
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (key, certificate, log) = (at("key"), at("certificate"), at("log"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=test", "-keyout", &key, "-out", &certificate])
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("SKIPPED: there is no openssl");
        return;
    }
    let tls = format!("openssl s_server -accept 443 -cert {certificate} -key {key} -www -msg >{log} 2>&1");
    let ask = |host: &str| {
        format!(
            "{CURL} -o /dev/null -H 'Host: {host}' http://203.0.113.10/ 2>/dev/null; echo http $?
             {CURL} -o /dev/null -k --resolve {host}:443:203.0.113.10 https://{host}/ 2>/dev/null; echo tls $?
             {CURL} -o /dev/null -k --resolve '{host}:443:[2001:db8:1::10]' https://{host}/ 2>/dev/null; echo tls6 $?
             dig +tries=1 +time=1 @203.0.113.10 {host} 2>&1 | grep -q 'timed out'; echo dns $?\n"
        )
    };
    let script = format!("{}{}grep -c ', ClientHello' {log}", ask("news.example"), ask("www.ads.example"));
    let Some((output, _)) = behind_the_driver(POLICY, &[&web_server(), &tls], &script) else { return };
    let stdout = String::from_utf8_lossy(&output.stdout);
    // 35, 52 and 56 are curl's words for a connection that ended in the handshake, before and within the answer. Nobody
    // serves DNS: a question that arrives is refused, and only one that does not is waited for.
    let lines: Vec<&str> = stdout.lines().collect();
    let [http, tls, tls6, dns, blocked @ .., hellos] = &lines[..] else { panic!("{output:?}") };
    assert_eq!([*http, *tls, *tls6, *dns], ["http 0", "tls 0", "tls6 0", "dns 1"], "{output:?}");
    for line in &blocked[..3] {
        assert!(["35", "52", "56"].iter().any(|code| line.ends_with(code)), "{output:?}");
    }
    assert_eq!((blocked[3], *hellos), ("dns 0", "2"), "the blocked hellos have not arrived: {output:?}");
}

#[test]
fn the_demo_ends_well() {
    if behind_the_driver(QUARANTINE, &[], "true").is_none() {
        return;
    }
    let output = Command::new(programs().join("examples/demo")).output().expect("the demo starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout.matches(" block ").count(), 2, "{stdout}");
    assert_eq!(stdout.matches(" permit ").count(), 2, "{stdout}");
}

#[test]
fn verify_finds_each_endpoint_decided_by_the_rule_that_says_so() {
    let sluice = env!("CARGO_BIN_EXE_sluice");
    let policy = format!(
        "{QUARANTINE}\n[[rule]]\nname = \"web\"\naction = \"permit\"\nremote = \"203.0.113.10\"\nremote-port = 80\n"
    );
    let script = format!("'{sluice}' verify --json --allow 203.0.113.0/24 --allow 2001:db8:1::/64; echo status $?");
    let Some((output, _)) = behind_the_driver(&policy, &[&web_server()], &script) else { return };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (report, status) = stdout.split_once('\n').expect("a report and a status");
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let all: Vec<_> = report["verified"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            (
                text(&one["remote"]),
                text(&one["decided"]["verdict"]),
                text(&one["decided"]["rule"]),
                text(&one["judgement"]),
            )
        })
        .collect();
    let row = |remote: &str, verdict: &str, rule: &str| {
        (remote.to_owned(), verdict.to_owned(), format!("rule `{rule}`"), "as_expected".to_owned())
    };
    let expected = [
        row("203.0.113.66:443", "block", "quarantine"),
        row("[2001:db8:1::66]:443", "block", "quarantine"),
        row("203.0.113.10:80", "permit", "web"),
    ];
    assert_eq!(all, expected, "{report:#}");
    assert_eq!(status.trim(), "status 0");
}
