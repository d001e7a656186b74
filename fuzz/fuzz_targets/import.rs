//! Other firewalls' files of any text are imported or refused; what is imported is a policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_policy::{
    import::{Source, import},
    parse,
};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

fuzz_target!(|text: &str| {
    let sources = [Source::Simplewall, Source::Netsh, Source::WindowsCsv, Source::WindowsJson, Source::LittleSnitch];
    Source::detect(text);
    for source in sources {
        if let Ok(imported) = import(source, text) {
            let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
            if let Err(errors) = parse(Path::new("imported.toml"), &imported.toml, &files) {
                panic!("{errors}\n{}", imported.toml);
            }
        }
    }
});
