//! The examples of docs/policy.md are policies.
#![cfg(feature = "std")]

use sluice_policy::{CompileOptions, Image, compile, lint, parse, test};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

#[test]
fn every_example_compiles_and_keeps_its_expectations() {
    let text = include_str!("../../../docs/policy.md");
    let lists: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::from([
        ("lists/bad-addresses.txt".into(), b"203.0.113.64/26\n".to_vec()),
        ("ads.txt".into(), b"0.0.0.0 ads.example track.ads.example\n".to_vec()),
    ]);
    let mut examples = 0;
    for block in text.split("```toml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let policy = parse(Path::new("policy.md"), block, &lists).unwrap_or_else(|errors| panic!("{errors}\n{block}"));
        let mut warnings: Vec<_> = policy.warnings.iter().cloned().chain(lint(&policy)).collect();
        // The examples are of machines that nobody administers from afar.
        warnings.retain(|one| one.key != "default.inbound");
        assert!(warnings.is_empty(), "{warnings:?}\n{block}");
        let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [1; 16], at: None };
        Image::validate(compile(&policy, &options).unwrap()).unwrap();
        for tested in test(&policy, &options).unwrap() {
            assert_eq!(tested.failure, None, "{}\n{block}", tested.flow);
        }
        examples += 1;
    }
    assert!(examples >= 7);
}

/// README's first policy, and what the names of its rules say.
#[test]
fn the_example_of_the_readme_does_what_its_rules_say() {
    let text = include_str!("../../../README.md");
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (curl, wget) = ("/usr/bin/curl", "/usr/bin/wget");
    let mut expected = String::new();
    for (program, remote, rule) in [
        (curl, "203.0.113.10:80", "curl may talk to the web servers"),
        (wget, "203.0.113.10:80", "and nothing else may"),
        (curl, "203.0.113.10:443", "and nothing else may"),
        (curl, "203.0.113.66:80", "quarantine"),
        (wget, "[2001:db8:1::66]:443", "quarantine"),
        (wget, "198.51.100.1:443", "default"),
    ] {
        let flow = format!("application = \"{program}\"\nremote = \"{remote}\"\n");
        expected += &format!("[[expect]]\nrule = \"{rule}\"\nprotocol = \"tcp\"\n{flow}");
    }
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let policy = parse(Path::new("README.md"), &format!("{example}\n{expected}"), &files).unwrap();
    let mut warnings: Vec<_> = policy.warnings.iter().cloned().chain(lint(&policy)).collect();
    warnings.retain(|one| one.key != "default.inbound");
    assert!(warnings.is_empty(), "{warnings:?}");
    let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [1; 16], at: None };
    let tested = test(&policy, &options).unwrap();
    assert_eq!(tested.len(), 6);
    for one in tested {
        assert_eq!(one.failure, None, "{}", one.flow);
    }
}

#[test]
fn the_bound_on_steps_is_the_one_that_holds() {
    let steps = sluice_policy::image::MOST_STEPS;
    let said = format!("at most {},{:03} steps", steps / 1000, steps % 1000);
    assert!(include_str!("../../../docs/policy.md").contains(&said), "docs/policy.md does not say {said:?}");
}

/// The keys that the reader accepts in a table, as it reports them for an unknown key.
fn keys(table: &str) -> Vec<String> {
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let errors = parse(Path::new("policy.md"), &format!("{table}\nno-such-key = 1\n"), &files).unwrap_err();
    let found = errors.diagnostics.iter().find(|one| one.message.contains("unknown key")).unwrap();
    let mut keys = backticked(found.expected.as_deref().unwrap());
    keys.sort();
    keys
}

/// The text between backticks.
fn backticked(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_read() {
    let text = include_str!("../../../docs/policy.md");
    for (section, table, in_prose) in [
        ("Top level", "", false),
        ("default", "[default]", false),
        ("rule", "[[rule]]\naction = \"block\"", false),
        ("list", "[list.x]\nentries = [\"a.example\"]", false),
        ("group", "[group.x]", true),
        ("schedule", "[schedule.x]", true),
        ("expect", "[[expect]]\nremote = \"192.0.2.1\"\nverdict = \"block\"", false),
    ] {
        let body = text.split(&format!("### {section}\n")).nth(1).unwrap();
        let body = body.split("\n#").next().unwrap();
        let mut documented: Vec<String> = if in_prose {
            let known = keys(table);
            backticked(body).into_iter().filter(|word| known.contains(word)).collect()
        } else {
            // The first table of a section lists its keys.
            let rows = body.split_once("--- |\n").unwrap().1.split("\n\n").next().unwrap();
            let cells = rows.lines().filter_map(|row| row.split('|').nth(1));
            cells.flat_map(backticked).collect()
        };
        documented.sort();
        documented.dedup();
        assert_eq!(documented, keys(table), "{section}");
    }
}
