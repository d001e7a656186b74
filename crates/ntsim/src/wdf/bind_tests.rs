use core::ffi::c_void;
use core::ptr;

use super::super::abi::Version;
use super::super::testing::{Calls, Rig, Wide, bind_as, bind_raw, slot, unbind, wdf};
use super::*;
use crate::cpu;
use crate::machine::Machine as TheMachine;

const PATH: &str = r"\Registry\Machine\System\CurrentControlSet\Services\Binder";
const OBJECT: *mut c_void = 0x1000 as *mut c_void;

fn inside<R>(f: impl FnOnce() -> R) -> R {
    cpu::enter(&TheMachine::new(), Irql::PASSIVE, f).unwrap()
}

#[test]
fn a_new_client_gets_the_address_of_the_table() {
    inside(|| {
        let (status, globals, table) = bind_as(OBJECT, &Wide::new(PATH), 15, 444);
        assert_eq!(status, NtStatus::SUCCESS);
        let frameworks = table[0].cast::<*const ()>();
        // SAFETY: the framework's table has every slot of the newest version.
        unsafe {
            assert_eq!(*frameworks.add(116), slot("WdfDriverCreate"));
            assert_eq!(*frameworks.add(457), slot("WdfDeviceSetDeviceInterfaceStateEx"));
            assert_eq!(&(&(*globals).driver_name)[..7], b"Binder\0");
            assert!((*globals).driver.is_null(), "no WdfDriverCreate yet");
        }
        assert!(table[1..].iter().all(|entry| entry.is_null()), "nothing but the pointer is written");
        assert_eq!(unbind(globals), NtStatus::SUCCESS);
    });
}

#[test]
fn an_old_client_gets_its_own_table_filled() {
    inside(|| {
        for (minor, count) in [(9, 396), (11, 432), (13, 438)] {
            let (status, globals, table) = bind_as(OBJECT, &Wide::new(PATH), minor, count);
            assert_eq!(status, NtStatus::SUCCESS);
            assert_eq!(table[116], slot("WdfDriverCreate"));
            assert_eq!(table[count as usize - 1], slot(table::NAMES[count as usize - 1]));
            assert!(table.iter().all(|entry| !entry.is_null()));
            assert_eq!(unbind(globals), NtStatus::SUCCESS);
        }
    });
}

#[test]
fn every_version_binds_with_its_count_and_with_no_other() {
    inside(|| {
        let path = Wide::new(PATH);
        for (minor, count) in FUNCTION_COUNTS {
            let (status, globals, _) = bind_as(OBJECT, &path, minor, count);
            assert_eq!(status, NtStatus::SUCCESS, "1.{minor}");
            assert_eq!(unbind(globals), NtStatus::SUCCESS);
            for wrong in [count - 1, count + 1] {
                assert_eq!(bind_as(OBJECT, &path, minor, wrong).0, NtStatus::INVALID_PARAMETER, "1.{minor} {wrong}");
            }
        }
        assert_eq!(bind_as(OBJECT, &path, 35, 460).0, super::super::status::REVISION_MISMATCH);
        assert_eq!(bind_as(OBJECT, &path, 7, 387).0, NtStatus::NOT_SUPPORTED);
    });
}

fn info(component: &[u16], table: &mut *const ()) -> BindInfo {
    BindInfo {
        size: 48,
        component: component.as_ptr(),
        version: Version { major: 1, minor: 33, build: 0 },
        function_count: 458,
        function_table: table,
        module: ptr::null_mut(),
    }
}

#[test]
fn the_second_form_of_bind_information_hears_that_the_framework_is_not_older() {
    inside(|| {
        let component: Vec<u16> = "KmdfLibrary\0".encode_utf16().collect();
        let (mut table, mut globals) = (ptr::null(), ptr::null());
        let (minimum, mut higher, mut functions, mut structures) = (33_u32, 0xFF_u8, 0_u32, 0_u32);
        let mut info = BindInfo2 {
            v1: BindInfo { size: 88, ..info(&component, &mut table) },
            minimum_version_required: &raw const minimum,
            client_version_higher_than_framework: &raw mut higher,
            function_count: &raw mut functions,
            structure_count: &raw mut structures,
            structure_table: ptr::null_mut(),
        };
        let path = Wide::new(PATH);
        let status = bind_raw(OBJECT, path.get(), (&raw mut info).cast(), &raw mut globals);
        assert_eq!(status, NtStatus::SUCCESS);
        assert_eq!((higher, functions, structures), (0, 458, 81));
        assert!(!table.is_null());
        assert_eq!(unbind(globals), NtStatus::SUCCESS);
    });
}

#[test]
fn bind_information_of_another_size_or_library_is_refused() {
    inside(|| {
        let path = Wide::new(PATH);
        let (mut table, mut globals) = (ptr::null(), ptr::null());
        let kmdf: Vec<u16> = "KmdfLibrary\0".encode_utf16().collect();
        let umdf: Vec<u16> = "UmdfLibrary\0".encode_utf16().collect();
        let mut wrong_size = BindInfo { size: 56, ..info(&kmdf, &mut table) };
        let mut wrong_library = info(&umdf, &mut table);
        let mut no_table = BindInfo { function_table: ptr::null_mut(), ..info(&kmdf, &mut table) };
        let mut bind = |info: &mut BindInfo| bind_raw(OBJECT, path.get(), info, &raw mut globals);
        assert_eq!(bind(&mut wrong_size), NtStatus::INFO_LENGTH_MISMATCH);
        assert_eq!(bind(&mut wrong_library), NtStatus::INVALID_PARAMETER);
        assert_eq!(bind(&mut no_table), NtStatus::INVALID_PARAMETER);
        assert!(table.is_null() && globals.is_null());
    });
}

#[test]
fn a_function_that_is_not_implemented_names_itself() {
    let rig = Rig::new();
    let (_, why) = rig.violation(|| wdf!(rig, WdfUsbTargetDeviceCreate() -> ()));
    assert!(why.contains("WdfUsbTargetDeviceCreate"), "{why}");
}

#[test]
fn the_gates_check_the_irql_of_each_function() {
    use super::super::abi::Handle;
    let allowed = Rig::new();
    allowed.run(|| cpu::at_irql(Irql::DISPATCH, || allowed.object(super::super::testing::attributes()))).unwrap();
    let rig = Rig::new();
    let path = Wide::new("text");
    let mut string = Handle::NULL;
    let stopped = rig
        .run(|| {
            cpu::at_irql(Irql::DISPATCH, || {
                wdf!(rig, WdfStringCreate(
                    path.get() => *const UnicodeString, ptr::null() => *const c_void,
                    &raw mut string => *mut Handle) -> NtStatus)
            })
        })
        .unwrap_err();
    assert_eq!(stopped.code, cpu::code::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert!(stopped.why.contains("KMDF!WdfStringCreate") && stopped.why.contains("DISPATCH_LEVEL"), "{stopped}");
}

#[test]
fn calls_with_globals_of_nobody_are_violations() {
    let rig = Rig::new();
    let stranger = Calls { globals: 0x1234 as *const DriverGlobals };
    let mut object = super::super::abi::Handle::NULL;
    let (_, why) = rig.violation(|| {
        wdf!(stranger, WdfObjectCreate(ptr::null() => *const c_void, &raw mut object => *mut super::super::abi::Handle) -> NtStatus)
    });
    assert!(why.contains("DriverGlobals"), "{why}");
}

#[test]
fn unload_ends_the_driver_object_and_leaves_nothing() {
    let rig = Rig::new();
    // SAFETY: the globals live until unbind.
    unsafe {
        assert_eq!((*rig.globals).driver, rig.driver);
        assert_eq!((*rig.globals).displace_driver_unload, 1);
        assert_eq!((*rig.globals).driver_flags, 1);
    }
    assert!(rig.machine.wdf.is_client("TESTEE"));
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
    assert!(!rig.machine.wdf.is_client("testee"));
}

#[test]
fn a_driver_without_unload_callback_is_not_displaced() {
    let rig = Rig::with(15, 444, None);
    // SAFETY: the globals live until unbind.
    unsafe { assert_eq!((*rig.globals).displace_driver_unload, 0) };
    assert_eq!(rig.field(0x68), 0, "DriverUnload is NULL");
    assert_eq!(rig.add_device(), 0, "AddDevice is NULL in a driver without plug and play");
    assert_eq!(Rig::new().add_device(), 0);
}
