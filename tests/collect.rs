//! The configurations in docs/collect: an existing agent runs with them, or at least they are what they say.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use yaml_rust2::YamlLoader;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn configuration(name: &str) -> String {
    fs::read_to_string(root().join("docs/collect").join(name)).unwrap()
}

/// Where `sluice service install` has the file, as docs/fleet.md says.
const FILE: &str = r"C:\Windows\System32\LogFiles\Sluicegate\decisions.jsonl";

#[test]
fn fluent_bits_is_yaml_and_reads_the_file_of_the_service() {
    let text = configuration("fluent-bit.yaml");
    let whole = &YamlLoader::load_from_str(&text).unwrap()[0];
    let input = &whole["pipeline"]["inputs"][0];
    assert_eq!((input["name"].as_str(), input["path"].as_str()), (Some("tail"), Some(FILE)));
    assert_eq!(input["parser"].as_str(), whole["parsers"][0]["name"].as_str());
    let outputs = whole["pipeline"]["outputs"].as_vec().unwrap();
    let names: Vec<_> = outputs.iter().filter_map(|output| output["name"].as_str()).collect();
    assert_eq!(names, ["opentelemetry", "syslog"]);
    assert!(outputs.iter().all(|output| output["match"] == input["tag"]));
    let documented = fs::read_to_string(root().join("docs/fleet.md")).unwrap();
    assert!(documented.contains(r"System32\LogFiles\Sluicegate") && documented.contains("decisions.jsonl"));
}

/// Debian's packages, unpacked and not installed.
fn rsyslog() -> Option<PathBuf> {
    let folder = root().join("target/rsyslog");
    let program = folder.join("usr/sbin/rsyslogd");
    if !program.exists() {
        fs::create_dir_all(&folder).unwrap();
        let packages = ["rsyslog", "libestr0", "libfastjson4"];
        let fetched = Command::new("apt-get").arg("download").args(packages).current_dir(&folder).output();
        if !fetched.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: apt has no rsyslog: {fetched:?}");
            return None;
        }
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let unpacked = Command::new("dpkg-deb").arg("-x").arg(&path).arg(&folder).status().unwrap();
                assert!(unpacked.success(), "{}", path.display());
            }
        }
    }
    Some(folder)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder of a package's libraries.
fn libraries(folder: &Path) -> PathBuf {
    folder.join("usr/lib/x86_64-linux-gnu")
}

#[test]
fn every_line_arrives_by_rsyslog_over_a_turn_of_the_file() {
    let Some(agent) = rsyslog() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = folder.path().join("decisions.jsonl");
    let replaced = [
        ("/var/log/sluicegate/decisions.jsonl", file.to_str().unwrap().to_owned()),
        ("target=\"syslog.example\"", "target=\"127.0.0.1\"".to_owned()),
        ("port=\"601\"", format!("port=\"{}\"", server.local_addr().unwrap().port())),
    ];
    let mut text = configuration("rsyslog.conf");
    for (from, to) in replaced {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, &to);
    }
    let conf = folder.path().join("rsyslog.conf");
    fs::write(&conf, format!("global(workDirectory=\"{}\")\n{text}", folder.path().display())).unwrap();

    let mut lines = sluice_files::Lines::new(&file, 1000, 3);
    let mut write = |from: u64, to: u64| {
        for number in from..to {
            let line = format!(r#"{{"type":"event","sequence":{number},"verdict":"block"}}"#);
            assert!(matches!(lines.add(&line, |_| String::new()), sluice_files::Written::Yes));
        }
    };
    write(0, 10);
    let mut daemon = Command::new(agent.join("usr/sbin/rsyslogd"));
    daemon.arg("-n").arg("-f").arg(&conf).arg("-i").arg(folder.path().join("pid"));
    daemon.arg("-M").arg(libraries(&agent).join("rsyslog")).env("LD_LIBRARY_PATH", libraries(&agent));
    let output = fs::File::create(folder.path().join("said")).unwrap();
    daemon.stdout(output.try_clone().unwrap()).stderr(output);
    let _daemon = Running(daemon.spawn().unwrap());

    // It connects, or has said why not.
    server.set_nonblocking(true).unwrap();
    let start = std::time::Instant::now();
    let stream = loop {
        match server.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if start.elapsed() < Duration::from_secs(30) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => panic!("{error}: {}", fs::read_to_string(folder.path().join("said")).unwrap()),
        }
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut arrived = BufReader::new(stream).lines();
    let mut next = |expected: u64| {
        let line = arrived.next().unwrap().unwrap_or_else(|error| {
            panic!("line {expected}: {error}: {}", fs::read_to_string(folder.path().join("said")).unwrap())
        });
        // Facility local4, severity info.
        let (header, message) = line.split_once(" sluicegate - - - ").unwrap_or_else(|| panic!("{line}"));
        assert!(header.starts_with("<166>1 "), "{line}");
        let value: serde_json::Value = serde_json::from_str(message).unwrap();
        assert_eq!(value["sequence"], expected, "{line}");
    };
    (0..10).for_each(&mut next);
    // The file is turned between these.
    write(10, 30);
    assert!(folder.path().join("decisions.1.jsonl").exists());
    (10..30).for_each(&mut next);
}
