//! Every task of Makefile.toml is a verb of this program, and on Linux the same verb of ./dev.
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

#[derive(Deserialize)]
struct Makefile {
    tasks: BTreeMap<String, Task>,
}

#[derive(Deserialize)]
struct Task {
    alias: Option<String>,
    description: Option<String>,
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    linux: Option<Box<Task>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tasks() -> BTreeMap<String, Task> {
    let text = fs::read_to_string(root().join("Makefile.toml")).unwrap();
    toml::from_str::<Makefile>(&text).unwrap().tasks
}

#[test]
fn every_task_is_the_verb_of_its_name() {
    let help = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let verbs: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let verbs: Vec<_> =
        verbs.into_iter().filter(|verb| verb.starts_with(|first: char| first.is_ascii_lowercase())).collect();
    let mut tasks = tasks();
    let default = tasks.remove("default").and_then(|task| task.alias);
    assert_eq!(default.as_deref(), Some("build"));
    let mut names: Vec<_> = tasks.keys().map(String::as_str).collect();
    for (name, task) in &tasks {
        assert!(task.description.is_some(), "{name}");
        assert_eq!(task.command.as_deref(), Some("cargo"), "{name}");
        assert_eq!(task.args[..2], ["xtask", name], "{name}");
        let linux = task.linux.as_ref().unwrap_or_else(|| panic!("{name} has nothing to run on Linux"));
        assert_eq!((linux.command.as_deref(), &linux.args[..]), (Some("./dev"), &task.args[1..]), "{name}");
    }
    names.sort_unstable_by_key(|name| verbs.iter().position(|verb| verb == name));
    assert_eq!(names, verbs, "tasks and verbs");
}

/// Only where cargo-make is installed: no package registry has it built, and compiling it takes minutes.
#[test]
fn cargo_make_plans_every_task_and_runs_one() {
    let cargo_make = || {
        let mut command = Command::new("cargo-make");
        command.current_dir(root()).args(["make", "--loglevel", "error", "--disable-check-for-updates"]);
        command
    };
    if Command::new("cargo-make").arg("--version").output().is_err() {
        eprintln!("skipped: cargo-make is not installed (`cargo install cargo-make`)");
        return;
    }
    for (name, task) in tasks() {
        let plan =
            cargo_make().args(["--print-steps", "--output-format", "short-description", &name]).output().unwrap();
        let text = String::from_utf8_lossy(&plan.stdout);
        let planned = task.alias.as_ref().unwrap_or(&name);
        assert!(plan.status.success() && text.contains(planned.as_str()), "{name}: {text}");
    }
    let checked = cargo_make().args(["check-image", "target/sluice/x86_64/sluice.sys"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && text.contains("x86_64"), "{text}");
}
