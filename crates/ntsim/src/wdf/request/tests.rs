//! Requests as a driver works on them: ownership, cancellation, buffers, completion.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::super::abi::{Handle, ObjectAttributes, QueueConfig, RequestParameters};
use super::super::testing::{Calls, Rig, attributes, context_type, queue_config, wdf};
use super::*;
use crate::nt::io::{IrpKind, OpenFile, PendingIo};

const NO_RIG: Calls = Calls { globals: ptr::null() };
const BUFFERED: u32 = 0x22_2000;

fn complete_request(request: Handle, status: NtStatus, information: usize) {
    wdf!(NO_RIG, WdfRequestCompleteWithInformation(
        request => Handle, status => NtStatus, information => usize) -> ());
}

/// A device whose requests all wait in a manual queue, for the test to work on.
struct Setup {
    rig: Rig,
    queue: Handle,
    file: OpenFile,
}

fn setup() -> Setup {
    setup_with(|_, _| ())
}

fn setup_with(describe: impl FnOnce(&Rig, Handle)) -> Setup {
    let rig = Rig::new();
    let queue = rig
        .run(|| {
            let device = rig.device(r"\Device\Requests", |init| describe(&rig, init));
            let queue = rig.queue(device, &QueueConfig { default_queue: 1, ..queue_config(3) });
            rig.finish(device);
            queue
        })
        .unwrap();
    let file = rig.machine.io.open(&rig.machine, r"\Device\Requests").unwrap();
    Setup { rig, queue, file }
}

impl Setup {
    /// Sends a request and gives it to the driver.
    fn send(&self, kind: IrpKind, input: &[u8]) -> (PendingIo, Handle) {
        let pending = self.file.start(kind, input).unwrap();
        (pending, self.rig.run(|| self.take()).unwrap())
    }

    fn take(&self) -> Handle {
        let mut request = Handle::NULL;
        let status = wdf!(NO_RIG, WdfIoQueueRetrieveNextRequest(
            self.queue => Handle, &raw mut request => *mut Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        request
    }

    fn control(&self, code: u32, input: &[u8], output: usize) -> (PendingIo, Handle) {
        self.send(IrpKind::DeviceControl { code, input: input.len(), output }, input)
    }

    fn end(self) {
        drop(self.file);
        assert_eq!(self.rig.unload().unwrap(), Vec::<String>::new());
    }
}

fn input(request: Handle, required: usize) -> Result<(usize, usize), NtStatus> {
    let (mut buffer, mut length) = (1, 1);
    let status = wdf!(NO_RIG, WdfRequestRetrieveInputBuffer(
        request => Handle, required => usize, &raw mut buffer => *mut usize, &raw mut length => *mut usize) -> NtStatus);
    status.ok().map(|()| (buffer, length))
}

fn output(request: Handle, required: usize) -> Result<(usize, usize), NtStatus> {
    let (mut buffer, mut length) = (1, 1);
    let status = wdf!(NO_RIG, WdfRequestRetrieveOutputBuffer(
        request => Handle, required => usize, &raw mut buffer => *mut usize, &raw mut length => *mut usize) -> NtStatus);
    status.ok().map(|()| (buffer, length))
}

#[test]
fn buffered_controls_share_one_buffer() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[1, 2, 3, 4], 6);
    setup
        .rig
        .run(|| {
            let (from, length) = input(request, 4).unwrap();
            assert_eq!(length, 4);
            // SAFETY: the buffer is valid until completion.
            let bytes = unsafe { core::slice::from_raw_parts(from as *const u8, 4) };
            assert_eq!(bytes, [1, 2, 3, 4]);
            let (to, length) = output(request, 0).unwrap();
            assert_eq!((to, length), (from, 6));
            assert_eq!(input(request, 5), Err(NtStatus::BUFFER_TOO_SMALL));
            assert_eq!(output(request, 7), Err(NtStatus::BUFFER_TOO_SMALL));
            // SAFETY: as above.
            unsafe { ptr::write_bytes(to as *mut u8, 9, 6) };
            complete_request(request, NtStatus::SUCCESS, 5);
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap(), (NtStatus::SUCCESS, vec![9; 5]));
    setup.end();
}

#[test]
fn empty_buffers_are_too_small_even_for_nothing() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[], 0);
    setup
        .rig
        .run(|| {
            assert_eq!(input(request, 0), Err(NtStatus::BUFFER_TOO_SMALL));
            assert_eq!(output(request, 0), Err(NtStatus::BUFFER_TOO_SMALL));
            complete_request(request, NtStatus::SUCCESS, 0);
        })
        .unwrap();
    pending.wait(None).unwrap();
    setup.end();
}

#[test]
fn reads_have_no_input_and_writes_no_output() {
    let setup = setup();
    let (read, reading) = setup.send(IrpKind::Read { length: 4 }, &[]);
    let (write, writing) = setup.send(IrpKind::Write { length: 3 }, &[7, 8, 9]);
    setup
        .rig
        .run(|| {
            assert_eq!(input(reading, 0), Err(NtStatus::INVALID_DEVICE_REQUEST));
            assert_eq!(output(reading, 0).unwrap().1, 4);
            assert_eq!(output(writing, 0), Err(NtStatus::INVALID_DEVICE_REQUEST));
            let (from, length) = input(writing, 0).unwrap();
            // SAFETY: the buffer is valid until completion.
            assert_eq!(unsafe { core::slice::from_raw_parts(from as *const u8, length) }, [7, 8, 9]);
            complete_request(reading, NtStatus::SUCCESS, 4);
            complete_request(writing, NtStatus::SUCCESS, 3);
        })
        .unwrap();
    read.wait(None).unwrap();
    write.wait(None).unwrap();
    setup.end();
}

#[test]
fn direct_controls_have_an_output_buffer_of_their_own() {
    for method in [1, 2] {
        let setup = setup();
        let (pending, request) = setup.control(BUFFERED | method, &[1, 2, 3, 4], 3);
        setup
            .rig
            .run(|| {
                let (from, _) = input(request, 0).unwrap();
                let (to, length) = output(request, 3).unwrap();
                assert_ne!(from, to);
                // SAFETY: both are valid until completion.
                unsafe {
                    ptr::write_bytes(to as *mut u8, 5, length);
                    assert_eq!(core::slice::from_raw_parts(from as *const u8, 4), [1, 2, 3, 4]);
                }
                complete_request(request, NtStatus::SUCCESS, 3);
            })
            .unwrap();
        assert_eq!(pending.wait(None).unwrap().1, [5, 5, 5]);
        setup.end();
    }
}

#[test]
fn what_a_driver_writes_into_a_direct_buffer_arrives_whatever_it_says_of_it() {
    for (method, information, expected) in [(0, 0, [1, 2, 3]), (0, 1, [9, 2, 3]), (1, 0, [9; 3]), (2, 1, [9; 3])] {
        let setup = setup();
        let kind = IrpKind::DeviceControl { code: BUFFERED | method, input: 1, output: 3 };
        let mut buffer = [1, 2, 3];
        let pending = setup.file.start_direct(kind, &[7], &buffer).unwrap();
        let request = setup.rig.run(|| setup.take()).unwrap();
        setup
            .rig
            .run(|| {
                let (to, length) = output(request, 3).unwrap();
                // SAFETY: valid until completion.
                unsafe { ptr::write_bytes(to as *mut u8, 9, length) };
                complete_request(request, NtStatus::SUCCESS, information);
            })
            .unwrap();
        assert_eq!(pending.wait_into(&mut buffer, None).unwrap(), (NtStatus::SUCCESS, information));
        assert_eq!(buffer, expected, "method {method}, {information} bytes");
        setup.end();
    }
}

#[test]
fn a_request_knows_the_process_that_sent_it_as_long_as_it_pends() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[1], 1);
    let sender = setup
        .rig
        .run(|| {
            let requestor: extern "win64" fn(usize) -> u32 = crate::pe::gate::import("IoGetRequestorProcessId");
            let current: extern "win64" fn() -> usize = crate::pe::gate::import("PsGetCurrentProcessId");
            let irp = wdf!(NO_RIG, WdfRequestWdmGetIrp(request => Handle) -> usize);
            let sender = requestor(irp);
            assert_eq!(current(), 4, "the driver itself runs in the System process");
            complete_request(request, NtStatus::SUCCESS, 0);
            sender
        })
        .unwrap();
    assert_eq!(sender, std::process::id());
    pending.wait(None).unwrap();
    setup.end();
}

#[test]
fn neither_controls_give_their_addresses_only_in_the_callers_context() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED | 3, &[1], 1);
    setup
        .rig
        .run(|| {
            assert_eq!(input(request, 0), Err(NtStatus::INVALID_DEVICE_REQUEST));
            assert_eq!(output(request, 0), Err(NtStatus::INVALID_DEVICE_REQUEST));
            complete_request(request, NtStatus::SUCCESS, 0);
        })
        .unwrap();
    pending.wait(None).unwrap();
    let (_pending, request) = setup.control(BUFFERED | 3, &[1], 1);
    let (code, why) = setup.rig.violation(|| {
        let mut buffer = 0_usize;
        wdf!(NO_RIG, WdfRequestRetrieveUnsafeUserInputBuffer(
            request => Handle, 0 => usize, &raw mut buffer => *mut usize, ptr::null_mut() => *mut usize) -> NtStatus)
    });
    assert_eq!(code, 6);
    assert!(why.contains("was presented from a queue"), "{why}");
}

#[test]
fn memory_objects_and_mdls_describe_the_same_bytes() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[1, 2, 3, 4], 5000);
    setup
        .rig
        .run(|| {
            let (mut memory, mut again, mut mdl) = (Handle::NULL, Handle::NULL, 0_usize);
            let retrieve = |out: *mut Handle| {
                wdf!(NO_RIG, WdfRequestRetrieveOutputMemory(request => Handle, out => *mut Handle) -> NtStatus)
            };
            assert_eq!(retrieve(&raw mut memory), NtStatus::SUCCESS);
            assert_eq!(retrieve(&raw mut again), NtStatus::SUCCESS);
            assert_eq!(memory, again);
            let mut size = 0_usize;
            let buffer = wdf!(NO_RIG, WdfMemoryGetBuffer(memory => Handle, &raw mut size => *mut usize) -> usize);
            assert_eq!((buffer, size), output(request, 0).unwrap());
            let status = wdf!(NO_RIG, WdfRequestRetrieveOutputWdmMdl(request => Handle, &raw mut mdl => *mut usize) -> NtStatus);
            assert_eq!(status, NtStatus::SUCCESS);
            // SAFETY: an MDL of documented layout.
            unsafe {
                assert_eq!(((mdl + 24) as *const usize).read(), buffer, "MappedSystemVa");
                assert_eq!(((mdl + 40) as *const u32).read(), 5000, "ByteCount");
                let va = ((mdl + 32) as *const usize).read() + ((mdl + 44) as *const u32).read() as usize;
                assert_eq!(va, buffer, "StartVa + ByteOffset");
            }
            let copied = wdf!(NO_RIG, WdfMemoryCopyFromBuffer(
                memory => Handle, 4998 => usize, [1_u8, 2].as_ptr() => *const u8, 2 => usize) -> NtStatus);
            assert_eq!(copied, NtStatus::SUCCESS);
            let beyond = wdf!(NO_RIG, WdfMemoryCopyFromBuffer(
                memory => Handle, 4999 => usize, [1_u8, 2].as_ptr() => *const u8, 2 => usize) -> NtStatus);
            assert_eq!(beyond, NtStatus::BUFFER_TOO_SMALL);
            complete_request(request, NtStatus::SUCCESS, 5000);
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap().1[4998..], [1, 2]);
    setup.end();
}

#[test]
fn a_memory_object_of_a_request_is_gone_with_it() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[1], 1);
    let mut memory = Handle::NULL;
    setup
        .rig
        .run(|| {
            wdf!(NO_RIG, WdfRequestRetrieveInputMemory(request => Handle, &raw mut memory => *mut Handle) -> NtStatus);
            complete_request(request, NtStatus::SUCCESS, 0);
        })
        .unwrap();
    pending.wait(None).unwrap();
    let (code, why) = setup
        .rig
        .violation(|| wdf!(NO_RIG, WdfMemoryGetBuffer(memory => Handle, ptr::null_mut() => *mut usize) -> usize));
    assert_eq!(code, 5);
    assert!(why.contains("WDFMEMORY that was deleted"), "{why}");
}

#[test]
fn completing_twice_and_touching_afterwards_are_violations() {
    let setup = setup();
    let (_pending, request) = setup.control(BUFFERED, &[1], 1);
    setup.rig.run(|| complete_request(request, NtStatus::SUCCESS, 0)).unwrap();
    let (code, why) = setup.rig.violation(|| complete_request(request, NtStatus::SUCCESS, 0));
    assert_eq!(code, 5);
    assert!(why.contains("WDFREQUEST that was completed"), "{why}");

    let setup = self::setup();
    let (_pending, request) = setup.control(BUFFERED, &[1], 1);
    let (code, why) = setup.rig.violation(|| {
        wdf!(NO_RIG, WdfObjectReferenceActual(
            request => Handle, ptr::null() => *const c_void, 0 => i32, ptr::null() => *const u8) -> ());
        complete_request(request, NtStatus::SUCCESS, 0);
        input(request, 0)
    });
    assert_eq!(code, 6);
    assert!(why.contains("completed already"), "{why}");
}

#[test]
fn a_request_that_waits_in_a_queue_is_not_the_drivers() {
    let setup = setup();
    let (_pending, request) = setup.control(BUFFERED, &[1], 1);
    let (code, why) = setup.rig.violation(|| {
        assert_eq!(wdf!(NO_RIG, WdfRequestRequeue(request => Handle) -> NtStatus), NtStatus::SUCCESS);
        complete_request(request, NtStatus::SUCCESS, 0);
    });
    assert_eq!(code, 6);
    assert!(why.contains("waits in a queue"), "{why}");
}

#[test]
fn more_information_than_the_buffer_holds_is_a_violation_where_the_framework_looks() {
    let setup = setup();
    let read = setup.send(IrpKind::Read { length: 8 }, &[]);
    let (_, why) = setup.rig.violation(|| complete_request(read.1, NtStatus::SUCCESS, 9));
    assert!(why.contains("9 bytes") && why.contains("holds 8"), "{why}");
    let setup = self::setup();
    let write = setup.send(IrpKind::Write { length: 8 }, &[1; 8]);
    let (_, why) = setup.rig.violation(|| complete_request(write.1, NtStatus::SUCCESS, 9));
    assert!(why.contains("9 bytes") && why.contains("holds 8"), "{why}");
    let setup = self::setup();
    let (_pending, request) = setup.control(BUFFERED, &[1; 64], 8);
    let (code, why) = setup.rig.violation(|| complete_request(request, NtStatus::SUCCESS, 9));
    assert_eq!(code, 6);
    assert!(why.contains("9 bytes") && why.contains("holds 8"), "{why}");
}

#[test]
fn an_error_a_warning_and_a_control_without_output_may_say_any_information() {
    let setup = setup();
    let answer = |status, output| {
        let (pending, request) = setup.control(BUFFERED, &[1; 64], output);
        setup.rig.run(|| complete_request(request, status, 64)).unwrap();
        let mut buffer = vec![0; output];
        pending.wait_into(&mut buffer, None).unwrap()
    };
    for (status, output) in [(NtStatus::ACCESS_DENIED, 8), (NtStatus::BUFFER_OVERFLOW, 8), (NtStatus::SUCCESS, 0)] {
        assert_eq!(answer(status, output), (status, 64), "{status}, {output} bytes of output");
    }
}

#[test]
fn information_set_before_completion_counts() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[3; 4], 4);
    setup
        .rig
        .run(|| {
            wdf!(NO_RIG, WdfRequestSetInformation(request => Handle, 2 => usize) -> ());
            assert_eq!(wdf!(NO_RIG, WdfRequestGetInformation(request => Handle) -> usize), 2);
            wdf!(NO_RIG, WdfRequestComplete(request => Handle, NtStatus::SUCCESS => NtStatus) -> ());
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap().1, [3, 3]);
    setup.end();
}

fn mark(request: Handle, callback: CancelCallback) -> NtStatus {
    wdf!(NO_RIG, WdfRequestMarkCancelableEx(
        request => Handle, Some(callback) => Option<CancelCallback>) -> NtStatus)
}

fn unmark(request: Handle) -> NtStatus {
    wdf!(NO_RIG, WdfRequestUnmarkCancelable(request => Handle) -> NtStatus)
}

extern "win64" fn cancel_callback(request: Handle) {
    complete_request(request, NtStatus::CANCELLED, 0);
}

#[test]
fn a_marked_request_is_cancelled_through_its_callback() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[], 4);
    setup.rig.run(|| assert_eq!(mark(request, cancel_callback), NtStatus::SUCCESS)).unwrap();
    assert!(!pending.is_done());
    pending.cancel().unwrap();
    assert_eq!(pending.wait(None).unwrap().0, NtStatus::CANCELLED);
    setup.end();
}

#[test]
fn an_unmarked_request_learns_of_its_cancellation_when_it_asks() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[], 4);
    let is_canceled = || wdf!(NO_RIG, WdfRequestIsCanceled(request => Handle) -> u8);
    assert_eq!(setup.rig.run(is_canceled).unwrap(), 0);
    pending.cancel().unwrap();
    setup
        .rig
        .run(|| {
            assert_eq!(is_canceled(), 1);
            assert_eq!(mark(request, cancel_callback), NtStatus::CANCELLED);
            complete_request(request, NtStatus::CANCELLED, 0);
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap().0, NtStatus::CANCELLED);
    setup.end();
}

#[test]
fn marking_a_cancelled_request_the_old_way_calls_the_callback() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[], 4);
    pending.cancel().unwrap();
    setup
        .rig
        .run(|| {
            let callback: CancelCallback = cancel_callback;
            wdf!(NO_RIG, WdfRequestMarkCancelable(request => Handle, Some(callback) => Option<CancelCallback>) -> ());
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap().0, NtStatus::CANCELLED);
    setup.end();
}

#[test]
fn an_unmarked_request_is_the_drivers_to_complete() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[], 4);
    setup
        .rig
        .run(|| {
            assert_eq!(mark(request, cancel_callback), NtStatus::SUCCESS);
            assert_eq!(unmark(request), NtStatus::SUCCESS);
            complete_request(request, NtStatus::SUCCESS, 0);
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap().0, NtStatus::SUCCESS);
    setup.end();
}

#[test]
fn the_cancel_callback_may_be_late_and_unmarking_says_so() {
    static HELD: Mutex<Handle> = Mutex::new(Handle::NULL);
    static CALLED: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn late(request: Handle) {
        CALLED.fetch_add(1, Ordering::Relaxed);
        *HELD.lock() = request;
    }
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED, &[], 4);
    setup.rig.run(|| assert_eq!(mark(request, late), NtStatus::SUCCESS)).unwrap();
    pending.cancel().unwrap();
    setup
        .rig
        .run(|| {
            assert_eq!(unmark(request), NtStatus::CANCELLED);
            assert_eq!((*HELD.lock(), CALLED.load(Ordering::Relaxed)), (request, 1));
            complete_request(request, NtStatus::CANCELLED, 0);
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap().0, NtStatus::CANCELLED);
    setup.end();
}

#[test]
fn marks_that_do_not_fit_are_violations() {
    for (says, act) in [
        (
            "still marked cancelable",
            (|request| _ = wdf!(NO_RIG, WdfRequestRequeue(request => Handle) -> NtStatus)) as fn(Handle),
        ),
        ("while it is marked", |request| complete_request(request, NtStatus::SUCCESS, 0)),
        ("marked cancelable already", |request| _ = mark(request, cancel_callback)),
        ("not marked", |request| {
            unmark(request);
            unmark(request);
        }),
    ] {
        let setup = setup();
        let (_pending, request) = setup.control(BUFFERED, &[], 4);
        let (code, why) = setup.rig.violation(|| {
            mark(request, cancel_callback);
            act(request);
        });
        assert_eq!(code, 6);
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn a_purge_cancels_what_the_driver_marked() {
    let setup = setup();
    let (marked, request) = setup.control(BUFFERED, &[], 4);
    let (unmarked, other) = setup.control(BUFFERED, &[], 4);
    setup
        .rig
        .run(|| {
            mark(request, cancel_callback);
            type State = Option<super::super::abi::QueueStateCallback>;
            wdf!(NO_RIG, WdfIoQueuePurge(setup.queue => Handle, None => State, 0 => usize) -> ());
        })
        .unwrap();
    assert_eq!(marked.wait(None).unwrap().0, NtStatus::CANCELLED);
    assert!(!unmarked.is_done());
    setup.rig.run(|| complete_request(other, NtStatus::SUCCESS, 0)).unwrap();
    setup.end();
}

#[test]
fn the_irp_describes_the_request_and_takes_its_information() {
    let setup = setup();
    let (pending, request) = setup.control(BUFFERED | 2, &[1, 2], 4);
    setup
        .rig
        .run(|| {
            let irp = wdf!(NO_RIG, WdfRequestWdmGetIrp(request => Handle) -> usize);
            assert_eq!(wdf!(NO_RIG, WdfRequestWdmGetIrp(request => Handle) -> usize), irp);
            let mut mdl = 0;
            let status = wdf!(NO_RIG, WdfRequestRetrieveOutputWdmMdl(
                request => Handle, &raw mut mdl => *mut usize) -> NtStatus);
            // SAFETY: an IRP of documented layout, with one stack location.
            unsafe {
                let at = |offset: usize| ((irp + offset) as *const usize).read();
                assert_eq!(at(0x18), input(request, 0).unwrap().0, "AssociatedIrp.SystemBuffer");
                assert_eq!((status, at(0x08)), (NtStatus::SUCCESS, mdl), "MdlAddress");
                let location = at(0xB8);
                assert_eq!((location as *const u8).read(), 14, "IRP_MJ_DEVICE_CONTROL");
                assert_eq!(((location + 0x08) as *const u32).read(), 4, "OutputBufferLength");
                assert_eq!(((location + 0x10) as *const u32).read(), 2, "InputBufferLength");
                assert_eq!(((location + 0x18) as *const u32).read(), BUFFERED | 2, "IoControlCode");
                ((irp + 0x38) as *mut usize).write(3);
            }
            wdf!(NO_RIG, WdfRequestComplete(request => Handle, NtStatus::SUCCESS => NtStatus) -> ());
        })
        .unwrap();
    assert_eq!(pending.wait(None).unwrap().1.len(), 3);
    setup.end();
}

#[test]
fn the_requests_attributes_give_each_a_context_that_is_cleaned_up_before_the_caller_goes_on() {
    static KIND: super::super::testing::Type = context_type(c"REQUEST_CONTEXT", 16);
    static CLEANED: AtomicU32 = AtomicU32::new(0);
    extern "win64" fn count(_: Handle) {
        CLEANED.fetch_add(1, Ordering::Relaxed);
    }
    let setup = setup_with(|rig, init| {
        let of_request = ObjectAttributes { context_type: &raw const KIND.0, cleanup: Some(count), ..attributes() };
        wdf!(rig, WdfDeviceInitSetRequestAttributes(
            init => Handle, &raw const of_request => *const ObjectAttributes) -> ());
    });
    let (pending, request) = setup.control(BUFFERED, &[], 4);
    setup
        .rig
        .run(|| {
            let context = wdf!(NO_RIG, WdfObjectGetTypedContextWorker(
                request => Handle, ptr::from_ref(&KIND.0).cast() => *const c_void) -> usize);
            assert_ne!(context, 0);
            complete_request(request, NtStatus::SUCCESS, 0);
        })
        .unwrap();
    pending.wait(None).unwrap();
    assert_eq!(CLEANED.load(Ordering::Relaxed), 1);
    setup.end();
}

#[test]
fn parameters_of_the_wrong_size_are_a_violation() {
    let setup = setup();
    let (_pending, request) = setup.control(BUFFERED, &[], 4);
    let (code, why) = setup.rig.violation(|| {
        let mut parameters = RequestParameters { size: 32, minor_function: 0, kind: 0, parameters: [0; 4] };
        wdf!(NO_RIG, WdfRequestGetParameters(request => Handle, &raw mut parameters => *mut RequestParameters) -> ());
    });
    assert_eq!(code, 6);
    assert!(why.contains("Size is 32"), "{why}");
}
