//! Which code lies where: the drivers that are loaded, and ntsim's own program.

use super::bugcheck::Frame;
use core::ops::Range;
use framehop::x86_64::UnwinderX86_64;
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder};
use parking_lot::RwLock;
use std::sync::Arc;

/// A stretch of code with a name and, when it has them, unwind tables.
#[derive(Clone, Debug)]
pub struct CodeModule {
    /// The file's name, e.g. `sluice.sys`.
    pub name: String,
    /// Where it lies.
    pub range: Range<u64>,
    /// The image as mapped, for its unwind tables.
    pub image: Arc<[u8]>,
    /// Where `.pdata` lies in the image.
    pub pdata: Range<usize>,
}

struct Entry {
    name: String,
    range: Range<u64>,
}

struct Registry {
    unwinder: UnwinderX86_64<Arc<[u8]>>,
    modules: Vec<Entry>,
}

static REGISTRY: RwLock<Option<Registry>> = RwLock::new(None);

/// Makes a driver known to stack walks.
pub fn register_module(module: &CodeModule) {
    let size = module.range.end - module.range.start;
    let info = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: Some(0..size),
        text: Some(Arc::clone(&module.image)),
        ..Default::default()
    };
    let sections = PeSections { info, pdata: module.image.get(module.pdata.clone()).map(Arc::from), module };
    let unwind = Module::new(module.name.clone(), module.range.clone(), module.range.start, sections);
    let mut registry = REGISTRY.write();
    let registry = registry.get_or_insert_with(Registry::of_this_program);
    registry.unwinder.add_module(unwind);
    registry.modules.push(Entry { name: module.name.clone(), range: module.range.clone() });
}

/// Forgets a driver.
pub fn unregister_module(start: u64) {
    if let Some(registry) = REGISTRY.write().as_mut() {
        registry.unwinder.remove_module(start);
        registry.modules.retain(|m| m.range.start != start);
    }
}

/// Turns an address into a frame.
pub(super) struct Names<'a>(&'a [Entry]);

impl Names<'_> {
    pub(super) fn frame(&self, address: u64) -> Frame {
        let module = self.0.iter().find(|m| m.range.contains(&address));
        Frame {
            module: module.map(|m| m.name.clone()),
            offset: module.map_or(address, |m| address - m.range.start),
            address,
        }
    }
}

/// Names one address.
pub(crate) fn frame_of(address: u64) -> Frame {
    let mut registry = REGISTRY.write();
    Names(&registry.get_or_insert_with(Registry::of_this_program).modules).frame(address)
}

pub(super) fn with_unwinder(f: impl FnOnce(&UnwinderX86_64<Arc<[u8]>>, &Names<'_>)) {
    let mut registry = REGISTRY.write();
    let registry = registry.get_or_insert_with(Registry::of_this_program);
    f(&registry.unwinder, &Names(&registry.modules));
}

/// The sections of a PE image as the unwinder asks for them: unwind information may lie in any section, so each of
/// `.rdata` and `.text` is the whole image.
struct PeSections<'a> {
    info: ExplicitModuleSectionInfo<Arc<[u8]>>,
    pdata: Option<Arc<[u8]>>,
    module: &'a CodeModule,
}

impl framehop::ModuleSectionInfo<Arc<[u8]>> for PeSections<'_> {
    fn base_svma(&self) -> u64 {
        self.info.base_svma
    }

    fn section_svma_range(&mut self, name: &[u8]) -> Option<Range<u64>> {
        matches!(name, b".text" | b".rdata").then(|| 0..self.module.range.end - self.module.range.start)
    }

    fn section_data(&mut self, name: &[u8]) -> Option<Arc<[u8]>> {
        match name {
            b".text" | b".rdata" => Some(Arc::clone(&self.module.image)),
            b".pdata" => self.pdata.take(),
            _ => None,
        }
    }
}

impl Registry {
    /// A registry that knows this program and its shared libraries.
    fn of_this_program() -> Self {
        let mut registry = Self { unwinder: UnwinderX86_64::new(), modules: Vec::new() };
        // SAFETY: the callback has the type dl_iterate_phdr wants, and its data pointer is the registry, which lives
        // for the whole call.
        unsafe { libc::dl_iterate_phdr(Some(add_object), (&raw mut registry).cast()) };
        registry
    }
}

/// One loaded ELF object: its code and its `.eh_frame`, found through PT_GNU_EH_FRAME.
unsafe extern "C" fn add_object(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    registry: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr passes a valid info and the pointer it was given.
    let (info, registry) = unsafe { (&*info, &mut *registry.cast::<Registry>()) };
    // SAFETY: the dynamic linker's own table of this object.
    let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let loads = || headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
    let Some(start) = loads().map(|h| h.p_vaddr).min() else { return 0 };
    let Some(end) = loads().map(|h| h.p_vaddr + h.p_memsz).max() else { return 0 };
    let base = info.dlpi_addr;
    let path = if info.dlpi_name.is_null() {
        String::new()
    } else {
        // SAFETY: a NUL-terminated name of the dynamic linker.
        unsafe { core::ffi::CStr::from_ptr(info.dlpi_name) }.to_string_lossy().into_owned()
    };
    let name = match path.rsplit('/').next() {
        Some(file) if !file.is_empty() => file.to_owned(),
        _ => "ntsim".to_owned(),
    };
    let range = base + start..base + end;
    let Some(table) = headers.iter().find(|h| h.p_type == libc::PT_GNU_EH_FRAME) else {
        registry.modules.push(Entry { name, range });
        return 0;
    };
    // `.eh_frame` lies in the same segment as its header table and ends with a terminator, so its exact length need
    // not be known; where it begins stands in the header ("The .eh_frame_hdr section", Linux Standard Base).
    let Some(segment) = loads().find(|h| (h.p_vaddr..h.p_vaddr + h.p_filesz).contains(&table.p_vaddr)) else {
        registry.modules.push(Entry { name, range });
        return 0;
    };
    let bytes = |r: Range<u64>| -> Arc<[u8]> {
        // SAFETY: inside a readable PT_LOAD segment of a loaded object.
        Arc::from(unsafe { core::slice::from_raw_parts((base + r.start) as *const u8, (r.end - r.start) as usize) })
    };
    let header = table.p_vaddr..table.p_vaddr + table.p_memsz;
    let frames = match *bytes(header.clone()) {
        // Version 1, eh_frame_ptr relative to itself, signed 4 bytes.
        [1, 0x1b, _, _, a, b, c, d, ..] => {
            let start = (header.start + 4).wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d])));
            start..segment.p_vaddr + segment.p_filesz
        }
        _ => 0..0,
    };
    if frames.is_empty() || frames.start < segment.p_vaddr {
        registry.modules.push(Entry { name, range });
        return 0;
    }
    let text = loads().find(|h| h.p_flags & libc::PF_X != 0).map(|h| h.p_vaddr..h.p_vaddr + h.p_memsz);
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: text,
        eh_frame_hdr_svma: Some(header.clone()),
        eh_frame_hdr: Some(bytes(header)),
        eh_frame_svma: Some(frames.clone()),
        eh_frame: Some(bytes(frames)),
        ..Default::default()
    };
    registry.unwinder.add_module(Module::new(name.clone(), range.clone(), base, sections));
    registry.modules.push(Entry { name, range });
    0
}
