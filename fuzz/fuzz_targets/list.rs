//! Lists of any bytes, in every format, are read or complained of; what is read compiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_policy::{CompileOptions, Image, compile, parse};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let formats = ["auto", "addresses", "names", "hosts", "adblock", "dnsmasq", "csv"];
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
                Image::validate(bytes).expect("what was compiled is valid");
            }
            Err(errors) => assert!(!errors.render(true).is_empty()),
        }
    }
});
