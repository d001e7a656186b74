//! Handles: what opening checks, parameters, several at once, and what closing does to what pends.

use crate::divert::{Filter, Handle, Layer, PIPE_EMPTY, event, flag, param};
use crate::rig::{PATIENCE, machine, unload};
use nt_abi::NtStatus;
use std::time::{Duration, Instant};

#[test]
fn a_handle_is_opened_asked_and_closed() {
    let Some(machine) = machine() else { return };
    let handle = Handle::open(&machine, &Filter::all(), Layer::Network, 0, 0).unwrap();
    assert_eq!(handle.get(param::VERSION_MAJOR), Ok(2));
    assert_eq!(handle.get(param::VERSION_MINOR), Ok(2));
    assert_eq!(handle.get(param::QUEUE_LENGTH), Ok(4096));
    assert_eq!(handle.set(param::QUEUE_LENGTH, 64), Ok(()));
    assert_eq!(handle.get(param::QUEUE_LENGTH), Ok(64));
    assert_eq!(handle.set(param::QUEUE_LENGTH, 1), Err(NtStatus::INVALID_PARAMETER), "the least is 32");
    assert_eq!(handle.get(99), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(machine.wfp.engine.callouts.registered().len(), 4, "both versions, both ways");
    drop(handle);
    // A work item of the driver lets go of the file object last, and only then are its callouts unregistered.
    let deadline = Instant::now() + PATIENCE;
    while !machine.wfp.engine.callouts.registered().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(machine.wfp.engine.callouts.registered().len(), 0);
    unload(&machine);
}

#[test]
fn hostile_filter_objects_are_refused() {
    let Some(machine) = machine() else { return };
    let with = |at: usize, bytes: &[u8]| {
        // ZERO == 0, then accept, else reject.
        let mut object = [0; 24];
        object[2..4].copy_from_slice(&0x7FFE_u16.to_le_bytes());
        object[4..6].copy_from_slice(&0x7FFF_u16.to_le_bytes());
        object[at..at + bytes.len()].copy_from_slice(bytes);
        Handle::open_with_object(&machine, &object).map(|_| ())
    };
    assert_eq!(with(0, &[]), Ok(()));
    assert_eq!(with(0, &[86]), Err(NtStatus::INVALID_PARAMETER), "a field that does not exist");
    assert_eq!(with(1, &[6 << 3]), Err(NtStatus::INVALID_PARAMETER), "a test that does not exist");
    assert_eq!(with(2, &[0, 0]), Err(NtStatus::INVALID_PARAMETER), "a loop");
    assert_eq!(with(8, &[2]), Err(NtStatus::INVALID_PARAMETER), "a value out of range");
    assert_eq!(Handle::open_with_object(&machine, &[0; 23]).map(|_| ()), Err(NtStatus::INVALID_PARAMETER));
    unload(&machine);
}

#[test]
fn closing_cancels_what_waits() {
    let Some(machine) = machine() else { return };
    let handle = Handle::open(&machine, &Filter::all(), Layer::Network, 0, flag::SNIFF).unwrap();
    let waiting: Vec<_> = (0..3).map(|_| handle.start_receiving()).collect();
    assert!(waiting.iter().all(|read| !read.is_done()));
    drop(handle);
    for read in waiting {
        assert_eq!(read.status(), NtStatus::CANCELLED);
    }
    unload(&machine);
}

#[test]
fn a_read_that_is_not_wanted_any_more_is_cancelled() {
    let Some(machine) = machine() else { return };
    let handle = Handle::open(&machine, &Filter::all(), Layer::Network, 0, flag::SNIFF).unwrap();
    assert!(handle.receive(Duration::from_millis(20)).is_none());
    drop(handle);
    unload(&machine);
}

#[test]
fn after_a_shutdown_reads_end() {
    let Some(machine) = machine() else { return };
    let handle = Handle::open(&machine, &Filter::all(), Layer::Network, 0, flag::SNIFF).unwrap();
    let waiting = handle.start_receiving();
    handle.shutdown(1).unwrap();
    assert_eq!(waiting.status(), PIPE_EMPTY);
    assert_eq!(handle.try_receive(PATIENCE).map(|_| ()), Err(PIPE_EMPTY));
    drop(handle);
    unload(&machine);
}

#[test]
fn an_unload_waits_for_open_handles() {
    let Some(machine) = machine() else { return };
    let handle = Handle::open(&machine, &Filter::all(), Layer::Network, 0, flag::SNIFF).unwrap();
    assert!(machine.unload_driver("WinDivert").is_err(), "a handle is open");
    drop(handle);
    let reports = machine.unload_reports();
    assert_eq!(reports.len(), 1, "the unload happened when the handle was closed");
    assert!(reports[0].is_clean(), "{}", reports[0]);
}

#[test]
fn the_reflect_layer_tells_of_handles_and_their_process() {
    let Some(machine) = machine() else { return };
    let watching = Handle::open(&machine, &Filter::all(), Layer::Reflect, 0, flag::SNIFF | flag::RECV_ONLY).unwrap();
    let watched = Handle::open(&machine, &Filter::all().tcp_to(80), Layer::Network, 7, flag::SNIFF).unwrap();
    let (_, opened) = watching.receive(PATIENCE).expect("a handle was opened");
    assert_eq!((opened.event, opened.reflected_process()), (event::REFLECT_OPEN, std::process::id()));
    drop(watched);
    let (_, closed) = watching.receive(PATIENCE).expect("a handle was closed");
    assert_eq!((closed.event, closed.reflected_process()), (event::REFLECT_CLOSE, std::process::id()));
    assert!(opened.timestamp <= closed.timestamp);
    drop(watching);
    unload(&machine);
}
