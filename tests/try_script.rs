//! `tests/vm/try.ps1`, as far as it can be tested without Windows: its grammar, its facts, its `sluice` commands on the
//! real driver, and its reading of netsh's files on those that the simulated machine writes.

#[path = "support/powershell.rs"]
mod powershell;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command, sync::Arc};

use filter_engine::{layers::WindowsVersion, xml};
use ntsim::{
    host::LocalHost,
    machine::{Config, Machine},
};
use powershell::{Call, Script};
use regex::Regex;
use shim::stack::Verdict;
use sluice_host::remote;
use sluice_protocol::{OLDEST_WINDOWS_BUILD, SERVICE_NAME, object};
use tempfile::TempDir;
use tree_sitter::Node;
use wire::Wire;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn script() -> Script {
    Script::read(&root().join("tests/vm/try.ps1"))
}

/// A GUID as netsh writes one without a known name, without the braces.
fn guid(bits: u128) -> String {
    let digits = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

#[test]
fn every_script_is_windows_powershell() {
    let mut seen = 0;
    for entry in ["tests/vm", "docs"].into_iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap()) {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ps1") {
            let faults = Script::read(&path).faults();
            assert!(faults.is_empty(), "{}", faults.join("\n"));
            seen += 1;
        }
    }
    assert!(seen > 3, "{seen} scripts");
}

#[test]
fn the_rules_find_what_they_are_for() {
    for (wrong, word) in [
        ("$a = 1\n$b = $a ?? 2", "does not parse"),
        ("$a = 1\n$b = $a ? 1 : 2", "does not parse"),
        ("$a = 1\n$a?.Length", "does not parse"),
        ("if (1) {", "does not parse"),
        ("Write-Host 1 && Write-Host 2", "only PowerShell 7"),
        ("Write-Host 1 2>$null", "5.1"),
        ("Write-Host 1 2>&1", "5.1"),
        ("$p = 'x'\n& $p 1", "run by &"),
        ("netsh wfp show state", "no command netsh"),
        ("Test-Path -Literal x", "no parameter -Literal"),
        ("function F([string] $A) { $A }\nF 1 2", "takes 1 values"),
        ("Write-Host $nothing", "never set"),
        ("Write-Host \"\u{2013}\"", "not ASCII"),
    ] {
        let faults = Script::parse("wrong.ps1", wrong).faults();
        assert!(faults.iter().any(|fault| fault.contains(word)), "{wrong}: {faults:?}");
    }
}

#[test]
fn its_facts_are_those_of_the_driver() {
    let script = script();
    assert_eq!(script.constant("$OldestBuild"), OLDEST_WINDOWS_BUILD.to_string());
    assert_eq!(script.constant("$ServiceName"), SERVICE_NAME);
    assert_eq!(script.constant("$ProviderKey"), guid(object::PROVIDER));
    assert_eq!(script.constant("$LayerCount"), object::CALLOUTS.len().to_string());
    let connect = |ip_version| {
        let of =
            |object: &&object::CalloutObject| object.point == object::Point::Connect && object.ip_version == ip_version;
        object::CALLOUTS.iter().find(of).expect("a callout at connect")
    };
    let names = script.constant("$ConnectLayer");
    assert_eq!(names, format!("{}{}", connect(4).name, connect(6).name));
    assert_eq!(script.constant("$ConnectLayerId"), format!("{}{}", connect(4).layer_id, connect(6).layer_id));
}

/// Counts what an XPath of the script finds in one of netsh's files.
fn count(document: &str, root: &str, query: &str) -> usize {
    let element = Regex::new(root).unwrap().find(document).unwrap_or_else(|| panic!("no {root} in {document:.200}"));
    let package = sxd_document::parser::parse(element.as_str()).expect("well formed");
    match sxd_xpath::evaluate_xpath(&package.as_document(), query).unwrap_or_else(|error| panic!("{query}: {error}")) {
        sxd_xpath::Value::Nodeset(nodes) => nodes.size(),
        other => panic!("{query}: {other:?}"),
    }
}

const BAD: [&str; 2] = ["203.0.113.66", "2001:db8:1::66"];
const GOOD: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];

/// A served machine on which the script's commands run, with a folder for its files.
struct Trial {
    script: Script,
    machine: Arc<Machine>,
    wire: Wire,
    server: remote::Server,
    folder: TempDir,
    filters: Vec<serde_json::Value>,
}

impl Trial {
    fn on(windows: WindowsVersion) -> Self {
        let machine = Machine::with(Config { windows, ..Config::default() });
        let folder = TempDir::new().unwrap();
        let host = Arc::new(LocalHost::new(machine.clone()));
        let server = remote::serve(host, &folder.path().join("machine")).unwrap();
        Self { script: script(), wire: Wire::new(&machine), machine, server, folder, filters: Vec::new() }
    }

    /// An argument's value as the script would pass it.
    fn argument(&self, node: Node<'_>) -> String {
        match self.script.of(node) {
            r"(Join-Path $PSScriptRoot 'sluice.sys')" => support::driver().to_str().unwrap().to_owned(),
            name if name.starts_with('$') => self.script.constant(name),
            text if text.starts_with(['\'', '"']) && !text.contains('$') => {
                self.script.literal(powershell::every(node, "string_literal")[0])
            }
            number if number.parse::<i32>().is_ok() => number.to_owned(),
            other => panic!("what is {other}?"),
        }
    }

    /// Runs `sluice` as the script does; it must exit with the status that the script expects.
    fn sluice(&mut self, call: &Call<'_>) -> Vec<String> {
        let status: i32 = self.argument(call.arguments[0]).parse().unwrap();
        let list = powershell::every(call.arguments[2], "array_literal_expression");
        let elements = (0..list[1].named_child_count()).filter_map(|index| list[1].named_child(index as u32));
        let arguments: Vec<String> = elements.map(|element| self.argument(element)).collect();
        let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(&arguments)
            .current_dir(self.folder.path())
            .env(remote::SOCKET_VARIABLE, self.server.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        let out = String::from_utf8(output.stdout).unwrap();
        match arguments[0].as_str() {
            "status" => {
                let report: serde_json::Value = serde_json::from_str(&out).unwrap();
                assert_eq!(report["filters_complete"], true);
                self.filters = report["filters"].as_array().unwrap().clone();
            }
            "events" => self.blocks_are_shown(&out),
            _ => {}
        }
        arguments
    }

    /// What the step `sluice events shows the decisions` checks.
    fn blocks_are_shown(&self, lines: &str) {
        let events: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for address in BAD {
            let ours = |event: &&serde_json::Value| {
                event["type"] == "event" && event["verdict"] == "block" && event["remote_address"] == address
            };
            assert!(events.iter().any(|event| ours(&event)), "no block of {address} in {lines}");
        }
    }

    /// Writes a policy as New-Policy does.
    fn policy(&self, file: &str, remotes: &[&str]) {
        let function = self.script.functions()["new-policy"];
        let text = powershell::every(function, "string_literal")
            .into_iter()
            .map(|literal| self.script.literal(literal))
            .find(|text| text.contains("[default]"))
            .expect("a policy");
        let list = remotes.iter().map(|remote| format!("\"{remote}\"")).collect::<Vec<_>>().join(", ");
        assert!(text.contains("$list"), "{text}");
        fs::write(self.folder.path().join(file), text.replace("$list", &list)).unwrap();
    }

    fn reaches(&mut self, address: &str) -> bool {
        match self.wire.connect(address, 80).0 {
            Verdict::Forward => true,
            Verdict::Refuse => false,
            other => panic!("{address}: {other:?}"),
        }
    }

    fn written(&self, write: impl Fn(&Machine, &mut Vec<u8>) -> std::io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&self.machine, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// How many of our objects the query finds in the state.
    fn ours(&self, query: &str) -> usize {
        let state = self.written(|machine, out| xml::state(&machine.wfp.engine, out));
        let query = self.script.constant(query).replace("PROVIDER", &self.script.constant("$ProviderKey"));
        count(&state, &self.script.constant("$StateRoot"), &query)
    }

    /// How many drops of an address the script sees, by a filter and at a layer.
    fn drops(&self, address: &str, filter: &str, layer: &str) -> usize {
        let events = self.written(|machine, out| xml::net_events(&machine.wfp.engine, out));
        let query = self.script.constant("$DropQuery");
        let query = query.replace("REMOTE", address).replace("FILTER", filter).replace("LAYER", layer);
        count(&events, &self.script.constant("$NetEventsRoot"), &query)
    }

    /// The filter and the layer id under which the script expects a drop of an address.
    fn expected(&self, address: &str) -> (String, &'static str) {
        let (name, id) =
            if address.contains(':') { ("ALE_AUTH_CONNECT_V6", "50") } else { ("ALE_AUTH_CONNECT_V4", "48") };
        let of: Vec<_> = self.filters.iter().filter(|filter| filter["layer"] == name).collect();
        assert_eq!(of.len(), 1, "{:?}", self.filters);
        (of[0]["id"].to_string(), id)
    }

    /// Runs the script's commands in order, with the checks that its steps make after each.
    fn run(&mut self) -> Vec<String> {
        let script = script();
        let mut said = Vec::new();
        assert_eq!(self.ours("$OursQuery"), 0);
        for call in script.flat(script.functions()["test-driver"]) {
            match (call.name.as_str(), call.arguments.as_slice()) {
                ("New-Policy", [file, remotes]) => {
                    let remotes = match script.of(*remotes) {
                        "$Bad" => BAD.to_vec(),
                        "($Bad + $Good)" => [BAD, GOOD].concat(),
                        other => panic!("{other}"),
                    };
                    self.policy(&self.argument(*file), &remotes);
                }
                ("Write-File", [file, text]) if script.of(*text).starts_with('"') => {
                    let text = script.literal(powershell::every(*text, "string_literal")[0]);
                    fs::write(self.folder.path().join(self.argument(*file)), text).unwrap();
                }
                ("Invoke-Expecting", [_, program, _]) if script.of(*program) == "'sluice'" => {
                    let arguments = self.sluice(&call);
                    self.looked_at(&arguments);
                    said.push(arguments.join(" "));
                }
                _ => {}
            }
        }
        assert_eq!(self.ours("$OursQuery"), 0);
        if let Some(bugcheck) = self.machine.stopped() {
            panic!("{bugcheck}");
        }
        said
    }

    fn looked_at(&mut self, arguments: &[String]) {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["install", _] | ["install", "--start", "demand", _] => {
                assert_eq!(self.ours("$FilterQuery"), object::CALLOUTS.len());
                assert_eq!(self.ours("$CalloutQuery"), object::CALLOUTS.len());
            }
            ["status", "--json"] => assert!(BAD.iter().chain(&GOOD).all(|address| self.reaches(address))),
            ["load", policy] => {
                for address in BAD {
                    let (filter, layer) = self.expected(address);
                    let before = self.drops(address, &filter, layer);
                    assert!(!self.reaches(address), "{address} under {policy}");
                    assert_eq!(self.drops(address, &filter, layer), before + 1);
                    assert_eq!(self.drops(address, "1", layer), 0, "another filter");
                    assert_eq!(self.drops(address, &filter, "44"), 0, "another layer");
                    assert_eq!(self.drops(&address.replace("66", "6"), &filter, layer), 0, "another address");
                }
                assert!(GOOD.iter().all(|address| self.reaches(address) == (*policy != "try-both.toml")), "{policy}");
            }
            _ => {}
        }
    }
}

#[test]
fn its_commands_do_on_the_real_driver_what_its_steps_say() {
    for windows in [WindowsVersion::Win22H2, WindowsVersion::Win24H2] {
        let said = Trial::on(windows).run();
        let driver = support::driver();
        let said: Vec<_> = said.iter().map(|line| line.replace(driver.to_str().unwrap(), "sluice.sys")).collect();
        assert_eq!(
            said,
            [
                "install --dry-run sluice.sys",
                "install --start demand sluice.sys",
                "status --json",
                "install sluice.sys",
                "status --json",
                "load try.toml",
                "events --json",
                "load bad.toml",
                "load try.toml",
                "load try-both.toml",
                "load try.toml",
                "uninstall",
                "uninstall"
            ]
        );
    }
}

#[test]
fn an_empty_file_of_net_events_has_no_drops() {
    let script = script();
    for empty in ["\u{feff}<?xml version=\"1.0\"?>\n<netEvents/>\n", "<netEvents></netEvents>"] {
        assert_eq!(count(empty, &script.constant("$NetEventsRoot"), &script.constant("$DropQuery")), 0);
    }
}

/// The Windows programs that the script runs: each command line has a documented form here.
#[test]
fn it_runs_no_other_program_of_windows() {
    let script = script();
    let mut lines: Vec<String> = Vec::new();
    for call in script.calls(script.root()) {
        let (program, arguments) = match (call.name.as_str(), call.arguments.as_slice()) {
            ("Invoke-Program", [program, arguments]) => (*program, *arguments),
            ("Invoke-Expecting", [_, program, arguments]) => (*program, *arguments),
            _ => continue,
        };
        let words = powershell::every(arguments, "string_literal").into_iter().map(|word| script.literal(word));
        let line = [script.of(program).trim_matches('\'').to_owned()].into_iter().chain(words).collect::<Vec<_>>();
        if line[0] != "sluice" && line[0] != "$Program" {
            lines.push(line.join(" "));
        }
    }
    lines.sort();
    lines.dedup();
    assert_eq!(
        lines,
        [
            "bcdedit.exe /deletevalue {current} testsigning",
            "bcdedit.exe /enum {current}",
            "bcdedit.exe /set {current} testsigning off",
            "bcdedit.exe /set {current} testsigning on",
            "netsh.exe wfp show netevents file=$File",
            "netsh.exe wfp show state file=$File",
            "sc.exe query",
            "verifier.exe /query",
            "verifier.exe /reset",
            "verifier.exe /standard /driver sluice.sys",
            "wevtutil.exe qe /c:40 /rd:true /f:text",
        ]
    );
}

/// Everything recorded as changed is undone by name.
#[test]
fn what_it_changes_it_takes_back() {
    let script = script();
    let names = |command: &str| -> BTreeSet<String> {
        let calls = script.calls(script.root());
        let first = calls.iter().filter(|call| call.name == command).map(|call| call.arguments[0]);
        first.map(|name| script.of(name).trim_matches('\'').to_owned()).collect()
    };
    let (mut changed, undone) = (names("Set-Memory"), names("Undo-One"));
    assert!(changed.remove("Results"), "the results' folder is not a change to the machine");
    // In both places a loop names the certificate's two stores.
    assert!(changed.remove("$name") && undone.contains("$store"));
    let left: Vec<_> = changed.difference(&undone).filter(|name| *name != "$Name").collect();
    assert!(left.is_empty(), "{left:?} is never undone");
    assert_eq!(changed.len(), 4, "{changed:?}");
}
