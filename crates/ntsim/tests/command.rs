//! The `ntsim` command from outside: exit codes, messages, output.

use sluice_protocol::object::CALLOUTS;
use std::path::PathBuf;
use std::process::{Command, Output};

fn ntsim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ntsim")).args(args).output().expect("ntsim runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The built driver and a policy for it; prints why when it is not built.
fn driver() -> Option<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let driver = root.join("target/sluice/x86_64/sluice.sys");
    if !driver.exists() {
        eprintln!("skipped: {} is not built", driver.display());
        return None;
    }
    let policy = root.join("examples/demo/policy.toml");
    Some((driver.to_string_lossy().into_owned(), policy.to_string_lossy().into_owned()))
}

/// Runs `ntsim net` with the built driver; `None`, with a message, when this system does not allow it.
fn net(more: &[&str]) -> Option<Output> {
    let (driver, policy) = driver()?;
    let mut args = vec!["net", "--driver", &driver, "--policy", &policy];
    args.extend_from_slice(more);
    let output = ntsim(&args);
    let message = stderr(&output);
    if message.contains("network namespaces") || message.contains("TUN device") {
        eprintln!("skipped: {message}");
        return None;
    }
    Some(output)
}

/// A capture of one connection attempt, to an address the demo's policy blocks.
fn capture() -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([192, 168, 1, 5], [203, 0, 113, 66], 64)
        .tcp(40000, 80, 1, 1000)
        .syn()
        .write(&mut packet, &[])
        .expect("a packet");
    pcap(&[&packet])
}

/// A pcap file of bare IP packets (LINKTYPE_RAW, 101).
fn pcap(packets: &[&[u8]]) -> Vec<u8> {
    let word = |value: u32| value.to_le_bytes();
    let mut file = [word(0xa1b2_c3d4), word(0x0004_0002), word(0), word(0), word(0x0004_0000), word(101)].concat();
    for packet in packets {
        let len = packet.len() as u32;
        file.extend([word(1_700_000_000), word(0), word(len), word(len)].concat());
        file.extend_from_slice(packet);
    }
    file
}

#[test]
fn wrong_arguments_are_2() {
    for args in [&["net", "--driver", "x.sys"][..], &["nonsense"], &["replay", "--local", "somewhere", "x", "y"]] {
        assert_eq!(ntsim(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let output = ntsim(&["replay", "--driver", "/nowhere/x.sys", "/nowhere/x.pcap"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("/nowhere/x.pcap"), "{}", stderr(&output));
    let output = ntsim(&["replay", "--driver", "/nowhere/x.sys", "/proc/version"]);
    assert!(stderr(&output).contains("/nowhere/x.sys"), "{}", stderr(&output));
}

#[test]
fn a_file_that_is_no_driver_and_one_that_is_no_capture() {
    let output = ntsim(&["replay", "--driver", "/proc/version", "/proc/version"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("PE"), "{}", stderr(&output));
    let Some((driver, policy)) = driver() else { return };
    let output = ntsim(&["replay", "--driver", &driver, "--policy", &policy, "/proc/version"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("neither a pcap nor a pcapng"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_capture_of_which_nothing_can_be_read_ends_with_a_status_and_a_word() {
    let Some((driver, policy)) = driver() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.pcap");
    let replay = |packets: &[&[u8]]| {
        std::fs::write(&file, pcap(packets)).expect("the capture is written");
        ntsim(&[
            "replay",
            "--driver",
            &driver,
            "--policy",
            &policy,
            "--local",
            "10.0.0.5",
            file.to_str().expect("UTF-8"),
        ])
    };
    let mut good = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 0, 0, 5], [192, 0, 2, 1], 64)
        .udp(5000, 53)
        .write(&mut good, b"x")
        .expect("memory");
    let mut elsewhere = good.clone();
    elsewhere[12] = 11; // the source: nobody's
    for (packets, word) in [
        (&[][..], "no packet to replay was found"),
        (&[&elsewhere[..]][..], "no packet to replay was found"),
        (&[&good[..10], &[0x60; 20]][..], "none of its packets could be read"),
    ] {
        let output = replay(packets);
        assert_eq!(output.status.code(), Some(125), "{word}: {}", stderr(&output));
        assert!(stderr(&output).contains(word), "{word}: {}", stderr(&output));
    }
    // One that can be read is enough.
    let output = replay(&[&good[..10], &good]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn replay_prints_a_table_or_json_and_writes_net_events() {
    let Some((driver, policy)) = driver() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("one.pcap");
    std::fs::write(&file, capture()).expect("written");
    let file = file.to_str().expect("UTF-8");
    let events = folder.path().join("events.xml");
    let events = events.to_str().expect("UTF-8");
    let output = ntsim(&["replay", "--driver", &driver, "--policy", &policy, "--netevents", events, file]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("refuse") && table.contains("203.0.113.66:80"), "{table}");
    let xml = std::fs::read_to_string(events).expect("the events");
    for part in ["<netEvents>", "CLASSIFY_DROP", "<layerId>48</layerId>", "203.0.113.66", "2023-11-14T22:13:20"] {
        assert!(xml.contains(part), "{part}: {xml}");
    }

    let output = ntsim(&["replay", "--driver", &driver, "--policy", &policy, "--json", file]);
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(line["verdict"], "refuse");
    assert_eq!(line["layer"], "ALE_AUTH_CONNECT_V4");
}

/// Runs `ntsim trace` with these options on the capture.
fn trace(options: &[&str]) -> Option<Output> {
    let (driver, policy) = driver()?;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("one.pcap");
    std::fs::write(&file, capture()).expect("written");
    let replay = ["replay", "--driver", &driver, "--policy", &policy, file.to_str().expect("UTF-8")];
    let output = ntsim(&[&["trace"], options, &replay].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    Some(output)
}

#[test]
fn a_trace_shows_what_a_callout_was_asked_and_what_it_answered() {
    let Some(output) = trace(&[]) else { return };
    let text = stderr(&output);
    let classify =
        text.lines().find(|line| line.contains("classifyFn(layer=ALE_AUTH_CONNECT")).expect("a classify call");
    for part in [
        "-> classifyFn(layer=ALE_AUTH_CONNECT_V4, filterId=65537, flowContext=0x0, rights=WRITE, ",
        "IP_REMOTE_ADDRESS=203.0.113.66, IP_REMOTE_PORT=80",
        " at Sluice.sys+0x",
    ] {
        assert!(classify.contains(part), "{part}: {classify}");
    }
    let answer = text.lines().find(|line| line.contains("BLOCK, right cleared")).expect("its answer");
    assert!(answer.contains("classifyFn"), "{answer}");
    let registered = text.matches("fwpkclnt.sys!FwpsCalloutRegister3(").count();
    let succeeded = text.matches(" = STATUS_SUCCESS (0x00000000), *calloutId=").count();
    assert_eq!((registered, succeeded), (CALLOUTS.len(), CALLOUTS.len()));
    for event in
        ["-> DriverEntry(", "-> EvtIoDeviceControl(", "-> notifyFn(notifyType=ADD_FILTER", "-> EvtDriverUnload("]
    {
        assert!(text.contains(event), "{event}");
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("refuse"), "the replay's output is unchanged");
}

#[test]
fn a_trace_can_be_narrowed_and_written_as_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace.jsonl");
    let file = file.to_str().expect("UTF-8");
    let Some(_) = trace(&["--only", "fwpkclnt.sys!*", "--only", "classifyfn", "--json", "-o", file]) else { return };
    let text = std::fs::read_to_string(file).expect("the trace");
    let mut depth = 0i64;
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(line["module"] == "fwpkclnt.sys" || line["function"] == "classifyFn", "{line}");
        depth += if line["event"] == "return" { -1 } else { 1 };
        assert!(depth >= 0, "{line}");
    }
    assert_eq!(depth, 0);
    assert!(text.contains("FwpsCalloutUnregisterById0") && text.contains("classifyFn"), "{text}");
}

#[test]
fn a_replay_decides_alike_on_every_version_of_windows() {
    let Some((driver, policy)) = driver() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("one.pcap");
    std::fs::write(&file, capture()).expect("written");
    let file = file.to_str().expect("UTF-8");
    for version in ["7", "8.1", "22h2", "24h2"] {
        let args = ["replay", "--driver", &driver, "--policy", &policy, "--windows", version, "--json", file];
        let output = ntsim(&args);
        assert_eq!(output.status.code(), Some(0), "{version}: {}", stderr(&output));
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!((&line["verdict"], &line["layer"]), (&"refuse".into(), &"ALE_AUTH_CONNECT_V4".into()), "{version}");
    }
}

#[test]
fn net_ends_as_its_command_does() {
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        (&["/nowhere/command"], 127),
        (&["/proc/version"], 126),
    ] {
        let mut args = vec!["--"];
        args.extend_from_slice(command);
        let Some(output) = net(&args) else { return };
        assert_eq!(output.status.code(), Some(code), "{command:?}: {}", stderr(&output));
    }
}

#[test]
fn the_command_finds_the_machines_socket() {
    let Some(output) = net(&["--", "sh", "-c", "test -S \"$NTSIM_SOCKET\" && echo \"$NTSIM_SOCKET\""]) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let socket = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(!std::path::Path::new(&socket).exists(), "{socket} is left behind");
}

#[test]
fn a_server_that_ends_is_an_error() {
    let Some(output) = net(&["--server", "exit 3", "--", "true"]) else { return };
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("`exit 3` ended at once (exit status: 3)"), "{}", stderr(&output));
}

#[test]
fn verdicts_name_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("verdicts.jsonl");
    // bash opens the connection itself; 203.0.113.66 is blocked by the demo's policy.
    let script = "exec 3<>/dev/tcp/203.0.113.66/80";
    let Some(output) = net(&["--summary", "--verdicts", record.to_str().expect("UTF-8"), "--", "bash", "-c", script])
    else {
        return;
    };
    assert_eq!(output.status.code(), Some(1), "bash could not connect");
    assert!(stderr(&output).contains("refused"), "{}", stderr(&output));
    let text = std::fs::read_to_string(record).expect("the verdicts");
    let line: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&line["verdict"], &line["remotePort"]), (&"refuse".into(), &80.into()));
    let app = line["appId"].as_str().expect("an application");
    assert!(app.starts_with(r"\device\harddiskvolume1\") && app.ends_with("bash"), "{app}");
}

#[test]
fn what_is_read_is_not_written_over_and_what_is_no_file_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (capture_path, driver) = (folder.path().join("capture"), folder.path().join("driver.sys"));
    std::fs::write(&capture_path, capture()).expect("a capture");
    std::fs::write(&driver, "no driver").expect("a file");
    let (capture_name, driver_name) = (capture_path.to_str().expect("text"), driver.to_str().expect("text"));
    for (verb, output) in [("--netevents", capture_name), ("--netevents", driver_name)] {
        let result = ntsim(&["replay", "--driver", driver_name, verb, output, capture_name]);
        assert!(stderr(&result).contains("would be lost"), "{}", stderr(&result));
    }
    let result = ntsim(&["trace", "-o", driver_name, "load", driver_name]);
    assert!(stderr(&result).contains("would be lost"), "{}", stderr(&result));
    assert_eq!(std::fs::read(&capture_path).expect("it is there"), capture());
    assert_eq!(std::fs::read(&driver).expect("it is there"), b"no driver");
    for path in ["/dev/zero", "/"] {
        let result = ntsim(&["load", path]);
        assert!(String::from_utf8_lossy(&result.stdout).contains("not a regular file"), "{path}: {result:?}");
        let result = ntsim(&["replay", "--driver", driver_name, path]);
        assert!(stderr(&result).contains("not a regular file"), "{path}: {}", stderr(&result));
    }
}
