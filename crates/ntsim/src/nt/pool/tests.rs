use super::*;
use crate::cpu::Bugcheck;
use crate::machine::{Config, Machine};
use std::sync::Arc;

const TAG: u32 = u32::from_le_bytes(*b"Test");

fn machine(special_pool: bool) -> Arc<Machine> {
    Machine::with(Config { special_pool, ..Config::default() })
}

fn run<R>(m: &Arc<Machine>, irql: Irql, f: impl FnOnce(&Pool) -> R) -> Result<R, Bugcheck> {
    cpu::enter(m, irql, || f(&m.pool))
}

#[test]
fn blocks_are_zeroed_aligned_and_counted() {
    for special in [false, true] {
        let m = machine(special);
        for size in [0, 1, 15, 16, 17, 100, 4095, 4096, 4097, 70_000] {
            let at = m.pool.allocate(TAG, size, Kind::NonPaged);
            assert!(!at.is_null());
            assert_eq!(at as usize % if size >= 4096 { 4096 } else { 16 }, 0, "size {size} special {special}");
            // SAFETY: just allocated with this size.
            assert!(unsafe { core::slice::from_raw_parts(at, size) }.iter().all(|&b| b == 0));
            assert_eq!(m.pool.usage(), (1, size));
            run(&m, Irql::PASSIVE, |pool| pool.free(at, TAG)).unwrap();
            assert_eq!(m.pool.usage(), (0, 0));
        }
    }
}

#[test]
fn blocks_smaller_than_a_page_never_cross_one() {
    for special in [false, true] {
        let m = machine(special);
        let sizes = [1, 16, 100, 700, 1024, 2049, 4000, 4064, 4080, 4081, 4095];
        for size in sizes.into_iter().cycle().take(sizes.len() * 40) {
            let at = m.pool.allocate(TAG, size, Kind::NonPaged) as usize;
            assert_eq!(at / 4096, (at + size - 1) / 4096, "{size} bytes at {at:#x}, special {special}");
        }
    }
}

#[test]
fn a_second_free_is_found_and_names_the_block() {
    let m = machine(false);
    let at = m.pool.allocate(TAG, 24, Kind::NonPaged);
    run(&m, Irql::PASSIVE, |pool| pool.free(at, 0)).unwrap();
    let stopped = run(&m, Irql::PASSIVE, |pool| pool.free(at, 0)).unwrap_err();
    assert_eq!((stopped.code, stopped.parameters[0]), (code::BAD_POOL_CALLER, 7));
    assert!(stopped.why.contains("freed twice") && stopped.why.contains("24-byte block with tag 'Test'"), "{stopped}");
}

#[test]
fn a_wrong_tag_and_an_address_inside_a_block_are_found() {
    let m = machine(false);
    let at = m.pool.allocate(TAG, 24, Kind::NonPaged);
    let stopped = run(&m, Irql::PASSIVE, |pool| pool.free(at, u32::from_le_bytes(*b"Else"))).unwrap_err();
    assert_eq!(stopped.parameters[0], 0xa);
    let m = machine(false);
    let at = m.pool.allocate(TAG, 24, Kind::NonPaged);
    let stopped = run(&m, Irql::PASSIVE, |pool| pool.free(at.wrapping_add(8), 0)).unwrap_err();
    assert!(stopped.why.contains("8 bytes into the 24-byte block"), "{stopped}");
}

#[test]
fn guard_bytes_tell_which_side_was_overrun() {
    for (offset, side) in [(24_isize, "past its end"), (-1, "before its beginning")] {
        let m = machine(false);
        let at = m.pool.allocate(TAG, 24, Kind::NonPaged);
        let stopped = run(&m, Irql::PASSIVE, |pool| {
            // SAFETY: a guard byte of the block; the overrun is what is tested.
            unsafe { at.offset(offset).write(7) };
            pool.free(at, TAG);
        });
        let stopped = stopped.unwrap_err();
        assert_eq!(stopped.code, code::BAD_POOL_HEADER);
        assert!(stopped.why.contains(side), "{stopped}");
    }
}

#[test]
fn the_special_pool_faults_at_the_overrun_itself() {
    let m = machine(true);
    let at = m.pool.allocate(TAG, 32, Kind::NonPaged);
    let stopped = run(&m, Irql::DISPATCH, |_| {
        // SAFETY: one past the block, which faults; that is what is tested.
        unsafe { std::hint::black_box(at.add(32)).write_volatile(7) };
    });
    let stopped = stopped.unwrap_err();
    assert_eq!(stopped.code, code::DRIVER_IRQL_NOT_LESS_OR_EQUAL);
    assert!(stopped.why.contains("32 bytes from the beginning of the 32-byte block with tag 'Test'"), "{stopped}");
}

#[test]
fn the_special_pool_faults_at_a_use_after_free() {
    let m = machine(true);
    let at = m.pool.allocate(TAG, 32, Kind::NonPaged);
    let stopped = run(&m, Irql::PASSIVE, |pool| {
        pool.free(at, TAG);
        // SAFETY: freed, which faults; that is what is tested.
        unsafe { std::hint::black_box(at).read_volatile() }
    });
    let stopped = stopped.unwrap_err();
    assert!(stopped.why.contains("inside the 32-byte block with tag 'Test'"), "{stopped}");
    assert!(stopped.why.contains("freed by"), "{stopped}");
}

#[test]
fn the_ordinary_pool_finds_a_write_after_free_on_inspection() {
    let m = machine(false);
    let at = m.pool.allocate(TAG, 32, Kind::NonPaged);
    run(&m, Irql::PASSIVE, |pool| pool.free(at, TAG)).unwrap();
    assert_eq!(m.pool.inspect_freed(), None);
    // SAFETY: freed, but still mapped by the quarantine; the write is what is tested.
    unsafe { at.add(5).write(1) };
    let (address, what) = m.pool.inspect_freed().unwrap();
    assert_eq!(address, at as u64);
    assert!(what.contains("'Test'"), "{what}");
}

#[test]
fn paged_pool_is_not_freed_at_dispatch_level() {
    let m = machine(false);
    let at = m.pool.allocate(TAG, 32, Kind::Paged);
    let stopped = run(&m, Irql::DISPATCH, |pool| pool.free(at, TAG)).unwrap_err();
    assert_eq!(stopped.parameters[0], 9);
}

#[test]
fn impossible_sizes_are_refused() {
    for special in [false, true] {
        let m = machine(special);
        assert!(m.pool.allocate(TAG, usize::MAX, Kind::NonPaged).is_null());
        assert!(m.pool.allocate(TAG, usize::MAX - 4096, Kind::Paged).is_null());
        assert_eq!(m.pool.usage(), (0, 0));
    }
}

#[test]
fn leaks_belong_to_whose_code_allocated() {
    let m = machine(false);
    let at = m.pool.allocate_for(0x5000, TAG, 48, Kind::NonPaged);
    m.pool.allocate_for(0x9000, TAG, 48, Kind::NonPaged);
    let leaks = m.pool.leaks_of(&(0x5000..0x6000));
    assert_eq!(leaks.len(), 1);
    assert_eq!((leaks[0].address, leaks[0].size), (at as u64, 48));
}
