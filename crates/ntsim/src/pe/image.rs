//! Reads and checks a driver file. Every byte may be hostile: nothing here panics, and nothing is `unsafe`.

use super::error::{AMD64, LoadError};
use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{DataDirectories, ExportTable, ImageNtHeaders as _, ImportTable, RelocationBlockIterator};
use object::read::pe::{ImageThunkData as _, Import as RawImport};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// The largest image. Real drivers are far smaller; a hostile header must not exhaust memory.
const LARGEST: u32 = 128 << 20;
const PAGE: u32 = 4096;

/// A checked driver image, laid out as in memory, not yet relocated.
#[derive(Clone, Debug)]
pub struct Image {
    /// The bytes at their RVAs, `SizeOfImage` of them.
    pub bytes: Vec<u8>,
    /// The address it was linked for.
    pub preferred_base: u64,
    /// The entry point's RVA.
    pub entry: u32,
    /// Its sections.
    pub sections: Vec<Section>,
    /// Its imports, in file order.
    pub imports: Vec<ImportSlot>,
    /// RVAs of the 64-bit words that move with the image.
    pub relocations: Vec<u32>,
    /// Its exports, by name.
    pub exports: BTreeMap<String, u32>,
    /// The range of its exception directory.
    pub pdata: Range<usize>,
    /// The RVA of its security cookie (`__security_cookie`).
    pub security_cookie: Option<u32>,
    /// Oddities that are accepted.
    pub warnings: Vec<String>,
}

/// A section as it will be mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its start.
    pub rva: u32,
    /// How many bytes it occupies, rounded up to pages.
    pub size: u32,
    /// IMAGE_SCN_MEM_WRITE.
    pub writable: bool,
    /// IMAGE_SCN_MEM_EXECUTE.
    pub executable: bool,
    /// IMAGE_SCN_MEM_DISCARDABLE: discarded after the entry point has returned.
    pub discardable: bool,
    /// Not IMAGE_SCN_MEM_NOT_PAGED: may be paged out.
    pub pageable: bool,
}

/// One import and the slot its address goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSlot {
    /// The module's name as spelled in the file.
    pub module: String,
    /// The function's name, or `#` and the ordinal.
    pub name: String,
    /// The RVA of the slot.
    pub slot: u32,
}

fn header(field: &'static str, value: impl Into<u64>, expected: &'static str) -> LoadError {
    LoadError::BadHeader { field, value: value.into(), expected }
}

fn directory(directory: &'static str) -> impl FnOnce(object::read::Error) -> LoadError {
    move |error| LoadError::BadDirectory { directory, problem: error.to_string() }
}

fn not_pe(error: object::read::Error) -> LoadError {
    LoadError::NotPe(error.to_string())
}

/// Refuses another processor's code. The machine determines the size of the headers that follow, so it is read first,
/// at its fixed offset from the headers at `offset`.
fn check_machine(file: &[u8], offset: u64) -> Result<(), LoadError> {
    let at_machine = usize::try_from(offset).ok().and_then(|o| file.get(o.checked_add(4)?..o.checked_add(6)?));
    match at_machine {
        Some(&[low, high]) if u16::from_le_bytes([low, high]) != AMD64 => {
            Err(LoadError::WrongMachine(u16::from_le_bytes([low, high])))
        }
        Some(_) => Ok(()),
        None => Err(LoadError::NotPe(format!("its headers would begin at {offset:#x}, past its end"))),
    }
}

impl Image {
    /// Reads a driver file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(file: &[u8], allow_writable_code: bool) -> Result<Self, LoadError> {
        let dos = pe::ImageDosHeader::parse(file).map_err(not_pe)?;
        let mut offset = u64::from(dos.nt_headers_offset());
        check_machine(file, offset)?;
        let (nt, directories) = pe::ImageNtHeaders64::parse(file, &mut offset).map_err(not_pe)?;
        let mut image = Self::with_headers(file, nt)?;
        let optional = &nt.optional_header;
        let table = nt.sections(file, offset).map_err(not_pe)?;
        let headers_end = optional.size_of_headers.get(LE).next_multiple_of(PAGE);
        image.lay_out(file, table.iter(), headers_end, allow_writable_code)?;
        if !image.sections.iter().any(|s| s.executable && s.holds(image.entry)) {
            return Err(header("AddressOfEntryPoint", image.entry, "inside an executable section"));
        }
        image.read_directories(nt, &directories)?;
        let stated = optional.check_sum.get(LE);
        // e_lfanew, the signature, the file header, and the field's place in the optional header.
        let actual = checksum(file, dos.nt_headers_offset() as usize + 4 + 20 + 64);
        if stated != 0 && stated != actual {
            image.warnings.push(format!("the header's checksum is {stated:#x}, the file's is {actual:#x}"));
        }
        Ok(image)
    }

    /// Checks the headers; the image then holds them alone.
    fn with_headers(file: &[u8], nt: &pe::ImageNtHeaders64) -> Result<Self, LoadError> {
        let optional = &nt.optional_header;
        let characteristics = nt.file_header.characteristics.get(LE).0;
        if characteristics & pe::IMAGE_FILE_EXECUTABLE_IMAGE.0 == 0 {
            return Err(header("Characteristics", characteristics, "IMAGE_FILE_EXECUTABLE_IMAGE (0x2) set"));
        }
        let subsystem = optional.subsystem.get(LE);
        if subsystem != pe::IMAGE_SUBSYSTEM_NATIVE {
            return Err(LoadError::NotNative(subsystem.0));
        }
        let section_alignment = optional.section_alignment.get(LE);
        if section_alignment < PAGE || !section_alignment.is_power_of_two() {
            return Err(header("SectionAlignment", section_alignment, "a power of two of at least a page, 0x1000"));
        }
        let file_alignment = optional.file_alignment.get(LE);
        if !file_alignment.is_power_of_two() || file_alignment > section_alignment {
            return Err(header("FileAlignment", file_alignment, "a power of two not above SectionAlignment"));
        }
        let size = optional.size_of_image.get(LE);
        if size == 0 || size > LARGEST || !size.is_multiple_of(PAGE) {
            return Err(header("SizeOfImage", size, "whole pages, at most 128 MiB"));
        }
        let headers_size = optional.size_of_headers.get(LE);
        let Some(headers) = file.get(..headers_size as usize).filter(|_| headers_size <= size) else {
            return Err(header("SizeOfHeaders", headers_size, "no more than the file and the image have"));
        };
        let mut bytes = vec![0; size as usize];
        bytes[..headers.len()].copy_from_slice(headers);
        Ok(Self {
            bytes,
            preferred_base: optional.image_base.get(LE),
            entry: optional.address_of_entry_point.get(LE),
            sections: Vec::new(),
            imports: Vec::new(),
            relocations: Vec::new(),
            exports: BTreeMap::new(),
            pdata: 0..0,
            security_cookie: None,
            warnings: Vec::new(),
        })
    }

    /// Reads the data directories.
    fn read_directories(
        &mut self,
        nt: &pe::ImageNtHeaders64,
        directories: &DataDirectories<'_>,
    ) -> Result<(), LoadError> {
        let range = |index: usize| {
            directories.get(index).map(|d| d.address_range()).filter(|&(address, size)| address != 0 && size != 0)
        };
        if nt.file_header.characteristics.get(LE).0 & pe::IMAGE_FILE_RELOCS_STRIPPED.0 != 0 {
            return Err(LoadError::NotRelocatable);
        }
        let dynamic_base = pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE.0;
        match range(pe::IMAGE_DIRECTORY_ENTRY_BASERELOC) {
            Some(at) => self.read_relocations(at)?,
            // A tiny driver may contain no address at all, which the linker marks with DYNAMIC_BASE.
            None if nt.optional_header.dll_characteristics.get(LE).0 & dynamic_base != 0 => {}
            None => return Err(LoadError::NotRelocatable),
        }
        if let Some(at) = range(pe::IMAGE_DIRECTORY_ENTRY_IMPORT) {
            self.read_imports(at)?;
        }
        if let Some(at) = range(pe::IMAGE_DIRECTORY_ENTRY_EXPORT) {
            self.read_exports(at)?;
        }
        if let Some(at) = range(pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION) {
            self.pdata = self.checked("exception", at)?;
        }
        if let Some(at) = range(pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG) {
            self.read_load_config(at)?;
        }
        Ok(())
    }

    /// Copies the sections to their places.
    fn lay_out<'a>(
        &mut self,
        file: &[u8],
        table: impl Iterator<Item = &'a pe::ImageSectionHeader>,
        mut taken: u32,
        allow_writable_code: bool,
    ) -> Result<(), LoadError> {
        for raw in table {
            let name = String::from_utf8_lossy(raw.raw_name()).into_owned();
            let bad = |problem: String| LoadError::BadSection { section: name.clone(), problem };
            let rva = raw.virtual_address.get(LE);
            let raw_size = raw.size_of_raw_data.get(LE);
            let virtual_size = match raw.virtual_size.get(LE) {
                0 => raw_size,
                size => size,
            };
            if !rva.is_multiple_of(PAGE) {
                return Err(bad(format!("begins at {rva:#x}, not on a page")));
            }
            if rva < taken {
                return Err(bad(format!("begins at {rva:#x}, inside what comes before it, which ends at {taken:#x}")));
            }
            let end = u64::from(rva) + u64::from(virtual_size);
            if end > self.bytes.len() as u64 {
                return Err(bad(format!("ends at {end:#x}, past the image's end at {:#x}", self.bytes.len())));
            }
            let start = raw.pointer_to_raw_data.get(LE) as usize;
            let length = raw_size.min(virtual_size) as usize;
            let flags = raw.characteristics.get(LE).0;
            if start != 0 && flags & pe::IMAGE_SCN_CNT_UNINITIALIZED_DATA.0 == 0 {
                let data = start.checked_add(length).and_then(|end| file.get(start..end)).ok_or_else(|| {
                    bad(format!(
                        "its data, {length:#x} bytes at {start:#x}, lies past the file's end at {:#x}",
                        file.len()
                    ))
                })?;
                self.bytes[rva as usize..rva as usize + length].copy_from_slice(data);
            }
            let section = Section {
                name: name.clone(),
                rva,
                size: virtual_size.next_multiple_of(PAGE),
                writable: flags & pe::IMAGE_SCN_MEM_WRITE.0 != 0,
                executable: flags & pe::IMAGE_SCN_MEM_EXECUTE.0 != 0,
                discardable: flags & pe::IMAGE_SCN_MEM_DISCARDABLE.0 != 0,
                pageable: flags & pe::IMAGE_SCN_MEM_NOT_PAGED.0 == 0,
            };
            if section.writable && section.executable {
                if !allow_writable_code {
                    return Err(LoadError::WritableCode(name));
                }
                self.warnings.push(format!("section {name} is writable and executable"));
            }
            taken = rva + section.size;
            self.sections.push(section);
        }
        Ok(())
    }

    /// A directory's range, if it is in the image.
    fn checked(&self, name: &'static str, (rva, size): (u32, u32)) -> Result<Range<usize>, LoadError> {
        let range = rva as usize..rva as usize + size as usize;
        if range.end > self.bytes.len() {
            return Err(LoadError::BadDirectory {
                directory: name,
                problem: format!("it ends at {:#x}, past the image's end at {:#x}", range.end, self.bytes.len()),
            });
        }
        Ok(range)
    }

    fn read_relocations(&mut self, at: (u32, u32)) -> Result<(), LoadError> {
        const NAME: &str = "relocation";
        let bytes = &self.bytes[self.checked(NAME, at)?];
        let mut relocations = Vec::new();
        let mut blocks = RelocationBlockIterator::new(bytes);
        while let Some(block) = blocks.next().map_err(directory(NAME))? {
            for relocation in block {
                match relocation.typ {
                    pe::IMAGE_REL_BASED_ABSOLUTE => {}
                    pe::IMAGE_REL_BASED_DIR64 if relocation.virtual_address as usize + 8 <= self.bytes.len() => {
                        relocations.push(relocation.virtual_address);
                    }
                    pe::IMAGE_REL_BASED_DIR64 => {
                        let problem = format!("{:#x} lies outside the image", relocation.virtual_address);
                        return Err(LoadError::BadDirectory { directory: NAME, problem });
                    }
                    other => {
                        let problem = format!("type {other} at {:#x} is not used on x64", relocation.virtual_address);
                        return Err(LoadError::BadDirectory { directory: NAME, problem });
                    }
                }
            }
        }
        self.relocations = relocations;
        Ok(())
    }

    fn read_imports(&mut self, at: (u32, u32)) -> Result<(), LoadError> {
        const NAME: &str = "import";
        /// More than any driver has; a hostile table may loop over the same bytes.
        const MOST: usize = 16 * 1024;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.checked(NAME, at)?;
        let table = ImportTable::new(&self.bytes, 0, at.0);
        let mut descriptors = table.descriptors().map_err(directory(NAME))?;
        let mut imports = Vec::new();
        while let Some(descriptor) = descriptors.next().map_err(directory(NAME))? {
            let module = text(table.name(descriptor.name.get(LE)).map_err(directory(NAME))?);
            let first = descriptor.first_thunk.get(LE);
            let lookup = match descriptor.original_first_thunk.get(LE) {
                0 => first,
                lookup => lookup,
            };
            let mut thunks = table.thunks(lookup).map_err(directory(NAME))?;
            let mut slot = first;
            while let Some(thunk) = thunks.next::<pe::ImageNtHeaders64>().map_err(directory(NAME))? {
                let name = if thunk.is_ordinal() {
                    format!("#{}", thunk.ordinal())
                } else {
                    match table.import::<pe::ImageNtHeaders64>(thunk).map_err(directory(NAME))? {
                        RawImport::Name(_, name) => text(name),
                        RawImport::Ordinal(ordinal) => format!("#{ordinal}"),
                    }
                };
                if slot as usize + 8 > self.bytes.len() || imports.len() == MOST {
                    let problem = format!("the slot of {module}!{name} lies outside the image, or they have no end");
                    return Err(LoadError::BadDirectory { directory: NAME, problem });
                }
                imports.push(ImportSlot { module: module.clone(), name, slot });
                slot += 8;
            }
        }
        self.imports = imports;
        Ok(())
    }

    fn read_exports(&mut self, at: (u32, u32)) -> Result<(), LoadError> {
        const NAME: &str = "export";
        let range = self.checked(NAME, at)?;
        let table = ExportTable::parse(&self.bytes[range], at.0).map_err(directory(NAME))?;
        let mut exports = BTreeMap::new();
        for (pointer, index) in table.name_iter() {
            let name = table.name_from_pointer(pointer).map_err(directory(NAME))?;
            let address = table.address_by_index(index).map_err(directory(NAME))?;
            if !table.is_forward(address) && (address as usize) < self.bytes.len() {
                exports.insert(String::from_utf8_lossy(name).into_owned(), address);
            }
        }
        self.exports = exports;
        Ok(())
    }

    /// Finds the security cookie: `IMAGE_LOAD_CONFIG_DIRECTORY64.SecurityCookie`, a virtual address at offset 0x58.
    fn read_load_config(&mut self, at: (u32, u32)) -> Result<(), LoadError> {
        const COOKIE: usize = 0x58;
        let bytes = &self.bytes[self.checked("load configuration", at)?];
        let word = |offset: usize| bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_le_bytes);
        let Some(address) = word(COOKIE).filter(|&a| a != 0) else { return Ok(()) };
        let rva = address.checked_sub(self.preferred_base).and_then(|rva| u32::try_from(rva).ok());
        let writable = |rva: u32| self.sections.iter().any(|s| s.writable && s.holds(rva) && s.holds(rva + 7));
        match rva.filter(|&rva| rva < u32::MAX - 8 && writable(rva)) {
            Some(rva) => self.security_cookie = Some(rva),
            None => self.warnings.push(format!("the security cookie at {address:#x} is not in a writable section")),
        }
        Ok(())
    }
}

impl Section {
    /// Whether an RVA is in this section.
    #[must_use]
    pub fn holds(&self, rva: u32) -> bool {
        rva >= self.rva && rva - self.rva < self.size
    }
}

/// The checksum of an image file as the linker writes it: a 16-bit one's-complement sum over the file with the
/// checksum field taken as zero, plus the file's length.
fn checksum(file: &[u8], field: usize) -> u32 {
    let mut sum = 0_u32;
    for (index, pair) in file.chunks(2).enumerate() {
        if (field..field + 4).contains(&(index * 2)) {
            continue;
        }
        let word = u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 8;
        sum += word;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum.wrapping_add(file.len() as u32)
}
