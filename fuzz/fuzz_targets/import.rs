//! Any bytes as another firewall's file are decoded or refused, imported or refused; what is imported is a valid
//! policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_policy::{
    import::{Source, import, import_complete},
    parse,
    text::{Encoding, decode},
};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

fuzz_target!(|bytes: &[u8]| {
    for encoding in [None, Some(Encoding::Utf16Be), Some(Encoding::Oem(850))] {
        let Ok(text) = decode(bytes, encoding) else { continue };
        let sources = [Source::Simplewall, Source::Netsh, Source::WindowsCsv, Source::WindowsJson, Source::LittleSnitch];
        Source::detect(&text);
        for source in sources {
            for imported in [import(source, &text), import_complete(source, &text)].into_iter().flatten() {
                let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
                if let Err(errors) = parse(Path::new("imported.toml"), &imported.toml, &files) {
                    panic!("{errors}\n{}", imported.toml);
                }
            }
        }
    }
});
