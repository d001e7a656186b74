//! The code of a driver for x86-64, followed from a function on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use iced_x86::{Code as Opcode, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::{
    LittleEndian as LE,
    pe::IMAGE_REL_BASED_DIR64,
    read::pe::{ImageNtHeaders, ImageOptionalHeader, ImageThunkData, PeFile64},
};

/// Entries that a vtable or a table of jumps may have at most.
const ENTRIES: u64 = 64;

/// A driver's file, as it is in memory at its preferred base.
pub(crate) struct Code {
    base: u64,
    image: Vec<u8>,
    /// Addresses of code.
    text: std::ops::Range<u64>,
    /// The name of the import whose address is stored here.
    imports: BTreeMap<u64, String>,
    /// Where absolute addresses are stored.
    relocated: BTreeSet<u64>,
    /// Where the functions begin and end that have unwind information: all but leaves.
    functions: BTreeMap<u64, u64>,
}

/// What a function's own instructions do.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// Functions that it calls, or goes on to.
    pub(crate) calls: BTreeSet<u64>,
    /// Functions whose address it takes, and those in tables that it takes the address of.
    pub(crate) taken: BTreeSet<u64>,
    pub(crate) imports: BTreeSet<String>,
    /// Where it calls through a pointer that is not an import.
    pub(crate) indirect: BTreeSet<u64>,
    /// Instructions with a lock prefix, and `xchg` with memory, which locks without one.
    pub(crate) locked: BTreeSet<u64>,
}

/// Everything that code can come to.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(crate) functions: BTreeSet<u64>,
    pub(crate) imports: BTreeSet<String>,
}

impl Code {
    pub(crate) fn read(path: &Path) -> Self {
        let file = fs::read(path).expect("the driver is readable");
        let pe = PeFile64::parse(&*file).expect("it is a driver");
        let header = pe.nt_headers().optional_header();
        let base = header.image_base();
        let mut image = vec![0; header.size_of_image() as usize];
        let mut text = 0..0;
        for section in pe.section_table().iter() {
            let data = section.pe_data(&*file).expect("its data are there");
            let start = section.virtual_address.get(LE) as usize;
            let length = data.len().min(section.virtual_size.get(LE) as usize);
            image[start..start + length].copy_from_slice(&data[..length]);
            if section.name.starts_with(b".text") {
                text = base + start as u64..base + (start + length) as u64;
            }
        }
        let directories = pe.data_directories();
        let mut imports = BTreeMap::new();
        let table = directories.import_table(&*file, &pe.section_table()).expect("imports").expect("it has imports");
        let mut descriptors = table.descriptors().expect("descriptors");
        while let Some(descriptor) = descriptors.next().expect("a descriptor") {
            let mut thunks = table.thunks(descriptor.original_first_thunk.get(LE)).expect("thunks");
            let mut place = base + u64::from(descriptor.first_thunk.get(LE));
            while let Some(thunk) = thunks.next::<object::pe::ImageNtHeaders64>().expect("a thunk") {
                let (_, name) = table.hint_name(thunk.address()).expect("an import by name");
                imports.insert(place, String::from_utf8_lossy(name).into_owned());
                place += 8;
            }
        }
        let mut relocated = BTreeSet::new();
        let mut blocks =
            directories.relocation_blocks(&*file, &pe.section_table()).expect("relocations").expect("it has them");
        while let Some(block) = blocks.next().expect("a block") {
            let words = block.filter(|relocation| relocation.typ == IMAGE_REL_BASED_DIR64);
            relocated.extend(words.map(|relocation| base + u64::from(relocation.virtual_address)));
        }
        let exceptions = directories.get(object::pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION).expect("unwind information");
        let rows = exceptions.data(&*file, &pe.section_table()).expect("its rows");
        let word = |bytes: &[u8]| base + u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")));
        let functions = rows.chunks_exact(12).map(|row| (word(&row[..4]), word(&row[4..8]))).collect();
        Self { base, image, text, imports, relocated, functions }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Everything that can run once the function at `start` is called.
    pub(crate) fn reachable(&self, start: u64) -> Reached {
        let mut reached = Reached::default();
        let mut next = vec![start];
        while let Some(function) = next.pop() {
            if reached.functions.insert(function) {
                let body = self.body(function);
                next.extend(body.calls.iter().chain(&body.taken));
                reached.imports.extend(body.imports);
            }
        }
        reached
    }

    /// The instructions of the function at `start`, without those of functions that it calls or goes on to.
    pub(crate) fn body(&self, start: u64) -> Body {
        let end = self.end_of(start);
        let mut body = Body::default();
        let mut seen = BTreeSet::new();
        let mut next = vec![start];
        while let Some(at) = next.pop() {
            let mut decoder = Decoder::with_ip(64, self.bytes(at), at, DecoderOptions::NONE);
            // Of a stretch without branches, for the tables that an indirect jump at its end may use.
            let mut stretch = Vec::new();
            while decoder.can_decode() && seen.insert(decoder.ip()) {
                let instruction = decoder.decode();
                assert_ne!(instruction.code(), Opcode::INVALID, "not an instruction at {:#x}", instruction.ip());
                self.note(&instruction, &mut body);
                stretch.push(instruction);
                let target = instruction.near_branch_target();
                let inside = (start..end).contains(&target);
                match instruction.flow_control() {
                    FlowControl::Next | FlowControl::Interrupt => continue,
                    FlowControl::ConditionalBranch if inside => next.push(target),
                    FlowControl::UnconditionalBranch if inside => {
                        next.push(target);
                        break;
                    }
                    FlowControl::ConditionalBranch | FlowControl::Call => {
                        body.calls.insert(target);
                    }
                    FlowControl::UnconditionalBranch => {
                        body.calls.insert(target);
                        break;
                    }
                    FlowControl::IndirectCall => self.indirect(&stretch, &mut body),
                    FlowControl::IndirectBranch => {
                        let table = self.jump_table(&stretch, &(start..end));
                        if table.is_empty() {
                            self.indirect(&stretch, &mut body);
                        }
                        next.extend(table);
                        break;
                    }
                    _ => break,
                }
            }
        }
        body
    }

    /// Where the function that begins at `start` ends; for a leaf, where the next function begins.
    fn end_of(&self, start: u64) -> u64 {
        let next = || self.functions.range(start + 1..).next().map_or(self.text.end, |(begin, _)| *begin);
        self.functions.get(&start).copied().unwrap_or_else(next)
    }

    fn bytes(&self, at: u64) -> &[u8] {
        assert!(self.text.contains(&at), "{at:#x} is no code");
        &self.image[(at - self.base) as usize..(self.text.end - self.base) as usize]
    }

    fn word(&self, at: u64) -> Option<u64> {
        let start = usize::try_from(at.checked_sub(self.base)?).ok()?;
        Some(u64::from_le_bytes(self.image.get(start..start + 8)?.try_into().ok()?))
    }

    fn note(&self, instruction: &Instruction, body: &mut Body) {
        let exchanges = instruction.mnemonic() == Mnemonic::Xchg
            && (0..instruction.op_count()).any(|at| instruction.op_kind(at) == OpKind::Memory);
        if instruction.has_lock_prefix() || exchanges {
            body.locked.insert(instruction.ip());
        }
        if !instruction.is_ip_rel_memory_operand() {
            return;
        }
        let place = instruction.ip_rel_memory_address();
        if instruction.mnemonic() == Mnemonic::Lea && self.text.contains(&place) {
            body.taken.insert(place);
        }
        // A vtable: what drops the value, its size, its alignment, and its functions; or a table of functions.
        let slots = (0..ENTRIES).map(|entry| place + 8 * entry);
        let words = slots.enumerate().take_while(|(at, slot)| *at < 3 || self.relocated.contains(slot));
        let words = words.filter(|(_, slot)| self.relocated.contains(slot)).filter_map(|(_, slot)| self.word(slot));
        body.taken.extend(words.filter(|word| self.text.contains(word)));
    }

    /// The last instruction of `stretch` calls through a pointer: an import, a function of the framework, whose table a
    /// variable of the driver points to, or a function that is taken somewhere.
    fn indirect(&self, stretch: &[Instruction], body: &mut Body) {
        let Some((call, before)) = stretch.split_last() else { return };
        let loaded = |register| {
            let load = before.iter().rev().find(|i| i.op_count() > 0 && i.op_register(0) == register)?;
            (load.mnemonic() == Mnemonic::Mov && load.is_ip_rel_memory_operand()).then_some(())
        };
        let import = call.is_ip_rel_memory_operand().then(|| call.ip_rel_memory_address());
        let name = import.and_then(|place| self.imports.get(&place).cloned());
        let name = name.or_else(|| {
            loaded(call.memory_base())?;
            Some(format!("function {} of the framework", call.memory_displacement64() / 8))
        });
        match name {
            Some(name) => body.imports.insert(name),
            None => body.indirect.insert(call.ip()),
        };
    }

    /// The targets of an indirect jump through a table of distances from the table's beginning, which is how LLVM
    /// compiles a `match`.
    fn jump_table(&self, stretch: &[Instruction], function: &std::ops::Range<u64>) -> Vec<u64> {
        let from_table = stretch.iter().rev().take(8).any(|i| i.mnemonic() == Mnemonic::Movsxd);
        let taken = stretch.iter().rev().find(|i| {
            i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand() && i.memory_base() == Register::RIP
        });
        let Some(table) = taken.filter(|_| from_table).map(Instruction::ip_rel_memory_address) else {
            return Vec::new();
        };
        let distance = |entry: u64| {
            let start = (table + 4 * entry - self.base) as usize;
            let bytes = self.image.get(start..start + 4)?.try_into().ok()?;
            Some(table.wrapping_add_signed(i64::from(i32::from_le_bytes(bytes))))
        };
        // The table's length is not read: what follows it seldom leads to the beginning of an instruction as well.
        let mut decoder = Decoder::with_ip(64, self.bytes(function.start), function.start, DecoderOptions::NONE);
        let instructions: BTreeSet<u64> =
            core::iter::from_fn(|| (decoder.ip() < function.end).then(|| decoder.decode().ip())).collect();
        (0..ENTRIES).map_while(distance).take_while(|target| instructions.contains(target)).collect()
    }
}
