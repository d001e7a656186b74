//! The documents are true: every command line in them is tried with the program it names, every file they name exists,
//! and their tables agree with the code.
#![cfg(target_os = "linux")]

#[path = "support/commands.rs"]
mod commands;
#[path = "support/powershell.rs"]
mod powershell;

use std::{collections::BTreeSet, fs, process::Command};

use commands::{Bench, dev_verbs, program, read, root, verbs};
use regex::Regex;
use sluice_protocol::{
    KEEPER_NAME, OLDEST_WINDOWS, OLDEST_WINDOWS_BUILD,
    eventlog::{ENTRIES, Entry, SOURCE},
    object::{CALLOUTS, CalloutObject, Carried, LAYERS, Role},
};

/// Every document.
fn documents() -> Vec<(String, String)> {
    let mut names: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "SPECIFICATION.md", "tests/vm/README.md", "fuzz/README.md"]
            .map(str::to_owned)
            .into();
    for folder in ["docs", "benches"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            names.extend(name.ends_with(".md").then(|| format!("{folder}/{name}")));
        }
    }
    for other in ["SECURITY.md", "crates/wfp-sys/README.md"] {
        names.extend(root().join(other).is_file().then(|| other.to_owned()));
    }
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// Scripts and texts in which command lines are whole lines, or code spans in comments.
const SCRIPTS: [&str; 10] = [
    "dev",
    ".ci/run",
    "Makefile.toml",
    "resources/package.txt",
    "inf/sluice.inx",
    "docs/export-windows-firewall.ps1",
    "tests/vm/try.ps1",
    "tests/vm/hyperv.ps1",
    "tests/vm/guest.ps1",
    "tests/vm/qemu.sh",
];

/// What a line that is a command begins with there.
const PROGRAMS: [&str; 5] = ["powershell ", "./dev ", "cargo xtask ", "cargo make ", "sluice "];

/// The command lines of a document: lines of code, joined where they end in a backslash; and spans of code.
fn command_lines(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut prose, mut fence) = (Vec::new(), String::new(), None::<bool>);
    let mut held = String::new();
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() {
                None
            } else {
                Some(matches!(language, "" | "sh" | "bat" | "console" | "powershell"))
            };
            continue;
        }
        let code = match fence {
            Some(shell) => shell.then_some(line),
            None => line.strip_prefix("    ").filter(|rest| !rest.starts_with(['*', '-', '|'])),
        };
        match code {
            Some(code) => match code.strip_suffix('\\') {
                Some(start) => held.push_str(start),
                None => lines.push(std::mem::take(&mut held) + code.trim_start()),
            },
            None if fence.is_none() => prose = prose + line + "\n",
            None => {}
        }
    }
    let span = Regex::new("`([^`]+)`").unwrap();
    let spans = span.captures_iter(&prose).map(|span| span[1].replace(r"\|", "|").replace('\n', " "));
    (lines, spans.collect())
}

#[test]
fn every_command_line_is_one() {
    let bench = Bench::new();
    let (mut faults, mut tried) = (Vec::new(), 0);
    for (name, text) in documents() {
        let (lines, spans) = command_lines(&text);
        tried += lines.len() + spans.len();
        faults.extend(lines.iter().filter_map(|line| Some(format!("{name}: {line}: {}", bench.fault(line)?))));
        faults
            .extend(spans.iter().filter_map(|span| Some(format!("{name}: `{span}`: {}", bench.fault_in_text(span)?))));
    }
    let span = Regex::new("`((?:sluice|ntsim|cargo|./dev) [^`]+)`").unwrap();
    for name in SCRIPTS {
        for line in read(name).lines().map(|line| line.trim_start_matches(['#', ' '])) {
            let spans = span.captures_iter(line).map(|span| span[1].to_owned());
            let whole = line.strip_prefix("exec ").unwrap_or(line);
            let whole = whole.replace("sluice.exe ", "sluice ");
            let whole = PROGRAMS.iter().any(|program| whole.starts_with(program)).then_some(whole);
            for command in spans.chain(whole) {
                tried += 1;
                faults.extend(bench.fault_in_text(&command).map(|fault| format!("{name}: `{command}`: {fault}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tried > 50, "{tried}");
}

#[test]
fn a_wrong_command_line_is_found() {
    let bench = Bench::new();
    for wrong in [
        "sluice install --driver PATH",
        "sluice lod office.toml",
        "sluice policy chek office.toml",
        "sluice policy check|chek",
        "sluice events -n none",
        "ntsim load --no-such-option FILE.sys",
        "ntsim lod FILE.sys",
        "./dev tset",
        "./dev ntsim load --no-such-option FILE.sys",
        "cargo xtask check-images",
        "cargo make biuld",
        "cargo test -p sluice-polciy",
        "powershell -ExecutionPolicy Bypass -File accept.ps1 -Blocked 192.0.2.66",
        "powershell -ExecutionPolicy Bypass -File try.ps1 -Block 192.0.2.66",
        "tests/vm/qemu.sh --iso Windows.iso --packages ZIP",
    ] {
        assert!(bench.fault(wrong).is_some(), "{wrong}");
    }
}

/// A code span that begins with a folder of the project names an existing file or folder.
#[test]
fn every_file_that_is_named_is_there() {
    let path = Regex::new("`((?:benches|crates|docs|driver|examples|fuzz|inf|resources|src|tests|\\.github)/[^` ]*)`")
        .unwrap();
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").unwrap();
    let mut faults = Vec::new();
    for (name, text) in documents() {
        for found in path.captures_iter(&text) {
            for file in alternatives(&found[1]) {
                if !file.contains(['*', '<']) && !root().join(file.trim_end_matches('/')).exists() {
                    faults.push(format!("{name}: {file}"));
                }
            }
        }
        let folder = root().join(&name).parent().unwrap().to_owned();
        for found in link.captures_iter(&text) {
            if !folder.join(&found[1]).exists() {
                faults.push(format!("{name}: the link {}", &found[1]));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `a/{b,c}` is `a/b` and `a/c`.
fn alternatives(path: &str) -> Vec<String> {
    match (path.find('{'), path.find('}')) {
        (Some(open), Some(close)) if open < close => {
            let middle = path[open + 1..close].split(',');
            middle.map(|middle| format!("{}{middle}{}", &path[..open], &path[close + 1..])).collect()
        }
        _ => vec![path.to_owned()],
    }
}

/// The first cells of the table's rows that come after a heading, without their code marks, split at `, `.
fn first_cells(text: &str, heading: &str) -> BTreeSet<String> {
    let at = text.find(heading).unwrap_or_else(|| panic!("no {heading}"));
    let rows = text[at..].lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2)
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split(", ").map(|name| name.trim().trim_matches('`').to_owned()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_verbs_are_those_of_the_programs() {
    let sluice = program("sluice");
    let table = Regex::new(r"(?m)^\| `sluice ([a-z]+)").unwrap();
    let text = read("docs/sluice.md");
    let documented: BTreeSet<_> = table.captures_iter(&text).map(|row| row[1].to_owned()).collect();
    assert_eq!(documented, verbs(&sluice, &[]), "docs/sluice.md");

    let text = read("docs/policy.md");
    let (_, rest) = text.split_once("| verb | what it does").expect("the verbs of `sluice policy`");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let documented: BTreeSet<_> =
        rows.map(|row| row.trim_start_matches(['|', ' ', '`']).split([' ', '`']).next().unwrap().to_owned()).collect();
    assert_eq!(documented, verbs(&sluice, &["policy"]), "docs/policy.md");

    let text = read("docs/ntsim.md");
    let shown = Regex::new(r"\./dev ntsim ([a-z]+)").unwrap();
    let documented: BTreeSet<_> = shown.captures_iter(&text).map(|line| line[1].to_owned()).collect();
    assert_eq!(documented, verbs(&program("ntsim"), &[]), "docs/ntsim.md");

    // `./dev help` lists every verb of `./dev`, and every verb that it passes on exists in xtask.
    let dev = read("dev");
    let usage: String = dev.lines().skip(1).take_while(|line| line.starts_with('#')).collect();
    let known = verbs(&program("xtask"), &[]);
    for verb in dev_verbs() {
        assert!(usage.contains(&verb), "dev's usage does not name {verb}");
        assert!(known.contains(&verb), "xtask has no {verb}");
    }
}

/// The exit statuses that a document gives are in the program's own list.
#[test]
fn the_exit_statuses_are_those_of_the_help() {
    let statuses = |program: &std::path::Path, arguments: &[&str]| -> BTreeSet<String> {
        let help = Command::new(program).args(arguments).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let (_, list) = help.split_once("Exit ").expect("exit statuses");
        let number = Regex::new(r"(?m)^  (\d+) ").unwrap();
        number.captures_iter(list).map(|line| line[1].to_owned()).collect()
    };
    let of_policy = statuses(&program("sluice"), &["policy"]);
    let text = read("docs/policy.md");
    let (_, rest) = text.split_once("exit status other than 0 |").expect("the verbs of `sluice policy`");
    let number = Regex::new(r"(\d):|^(\d);").unwrap();
    for row in rest.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        for found in number.captures_iter(cell) {
            let status = found.get(1).or(found.get(2)).unwrap().as_str();
            assert!(of_policy.contains(status), "{row}");
        }
    }
    let in_prose = Regex::new(r"status(?: is)? (\d+)").unwrap();
    for (name, of) in [
        ("docs/sluice.md", statuses(&program("sluice"), &[])),
        ("SPECIFICATION.md", statuses(&program("sluice"), &[])),
        ("docs/migrate.md", of_policy),
    ] {
        let text = read(name).replace('\n', " ");
        let given: Vec<_> = in_prose.captures_iter(&text).map(|found| found[1].to_owned()).collect();
        assert!(!given.is_empty() && given.iter().all(|status| of.contains(status)), "{name}: {given:?} of {of:?}");
    }
    assert!(statuses(&program("ntsim"), &[]).contains("70") && read("docs/ntsim.md").contains("70 says"));
}

/// The keys that the policy language accepts at a place: those it lists for an unknown key.
fn keys(place: &str) -> BTreeSet<String> {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("unknown.toml");
    fs::write(&file, format!("{place}\nno-such-key = 1\n")).unwrap();
    let output = Command::new(program("sluice")).args(["policy", "check", "--json"]).arg(&file).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .or_else(|_| serde_json::from_slice(&output.stderr))
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let diagnostics = report["diagnostics"].as_array().expect("diagnostics");
    let unknown =
        |one: &&serde_json::Value| one["message"].as_str().is_some_and(|text| text.starts_with("unknown key"));
    let expected = diagnostics.iter().find(unknown).unwrap_or_else(|| panic!("{report}"))["expected"].as_str().unwrap();
    let code = Regex::new("`([^`]+)`").unwrap();
    code.captures_iter(expected).map(|key| key[1].to_owned()).collect()
}

#[test]
fn the_keys_are_those_of_the_policy_language() {
    let text = read("docs/policy.md");
    let table = |place: &str| {
        let (_, rest) = text.split_once(place).unwrap_or_else(|| panic!("no {place} in docs/policy.md"));
        first_cells(rest, "| key |")
    };
    assert_eq!(table("### Top level"), keys(""), "the file");
    assert_eq!(table("### default"), keys("[default]"), "[default]");
    assert_eq!(table("### rule"), keys("[[rule]]"), "[[rule]]");
    assert_eq!(table("### list"), keys("[list.a]"), "[list.NAME]");
    assert_eq!(table("### expect"), keys("[[expect]]"), "[[expect]]");
}

#[test]
fn the_planted_drivers_are_those_that_are_listed() {
    let (text, name) = (read("docs/ntsim.md"), Regex::new("`([a-z_]+)`").unwrap());
    let (_, rest) = text.split_once("| check | planted driver |").expect("the table of planted drivers");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let last_cells = rows.filter_map(|row| row.trim_end().trim_end_matches('|').rsplit('|').next());
    let listed: BTreeSet<String> =
        last_cells.flat_map(|cell| name.captures_iter(cell).map(|one| one[1].to_owned()).collect::<Vec<_>>()).collect();
    let files = fs::read_dir(root().join("driver/planted/examples")).unwrap();
    let there: BTreeSet<String> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "clean")
        .collect();
    assert_eq!(listed, there);
}

#[test]
fn the_layers_are_those_of_the_driver() {
    let words = [
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
        "twenty-one",
        "twenty-two",
        "twenty-three",
        "twenty-four",
    ];
    let count = words[CALLOUTS.len() - 10];
    let text = read("docs/sluice.md").replace('\n', " ");
    assert!(Regex::new(&format!("each of {count} +layers")).unwrap().is_match(&text), "docs/sluice.md: {count} layers");
    let stem = |callout: &CalloutObject| callout.name.replace(&format!("_V{}", callout.ip_version), "");
    let stems: BTreeSet<String> = CALLOUTS.iter().map(stem).collect();
    let specification = read("SPECIFICATION.md");
    let listed = first_cells(&specification, "## Per layer");
    assert_eq!(listed, stems, "SPECIFICATION.md, per layer");
    for layer in &LAYERS {
        let answers = match layer.role {
            Role::Decide => "decides",
            Role::Observe => "observes",
        };
        let called = match layer.carried {
            Carried::None | Carried::EveryFlow => "everything",
            Carried::LookedAtTcp => "TCP flows whose name may decide",
            Carried::LookedAtUdp => "UDP flows whose name may decide",
        };
        let row = format!("\n| {} | {} | {answers} | {called} |\n", layer.name, layer.about);
        assert!(read("docs/driver.md").contains(&row), "docs/driver.md has no row{row}");
    }
    let architecture = read("ARCHITECTURE.md");
    for stem in stems {
        let short = stem.trim_start_matches("ALE_");
        assert!(architecture.contains(short), "ARCHITECTURE.md does not say where {stem} is decided");
    }
}

#[test]
fn the_events_of_the_event_log_are_those_that_are_documented() {
    let text = read("docs/fleet.md");
    assert!(text.contains(&format!("source {SOURCE}")) && text.contains(&format!("@Name='{SOURCE}'")));
    for Entry { id, level, about } in ENTRIES {
        let level = ["", "", "error", "warning", "information"][usize::from(level)];
        let row = format!("\n| {id} | {level} | {about} |\n");
        assert!(text.contains(&row), "docs/fleet.md has no row{row}");
    }
    assert!(text.contains(&format!("(`{KEEPER_NAME}`")), "the service's name");
}

/// The oldest Windows is the same everywhere.
#[test]
fn the_oldest_windows_is_the_same_everywhere() {
    let build = Regex::new(r"build (1\d{4})").unwrap();
    let release = Regex::new(r"Windows 10,? (?:version )?(\d{4}|\d\dH\d)").unwrap();
    let oldest = OLDEST_WINDOWS.rsplit(' ').next().unwrap();
    let mut said = 0;
    let scripts = ["tests/vm/try.ps1", "inf/sluice.inx"].map(|name| (name.to_owned(), read(name)));
    for (name, text) in documents().into_iter().chain(scripts) {
        for line in text.lines().filter(|line| !line.contains("kit") && !line.contains("ntsim")) {
            for found in build.captures_iter(line) {
                assert_eq!(&found[1], OLDEST_WINDOWS_BUILD.to_string(), "{name}: {line}");
                said += 1;
            }
            if line.contains("or newer") || line.contains("or later") || line.contains("needs Windows") {
                for found in release.captures_iter(line) {
                    assert_eq!(&found[1], oldest, "{name}: {line}");
                    said += 1;
                }
            }
        }
    }
    assert!(said >= 3, "the oldest Windows is said {said} times");
}

#[test]
fn every_parameter_of_try_ps1_is_explained() {
    let script = powershell::Script::read(&root().join("tests/vm/try.ps1"));
    let readme = read("tests/vm/README.md").to_lowercase();
    for parameter in script.script_parameters() {
        assert!(readme.contains(&format!("-{parameter}")), "tests/vm/README.md says nothing of -{parameter}");
    }
}

/// What ARCHITECTURE.md says about `crates/kernel`.
#[test]
fn every_function_of_the_safe_layer_states_its_irql() {
    assert!(read("ARCHITECTURE.md").contains("states its level, itself or with its type or\nmodule"));
    let (level, item) = (
        Regex::new("IRQL|PASSIVE_LEVEL|DISPATCH_LEVEL").unwrap(),
        Regex::new(r"^pub (?:struct|enum|trait) (\w+)").unwrap(),
    );
    let (function, block) =
        (Regex::new(r"^pub (?:unsafe )?fn (\w+)").unwrap(), Regex::new(r"^impl(?:<.*?>)? (?:.* for )?(\w+)").unwrap());
    let files = sources(&root().join("crates/kernel/src"));
    let (mut types, mut functions) = (BTreeSet::new(), Vec::new());
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let (mut docs, mut of) = (String::new(), String::new());
        let of_module = text.lines().any(|line| line.starts_with("//!") && level.is_match(line));
        for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            if let Some(found) = block.captures(line) {
                of = found[1].to_owned();
            }
            let line = line.trim();
            if line.starts_with("///") {
                docs.push_str(line);
                continue;
            }
            if let Some(found) = item.captures(line).filter(|_| level.is_match(&docs)) {
                types.insert(found[1].to_owned());
            }
            if let Some(found) = function.captures(line) {
                let stated = of_module || level.is_match(&docs);
                functions.push((format!("{}: {of}::{}", file.display(), &found[1]), of.clone(), stated));
            }
            if !line.starts_with('#') {
                docs.clear();
            }
        }
    }
    assert!(functions.len() > 30, "{}", functions.len());
    let silent: Vec<_> =
        functions.iter().filter(|(_, of, stated)| !stated && !types.contains(of)).map(|(name, ..)| name).collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

fn sources(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
