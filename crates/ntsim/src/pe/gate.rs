//! Import gates: the code between a driver and an exported function.
//!
//! A gate is 64 bytes of machine code in memory that ntsim maps:
//! ```text
//!     cmp  byte ptr gs:[KPCR.Irql], limit     ; the contract of the export table
//!     ja   violated
//!     mov  gs:[KPCR.GATE_RSP], rsp            ; who called: the return address is there
//!     jmp  [entry]
//! violated:
//!     push [description]
//!     jmp  [handler]
//! ```
//! It changes no register except the flags, so that even `__chkstk` can be called through one.
//!
//! A hooked gate, which a driver gets for the imports that are traced, goes through [`hook`] instead: code that reports
//! the call, makes it, and reports its result. Which of the two a driver gets is decided when it is loaded.

use crate::cpu::{self, code, kpcr};
use crate::export::{Entry, Export};
use crate::machine::Machine;
use crate::trace::{self, signature};
use core::ptr;
use nt_abi::Irql;
use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;

/// Bytes of one gate.
const SIZE: usize = 64;
const PAGE: usize = 4096;

/// A gate's description; the violation handler and the hook get its address.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Description {
    target: *const (),
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    limit: Irql,
}

// SAFETY: `target` is the address of a function.
unsafe impl Sync for Description {}

/// The gates of a list of exports, in the list's order. They stay mapped forever: driver code may have kept their
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
    /// The error of mmap or mprotect.
    pub fn build<'a>(exports: impl IntoIterator<Item = &'a Export>) -> io::Result<Self> {
        Self::of(exports, |_| false)
    }

    /// Makes a hooked gate for each of `exports` that can have one.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub(crate) fn hooked<'a>(exports: impl IntoIterator<Item = &'a Export>) -> io::Result<Self> {
        Self::of(exports, |export| !signature::is_bare(export.name))
    }

    fn of<'a>(exports: impl IntoIterator<Item = &'a Export>, hooked: impl Fn(&Export) -> bool) -> io::Result<Self> {
        let exports: Vec<&Export> = exports.into_iter().collect();
        let mut code = Vec::with_capacity(exports.len() * SIZE);
        for export in &exports {
            let target = match export.entry {
                Entry::Function(f) => f,
                Entry::Variable(_) => ptr::null(),
            };
            let description: &'static Description = Box::leak(Box::new(Description {
                target,
                module: export.module,
                name: export.name,
                limit: export.max_irql,
            }));
            let description = ptr::from_ref(description) as u64;
            code.extend_from_slice(&match hooked(export) {
                false => assemble(export.max_irql, target as u64, description),
                true => assemble_hooked(export.max_irql, description),
            });
        }
        Ok(Self { code: map(&code)?, entries: exports.iter().map(|e| e.entry).collect() })
    }

    /// The address for the import of the export at `index`: the gate of a function, or a variable.
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
    hooked: OnceLock<Gates>,
    by_name: HashMap<(String, &'static str), usize>,
    exports: Vec<&'static Export>,
}

impl Catalogue {
    /// The catalogue; made on first use.
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
            Self { gates, hooked: OnceLock::new(), by_name, exports }
        })
    }

    /// Finds an export by module, case-insensitive, and name. HAL.dll's functions live in ntoskrnl.exe since Windows 10
    /// 2004, and drivers name either.
    #[must_use]
    pub fn find(&'static self, module: &str, name: &str) -> Option<(&'static Export, *const ())> {
        let index = self.index(module, name)?;
        Some((self.exports[index], self.gates.address(index)))
    }

    /// [`Self::find`] for a driver of `machine`: the gate is hooked if the machine asks for it.
    ///
    /// # Panics
    /// When no memory can be mapped for the hooked gates.
    #[must_use]
    pub fn find_for(
        &'static self,
        machine: &Machine,
        module: &str,
        name: &str,
    ) -> Option<(&'static Export, *const ())> {
        let index = self.index(module, name)?;
        let export = self.exports[index];
        if !machine.hooks.wants(export.module, export.name) {
            return Some((export, self.gates.address(index)));
        }
        let hooked = self.hooked.get_or_init(|| match Gates::hooked(self.exports.iter().copied()) {
            Ok(gates) => gates,
            Err(error) => panic!("cannot map the hooked gates: {error}"),
        });
        Some((export, hooked.address(index)))
    }

    fn index(&self, module: &str, name: &str) -> Option<usize> {
        let module = module.to_ascii_lowercase();
        let other = match module.as_str() {
            "hal.dll" => "ntoskrnl.exe",
            "ntoskrnl.exe" => "hal.dll",
            _ => "",
        };
        let index = [module.as_str(), other].into_iter().find_map(|m| self.by_name.get(&(m.to_owned(), name)));
        index.copied()
    }
}

/// Maps machine code as executable; never unmapped.
pub(crate) fn map(code: &[u8]) -> io::Result<*const u8> {
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

/// The machine code of a hooked gate: the hook is reached with the description on the stack.
/// ```text
///     push [description]
///     cmp  byte ptr gs:[KPCR.Irql], limit
///     ja   violated
///     jmp  [hook]
/// violated:
///     jmp  [handler]
/// ```
fn assemble_hooked(limit: Irql, description: u64) -> [u8; SIZE] {
    const HOOK: usize = 40;
    const HANDLER: usize = 48;
    const DESCRIPTION: usize = 56;
    let mut code = Vec::with_capacity(SIZE);
    let relative = |code: &Vec<u8>, field: usize| (field as i32 - (code.len() as i32 + 4)).to_le_bytes();
    code.extend_from_slice(&[0xff, 0x35]); // push [rip + rel32]
    code.extend_from_slice(&relative(&code, DESCRIPTION));
    code.extend_from_slice(&[0x65, 0x80, 0x3c, 0x25]); // cmp byte ptr gs:[disp32], imm8
    code.extend_from_slice(&(kpcr::IRQL as u32).to_le_bytes());
    code.push(limit.0);
    code.extend_from_slice(&[0x77, 6]); // ja +6
    for field in [HOOK, HANDLER] {
        code.extend_from_slice(&[0xff, 0x25]); // jmp [rip + rel32]
        code.extend_from_slice(&relative(&code, field));
    }
    code.resize(HOOK, 0xcc);
    code.extend_from_slice(&(hook as *const () as u64).to_le_bytes());
    code.extend_from_slice(&(violated as *const () as u64).to_le_bytes());
    code.extend_from_slice(&description.to_le_bytes());
    let mut gate = [0; SIZE];
    gate.copy_from_slice(&code);
    gate
}

/// The code between a hooked gate and the function: reports the call, makes it with a copy of its stack arguments, and
/// reports its result.
///
/// Reached by a jump with the description on the stack, then the driver's return address, then the home space of the
/// four register arguments and the stack arguments. Integer and vector results and the registers that the win64 ABI
/// preserves are passed through; `before` and `after` preserve them because they have that ABI themselves.
#[unsafe(naked)]
unsafe extern "win64" fn hook() {
    core::arch::naked_asm!(
        ".cfi_startproc",
        ".cfi_def_cfa_offset 16", // the description is below the return address
        "push rbp",
        ".cfi_def_cfa_offset 24",
        ".cfi_offset rbp, -24",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "lea r10, [rbp + 16]",
        "mov gs:[{gate_rsp}], r10", // who called, as a plain gate leaves it
        "mov [rbp + 24], rcx",      // the arguments in a row
        "mov [rbp + 32], rdx",
        "mov [rbp + 40], r8",
        "mov [rbp + 48], r9",
        "sub rsp, 104", // rsp was 8 off a multiple of 16: a return address, a description and rbp above it
        "movups [rbp - 24], xmm0",
        "movups [rbp - 40], xmm1",
        "movups [rbp - 56], xmm2",
        "movups [rbp - 72], xmm3",
        "mov rcx, [rbp + 8]",
        "lea rdx, [rbp + 24]",
        "call {before}",
        "mov r10, rax", // how many arguments follow on the stack
        "lea rax, [rax * 8 + 15]",
        "and rax, -16",
        "sub rsp, rax",
        "xor eax, eax",
        "2:",
        "cmp rax, r10",
        "jae 3f",
        "mov r11, [rbp + rax * 8 + 56]",
        "mov [rsp + rax * 8 + 32], r11",
        "inc rax",
        "jmp 2b",
        "3:",
        "mov rcx, [rbp + 24]",
        "mov rdx, [rbp + 32]",
        "mov r8, [rbp + 40]",
        "mov r9, [rbp + 48]",
        "movups xmm0, [rbp - 24]",
        "movups xmm1, [rbp - 40]",
        "movups xmm2, [rbp - 56]",
        "movups xmm3, [rbp - 72]",
        "mov rax, [rbp + 8]",
        "call [rax + {target}]",
        "movups [rbp - 24], xmm0",
        "mov [rbp - 8], rax",
        "mov rcx, [rbp + 8]",
        "lea rdx, [rbp + 24]",
        "mov r8, rax",
        "call {after}",
        "mov rax, [rbp - 8]",
        "movups xmm0, [rbp - 24]",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 16",
        "add rsp, 8",
        ".cfi_def_cfa_offset 8",
        "ret",
        ".cfi_endproc",
        gate_rsp = const kpcr::GATE_RSP,
        target = const core::mem::offset_of!(Description, target),
        before = sym before,
        after = sym after,
    )
}

extern "win64" fn before(description: &'static Description, arguments: *const u64) -> u64 {
    trace::before(description, arguments)
}

extern "win64" fn after(description: &'static Description, arguments: *const u64, result: u64) {
    trace::after(description, arguments, result);
}

/// Reached by a jump with the description on the stack and the driver's return address under it.
#[unsafe(naked)]
unsafe extern "sysv64" fn violated() {
    core::arch::naked_asm!(
        "pop rdi",      // the description
        "mov rsi, rsp", // where the return address is
        "mov rdx, rbp",
        "and rsp, -16",
        "call {report}",
        "ud2",
        report = sym report,
    )
}

extern "sysv64" fn report(description: &'static Description, return_slot: u64, rbp: u64) -> ! {
    let Description { module, name, limit, .. } = description;
    let irql = cpu::irql();
    // The Bug Check Code Reference's code for a routine called at too high an IRQL under Driver Verifier.
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
/// When the export does not exist.
#[cfg(test)]
pub(crate) fn import<F: Copy>(name: &str) -> F {
    const { assert!(size_of::<F>() == size_of::<usize>(), "a function pointer") };
    let (_, address) = Catalogue::get().find("ntoskrnl.exe", name).unwrap_or_else(|| panic!("no {name}"));
    // SAFETY: the tests name the type that the export's documentation gives it.
    unsafe { core::mem::transmute_copy(&address) }
}
