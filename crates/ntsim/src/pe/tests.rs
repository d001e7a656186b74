use super::sample::{CODE, DATA, PREFERRED, Part, Sample, code};
use super::*;
use crate::cpu;
use crate::machine::Machine;
use nt_abi::Irql;

fn parse(sample: &Sample) -> Result<Image, LoadError> {
    Image::parse(&sample.write(), false)
}

fn refusal(sample: &Sample) -> String {
    parse(sample).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_small_driver_is_read() {
    let (sample, slots) =
        Sample::new(code::SUCCEED, &[1, 2, 3]).with_imports("NTOSKRNL.exe", &["DbgPrint", "ExFreePool"]);
    let image = parse(&sample).unwrap();
    assert_eq!((image.entry, image.preferred_base, image.bytes.len()), (0x1000, PREFERRED, 0x4000));
    assert_eq!(image.bytes[0x2000..0x2004], [1, 2, 3, 0]);
    let imports: Vec<_> = image.imports.iter().map(|i| (i.module.as_str(), i.name.as_str(), i.slot)).collect();
    assert_eq!(imports, [("NTOSKRNL.exe", "DbgPrint", slots), ("NTOSKRNL.exe", "ExFreePool", slots + 8)]);
    assert!(image.sections[0].executable && !image.sections[0].writable);
    assert!(image.sections[1].writable && !image.sections[1].executable);
}

#[test]
fn what_is_no_driver_is_refused_with_the_reason() {
    let good = || Sample::new(code::SUCCEED, &[0; 16]);
    assert!(matches!(Image::parse(b"", false), Err(LoadError::NotPe(_))));
    assert!(matches!(Image::parse(b"#!/bin/sh\n", false), Err(LoadError::NotPe(_))));
    assert!(matches!(parse(&Sample { machine: 0xaa64, ..good() }), Err(LoadError::WrongMachine(0xaa64))));
    assert!(matches!(parse(&Sample { subsystem: 3, ..good() }), Err(LoadError::NotNative(3))));
    assert!(matches!(parse(&Sample { characteristics: 0x23, ..good() }), Err(LoadError::NotRelocatable)));
    assert!(refusal(&Sample { section_alignment: 0x20, ..good() }).contains("SectionAlignment"));
    assert!(refusal(&Sample { characteristics: 0x20, ..good() }).contains("Characteristics"));
    assert!(refusal(&Sample { entry: 0x2000, ..good() }).contains("AddressOfEntryPoint"));
    assert!(refusal(&Sample { entry: 0x9000_0000, ..good() }).contains("AddressOfEntryPoint"));
}

#[test]
fn writable_code_is_refused_unless_asked_for() {
    let mut sample = Sample::new(code::SUCCEED, &[]);
    sample.parts[0].characteristics = CODE | DATA;
    assert!(matches!(parse(&sample), Err(LoadError::WritableCode(name)) if name == ".text"));
    let image = Image::parse(&sample.write(), true).unwrap();
    assert_eq!(image.warnings, ["section .text is writable and executable"]);
}

#[test]
fn directories_outside_the_image_are_refused() {
    for (index, name) in [(0, "export"), (1, "import"), (3, "exception"), (5, "relocation"), (10, "load configuration")]
    {
        let mut sample = Sample::new(code::SUCCEED, &[0; 16]);
        sample.directories.push((index, 0x2ff0, 0x1000));
        assert!(refusal(&sample).contains(name), "{}", refusal(&sample));
        sample.directories[0] = (index, u32::MAX - 8, u32::MAX);
        assert!(refusal(&sample).contains(name), "{}", refusal(&sample));
    }
}

#[test]
fn a_relocation_outside_the_image_or_of_another_kind_is_refused() {
    let sample = |words: &[u16]| Sample::new(code::SUCCEED, &[0; 16]).with_relocation_words(0x2000, words);
    assert_eq!(parse(&sample(&[0xa008, 0])).unwrap().relocations, [0x2008]);
    assert!(refusal(&sample(&[0x3008])).contains("type 3"));
    // The last page's relocation section ends the image: a word may not extend past it.
    let far = Sample::new(code::SUCCEED, &[0; 16]).with_relocation_words(0x3000, &[0xaffc]);
    assert!(refusal(&far).contains("0x3ffc lies outside the image"));
}

#[test]
fn a_truncated_file_is_refused_at_every_length_and_never_panics() {
    let (sample, _) = Sample::new(code::SUCCEED, &[7; 600]).with_imports("ntoskrnl.exe", &["DbgPrint"]);
    let file = sample.with_relocations(&[0x2000]).write();
    let whole = Image::parse(&file, false).unwrap();
    for length in 0..file.len() {
        match Image::parse(&file[..length], false) {
            Err(_) => {}
            // Only the padding after the last section's data may be missing.
            Ok(image) => assert_eq!(image.bytes, whole.bytes, "cut at {length}"),
        }
    }
}

/// A small generator, so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn mutated_files_are_refused_or_mapped_and_never_panic() {
    let (sample, _) = Sample::new(code::SUCCEED, &[7; 64]).with_imports("ntoskrnl.exe", &["DbgPrint", "memcpy"]);
    let file = sample.with_relocations(&[0x2000, 0x2008]).write();
    let machine = crate::machine::Machine::new();
    let (mut refused, mut read) = (0, 0);
    for seed in 1..8_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut mutant = file.clone();
        for _ in 0..1 + random.below(6) {
            // Most of what matters is in the headers and the directories.
            let at = if random.below(3) == 0 { random.below(mutant.len()) } else { random.below(0x200) };
            mutant[at] = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => mutant[at] ^ (1 << random.below(8)),
                _ => random.below(256) as u8,
            };
        }
        match Image::parse(&mutant, random.below(2) == 0) {
            Ok(image) => {
                read += 1;
                // What was read can be bound and mapped.
                if let Ok((slots, _)) = import::bind(&machine, &image, true) {
                    let mapped = map::Mapped::new(image, "mutant.sys", &slots, 1).unwrap();
                    mapped.unload("mutant");
                }
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(refused > 500 && read > 500, "{refused} refused, {read} read: the mutations show nothing");
}

#[test]
fn a_driver_runs_relocated_and_its_entry_point_decides() {
    // The word at 0x2000 holds the preferred address of 0x2010; the entry point returns what is there.
    let mut data = (PREFERRED + 0x2010).to_le_bytes().to_vec();
    data.resize(16, 0);
    data.extend(0x4000_0000_u32.to_le_bytes()); // an informational status
    let mut code = vec![0x48, 0x8b, 0x05]; // mov rax, [rip + rel32]
    code.extend((0x2000_u32 - 0x1007).to_le_bytes());
    code.extend([0x8b, 0x00, 0xc3]); // mov eax, [rax]; ret
    let sample = Sample::new(&code, &data).with_relocations(&[0x2000]);
    let machine = Machine::new();
    let info = machine.load_driver("small", &sample.write()).unwrap();
    assert_ne!(info.base, PREFERRED);
    assert_eq!(machine.drivers().len(), 1);
}

#[test]
fn an_entry_point_that_fails_leaves_nothing_loaded() {
    let machine = Machine::new();
    let file = Sample::new(&code::return_value(0xc000_009a), &[]).write();
    let error = machine.load_driver("failing", &file).unwrap_err();
    assert_eq!(error.to_string(), "the driver's entry point returned STATUS_INSUFFICIENT_RESOURCES (0xc000009a)");
    assert!(machine.drivers().is_empty());
    // The name is free again.
    machine.load_driver("failing", &Sample::new(code::SUCCEED, &[]).write()).unwrap();
    assert!(matches!(machine.load_driver("FAILING", &file), Err(LoadError::AlreadyLoaded(_))));
}

#[test]
fn an_unknown_import_is_refused_by_name_or_stops_the_machine_when_called() {
    let (sample, slot) = Sample::new(code::SUCCEED, &[]).with_imports("ntoskrnl.exe", &["NoSuchRoutine"]);
    let mut sample = sample;
    sample.parts[0].bytes = code::call_slot(slot);
    let file = sample.write();
    let error = Machine::new().load_driver("strange", &file).unwrap_err();
    assert_eq!(error.to_string(), "unknown import ntoskrnl.exe!NoSuchRoutine");
    let options = LoadOptions { allow_unknown_imports: true, ..LoadOptions::default() };
    let Err(LoadError::Bugcheck(stopped)) = Machine::new().load_driver_with("strange", &file, options) else {
        panic!("the stub was called");
    };
    assert!(stopped.why.contains("ntoskrnl.exe!NoSuchRoutine"), "{stopped}");
    assert_eq!(stopped.stack[0].to_string(), "strange.sys+0x100a");
}

#[test]
fn an_import_above_its_irql_stops_the_machine_and_names_both() {
    // KeDelayExecutionThread may be called at APC_LEVEL at most.
    let (mut sample, slot) = Sample::new(code::SUCCEED, &[]).with_imports("ntoskrnl.exe", &["KeDelayExecutionThread"]);
    sample.parts[0].bytes = code::call_slot(slot);
    let machine = Machine::new();
    let file = sample.write();
    let image = Image::parse(&file, false).unwrap();
    let (slots, _) = import::bind(&crate::machine::Machine::new(), &image, false).unwrap();
    let mapped = map::Mapped::new(image, "high.sys", &slots, 1).unwrap();
    let entry = mapped.address(0x1000);
    let stopped = cpu::enter(&machine, Irql::DISPATCH, || {
        // SAFETY: the code of the sample, mapped executable.
        let entry: extern "win64" fn() -> i32 = unsafe { core::mem::transmute(entry) };
        entry()
    });
    let stopped = stopped.unwrap_err();
    assert_eq!(stopped.code, cpu::code::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(
        stopped.why,
        "ntoskrnl.exe!KeDelayExecutionThread was called at DISPATCH_LEVEL; it may be called at APC_LEVEL at most"
    );
    assert_eq!(stopped.stack[0].to_string(), "high.sys+0x100a");
}

#[test]
fn a_write_to_code_and_a_call_to_discarded_code_fault() {
    // mov byte ptr [rip + 0], 0
    let file = Sample::new(&[0xc6, 0x05, 0, 0, 0, 0, 0, 0xc3], &[]).write();
    let Err(LoadError::Bugcheck(stopped)) = Machine::new().load_driver("selfish", &file) else {
        panic!("code is not writable");
    };
    assert_eq!(stopped.code, cpu::code::ATTEMPTED_WRITE_TO_READONLY_MEMORY, "{stopped}");

    let mut sample = Sample::new(code::SUCCEED, &[]);
    sample.parts.push(Part { name: "INIT", characteristics: CODE | 0x0200_0000, bytes: code::SUCCEED.to_vec() });
    let machine = Machine::new();
    let info = machine.load_driver("discarding", &sample.write()).unwrap();
    let stopped = cpu::enter(&machine, Irql::PASSIVE, || {
        // SAFETY: an address in the image's own mapping, which is inaccessible now: the fault is what is tested.
        let gone: extern "win64" fn() = unsafe { core::mem::transmute(info.base + 0x3000) };
        gone();
    });
    assert_eq!(stopped.unwrap_err().stack[0].to_string(), "discarding.sys+0x3000");
}

#[test]
fn the_security_cookie_is_replaced() {
    let default = 0x0000_2b99_2ddf_a232_u64;
    let mut config = vec![0; 0x60];
    config[0x58..].copy_from_slice(&(PREFERRED + 0x2000).to_le_bytes());
    let sample = Sample::new(code::SUCCEED, &default.to_le_bytes()).with_directory(10, ".rdata", config);
    let image = parse(&sample).unwrap();
    assert_eq!((image.security_cookie, image.warnings.len()), (Some(0x2000), 0));
    let mapped = map::Mapped::new(image, "cookie.sys", &[], 0xFFFF_0000_0000_1234).unwrap();
    // SAFETY: the data section of the image just mapped.
    assert_eq!(unsafe { (mapped.address(0x2000) as *const u64).read() }, 0x1234, "the upper sixteen bits are 0");
}

#[test]
fn a_hal_import_finds_what_the_kernel_exports_and_the_other_way_about() {
    let catalogue = gate::Catalogue::get();
    let (hal, _) = catalogue.find("hal.dll", "KeQueryPerformanceCounter").unwrap();
    let (kernel, _) = catalogue.find("NTOSKRNL.EXE", "KeQueryPerformanceCounter").unwrap();
    assert_eq!((hal.module, kernel.module), ("HAL.dll", "ntoskrnl.exe"));
    assert!(catalogue.find("HAL.dll", "KfRaiseIrql").is_some());
    assert!(catalogue.find("fwpkclnt.sys", "KfRaiseIrql").is_none());
}

#[test]
fn no_export_stands_in_the_tables_twice() {
    let mut seen = std::collections::HashSet::new();
    for export in crate::export::all() {
        let key = (export.module.to_ascii_lowercase(), export.name);
        assert!(seen.insert(key.clone()), "{key:?} is exported twice");
    }
    assert!(seen.len() > 150, "{} exports", seen.len());
}
