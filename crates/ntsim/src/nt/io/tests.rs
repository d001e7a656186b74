use super::*;
use crate::machine::Config;
use std::time::Duration;

/// Echoes controls, keeps reads until they are cancelled, and notes what it is asked.
#[derive(Default)]
struct Echo {
    pended: Mutex<Vec<IrpRequest>>,
    calls: Mutex<Vec<String>>,
    refuse: Mutex<Option<NtStatus>>,
}

impl DeviceBackend for Echo {
    fn create(&self, _file: FileId) -> NtStatus {
        assert_eq!((cpu::inside(), cpu::irql()), (true, Irql::PASSIVE));
        self.calls.lock().push("create".to_owned());
        self.refuse.lock().unwrap_or(NtStatus::SUCCESS)
    }

    fn cleanup(&self, _file: FileId) {
        self.calls.lock().push("cleanup".to_owned());
    }

    fn close(&self, _file: FileId) {
        self.calls.lock().push("close".to_owned());
    }

    fn submit(&self, irp: IrpRequest) {
        match irp.kind() {
            IrpKind::Read { .. } => self.pended.lock().push(irp),
            IrpKind::Write { length } => irp.complete(NtStatus::SUCCESS, length),
            // 1 echoes, 2 fails with data in the buffer, 3 claims too much, 4 is lost, 5 counts the direct data,
            // 6 warns that there is more, 7 counts what the caller does not take.
            IrpKind::DeviceControl { code: 1, input, .. } => irp.complete(NtStatus::SUCCESS, input),
            IrpKind::DeviceControl { code: 2, input, .. } => irp.complete(NtStatus::UNSUCCESSFUL, input),
            IrpKind::DeviceControl { code: 3, output, .. } => irp.complete(NtStatus::SUCCESS, output + 1),
            IrpKind::DeviceControl { code: 6, .. } => irp.complete(NtStatus::BUFFER_OVERFLOW, 99),
            IrpKind::DeviceControl { code: 7, .. } => irp.complete(NtStatus::SUCCESS, 99),
            IrpKind::DeviceControl { code: 5, .. } => {
                let count = irp.direct_data().len();
                irp.complete(NtStatus(count as i32), 0);
            }
            IrpKind::DeviceControl { .. } => drop(irp),
        }
    }

    fn cancel(&self, id: IrpId) {
        let found = {
            let mut pended = self.pended.lock();
            pended.iter().position(|irp| irp.id() == id).map(|at| pended.remove(at))
        };
        if let Some(irp) = found {
            irp.complete(NtStatus::CANCELLED, 0);
        }
    }
}

fn machine() -> (Arc<Machine>, Arc<Echo>) {
    machine_with(Config::default())
}

fn machine_with(config: Config) -> (Arc<Machine>, Arc<Echo>) {
    let machine = Machine::with(config);
    let echo = Arc::new(Echo::default());
    let backend: Arc<dyn DeviceBackend> = Arc::clone(&echo) as _;
    assert_eq!(machine.io.register_device(r"\Device\Echo", "D:P(A;;GA;;;SY)", backend, "echo"), NtStatus::SUCCESS);
    assert_eq!(machine.io.create_symlink(r"\DosDevices\Echo", r"\Device\Echo"), NtStatus::SUCCESS);
    (machine, echo)
}

#[test]
fn a_device_is_found_by_name_and_by_every_form_of_its_link() {
    let (machine, echo) = machine();
    for path in [
        r"\Device\Echo",
        r"\device\ECHO",
        r"\\.\Echo",
        r"\??\echo",
        r"\DosDevices\Echo",
        r"\GLOBAL??\Echo",
        r"\\.\Global\Echo",
        r"\\.\GLOBAL\echo",
    ] {
        drop(machine.io.open(&machine, path).unwrap());
    }
    assert_eq!(*echo.calls.lock(), ["create", "cleanup", "close"].repeat(8));
    assert_eq!(machine.io.open(&machine, r"\\.\Other").unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
    assert_eq!(machine.io.create_symlink(r"\??\echo", r"\Device\Other"), NtStatus::OBJECT_NAME_COLLISION);
    machine.io.create_symlink(r"\??\Loop", r"\??\Loop");
    assert_eq!(machine.io.open(&machine, r"\\.\Loop").unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
}

#[test]
fn a_refused_create_leaves_no_file_open() {
    let (machine, echo) = machine();
    *echo.refuse.lock() = Some(NtStatus::ACCESS_DENIED);
    assert_eq!(machine.io.open(&machine, r"\\.\Echo").unwrap_err(), NtStatus::ACCESS_DENIED);
    assert_eq!(machine.io.open_files("echo"), 0);
    assert_eq!(*echo.calls.lock(), ["create"]);
}

#[test]
fn output_is_copied_back_up_to_information_and_not_on_errors() {
    let (machine, _) = machine();
    let file = machine.io.open(&machine, r"\\.\Echo").unwrap();
    assert_eq!(file.ioctl(1, b"hello", 16).unwrap(), (NtStatus::SUCCESS, b"hello".to_vec()));
    assert_eq!(file.ioctl(2, b"hello", 16).unwrap(), (NtStatus::UNSUCCESSFUL, Vec::new()));
    assert_eq!(file.write(b"data").unwrap(), NtStatus::SUCCESS);
    let control = IrpKind::DeviceControl { code: 5, input: 0, output: 7 };
    let direct = file.start_direct(control, &[], &[9; 7]).unwrap().wait(None).unwrap();
    assert_eq!(direct.0, NtStatus(7));
}

#[test]
fn more_information_than_the_caller_takes_stops_the_machine() {
    let (machine, _) = machine();
    let file = machine.io.open(&machine, r"\\.\Echo").unwrap();
    let stopped = file.ioctl(3, &[], 8).unwrap_err();
    assert!(stopped.why.contains("completed with 9 bytes, but its caller takes 8"), "{stopped}");
}

#[test]
fn a_warning_may_say_how_much_there_is_unless_the_special_pool_looks() {
    let (machine, _) = machine();
    let file = machine.io.open(&machine, r"\\.\Echo").unwrap();
    assert_eq!(file.ioctl(6, &[], 8).unwrap(), (NtStatus::BUFFER_OVERFLOW, vec![0; 8]));
    assert_eq!(file.ioctl(7, &[], 0).unwrap(), (NtStatus::SUCCESS, vec![]));

    let (machine, _) = machine_with(Config { special_pool: true, ..Config::default() });
    let file = machine.io.open(&machine, r"\\.\Echo").unwrap();
    let stopped = file.ioctl(6, &[], 8).unwrap_err();
    assert!(stopped.why.contains("completed with 99 bytes, but its caller takes 8"), "{stopped}");
}

#[test]
fn a_lost_request_stops_the_machine() {
    let (machine, _) = machine();
    let file = machine.io.open(&machine, r"\\.\Echo").unwrap();
    assert!(file.ioctl(4, &[], 8).unwrap_err().why.contains("lost it"));
}

#[test]
fn a_read_is_cancelled_when_its_time_is_over_and_pending_until_then() {
    let (machine, _) = machine();
    let file = machine.io.open(&machine, r"\\.\Echo").unwrap();
    let pending = file.start(IrpKind::Read { length: 8 }, &[]).unwrap();
    assert_eq!(machine.io.pending("echo").len(), 1);
    let ended = pending.wait(Some(Duration::from_millis(5))).unwrap();
    assert_eq!(ended, (NtStatus::CANCELLED, Vec::new()));
    assert!(machine.io.pending("echo").is_empty());
}

#[test]
fn links_that_lead_nowhere_are_dangling() {
    let (machine, _) = machine();
    assert_eq!(machine.io.dangling_links("other"), Vec::<String>::new());
    machine.io.unregister_device(r"\Device\Echo");
    assert_eq!(machine.io.dangling_links("other"), [r"\DosDevices\Echo"]);
}
