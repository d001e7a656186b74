//! The export tables of the simulated kernel.
//!
//! # What an export trusts
//!
//! An export follows a driver's pointers as the function's page (windows-driver-docs-ddi) says, and checks what it can
//! see: null, sizes, handles, magic numbers, pool blocks. The rest it trusts, as Windows does: no call can tell whether
//! an address is really the structure that the page demands. That is enough here, because a driver that breaks the
//! contract can at worst crash the ntsim that was started to run it, and the crash is reported: exports run inside
//! [`crate::cpu::enter`], so a fault on the driver's pointer becomes a bugcheck that names the driver's call
//! (`cpu/fault.rs`). A SAFETY comment of an export names what the page demands, what was checked, and who frees.

use nt_abi::Irql;

/// One entry of a simulated module's export table.
///
/// The loader resolves a driver's imports against the tables that every room lists in its `EXPORTS` (see [`all`]), by
/// module (ignoring case) and name. A function is not bound directly: the loader writes a small gate for it that
/// refuses the call above [`Export::max_irql`], so the table alone makes the IRQL contract of every import checked.
#[derive(Clone, Copy, Debug)]
pub struct Export {
    /// The module's name as drivers spell it: `ntoskrnl.exe`, `fwpkclnt.sys`, `WDFLDR.SYS`, `NDIS.SYS`, `HAL.dll`.
    pub module: &'static str,
    /// The exported name.
    pub name: &'static str,
    /// The highest IRQL at which the documentation allows the call.
    pub max_irql: Irql,
    /// The entry point, `extern "win64"`, or the address of a variable.
    pub entry: Entry,
}

/// The address behind an export.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// A function of the win64 ABI.
    Function(*const ()),
    /// A variable; the driver's import slot gets its address, ungated.
    Variable(*const ()),
}

// SAFETY: the pointers are addresses of functions and statics of this program; they are never written through here.
unsafe impl Sync for Export {}
// SAFETY: as above.
unsafe impl Send for Export {}

impl Export {
    /// A function that may be called up to `max_irql`.
    #[must_use]
    pub const fn function(module: &'static str, name: &'static str, max_irql: Irql, entry: *const ()) -> Self {
        Self { module, name, max_irql, entry: Entry::Function(entry) }
    }

    /// A variable.
    #[must_use]
    pub const fn variable(module: &'static str, name: &'static str, address: *const ()) -> Self {
        Self { module, name, max_irql: Irql::HIGH, entry: Entry::Variable(address) }
    }
}

/// Writes a room's `EXPORTS`: functions under their own names, each with the highest IRQL it may be called at.
macro_rules! exports {
    ($module:literal; $($name:ident: $limit:ident),* $(,)?) => {
        /// The exports of this room.
        pub const EXPORTS: &[$crate::export::Export] = &[
            $($crate::export::Export::function(
                $module,
                stringify!($name),
                ::nt_abi::Irql::$limit,
                $name as *const (),
            )),*
        ];
    };
}
pub(crate) use exports;

/// Every export of every simulated module.
pub fn all() -> impl Iterator<Item = &'static Export> {
    [
        crate::nt::EXPORTS,
        &[
            crate::wdf::EXPORTS,
            crate::fwpkclnt::fwps::EXPORTS,
            crate::fwpkclnt::fwps::redirect::EXPORTS,
            crate::fwpkclnt::fwpm::EXPORTS,
            crate::ndis::EXPORTS,
            crate::ndis::miniport::EXPORTS,
            crate::netio::EXPORTS,
        ],
    ]
    .into_iter()
    .flatten()
    .copied()
    .flatten()
}
