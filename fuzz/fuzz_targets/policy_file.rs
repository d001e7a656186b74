//! Any text is parsed or refused with printable diagnostics; a parsed policy compiles to an image that decides as the
//! rules do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_policy::{CompileOptions, Direction, Flow, Image, Name, Reference, compile, lint, parse, test};
use std::{collections::BTreeMap, net::IpAddr, path::Path, path::PathBuf};

fuzz_target!(|text: &str| {
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::from([("list".into(), b"203.0.113.0/24\n".to_vec())]);
    let policy = match parse(Path::new("policy.toml"), text, &files) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.render(false).is_empty() && !errors.to_string().is_empty());
            return;
        }
    };
    lint(&policy);
    let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [7; 16], at: None };
    let Ok(bytes) = compile(&policy, &options) else { return };
    let image = Image::validate(bytes).expect("what was compiled is valid");
    test(&policy, &options).ok();
    let reference = Reference::new(&policy, &options);
    let addresses: [IpAddr; 4] =
        ["203.0.113.9", "10.0.0.5", "2001:db8::9", "::1"].map(|text| text.parse().expect("an address"));
    for (local, remote) in [(1, 0), (0, 1), (3, 2), (2, 3)] {
        for direction in [Direction::Listen, Direction::Bind] {
            for protocol in [6, 17, 1] {
                for chosen in [false, true] {
                    let flow = Flow::of_endpoint(direction, protocol, addresses[local], 443).with_port_chosen(chosen);
                    assert_eq!(image.decide(&flow), reference.decide(&flow), "{flow:?}");
                }
            }
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            for protocol in [6, 17, 1] {
                for name in [Name::Unknown, Name::Undecidable, Name::Known(b"www.example.com")] {
                    let flow = Flow::new(direction, protocol, addresses[local], 50000, addresses[remote], 443);
                    let flow = flow.with_name(name);
                    assert_eq!(image.decide(&flow), reference.decide(&flow), "{flow:?}");
                }
            }
        }
    }
});
