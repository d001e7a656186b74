//! A driver without a framework, compiled from C against wdm.h, gets its IRPs as Windows would send them.

#[path = "../c_driver/mod.rs"]
mod c_driver;

use std::{sync::Arc, time::Duration};

use nt_abi::NtStatus;
use ntsim::{
    machine::Machine,
    nt::io::{IrpKind, OpenFile},
};
use tempfile::TempDir;

const IMPORTS: [&str; 22] = [
    "IoAcquireCancelSpinLock",
    "IoAllocateWorkItem",
    "IoCreateDevice",
    "IoCreateSymbolicLink",
    "IoCsqInitialize",
    "IoCsqInsertIrp",
    "IoCsqRemoveNextIrp",
    "IoDeleteDevice",
    "IoDeleteSymbolicLink",
    "IoFreeWorkItem",
    "IoQueueWorkItem",
    "IoReleaseCancelSpinLock",
    "IofCallDriver",
    "IofCompleteRequest",
    "KeAcquireSpinLockRaiseToDpc",
    "KeReleaseSpinLock",
    "MmMapLockedPagesSpecifyCache",
    "ObfDereferenceObject",
    "ObfReferenceObject",
    "ProbeForRead",
    "ProbeForWrite",
    "memcpy",
];

const fn code(function: u32, method: u32) -> u32 {
    0x22 << 16 | function << 2 | method
}
const BUFFERED: u32 = code(0x800, 0);
const IN_DIRECT: u32 = code(0x801, 1);
const OUT_DIRECT: u32 = code(0x802, 2);
const NEITHER: u32 = code(0x803, 3);
const RELEASE: u32 = code(0x804, 0);
const TWICE: u32 = code(0x805, 0);
const FORGET: u32 = code(0x806, 0);
const UNMARKED: u32 = code(0x807, 0);
const LATER: u32 = code(0x808, 0);
const DOWN: u32 = code(0x809, 0);
const PENDS_BELOW: u32 = code(0x80a, 0);
const MARKED: u32 = code(0x80b, 0);
const CANCELABLE: u32 = code(0x80c, 0);
const KEPT: u32 = code(0x80d, 0);
const VANISH: u32 = code(0x80e, 0);
const NOWHERE: u32 = code(0x80f, 0);

/// A machine with the driver, and a file open on its device.
fn open() -> (Arc<Machine>, OpenFile) {
    let machine = Machine::new();
    machine.load_driver("plain", &driver(&[])).expect("the driver loads");
    let file = machine.io.open(&machine, PATH).expect("the device opens");
    (machine, file)
}

const PATH: &str = r"\\.\Plain";

/// The driver, compiled with these options.
fn driver(more: &[&str]) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let includes = "/usr/share/mingw-w64/include";
    let options = [
        "--target=x86_64-w64-mingw32",
        "-isystem",
        includes,
        "-isystem",
        &format!("{includes}/ddk"),
        "-mno-stack-arg-probe",
        "-fno-builtin",
    ];
    let options = [&options[..], more].concat();
    std::fs::read(c_driver::build(folder.path(), "wdm/driver.c", &options, &IMPORTS)).unwrap()
}

/// Its unload routine refers to each device, deletes it, and writes to it after that.
fn close(machine: &Arc<Machine>, file: OpenFile) {
    drop(file);
    let report = machine.unload_driver("plain").expect("the driver unloads");
    assert!(report.is_clean(), "{report}");
    assert!(machine.io.devices().is_empty());
}

fn read(file: &OpenFile, length: usize) -> ntsim::nt::io::PendingIo {
    file.start(IrpKind::Read { length }, &[]).unwrap()
}

#[test]
fn buffers_reach_the_driver_by_every_method() {
    let (machine, file) = open();
    assert_eq!(file.ioctl(BUFFERED, &[1, 2, 3], 8).unwrap(), (NtStatus::SUCCESS, vec![254, 253, 252]));
    assert_eq!(file.ioctl(BUFFERED, &[], 0).unwrap(), (NtStatus::SUCCESS, vec![]));
    for code in [IN_DIRECT, OUT_DIRECT] {
        let kind = IrpKind::DeviceControl { code, input: 3, output: 4 };
        let answer = file.start_direct(kind, &[1, 2, 3], &[10, 20, 30, 40]).unwrap();
        let mut output = [0; 4];
        assert_eq!(answer.wait_into(&mut output, None).unwrap(), (NtStatus::SUCCESS, 3));
        assert_eq!(output, [11, 22, 33, 40], "{code:#x}");
        assert_eq!(file.ioctl(code, &[1], 0).unwrap().0, NtStatus::INVALID_PARAMETER, "no output, no MDL");
    }
    let kind = IrpKind::DeviceControl { code: NEITHER, input: 3, output: 3 };
    let mut output = [0; 3];
    file.start(kind, &[1, 2, 3]).unwrap().wait_into(&mut output, None).unwrap();
    assert_eq!(output, [3, 2, 1]);
    assert_eq!(file.ioctl(code(0x8ff, 0), &[], 0).unwrap().0, NtStatus::INVALID_DEVICE_REQUEST);
    close(&machine, file);
}

#[test]
fn reads_wait_until_they_are_answered_cancelled_or_cleaned_up() {
    let (machine, file) = open();
    let waiting = read(&file, 8);
    assert_eq!(file.write(b"hello, driver").unwrap(), NtStatus::SUCCESS);
    assert_eq!(waiting.wait(None).unwrap(), (NtStatus::SUCCESS, b"hello, d".to_vec()));

    let cancelled = read(&file, 8).wait(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(cancelled, (NtStatus::CANCELLED, vec![]));
    assert_eq!(file.ioctl(RELEASE, &[], 0).unwrap().0, NtStatus::NOT_FOUND, "the queue is empty again");

    let (first, second) = (read(&file, 8), read(&file, 8));
    first.cancel().unwrap();
    assert_eq!(first.wait(None).unwrap().0, NtStatus::CANCELLED);
    assert_eq!(file.ioctl(RELEASE, &[], 0).unwrap().0, NtStatus::SUCCESS);
    assert_eq!(second.wait(None).unwrap(), (NtStatus::SUCCESS, vec![]));

    let control = IrpKind::DeviceControl { code: CANCELABLE, input: 0, output: 0 };
    let cancelable = file.start(control, &[]).unwrap();
    assert_eq!(cancelable.wait(Some(Duration::from_millis(20))).unwrap().0, NtStatus::CANCELLED);

    let left = read(&file, 8);
    close(&machine, file);
    assert_eq!(left.wait(None).unwrap().0, NtStatus::CANCELLED);
}

#[test]
fn an_irp_is_completed_later_and_goes_down_a_stack() {
    let (machine, file) = open();
    assert_eq!(file.ioctl(LATER, &[], 0).unwrap().0, NtStatus::SUCCESS);
    let (status, bytes) = file.ioctl(DOWN, &5u32.to_le_bytes(), 4).unwrap();
    assert_eq!((status, bytes), (NtStatus::SUCCESS, 57u32.to_le_bytes().to_vec()));
    assert_eq!(file.ioctl(PENDS_BELOW, &[], 0).unwrap().0, NtStatus::SUCCESS);
    let (status, bytes) = file.ioctl(KEPT, &5u32.to_le_bytes(), 4).unwrap();
    assert_eq!((status, bytes), (NtStatus::SUCCESS, 6u32.to_le_bytes().to_vec()));
    close(&machine, file);
}

#[test]
fn what_a_dispatch_routine_does_wrong_is_found() {
    for (code, words) in [
        (MARKED, "marked the IRP pending and returned STATUS_SUCCESS"),
        (NOWHERE, "is not a device"),
        (TWICE, "completed twice"),
        (FORGET, "did not complete the IRP"),
        (UNMARKED, "without IoMarkIrpPending"),
    ] {
        let (_machine, file) = open();
        let stopped = file.ioctl(code, &[], 0).unwrap_err();
        assert!(stopped.why.contains(words), "{code:#x}: {stopped}");
    }
}

#[test]
fn a_driver_with_an_open_file_unloads_when_it_is_closed() {
    let (machine, file) = open();
    assert!(machine.unload_driver("plain").is_err());
    assert_eq!(machine.io.open(&machine, PATH).unwrap_err(), NtStatus::NO_SUCH_DEVICE);
    drop(file);
    let reports = machine.unload_reports();
    assert!(reports.len() == 1 && reports[0].is_clean(), "{reports:?}");
}

#[test]
fn a_deleted_device_lives_until_its_last_file_is_closed() {
    let (machine, file) = open();
    assert_eq!(file.ioctl(VANISH, &[], 0).unwrap().0, NtStatus::SUCCESS);
    assert_eq!(machine.io.open(&machine, PATH).unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
    assert!(machine.unload_driver("plain").is_err(), "its code is still needed to close the file");
    drop(file);
    assert_eq!(machine.unload_reports().len(), 1);
}

#[test]
fn an_exclusive_device_opens_once() {
    let machine = Machine::new();
    machine.load_driver("plain", &driver(&["-DEXCLUSIVE=TRUE"])).expect("the driver loads");
    let first = machine.io.open(&machine, PATH).expect("the device opens");
    assert_eq!(machine.io.open(&machine, PATH).unwrap_err(), NtStatus::ACCESS_DENIED);
    drop(first);
    drop(machine.io.open(&machine, PATH).expect("it opens again"));
}
