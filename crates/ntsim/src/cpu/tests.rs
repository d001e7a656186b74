use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

fn machine() -> Arc<Machine> {
    Machine::new()
}

#[test]
fn enter_returns_the_closures_value_and_runs_on_another_stack() {
    let local = 0_u8;
    let outer = &raw const local as u64;
    let inner = enter(&machine(), Irql::PASSIVE, || {
        let local = 0_u8;
        std::hint::black_box(&raw const local as u64)
    })
    .unwrap();
    assert!(inner.abs_diff(outer) > 64 * 1024, "inner {inner:#x} outer {outer:#x}");
}

#[test]
fn irql_is_raised_inside_and_passive_outside() {
    assert_eq!(irql(), Irql::PASSIVE);
    let seen = enter(&machine(), Irql::DISPATCH, irql).unwrap();
    assert_eq!(seen, Irql::DISPATCH);
    assert_eq!(irql(), Irql::PASSIVE);
}

#[test]
fn nested_enter_runs_on_the_same_stack_and_comes_back_down() {
    let m = machine();
    enter(&m, Irql::PASSIVE, || {
        let inner = enter(&m, Irql::DISPATCH, irql).unwrap();
        assert_eq!(inner, Irql::DISPATCH);
        assert_eq!(irql(), Irql::PASSIVE);
    })
    .unwrap();
}

#[test]
fn a_bugcheck_stops_the_machine_for_good() {
    let m = machine();
    let first = enter(&m, Irql::DISPATCH, || -> u32 { bugcheck(0xe2, [1, 2, 3, 4], "asked for") }).unwrap_err();
    assert_eq!((first.code, first.name), (0xe2, "MANUALLY_INITIATED_CRASH"));
    assert_eq!(first.parameters, [1, 2, 3, 4]);
    assert_eq!(first.irql, Irql::DISPATCH);
    let ran = AtomicU32::new(0);
    let second = enter(&m, Irql::PASSIVE, || ran.fetch_add(1, Ordering::Relaxed)).unwrap_err();
    assert_eq!(second.why, "asked for");
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    // Another machine on the same thread is not affected.
    assert_eq!(enter(&machine(), Irql::PASSIVE, || 7).unwrap(), 7);
}

#[test]
fn a_bugcheck_in_a_nested_call_comes_out_of_the_outermost() {
    let m = machine();
    let after = AtomicU32::new(0);
    let stopped = enter(&m, Irql::PASSIVE, || {
        let _ = enter(&m, Irql::DISPATCH, || bugcheck(0xe2, [0; 4], "inner"));
        after.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(stopped.unwrap_err().why, "inner");
    assert_eq!(after.load(Ordering::Relaxed), 0);
}

#[test]
fn a_null_read_is_a_bugcheck_with_the_address() {
    let stopped = enter(&machine(), Irql::PASSIVE, || {
        // SAFETY: none; the fault is what is tested.
        unsafe { std::hint::black_box(0x18 as *const u64).read_volatile() }
    });
    let stopped = stopped.unwrap_err();
    assert_eq!(stopped.code, code::PAGE_FAULT_IN_NONPAGED_AREA);
    assert_eq!(stopped.parameters[0..2], [0x18, 0]);
    assert!(stopped.why.contains("0x18 was read"), "{stopped}");
    assert!(stopped.stack.len() >= 2, "{stopped:?}");
    assert!(stopped.stack[0].module.is_some(), "{stopped:?}");
}

#[test]
fn a_bad_write_at_dispatch_names_irql_and_operation() {
    let stopped = enter(&machine(), Irql::DISPATCH, || {
        // SAFETY: none; the fault is what is tested.
        unsafe { std::hint::black_box(0x20 as *mut u64).write_volatile(1) };
    });
    let stopped = stopped.unwrap_err();
    assert_eq!(stopped.code, code::DRIVER_IRQL_NOT_LESS_OR_EQUAL);
    assert_eq!(stopped.parameters[0..3], [0x20, 2, 1]);
}

#[test]
fn a_call_through_null_is_a_bugcheck_with_the_callers_frame() {
    let stopped = enter(&machine(), Irql::PASSIVE, || {
        // SAFETY: none; the fault is what is tested.
        let f: extern "win64" fn() = unsafe { core::mem::transmute(std::hint::black_box(8_usize)) };
        f();
    });
    let stopped = stopped.unwrap_err();
    assert_eq!(stopped.parameters[0], 8);
    assert!(stopped.why.contains("executed"), "{stopped}");
    assert_eq!(stopped.stack[0].module, None);
    assert!(stopped.stack[1].module.is_some(), "{stopped:?}");
}

#[test]
fn endless_recursion_overflows_the_kernel_stack_and_nothing_else() {
    #[inline(never)]
    fn deeper(n: u64) -> u64 {
        let block = std::hint::black_box([n; 64]);
        if block[0] == u64::MAX { 0 } else { deeper(n + 1) + block[(n % 64) as usize] }
    }
    let stopped = enter(&machine(), Irql::PASSIVE, || deeper(0)).unwrap_err();
    assert_eq!(stopped.code, code::UNEXPECTED_KERNEL_MODE_TRAP);
    assert_eq!(stopped.parameters[0], 8);
}

#[test]
fn privileged_moves_of_cr8_are_the_irql() {
    let seen = enter(&machine(), Irql::PASSIVE, || {
        let (before, after): (u64, u64);
        // SAFETY: the instructions fault and are emulated; only the named registers change.
        unsafe {
            core::arch::asm!(
                "mov {before}, cr8",
                "mov {new}, 2",
                "mov cr8, {new}",
                "mov {after}, cr8",
                "mov {new}, 0",
                "mov cr8, {new}",
                before = out(reg) before,
                after = out(reg) after,
                new = out(reg) _,
            );
        }
        (before, after)
    });
    assert_eq!(seen.unwrap(), (0, 2));
}

#[test]
fn fastfail_and_division_have_their_own_codes() {
    let fast = enter(&machine(), Irql::PASSIVE, || {
        // SAFETY: none; the fault is what is tested.
        unsafe { core::arch::asm!("int 0x29", in("rcx") 5_u64) };
    });
    assert_eq!(fast.unwrap_err().parameters[0], 5);
    let divided = enter(&machine(), Irql::PASSIVE, || {
        // SAFETY: none; the fault is what is tested.
        unsafe { core::arch::asm!("div {0:e}", in(reg) 0_u32, inout("eax") 1_u32 => _, inout("edx") 0_u32 => _) };
    });
    assert!(divided.unwrap_err().why.contains("divided"));
}

#[test]
fn a_panic_crosses_the_stack_switch() {
    let m = machine();
    let caught =
        std::panic::catch_unwind(AssertUnwindSafe(|| enter(&m, Irql::DISPATCH, || -> u32 { panic!("carried") })));
    assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "carried");
    // The machine still runs, and its processor was released.
    assert_eq!(enter(&m, Irql::DISPATCH, || 1).unwrap(), 1);
}

#[test]
fn lowering_below_dispatch_runs_what_was_deferred() {
    let order = parking_lot::Mutex::new(Vec::new());
    let order: &'static _ = Box::leak(Box::new(order));
    enter(&machine(), Irql::PASSIVE, || {
        let old = raise(Irql::DISPATCH);
        dpc::queue_dpc(Box::new(|| order.lock().push(format!("dpc at {}", irql()))));
        order.lock().push("queued".to_owned());
        lower(old);
        order.lock().push(format!("lowered to {}", irql()));
    })
    .unwrap();
    assert_eq!(*order.lock(), ["queued", "dpc at DISPATCH_LEVEL", "lowered to PASSIVE_LEVEL"]);
}

#[test]
fn a_deferred_call_runs_before_an_enter_at_dispatch_ends() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    enter(&machine(), Irql::DISPATCH, || {
        dpc::queue_dpc(Box::new(|| {
            RAN.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(RAN.load(Ordering::Relaxed), 0);
    })
    .unwrap();
    assert_eq!(RAN.load(Ordering::Relaxed), 1);
}

#[test]
fn an_unbalanced_raise_is_found() {
    let stopped = enter(&machine(), Irql::PASSIVE, || {
        at_irql(Irql::APC, || {
            let _old = raise(Irql::DISPATCH);
        });
    });
    assert_eq!(stopped.unwrap_err().code, code::IRQL_UNEXPECTED_VALUE);
}

#[test]
fn only_one_thread_at_dispatch_has_a_processor_number() {
    let m = Machine::with(crate::machine::Config { processors: 2, ..Default::default() });
    let inside: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    enter(&m, Irql::DISPATCH, || {
                        let slot = &inside[context::kpcr().number() as usize];
                        assert_eq!(slot.fetch_add(1, Ordering::AcqRel), 0);
                        std::hint::spin_loop();
                        slot.fetch_sub(1, Ordering::AcqRel);
                    })
                    .unwrap();
                }
            });
        }
    });
}

#[test]
fn a_stop_on_one_thread_frees_one_that_waits() {
    let m = machine();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            enter(&m, Irql::PASSIVE, || {
                loop {
                    leave_if_stopped();
                    std::thread::yield_now();
                }
            })
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        let _ = enter(&m, Irql::PASSIVE, || bugcheck(0xe2, [0; 4], "stop"));
        let left: Result<(), Bugcheck> = waiting.join().unwrap();
        assert_eq!(left.unwrap_err().why, "stop");
    });
}
