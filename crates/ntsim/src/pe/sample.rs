//! A small PE writer for tests: just enough to make valid and invalid drivers. Tests outside the crate include this
//! file by its path.

/// One section to write.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) characteristics: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A driver to write. Sections are at 0x1000, 0x2000, ... in memory.
pub(crate) struct Sample {
    pub(crate) machine: u16,
    pub(crate) subsystem: u16,
    pub(crate) characteristics: u16,
    pub(crate) section_alignment: u32,
    pub(crate) entry: u32,
    pub(crate) parts: Vec<Part>,
    /// (index, rva, size) of data directories.
    pub(crate) directories: Vec<(usize, u32, u32)>,
}

pub(crate) const CODE: u32 = 0x6000_0020;
pub(crate) const DATA: u32 = 0xc000_0040;
pub(crate) const READ: u32 = 0x4000_0040;
pub(crate) const PREFERRED: u64 = 0x1_4000_0000;

impl Sample {
    /// A driver whose entry point is `code`, with a writable section of `data` at 0x2000.
    pub(crate) fn new(code: &[u8], data: &[u8]) -> Self {
        Self {
            machine: 0x8664,
            subsystem: 1,
            characteristics: 0x22,
            section_alignment: 0x1000,
            entry: 0x1000,
            parts: vec![
                Part { name: ".text", characteristics: CODE, bytes: code.to_vec() },
                Part { name: ".data", characteristics: DATA, bytes: data.to_vec() },
            ],
            directories: Vec::new(),
        }
    }

    fn next_rva(&self) -> u32 {
        0x1000 * (1 + self.parts.len() as u32)
    }

    /// Adds a section and a directory that covers it.
    pub(crate) fn with_directory(mut self, index: usize, name: &'static str, bytes: Vec<u8>) -> Self {
        self.directories.push((index, self.next_rva(), bytes.len() as u32));
        self.parts.push(Part { name, characteristics: READ, bytes });
        self
    }

    /// Adds relocations of the 64-bit words at these RVAs, all in the page at 0x2000.
    pub(crate) fn with_relocations(self, rvas: &[u32]) -> Self {
        let words: Vec<u16> = rvas.iter().map(|rva| 0xa000 | (rva & 0xfff) as u16).collect();
        self.with_relocation_words(0x2000, &words)
    }

    /// Adds a relocation block for `page`, padded to a multiple of 4 bytes as the format demands.
    pub(crate) fn with_relocation_words(self, page: u32, words: &[u16]) -> Self {
        let count = words.len().next_multiple_of(2);
        let mut bytes = page.to_le_bytes().to_vec();
        bytes.extend(((8 + count * 2) as u32).to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(8 + count * 2, 0);
        self.with_directory(5, ".reloc", bytes)
    }

    /// Adds imports of `names` from `module`. Their slots begin at the returned RVA.
    pub(crate) fn with_imports(self, module: &str, names: &[&str]) -> (Self, u32) {
        let rva = self.next_rva();
        let table = |index: usize| rva + 40 + (index * 8) as u32;
        let slots = table(names.len() + 1);
        let mut strings = Vec::new();
        let strings_at = table(2 * (names.len() + 1));
        let mut place = |text: &str, hint: bool| {
            let at = strings_at + strings.len() as u32;
            if hint {
                strings.extend([0, 0]);
            }
            strings.extend(text.as_bytes());
            strings.push(0);
            at
        };
        let module_at = place(module, false);
        let thunks: Vec<u64> = names.iter().map(|name| u64::from(place(name, true))).chain([0]).collect();
        let mut bytes = Vec::new();
        for word in [rva + 40, 0, 0, module_at, slots, 0, 0, 0, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        for _ in 0..2 {
            bytes.extend(thunks.iter().flat_map(|t| t.to_le_bytes()));
        }
        bytes.extend(strings);
        (self.with_directory(1, ".idata", bytes), slots)
    }

    /// The file.
    pub(crate) fn write(&self) -> Vec<u8> {
        const HEADERS: usize = 0x400;
        let mut file = vec![0; 0x40];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        let u16s = |file: &mut Vec<u8>, values: &[u16]| file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let u32s = |file: &mut Vec<u8>, values: &[u32]| file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let u64s = |file: &mut Vec<u8>, values: &[u64]| file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        file.extend(b"PE\0\0");
        u16s(&mut file, &[self.machine, self.parts.len() as u16]);
        u32s(&mut file, &[0, 0, 0]);
        u16s(&mut file, &[240, self.characteristics]);
        u16s(&mut file, &[0x20b, 0x0e]);
        u32s(&mut file, &[0, 0, 0, self.entry, 0x1000]);
        u64s(&mut file, &[PREFERRED]);
        u32s(&mut file, &[self.section_alignment, 0x200]);
        u16s(&mut file, &[10, 0, 0, 0, 10, 0]);
        u32s(&mut file, &[0, self.next_rva(), HEADERS as u32, 0]);
        u16s(&mut file, &[self.subsystem, 0x40]); // DYNAMIC_BASE
        u64s(&mut file, &[0x10_0000, 0x1000, 0x10_0000, 0x1000]);
        u32s(&mut file, &[0, 16]);
        let mut directories = [[0_u32; 2]; 16];
        for &(index, rva, size) in &self.directories {
            directories[index] = [rva, size];
        }
        u32s(&mut file, directories.as_flattened());
        let mut raw = HEADERS as u32;
        for (index, part) in self.parts.iter().enumerate() {
            let mut name = [0; 8];
            name[..part.name.len()].copy_from_slice(part.name.as_bytes());
            file.extend(name);
            let size = (part.bytes.len() as u32).next_multiple_of(0x200);
            let rva = 0x1000 * (1 + index as u32);
            u32s(&mut file, &[part.bytes.len() as u32, rva, size, raw, 0, 0, 0, part.characteristics]);
            raw += size;
        }
        file.resize(HEADERS, 0);
        for part in &self.parts {
            file.extend(&part.bytes);
            file.resize(file.len().next_multiple_of(0x200), 0);
        }
        file
    }
}

/// Machine code for tests.
pub(crate) mod code {
    /// `xor eax, eax; ret`
    pub(crate) const SUCCEED: &[u8] = &[0x31, 0xc0, 0xc3];

    /// `mov eax, value; ret`
    pub(crate) fn return_value(value: u32) -> Vec<u8> {
        let mut code = vec![0xb8];
        code.extend(value.to_le_bytes());
        code.push(0xc3);
        code
    }

    /// A `call [slot]` with shadow space, then `xor eax, eax; ret`. For code at RVA 0x1000.
    pub(crate) fn call_slot(slot: u32) -> Vec<u8> {
        let mut code = vec![0x48, 0x83, 0xec, 0x28, 0xff, 0x15]; // sub rsp, 40; call [rip + rel32]
        let next = 0x1000 + code.len() as u32 + 4;
        code.extend(slot.wrapping_sub(next).to_le_bytes());
        code.extend([0x48, 0x83, 0xc4, 0x28, 0x31, 0xc0, 0xc3]); // add rsp, 40; xor eax, eax; ret
        code
    }
}
