//! Miniport drivers without an adapter. This machine has no adapters, so a driver registers, NDIS takes over its driver
//! object, and unloads it later. MiniportInitializeEx is never called.
//!
//! Sources: ndis.h (NDIS_MINIPORT_DRIVER_CHARACTERISTICS) and the pages of NdisMRegisterMiniportDriver,
//! NdisMDeregisterMiniportDriver, MiniportSetOptions and MiniportDriverUnload.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use crate::nt::driver::offset;
use crate::verifier::callback::{self, At};
use core::ffi::c_void;
use core::mem::offset_of;
use core::ops::Range;
use parking_lot::Mutex;
use std::collections::HashMap;

exports! {
    "NDIS.SYS";
    NdisMRegisterMiniportDriver: PASSIVE,
    NdisMDeregisterMiniportDriver: PASSIVE,
}

const NDIS_STATUS_SUCCESS: i32 = 0;
/// `NDIS_STATUS_BAD_VERSION`.
const BAD_VERSION: i32 = 0xC001_0004_u32 as i32;
/// `NDIS_STATUS_BAD_CHARACTERISTICS`.
const BAD_CHARACTERISTICS: i32 = 0xC001_0005_u32 as i32;
/// `NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS`.
const OBJECT_TYPE: u8 = 0x8A;
/// The sizes of the characteristics' revisions 1 (NDIS 6.0), 2 (6.1) and 3 (6.80).
const SIZES: [u16; 3] = [0x88, 0x98, 0xA0];
/// The NDIS of Windows 10 22H2.
const NEWEST: (u8, u8) = (6, 83);

/// `NDIS_MINIPORT_DRIVER_CHARACTERISTICS`, up to the last member that is used.
#[repr(C)]
struct Characteristics {
    object_type: u8,
    revision: u8,
    size: u16,
    major_ndis: u8,
    minor_ndis: u8,
    major_driver: u8,
    minor_driver: u8,
    flags: u32,
    set_options: u64,
    initialize: u64,
    halt: u64,
    unload: u64,
}

const _: () = assert!(offset_of!(Characteristics, set_options) == 0x10);
const _: () = assert!(offset_of!(Characteristics, unload) == 0x28);

/// The miniport drivers of a machine, by handle.
#[derive(Debug, Default)]
pub struct Miniports {
    registered: Mutex<HashMap<u64, Miniport>>,
}

#[derive(Clone, Copy, Debug)]
struct Miniport {
    driver_object: usize,
    unload: u64,
    /// The address of the call that registered it.
    by: u64,
}

impl Miniports {
    /// The registrations that code within `range` made and did not undo, as text.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let registered = self.registered.lock();
        let of_driver = registered.values().filter(|miniport| range.contains(&miniport.by));
        of_driver.map(|_| "a miniport driver that is still registered with NDIS".to_owned()).collect()
    }
}

unsafe extern "win64" fn NdisMRegisterMiniportDriver(
    driver_object: usize,
    _registry_path: *const c_void,
    context: u64,
    characteristics: *const Characteristics,
    handle: *mut u64,
) -> i32 {
    let by = cpu::caller();
    // SAFETY: the page demands a structure of at least the first revision's size, and no more is read; it is copied,
    // and its header is checked next.
    let given = unsafe { characteristics.read_unaligned() };
    let known = given.object_type == OBJECT_TYPE
        && SIZES.get(usize::from(given.revision).wrapping_sub(1)).is_some_and(|size| given.size >= *size);
    let version = (given.major_ndis, given.minor_ndis);
    if !known || given.initialize == 0 || given.halt == 0 || given.unload == 0 {
        return BAD_CHARACTERISTICS;
    }
    if version.0 != NEWEST.0 || version > NEWEST {
        return BAD_VERSION;
    }
    // Made of the object's address, so that a driver cannot confuse it with another handle.
    let key = driver_object as u64 | 1;
    let miniport = Miniport { driver_object, unload: given.unload, by };
    cpu::with_machine(|machine| machine.miniports.registered.lock().insert(key, miniport));
    // SAFETY: the page demands the DRIVER_OBJECT that DriverEntry got, which ntsim's loader made with this layout, and
    // a variable for the handle. The loader frees the object.
    unsafe {
        ((driver_object + offset::DRIVER_UNLOAD) as *mut u64).write_unaligned(unload as *const () as u64);
        handle.write(key);
    }
    if given.set_options != 0 {
        // SAFETY: a MINIPORT_SET_OPTIONS by the characteristics' page, checked for null; a wrong address faults and
        // stops the machine.
        let set_options: extern "win64" fn(u64, u64) -> i32 = unsafe { core::mem::transmute(given.set_options) };
        let status = callback::call(&At("MiniportSetOptions", given.set_options), "MiniportSetOptions", || {
            set_options(key, context)
        });
        if status != NDIS_STATUS_SUCCESS {
            cpu::with_machine(|machine| machine.miniports.registered.lock().remove(&key));
            return status;
        }
    }
    NDIS_STATUS_SUCCESS
}

extern "win64" fn NdisMDeregisterMiniportDriver(handle: u64) {
    let known = cpu::with_machine(|machine| machine.miniports.registered.lock().remove(&handle).is_some());
    if !known {
        crate::nt::violation(
            [0, handle, 0, 0],
            format!("NdisMDeregisterMiniportDriver was given {handle:#x}, which is not a miniport driver handle"),
        );
    }
}

/// The unload routine that NDIS sets in the driver object; it calls the miniport's.
extern "win64" fn unload(driver_object: usize) {
    let found = cpu::with_machine(|machine| {
        let registered = machine.miniports.registered.lock();
        registered.values().find(|miniport| miniport.driver_object == driver_object).map(|miniport| miniport.unload)
    });
    let Some(routine) = found else { return };
    // SAFETY: a MINIPORT_DRIVER_UNLOAD by the characteristics' page, checked for null at the registration; a wrong
    // address faults and stops the machine.
    let entry: extern "win64" fn(usize) = unsafe { core::mem::transmute(routine) };
    callback::call(&At("MiniportDriverUnload", routine), "MiniportDriverUnload", || entry(driver_object));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::sync::atomic::{AtomicU64, Ordering};
    use nt_abi::Irql;

    static HANDLE: AtomicU64 = AtomicU64::new(0);

    extern "win64" fn deregisters(_: usize) {
        NdisMDeregisterMiniportDriver(HANDLE.load(Ordering::Acquire));
    }

    fn characteristics() -> Characteristics {
        Characteristics {
            object_type: OBJECT_TYPE,
            revision: 2,
            size: 0x98,
            major_ndis: 6,
            minor_ndis: 30,
            major_driver: 0,
            minor_driver: 0,
            flags: 0,
            set_options: 0,
            initialize: 1,
            halt: 1,
            unload: deregisters as *const () as u64,
        }
    }

    #[test]
    fn a_miniport_driver_is_registered_and_unloaded() {
        let machine = Machine::new();
        let mut object = [0_u64; 64];
        let at = object.as_mut_ptr() as usize;
        cpu::enter(&machine, Irql::PASSIVE, || {
            let register = |given: &Characteristics| {
                let mut handle = 0;
                // SAFETY: all of it is the test's.
                let status = unsafe { NdisMRegisterMiniportDriver(at, core::ptr::null(), 0, given, &mut handle) };
                (status, handle)
            };
            assert_eq!(register(&Characteristics { revision: 9, ..characteristics() }).0, BAD_CHARACTERISTICS);
            assert_eq!(register(&Characteristics { unload: 0, ..characteristics() }).0, BAD_CHARACTERISTICS);
            assert_eq!(register(&Characteristics { major_ndis: 5, ..characteristics() }).0, BAD_VERSION);
            let (status, handle) = register(&characteristics());
            assert_eq!(status, NDIS_STATUS_SUCCESS);
            HANDLE.store(handle, Ordering::Release);
        })
        .unwrap();
        assert_eq!(machine.miniports.left_by(&(0..u64::MAX)).len(), 1);
        // SAFETY: the routine that NDIS stored in our driver object.
        let routine: extern "win64" fn(usize) =
            unsafe { core::mem::transmute(((at + offset::DRIVER_UNLOAD) as *const u64).read()) };
        cpu::enter(&machine, Irql::PASSIVE, || routine(at)).unwrap();
        assert!(machine.miniports.left_by(&(0..u64::MAX)).is_empty());
        let again = cpu::enter(&machine, Irql::PASSIVE, || deregisters(at)).unwrap_err();
        assert!(again.why.contains("not a miniport driver handle"), "{again}");
    }
}
