//! Any bytes as a bundle, and with a signature that is right: they are refused, or every part of the bundle is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_bundle::{Bundle, MAX_FILES, MAX_NAME, put_right};

fuzz_target!(|input: &[u8]| {
    // Nobody can sign for a key that was not made.
    assert!(Bundle::read(input.to_vec()).is_err() || input.len() > 128);
    let mut bytes = input.to_vec();
    put_right(&mut bytes);
    let Ok(bundle) = Bundle::read(bytes) else { return };
    let files = bundle.files().len();
    assert!((1..=MAX_FILES).contains(&files));
    let mut length = bundle.image().len();
    for (name, content) in bundle.files() {
        assert!(!name.is_empty() && name.len() <= MAX_NAME);
        assert_eq!(bundle.file(name), Some(content), "names are there once");
        length += name.len() + content.len() + 8;
    }
    assert_eq!(length + 64 + 64, bundle.as_bytes().len(), "every byte belongs to something");
    assert_eq!(bundle.policy().1, bundle.files().next().expect("a policy").1);
});
