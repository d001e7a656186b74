use core::ffi::c_void;
use core::ptr;
use core::time::Duration;

use parking_lot::Mutex;

use super::super::abi::{Handle, ObjectAttributes, ObjectCallback};
use super::super::testing::{Rig, Type, attributes, context_type, wdf};
use crate::cpu;
use nt_abi::Irql;
use nt_abi::NtStatus;

static SMALL: Type = context_type(c"SMALL", 8);
static LARGE: Type = context_type(c"LARGE", 100);

fn typed(kind: &'static Type) -> ObjectAttributes {
    ObjectAttributes { context_type: &raw const kind.0, ..attributes() }
}

fn context(rig: &Rig, object: Handle, kind: &'static Type) -> *mut u64 {
    wdf!(rig, WdfObjectGetTypedContextWorker(object => Handle, ptr::from_ref(&kind.0).cast() => *const c_void) -> *mut u64)
}

/// Each object's name is in its SMALL context; the callbacks read it, so the context must still be there.
fn named(rig: &Rig, name: u64, parent: Handle, cleanup: ObjectCallback, destroy: ObjectCallback) -> Handle {
    let object =
        rig.object(ObjectAttributes { parent, cleanup: Some(cleanup), destroy: Some(destroy), ..typed(&SMALL) });
    // SAFETY: the context has 8 bytes.
    unsafe { context(rig, object, &SMALL).write(name) };
    object
}

macro_rules! recorder {
    ($log:ident, $cleanup:ident, $destroy:ident) => {
        static $log: Mutex<Vec<(char, u64)>> = Mutex::new(Vec::new());

        fn name(object: Handle) -> u64 {
            type Get = extern "win64" fn(*const c_void, Handle, *const c_void) -> *const u64;
            // SAFETY: the function's signature; the context has 8 bytes.
            unsafe {
                let get: Get = core::mem::transmute(super::super::testing::slot("WdfObjectGetTypedContextWorker"));
                get(ptr::null(), object, ptr::from_ref(&SMALL.0).cast()).read()
            }
        }

        extern "win64" fn $cleanup(object: Handle) {
            $log.lock().push(('c', name(object)));
        }

        extern "win64" fn $destroy(object: Handle) {
            $log.lock().push(('d', name(object)));
        }
    };
}

#[test]
fn deletion_cleans_up_the_tree_children_first_and_then_destroys_it() {
    recorder!(LOG, cleanup, destroy);
    let rig = Rig::new();
    rig.run(|| {
        let root = named(&rig, 1, Handle::NULL, cleanup, destroy);
        let first = named(&rig, 2, root, cleanup, destroy);
        named(&rig, 3, root, cleanup, destroy);
        named(&rig, 4, first, cleanup, destroy);
        rig.delete(root);
    })
    .unwrap();
    let expected = [('c', 4), ('c', 2), ('c', 3), ('c', 1), ('d', 4), ('d', 2), ('d', 3), ('d', 1)];
    assert_eq!(*LOG.lock(), expected);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_reference_keeps_an_object_after_its_cleanup() {
    recorder!(LOG, cleanup, destroy);
    let rig = Rig::new();
    rig.run(|| {
        let root = named(&rig, 1, Handle::NULL, cleanup, destroy);
        let child = named(&rig, 2, root, cleanup, destroy);
        reference(&rig, child);
        rig.delete(root);
        assert_eq!(*LOG.lock(), [('c', 2), ('c', 1), ('d', 1)]);
        assert!(!context(&rig, child, &SMALL).is_null(), "the handle still works");
        dereference(&rig, child);
        assert_eq!(LOG.lock().last(), Some(&('d', 2)));
    })
    .unwrap();
}

fn reference(rig: &Rig, object: Handle) {
    wdf!(rig, WdfObjectReferenceActual(
        object => Handle, ptr::null() => *const c_void, 1 => i32, ptr::null() => *const u8) -> ());
}

fn dereference(rig: &Rig, object: Handle) {
    wdf!(rig, WdfObjectDereferenceActual(
        object => Handle, ptr::null() => *const c_void, 1 => i32, ptr::null() => *const u8) -> ());
}

#[test]
fn a_reference_that_is_never_dropped_is_a_leak() {
    let rig = Rig::new();
    rig.run(|| reference(&rig, rig.object(typed(&LARGE)))).unwrap();
    let leaks = rig.unload().unwrap();
    assert_eq!(leaks.len(), 1, "{leaks:?}");
    assert!(leaks[0].contains("WDFOBJECT") && leaks[0].contains("LARGE"), "{leaks:?}");
    assert!(rig.machine.wdf.take_leaks("testee").is_empty(), "told once");
}

#[test]
fn deleting_twice_and_using_what_is_deleted_are_violations() {
    let rig = Rig::new();
    let object = rig.run(|| rig.object(attributes())).unwrap();
    rig.run(|| rig.delete(object)).unwrap();
    let (code, why) = rig.violation(|| rig.delete(object));
    assert_eq!(code, 5);
    assert!(why.contains("WDFOBJECT that was deleted"), "{why}");

    let rig = Rig::new();
    let object = rig.run(|| rig.object(attributes())).unwrap();
    let (code, why) = rig.violation(|| {
        reference(&rig, object);
        rig.delete(object);
        rig.delete(object);
    });
    assert_eq!(code, 7);
    assert!(why.contains("second time"), "{why}");
}

#[test]
fn the_last_reference_is_not_the_drivers_to_drop() {
    let rig = Rig::new();
    let (code, why) = rig.violation(|| dereference(&rig, rig.object(attributes())));
    assert_eq!(code, 7);
    assert!(why.contains("without being deleted"), "{why}");
}

#[test]
fn a_handle_of_another_kind_or_of_nothing_is_a_violation() {
    for (wrong, says) in [(None, "WDFDRIVER"), (Some(Handle::NULL), "NULL"), (Some(Handle(0x1000)), "never was")] {
        let rig = Rig::new();
        let wrong = wrong.unwrap_or(rig.driver);
        let (code, why) = rig.violation(|| wdf!(rig, WdfIoQueueStart(wrong => Handle) -> ()));
        assert_eq!(code, 5);
        assert!(why.contains("a WDFQUEUE is expected") && why.contains(says), "{why}");
    }
}

#[test]
fn the_driver_object_is_not_the_drivers_to_delete() {
    let rig = Rig::new();
    let (code, why) = rig.violation(|| rig.delete(rig.driver));
    assert_eq!(code, 7);
    assert!(why.contains("only the framework"), "{why}");
}

#[test]
fn contexts_are_found_by_type_zeroed_and_found_back() {
    let rig = Rig::new();
    rig.run(|| {
        let object = rig.object(typed(&LARGE));
        let large = context(&rig, object, &LARGE);
        assert_eq!(large as usize % 16, 0);
        // SAFETY: the context has 100 bytes.
        assert!(unsafe { core::slice::from_raw_parts(large.cast::<u8>(), 100) }.iter().all(|byte| *byte == 0));
        assert!(context(&rig, object, &SMALL).is_null());

        let (mut added, again) = (ptr::null_mut(), typed(&SMALL));
        let allocate = |out: *mut *mut u64| {
            wdf!(rig, WdfObjectAllocateContext(
                object => Handle, &raw const again => *const ObjectAttributes, out => *mut *mut u64) -> NtStatus)
        };
        assert_eq!(allocate(&raw mut added), NtStatus::SUCCESS);
        assert_eq!(context(&rig, object, &SMALL), added);
        let mut second = ptr::null_mut();
        assert_eq!(allocate(&raw mut second), NtStatus::OBJECT_NAME_EXISTS);
        assert_eq!(second, added);
        for pointer in [large, added] {
            assert_eq!(wdf!(rig, WdfObjectContextGetObject(pointer => *mut u64) -> Handle), object);
        }
    })
    .unwrap();
}

#[test]
fn a_context_pointer_that_is_none_is_a_violation() {
    let rig = Rig::new();
    let (code, why) = rig.violation(|| {
        let object = rig.object(typed(&LARGE));
        let inner = context(&rig, object, &LARGE) as usize + 8;
        wdf!(rig, WdfObjectContextGetObject(inner => usize) -> Handle)
    });
    assert_eq!(code, 5);
    assert!(why.contains("context"), "{why}");
}

#[test]
fn attributes_are_validated() {
    let rig = Rig::new();
    rig.run(|| {
        let mut object = Handle::NULL;
        let mut create = |attributes: ObjectAttributes| {
            wdf!(rig, WdfObjectCreate(
                &raw const attributes => *const ObjectAttributes, &raw mut object => *mut Handle) -> NtStatus)
        };
        use super::super::status;
        assert_eq!(create(ObjectAttributes { size: 48, ..attributes() }), NtStatus::INFO_LENGTH_MISMATCH);
        let passive = ObjectAttributes { execution_level: 2, ..attributes() };
        assert_eq!(create(passive), status::WDF_EXECUTION_LEVEL_INVALID);
        let scoped = ObjectAttributes { synchronization_scope: 2, ..attributes() };
        assert_eq!(create(scoped), status::WDF_SYNCHRONIZATION_SCOPE_INVALID);
        let untyped = ObjectAttributes { context_size_override: 64, ..attributes() };
        assert_eq!(create(untyped), NtStatus::INVALID_PARAMETER);
        let small = ObjectAttributes { context_size_override: 50, ..typed(&LARGE) };
        assert_eq!(create(small), NtStatus::INVALID_PARAMETER);
        let larger = ObjectAttributes { context_size_override: 5000, ..typed(&LARGE) };
        assert_eq!(create(larger), NtStatus::SUCCESS);
        assert!(object != Handle::NULL);
    })
    .unwrap();
}

#[test]
fn a_callback_that_returns_at_another_irql_is_a_violation() {
    extern "win64" fn raises(_: Handle) {
        cpu::raise(Irql::DISPATCH);
    }
    let rig = Rig::new();
    let (code, why) = rig.violation(|| {
        let object = rig.object(ObjectAttributes { cleanup: Some(raises), ..attributes() });
        rig.delete(object);
    });
    assert_eq!(code, 0xE);
    assert!(why.contains("EvtCleanupCallback"), "{why}");
}

#[test]
fn what_must_be_deleted_at_passive_level_is_handed_to_a_thread() {
    static LEVELS: Mutex<Vec<Irql>> = Mutex::new(Vec::new());
    extern "win64" fn cleanup(_: Handle) {
        LEVELS.lock().push(cpu::irql());
    }
    let rig = Rig::new();
    rig.run(|| {
        let plain = rig.object(ObjectAttributes { cleanup: Some(cleanup), ..attributes() });
        let with_passive_child = rig.object(ObjectAttributes { cleanup: Some(cleanup), ..attributes() });
        let mut key = Handle::NULL;
        let of_child = ObjectAttributes { parent: with_passive_child, ..attributes() };
        let opened = wdf!(rig, WdfDriverOpenParametersRegistryKey(
            rig.driver => Handle, 0 => u32, &raw const of_child => *const ObjectAttributes,
            &raw mut key => *mut Handle) -> NtStatus);
        assert_eq!(opened, NtStatus::SUCCESS);
        cpu::at_irql(Irql::DISPATCH, || {
            rig.delete(plain);
            rig.delete(with_passive_child);
        });
    })
    .unwrap();
    assert_eq!(rig.machine.threads.join_within(Duration::from_secs(5)), 0);
    let mut levels = LEVELS.lock().clone();
    levels.sort();
    assert_eq!(levels, [Irql::PASSIVE, Irql::DISPATCH]);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn children_may_be_deleted_by_several_threads_while_their_parent_is() {
    for round in 0..50 {
        let rig = Rig::new();
        let (root, children) = rig
            .run(|| {
                let root = rig.object(attributes());
                let of_root = || ObjectAttributes { parent: root, ..typed(&SMALL) };
                (root, (0..16).map(|_| rig.object(of_root())).collect::<Vec<_>>())
            })
            .unwrap();
        // A deleted child's handle may be stale by the time its thread comes, so the threads hold references.
        rig.run(|| children.iter().for_each(|child| reference(&rig, *child))).unwrap();
        let rig = &rig;
        std::thread::scope(|scope| {
            scope.spawn(|| rig.run(|| rig.delete(root)).unwrap());
            for half in children.chunks(8) {
                scope.spawn(move || {
                    // Deleting a child that its parent's deletion has taken is the one race a driver must not run, so
                    // each thread only touches and releases.
                    for child in half {
                        rig.run(|| dereference(rig, *child)).unwrap();
                    }
                });
            }
        });
        assert_eq!(rig.unload().unwrap(), Vec::<String>::new(), "round {round}");
    }
}
