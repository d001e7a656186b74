//! The pictures of README: what a terminal shows of a verb, as SVG. They are drawn anew here and compared with
//! docs/pictures; `cargo xtask pictures` has this test write them instead.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use anstyle_svg::{Term, WIN10_CONSOLE};
use regex::Regex;
use served::served;
use std::{env, fs, path::PathBuf, process::Command};
use support::driver;
use wire::Wire;

/// Set by `cargo xtask pictures`.
const WRITE: &str = "SLUICE_PICTURES";
/// How wide the terminal is.
const COLUMNS: usize = 120;

/// Compares a picture of what was shown with the one in docs/pictures, or writes it.
fn picture(name: &str, shown: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/pictures").join(format!("{name}.svg"));
    let drawn = Term::new().palette(WIN10_CONSOLE).min_width_px(880).render_svg(&wrapped(shown));
    if env::var_os(WRITE).is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &drawn).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == drawn, "{} is not what is shown now: `cargo xtask pictures`\n{shown}", file.display());
}

/// As a terminal of this width shows it, which begins a new line where one is full.
fn wrapped(shown: &str) -> String {
    let (mut text, mut column, mut characters) = (String::new(), 0, shown.chars());
    while let Some(character) = characters.next() {
        match character {
            '\n' => column = 0,
            // A style takes no room.
            '\u{1b}' => {
                text.push(character);
                text.extend(characters.by_ref().take_while(|next| *next != 'm'));
                text.push('m');
                continue;
            }
            _ if column == COLUMNS => {
                text.push('\n');
                column = 1;
            }
            _ => column += 1,
        }
        text.push(character);
    }
    text
}

/// A prompt with what is typed there.
fn typed(command: &str) -> String {
    format!("\u{1b}[1m> {command}\u{1b}[0m\n")
}

/// Times and numbers of processes are of no interest, and different each time.
fn settled(shown: &str) -> String {
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z").unwrap();
    let process = Regex::new(r"\(pid \d+\) *").unwrap();
    let mut second = 0;
    let shown = time.replace_all(shown, |_: &regex::Captures<'_>| {
        second += 1;
        format!("2026-03-02T09:14:{second:02}.250Z")
    });
    // A filter's id depends on how many layers were given filters before.
    let shown = Regex::new(r"filter \d+").unwrap().replace_all(&shown, "filter 65541").into_owned();
    // What follows stays in its column.
    process
        .replace_all(&shown, |found: &regex::Captures<'_>| format!("{:1$}", "(pid 4242)", found[0].len()))
        .into_owned()
}

const POLICY: &str = r#"
[default]
outbound = "permit"
inbound = "block"
log = true

[[rule]]
name = "quarantine"
action = "block"
log = true
remote = ["203.0.113.66", "2001:db8:1::66"]

[[rule]]
name = "web servers"
action = "permit"
log = true
remote = "203.0.113.0/24"
remote-port = [80, 443]

[[rule]]
name = "nothing else there"
action = "block"
log = true
remote = "203.0.113.0/24"
"#;

#[test]
fn events_as_readme_shows_them() {
    let served = served();
    served.run(0, &["install", driver().to_str().unwrap(), "--policy", &served.file("office.toml", POLICY)]);
    let mut wire = Wire::new(&served.machine);
    for (address, port) in [("203.0.113.10", 443), ("203.0.113.66", 443), ("203.0.113.10", 22), ("198.51.100.9", 853)] {
        wire.connect(address, port);
    }
    let text = served.run(0, &["events", "--color", "always"]);
    picture("events", &(typed("sluice events") + &settled(&text.out)));
    wire.finish();
    served.run(0, &["uninstall"]);
    served.is_clean();
}

/// `top` draws what its own tests hold fast, but for a name that these have made strange on purpose.
#[test]
fn top_as_readme_shows_it() {
    let kept = "src/top/snapshots/sluice__top__tests__a_picture_of_80_by_24_has_everything.snap";
    let kept = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(kept)).unwrap();
    let drawn = kept.splitn(3, "---\n").nth(2).unwrap();
    // Whole, and cut where its column ends.
    let drawn = [r"qua\u{1b}rantine", r"qua\u{1b}rantin"].iter().fold(drawn.to_owned(), |drawn, strange| {
        drawn.replace(strange, &format!("{:1$}", "quarantine", strange.len()))
    });
    picture("top", &(typed("sluice top") + &drawn));
}

#[test]
fn explain_as_readme_shows_it() {
    let command = "explain wfpstate.xml --udp 192.0.2.7:50000 198.51.100.53:53";
    let mut explain = Command::new(env!("CARGO_BIN_EXE_sluice"));
    explain.args(command.split(' ')).args(["--color", "always"]).env("COLUMNS", COLUMNS.to_string());
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let text = served::ended(explain.current_dir(folder).output().unwrap(), 0);
    picture("explain", &(typed(&format!("sluice {command}")) + &text.out));
}

/// The demonstration, as far as it is the same each time: how long a connection took is not.
#[test]
fn the_demo_as_readme_shows_it() {
    let programs = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let demo = programs.join("examples/demo");
    if !demo.is_file() || !programs.join("ntsim").is_file() {
        return eprintln!("SKIPPED: the demonstration is not built");
    }
    let output = Command::new(demo).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let text = served::ended(output, 0);
    let took = Regex::new(r" in \d+ ms").unwrap();
    let shown = took.replace_all(&text.out, "");
    let shown = Regex::new(r"(?m)^net events as .*\n").unwrap().replace(&shown, "").into_owned();
    picture("demo", &(typed("./dev demo") + &settled(&shown)));
}
