//! Hooked gates as a driver calls them, and their trace.

use super::*;
use crate::export::Export;
use crate::machine::Machine;
use crate::pe::gate::{Catalogue, Gates};
use crate::pe::sample::{Sample, code};
use nt_abi::Irql;
use parking_lot::Mutex;
use std::sync::Arc;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("UTF-8")
    }
}

fn traced(form: Form, only: &[&str]) -> (Arc<Machine>, Lines) {
    let machine = Machine::new();
    let lines = Lines::default();
    let only: Vec<String> = only.iter().map(|pattern| (*pattern).to_owned()).collect();
    machine.hooks.trace(Tracer::new(Box::new(lines.clone()), form, &only)).expect("the first");
    (machine, lines)
}

extern "win64" fn seven(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64) -> u64 {
    // The caller is the gate's, not the hook.
    assert_ne!(cpu::caller(), 0);
    a + 10 * b + 100 * c + 1000 * d + 10_000 * e + 100_000 * f + 1_000_000 * g
}

extern "win64" fn product(a: f64, b: f64) -> f64 {
    a * b
}

#[test]
fn arguments_and_results_of_every_kind_come_through_a_hook() {
    let exports = [
        Export::function("test.sys", "Seven", Irql::HIGH, seven as *const ()),
        Export::function("test.sys", "Product", Irql::HIGH, product as *const ()),
    ];
    let gates = Gates::hooked(&exports).expect("mapped");
    let (machine, lines) = traced(Form::Text, &[]);
    cpu::enter(&machine, Irql::APC, || {
        // SAFETY: gates to the two functions above.
        let (seven, product) = unsafe {
            let seven: extern "win64" fn(u64, u64, u64, u64, u64, u64, u64) -> u64 =
                core::mem::transmute(gates.address(0));
            let product: extern "win64" fn(f64, f64) -> f64 = core::mem::transmute(gates.address(1));
            (seven, product)
        };
        assert_eq!(seven(1, 2, 3, 4, 5, 6, 7), 7_654_321);
        assert_eq!(product(1.5, 4.0), 6.0);
    })
    .expect("no bugcheck");
    let text = lines.text();
    assert!(text.contains("APC      test.sys!Seven(rcx=1, rdx=2, r8=3, r9=4) from ntsim+"), "{text}");
    assert!(text.lines().next().is_some_and(|line| line.ends_with("= 0x74cbb1")), "{text}");
}

#[test]
fn a_gate_is_hooked_only_where_a_tracer_wants_it() {
    let (machine, _) = traced(Form::Text, &["ke*spinlock", "HAL.dll!*"]);
    let catalogue = Catalogue::get();
    let hooked = |machine: &Machine, module: &str, name: &str| {
        let (_, plain) = catalogue.find(module, name).expect("an export");
        let (_, given) = catalogue.find_for(machine, module, name).expect("an export");
        plain != given
    };
    assert!(hooked(&machine, "ntoskrnl.exe", "KeReleaseSpinLock"));
    assert!(hooked(&machine, "hal.dll", "KeQueryPerformanceCounter"));
    assert!(!hooked(&machine, "ntoskrnl.exe", "KeAcquireSpinLockRaiseToDpc"));
    assert!(!hooked(&Machine::new(), "ntoskrnl.exe", "KeReleaseSpinLock"), "another machine is left alone");
}

/// A driver whose entry point calls `name` and returns success.
fn calls(name: &str) -> Vec<u8> {
    let (_, slot) = Sample::new(&code::call_slot(0), &[0; 16]).with_imports("ntoskrnl.exe", &[name]);
    Sample::new(&code::call_slot(slot), &[0; 16]).with_imports("ntoskrnl.exe", &[name]).0.write()
}

#[test]
fn a_driver_s_calls_stand_inside_the_call_into_it() {
    let (machine, lines) = traced(Form::Text, &[]);
    machine.load_driver("sample", &calls("KeGetCurrentIrql")).expect("loads");
    let text = lines.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("PASSIVE  -> DriverEntry(service=sample) at sample.sys+0x1000 {"), "{text}");
    assert!(lines[1].ends_with("  ntoskrnl.exe!KeGetCurrentIrql() from sample.sys+0x100a = PASSIVE_LEVEL"), "{text}");
    assert!(lines[2].ends_with("} DriverEntry = STATUS_SUCCESS (0x00000000)"), "{text}");
}

#[test]
fn json_has_an_object_for_each_call_and_each_return() {
    let (machine, lines) = traced(Form::Json, &[]);
    machine.load_driver("sample", &calls("KeGetCurrentIrql")).expect("loads");
    let text = lines.text();
    let objects: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let column = |name: &str| -> Vec<String> { objects.iter().map(|o| o[name].to_string()).collect() };
    assert_eq!(column("event"), [r#""callback""#, r#""call""#, r#""return""#, r#""return""#]);
    assert_eq!(column("depth"), ["0", "1", "1", "0"]);
    assert_eq!(objects[1]["module"], "ntoskrnl.exe");
    assert_eq!(objects[1]["at"], "sample.sys+0x100a");
    assert_eq!(objects[2]["result"], "PASSIVE_LEVEL");
}

#[test]
fn a_call_that_stops_the_machine_never_returns() {
    let (machine, lines) = traced(Form::Text, &[]);
    let error = machine.load_driver("sample", &calls("KeBugCheck")).expect_err("stops the machine");
    let crate::pe::LoadError::Bugcheck(bugcheck) = error else { panic!("{error}") };
    // The hook does not hide the caller.
    assert_eq!(bugcheck.driver_frames().next().map(ToString::to_string).as_deref(), Some("sample.sys+0x100a"));
    let text = lines.text();
    assert!(
        text.contains("ntoskrnl.exe!KeBugCheck(") && text.contains(" from sample.sys+0x100a never returns"),
        "{text}"
    );
    assert!(text.lines().last().is_some_and(|line| line.ends_with("} DriverEntry never returns")), "{text}");
}

#[test]
fn a_hooked_gate_keeps_the_irql_contract() {
    let (machine, _) = traced(Form::Text, &[]);
    let (_, gate) = Catalogue::get().find_for(&machine, "ntoskrnl.exe", "KeDelayExecutionThread").expect("an export");
    let bugcheck = cpu::enter(&machine, Irql::DISPATCH, || {
        // SAFETY: refused before its arguments are read.
        let delay: extern "win64" fn(u8, u8, *const i64) -> i32 = unsafe { core::mem::transmute(gate) };
        delay(0, 0, core::ptr::null())
    })
    .expect_err("a violation");
    assert!(bugcheck.why.contains("ntoskrnl.exe!KeDelayExecutionThread was called at DISPATCH_LEVEL"), "{bugcheck}");
}
