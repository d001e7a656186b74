use super::*;
use crate::nt::io::{DeviceBackend, FileId, IrpId, IrpRequest};
use crate::pe::sample::{Sample, code};
use nt_abi::NtStatus;

/// A driver that sets an unload routine, which does nothing.
fn unloadable() -> Vec<u8> {
    let mut text = vec![0x48, 0x8d, 0x05, 7, 0, 0, 0]; // lea rax, [rip + 7]: past the return
    text.extend([0x48, 0x89, 0x41, 0x68]); // mov [rcx + DriverUnload], rax
    text.extend(code::SUCCEED);
    text.push(0xc3); // the unload routine
    Sample::new(&text, &[]).write()
}

/// A device that only opens and closes.
struct Door;

impl DeviceBackend for Door {
    fn create(&self, _file: FileId) -> NtStatus {
        NtStatus::SUCCESS
    }
    fn cleanup(&self, _file: FileId) {}
    fn close(&self, _file: FileId) {}
    fn submit(&self, irp: IrpRequest) {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0);
    }
    fn cancel(&self, _irp: IrpId) {}
}

#[test]
fn a_driver_without_unload_routine_stays() {
    let machine = Machine::new();
    machine.load_driver("stays", &Sample::new(code::SUCCEED, &[]).write()).unwrap();
    assert!(matches!(machine.unload_driver("stays"), Err(UnloadError::NoUnloadRoutine(_))));
    assert!(matches!(machine.unload_driver("other"), Err(UnloadError::NotLoaded(_))));
    assert_eq!(machine.driver_state("STAYS"), Some(DriverState::Running));
}

#[test]
fn an_unload_waits_for_open_files_and_then_reports_what_is_left() {
    let machine = Machine::new();
    machine.load_driver("door", &unloadable()).unwrap();
    machine.io.register_device(r"\Device\Door", "", Arc::new(Door), "door");
    let file = machine.io.open(&machine, r"\Device\Door").unwrap();
    assert!(matches!(machine.unload_driver("door"), Err(UnloadError::Pending { open_files: 1, .. })));
    assert_eq!(machine.driver_state("door"), Some(DriverState::UnloadPending));
    assert_eq!(machine.io.open(&machine, r"\Device\Door").unwrap_err(), NtStatus::NO_SUCH_DEVICE);
    drop(file);
    assert_eq!(machine.driver_state("door"), None);
    let [report] = &machine.unload_reports()[..] else { panic!("one report") };
    assert_eq!(report.lines(), [r"device \Device\Door"]);
    assert!(machine.unload_reports().is_empty(), "a report is taken once");
}

#[test]
fn code_of_an_unloaded_driver_faults_under_its_name() {
    let machine = Machine::new();
    let info = machine.load_driver("gone", &unloadable()).unwrap();
    assert!(machine.unload_driver("gone").unwrap().is_clean());
    let stopped = crate::cpu::enter(&machine, nt_abi::Irql::PASSIVE, || {
        // SAFETY: the image's addresses stay reserved and inaccessible; the fault is what is tested.
        let late: extern "win64" fn() = unsafe { core::mem::transmute(info.base + 0x1000) };
        late();
    });
    assert_eq!(stopped.unwrap_err().stack[0].to_string(), "<unloaded>_gone.sys+0x1000");
}
