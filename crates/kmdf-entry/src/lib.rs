//! Entry point of a KMDF driver, for builds without the Windows Driver Kit.
//!
//! A framework driver does not start at `DriverEntry`: the kernel calls `FxDriverEntry`, which binds the driver to the
//! framework through WDFLDR.SYS and then calls `DriverEntry`. Microsoft's WdfDriverEntry.lib holds that code and the two
//! variables that the framework's headers refer to. This crate supplies the same three symbols, and nothing at all where
//! the real library is linked (see build.rs) or where the target is not Windows (unit tests).
//!
//! A driver names it once, or the linker drops it:
//! ```text
//! #[cfg(not(test))]
//! extern crate kmdf_entry as _;
//! ```
//!
//! Not done, because no driver of this project uses it: framework class extensions, context types whose unique type is
//! found at run time, and drivers that keep their own dispatch table (`WdfDriverInitNoDispatchOverride`).
#![no_std]

#[cfg(all(windows, not(wdf_driver_entry_lib)))]
mod entry;
mod layout;
#[cfg(all(windows, not(wdf_driver_entry_lib)))]
mod loader;
