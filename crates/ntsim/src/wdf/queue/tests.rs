//! Queues as a driver and its callers see them. Each test has statics of its own for what its callbacks do.

mod storm;

use ::core::ffi::c_void;
use ::core::mem::size_of;
use ::core::ptr;
use ::core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ::core::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::super::abi::{Handle, ObjectAttributes, QueueConfig, QueueStateCallback, RequestParameters};
use super::super::status;
use super::super::testing::{Calls, Rig, attributes, file_config, queue_config, wdf};
use super::core::state;
use crate::cpu;
use crate::nt::io::{IrpKind, OpenFile};
use nt_abi::Irql;
use nt_abi::NtStatus;

const CODE: u32 = 0x22_2000;

/// Callbacks have no rig; the globals are not checked by functions that take a handle.
const NO_RIG: Calls = Calls { globals: ptr::null() };

fn complete(request: Handle, status: NtStatus, information: usize) {
    wdf!(NO_RIG, WdfRequestCompleteWithInformation(
        request => Handle, status => NtStatus, information => usize) -> ());
}

fn retrieve(queue: Handle) -> Result<Handle, NtStatus> {
    let mut request = Handle::NULL;
    let status =
        wdf!(NO_RIG, WdfIoQueueRetrieveNextRequest(queue => Handle, &raw mut request => *mut Handle) -> NtStatus);
    status.ok().map(|()| request)
}

fn counts(queue: Handle) -> (u32, u32, u32) {
    let (mut waiting, mut owned) = (0, 0);
    let state = wdf!(NO_RIG, WdfIoQueueGetState(
        queue => Handle, &raw mut waiting => *mut u32, &raw mut owned => *mut u32) -> u32);
    (state, waiting, owned)
}

struct Setup {
    rig: Rig,
    device: Handle,
    queue: Handle,
    file: OpenFile,
}

/// A device with one default queue and a file open on it.
fn setup(config: QueueConfig) -> Setup {
    setup_with(config, attributes())
}

fn setup_with(config: QueueConfig, of_queue: ObjectAttributes) -> Setup {
    let rig = Rig::new();
    let (device, queue) = rig
        .run(|| {
            let device = rig.device(r"\Device\Queues", |init| {
                let config = file_config();
                wdf!(rig, WdfDeviceInitSetFileObjectConfig(
                    init => Handle, ptr::from_ref(&config).cast() => *const c_void,
                    ptr::null() => *const ObjectAttributes) -> ());
            });
            let config = QueueConfig { default_queue: 1, ..config };
            let (status, queue) = rig.try_queue(device, &config, of_queue);
            assert_eq!(status, NtStatus::SUCCESS);
            rig.finish(device);
            (device, queue)
        })
        .unwrap();
    let file = rig.machine.io.open(&rig.machine, r"\Device\Queues").unwrap();
    Setup { rig, device, queue, file }
}

impl Setup {
    /// Closes the file and unloads; nothing may be left.
    fn end(self) {
        drop(self.file);
        assert_eq!(self.rig.unload().unwrap(), Vec::<String>::new());
    }

    fn read(&self) -> crate::nt::io::PendingIo {
        self.file.start(IrpKind::Read { length: 16 }, &[]).unwrap()
    }
}

#[test]
fn requests_reach_the_callback_of_their_type() {
    extern "win64" fn read(_: Handle, request: Handle, length: usize) {
        complete(request, NtStatus::SUCCESS, length / 2);
    }
    extern "win64" fn write(_: Handle, request: Handle, length: usize) {
        complete(request, NtStatus::SUCCESS, length);
    }
    extern "win64" fn control(_: Handle, request: Handle, output: usize, input: usize, code: u32) {
        assert_eq!((output, input, code), (7, 3, CODE));
        let mut parameters = RequestParameters { size: 40, minor_function: 0, kind: 99, parameters: [0; 4] };
        wdf!(NO_RIG, WdfRequestGetParameters(request => Handle, &raw mut parameters => *mut RequestParameters) -> ());
        assert_eq!((parameters.kind, parameters.parameters), (14, [7, 3, u64::from(CODE), 0]));
        complete(request, NtStatus::ACCESS_DENIED, 0);
    }
    let setup = setup(QueueConfig {
        io_read: Some(read),
        io_write: Some(write),
        io_device_control: Some(control),
        ..queue_config(2)
    });
    assert_eq!(setup.file.read(10, None).unwrap(), (NtStatus::SUCCESS, vec![0; 5]));
    assert_eq!(setup.file.write(&[1, 2, 3]).unwrap(), NtStatus::SUCCESS);
    assert_eq!(setup.file.ioctl(CODE, &[9; 3], 7).unwrap(), (NtStatus::ACCESS_DENIED, vec![]));
    setup.end();
}

#[test]
fn the_default_callback_takes_what_no_other_does_and_a_queue_without_one_fails_it() {
    extern "win64" fn any(_: Handle, request: Handle) {
        complete(request, NtStatus::SUCCESS, 0);
    }
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        complete(request, NtStatus::NOT_SUPPORTED, 0);
    }
    let both = setup(QueueConfig { io_default: Some(any), io_read: Some(read), ..queue_config(1) });
    assert_eq!(both.file.ioctl(CODE, &[], 0).unwrap().0, NtStatus::SUCCESS);
    assert_eq!(both.file.read(1, None).unwrap().0, NtStatus::NOT_SUPPORTED);
    both.end();
    let reads_only = setup(QueueConfig { io_read: Some(read), ..queue_config(1) });
    assert_eq!(reads_only.file.ioctl(CODE, &[], 0).unwrap().0, NtStatus::INVALID_DEVICE_REQUEST);
    reads_only.end();
}

#[test]
fn empty_reads_and_writes_only_reach_a_driver_that_wants_them() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn transfer(_: Handle, request: Handle, _: usize) {
        SEEN.fetch_add(1, Ordering::Relaxed);
        complete(request, NtStatus::ACCESS_DENIED, 0);
    }
    let config = QueueConfig { io_read: Some(transfer), io_write: Some(transfer), ..queue_config(2) };
    for (allow, status, seen) in [(0, NtStatus::SUCCESS, 0), (1, NtStatus::ACCESS_DENIED, 2)] {
        let setup = setup(QueueConfig { allow_zero_length: allow, ..config });
        assert_eq!(setup.file.read(0, None).unwrap().0, status);
        assert_eq!(setup.file.write(&[]).unwrap(), status);
        assert_eq!(SEEN.load(Ordering::Relaxed), seen);
        setup.end();
    }
}

#[test]
fn a_sequential_queue_holds_the_second_request_until_the_first_is_completed() {
    static OWNED: Mutex<Vec<Handle>> = Mutex::new(Vec::new());
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        OWNED.lock().push(request);
    }
    let setup = setup(QueueConfig { io_read: Some(read), ..queue_config(1) });
    let first = setup.read();
    let second = setup.read();
    assert_eq!(counts_of(&setup), (state::ACCEPT | state::DISPATCH, 1, 1));
    let owned = OWNED.lock()[0];
    setup.rig.run(|| complete(owned, NtStatus::SUCCESS, 1)).unwrap();
    assert_eq!(first.wait(None).unwrap().1.len(), 1);
    let owned = OWNED.lock()[1];
    setup.rig.run(|| complete(owned, NtStatus::SUCCESS, 2)).unwrap();
    assert_eq!(second.wait(None).unwrap().1.len(), 2);
    setup.end();
}

fn counts_of(setup: &Setup) -> (u32, u32, u32) {
    setup.rig.run(|| counts(setup.queue)).unwrap()
}

#[test]
fn completing_in_the_callback_does_not_recurse() {
    static DEEPEST: AtomicU64 = AtomicU64::new(u64::MAX);
    static SHALLOWEST: AtomicU64 = AtomicU64::new(0);
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        let here = 0_u8;
        let address = &raw const here as u64;
        DEEPEST.fetch_min(address, Ordering::Relaxed);
        SHALLOWEST.fetch_max(address, Ordering::Relaxed);
        complete(request, NtStatus::SUCCESS, 0);
    }
    let setup = setup(QueueConfig { io_read: Some(read), ..queue_config(1) });
    setup.rig.run(|| wdf!(setup.rig, WdfIoQueueStopSynchronously(setup.queue => Handle) -> ())).unwrap();
    let pending: Vec<_> = (0..500).map(|_| setup.read()).collect();
    setup.rig.run(|| wdf!(setup.rig, WdfIoQueueStart(setup.queue => Handle) -> ())).unwrap();
    for read in pending {
        assert_eq!(read.wait(None).unwrap().0, NtStatus::SUCCESS);
    }
    let spread = SHALLOWEST.load(Ordering::Relaxed) - DEEPEST.load(Ordering::Relaxed);
    assert!(spread < 4096, "500 requests used {spread} bytes of stack");
    setup.end();
}

#[test]
fn a_manual_queue_is_read_by_the_driver_and_its_waiting_requests_are_cancelled() {
    let setup = setup(queue_config(3));
    let first = setup.read();
    let second = setup.read();
    let third = setup.read();
    second.cancel().unwrap();
    assert_eq!(second.wait(None).unwrap().0, NtStatus::CANCELLED);
    let (a, b, none) = setup.rig.run(|| (retrieve(setup.queue), retrieve(setup.queue), retrieve(setup.queue))).unwrap();
    assert_eq!(none, Err(NtStatus::NO_MORE_ENTRIES));
    setup.rig.run(|| complete(b.unwrap(), NtStatus::SUCCESS, 3)).unwrap();
    assert_eq!(third.wait(None).unwrap().1.len(), 3, "in order of arrival");
    assert!(!first.is_done());
    setup.rig.run(|| complete(a.unwrap(), NtStatus::SUCCESS, 1)).unwrap();
    assert_eq!(first.wait(None).unwrap().1.len(), 1);
    // An inverted call that nobody answers ends with its caller's patience.
    let (status, data) = setup.file.read(16, Some(Duration::from_millis(10))).unwrap();
    assert_eq!((status, data.len()), (NtStatus::CANCELLED, 0));
    setup.end();
}

#[test]
fn found_requests_are_taken_by_name_and_by_file() {
    let setup = setup(queue_config(3));
    let other = setup.rig.machine.io.open(&setup.rig.machine, r"\Device\Queues").unwrap();
    let mine = setup.read();
    let theirs = other.start(IrpKind::Read { length: 4 }, &[]).unwrap();
    setup
        .rig
        .run(|| {
            let find = |after: Handle, parameters: *mut RequestParameters, out: *mut Handle| {
                wdf!(NO_RIG, WdfIoQueueFindRequest(
                    setup.queue => Handle, after => Handle, Handle::NULL => Handle,
                    parameters => *mut RequestParameters, out => *mut Handle) -> NtStatus)
            };
            let (mut first, mut second, mut third) = (Handle::NULL, Handle::NULL, Handle::NULL);
            let mut parameters = RequestParameters { size: 40, minor_function: 0, kind: 0, parameters: [0; 4] };
            assert_eq!(find(Handle::NULL, ptr::null_mut(), &raw mut first), NtStatus::SUCCESS);
            assert_eq!(find(first, &raw mut parameters, &raw mut second), NtStatus::SUCCESS);
            assert_eq!((parameters.kind, parameters.parameters[0]), (3, 4));
            assert_eq!(find(second, ptr::null_mut(), &raw mut third), NtStatus::NO_MORE_ENTRIES);
            assert_eq!(counts(setup.queue).1, 2, "found is not taken");

            let mut taken = Handle::NULL;
            let take = |found: Handle, out: *mut Handle| {
                wdf!(NO_RIG, WdfIoQueueRetrieveFoundRequest(
                    setup.queue => Handle, found => Handle, out => *mut Handle) -> NtStatus)
            };
            assert_eq!(take(second, &raw mut taken), NtStatus::SUCCESS);
            assert_eq!(taken, second);
            assert_eq!(take(second, &raw mut taken), NtStatus::NOT_FOUND);
            for found in [first, second] {
                wdf!(NO_RIG, WdfObjectDereferenceActual(
                    found => Handle, ptr::null() => *const c_void, 0 => i32, ptr::null() => *const u8) -> ());
            }
            let file = wdf!(NO_RIG, WdfRequestGetFileObject(second => Handle) -> Handle);
            assert!(!file.is_null());
            complete(second, NtStatus::SUCCESS, 4);
            let by_file = |file: Handle, out: *mut Handle| {
                wdf!(NO_RIG, WdfIoQueueRetrieveRequestByFileObject(
                    setup.queue => Handle, file => Handle, out => *mut Handle) -> NtStatus)
            };
            assert_eq!(by_file(file, &raw mut taken), NtStatus::NO_MORE_ENTRIES, "the other file's is answered");
            complete(retrieve(setup.queue).unwrap(), NtStatus::SUCCESS, 1);
        })
        .unwrap();
    assert_eq!(theirs.wait(None).unwrap().1.len(), 4);
    assert_eq!(mine.wait(None).unwrap().1.len(), 1);
    drop(other);
    setup.end();
}

#[test]
fn forwarded_and_requeued_requests_are_not_the_drivers_any_more() {
    static SECOND: Mutex<Handle> = Mutex::new(Handle::NULL);
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        let to = *SECOND.lock();
        let status = wdf!(NO_RIG, WdfRequestForwardToIoQueue(request => Handle, to => Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        // It is not the driver's now.
    }
    let setup = setup(QueueConfig { io_read: Some(read), ..queue_config(1) });
    let manual = setup.rig.run(|| setup.rig.queue(setup.device, &queue_config(3))).unwrap();
    *SECOND.lock() = manual;
    let first = setup.read();
    let second = setup.read();
    setup
        .rig
        .run(|| {
            assert_eq!(
                counts(setup.queue),
                (state::ACCEPT | state::DISPATCH | state::NO_REQUESTS | state::DRIVER_NO_REQUESTS, 0, 0)
            );
            assert_eq!(counts(manual).1, 2, "a sequential queue goes on once its request is forwarded");
            let request = retrieve(manual).unwrap();
            assert_eq!(wdf!(NO_RIG, WdfRequestGetIoQueue(request => Handle) -> Handle), manual);
            assert_eq!(
                wdf!(NO_RIG, WdfRequestForwardToIoQueue(request => Handle, manual => Handle) -> NtStatus),
                NtStatus::INVALID_DEVICE_REQUEST
            );
            assert_eq!(wdf!(NO_RIG, WdfRequestRequeue(request => Handle) -> NtStatus), NtStatus::SUCCESS);
            let again = retrieve(manual).unwrap();
            assert_eq!(again, request, "to the head");
            complete(again, NtStatus::SUCCESS, 1);
            complete(retrieve(manual).unwrap(), NtStatus::SUCCESS, 2);
        })
        .unwrap();
    assert_eq!(first.wait(None).unwrap().1.len(), 1);
    assert_eq!(second.wait(None).unwrap().1.len(), 2);
    setup.end();
}

#[test]
fn a_queue_that_does_not_accept_gives_a_forwarded_request_back() {
    let setup = setup(queue_config(3));
    let closed = setup.rig.run(|| setup.rig.queue(setup.device, &queue_config(3))).unwrap();
    let read = setup.read();
    setup
        .rig
        .run(|| {
            wdf!(NO_RIG, WdfIoQueuePurgeSynchronously(closed => Handle) -> ());
            let request = retrieve(setup.queue).unwrap();
            let status = wdf!(NO_RIG, WdfRequestForwardToIoQueue(request => Handle, closed => Handle) -> NtStatus);
            assert_eq!(status, status::WDF_BUSY);
            assert_eq!(counts(setup.queue).2, 1, "still the driver's");
            complete(request, NtStatus::SUCCESS, 0);
        })
        .unwrap();
    assert_eq!(read.wait(None).unwrap().0, NtStatus::SUCCESS);
    setup.end();
}

#[test]
fn requests_to_a_purged_queue_fail() {
    let setup = setup(queue_config(3));
    let waiting = setup.read();
    setup.rig.run(|| wdf!(NO_RIG, WdfIoQueuePurgeSynchronously(setup.queue => Handle) -> ())).unwrap();
    assert_eq!(waiting.wait(None).unwrap().0, NtStatus::CANCELLED);
    assert_eq!(setup.read().wait(None).unwrap().0, NtStatus::INVALID_DEVICE_STATE);
    setup.rig.run(|| wdf!(NO_RIG, WdfIoQueueStart(setup.queue => Handle) -> ())).unwrap();
    assert!(!setup.read().is_done());
    setup.end();
}

#[test]
fn stop_purge_and_drain_tell_when_the_driver_is_done() {
    static TOLD: Mutex<Vec<(Handle, usize)>> = Mutex::new(Vec::new());
    extern "win64" fn told(queue: Handle, context: *mut c_void) {
        TOLD.lock().push((queue, context as usize));
    }
    let setup = setup(queue_config(3));
    let queue = setup.queue;
    let read = setup.read();
    let tell: Option<QueueStateCallback> = Some(told);
    let request = setup.rig.run(|| retrieve(queue).unwrap()).unwrap();
    setup
        .rig
        .run(|| {
            wdf!(NO_RIG, WdfIoQueueStop(queue => Handle, tell => Option<QueueStateCallback>, 1 => usize) -> ());
            wdf!(NO_RIG, WdfIoQueueDrain(queue => Handle, tell => Option<QueueStateCallback>, 2 => usize) -> ());
            assert_eq!(retrieve(queue), Err(status::WDF_PAUSED));
            assert!(TOLD.lock().is_empty());
            complete(request, NtStatus::SUCCESS, 0);
            assert_eq!(*TOLD.lock(), [(queue, 1), (queue, 2)]);
        })
        .unwrap();
    assert_eq!(read.wait(None).unwrap().0, NtStatus::SUCCESS);
    setup.end();
}

#[test]
fn a_synchronous_stop_waits_for_another_thread() {
    static OWNED: Mutex<Handle> = Mutex::new(Handle::NULL);
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        *OWNED.lock() = request;
    }
    let setup = setup(QueueConfig { io_read: Some(read), ..queue_config(2) });
    let pending = setup.read();
    std::thread::scope(|scope| {
        let rig = &setup.rig;
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            let owned = *OWNED.lock();
            rig.run(|| complete(owned, NtStatus::SUCCESS, 0)).unwrap();
        });
        let begun = Instant::now();
        rig.run(|| wdf!(NO_RIG, WdfIoQueueStopSynchronously(setup.queue => Handle) -> ())).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(25), "{:?}", begun.elapsed());
    });
    assert_eq!(pending.wait(None).unwrap().0, NtStatus::SUCCESS);
    setup.end();
}

#[test]
fn ready_notify_calls_when_something_arrives() {
    static READY: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn ready(queue: Handle, _: *mut c_void) {
        READY.fetch_add(1, Ordering::Relaxed);
        complete(retrieve(queue).unwrap(), NtStatus::SUCCESS, 5);
    }
    let setup = setup(queue_config(3));
    setup
        .rig
        .run(|| {
            let notify = |callback: Option<QueueStateCallback>| {
                wdf!(NO_RIG, WdfIoQueueReadyNotify(
                    setup.queue => Handle, callback => Option<QueueStateCallback>, 0 => usize) -> NtStatus)
            };
            assert_eq!(notify(Some(ready)), NtStatus::SUCCESS);
            assert_eq!(notify(Some(ready)), NtStatus::INVALID_DEVICE_REQUEST);
        })
        .unwrap();
    for _ in 0..3 {
        assert_eq!(setup.file.read(9, None).unwrap().1.len(), 5);
    }
    assert_eq!(READY.load(Ordering::Relaxed), 3);
    setup.end();
}

#[test]
fn a_cancelled_request_that_the_driver_has_seen_comes_back_through_its_callback() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn canceled(_: Handle, request: Handle) {
        SEEN.fetch_add(1, Ordering::Relaxed);
        complete(request, NtStatus::TIMEOUT, 0);
    }
    let setup = setup(QueueConfig { io_canceled_on_queue: Some(canceled), ..queue_config(3) });
    let unseen = setup.read();
    unseen.cancel().unwrap();
    assert_eq!(unseen.wait(None).unwrap().0, NtStatus::CANCELLED);
    assert_eq!(SEEN.load(Ordering::Relaxed), 0, "the driver never had it");
    let seen = setup.read();
    setup
        .rig
        .run(|| {
            let request = retrieve(setup.queue).unwrap();
            assert_eq!(wdf!(NO_RIG, WdfRequestRequeue(request => Handle) -> NtStatus), NtStatus::SUCCESS);
        })
        .unwrap();
    seen.cancel().unwrap();
    assert_eq!(seen.wait(None).unwrap().0, NtStatus::TIMEOUT);
    assert_eq!(SEEN.load(Ordering::Relaxed), 1);
    setup.end();
}

#[test]
fn closing_a_file_cancels_its_waiting_requests_and_no_others() {
    let setup = setup(queue_config(3));
    let other = setup.rig.machine.io.open(&setup.rig.machine, r"\Device\Queues").unwrap();
    let mine = setup.read();
    let theirs = other.start(IrpKind::Read { length: 4 }, &[]).unwrap();
    drop(other);
    assert_eq!(theirs.wait(None).unwrap().0, NtStatus::CANCELLED);
    assert!(!mine.is_done());
    setup.rig.run(|| complete(retrieve(setup.queue).unwrap(), NtStatus::SUCCESS, 0)).unwrap();
    setup.end();
}

#[test]
fn configurations_that_kmdf_refuses_are_refused() {
    extern "win64" fn any(_: Handle, _: Handle) {}
    let setup = setup(queue_config(3));
    let rig = &setup.rig;
    rig.run(|| {
        let create = |config: QueueConfig| rig.try_queue(setup.device, &config, attributes()).0;
        assert_eq!(create(QueueConfig { size: 90, ..queue_config(3) }), NtStatus::INFO_LENGTH_MISMATCH);
        assert_eq!(create(queue_config(0)), NtStatus::INVALID_PARAMETER);
        assert_eq!(create(queue_config(4)), NtStatus::INVALID_PARAMETER);
        assert_eq!(create(queue_config(1)), status::WDF_NO_CALLBACK);
        assert_eq!(create(QueueConfig { io_default: Some(any), ..queue_config(3) }), NtStatus::INVALID_PARAMETER);
        let unpresented = QueueConfig { io_default: Some(any), presented_requests: 0, ..queue_config(2) };
        assert_eq!(create(unpresented), NtStatus::INVALID_PARAMETER);
        let counted = QueueConfig { io_default: Some(any), presented_requests: 2, ..queue_config(1) };
        assert_eq!(create(counted), NtStatus::INVALID_PARAMETER);
        assert_eq!(create(QueueConfig { default_queue: 1, ..queue_config(3) }), NtStatus::UNSUCCESSFUL, "a second one");
        // The shorter forms of older clients: no number of requests, no driver.
        for size in [80, 88] {
            let older = QueueConfig { size, io_default: Some(any), ..queue_config(2) };
            assert_eq!(create(older), NtStatus::SUCCESS, "{size}");
        }
    })
    .unwrap();
    assert_eq!(size_of::<QueueConfig>(), 96);
    setup.end();
}

#[test]
fn the_default_queue_is_not_the_drivers_to_delete_and_others_are() {
    let setup = setup(queue_config(3));
    setup
        .rig
        .run(|| {
            let extra = setup.rig.queue(setup.device, &queue_config(3));
            setup.rig.delete(extra);
        })
        .unwrap();
    let (code, why) = setup.rig.violation(|| setup.rig.delete(setup.queue));
    assert_eq!(code, 7);
    assert!(why.contains("WDFQUEUE"), "{why}");
}

#[test]
fn a_request_that_the_driver_never_completes_is_a_leak_of_unload() {
    let setup = setup(queue_config(3));
    let read = setup.read();
    setup.rig.run(|| retrieve(setup.queue).unwrap()).unwrap();
    let leaks = setup.rig.unload().unwrap();
    assert_eq!(leaks.len(), 1, "{leaks:?}");
    assert!(leaks[0].contains("WDFREQUEST") && leaks[0].contains("Read(16)"), "{leaks:?}");
    assert_eq!(read.wait(None).unwrap().0, NtStatus::CANCELLED);
}

#[test]
fn queue_scope_lets_one_callback_run_at_a_time_at_dispatch_level() {
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static MOST: AtomicU32 = AtomicU32::new(0);
    static LEVELS: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        MOST.fetch_max(INSIDE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        LEVELS.fetch_or(1 << cpu::irql().0, Ordering::Relaxed);
        std::thread::yield_now();
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        complete(request, NtStatus::SUCCESS, 0);
    }
    let scoped = ObjectAttributes { synchronization_scope: 3, ..attributes() };
    let setup = setup_with(QueueConfig { io_read: Some(read), ..queue_config(2) }, scoped);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(setup.file.read(4, None).unwrap().0, NtStatus::SUCCESS);
                }
            });
        }
    });
    assert_eq!(MOST.load(Ordering::SeqCst), 1);
    assert_eq!(LEVELS.load(Ordering::Relaxed), 1 << Irql::DISPATCH.0, "a spin lock is held");
    setup.end();
}

#[test]
fn a_passive_queue_is_served_at_passive_level_whoever_completes() {
    static LEVELS: Mutex<Vec<Irql>> = Mutex::new(Vec::new());
    static OWNED: Mutex<Vec<Handle>> = Mutex::new(Vec::new());
    extern "win64" fn read(_: Handle, request: Handle, _: usize) {
        LEVELS.lock().push(cpu::irql());
        OWNED.lock().push(request);
    }
    let passive = ObjectAttributes { execution_level: 2, ..attributes() };
    let setup = setup_with(QueueConfig { io_read: Some(read), ..queue_config(1) }, passive);
    let (first, second) = (setup.read(), setup.read());
    let owned = OWNED.lock()[0];
    setup.rig.run(|| cpu::at_irql(Irql::DISPATCH, || complete(owned, NtStatus::SUCCESS, 0))).unwrap();
    first.wait(None).unwrap();
    assert_eq!(setup.rig.machine.threads.join_within(Duration::from_secs(5)), 0);
    let owned = OWNED.lock()[1];
    setup.rig.run(|| complete(owned, NtStatus::SUCCESS, 0)).unwrap();
    second.wait(None).unwrap();
    assert_eq!(*LEVELS.lock(), [Irql::PASSIVE, Irql::PASSIVE]);
    setup.end();
}
