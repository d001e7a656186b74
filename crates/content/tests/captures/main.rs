//! Captures of real and of broken traffic: the names found in them are those that another program found.
//!
//! `names.txt` was made with tshark 4.0.17: for every stream of a capture the first `tls.handshake.extensions_server_name`,
//! `http.host`, `http2.headers.authority` or question of a query (`dns.qry.name` where `dns.flags.response` is 0), folded to
//! lower case, without port and final dot. Where this crate gives no name on purpose, or gives one that tshark
//! does not have, a line of `differences.txt` says why.
//!
//! The captures are those of `pcap-suricata-verify.tar.xz` in the folder that `SLUICE_DATA` names, or in
//! `../shared/data` beside the project. Without it there is nothing to test.

mod packets;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use packets::Flows;
use sluice_content::{
    flow::{Datagrams, Decided, Protocol, Stream},
    quic::Window,
};

const ARCHIVE: &str = "pcap-suricata-verify.tar.xz";

/// A protocol's name and a host's.
type Found = BTreeSet<(String, String)>;

fn archive() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = env::var_os("SLUICE_DATA").map_or(beside, PathBuf::from);
    Some(folder.join(ARCHIVE)).filter(|archive| archive.is_file())
}

fn captures(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            captures(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng") {
            found.push(path);
        }
    }
}

fn label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tls => "tls",
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
        Protocol::Dns => "dns",
        Protocol::Quic => "quic",
    }
}

fn note(found: &mut Found, decided: Decided<'_>) {
    if let Decided::Name(protocol, name, _) = decided {
        found.insert((label(protocol).into(), String::from_utf8_lossy(name).into_owned()));
    }
}

/// The names of all flows of a capture, the bytes of streams in pieces of `size`.
fn names(flows: &Flows, size: usize) -> Found {
    let mut found = Found::new();
    for bytes in &flows.streams {
        let mut stream = Stream::new();
        for piece in bytes.chunks(size) {
            stream.push(piece);
        }
        note(&mut found, stream.decided());
    }
    for datagrams in &flows.datagrams {
        let (mut flow, mut window) = (Datagrams::new(), Window::new());
        for datagram in datagrams {
            flow.push(datagram, &mut window);
        }
        note(&mut found, flow.decided());
    }
    found
}

/// Lines `capture TAB protocol TAB name`, and in `differences.txt` a sign before and a reason behind.
fn table(text: &str) -> BTreeMap<String, Found> {
    let mut table = BTreeMap::<String, Found>::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        table.entry(fields[0].into()).or_default().insert((fields[1].into(), fields[2].into()));
    }
    table
}

/// What tshark found, with the differences that are meant.
fn expected() -> BTreeMap<String, Found> {
    let mut expected = table(include_str!("names.txt"));
    for line in include_str!("differences.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let found = expected.entry(fields[1].into()).or_default();
        let name = (fields[2].into(), fields[3].into());
        let changed = if fields[0] == "-" { found.remove(&name) } else { found.insert(name) };
        assert!(changed && fields.len() == 5, "not a difference: {line}");
    }
    expected.retain(|_, found| !found.is_empty());
    expected
}

#[test]
fn names_are_those_of_another_program() {
    let Some(archive) = archive() else {
        writeln!(std::io::stderr(), "skipped: no {ARCHIVE} in SLUICE_DATA").unwrap();
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("captures");
    fs::create_dir_all(&folder).unwrap();
    let unpacked = Command::new("tar").arg("xJf").arg(archive).arg("-C").arg(&folder).status().expect("tar runs");
    assert!(unpacked.success());
    let mut files = Vec::new();
    captures(&folder, &mut files);
    assert!(files.len() > 900, "{}", files.len());

    let mut expected = expected();
    let mut faults = Vec::new();
    for file in files {
        let name = file.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
        let name = name.trim_start_matches("suricata-verify/").trim_start_matches("tests/").to_owned();
        let flows = packets::read(&fs::read(&file).unwrap());
        let found = names(&flows, usize::MAX);
        assert_eq!(found, names(&flows, 1), "{name}: cut and whole differ");
        let expected = expected.remove(&name).unwrap_or_default();
        for (sign, differing) in [("-", expected.difference(&found)), ("+", found.difference(&expected))] {
            faults.extend(differing.map(|(protocol, host)| format!("{sign}\t{name}\t{protocol}\t{host}")));
        }
    }
    faults.extend(expected.keys().map(|name| format!("there is no {name}")));
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}
