//! `WDFLDR.SYS`: how a driver finds its framework.

use core::ffi::c_void;
use core::ptr;

use super::abi::{BindInfo, BindInfo2, DriverGlobals, UnicodeString};
use super::ddi;
use super::driver;
use super::string;
use super::table;
use super::violation::Fault;
use crate::export::Export;
use nt_abi::Irql;
use nt_abi::NtStatus;

/// What WDFLDR.SYS exports. All of it is paged code.
pub const EXPORTS: &[Export] = &[
    Export::function(MODULE, "WdfVersionBind", Irql::PASSIVE, version_bind as *const ()),
    Export::function(MODULE, "WdfVersionUnbind", Irql::PASSIVE, version_unbind as *const ()),
    Export::function(MODULE, "WdfVersionBindClass", Irql::PASSIVE, version_bind_class as *const ()),
    Export::function(MODULE, "WdfVersionUnbindClass", Irql::PASSIVE, version_unbind_class as *const ()),
    Export::function(MODULE, "WdfLdrQueryInterface", Irql::PASSIVE, query_interface as *const ()),
];

const MODULE: &str = "WDFLDR.SYS";

/// The version of the framework here: 1.33, Windows 11 and Server 2022.
pub const NEWEST_MINOR: u32 = 33;
/// The oldest clients served: 1.9, Windows 7.
pub const OLDEST_MINOR: u32 = 9;
/// Structures that the newest framework knows by index (`StructTable` of 1.31 and 1.33).
const STRUCTURES: u32 = 81;

/// How many functions each version's table has. A client's count has to be one of them, and its version's.
const FUNCTION_COUNTS: [(u32, u32); 13] = [
    (9, 396),
    (11, 432),
    (13, 438),
    (15, 444),
    (17, 444),
    (19, 446),
    (21, 448),
    (23, 451),
    (25, 453),
    (27, 453),
    (29, 454),
    (31, 458),
    (33, 458),
];

/// Up to this count (1.13) the client owns the table and gets the pointers copied; above, it gets the table's address.
const LAST_COPIED: u32 = 438;

/// Why a bind is refused, as text; the driver only gets the status.
fn refuse(status: NtStatus, why: &str) -> Fault {
    tracing::warn!("WdfVersionBind refuses with {status}: {why}");
    Fault::Status(status)
}

/// What a client asks for, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    minor: u32,
    functions: u32,
}

impl Request {
    /// Checks version and count.
    fn of(info: &BindInfo) -> Result<Self, Fault> {
        let (version, count) = (info.version, info.function_count);
        if version.major != 1 || version.minor > NEWEST_MINOR {
            // Which status the loader gives an older framework's client is not documented; the driver fails to load
            // either way.
            let why = format!("KMDF {}.{} is asked for, 1.{NEWEST_MINOR} is here", version.major, version.minor);
            return Err(refuse(super::status::REVISION_MISMATCH, &why));
        }
        if version.minor < OLDEST_MINOR {
            let why = format!("KMDF 1.{} is asked for, 1.{OLDEST_MINOR} is the oldest served", version.minor);
            return Err(refuse(NtStatus::NOT_SUPPORTED, &why));
        }
        // A minor version between two released ones (there is none) would have the table of the one before.
        let expected = FUNCTION_COUNTS.iter().rev().find(|(minor, _)| *minor <= version.minor).map_or(0, |(_, n)| *n);
        if count != expected {
            let why =
                format!("the table of KMDF 1.{} has {expected} functions, the client says {count}", version.minor);
            return Err(refuse(NtStatus::INVALID_PARAMETER, &why));
        }
        Ok(Self { minor: version.minor, functions: count })
    }
}

/// Whether a driver asks for the framework's library and no other.
///
/// # Safety
/// `component` is null or a NUL-terminated UTF-16 string.
unsafe fn is_kmdf(component: *const u16) -> bool {
    const NAME: &str = "KmdfLibrary";
    // SAFETY: the caller's promise; the comparison ends at the first difference, so not behind the terminator.
    !component.is_null()
        && NAME
            .encode_utf16()
            .chain([0])
            .enumerate()
            .all(|(i, unit)| unsafe { component.add(i).read_unaligned() } == unit)
}

extern "win64" fn version_bind(
    driver_object: *mut c_void,
    registry_path: *const UnicodeString,
    info: *mut BindInfo,
    out: *mut *const DriverGlobals,
) -> NtStatus {
    ddi::status(|machine| {
        if driver_object.is_null() || registry_path.is_null() || info.is_null() || out.is_null() {
            return Err(refuse(NtStatus::INVALID_PARAMETER, "an argument is NULL"));
        }
        // SAFETY: none is null; the bind information has the size its first field says, of which there are two.
        unsafe {
            let v1 = info.read_unaligned();
            let v2 = match v1.size as usize {
                size if size == size_of::<BindInfo>() => None,
                size if size == size_of::<BindInfo2>() => Some(info.cast::<BindInfo2>().read_unaligned()),
                size => {
                    let why = format!("WDF_BIND_INFO has {size} bytes, 48 and 88 are known");
                    return Err(refuse(NtStatus::INFO_LENGTH_MISMATCH, &why));
                }
            };
            if !is_kmdf(v1.component) {
                return Err(refuse(NtStatus::INVALID_PARAMETER, "the component is not KmdfLibrary"));
            }
            if v1.function_table.is_null() {
                return Err(refuse(NtStatus::INVALID_PARAMETER, "FuncTable is NULL"));
            }
            let request = Request::of(&v1)?;
            let path = string::read(registry_path)?.unwrap_or_default();
            let client = machine.wdf.add_client(machine, request.minor, driver_object as usize, &path);
            hand_over(table::of_gates_for(machine), &v1, v2.as_ref(), request);
            out.write(client.globals());
        }
        Ok(())
    })
}

/// Gives the client its function table.
///
/// # Safety
/// The bind information is a driver's, of the forms [`version_bind`] accepts.
unsafe fn hand_over(table: &'static [*const ()], v1: &BindInfo, v2: Option<&BindInfo2>, request: Request) {
    // SAFETY: the caller's promise: FuncTable is the address of a pointer, or of `functions` of them; the pointers of
    // the second form are null or the addresses of variables.
    unsafe {
        if request.functions > LAST_COPIED {
            v1.function_table.cast::<*const *const ()>().write_unaligned(table.as_ptr());
        } else {
            ptr::copy_nonoverlapping(table.as_ptr(), v1.function_table, request.functions as usize);
        }
        let Some(v2) = v2 else { return };
        if !v2.client_version_higher_than_framework.is_null() {
            v2.client_version_higher_than_framework.write(0);
        }
        if !v2.function_count.is_null() {
            v2.function_count.write(table.len() as u32);
        }
        if !v2.structure_count.is_null() {
            v2.structure_count.write(STRUCTURES);
        }
    }
}

extern "win64" fn version_unbind(
    _registry_path: *const UnicodeString,
    _info: *mut BindInfo,
    globals: *const DriverGlobals,
) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        // A driver whose DriverEntry failed after WdfDriverCreate is not asked to unload; its objects go here.
        driver::finish(machine, &client, false)?;
        machine.wdf.remove_client(&client);
        Ok(())
    })
}

/// There is no class extension to bind to.
extern "win64" fn version_bind_class(_: *mut BindInfo, _: *const DriverGlobals, _: *mut c_void) -> NtStatus {
    refused_class()
}

fn refused_class() -> NtStatus {
    tracing::warn!("WdfVersionBindClass: the driver asks for a class extension; there is none");
    NtStatus::OBJECT_NAME_NOT_FOUND
}

/// The stub of KMDF unbinds every class that the driver was linked for when one of them cannot be bound, so a class
/// that was never bound is no violation. Seen in drivers linked for NetAdapterCx.
extern "win64" fn version_unbind_class(_: *mut BindInfo, _: *const DriverGlobals, _: *mut c_void) {}

/// The only interface that stubs ask for reports a failed DriverEntry to the loader; stubs go on without it.
extern "win64" fn query_interface(_: *mut c_void) -> NtStatus {
    NtStatus::NOT_SUPPORTED
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
