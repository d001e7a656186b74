//! The function table that drivers get from a bind.
//!
//! Each room lists the functions it implements with the highest IRQL of each; every other slot holds a stub that names
//! its function. Between a driver and either stands a gate like that of an import, so the IRQL of every framework call
//! is checked by the table.

mod slots;

use std::sync::LazyLock;

use super::ddi::Function;
use crate::export::Export;
use crate::machine::Machine;
use crate::pe::gate::Gates;
use nt_abi::Irql;

pub(crate) use slots::NAMES;

/// The functions that are implemented, room by room.
pub(crate) fn implemented() -> impl Iterator<Item = &'static Function> {
    [
        super::object::FUNCTIONS,
        super::driver::FUNCTIONS,
        super::device::FUNCTIONS,
        super::device::INIT_FUNCTIONS,
        super::file::FUNCTIONS,
        super::queue::FUNCTIONS,
        super::request::FUNCTIONS,
        super::request::BUFFER_FUNCTIONS,
        super::request::IRP_FUNCTIONS,
        super::dpc::FUNCTIONS,
        super::timer::FUNCTIONS,
        super::workitem::FUNCTIONS,
        super::lock::FUNCTIONS,
        super::memory::FUNCTIONS,
        super::collection::FUNCTIONS,
        super::registry::FUNCTIONS,
        super::string::FUNCTIONS,
        super::verifier::FUNCTIONS,
    ]
    .into_iter()
    .flatten()
}

/// The whole table as exports, in the order of the indexes.
fn exports() -> Vec<Export> {
    let mut table: Vec<Export> = NAMES
        .iter()
        .zip(&slots::ABSENT)
        .map(|(name, stub)| Export::function("KMDF", name, Irql::HIGH, *stub as *const ()))
        .collect();
    for function in implemented() {
        if let Some(index) = NAMES.iter().position(|name| *name == function.name) {
            table[index] = Export::function("KMDF", function.name, function.max_irql, function.entry);
        }
    }
    table
}

/// The table of pointers as a driver sees it: a gate for each slot.
pub(crate) fn of_gates() -> &'static [*const ()] {
    &TABLE.0
}

/// The table for the drivers of `machine`: with hooked gates where it wants them. It stays forever, as drivers keep
/// its address.
pub(crate) fn of_gates_for(machine: &Machine) -> &'static [*const ()] {
    let exports = exports();
    let wanted = |export: &Export| machine.hooks.wants(export.module, export.name);
    if !exports.iter().any(wanted) {
        return of_gates();
    }
    let hooked = match Gates::hooked(&exports) {
        Ok(gates) => gates,
        Err(error) => panic!("cannot map the hooked gates of the framework's functions: {error}"),
    };
    let address = |(index, export)| if wanted(export) { hooked.address(index) } else { TABLE.0[index] };
    exports.iter().enumerate().map(address).collect::<Vec<_>>().leak()
}

struct Table(Vec<*const ()>);

// SAFETY: addresses of functions.
unsafe impl Sync for Table {}
// SAFETY: as above.
unsafe impl Send for Table {}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let exports = exports();
    match Gates::build(&exports) {
        Ok(gates) => Table((0..exports.len()).map(|index| gates.address(index)).collect()),
        Err(error) => panic!("cannot map the gates of the framework's functions: {error}"),
    }
});

/// The address of a function in the table.
#[cfg(test)]
pub(crate) fn entry(name: &str) -> *const () {
    let index = NAMES.iter().position(|n| *n == name).expect("a function of the table");
    TABLE.0[index]
}

#[cfg(test)]
mod tests {
    use super::slots::COUNT;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_implemented_function_has_a_slot_of_its_own() {
        let mut seen = HashSet::new();
        for function in implemented() {
            assert!(NAMES.contains(&function.name), "{} is not a KMDF function", function.name);
            assert!(seen.insert(function.name), "{} is listed twice", function.name);
        }
    }

    #[test]
    fn every_slot_is_filled() {
        let table = exports();
        assert_eq!(table.len(), COUNT);
        assert!(of_gates().iter().all(|entry| !entry.is_null()));
        for (index, export) in table.iter().enumerate() {
            assert_eq!(export.name, NAMES[index]);
        }
    }
}
