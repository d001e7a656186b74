//! What a linker makes of the parsers when it links them as for a driver: no path can panic, and on x86-64 no
//! instruction needs registers that a driver may not use.
//!
//! `cargo xtask check-image` asks the first of sluice.sys too, by the import that its panic handler needs.

use std::{fs, path::Path, process::Command};

/// What `reach/src/lib.rs` leaves in the file with its panic handler.
const MARK: &[u8] = b"the panic handler is reachable";

/// Builds `reach` with these features, and reads the library.
fn build(features: &str) -> Vec<u8> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("reach/Cargo.toml");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reach");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked", "--features", features, "--manifest-path"])
        .arg(package)
        .arg("--target-dir")
        .arg(&folder)
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(built.success(), "{built}");
    let name = format!("{}reach{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let file = fs::read(folder.join("release").join(name)).expect("the library was built");
    assert!(contains(&file, b"client_hello"), "the parsers are not in the library");
    file
}

fn contains(file: &[u8], what: &[u8]) -> bool {
    file.windows(what.len()).any(|bytes| bytes == what)
}

/// Holds the code against what a driver may use: no YMM or ZMM register, and no AVX form of another instruction, which
/// clears the upper half of one.
#[cfg(target_arch = "x86_64")]
fn check_registers(file: &[u8]) {
    use iced_x86::{Decoder, DecoderOptions, EncodingKind, Mnemonic};
    use object::{Object, ObjectSection, SectionKind};

    let library = object::File::parse(file).expect("it is a library");
    let mut used = std::collections::HashSet::new();
    for section in library.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code = section.data().expect("the section is there");
        for instruction in &mut Decoder::with_ip(64, code, section.address(), DecoderOptions::NONE) {
            let (at, kind) = (instruction.ip(), instruction.code().encoding());
            assert!(kind == EncodingKind::Legacy, "{:?} at {at:#x} is of {kind:?}", instruction.mnemonic());
            used.insert(instruction.mnemonic());
        }
    }
    // So the code was found, and has the instructions that make QUIC affordable.
    for wanted in [Mnemonic::Aesenc, Mnemonic::Pclmulqdq, Mnemonic::Sha256rnds2] {
        assert!(used.contains(&wanted), "no {wanted:?}");
    }
}

#[test]
fn no_parser_can_panic_or_use_what_a_driver_may_not() {
    assert!(contains(&build("planted"), MARK), "a function that can panic is not found");
    let file = build("");
    assert!(!contains(&file, MARK), "a parser can panic");
    #[cfg(target_arch = "x86_64")]
    check_registers(&file);
}
