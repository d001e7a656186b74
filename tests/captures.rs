//! Captures of real traffic through the real driver: flows of which tshark says that they ask for a name are ended when
//! a rule blocks that name.
//!
//! The captures, and the names that tshark found in them, are those of `crates/content/tests/captures`. Without the
//! archive in the folder that `SLUICE_DATA` names, or in `../shared/data` beside the project, there is nothing to test.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use ntsim::{
    replay::{self, Options},
    tcpip::verdicts::Verdicts,
};
use support::Rig;

const ARCHIVE: &str = "pcap-suricata-verify.tar.xz";
/// Of the captures with names of a protocol, each so many-th is replayed.
const SAMPLES: [(&str, usize); 4] = [("tls", 1), ("quic", 1), ("http1", 20), ("dns", 5)];

fn archive() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = env::var_os("SLUICE_DATA").map_or(beside, PathBuf::from);
    Some(folder.join(ARCHIVE)).filter(|archive| archive.is_file())
}

/// Capture, protocol, and the names that policies can have.
fn wanted() -> Vec<(String, &'static str, BTreeSet<String>)> {
    let mut found = BTreeMap::<(String, &str), BTreeSet<String>>::new();
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/content/tests/captures/names.txt"));
    for line in text.expect("the names").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let protocol = SAMPLES.iter().find(|(protocol, _)| *protocol == fields[1]);
        let usual =
            |name: &str| name.contains('.') && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'.');
        if let Some((protocol, _)) = protocol.filter(|_| usual(fields[2])) {
            found.entry((fields[0].to_owned(), protocol)).or_default().insert(fields[2].to_owned());
        }
    }
    let mut wanted = Vec::new();
    for (protocol, each) in SAMPLES {
        let of_it = found.iter().filter(|((_, one), _)| *one == protocol).step_by(each);
        wanted.extend(of_it.map(|((file, _), names)| (file.clone(), protocol, names.clone())));
    }
    wanted
}

/// How many flows and questions were ended for their names since.
fn ended(rig: &Rig) -> u64 {
    rig.counter("flows_blocked_by_name") + rig.counter("datagrams_blocked_by_name")
}

fn replayed(rig: &Rig, capture: &[u8]) -> u64 {
    let before = ended(rig);
    // Some captures are damaged on purpose: what comes before is replayed.
    let _ = replay::run(&rig.machine, capture, &Options::default(), &mut Verdicts::new(None));
    if let Some(bugcheck) = rig.machine.stopped() {
        panic!("{bugcheck}");
    }
    ended(rig) - before
}

#[test]
fn names_in_captures_are_blocked() {
    let Some(archive) = archive() else {
        eprintln!("skipped: no {ARCHIVE} in SLUICE_DATA");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("captures");
    fs::create_dir_all(&folder).unwrap();
    let unpacked = Command::new("tar").arg("xJf").arg(archive).arg("-C").arg(&folder).status().expect("tar runs");
    assert!(unpacked.success());
    let rig = Rig::install();
    let mut counts = BTreeMap::<&str, [usize; 2]>::new();
    for (file, protocol, names) in wanted() {
        let roots = ["", "suricata-verify/tests/", "suricata-verify/", "tests/"];
        let path = roots.iter().map(|root| folder.join(root).join(&file)).find(|path| path.is_file());
        let capture = fs::read(path.unwrap_or_else(|| panic!("there is no {file}"))).unwrap();
        let policy = |names: &BTreeSet<String>| {
            format!(
                "[default]\ninbound = \"permit\"\n[[rule]]\naction = \"block\"\nremote-name = {:?}\n",
                names.iter().collect::<Vec<_>>()
            )
        };
        rig.load(&policy(&names));
        let blocked = replayed(&rig, &capture);
        let [all, of_them] = counts.entry(protocol).or_default();
        *all += 1;
        *of_them += usize::from(blocked > 0);
        if blocked > 0 && *of_them % 8 == 1 {
            rig.load(&policy(&BTreeSet::from(["no.such.example".to_owned()])));
            assert_eq!(replayed(&rig, &capture), 0, "{file}: nobody asks for that");
        } else if blocked == 0 {
            eprintln!("{file}: {protocol} {names:?}: no flow was ended");
        }
    }
    // Not all: what was captured without its beginning has no name that can be read.
    eprintln!("{counts:?}");
    for (protocol, [all, blocked]) in counts {
        assert!(blocked * 10 >= all * 8, "{protocol}: {blocked} of {all}");
    }
    rig.uninstall();
}
