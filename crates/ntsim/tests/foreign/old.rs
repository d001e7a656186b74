//! WinDivert 1.1, the driver of pydivert 2.0.9: linked by an older linker (a section that is writable and executable, a
//! security cookie made from KUSER_SHARED_DATA), and beside WinDivert 2.2 in one machine.
//!
//! Source of codes and layouts: include/windivert_device.h of basil00/WinDivert, 1.1, and what dll/windivert.c of that
//! time sends.

use crate::divert::{Filter, Handle, Layer, flag};
use crate::fetch::Wheel;
use crate::rig::{DIG, PATIENCE, QUIET, Rig, has_dig};
use nt_abi::NtStatus;
use ntsim::{
    machine::Machine,
    nt::io::{IrpKind, OpenFile},
    pe::LoadOptions,
};
use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

/// WinDivert64.sys of the versions 1.1 and 1.3.
fn drivers() -> Option<[PathBuf; 2]> {
    let of = |version, sha256| {
        let file = "pydivert/windivert_dll/WinDivert64.sys";
        Wheel { package: "pydivert", version, target: &[], file, sha256 }.fetch()
    };
    Some([
        of("2.0.9", "df12afa691e529f01c75b3dd734f6b45bf1488dbf90ced218657f0d205bff319")?,
        of("2.1.0", "9026147943bd44a1eb5e2f0c89cc8f441c7d1f13c1571aba54e262d2e7354798")?,
    ])
}

#[test]
fn older_windiverts_load_and_unload_and_leave_nothing() {
    let Some(drivers) = drivers() else { return };
    for driver in drivers {
        let load = |more: &[&str]| {
            let mut ntsim = Command::new(env!("CARGO_BIN_EXE_ntsim"));
            let output = ntsim.args(["load", "--json"]).args(more).arg(&driver).output().unwrap();
            (output.status.code(), serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("a report"))
        };
        let (status, report) = load(&[]);
        assert_eq!(status, Some(125));
        let error = report["error"].as_str().unwrap_or_default();
        assert!(error.contains("INIT is writable and executable"), "{error}");
        let (status, report) = load(&["--allow-writable-code"]);
        assert_eq!(status, Some(0), "{report:#}");
        assert_eq!(report["unloaded"], true, "{report:#}");
        assert_eq!(report["missing_imports"], serde_json::json!([]), "{report:#}");
    }
}

/// `WINDIVERT_ADDRESS` of version 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct OldAddress {
    interface: u32,
    sub_interface: u32,
    direction: u8,
}

/// An open handle of version 1.1, at the layer NETWORK.
struct OldHandle(OpenFile);

/// `struct windivert_ioctl_s`: magic, version of the messages, two arguments.
fn message(argument: u64) -> [u8; 12] {
    let mut message = [0; 12];
    message[..3].copy_from_slice(&[0xD3, 0xE8, 3]);
    message[4..].copy_from_slice(&argument.to_le_bytes());
    message
}

impl OldHandle {
    /// Diverts what is sent by UDP to this port.
    fn open(machine: &Arc<Machine>, port: u16) -> Self {
        const START_FILTER: u32 = 0x12 << 16 | 0x90A << 2 | 1;
        const ACCEPT: u16 = 129;
        const REJECT: u16 = 130;
        let handle = Self(machine.io.open(machine, r"\\.\WinDivert1.1").unwrap());
        let mut object = Vec::new();
        // OUTBOUND, UDP, UDP_DSTPORT.
        for (at, (field, value)) in [(2, 1), (9, 1), (54, u32::from(port))].into_iter().enumerate() {
            object.extend([field, 0]);
            object.extend(if at == 2 { ACCEPT } else { at as u16 + 1 }.to_le_bytes());
            object.extend(REJECT.to_le_bytes());
            object.extend([value, 0, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()));
        }
        let (status, _) = handle.call(START_FILTER, 0, &object, None);
        assert_eq!(status, NtStatus::SUCCESS);
        handle
    }

    fn call(&self, code: u32, argument: u64, data: &[u8], patience: Option<Duration>) -> (NtStatus, Vec<u8>) {
        let kind = IrpKind::DeviceControl { code, input: 12, output: data.len() };
        let pending = self.0.start_direct(kind, &message(argument), data).unwrap_or_else(|stop| panic!("{stop}"));
        pending.wait(patience).unwrap_or_else(|stop| panic!("{stop}"))
    }

    fn receive(&self, patience: Duration) -> Option<(Vec<u8>, OldAddress)> {
        const RECV: u32 = 0x12 << 16 | 0x908 << 2 | 2;
        let mut address = OldAddress::default();
        let to = &raw mut address;
        let (status, packet) = self.call(RECV, to as u64, &[0; 2000], Some(patience));
        // SAFETY: `address` lives; the driver wrote through the address it was given, which the compiler does not see.
        let address = unsafe { to.read_volatile() };
        match status {
            NtStatus::CANCELLED => None,
            status => {
                assert_eq!(status, NtStatus::SUCCESS);
                Some((packet, address))
            }
        }
    }

    /// Ends with the status of the injected list, which this version waits for.
    fn send(&self, packet: &[u8], address: &OldAddress) -> NtStatus {
        const SEND: u32 = 0x12 << 16 | 0x909 << 2 | 1;
        self.call(SEND, core::ptr::from_ref(address) as u64, packet, None).0
    }
}

fn is_dns(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4 && packet[9] == 17
}

/// Loads version 1.1 beside version 2.2.
fn load_old(rig: &Rig) -> bool {
    let Some([driver, _]) = drivers() else { return false };
    let options = LoadOptions { allow_writable_code: true, ..LoadOptions::default() };
    let driver = std::fs::read(driver).expect("it is readable");
    rig.machine.load_driver_with("WinDivert1.1", &driver, options).unwrap_or_else(|error| panic!("{error}"));
    true
}

fn unload_old(rig: &Rig) {
    let leaks = rig.machine.unload_driver("WinDivert1.1").unwrap_or_else(|error| panic!("{error}"));
    assert!(leaks.is_clean(), "{leaks}");
}

#[test]
fn windivert_1_diverts_and_sends_again() {
    let Some(rig) = Rig::new().filter(|rig| has_dig() && load_old(rig)) else { return };
    let handle = OldHandle::open(&rig.machine, 53);
    let wire = rig.tap_server();
    let dig = rig.client(&format!("{DIG} @10.77.0.1 name.test"));
    let (question, address) = handle.receive(PATIENCE).expect("the question");
    assert_eq!((address.interface, address.direction), (7, 0));
    assert!(wire.rest(is_dns).is_empty(), "it is held");
    assert_eq!(handle.send(&question, &address), NtStatus::SUCCESS);
    assert_eq!(dig.prints(), "192.0.2.77\n");
    assert_eq!(wire.next(PATIENCE, is_dns), Some(question));
    assert_eq!(wire.rest(is_dns).len(), 1, "the answer");
    assert!(handle.receive(QUIET).is_none());
    drop(handle);
    unload_old(&rig);
    rig.end();
}

#[test]
fn a_driver_knows_what_another_one_injected() {
    let Some(rig) = Rig::new().filter(|rig| has_dig() && load_old(rig)) else { return };
    let old = OldHandle::open(&rig.machine, 53);
    let filter = Filter::outbound().udp_to(53);
    let new = Handle::open(&rig.machine, &filter, Layer::Network, 0, flag::SNIFF).unwrap();
    let wire = rig.tap_server();
    let dig = rig.client(&format!("{DIG} @10.77.0.1 name.test"));
    let (question, address) = old.receive(PATIENCE).expect("the question");
    // Whether version 2.2 sees it before version 1.1 takes it is a matter of their sublayers' weights.
    let before = new.receive(QUIET);
    assert!(before.is_none_or(|(packet, address)| packet == question && !address.is_impostor()));
    assert_eq!(old.send(&question, &address), NtStatus::SUCCESS);
    let (again, address) = new.receive(PATIENCE).expect("what the other driver injected");
    assert!(again == question && address.is_impostor());
    assert!(new.receive(QUIET).is_none());
    assert_eq!(dig.prints(), "192.0.2.77\n");
    assert_eq!(wire.rest(is_dns).len(), 2, "one question, one answer");
    drop((old, new));
    unload_old(&rig);
    rig.end();
}

#[test]
fn two_drivers_that_take_each_others_packets_end_when_its_hops_do() {
    let Some(rig) = Rig::new().filter(|rig| has_dig() && load_old(rig)) else { return };
    let old = OldHandle::open(&rig.machine, 53);
    let new = Handle::open(&rig.machine, &Filter::outbound().udp_to(53), Layer::Network, 0, 0).unwrap();
    let wire = rig.tap_server();
    let dig = rig.client(&format!("{DIG} +time=1 @10.77.0.1 name.test"));
    // What a driver injects is a new list, which the other takes for a new packet: they would go on forever, did
    // version 2.2 not let a packet that another driver injected live one hop less each time.
    let mut hops = Vec::new();
    loop {
        if let Some((packet, address)) = old.receive(Duration::from_millis(100)) {
            // Which status a list ends with that another callout then takes is documented nowhere.
            let _status = old.send(&packet, &address);
        } else if let Some((packet, address)) = new.receive(Duration::from_millis(100)) {
            hops.push(packet[8]);
            if new.send(&packet, &address).is_err() {
                break;
            }
            assert!(hops.len() < 100, "{hops:?}");
        }
    }
    assert_eq!(hops.last(), Some(&1), "{hops:?}");
    assert!(hops.windows(2).skip(1).all(|two| two[1] == two[0] - 1), "{hops:?}");
    assert!(wire.rest(is_dns).is_empty(), "it never left");
    assert!(!dig.output().status.success());
    drop((old, new));
    unload_old(&rig);
    rig.end();
}
