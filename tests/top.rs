//! `sluice top`: what it prints for scripts, and that it leaves a terminal as it was.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
    thread,
    time::Duration,
};

use rustix::{
    pty,
    termios::{self, LocalModes, Winsize},
};
use served::{Running, eventually, served};
use wire::Wire;

const POLICY: &str = "[default]\noutbound = \"permit\"\n[[rule]]\nname = \"quarantine\"\naction = \"block\"\nremote = \"203.0.113.66\"\n";

#[test]
fn scripts_get_one_object_or_one_picture() {
    let served = served();
    assert!(served.run(3, &["top", "--once"]).error.contains("not installed"));
    served.install();
    served.run(0, &["load", &served.file("policy.toml", POLICY)]);
    assert!(served.run(2, &["top"]).error.contains("--once prints one picture"), "no terminal");

    let mut command = served.command(&["top", "--once", "--json", "--interval", "3"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // It counts what is decided while it looks.
    let machine = served.machine.clone();
    while child.try_wait().unwrap().is_none() {
        let mut wire = Wire::new(&machine);
        wire.connect("203.0.113.66", 443);
        wire.finish();
        thread::sleep(Duration::from_millis(100));
    }
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rule = &report["rules"][0];
    assert_eq!((&report["format"], &rule["name"]), (&1.into(), &"quarantine".into()), "{report:#}");
    assert!(rule["blocked"].as_u64() > Some(0) && report["rates"]["blocked"].as_f64() > Some(0.0), "{report:#}");
    assert_eq!(report["blocked"][0]["remote"], "203.0.113.66:443");

    let picture = served.run(0, &["top", "--once", "--interval", "0.1"]).out;
    assert_eq!(picture.lines().count(), 24);
    assert!(picture.starts_with("sluice top  1 rules, generation 1"), "{picture}");
    served.run(0, &["uninstall"]);
}

/// Both ends of a pseudo-terminal of 100 columns and 30 lines.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&master).unwrap();
    pty::unlockpt(&master).unwrap();
    let name = pty::ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(
        name.as_c_str(),
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    termios::tcsetwinsize(&slave, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (master, slave)
}

#[test]
fn q_and_ctrl_c_leave_the_terminal_as_it_was() {
    let served = served();
    served.install();
    served.run(0, &["load", &served.file("policy.toml", POLICY)]);
    for key in [&b"q"[..], b"\x03"] {
        let (master, slave) = terminal();
        let before = termios::tcgetattr(&slave).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = served.command(&["top", "--interval", "0.2"]);
        let child = command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut child = Running(child);
        eventually("raw mode", || !termios::tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ICANON));
        let mut master = std::fs::File::from(master);
        let mut reader = master.try_clone().unwrap();
        let drawn = thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                all.extend_from_slice(&buffer[..count]);
                // It leaves the alternate screen last.
                if all.windows(8).any(|window| window == b"\x1b[?1049l") {
                    break;
                }
            }
            String::from_utf8_lossy(&all).into_owned()
        });
        thread::sleep(Duration::from_millis(500));
        master.write_all(key).unwrap();
        let drawn = drawn.join().unwrap();
        assert!(drawn.contains("\x1b[?1049h") && drawn.contains("Talkers"), "{drawn:?}");
        assert!(child.0.wait().unwrap().success());
        let after = termios::tcgetattr(&slave).unwrap();
        assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
    }
    served.run(0, &["uninstall"]);
}
