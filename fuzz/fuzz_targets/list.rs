//! Any bytes as a list, in every format, are read or diagnosed; what is read compiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_policy::{CompileOptions, Direction, Flow, Image, Name, Reference, compile, parse};
use std::{collections::BTreeMap, net::IpAddr, path::Path, path::PathBuf};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let formats = ["auto", "addresses", "names", "hosts", "adblock", "dnsmasq", "csv", "rpz"];
    let format = formats[usize::from(*choice) % formats.len()];
    let subdomains = match choice >> 6 {
        0 => "",
        1 => "subdomains = true\n",
        2 => "subdomains = false\n",
        _ => "strict = true\n",
    };
    let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::from([("list".into(), bytes.to_vec())]);
    for key in ["remote", "remote-name"] {
        let text = format!(
            "[list.all]\nfile = \"list\"\nformat = \"{format}\"\n{subdomains}[[rule]]\naction = \"block\"\n{key} = \"@all\"\n"
        );
        match parse(Path::new("policy.toml"), &text, &files) {
            Ok(policy) => {
                let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [7; 16], at: None };
                let bytes = compile(&policy, &options).expect("lists compile");
                let image = Image::validate(bytes).expect("what was compiled is valid");
                // The image and the language agree on exceptions.
                let reference = Reference::new(&policy, &options);
                for name in [&b"example.com"[..], b"a.example.com", b"ads.example", b"x.ads.example", b"com"] {
                    let addresses = [[192, 0, 2, 1], [198, 51, 100, 1]].map(IpAddr::from);
                    let flow = Flow::new(Direction::Outbound, 6, addresses[0], 50000, addresses[1], 443);
                    let flow = flow.with_name(Name::Known(name));
                    assert_eq!(image.decide(&flow), reference.decide(&flow), "{flow:?}");
                }
            }
            Err(errors) => assert!(!errors.render(true).is_empty()),
        }
    }
});
