//! The tree against a sorted set, and what drivers see of it.

use super::*;
use crate::cpu::{self, Bugcheck};
use crate::machine::Machine;
use nt_abi::Irql;
use proptest::prelude::*;
use std::alloc::Layout;
use std::collections::BTreeSet;

/// Runs `f` as a driver's code runs.
fn running<R>(f: impl FnOnce() -> R) -> Result<R, Bugcheck> {
    cpu::enter(&Machine::new(), Irql::PASSIVE, f)
}

extern "win64" fn compare(_: *mut Table, a: *const c_void, b: *const c_void) -> u32 {
    // SAFETY: elements are u32.
    let (a, b) = unsafe { (a.cast::<u32>().read_unaligned(), b.cast::<u32>().read_unaligned()) };
    match a.cmp(&b) {
        core::cmp::Ordering::Less => 0,
        core::cmp::Ordering::Greater => 1,
        core::cmp::Ordering::Equal => 2,
    }
}

fn layout() -> Layout {
    Layout::from_size_align(size_of::<Links>() + 4, 16).unwrap()
}

extern "win64" fn allocate(table: *mut Table, size: u32) -> *mut Links {
    assert_eq!(size as usize, layout().size());
    // SAFETY: a non-zero layout; the context is a flag that makes it fail.
    unsafe { if (*table).context.is_null() { std::alloc::alloc(layout()).cast() } else { null_mut() } }
}

extern "win64" fn free(_: *mut Table, node: *mut Links) {
    // SAFETY: from `allocate`.
    unsafe { std::alloc::dealloc(node.cast(), layout()) };
}

fn table() -> Box<Table> {
    let mut table = Box::<Table>::new_uninit();
    // SAFETY: the routine writes every field.
    unsafe {
        RtlInitializeGenericTableAvl(table.as_mut_ptr(), compare, allocate, free, null_mut());
        table.assume_init()
    }
}

/// The height of a subtree; checks its links and balances.
unsafe fn check(node: *mut Links, parent: *mut Links) -> i32 {
    if node.is_null() {
        return 0;
    }
    // SAFETY: the test's tree.
    unsafe {
        assert_eq!((*node).parent, parent);
        let (left, right) = (check((*node).left, node), check((*node).right, node));
        assert_eq!(i32::from((*node).balance), right - left);
        assert!((right - left).abs() <= 1);
        left.max(right) + 1
    }
}

fn elements(table: &mut Table) -> Vec<u32> {
    let mut key = null_mut();
    core::iter::from_fn(|| {
        // SAFETY: the test's table.
        let element = unsafe { RtlEnumerateGenericTableWithoutSplayingAvl(table, &mut key) };
        // SAFETY: elements are u32.
        (!element.is_null()).then(|| unsafe { element.cast::<u32>().read_unaligned() })
    })
    .collect()
}

proptest! {
    #[test]
    fn it_holds_what_an_ordered_set_holds_and_stays_balanced(
        steps in proptest::collection::vec((any::<bool>(), 0_u32..64), 0..400),
    ) {
        running(|| holds_what_a_set_holds(&steps)).unwrap()?;
    }
}

fn holds_what_a_set_holds(steps: &[(bool, u32)]) -> Result<(), TestCaseError> {
    let mut table = table();
    let at: *mut Table = &raw mut *table;
    let mut model = BTreeSet::new();
    for &(add, value) in steps {
        let element = (&raw const value).cast();
        // SAFETY: the test's table.
        unsafe {
            if add {
                let mut is_new = 9;
                RtlInsertElementGenericTableAvl(at, element, 4, &mut is_new);
                prop_assert_eq!(is_new == 1, model.insert(value));
            } else {
                prop_assert_eq!(RtlDeleteElementGenericTableAvl(at, element) == 1, model.remove(&value));
            }
            let height = check((*at).root.right, &raw mut (*at).root);
            prop_assert_eq!(height as u32, (*at).depth);
            prop_assert_eq!(RtlLookupElementGenericTableAvl(at, element).is_null(), !model.contains(&value));
        }
    }
    prop_assert_eq!(table.count as usize, model.len());
    prop_assert_eq!(elements(&mut table), model.iter().copied().collect::<Vec<_>>());
    for value in model {
        // SAFETY: the test's table.
        unsafe { RtlDeleteElementGenericTableAvl(at, (&raw const value).cast()) };
    }
    // SAFETY: the test's table.
    prop_assert_eq!(unsafe { RtlIsGenericTableEmptyAvl(at) }, 1);
    Ok(())
}

#[test]
fn lookups_say_where_an_element_would_hang() {
    running(|| {
        let mut table = table();
        let at: *mut Table = &raw mut *table;
        let (mut node, mut result) = (null_mut(), 9);
        // SAFETY: the test's table.
        unsafe {
            let five = 5_u32;
            RtlLookupElementGenericTableFullAvl(at, (&raw const five).cast(), &mut node, &mut result);
            assert_eq!(result, Search::EmptyTree as u32);
            let made = RtlInsertElementGenericTableFullAvl(
                at,
                (&raw const five).cast(),
                4,
                ptr::null_mut(),
                node,
                Search::EmptyTree,
            );
            assert_eq!(RtlGetElementGenericTableAvl(at, 0), made);
            assert!(RtlGetElementGenericTableAvl(at, 1).is_null());
            let three = 3_u32;
            let none = RtlLookupElementGenericTableFullAvl(at, (&raw const three).cast(), &mut node, &mut result);
            assert!(none.is_null());
            assert_eq!((result, data(node)), (Search::InsertAsLeft as u32, made));
        }
    })
    .unwrap();
}

#[test]
fn an_enumeration_survives_the_deletion_of_where_it_stands() {
    running(|| {
        let mut table = table();
        let at: *mut Table = &raw mut *table;
        // SAFETY: the test's table.
        unsafe {
            for value in [1_u32, 2, 3, 4] {
                RtlInsertElementGenericTableAvl(at, (&raw const value).cast(), 4, ptr::null_mut());
            }
            let mut seen = Vec::new();
            let mut element = RtlEnumerateGenericTableAvl(at, 1);
            while !element.is_null() {
                seen.push(element.cast::<u32>().read_unaligned());
                RtlDeleteElementGenericTableAvl(at, element);
                element = RtlEnumerateGenericTableAvl(at, 0);
            }
            assert_eq!(seen, [1, 2, 3, 4]);
        }
    })
    .unwrap();
}

#[test]
fn a_failed_allocation_leaves_the_table_as_it_was() {
    running(|| {
        let mut table = table();
        let at: *mut Table = &raw mut *table;
        let (value, mut is_new) = (1_u32, 9);
        // SAFETY: the test's table.
        unsafe {
            (*at).context = ptr::dangling_mut();
            assert!(RtlInsertElementGenericTableAvl(at, (&raw const value).cast(), 4, &mut is_new).is_null());
        }
        assert_eq!((is_new, table.count), (0, 0));
    })
    .unwrap();
}

/// A compare routine that leaves the processor at another level.
extern "win64" fn raises(_: *mut Table, _: *const c_void, _: *const c_void) -> u32 {
    cpu::raise(Irql::DISPATCH);
    2
}

#[test]
fn a_routine_that_does_not_leave_what_it_found_is_named() {
    let stopped = running(|| {
        let mut table = table();
        table.compare = raises;
        let at: *mut Table = &raw mut *table;
        let value = 1_u32;
        for _ in 0..2 {
            // SAFETY: the test's table; the second element is compared with the first.
            unsafe { RtlInsertElementGenericTableAvl(at, (&raw const value).cast(), 4, ptr::null_mut()) };
        }
    });
    let text = stopped.unwrap_err().to_string();
    assert!(text.starts_with("bugcheck 0xc8 ") && text.contains("the compare routine of a generic table"), "{text}");
}
