//! The address ranges of code: loaded drivers and ntsim itself.

use super::bugcheck::Frame;
use core::ops::Range;
use framehop::x86_64::UnwinderX86_64;
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A range of code with a name and, if it has them, unwind tables.
#[derive(Clone, Debug)]
pub struct CodeModule {
    /// The file's name, e.g. `sluice.sys`.
    pub name: String,
    /// Its address.
    pub range: Range<u64>,
    /// The image as mapped, for its unwind tables.
    pub image: Arc<[u8]>,
    /// The range of `.pdata` in the image.
    pub pdata: Range<usize>,
}

struct Entry {
    name: String,
    range: Range<u64>,
    /// The tables of a driver's image.
    tables: Option<(Arc<[u8]>, Range<usize>)>,
}

/// A driver's image and the range of its function table.
pub(super) struct DriverImage<'a> {
    pub(super) range: &'a Range<u64>,
    pub(super) image: &'a [u8],
    pub(super) pdata: &'a Range<usize>,
}

struct Registry {
    unwinder: UnwinderX86_64<Arc<[u8]>>,
    modules: Vec<Entry>,
}

/// The ranges of drivers, for the fault handler; unused entries are 0. Drivers beyond the last entry have no handlers.
static DRIVERS: [(AtomicU64, AtomicU64); 256] = [const { (AtomicU64::new(0), AtomicU64::new(0)) }; 256];

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
    let tables = Some((Arc::clone(&module.image), module.pdata.clone()));
    registry.modules.push(Entry { name: module.name.clone(), range: module.range.clone(), tables });
    if let Some((start, end)) = DRIVERS.iter().find(|(start, _)| start.load(Ordering::Relaxed) == 0) {
        end.store(module.range.end, Ordering::Relaxed);
        start.store(module.range.start, Ordering::Release);
    }
}

/// Forgets a driver.
pub fn unregister_module(start: u64) {
    if let Some(registry) = REGISTRY.write().as_mut() {
        registry.unwinder.remove_module(start);
        registry.modules.retain(|m| m.range.start != start);
    }
    if let Some((slot, end)) = DRIVERS.iter().find(|(slot, _)| slot.load(Ordering::Relaxed) == start) {
        end.store(0, Ordering::Release);
        slot.store(0, Ordering::Release);
    }
}

/// Whether a driver's image is at `address`. Async-signal-safe.
pub(super) fn is_driver(address: u64) -> bool {
    DRIVERS.iter().any(|(start, end)| {
        let start = start.load(Ordering::Acquire);
        start != 0 && start <= address && address < end.load(Ordering::Acquire)
    })
}

/// Calls `f` with the driver's image that contains `address`.
pub(super) fn with_driver_at<R>(address: u64, f: impl FnOnce(&DriverImage<'_>) -> Option<R>) -> Option<R> {
    let registry = REGISTRY.read();
    let entry = registry.as_ref()?.modules.iter().find(|m| m.range.contains(&address))?;
    let (image, pdata) = entry.tables.as_ref()?;
    f(&DriverImage { range: &entry.range, image, pdata })
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

/// The sections of a PE image for the unwinder: unwind information may be in any section, so `.rdata` and `.text` are
/// both the whole image.
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
        registry.modules.push(Entry { name, range, tables: None });
        return 0;
    };
    // `.eh_frame` is in the same segment as its header table and ends with a terminator, so its exact length is not
    // needed; its start is in the header ("The .eh_frame_hdr section", Linux Standard Base).
    let Some(segment) = loads().find(|h| (h.p_vaddr..h.p_vaddr + h.p_filesz).contains(&table.p_vaddr)) else {
        registry.modules.push(Entry { name, range, tables: None });
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
        registry.modules.push(Entry { name, range, tables: None });
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
    registry.modules.push(Entry { name, range, tables: None });
    0
}
