//! Checks the command lines found in documents, scripts and workflows with the programs they name.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of this")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::powershell::Script;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A program of the workspace, as left by this build or an earlier one.
pub fn program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("this program has a path");
    let path = test.ancestors().nth(2).expect("it is in the deps folder of a target folder").join(name);
    assert!(path.is_file(), "{} is missing: run `./dev test`, or `cargo build --workspace`", path.display());
    path
}

/// The names that a clap program lists under `Commands:` (or `Aliases`) for this prefix of its command line.
pub fn verbs(program: &Path, prefix: &[&str]) -> BTreeSet<String> {
    let help = Command::new(program).args(prefix).arg("--help").output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let (_, commands) = help.split_once("Commands:\n").unwrap_or_else(|| panic!("no commands in {help}"));
    let lines = commands.lines().take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

/// The verbs of `./dev`: the patterns of its `case`.
pub fn dev_verbs() -> BTreeSet<String> {
    let dev = read("dev");
    let (_, cases) =
        dev.split_once("case $verb in\n").and_then(|(_, rest)| rest.split_once("case $verb in\n")).unwrap();
    let patterns = cases.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(' '));
    patterns
        .filter_map(|line| line.split_once(')'))
        .flat_map(|(names, _)| names.split('|').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
        .filter(|name| name != "*")
        .collect()
}

/// The tasks of Makefile.toml.
pub fn tasks() -> BTreeSet<String> {
    let makefile = read("Makefile.toml");
    let names =
        makefile.lines().filter_map(|line| line.strip_prefix("[tasks.")).filter_map(|rest| rest.split_once(']'));
    names.map(|(name, _)| name.trim_matches('"').to_owned()).collect()
}

/// The packages of both workspaces and the standalone ones.
fn packages() -> BTreeSet<String> {
    let mut names = BTreeSet::from(["sluice".to_owned()]);
    for folder in ["crates", "driver", "."] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let Ok(manifest) = fs::read_to_string(entry.unwrap().path().join("Cargo.toml")) else { continue };
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = \""));
            names.extend(name.map(|rest| rest.trim_end_matches('"').to_owned()));
        }
    }
    names
}

/// A folder to try commands in, with files under the names that documents use.
pub struct Bench {
    folder: TempDir,
}

/// A document's name for a file or a value, and what replaces it here.
const STAND_INS: &[(&str, &str)] = &[
    ("FILE.sys", "target/sluice/x86_64/sluice.sys"),
    (r"PATH\sluice.sys", "target/sluice/x86_64/sluice.sys"),
    ("CAPTURE.pcap", "none.pcap"),
    ("POLICY.toml", "office.toml"),
    ("FILE", "office.toml"),
    ("OLD", "office.toml"),
    ("NEW", "office.toml"),
    ("IMAGE", "office.image"),
    ("BUNDLE", "office.bundle"),
    ("KEY", "fleet.pub"),
    ("PATH", "target/sluice/x86_64/sluice.sys"),
    ("EVENTS", "5"),
    ("SECONDS", "1"),
];

impl Bench {
    /// With README's example as office.toml, and its image.
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let readme = read("README.md");
        let (_, example) = readme.split_once("```toml\n").expect("an example");
        fs::write(folder.path().join("office.toml"), example.split("```").next().unwrap()).unwrap();
        for name in ["target", "examples", "inf", "tests"] {
            #[cfg(unix)]
            std::os::unix::fs::symlink(root().join(name), folder.path().join(name)).unwrap();
        }
        fs::create_dir_all(folder.path().join("corpus/image")).unwrap(); // of fuzz/README.md
        let bench = Self { folder };
        let compiled =
            bench.run("sluice", &["policy", "compile", "office.toml", "-o", "office.image"].map(str::to_owned));
        assert!(compiled.status.success(), "README's example: {compiled:?}");
        for line in ["keygen fleet.key", "make office.toml --version 1 --key fleet.key -o office.bundle"] {
            let words: Vec<String> = ["bundle"].into_iter().chain(line.split(' ')).map(str::to_owned).collect();
            let made = bench.run("sluice", &words);
            assert!(made.status.success(), "{line}: {made:?}");
        }
        bench
    }

    fn run(&self, name: &str, arguments: &[String]) -> Output {
        Command::new(program(name))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("NTSIM_SOCKET")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Tries a command line and returns what is wrong with it. Lines of other programs are ignored. In running text a
    /// command may lack required arguments (`sluice load --watch`).
    pub fn fault_in_text(&self, line: &str) -> Option<String> {
        self.fault(line).filter(|fault| !fault.contains("required arguments were not provided"))
    }

    /// Tries a command line that the reader is told to type.
    pub fn fault(&self, line: &str) -> Option<String> {
        let words = shlex::split(&line.replace('\\', r"\\")).unwrap_or_default();
        let words: Vec<String> = words
            .iter()
            .take_while(|word| ![">", "<", "|", ";", "&&", "||"].contains(&word.as_str())) // the shell's part
            .map(|word| word.trim_matches(['[', ']']))
            .filter(|word| *word != "...")
            .map(|word| STAND_INS.iter().find(|(name, _)| *name == word).map_or(word, |(_, file)| file).to_owned())
            .collect();
        // `check|compile` stands for both.
        if let Some(at) = words.iter().position(|word| word.contains('|') && !word.contains(' ')) {
            return words[at].split('|').find_map(|one| {
                let mut each = words.clone();
                each[at] = one.to_owned();
                self.words(&each[..=at], true)
            });
        }
        self.words(&words, false)
    }

    fn words(&self, words: &[String], verb_only: bool) -> Option<String> {
        let first = words.first()?.replace('\\', "/");
        let rest = &words[1..];
        match first.trim_start_matches("./") {
            "dev" => self.verb("./dev", &dev_verbs(), rest),
            "cargo" => self.cargo(rest),
            name @ ("sluice" | "ntsim") => {
                if verb_only || rest.len() < 2 && rest.iter().all(|word| !word.starts_with('-')) {
                    let (prefix, verb) = rest.split_at(rest.len().saturating_sub(1));
                    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
                    let known = verbs(&program(name), &prefix);
                    return verb
                        .first()
                        .filter(|verb| !known.contains(*verb))
                        .map(|verb| format!("{name} has no {verb}"));
                }
                self.tried(name, rest)
            }
            name if name.ends_with("/sluice.exe") => self.tried("sluice", rest),
            "powershell" | "pwsh" => self.powershell(rest),
            name if name.ends_with(".ps1") => {
                let name = name.strip_prefix("tests/vm/").unwrap_or(name);
                parameters(&format!("tests/vm/{name}"), rest)
            }
            name if name.ends_with("qemu.sh") => {
                let usage = read("tests/vm/qemu.sh");
                let mut options = rest.iter().filter(|word| word.starts_with("--"));
                let usage: Vec<&str> = usage.lines().filter(|line| line.starts_with('#')).collect();
                let known = |option: &str| usage.iter().any(|line| line.split(' ').any(|word| word == option));
                let unknown = options.find(|option| !known(option) && *option != "--help");
                unknown.map(|option| format!("qemu.sh has no option {option}"))
            }
            _ => None,
        }
    }

    fn verb(&self, who: &str, known: &BTreeSet<String>, words: &[String]) -> Option<String> {
        let verb = words.first()?;
        if verb.starts_with('-') || verb == "VERB" {
            return None;
        }
        if !known.contains(verb) {
            return Some(format!("{who} has no verb {verb}"));
        }
        match verb.as_str() {
            "sluice" | "ntsim" if words.len() > 1 => self.words(words, false),
            _ => None,
        }
    }

    fn cargo(&self, words: &[String]) -> Option<String> {
        let words: Vec<String> = words.iter().filter(|word| !word.starts_with('+')).cloned().collect();
        match words.first()?.as_str() {
            "xtask" => self.verb("cargo xtask", &verbs(&program("xtask"), &[]), &words[1..]),
            "make" => {
                let task = words[1..].iter().find(|word| !word.starts_with('-'))?;
                (!tasks().contains(task)).then(|| format!("Makefile.toml has no task {task}"))
            }
            "test" | "bench" | "build" | "run" | "miri" | "nextest" | "clippy" => words.windows(2).find_map(|pair| {
                let (name, known): (_, BTreeSet<String>) = match pair[0].as_str() {
                    "-p" | "--package" => (&pair[1], packages()),
                    _ => return None,
                };
                (!known.contains(name)).then(|| format!("there is no package {name}"))
            }),
            _ => None,
        }
    }

    /// Runs it, and returns why its command line was refused.
    fn tried(&self, name: &str, arguments: &[String]) -> Option<String> {
        let output = self.run(name, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let refused = output.status.code() == Some(2) && (stderr.contains("Usage:") || stderr.contains("'--help'"));
        let checks = || arguments.iter().any(|word| word == "--check");
        let anywhere = match arguments[0].as_str() {
            "policy" | "bundle" => true,
            "load" => checks(),
            _ => false,
        };
        // The FILE used here is a policy, which cannot be imported; and the keys of Bench::new are there.
        let tells = name == "sluice"
            && anywhere
            && arguments.get(1).is_none_or(|verb| !["import", "keygen"].contains(&verb.as_str()));
        let failed = tells && !output.status.success() && !missing(arguments, self.folder.path());
        (refused || failed).then(|| format!("{name} {}: {}: {stderr}", arguments.join(" "), output.status))
    }

    fn powershell(&self, words: &[String]) -> Option<String> {
        let file = words.iter().position(|word| word == "-File")? + 1;
        let script = words.get(file)?.replace('\\', "/");
        // From the repository's top, or in the current folder, as in the package.
        let name = Path::new(&script).file_name()?.to_str()?;
        let places = [script.clone(), format!("docs/{name}"), format!("tests/vm/{name}")];
        let place = places.iter().find(|place| root().join(place).is_file()).unwrap_or(&script);
        parameters(place, &words[file + 1..])
    }
}

/// Whether an argument names a missing file, so that a failure says nothing about the command line.
fn missing(arguments: &[String], folder: &Path) -> bool {
    let named = arguments.iter().filter(|word| word.contains('.') && !word.contains(':'));
    named.into_iter().any(|word| word.parse::<std::net::IpAddr>().is_err() && !folder.join(word).exists())
}

/// The first parameter among the words that the script does not have.
fn parameters(script: &str, words: &[String]) -> Option<String> {
    if !root().join(script).is_file() {
        return Some(format!("there is no {script}"));
    }
    let known = Script::read(&root().join(script)).script_parameters();
    let used = words.iter().filter_map(|word| word.strip_prefix('-'));
    used.map(str::to_lowercase)
        .find(|name| !known.contains(name))
        .map(|name| format!("{script} has no parameter -{name}"))
}
