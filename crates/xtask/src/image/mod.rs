//! Checks that a driver image is one that Windows would load, and that this project would ship.
//!
//! The kernel's loader refuses some of what is checked here (a wrong subsystem, an import nobody exports); the rest is
//! required by hypervisor-protected code integrity, driver signing and good practice.

mod exports;
pub mod identity;

use std::{collections::BTreeMap, fmt};

use object::{
    LittleEndian as LE,
    pe::{
        self, IMAGE_DIRECTORY_ENTRY_BASERELOC, IMAGE_DIRECTORY_ENTRY_RESOURCE, IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE,
        IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY, IMAGE_DLLCHARACTERISTICS_NX_COMPAT, IMAGE_SCN_MEM_EXECUTE,
        IMAGE_SCN_MEM_WRITE, IMAGE_SUBSYSTEM_NATIVE,
    },
    read::pe::{ImageNtHeaders, ImageOptionalHeader, Import, PeFile64, ResourceNameOrId},
};

use crate::signature::{self, Signature, SignatureError};
use sluice_protocol::{OLDEST_WINDOWS, OLDEST_WINDOWS_BUILD};

/// Modules that a driver of this project may import from, as spelled in import tables.
const MODULES: [&str; 5] = ["ntoskrnl.exe", "HAL.dll", "NDIS.SYS", "fwpkclnt.sys", "WDFLDR.SYS"];

/// Something that is wrong with an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Defect {
    #[error("it is not a 64-bit PE image: {0}")]
    NotPe(String),
    #[error("machine {0:#06x}, expected x86_64 (0x8664) or aarch64 (0xaa64)")]
    Machine(u16),
    #[error("subsystem {0}, expected 1 (native): the kernel loads nothing else")]
    Subsystem(u16),
    #[error("it has no entry point")]
    NoEntryPoint,
    #[error("its {table} cannot be read: {why}")]
    Unreadable { table: &'static str, why: String },
    #[error("it imports nothing: it was not linked against the kernel")]
    NoImports,
    #[error("it imports {symbol} from {module}; only {} are allowed", MODULES.join(", "))]
    Module { module: String, symbol: String },
    #[error("it imports KeBugCheckEx: code that can panic is reachable, and would stop the machine")]
    Panics,
    #[error("it imports {symbol} from {module} by number, which differs between Windows versions")]
    Ordinal { module: String, symbol: String },
    #[error(
        "it imports {symbol} from {module}, which crates/xtask/data/exports.tsv does not list with its first Windows"
    )]
    UnknownExport { module: String, symbol: String },
    #[error(
        "it imports {symbol} from {module}, which Windows has only since build {build}; the oldest \
         supported Windows is {OLDEST_WINDOWS} (build {OLDEST_WINDOWS_BUILD})"
    )]
    TooNew { module: String, symbol: String, build: u32 },
    #[error("section {0} is writable and executable")]
    WritableCode(String),
    #[error("it has no relocations: the kernel could load it only at one address")]
    NoRelocations,
    #[error("its characteristics lack {0}")]
    Characteristic(&'static str),
    #[error("its checksum is {found:#010x}, its content has {expected:#010x} (linker option /RELEASE)")]
    Checksum { found: u32, expected: u32 },
    #[error("it has no version resource")]
    NoVersion,
    #[error("{0}")]
    Signature(#[from] SignatureError),
}

/// The properties of a good image.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Size of the file in bytes.
    pub size: usize,
    /// Architecture.
    pub machine: &'static str,
    /// Imported names by module.
    pub imports: BTreeMap<String, Vec<String>>,
    /// Build of the oldest Windows that has every import.
    pub oldest_build: u32,
    /// Its signature, whose hashes match the image.
    pub signature: Option<Signature>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} KiB, imports", self.machine, self.size.div_ceil(1024))?;
        for (number, (module, symbols)) in self.imports.iter().enumerate() {
            write!(f, "{} {} of {module}", if number == 0 { "" } else { "," }, symbols.len())?;
        }
        write!(f, "; runs on Windows from build {} on", self.oldest_build)?;
        match &self.signature {
            Some(Signature { signer, pages, .. }) => write!(f, "; signed by {signer}, with hashes of {pages} pages"),
            None => write!(f, "; not signed"),
        }
    }
}

/// Checks an image.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(bytes: &[u8]) -> Result<Summary, Vec<Defect>> {
    let file = PeFile64::parse(bytes).map_err(|error| vec![Defect::NotPe(error.to_string())])?;
    let mut defects = Vec::new();

    let machine = match file.nt_headers().file_header().machine.get(LE) {
        pe::IMAGE_FILE_MACHINE_AMD64 => "x86_64",
        pe::IMAGE_FILE_MACHINE_ARM64 => "aarch64",
        other => {
            defects.push(Defect::Machine(other.0));
            "unknown"
        }
    };
    check_header(&file, bytes, &mut defects);
    check_shadow_stack(&file, bytes, machine, &mut defects);
    check_sections(&file, &mut defects);
    let imports = check_imports(&file, &mut defects);
    check_relocations(&file, bytes, &mut defects);
    check_version(&file, bytes, &mut defects);
    let signature = signature::verify(bytes).unwrap_or_else(|error| {
        defects.push(error.into());
        None
    });
    if !defects.is_empty() {
        return Err(defects);
    }
    let oldest_build = oldest_build(&imports);
    Ok(Summary { size: bytes.len(), machine, imports, oldest_build, signature })
}

/// The build of the oldest Windows that exports everything imported. Imports that the table lacks have been reported
/// before.
fn oldest_build(imports: &BTreeMap<String, Vec<String>>) -> u32 {
    let symbols = imports.iter().flat_map(|(module, symbols)| symbols.iter().map(move |symbol| (module, symbol)));
    symbols.filter_map(|(module, symbol)| exports::first_build(module, symbol)).max().unwrap_or_default()
}

fn check_header(file: &PeFile64<'_>, bytes: &[u8], defects: &mut Vec<Defect>) {
    let header = file.nt_headers().optional_header();
    let subsystem = header.subsystem();
    if subsystem != IMAGE_SUBSYSTEM_NATIVE {
        defects.push(Defect::Subsystem(subsystem.0));
    }
    if header.address_of_entry_point() == 0 {
        defects.push(Defect::NoEntryPoint);
    }
    let wanted = [
        (IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE, "DYNAMIC_BASE (linker option /DYNAMICBASE)"),
        (IMAGE_DLLCHARACTERISTICS_NX_COMPAT, "NX_COMPAT (linker option /NXCOMPAT)"),
        (IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY, "FORCE_INTEGRITY (linker option /INTEGRITYCHECK)"),
    ];
    for (flag, name) in wanted {
        if header.dll_characteristics() & flag != flag {
            defects.push(Defect::Characteristic(name));
        }
    }
    let (found, expected) = (header.check_sum(), checksum(bytes, checksum_offset(file)));
    if found != expected {
        defects.push(Defect::Checksum { found, expected });
    }
}

/// Only x86_64 has CET.
fn check_shadow_stack<'a>(file: &PeFile64<'a>, bytes: &'a [u8], machine: &str, defects: &mut Vec<Defect>) {
    match has_shadow_stack(file, bytes) {
        Ok(marked) if marked || machine != "x86_64" => {}
        Ok(_) => defects.push(Defect::Characteristic("CET_COMPAT (linker option /CETCOMPAT)")),
        Err(error) => defects.push(Defect::Unreadable { table: "debug directory", why: error.to_string() }),
    }
}

fn check_sections(file: &PeFile64<'_>, defects: &mut Vec<Defect>) {
    for section in file.section_table().iter() {
        let flags = section.characteristics.get(LE);
        if flags & IMAGE_SCN_MEM_WRITE == IMAGE_SCN_MEM_WRITE && flags & IMAGE_SCN_MEM_EXECUTE == IMAGE_SCN_MEM_EXECUTE
        {
            defects.push(Defect::WritableCode(String::from_utf8_lossy(section.raw_name()).into_owned()));
        }
    }
}

fn check_imports(file: &PeFile64<'_>, defects: &mut Vec<Defect>) -> BTreeMap<String, Vec<String>> {
    let imports = imports(file).unwrap_or_else(|error| {
        defects.push(Defect::Unreadable { table: "import table", why: error.to_string() });
        Vec::new()
    });
    if imports.is_empty() {
        defects.push(Defect::NoImports);
    }
    let mut by_module = BTreeMap::<_, Vec<_>>::new();
    for (module, symbol) in imports {
        // Loaders ignore case in module names.
        if !MODULES.iter().any(|allowed| allowed.eq_ignore_ascii_case(&module)) {
            defects.push(Defect::Module { module: module.clone(), symbol: symbol.clone() });
        } else if symbol.starts_with('#') {
            defects.push(Defect::Ordinal { module: module.clone(), symbol: symbol.clone() });
        } else if symbol == "KeBugCheckEx" {
            // Only the panic handler of wdk-panic calls it, so the linker keeps the import only with a panic path.
            defects.push(Defect::Panics);
        } else {
            let (module, symbol) = (module.clone(), symbol.clone());
            match exports::first_build(&module, &symbol) {
                None => defects.push(Defect::UnknownExport { module, symbol }),
                Some(build) if build > OLDEST_WINDOWS_BUILD => defects.push(Defect::TooNew { module, symbol, build }),
                Some(_) => {}
            }
        }
        by_module.entry(module).or_default().push(symbol);
    }
    by_module
}

/// Every import as (module, symbol); a symbol imported by number is `#number`.
fn imports(file: &PeFile64<'_>) -> object::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let Some(table) = file.import_table()? else { return Ok(found) };
    let mut descriptors = table.descriptors()?;
    while let Some(descriptor) = descriptors.next()? {
        let module = String::from_utf8_lossy(table.name(descriptor.name.get(LE))?).into_owned();
        let mut thunks = table.thunks(descriptor.original_first_thunk.get(LE))?;
        while let Some(thunk) = thunks.next::<pe::ImageNtHeaders64>()? {
            let symbol = match table.import::<pe::ImageNtHeaders64>(thunk)? {
                Import::Ordinal(number) => format!("#{number}"),
                Import::Name(_, name) => String::from_utf8_lossy(name).into_owned(),
            };
            found.push((module.clone(), symbol));
        }
    }
    Ok(found)
}

fn check_relocations(file: &PeFile64<'_>, bytes: &[u8], defects: &mut Vec<Defect>) {
    let stripped = pe::IMAGE_FILE_RELOCS_STRIPPED;
    let flags = file.nt_headers().file_header().characteristics.get(LE);
    let blocks = || -> object::Result<usize> {
        let mut blocks = file.data_directories().relocation_blocks(bytes, &file.section_table())?;
        let mut count = 0;
        while let Some(relocations) = blocks.as_mut().map_or(Ok(None), |blocks| blocks.next())? {
            count += relocations.count();
        }
        Ok(count)
    };
    let present = file.data_directory(IMAGE_DIRECTORY_ENTRY_BASERELOC).is_some();
    match blocks() {
        Ok(count) if present && count > 0 && flags & stripped != stripped => {}
        Ok(_) => defects.push(Defect::NoRelocations),
        Err(error) => defects.push(Defect::Unreadable { table: "relocation table", why: error.to_string() }),
    }
}

fn check_version(file: &PeFile64<'_>, bytes: &[u8], defects: &mut Vec<Defect>) {
    let has_version = || -> object::Result<bool> {
        if file.data_directory(IMAGE_DIRECTORY_ENTRY_RESOURCE).is_none() {
            return Ok(false);
        }
        let Some(resources) = file.data_directories().resource_directory(bytes, &file.section_table())? else {
            return Ok(false);
        };
        let version = |name: ResourceNameOrId| name.id() == Some(pe::RT_VERSION);
        Ok(resources.root()?.entries.iter().any(|entry| version(entry.name_or_id())))
    };
    match has_version() {
        Ok(true) => {}
        Ok(false) => defects.push(Defect::NoVersion),
        Err(error) => defects.push(Defect::Unreadable { table: "resource directory", why: error.to_string() }),
    }
}

/// Offset and entries of the debug directory, if there is one.
fn debug_directory<'a>(
    file: &PeFile64<'a>,
    bytes: &'a [u8],
) -> object::Result<Option<(usize, &'a [pe::ImageDebugDirectory])>> {
    let Some(directory) = file.data_directory(pe::IMAGE_DIRECTORY_ENTRY_DEBUG) else { return Ok(None) };
    let (at, _) = directory.file_range(&file.section_table())?;
    let content = directory.data(bytes, &file.section_table())?;
    let count = content.len() / size_of::<pe::ImageDebugDirectory>();
    // There are as many as counted.
    let entries = object::pod::slice_from_bytes(content, count).map_or(&[][..], |(entries, _)| entries);
    Ok(Some((at as usize, entries)))
}

/// Whether the image declares itself compatible with shadow stacks (CET): bit 0 of the entry that the linker's
/// /CETCOMPAT makes.
fn has_shadow_stack<'a>(file: &PeFile64<'a>, bytes: &'a [u8]) -> object::Result<bool> {
    let Some((_, entries)) = debug_directory(file, bytes)? else { return Ok(false) };
    let mut flags = entries
        .iter()
        .filter(|entry| entry.typ.get(LE) == pe::IMAGE_DEBUG_TYPE_EX_DLLCHARACTERISTICS)
        .filter_map(|entry| bytes.get(entry.pointer_to_raw_data.get(LE) as usize));
    Ok(flags.any(|flags| flags & 1 == 1))
}

/// Offset of the checksum in the file: it is 64 bytes into the optional header, which follows signature and file header.
fn checksum_offset(file: &PeFile64<'_>) -> usize {
    file.dos_header().nt_headers_offset() as usize + 4 + size_of::<pe::ImageFileHeader>() + 64
}

/// The checksum that the kernel computes: 16-bit words summed with the carry added back, the checksum itself left out,
/// plus the length of the file.
fn checksum(bytes: &[u8], own_offset: usize) -> u32 {
    let mut sum = 0_u32;
    for (index, word) in bytes.chunks(2).enumerate() {
        if (own_offset..own_offset + 4).contains(&(index * 2)) {
            continue;
        }
        let word = u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
        sum += u32::from(word);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // PE files are smaller than 4 GiB by their own fields.
    sum.wrapping_add(bytes.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        for bytes in [
            &b""[..],
            b"MZ",
            b"\x7fELF and more than enough bytes to hold a DOS header and what follows it, if there was one",
        ] {
            assert!(matches!(check(bytes).unwrap_err()[..], [Defect::NotPe(_)]));
        }
    }

    #[test]
    fn checksum_adds_the_carry_back_and_skips_itself() {
        let bytes = [0xff, 0xff, 0x02, 0x00, 0xaa, 0xbb, 0xcc, 0xdd, 0x05];
        // 0xffff + 2 = 0x10001 -> 0x0002; the four bytes at offset 4 are left out; the odd byte counts as 0x0005.
        assert_eq!(checksum(&bytes, 4), 2 + 5 + 9);
    }
}
