use crate::cpu::{self, Bugcheck, code};
use crate::machine::{Config, Machine};
use crate::pe::LoadError;
use crate::pe::gate::import;
use crate::verifier::low_resources;
use core::sync::atomic::AtomicU64;
use nt_abi::Irql;
use std::sync::Arc;
use std::time::Duration;

const TAG: u32 = u32::from_le_bytes(*b"Test");

fn at<R>(m: &Arc<Machine>, irql: Irql, f: impl FnOnce() -> R) -> Result<R, Bugcheck> {
    cpu::enter(m, irql, f)
}

#[test]
fn allocate_pool_2_zeroes_unless_told_otherwise_and_wants_one_pool() {
    let allocate: extern "win64" fn(u64, usize, u32) -> *mut u8 = import("ExAllocatePool2");
    let m = Machine::new();
    at(&m, Irql::DISPATCH, || {
        // SAFETY: 64 bytes just allocated.
        let bytes = |at: *mut u8| unsafe { core::slice::from_raw_parts(at, 64) }.to_vec();
        assert_eq!(bytes(allocate(0x40, 64, TAG)), [0; 64]);
        assert_eq!(bytes(allocate(0x42, 64, TAG)), [0xbe; 64]);
        for flags in [0, 0x140, 0xc0, 0x1040] {
            assert!(allocate(flags, 64, TAG).is_null(), "flags {flags:#x}");
        }
        // Flags of the upper half are optional: unknown ones are ignored.
        assert!(!allocate(0x40 | 1 << 40, 64, TAG).is_null());
    })
    .unwrap();
    assert_eq!(m.pool.usage(), (3, 192));
}

#[test]
fn paged_pool_at_dispatch_level_and_tag_0_stop_the_machine() {
    let allocate: extern "win64" fn(u64, usize, u32) -> *mut u8 = import("ExAllocatePool2");
    let paged = at(&Machine::new(), Irql::DISPATCH, || allocate(0x100, 8, TAG)).unwrap_err();
    assert_eq!((paged.code, paged.parameters[0]), (code::BAD_POOL_CALLER, 8));
    let untagged = at(&Machine::new(), Irql::PASSIVE, || allocate(0x40, 8, 0)).unwrap_err();
    assert_eq!(untagged.parameters[0], 0x9b);
}

#[test]
fn old_pool_types_are_understood() {
    let allocate: extern "win64" fn(u32, usize, u32) -> *mut u8 = import("ExAllocatePoolWithTag");
    let free: extern "win64" fn(*mut u8, u32) = import("ExFreePoolWithTag");
    let m = Machine::new();
    at(&m, Irql::PASSIVE, || {
        let executable = allocate(0, 16, TAG);
        // SAFETY: 16 bytes of executable pool: a ret.
        let run: extern "win64" fn() = unsafe {
            executable.write(0xc3);
            core::mem::transmute(executable)
        };
        run();
        free(executable, TAG);
        free(allocate(512, 16, TAG), TAG);
        free(allocate(1, 16, TAG), TAG);
    })
    .unwrap();
    let stopped = at(&m, Irql::PASSIVE, || {
        let data = allocate(512, 16, TAG);
        // SAFETY: not executable, which faults; that is what is tested.
        let run: extern "win64" fn() = unsafe { core::mem::transmute(data) };
        run();
    });
    assert_eq!(stopped.unwrap_err().code, code::ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY);
}

#[test]
fn rundown_waits_for_holders_and_lets_no_new_one_in() {
    let acquire: extern "win64" fn(*const AtomicU64) -> u8 = import("ExAcquireRundownProtection");
    let release: extern "win64" fn(*const AtomicU64) = import("ExReleaseRundownProtection");
    let wait: extern "win64" fn(*const AtomicU64) = import("ExWaitForRundownProtectionRelease");
    let m = Machine::new();
    let reference = AtomicU64::new(0);
    at(&m, Irql::DISPATCH, || assert_eq!((acquire(&reference), acquire(&reference)), (1, 1))).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| at(&m, Irql::PASSIVE, || wait(&reference)));
        while at(&m, Irql::DISPATCH, || acquire(&reference)).unwrap() == 1 {
            at(&m, Irql::DISPATCH, || release(&reference)).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        at(&m, Irql::DISPATCH, || release(&reference)).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        assert!(!waiter.is_finished(), "one holder is left");
        at(&m, Irql::DISPATCH, || release(&reference)).unwrap();
        waiter.join().unwrap().unwrap();
    });
    at(&m, Irql::PASSIVE, || assert_eq!(acquire(&reference), 0)).unwrap();
    let stopped = at(&m, Irql::PASSIVE, || release(&reference)).unwrap_err();
    assert!(stopped.why.contains("more often"), "{stopped}");
}

#[test]
fn low_resources_fail_each_call_stack_once() {
    // A driver that allocates at two places and succeeds only if both do.
    use crate::pe::sample::{Sample, code};
    let (mut sample, slot) = Sample::new(code::SUCCEED, &[]).with_imports("ntoskrnl.exe", &["ExAllocatePool2"]);
    let mut text = vec![0x48, 0x83, 0xec, 0x28]; // sub rsp, 40
    for _ in 0..2 {
        text.extend([0xb9, 0x40, 0, 0, 0, 0xba, 0x20, 0, 0, 0]); // mov ecx, 0x40; mov edx, 32
        text.extend([0x41, 0xb8]); // mov r8d, tag
        text.extend(TAG.to_le_bytes());
        text.extend([0xff, 0x15]); // call [slot]
        let next = 0x1000 + text.len() as u32 + 4;
        text.extend(slot.wrapping_sub(next).to_le_bytes());
        text.extend([0x48, 0x85, 0xc0, 0x74, 0]); // test rax, rax; jz fail
    }
    text.extend([0x31, 0xc0, 0x48, 0x83, 0xc4, 0x28, 0xc3]); // xor eax, eax; add rsp, 40; ret
    let fail = text.len();
    text.extend([0xb8, 0x9a, 0, 0, 0xc0, 0x48, 0x83, 0xc4, 0x28, 0xc3]); // mov eax, 0xc000009a; add rsp, 40; ret
    for at in 0..fail - 5 {
        if text[at..at + 5] == [0x48, 0x85, 0xc0, 0x74, 0] {
            text[at + 4] = (fail - (at + 5)) as u8;
        }
    }
    sample.parts[0].bytes = text;
    let file = sample.write();
    // The second failure leaks the first block; what comes after an unload is not checked here.
    let survey = low_resources::survey(&Config::default(), |machine| match machine.load_driver("tight", &file) {
        Err(LoadError::EntryFailed { leaks, .. }) if !leaks.is_clean() => Err(leaks.to_string()),
        _ => Ok(()),
    });
    let survey = survey.unwrap();
    assert_eq!((survey.stacks(), survey.survived()), (2, 1), "{survey}");
    assert!(survey.failed.iter().all(|site| site.import == "ExAllocatePool2" && site.stack[0].is_driver()), "{survey}");
    assert!(survey.casualties[0].1.starts_with("32 bytes of NonPaged pool, tag 'Test'"), "{survey}");
}
