//! `ntsim filters`, `ntsim state` and `--windows`: the objects of the Filtering Platform with the real driver
//! installed.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use quick_xml::Reader;
use quick_xml::events::Event;
use std::path::PathBuf;
use std::process::Command;

/// The built driver and the demo's policy; prints why when it is not built.
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

/// Runs `ntsim VERB` with the driver installed.
fn show(verb: &str, more: &[&str]) -> Option<String> {
    let (driver, policy) = driver()?;
    let output = Command::new(env!("CARGO_BIN_EXE_ntsim"))
        .args([verb, "--driver", &driver, "--policy", &policy])
        .args(more)
        .output()
        .expect("ntsim runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Names of the elements at `depth`, with how many follow one another; fails unless the document is well formed.
fn outline(document: &str, depth: usize) -> Vec<(String, usize)> {
    let mut reader = Reader::from_str(document.strip_prefix('\u{FEFF}').expect("a byte order mark"));
    let (mut open, mut names) = (Vec::new(), Vec::<(String, usize)>::new());
    loop {
        let (name, opens) = match reader.read_event().expect("well formed") {
            Event::Start(start) => (String::from_utf8_lossy(start.name().as_ref()).into_owned(), true),
            Event::Empty(empty) => (String::from_utf8_lossy(empty.name().as_ref()).into_owned(), false),
            Event::End(end) => {
                assert_eq!(open.pop().as_deref(), Some(&*String::from_utf8_lossy(end.name().as_ref())));
                continue;
            }
            Event::Eof => break,
            _ => continue,
        };
        if open.len() == depth {
            match names.last_mut() {
                Some((last, count)) if *last == name => *count += 1,
                _ => names.push((name.clone(), 1)),
            }
        }
        if opens {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    names
}

/// The `item` of a layer in `wfpstate.xml`.
fn layer<'a>(state: &'a str, name: &str) -> &'a str {
    let key = format!("<layerKey>FWPM_LAYER_{name}</layerKey>");
    // The first mention is the layer's own; its filters name it after it.
    let at = state.find(&key).unwrap_or_else(|| panic!("no layer {name}"));
    let start = state[..at].rfind("\t\t<item>").expect("an item around it");
    let end = state[at..].find("\n\t\t</item>").expect("its end") + at;
    &state[start..end]
}

fn fields(state: &str, name: &str) -> usize {
    layer(state, name).matches("<dataType>").count()
}

fn layer_id(state: &str, name: &str) -> u16 {
    let (_, rest) = layer(state, name).split_once("<layerId>").expect("an id");
    rest.split_once('<').expect("a closing tag").0.parse().expect("a number")
}

#[test]
fn filters_are_written_as_netsh_writes_them() {
    let Some(xml) = show("filters", &["--xml"]) else { return };
    assert_eq!(outline(&xml, 0), [("wfpdiag".to_owned(), 1)]);
    assert_eq!(outline(&xml, 1), [("filters".to_owned(), 1), ("providers".to_owned(), 1)]);
    let first = &xml[xml.find("\t\t<item>").expect("a filter")..xml.find("\n\t\t</item>").expect("its end")];
    insta::assert_snapshot!(first);
    let (each, one) = (xml.matches("<filterKey>").count(), xml.matches("<effectiveWeight>").count());
    assert!(each > 10 && each == one, "{each} filters, {one} weights");
}

#[test]
fn the_state_is_written_as_netsh_writes_it() {
    let Some(xml) = show("state", &["--xml"]) else { return };
    // Two elements at the top, as in the real file.
    assert_eq!(outline(&xml, 0), [("wfpstate".to_owned(), 1), ("firewallState".to_owned(), 1)]);
    let parts: Vec<String> = outline(&xml, 1).into_iter().map(|(name, _)| name).collect();
    insta::assert_snapshot!(parts.join("\n"));
    insta::assert_snapshot!(layer(&xml, "ALE_AUTH_CONNECT_V4"));
    assert!(layer(&xml, "ALE_AUTH_CONNECT_V4").contains("FWPM_CALLOUT_FLAG_REGISTERED"));
}

#[test]
fn without_xml_both_are_tables() {
    let Some(filters) = show("filters", &[]) else { return };
    insta::assert_snapshot!(filters);
    insta::assert_snapshot!(show("state", &[]).expect("as before"));
}

#[test]
fn each_version_has_its_layers_ids_and_fields() {
    // Field counts: FWPS_FIELD_*_MAX in the headers of each version; ids above 81: FWPS_BUILTIN_LAYERS of the headers
    // of Windows 7 and 8.1, and live machines for the later two.
    for (version, connect, established, stream, rpc_um) in
        [("7", 32, 16, 7, 78), ("8.1", 34, 18, 7, 88), ("22h2", 37, 20, 8, 93), ("24h2", 42, 25, 8, 93)]
    {
        let Some(xml) = show("state", &["--xml", "--windows", version]) else { return };
        assert_eq!(fields(&xml, "ALE_AUTH_CONNECT_V4"), connect, "{version}");
        assert_eq!(fields(&xml, "ALE_FLOW_ESTABLISHED_V6"), established, "{version}");
        assert_eq!(fields(&xml, "STREAM_V4"), stream, "{version}");
        assert_eq!(layer_id(&xml, "ALE_AUTH_CONNECT_V4"), 48, "{version}");
        assert_eq!(layer_id(&xml, "RPC_UM"), rpc_um, "{version}");
    }
}

#[test]
fn another_version_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_ntsim"))
        .args(["state", "--driver", "x.sys", "--windows", "95"])
        .output()
        .expect("ntsim runs");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("unknown version of Windows `95`: expected 7, 8.1, 22h2"), "{message}");
}
