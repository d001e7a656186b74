//! The examples of docs/policy.md are policies.
#![cfg(feature = "std")]

use sluice_policy::{CompileOptions, Image, compile, lint, parse, test};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

#[test]
fn every_example_compiles_and_keeps_its_expectations() {
    let text = include_str!("../../../docs/policy.md");
    let lists: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::from([
        ("lists/bad-addresses.txt".into(), b"203.0.113.64/26\n".to_vec()),
        ("ads.txt".into(), b"0.0.0.0 ads.example track.ads.example\n".to_vec()),
    ]);
    let mut examples = 0;
    for block in text.split("```toml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let policy = parse(Path::new("policy.md"), block, &lists).unwrap_or_else(|errors| panic!("{errors}\n{block}"));
        let warnings: Vec<_> = policy.warnings.iter().cloned().chain(lint(&policy)).collect();
        assert!(warnings.is_empty(), "{warnings:?}\n{block}");
        let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [1; 16], at: None };
        Image::validate(compile(&policy, &options).unwrap()).unwrap();
        for tested in test(&policy, &options).unwrap() {
            assert_eq!(tested.failure, None, "{}\n{block}", tested.flow);
        }
        examples += 1;
    }
    assert!(examples >= 7);
}
