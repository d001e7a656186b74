//! Binds a driver's imports.

use super::error::LoadError;
use super::gate::Catalogue;
use super::image::{Image, ImportSlot};
use crate::cpu::{self, code};
use crate::machine::Machine;
use core::ptr;
use nt_abi::Irql;
use serde::Serialize;

/// One import of a loaded driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The module's name as spelled in the file.
    pub module: String,
    /// The function's or variable's name, or `#` and an ordinal.
    pub name: String,
    /// What it is bound to.
    pub target: Target,
}

/// What an import is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Target {
    /// A function that may be called up to this IRQL.
    Function {
        /// From the export table.
        max_irql: Irql,
    },
    /// A variable.
    Variable,
    /// Nothing: a stub that stops the machine and names the import.
    Unknown,
}

/// An import slot: its offset in the image, and the address that goes there.
pub(crate) type Slot = (u32, u64);

/// The imports that no simulated module exports, as `module!name`.
#[must_use]
pub fn unknown_imports(image: &Image) -> Vec<String> {
    let catalogue = Catalogue::get();
    let unknown = image.imports.iter().filter(|import| catalogue.find(&import.module, &import.name).is_none());
    unknown.map(|ImportSlot { module, name, .. }| format!("{module}!{name}")).collect()
}

/// Finds the address for every import of `image` on `machine`: (slot RVA, address), and the list to show.
///
/// # Errors
/// All unknown imports, unless they are allowed.
pub(crate) fn bind(
    machine: &Machine,
    image: &Image,
    allow_unknown: bool,
) -> Result<(Vec<Slot>, Vec<Import>), LoadError> {
    let unknown = unknown_imports(image);
    if !allow_unknown && !unknown.is_empty() {
        return Err(LoadError::UnknownImports(unknown));
    }
    let catalogue = Catalogue::get();
    let mut bound = Vec::with_capacity(image.imports.len());
    let mut list = Vec::with_capacity(image.imports.len());
    for ImportSlot { module, name, slot } in &image.imports {
        let (target, address) = match catalogue.find_for(machine, module, name) {
            Some((export, address)) => match export.entry {
                crate::export::Entry::Function(_) => (Target::Function { max_irql: export.max_irql }, address as u64),
                crate::export::Entry::Variable(_) => (Target::Variable, address as u64),
            },
            None => (Target::Unknown, stub(module, name)?),
        };
        bound.push((*slot, address));
        list.push(Import { module: module.clone(), name: name.clone(), target });
    }
    Ok((bound, list))
}

/// A function that stops the machine and names the import.
fn stub(module: &str, name: &str) -> Result<u64, LoadError> {
    let description: &'static str = Box::leak(format!("{module}!{name}").into_boxed_str());
    let holder: &'static &'static str = Box::leak(Box::new(description));
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&[0x48, 0xbf]); // mov rdi, imm64
    bytes.extend_from_slice(&(ptr::from_ref(holder) as u64).to_le_bytes());
    bytes.extend_from_slice(&[0x48, 0xb8]); // mov rax, imm64
    bytes.extend_from_slice(&(unknown as *const () as u64).to_le_bytes());
    bytes.extend_from_slice(&[0xff, 0xe0]); // jmp rax
    let address = super::gate::map(&bytes)
        .map_err(|error| LoadError::NoMemory { size: bytes.len(), error: error.to_string() })?;
    Ok(address as u64)
}

#[unsafe(naked)]
unsafe extern "sysv64" fn unknown() {
    core::arch::naked_asm!(
        "mov rsi, rsp", // where the return address is
        "mov rdx, rbp",
        "and rsp, -16",
        "call {report}",
        "ud2",
        report = sym report,
    )
}

extern "sysv64" fn report(name: &'static &'static str, return_slot: u64, rbp: u64) -> ! {
    cpu::bugcheck_of_caller(
        code::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED,
        [0xffff_ffff_c000_0139, 0, 0, 0], // STATUS_ENTRYPOINT_NOT_FOUND
        format!("the driver called {name}, which ntsim does not have"),
        return_slot,
        rbp,
    )
}
