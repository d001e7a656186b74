//! The shipped drivers pass the check, and each defect put into one is found by name.
//!
//! Needs target/sluice, which `./dev test` and `./dev build` make.

use std::{fs, path::Path};

use sluice_protocol::OLDEST_WINDOWS_BUILD;
use xtask::image::{
    Defect, check,
    identity::{IdentityError, settle},
};

fn driver(architecture: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sluice").join(architecture).join("sluice.sys");
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; run `./dev build` first", file.display()))
}

/// Offset of the PE header.
fn header(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[0x3c..0x40].try_into().unwrap()) as usize
}

fn replace_once(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let at: Vec<_> = bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(at, _)| at).collect();
    assert_eq!(at.len(), 1, "{:?}", String::from_utf8_lossy(from));
    bytes[at[0]..at[0] + to.len()].copy_from_slice(to);
}

/// The defects of the x86_64 driver after `change`, without the checksum, which every change breaks.
fn after(change: impl FnOnce(&mut Vec<u8>)) -> Vec<Defect> {
    let mut bytes = driver("x86_64");
    change(&mut bytes);
    let mut defects = check(&bytes).unwrap_err();
    let before = defects.len();
    defects.retain(|defect| !matches!(defect, Defect::Checksum { .. }));
    assert_eq!(defects.len(), before - 1, "a changed image has a wrong checksum");
    defects
}

#[test]
fn shipped_drivers_pass() {
    for architecture in ["x86_64", "aarch64"] {
        let summary = check(&driver(architecture)).unwrap();
        assert_eq!(summary.machine, architecture);
        assert!(summary.imports["fwpkclnt.sys"].iter().any(|name| name == "FwpsCalloutRegister3"), "{summary:?}");
        assert_eq!(summary.oldest_build, OLDEST_WINDOWS_BUILD, "the imports determine it, here ExAllocatePool2");
        assert_eq!(summary.imports["WDFLDR.SYS"], ["WdfVersionBind", "WdfVersionUnbind"]);
    }
}

/// A static that does not start as zeros is written out whole: one such word made 125 KiB ten times as much.
#[test]
fn statics_take_no_room_in_the_file() {
    for architecture in ["x86_64", "aarch64"] {
        let length = driver(architecture).len();
        assert!(length < 320 << 10, "{architecture}: {length} bytes");
    }
}

#[test]
fn one_changed_byte_breaks_the_checksum() {
    let defects = after(|bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(defects, []);
}

#[test]
fn an_import_from_elsewhere_is_named_with_its_module() {
    let defects = after(|bytes| replace_once(bytes, b"WDFLDR.SYS\0", b"KERNEL.DLL\0"));
    let foreign = |symbol: &str| Defect::Module { module: "KERNEL.DLL".into(), symbol: symbol.into() };
    assert_eq!(defects, [foreign("WdfVersionBind"), foreign("WdfVersionUnbind")]);
}

#[test]
fn an_import_of_unknown_age_or_too_new_is_named() {
    let defects = after(|bytes| replace_once(bytes, b"KeReleaseSpinLock\0", b"KeReleaseSpinLoc2\0"));
    assert_eq!(defects, [Defect::UnknownExport { module: "ntoskrnl.exe".into(), symbol: "KeReleaseSpinLoc2".into() }]);
    let defects = after(|bytes| replace_once(bytes, b"ExAllocatePool2\0", b"NtCopyFileChunk\0"));
    let (module, symbol) = ("ntoskrnl.exe".into(), "NtCopyFileChunk".into());
    assert_eq!(defects, [Defect::TooNew { module, symbol, build: 22621 }]);
}

#[test]
fn writable_code_is_named() {
    let defects = after(|bytes| {
        let name = bytes.windows(8).position(|window| window == b".text\0\0\0").unwrap();
        bytes[name + 39] |= 0x80; // IMAGE_SCN_MEM_WRITE in the section's characteristics
    });
    assert_eq!(defects, [Defect::WritableCode(".text".into())]);
}

#[test]
fn header_defects_are_named() {
    let optional = |bytes: &[u8]| header(bytes) + 24;
    assert_eq!(
        after(|b| {
            let at = optional(b);
            b[at + 68] = 3
        }),
        [Defect::Subsystem(3)]
    );
    assert_eq!(
        after(|b| {
            let at = optional(b);
            b[at + 16..at + 20].fill(0)
        }),
        [Defect::NoEntryPoint]
    );
    assert_eq!(
        after(|b| {
            let at = header(b);
            b[at + 4..at + 6].copy_from_slice(&[0x4c, 0x01])
        })[0],
        Defect::Machine(0x14c)
    );
    for (flag, name) in [(0x40, "DYNAMIC_BASE"), (0x80, "FORCE_INTEGRITY")] {
        let defects = after(|b| {
            let at = optional(b);
            b[at + 70] &= !flag
        });
        assert!(matches!(defects[..], [Defect::Characteristic(text)] if text.contains(name)), "{defects:?}");
    }
}

#[test]
fn an_image_that_bears_no_mark_for_shadow_stacks_is_named() {
    // The type of the entry, after its characteristics, time and version.
    let defects = after(|bytes| {
        let entry = bytes.windows(8).position(|window| window == [20, 0, 0, 0, 4, 0, 0, 0]).unwrap();
        bytes[entry] = 21;
    });
    assert!(matches!(defects[..], [Defect::Characteristic(text)] if text.contains("CETCOMPAT")), "{defects:?}");
}

#[test]
fn images_that_differ_in_time_and_symbol_file_only_become_the_same() {
    let symbols =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sluice/x86_64/sluice.pdb")).unwrap();
    let image = driver("x86_64");
    let record = image.windows(4).position(|window| window == b"RSDS").unwrap();
    let guid: [u8; 16] = image[record + 4..record + 20].try_into().unwrap();
    let in_symbols = symbols.windows(16).position(|window| window == guid).unwrap();

    let (mut other, mut other_symbols) = (image.clone(), symbols.clone());
    let time = header(&other) + 8;
    other[time..time + 4].fill(7);
    other[record + 4..record + 20].fill(8);
    other_symbols[in_symbols..in_symbols + 16].fill(8);
    settle(&mut other, &mut other_symbols).unwrap();
    assert!(other == image && other_symbols == symbols, "the build gives them the same identity");

    let mut changed = image.clone();
    changed[0x1000] ^= 1;
    settle(&mut changed, &mut other_symbols).unwrap();
    assert_ne!(changed[time..time + 4], image[time..time + 4], "other code has another identity");
    assert_eq!(settle(&mut image.clone(), &mut [0; 64]), Err(IdentityError::OtherSymbols(0)));
}

#[test]
fn missing_tables_are_named() {
    // The data directories start 112 bytes into the optional header, eight bytes each.
    let clear = |number: usize| {
        move |bytes: &mut Vec<u8>| {
            let at = header(bytes) + 24 + 112 + number * 8;
            bytes[at..at + 8].fill(0);
        }
    };
    assert_eq!(after(clear(5)), [Defect::NoRelocations]);
    assert_eq!(after(clear(2)), [Defect::NoVersion]);
    assert_eq!(after(clear(1)), [Defect::NoImports]);
}
