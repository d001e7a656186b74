//! `sluice ask`: a person at a terminal, another program, and curl that waits for them.

#[path = "support/held.rs"]
mod held;
#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use held::{Card, Stands};
use serde_json::{Value, json};
use served::{Running, Served, ended, served};
use tempfile::TempDir;

const ASKS: &str = "[[rule]]\nname = \"anything\"\naction = \"ask\"\ndirection = \"outbound\"\n";
const REMOTE: &str = "203.0.113.10";
const PID: u32 = 4244;

fn asking() -> Served {
    let served = served();
    served.install();
    served.run(0, &["load", &served.file("policy.toml", ASKS)]);
    served
}

/// A running `sluice ask`.
struct Ask {
    child: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Ask {
    fn start(served: &Served, arguments: &[&str]) -> Self {
        let mut command = served.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child: Child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut this = Self { child: Running(child), input, output };
        assert!(this.line().contains("answers"), "it says that it answers");
        this
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }
}

#[test]
fn another_program_answers_by_lines_of_json() {
    let served = asking();
    let mut card = Card::new(&served.machine, PID);
    let mut ask = Ask::start(&served, &["ask", "--json"]);
    assert_eq!(card.connect(REMOTE, 443).0, Stands::Held);
    let question = ask.json();
    let one = &question["question"];
    assert_eq!((&one["id"], &one["remote_address"], &one["remote_port"]), (&json!(1), &json!(REMOTE), &json!(443)));
    assert_eq!((&one["process_id"], &one["application"]), (&json!(PID), &json!(wire::APP_ID)));
    assert_eq!((&one["rule_name"], &one["when_unanswered"]), (&json!("anything"), &json!("block")));
    for (wrong, expected) in [
        ("nonsense", "the line is no answer"),
        ("{\"id\":1,\"answer\":\"perhaps\"}", "unknown variant `perhaps`"),
        ("{\"id\":1,\"answer\":\"permit\",\"for\":\"ever\"}", "unknown field `for`"),
        ("{\"id\":99,\"answer\":\"permit\"}", "question 99 is not open"),
    ] {
        ask.say(wrong);
        let refused = ask.json();
        assert!(refused["refused"]["why"].as_str().unwrap().contains(expected), "{refused}");
    }
    assert_eq!(card.outcome(), (0, 0), "nothing of that was an answer");
    ask.say("{\"id\":1,\"answer\":\"permit\"}");
    assert_eq!(ask.json(), json!({"answered": {"id": 1, "answer": "permit", "scope": "once"}}));
    card.await_outcome((1, 0));
    // Two questions, one answer for the life of the process.
    card.connect(REMOTE, 80);
    card.connect(REMOTE, 81);
    let numbers = [ask.json(), ask.json()].map(|line| line["question"]["id"].clone());
    assert_eq!(numbers, [json!(2), json!(3)]);
    ask.say("{\"id\":3,\"answer\":\"block\",\"scope\":\"process\"}");
    assert_eq!([ask.json(), ask.json()].map(|line| line["answered"]["id"].clone()), [json!(2), json!(3)]);
    card.await_outcome((0, 2));
    assert_eq!(card.connect(REMOTE, 82).0, Stands::Refused);
    // What ends without an answer is told.
    card.becomes(PID + 4);
    card.connect(REMOTE, 443);
    assert_eq!(ask.json()["question"]["id"], json!(4));
    served.run(0, &["load", &served.file("policy.toml", "[default]\noutbound = \"permit\"\n")]);
    assert_eq!(ask.json(), json!({"closed": {"id": 4}}));
    // When its input ends, so does it.
    drop(ask.input);
    assert!(ask.child.0.wait().unwrap().success());
    card.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

#[test]
fn a_person_answers_with_a_key() {
    let served = asking();
    let mut card = Card::new(&served.machine, PID);
    for (key, expected, said) in [("o", (1, 0), "permitted question"), ("b", (0, 1), "blocked question")] {
        let mut ask = Ask::start(&served, &["ask", "--once"]);
        assert_eq!(card.connect(REMOTE, 443).0, Stands::Held);
        let shown = ask.line();
        assert!(shown.contains("wants to connect to 203.0.113.10:443 over tcp; rule \"anything\" asks"), "{shown}");
        assert!(shown.contains(&format!("{} (process {PID})", wire::APP_ID)), "{shown}");
        assert!(ask.line().contains("user S-1-22-1-1000"));
        assert!(ask.line().contains("o permit once, p permit as long as the process lives, b block once"));
        ask.say("x");
        assert!(ask.line().contains("`x` is none of"));
        ask.say(key);
        assert!(ask.line().starts_with(said));
        assert!(ask.child.0.wait().unwrap().success());
        card.await_outcome(expected);
    }
    card.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

/// A question that closes gives its place to another, which may be there before the person's answer is.
#[test]
fn what_was_typed_for_a_question_that_closed_answers_no_other() {
    let served = asking();
    let mut card = Card::new(&served.machine, PID);
    let mut ask = Ask::start(&served, &["ask", "--once"]);
    assert_eq!(card.connect(REMOTE, 443).0, Stands::Held);
    assert!([ask.line(), ask.line(), ask.line()][0].contains("question 1"));
    served.run(0, &["load", &served.file("none.toml", "[default]\noutbound = \"permit\"\n")]);
    assert!(ask.line().contains("question 1 is closed"));
    served.run(0, &["load", &served.file("policy.toml", ASKS)]);
    card.becomes(PID + 4);
    assert_eq!(card.connect(REMOTE, 443).0, Stands::Held);
    assert!([ask.line(), ask.line(), ask.line()][0].contains("question 2"));
    ask.say("o");
    let refused = ask.line();
    assert!(refused.contains("question 1 has closed: type it again if it is about question 2"), "{refused}");
    ask.say("b");
    assert!(ask.line().starts_with("blocked question 2"));
    assert!(ask.child.0.wait().unwrap().success());
    card.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

/// A rule in the policy's file, before the one that asks, is an answer that stays.
#[test]
fn a_rule_is_written_into_the_policy_and_loaded() {
    let served = asking();
    let mut card = Card::new(&served.machine, PID);
    let file = served.file("policy.toml", &format!("# mine\n{ASKS}"));
    let mut ask = Ask::start(&served, &["ask", "--json", "--policy", &file]);
    for (port, answer, expected, after) in
        [(443, "permit", (1, 0), Stands::Sent), (80, "block", (0, 1), Stands::Refused)]
    {
        assert_eq!(card.connect(REMOTE, port).0, Stands::Held);
        let id = ask.json()["question"]["id"].as_u64().unwrap();
        ask.say(&format!("{{\"id\":{id},\"answer\":\"{answer}\",\"scope\":\"rule\"}}"));
        assert_eq!(ask.json(), json!({"answered": {"id": id, "answer": answer, "scope": "rule"}}));
        card.await_outcome(expected);
        assert_eq!(card.connect(REMOTE, port).0, after, "nothing is asked any more");
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# mine\n[[rule]]\nname = \"answered: curl to 203.0.113.10\"\n"), "{text}");
    assert!(text.ends_with(ASKS) && text.contains("answered: curl to 203.0.113.10 (2)"), "{text}");
    served.run(0, &["policy", "check", &file]);
    // A file that is not the policy that asks stays as it is.
    fs::write(&file, "[default]\noutbound = \"block\"\n").unwrap();
    card.connect(REMOTE, 22);
    let id = ask.json()["question"]["id"].as_u64().unwrap();
    ask.say(&format!("{{\"id\":{id},\"answer\":\"permit\",\"scope\":\"rule\"}}"));
    let refused = ask.json();
    assert!(refused["refused"]["why"].as_str().unwrap().contains("no rule of the name"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "[default]\noutbound = \"block\"\n");
    drop(ask);
    card.await_outcome((0, 1));
    card.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

/// However it ends, what is open gets what the rule says, at once.
#[test]
fn who_ends_it_leaves_nothing_half_done() {
    let served = asking();
    let mut card = Card::new(&served.machine, PID);
    let mut ask = Ask::start(&served, &["ask"]);
    assert_eq!(card.connect(REMOTE, 443).0, Stands::Held);
    assert!(ask.line().contains("wants to connect"));
    ask.child.0.kill().unwrap();
    card.await_outcome((0, 1));
    assert_eq!(card.connect(REMOTE, 443).0, Stands::Refused);
    // Who waits for a while only, says how that ended.
    let text = ended(served.command(&["ask", "--timeout", "0.1"]).stdin(Stdio::piped()).output().unwrap(), 0);
    assert_eq!(text.out.lines().count(), 1, "{}", text.out);
    let mut once = served.command(&["ask", "--once", "--timeout", "0.1"]);
    let child = once.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let text = ended(child.wait_with_output().unwrap(), 1);
    assert!(text.error.contains("nothing was answered before the timeout"), "{}", text.error);
    card.finish();
    served.run(0, &["uninstall"]);
    let text = served.run(3, &["ask"]);
    assert!(text.error.contains("the driver is not installed"), "{}", text.error);
    served.is_clean();
}

/// The folder of the programs made by this build.
fn programs() -> PathBuf {
    let test = env::current_exe().expect("this program has a path");
    test.ancestors().nth(2).expect("it is in the deps folder of a target folder").to_owned()
}

/// A real connect() waits for the answer. Where the system does not allow namespaces or a TUN device, this says so and
/// does nothing, as in `end_to_end.rs`.
#[test]
fn curl_waits_until_sluice_ask_has_answered() {
    let folder = TempDir::new().unwrap();
    let policy = folder.path().join("policy.toml");
    fs::write(&policy, format!("{ASKS}remote = [\"203.0.113.0/24\", \"2001:db8:1::/64\"]\n")).unwrap();
    let (demo, sluice) = (programs().join("examples/demo"), env!("CARGO_BIN_EXE_sluice"));
    let curl = "curl --silent --show-error --max-time 60 --noproxy '*' --globoff";
    let script = format!(
        "cd '{}' && mkfifo answers
         '{sluice}' ask --json < answers > lines &
         exec 3> answers
         asked() {{ for i in $(seq 600); do grep -q \"\\\"question\\\":{{\\\"id\\\":$1,\" lines && return; sleep 0.1; done; echo none; }}
         until grep -q answers lines; do sleep 0.1; done
         '{sluice}' ask --timeout 0 2>/dev/null; echo another $?
         ({curl} http://203.0.113.10/; echo permitted $?) > first 2>&1 & first=$!
         asked 1
         test -s first && echo early
         echo '{{\"id\":1,\"answer\":\"permit\"}}' >&3
         wait $first; cat first
         ({curl} 'http://[2001:db8:1::10]/'; echo blocked $?) > second 2>&1 & second=$!
         asked 2
         echo '{{\"id\":2,\"answer\":\"block\"}}' >&3
         wait $second; tail -n 1 second
         exec 3>&-; wait",
        folder.path().display()
    );
    let mut run = Command::new(programs().join("ntsim"));
    run.arg("net").arg("--driver").arg(support::driver()).arg("--policy").arg(&policy);
    run.arg("--server").arg(format!("'{}' serve", demo.display()));
    run.args(["--address", "203.0.113.0/24", "--address", "2001:db8:1::/64", "--", "sh", "-c", &script]);
    let output = run.output().expect("ntsim starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("network namespaces") || stderr.contains("TUN device") {
        eprintln!("SKIPPED: {stderr}");
        return;
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    // 7 is curl's "failed to connect"; a timeout would be 28.
    assert_eq!(stdout, "another 1\nhello from 203.0.113.10\npermitted 0\nblocked 7\n", "{output:?}");
}
