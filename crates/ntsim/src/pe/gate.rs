//! Import gates: what stands between a driver and an exported function.
//!
//! A gate is 64 bytes of machine code in memory of our own:
//! ```text
//!     cmp  byte ptr gs:[KPCR.Irql], limit     ; the contract of the export table
//!     ja   violated
//!     mov  gs:[KPCR.GATE_RSP], rsp            ; who called: the return address lies there
//!     jmp  [entry]
//! violated:
//!     push [description]
//!     jmp  [handler]
//! ```
//! It changes no register but the flags, so that even `__chkstk` can be reached through one. Where it jumps to stands
//! in a table beside it, which tracing changes.

use crate::cpu::{self, code, kpcr};
use crate::export::{Entry, Export};
use crate::irql::Irql;
use core::ptr;
use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;

/// Bytes of one gate.
const SIZE: usize = 64;
const PAGE: usize = 4096;

/// What a gate knows of itself; the violation handler gets its address.
#[derive(Debug)]
struct Description {
    module: &'static str,
    name: &'static str,
    limit: Irql,
}

/// The gates of a list of exports, in the list's order. They stay mapped for ever: driver code may have kept their
/// addresses.
#[derive(Debug)]
pub struct Gates {
    code: *const u8,
    entries: Vec<Entry>,
}

// SAFETY: the code is immutable once built and never unmapped; `Entry` is Sync by its own proof.
unsafe impl Sync for Gates {}
// SAFETY: as above.
unsafe impl Send for Gates {}

impl Gates {
    /// Makes a gate for each of `exports`.
    ///
    /// # Errors
    /// What mmap or mprotect answered.
    pub fn build<'a>(exports: impl IntoIterator<Item = &'a Export>) -> io::Result<Self> {
        let exports: Vec<&Export> = exports.into_iter().collect();
        let mut code = Vec::with_capacity(exports.len() * SIZE);
        for export in &exports {
            let target = match export.entry {
                Entry::Function(f) => f,
                Entry::Variable(_) => ptr::null(),
            };
            let description: &'static Description =
                Box::leak(Box::new(Description { module: export.module, name: export.name, limit: export.max_irql }));
            code.extend_from_slice(&assemble(export.max_irql, target as u64, ptr::from_ref(description) as u64));
        }
        Ok(Self { code: map(&code)?, entries: exports.iter().map(|e| e.entry).collect() })
    }

    /// What a driver gets for the export at `index`: the gate of a function, the address of a variable.
    #[must_use]
    pub fn address(&self, index: usize) -> *const () {
        match self.entries[index] {
            // SAFETY: the code holds SIZE bytes for each entry.
            Entry::Function(_) => unsafe { self.code.add(index * SIZE).cast() },
            Entry::Variable(address) => address,
        }
    }
}

/// The gates of every export of every simulated module.
#[derive(Debug)]
pub struct Catalogue {
    gates: Gates,
    by_name: HashMap<(String, &'static str), usize>,
    exports: Vec<&'static Export>,
}

impl Catalogue {
    /// The one there is; made on first use.
    ///
    /// # Panics
    /// When no memory can be mapped for it.
    #[must_use]
    pub fn get() -> &'static Self {
        static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
        CATALOGUE.get_or_init(|| {
            let exports: Vec<&'static Export> = crate::export::all().collect();
            let gates = match Gates::build(exports.iter().copied()) {
                Ok(gates) => gates,
                Err(error) => panic!("cannot map the import gates: {error}"),
            };
            let by_name =
                exports.iter().enumerate().map(|(i, e)| ((e.module.to_ascii_lowercase(), e.name), i)).collect();
            Self { gates, by_name, exports }
        })
    }

    /// Finds an export by module, without case, and name. HAL.dll's functions live in ntoskrnl.exe since Windows 10
    /// 2004, and drivers name either.
    #[must_use]
    pub fn find(&'static self, module: &str, name: &str) -> Option<(&'static Export, *const ())> {
        let module = module.to_ascii_lowercase();
        let other = match module.as_str() {
            "hal.dll" => "ntoskrnl.exe",
            "ntoskrnl.exe" => "hal.dll",
            _ => "",
        };
        let index = [module.as_str(), other].into_iter().find_map(|m| self.by_name.get(&(m.to_owned(), name)));
        index.map(|&i| (self.exports[i], self.gates.address(i)))
    }
}

/// Makes machine code executable, for ever.
pub(super) fn map(code: &[u8]) -> io::Result<*const u8> {
    let size = code.len().next_multiple_of(PAGE).max(PAGE);
    // SAFETY: a fresh private mapping, written before it is made executable, never unmapped.
    unsafe {
        let base = libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        ptr::copy_nonoverlapping(code.as_ptr(), base.cast(), code.len());
        if libc::mprotect(base, size, libc::PROT_READ | libc::PROT_EXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(base.cast_const().cast())
    }
}

/// The machine code of one gate. Encodings: Intel SDM volume 2.
fn assemble(limit: Irql, target: u64, description: u64) -> [u8; SIZE] {
    const ENTRY: usize = 40;
    const HANDLER: usize = 48;
    const DESCRIPTION: usize = 56;
    let mut code = Vec::with_capacity(SIZE);
    let relative = |code: &Vec<u8>, field: usize| (field as i32 - (code.len() as i32 + 4)).to_le_bytes();
    code.extend_from_slice(&[0x65, 0x80, 0x3c, 0x25]); // cmp byte ptr gs:[disp32], imm8
    code.extend_from_slice(&(kpcr::IRQL as u32).to_le_bytes());
    code.push(limit.0);
    code.extend_from_slice(&[0x77, 15]); // ja +15
    code.extend_from_slice(&[0x65, 0x48, 0x89, 0x24, 0x25]); // mov gs:[disp32], rsp
    code.extend_from_slice(&(kpcr::GATE_RSP as u32).to_le_bytes());
    code.extend_from_slice(&[0xff, 0x25]); // jmp [rip + rel32]
    code.extend_from_slice(&relative(&code, ENTRY));
    debug_assert_eq!(code.len(), 11 + 15);
    code.extend_from_slice(&[0xff, 0x35]); // push [rip + rel32]
    code.extend_from_slice(&relative(&code, DESCRIPTION));
    code.extend_from_slice(&[0xff, 0x25]); // jmp [rip + rel32]
    code.extend_from_slice(&relative(&code, HANDLER));
    code.resize(ENTRY, 0xcc);
    code.extend_from_slice(&target.to_le_bytes());
    code.extend_from_slice(&(violated as *const () as u64).to_le_bytes());
    code.extend_from_slice(&description.to_le_bytes());
    let mut gate = [0; SIZE];
    gate.copy_from_slice(&code);
    gate
}

/// Reached by a jump with the description on the stack and the driver's return address under it.
#[unsafe(naked)]
unsafe extern "sysv64" fn violated() {
    core::arch::naked_asm!(
        "pop rdi",      // the description
        "mov rsi, rsp", // where the return address lies
        "mov rdx, rbp",
        "and rsp, -16",
        "call {report}",
        "ud2",
        report = sym report,
    )
}

extern "sysv64" fn report(description: &'static Description, return_slot: u64, rbp: u64) -> ! {
    let Description { module, name, limit } = description;
    let irql = cpu::irql();
    // Code of the Bug Check Code Reference for a routine called at too high an IRQL under Driver Verifier.
    cpu::bugcheck_of_caller(
        code::DRIVER_VERIFIER_DETECTED_VIOLATION,
        [0x2_0000, u64::from(irql.0), u64::from(limit.0), 0],
        format!("{module}!{name} was called at {irql}; it may be called at {limit} at most"),
        return_slot,
        rbp,
    )
}

/// The gate of an export of ntoskrnl.exe, as the function type the caller names.
///
/// # Panics
/// When there is no such export.
#[cfg(test)]
pub(crate) fn import<F: Copy>(name: &str) -> F {
    const { assert!(size_of::<F>() == size_of::<usize>(), "a function pointer") };
    let (_, address) = Catalogue::get().find("ntoskrnl.exe", name).unwrap_or_else(|| panic!("no {name}"));
    // SAFETY: the tests name the type that the export's documentation gives it.
    unsafe { core::mem::transmute_copy(&address) }
}
