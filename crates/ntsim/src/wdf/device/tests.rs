//! Devices and files as the I/O manager and user programs meet them.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::super::abi::{FileConfig, FileCreateCallback, Handle, ObjectAttributes, QueueConfig, UnicodeString};
use super::super::status;
use super::super::testing::{Calls, Rig, SDDL, Wide, attributes, context_type, file_config, queue_config, wdf};
use super::InCallerCallback;
use crate::cpu;
use crate::nt::io::OpenFile;
use crate::pe::gate::import;
use nt_abi::Irql;
use nt_abi::NtStatus;

const NO_RIG: Calls = Calls { globals: ptr::null() };
const NAME: &str = r"\Device\Tested";

fn complete(request: Handle, status: NtStatus) {
    wdf!(NO_RIG, WdfRequestComplete(request => Handle, status => NtStatus) -> ());
}

fn open(rig: &Rig) -> Result<OpenFile, NtStatus> {
    rig.machine.io.open(&rig.machine, NAME)
}

fn set_files(rig: &Rig, init: Handle, config: FileConfig, of_file: ObjectAttributes) {
    wdf!(rig, WdfDeviceInitSetFileObjectConfig(
        init => Handle, &raw const config => *const FileConfig, &raw const of_file => *const ObjectAttributes) -> ());
}

#[test]
fn nobody_opens_a_device_that_is_not_finished() {
    let rig = Rig::new();
    let device = rig.run(|| rig.device(NAME, |_| ())).unwrap();
    assert_eq!(open(&rig).unwrap_err(), NtStatus::NO_SUCH_DEVICE);
    rig.run(|| rig.finish(device)).unwrap();
    drop(open(&rig).unwrap());
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
    assert_eq!(open(&rig).unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND, "unload took the device away");
}

#[test]
fn a_control_device_has_no_raw_mode_and_is_made_all_the_same() {
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |init| {
            let class = [0x11_u8; 16];
            let raw =
                wdf!(rig, WdfPdoInitAssignRawDevice(init => Handle, &raw const class => *const [u8; 16]) -> NtStatus);
            assert_eq!(raw, NtStatus::INVALID_PARAMETER);
        });
        rig.finish(device);
    })
    .unwrap();
    drop(open(&rig).unwrap());
}

#[test]
fn the_device_object_has_the_layout_and_flags_of_wdm() {
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |init| {
            wdf!(rig, WdfDeviceInitSetExclusive(init => Handle, 1 => u8) -> ());
            wdf!(rig, WdfDeviceInitSetDeviceType(init => Handle, 0x12 => u32) -> ());
        });
        let address = wdf!(rig, WdfDeviceWdmGetDeviceObject(device => Handle) -> usize);
        let word = |offset: usize| {
            // SAFETY: within the device object.
            unsafe { ((address + offset) as *const u32).read_volatile() }
        };
        assert_eq!(word(0) & 0xFFFF, 3, "Type");
        // SAFETY: as above.
        assert_eq!(unsafe { ((address + 8) as *const usize).read() }, rig.object_address() as usize, "DriverObject");
        // DO_BUFFERED_IO | DO_EXCLUSIVE | DO_DEVICE_HAS_NAME | DO_DEVICE_INITIALIZING
        assert_eq!(word(0x30), 0x04 | 0x08 | 0x40 | 0x80, "Flags");
        assert_eq!(word(0x48), 0x12, "DeviceType");
        assert_eq!(rig.field(8), address, "the driver object's list");
        rig.finish(device);
        assert_eq!(word(0x30) & 0x80, 0);
        assert_eq!(wdf!(rig, WdfWdmDeviceGetWdfDeviceHandle(address => usize) -> Handle), device);
        assert_eq!(wdf!(rig, WdfWdmDeviceGetWdfDeviceHandle(0x10 => usize) -> Handle), Handle::NULL);
        assert_eq!(wdf!(rig, WdfDeviceGetDriver(device => Handle) -> Handle), rig.driver);
        let second = rig.device(r"\Device\Second", |_| ());
        rig.delete(device);
        let other = wdf!(rig, WdfDeviceWdmGetDeviceObject(second => Handle) -> usize);
        assert_eq!(rig.field(8), other, "the deleted one is out of the list");
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
    assert_eq!(rig.field(8), 0);
}

#[test]
fn names_collide_and_a_failed_create_leaves_the_init_to_the_driver() {
    let rig = Rig::new();
    rig.run(|| {
        rig.device(NAME, |_| ());
        assert_eq!(rig.try_device(NAME, attributes(), |_| ()).0, NtStatus::OBJECT_NAME_COLLISION);
        assert_eq!(rig.try_device("NoBackslash", attributes(), |_| ()).0, NtStatus::OBJECT_NAME_INVALID);
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_name_in_the_users_directory_leads_to_the_device_until_it_is_deleted() {
    let rig = Rig::new();
    let device = rig
        .run(|| {
            let device = rig.device(NAME, |_| ());
            let link = Wide::new(r"\DosDevices\Tested");
            let create = || {
                wdf!(rig, WdfDeviceCreateSymbolicLink(device => Handle, link.get() => *const UnicodeString) -> NtStatus)
            };
            assert_eq!(create(), NtStatus::SUCCESS);
            assert_eq!(create(), NtStatus::OBJECT_NAME_COLLISION);
            rig.finish(device);
            device
        })
        .unwrap();
    let info = &rig.machine.io.devices()[0];
    assert_eq!((info.name.as_str(), info.sddl.as_str(), info.driver.as_str()), (NAME, SDDL, "Testee"));
    drop(rig.machine.io.open(&rig.machine, r"\\.\Tested").unwrap());
    rig.run(|| rig.delete(device)).unwrap();
    assert_eq!(rig.machine.io.open(&rig.machine, r"\\.\Tested").unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_descriptor_that_is_none_gives_no_init_and_a_used_init_is_gone() {
    let rig = Rig::new();
    rig.run(|| {
        let nonsense = Wide::new("nonsense");
        let init = wdf!(rig, WdfControlDeviceInitAllocate(
            rig.driver => Handle, nonsense.get() => *const UnicodeString) -> Handle);
        assert!(init.is_null());
    })
    .unwrap();
    let mut kept = Handle::NULL;
    let (code, why) = rig.violation(|| {
        rig.device(NAME, |init| kept = init);
        wdf!(rig, WdfDeviceInitSetExclusive(kept => Handle, 1 => u8) -> ());
    });
    assert_eq!(code, 5);
    assert!(why.contains("became a device"), "{why}");
}

#[test]
fn an_init_that_is_neither_used_nor_freed_is_a_leak() {
    let rig = Rig::new();
    rig.run(|| {
        let sddl = Wide::new(SDDL);
        wdf!(rig, WdfControlDeviceInitAllocate(rig.driver => Handle, sddl.get() => *const UnicodeString) -> Handle)
    })
    .unwrap();
    let leaks = rig.unload().unwrap();
    assert_eq!(leaks.len(), 1, "{leaks:?}");
    assert!(leaks[0].contains("WDFDEVICE_INIT"), "{leaks:?}");
}

#[test]
fn files_are_created_cleaned_up_and_closed_with_one_object_and_context() {
    static KIND: super::super::testing::Type = context_type(c"FILE_CONTEXT", 8);
    static LOG: Mutex<Vec<(&str, Handle)>> = Mutex::new(Vec::new());
    extern "win64" fn created(device: Handle, request: Handle, file: Handle) {
        assert_eq!(wdf!(NO_RIG, WdfFileObjectGetDevice(file => Handle) -> Handle), device);
        assert_eq!(wdf!(NO_RIG, WdfRequestGetFileObject(request => Handle) -> Handle), file);
        let wdm = wdf!(NO_RIG, WdfFileObjectWdmGetFileObject(file => Handle) -> usize);
        let device_object = wdf!(NO_RIG, WdfDeviceWdmGetDeviceObject(device => Handle) -> usize);
        // SAFETY: a FILE_OBJECT of documented layout.
        assert_eq!(unsafe { ((wdm + 8) as *const usize).read() }, device_object);
        assert_ne!(context(file), 0);
        LOG.lock().push(("create", file));
        complete(request, NtStatus::SUCCESS);
    }
    fn context(file: Handle) -> usize {
        wdf!(NO_RIG, WdfObjectGetTypedContextWorker(
            file => Handle, ptr::from_ref(&KIND.0).cast() => *const c_void) -> usize)
    }
    extern "win64" fn cleanup(file: Handle) {
        LOG.lock().push(("cleanup", file));
    }
    extern "win64" fn close(file: Handle) {
        LOG.lock().push(("close", file));
    }
    extern "win64" fn destroyed(file: Handle) {
        LOG.lock().push(("destroy", file));
    }
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |init| {
            let config =
                FileConfig { create: Some(created), cleanup: Some(cleanup), close: Some(close), ..file_config() };
            let of_file =
                ObjectAttributes { context_type: &raw const KIND.0, destroy: Some(destroyed), ..attributes() };
            set_files(&rig, init, config, of_file);
        });
        rig.finish(device);
    })
    .unwrap();
    drop(open(&rig).unwrap());
    let log = core::mem::take(&mut *LOG.lock());
    let names: Vec<&str> = log.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["create", "cleanup", "close", "destroy"]);
    assert!(log.iter().all(|(_, file)| *file == log[0].1 && !file.is_null()));
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn an_open_that_the_driver_refuses_leaves_no_file() {
    static CLOSED: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn refused(_: Handle, request: Handle, _: Handle) {
        complete(request, NtStatus::ACCESS_DENIED);
    }
    extern "win64" fn close(_: Handle) {
        CLOSED.fetch_add(1, Ordering::Relaxed);
    }
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |init| {
            let config =
                FileConfig { create: Some(refused), cleanup: Some(close), close: Some(close), ..file_config() };
            set_files(&rig, init, config, attributes());
        });
        rig.finish(device);
    })
    .unwrap();
    assert_eq!(open(&rig).unwrap_err(), NtStatus::ACCESS_DENIED);
    assert_eq!(CLOSED.load(Ordering::Relaxed), 0, "no cleanup and close for what was never open");
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn an_open_may_be_answered_later_by_another_thread() {
    static HELD: Mutex<Handle> = Mutex::new(Handle::NULL);
    extern "win64" fn later(_: Handle, request: Handle, _: Handle) {
        *HELD.lock() = request;
    }
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |init| {
            let create: FileCreateCallback = later;
            set_files(&rig, init, FileConfig { create: Some(create), ..file_config() }, attributes());
        });
        rig.finish(device);
    })
    .unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| open(&rig).map(drop));
        let held = loop {
            let held = *HELD.lock();
            if !held.is_null() {
                break held;
            }
            std::thread::yield_now();
        };
        rig.run(|| complete(held, NtStatus::SUCCESS)).unwrap();
        opening.join().unwrap().unwrap();
    });
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn create_requests_go_to_a_queue_that_is_configured_for_them() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn any(_: Handle, request: Handle) {
        SEEN.fetch_add(1, Ordering::Relaxed);
        complete(request, NtStatus::SUCCESS);
    }
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |_| ());
        let queue = rig.queue(device, &QueueConfig { io_default: Some(any), ..queue_config(2) });
        let configure = |kind: u32| {
            wdf!(rig, WdfDeviceConfigureRequestDispatching(
                device => Handle, queue => Handle, kind => u32) -> NtStatus)
        };
        assert_eq!(configure(0), NtStatus::SUCCESS);
        assert_eq!(configure(0), NtStatus::INVALID_PARAMETER);
        assert_eq!(configure(14), NtStatus::SUCCESS);
        assert_eq!(configure(14), status::WDF_BUSY);
        assert_eq!(configure(99), NtStatus::INVALID_PARAMETER);
        rig.finish(device);
    })
    .unwrap();
    let file = open(&rig).unwrap();
    assert_eq!(SEEN.load(Ordering::Relaxed), 1);
    assert_eq!(file.ioctl(0x22_2000, &[], 0).unwrap().0, NtStatus::SUCCESS);
    assert_eq!(file.read(1, None).unwrap().0, NtStatus::INVALID_DEVICE_REQUEST, "reads have no queue");
    drop(file);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn an_exclusive_device_is_open_once() {
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |init| {
            wdf!(rig, WdfDeviceInitSetExclusive(init => Handle, 1 => u8) -> ());
        });
        rig.finish(device);
    })
    .unwrap();
    let first = open(&rig).unwrap();
    assert_eq!(open(&rig).unwrap_err(), NtStatus::ACCESS_DENIED);
    drop(first);
    drop(open(&rig).unwrap());
}

#[test]
fn a_device_deleted_while_open_goes_with_its_last_file() {
    const LINK: &str = r"\DosDevices\Tested";
    static GONE: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn gone(_: Handle) {
        GONE.fetch_add(1, Ordering::Relaxed);
    }
    let rig = Rig::new();
    let device = rig
        .run(|| {
            let device = rig.device_with(NAME, ObjectAttributes { cleanup: Some(gone), ..attributes() }, |_| ());
            let link = Wide::new(LINK);
            let linked = wdf!(rig, WdfDeviceCreateSymbolicLink(
                device => Handle, link.get() => *const UnicodeString) -> NtStatus);
            assert_eq!(linked, NtStatus::SUCCESS);
            rig.finish(device);
            device
        })
        .unwrap();
    let file = open(&rig).unwrap();
    rig.run(|| rig.delete(device)).unwrap();
    assert_eq!(GONE.load(Ordering::Relaxed), 0);
    assert_eq!(open(&rig).unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
    let link_again = || rig.machine.io.create_symlink(LINK, r"\Device\Other");
    assert_eq!(link_again(), NtStatus::OBJECT_NAME_COLLISION, "the link goes with the device");
    drop(file);
    assert_eq!(GONE.load(Ordering::Relaxed), 1);
    assert_eq!(link_again(), NtStatus::SUCCESS);
    rig.machine.io.delete_symlink(LINK);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn in_the_callers_context_a_driver_locks_the_callers_memory_and_queues_the_request() {
    static TARGET: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn in_caller(device: Handle, request: Handle) {
        assert_eq!(cpu::irql(), Irql::PASSIVE);
        let lock = |address: usize, length: usize| {
            let mut memory = Handle::NULL;
            let status = wdf!(NO_RIG, WdfRequestProbeAndLockUserBufferForWrite(
                request => Handle, address => usize, length => usize, &raw mut memory => *mut Handle) -> NtStatus);
            status.ok().map(|()| memory)
        };
        assert_eq!(lock(16, 4), Err(NtStatus::ACCESS_VIOLATION));
        assert_eq!(NtStatus::ACCESS_VIOLATION.0 as u32, 0xC000_0005);
        assert_eq!(lock(0, 0), Err(status::INVALID_USER_BUFFER));
        let memory = lock(TARGET.as_ptr() as usize, 4).unwrap();
        let buffer = wdf!(NO_RIG, WdfMemoryGetBuffer(memory => Handle, ptr::null_mut() => *mut usize) -> *mut u32);
        // SAFETY: the locked memory is the atomic's.
        unsafe { buffer.write_volatile(42) };
        let status = wdf!(NO_RIG, WdfDeviceEnqueueRequest(device => Handle, request => Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
    }
    extern "win64" fn control(_: Handle, request: Handle, _: usize, _: usize, _: u32) {
        complete(request, NtStatus::SUCCESS);
    }
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |init| {
            let callback: InCallerCallback = in_caller;
            wdf!(rig, WdfDeviceInitSetIoInCallerContextCallback(
                init => Handle, Some(callback) => Option<InCallerCallback>) -> ());
        });
        rig.queue(device, &QueueConfig { default_queue: 1, io_device_control: Some(control), ..queue_config(2) });
        rig.finish(device);
    })
    .unwrap();
    let file = open(&rig).unwrap();
    assert_eq!(file.ioctl(0x22_2003, &[1], 1).unwrap().0, NtStatus::SUCCESS);
    assert_eq!(TARGET.load(Ordering::Relaxed), 42);
    drop(file);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn device_scope_serializes_the_queues_of_a_device() {
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static MOST: AtomicU32 = AtomicU32::new(0);
    fn work(request: Handle) {
        MOST.fetch_max(INSIDE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        complete(request, NtStatus::SUCCESS);
    }
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        work(request);
    }
    extern "win64" fn control(_: Handle, request: Handle, _: usize, _: usize, _: u32) {
        work(request);
    }
    let rig = Rig::new();
    rig.run(|| {
        let scoped = ObjectAttributes { synchronization_scope: 2, ..attributes() };
        let device = rig.device_with(NAME, scoped, |_| ());
        rig.queue(device, &QueueConfig { default_queue: 1, io_read: Some(read), ..queue_config(2) });
        let controls = rig.queue(device, &QueueConfig { io_device_control: Some(control), ..queue_config(2) });
        let status = wdf!(rig, WdfDeviceConfigureRequestDispatching(
            device => Handle, controls => Handle, 14 => u32) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        let passive = ObjectAttributes { execution_level: 2, ..attributes() };
        let config = QueueConfig { io_read: Some(read), ..queue_config(2) };
        assert_eq!(rig.try_queue(device, &config, passive).0, NtStatus::INVALID_PARAMETER, "another level");
        rig.finish(device);
    })
    .unwrap();
    let file = open(&rig).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let file = &file;
            scope.spawn(move || {
                for _ in 0..100 {
                    let status = match thread % 2 {
                        0 => file.read(4, None).unwrap().0,
                        _ => file.ioctl(0x22_2000, &[], 0).unwrap().0,
                    };
                    assert_eq!(status, NtStatus::SUCCESS);
                }
            });
        }
    });
    assert_eq!(MOST.load(Ordering::SeqCst), 1);
    drop(file);
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_device_object_lives_as_long_as_somebody_refers_to_it() {
    let rig = Rig::new();
    rig.run(|| {
        let device = rig.device(NAME, |_| ());
        let object = wdf!(rig, WdfDeviceWdmGetDeviceObject(device => Handle) -> u64);
        let reference: extern "win64" fn(u64) -> i64 = import("ObfReferenceObject");
        let dereference: extern "win64" fn(u64) -> i64 = import("ObfDereferenceObject");
        assert_eq!((reference(object), reference(object)), (2, 3));
        rig.delete(device);
        assert!(rig.machine.pool.kind_at(object).is_some());
        dereference(object);
        assert!(rig.machine.pool.kind_at(object).is_some());
        dereference(object);
        assert!(rig.machine.pool.kind_at(object).is_none(), "the last reference is gone");
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}
