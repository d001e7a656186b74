//! Generic tables: `RTL_AVL_TABLE` (ntddk.h).
//!
//! The table and its nodes are in the driver's memory, in the form of the header; its routines compare, allocate and
//! free. A node is an `RTL_BALANCED_LINKS` with the driver's data behind it. The root hangs at the right of the links
//! in the table, as on Windows. The documentation allows DISPATCH_LEVEL when the nodes are resident. A driver's routine
//! is called in the middle of a walk: nothing here holds anything.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::export::exports;
use crate::verifier::callback::{self, At};
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::{self, null_mut};

exports! {
    "ntoskrnl.exe";
    RtlInitializeGenericTableAvl: DISPATCH,
    RtlInsertElementGenericTableAvl: DISPATCH,
    RtlInsertElementGenericTableFullAvl: DISPATCH,
    RtlLookupElementGenericTableAvl: DISPATCH,
    RtlLookupElementGenericTableFullAvl: DISPATCH,
    RtlLookupFirstMatchingElementGenericTableAvl: DISPATCH,
    RtlDeleteElementGenericTableAvl: DISPATCH,
    RtlEnumerateGenericTableAvl: DISPATCH,
    RtlEnumerateGenericTableWithoutSplayingAvl: DISPATCH,
    RtlGetElementGenericTableAvl: DISPATCH,
    RtlNumberGenericTableElementsAvl: DISPATCH,
    RtlIsGenericTableEmptyAvl: DISPATCH,
}

/// `RTL_BALANCED_LINKS`. A node's parent is never null: the root's is the table's own links.
#[repr(C)]
#[derive(Debug)]
struct Links {
    parent: *mut Links,
    left: *mut Links,
    right: *mut Links,
    /// Height of the right subtree less that of the left.
    balance: i8,
    reserved: [u8; 3],
}

/// `RTL_AVL_TABLE`.
#[repr(C)]
struct Table {
    root: Links,
    ordered_pointer: *mut c_void,
    which_ordered_element: u32,
    count: u32,
    depth: u32,
    restart_key: *mut Links,
    deletions: u32,
    compare: Compare,
    allocate: Allocate,
    free: Free,
    context: *mut c_void,
}

/// `RTL_AVL_COMPARE_ROUTINE`: GenericLessThan 0, GenericGreaterThan 1, GenericEqual 2.
type Compare = extern "win64" fn(*mut Table, *const c_void, *const c_void) -> u32;
/// `RTL_AVL_ALLOCATE_ROUTINE`.
type Allocate = extern "win64" fn(*mut Table, u32) -> *mut Links;
/// `RTL_AVL_FREE_ROUTINE`.
type Free = extern "win64" fn(*mut Table, *mut Links);

const _: () = {
    assert!(size_of::<Links>() == 0x20 && size_of::<Table>() == 0x68);
    assert!(offset_of!(Table, count) == 0x2c);
    assert!(offset_of!(Table, compare) == 0x48);
};

/// Calls the table's routine that compares.
///
/// # Safety
/// The driver's table.
unsafe fn compare(table: *mut Table, a: *const c_void, b: *const c_void) -> u32 {
    // SAFETY: the caller's promise.
    let routine = unsafe { (*table).compare };
    let at = At("the compare routine of a generic table", routine as usize as u64);
    callback::call(&at, "CompareRoutine", || routine(table, a, b))
}

/// Calls the table's routine that allocates.
///
/// # Safety
/// The driver's table.
unsafe fn allocate(table: *mut Table, size: u32) -> *mut Links {
    // SAFETY: the caller's promise.
    let routine = unsafe { (*table).allocate };
    let at = At("the allocate routine of a generic table", routine as usize as u64);
    callback::call(&at, "AllocateRoutine", || routine(table, size))
}

/// Calls the table's routine that frees.
///
/// # Safety
/// The driver's table, and a node that no table has any more.
unsafe fn free(table: *mut Table, node: *mut Links) {
    // SAFETY: the caller's promise.
    let routine = unsafe { (*table).free };
    let at = At("the free routine of a generic table", routine as usize as u64);
    callback::call(&at, "FreeRoutine", || routine(table, node));
}

/// TABLE_SEARCH_RESULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Search {
    EmptyTree = 0,
    Found = 1,
    InsertAsLeft = 2,
    InsertAsRight = 3,
}

fn data(node: *mut Links) -> *mut c_void {
    node.wrapping_add(1).cast()
}

/// Where an element is, or would hang.
///
/// # Safety
/// `table` is an initialized RTL_AVL_TABLE; here and below, every node in it is one that this module linked.
unsafe fn search(table: *mut Table, element: *const c_void) -> (Search, *mut Links) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut node = (*table).root.right;
        if node.is_null() {
            return (Search::EmptyTree, &raw mut (*table).root);
        }
        loop {
            let (next, result) = match compare(table, element, data(node)) {
                0 => ((*node).left, Search::InsertAsLeft),
                1 => ((*node).right, Search::InsertAsRight),
                _ => return (Search::Found, node),
            };
            if next.is_null() {
                return (result, node);
            }
            node = next;
        }
    }
}

/// The link that leads to a node.
///
/// # Safety
/// A node of a table.
unsafe fn link_to(node: *mut Links) -> *mut *mut Links {
    // SAFETY: the caller's promise; the root is at the right of the table's links, whose left is null.
    unsafe {
        let parent = (*node).parent;
        if (*parent).left == node { &raw mut (*parent).left } else { &raw mut (*parent).right }
    }
}

/// Makes `child`, null or a node, hang where `node` hung.
///
/// # Safety
/// As [`link_to`].
unsafe fn replace(node: *mut Links, child: *mut Links) {
    // SAFETY: the caller's promise.
    unsafe {
        link_to(node).write(child);
        if !child.is_null() {
            (*child).parent = (*node).parent;
        }
    }
}

/// Turns the heavy child of `node` above it: the right one, or the left.
///
/// # Safety
/// A node with that child.
unsafe fn rotate(node: *mut Links, right: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let child = if right { (*node).right } else { (*node).left };
        let (inner, child_inner) = if right {
            (&raw mut (*node).right, &raw mut (*child).left)
        } else {
            (&raw mut (*node).left, &raw mut (*child).right)
        };
        replace(node, child);
        inner.write(child_inner.read());
        if !inner.read().is_null() {
            (*inner.read()).parent = node;
        }
        child_inner.write(node);
        (*node).parent = child;
    }
}

/// Brings a node with a balance of two back to one or none. Returns the node that is above now, and whether the subtree
/// is lower than it was.
///
/// # Safety
/// A node of a table with a balance of 2 or -2.
unsafe fn rebalance(node: *mut Links) -> (*mut Links, bool) {
    // SAFETY: the caller's promise; a subtree two higher than the other has the nodes that are used here.
    unsafe {
        let right = (*node).balance > 0;
        let sign = if right { 1 } else { -1 };
        let child = if right { (*node).right } else { (*node).left };
        if (*child).balance == -sign {
            let grandchild = if right { (*child).left } else { (*child).right };
            rotate(child, !right);
            rotate(node, right);
            let lean = (*grandchild).balance;
            (*node).balance = if lean == sign { -sign } else { 0 };
            (*child).balance = if lean == -sign { sign } else { 0 };
            (*grandchild).balance = 0;
            return (grandchild, true);
        }
        rotate(node, right);
        let lower = (*child).balance == sign;
        (*node).balance = if lower { 0 } else { sign };
        (*child).balance = if lower { 0 } else { -sign };
        (child, lower)
    }
}

/// After the subtree at the right (or left) of `node` has grown (`change` 1) or shrunk (-1) by one level, corrects the
/// balances on the way up.
///
/// # Safety
/// A node of the table, or the table's own links.
unsafe fn adjust(table: *mut Table, mut node: *mut Links, mut at_right: bool, change: i8) {
    // SAFETY: the caller's promise.
    unsafe {
        let root = &raw mut (*table).root;
        while node != root {
            (*node).balance += if at_right { change } else { -change };
            let mut top = node;
            let mut settled = matches!(((*node).balance, change), (0, 1) | (1 | -1, -1));
            if (*node).balance.abs() == 2 {
                let (above, lower) = rebalance(node);
                top = above;
                settled = if change > 0 { lower } else { !lower };
            }
            if settled {
                return;
            }
            node = (*top).parent;
            at_right = (*node).right == top;
        }
        (*table).depth = (*table).depth.wrapping_add_signed(change.into());
    }
}

/// # Safety
/// `table` is an initialized RTL_AVL_TABLE; `parent` and `place` are what [`search`] found, with the table unchanged
/// since.
unsafe fn insert(
    table: *mut Table,
    element: *const c_void,
    size: u32,
    place: Search,
    parent: *mut Links,
) -> *mut Links {
    // SAFETY: the caller's promise; the allocated node has room for the links and the element.
    unsafe {
        let node = allocate(table, size_of::<Links>() as u32 + size);
        if node.is_null() {
            return node;
        }
        node.write(Links { parent, left: null_mut(), right: null_mut(), balance: 0, reserved: [0; 3] });
        data(node).cast::<u8>().copy_from_nonoverlapping(element.cast(), size as usize);
        let at_right = place != Search::InsertAsLeft;
        if at_right {
            (*parent).right = node;
        } else {
            (*parent).left = node;
        }
        (*table).count += 1;
        adjust(table, parent, at_right, 1);
        node
    }
}

/// Takes a node out of the tree.
///
/// # Safety
/// A node of the table.
unsafe fn unlink(table: *mut Table, node: *mut Links) {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*node).left.is_null() && !(*node).right.is_null() {
            // The next in order takes the place; it has no left child.
            let next = leftmost((*node).right);
            let (parent, at_right) = ((*next).parent, (*(*next).parent).right == next);
            replace(next, (*next).right);
            let from = if parent == node { next } else { parent };
            (*next).left = (*node).left;
            (*next).right = (*node).right;
            (*next).balance = (*node).balance;
            (*(*next).left).parent = next;
            if !(*next).right.is_null() {
                (*(*next).right).parent = next;
            }
            replace(node, next);
            adjust(table, from, at_right, -1);
        } else {
            let child = if (*node).left.is_null() { (*node).right } else { (*node).left };
            let (parent, at_right) = ((*node).parent, (*(*node).parent).right == node);
            replace(node, child);
            adjust(table, parent, at_right, -1);
        }
        (*table).count -= 1;
    }
}

/// # Safety
/// A node.
unsafe fn leftmost(mut node: *mut Links) -> *mut Links {
    // SAFETY: the caller's promise.
    unsafe {
        while !(*node).left.is_null() {
            node = (*node).left;
        }
        node
    }
}

/// The first node in order, or null.
///
/// # Safety
/// `table` is an initialized RTL_AVL_TABLE.
unsafe fn first(table: *mut Table) -> *mut Links {
    // SAFETY: the caller's promise.
    unsafe {
        let root = (*table).root.right;
        if root.is_null() { root } else { leftmost(root) }
    }
}

/// The node after another in order, or null.
///
/// # Safety
/// A node of the table.
unsafe fn successor(table: *mut Table, mut node: *mut Links) -> *mut Links {
    // SAFETY: the caller's promise.
    unsafe {
        if !(*node).right.is_null() {
            return leftmost((*node).right);
        }
        let root = &raw mut (*table).root;
        while (*node).parent != root && (*(*node).parent).right == node {
            node = (*node).parent;
        }
        if (*node).parent == root { null_mut() } else { (*node).parent }
    }
}

fn data_or_null(node: *mut Links) -> *mut c_void {
    if node.is_null() { null_mut() } else { data(node) }
}

unsafe extern "win64" fn RtlInitializeGenericTableAvl(
    table: *mut Table,
    compare: Compare,
    allocate: Allocate,
    free: Free,
    context: *mut c_void,
) {
    // SAFETY: the page demands memory for an RTL_AVL_TABLE; every member is written, none read.
    unsafe {
        let root = &raw mut (*table).root;
        table.write(Table {
            root: Links { parent: root, left: null_mut(), right: null_mut(), balance: 0, reserved: [0; 3] },
            ordered_pointer: null_mut(),
            which_ordered_element: 0,
            count: 0,
            depth: 0,
            restart_key: null_mut(),
            deletions: 0,
            compare,
            allocate,
            free,
            context,
        });
    }
}

unsafe extern "win64" fn RtlInsertElementGenericTableAvl(
    table: *mut Table,
    element: *const c_void,
    size: u32,
    is_new: *mut u8,
) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes, and an element of
    // `size` bytes, which is copied.
    unsafe {
        let (found, node) = search(table, element);
        RtlInsertElementGenericTableFullAvl(table, element, size, is_new, node, found)
    }
}

unsafe extern "win64" fn RtlInsertElementGenericTableFullAvl(
    table: *mut Table,
    element: *const c_void,
    size: u32,
    is_new: *mut u8,
    node_or_parent: *mut Links,
    found: Search,
) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes, an element of `size`
    // bytes, and the result of RtlLookupElementGenericTableFullAvl on the unchanged table.
    unsafe {
        let exists = found == Search::Found;
        let node = if exists { node_or_parent } else { insert(table, element, size, found, node_or_parent) };
        if !is_new.is_null() {
            is_new.write(u8::from(!exists && !node.is_null()));
        }
        data_or_null(node)
    }
}

unsafe extern "win64" fn RtlLookupElementGenericTableAvl(table: *mut Table, element: *const c_void) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes, and an element for
    // its compare routine.
    match unsafe { search(table, element) } {
        (Search::Found, node) => data(node),
        _ => null_mut(),
    }
}

unsafe extern "win64" fn RtlLookupElementGenericTableFullAvl(
    table: *mut Table,
    element: *const c_void,
    node_or_parent: *mut *mut Links,
    result: *mut u32,
) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes, an element for its
    // compare routine, and two variables for the result.
    unsafe {
        let (found, node) = search(table, element);
        node_or_parent.write(node);
        result.write(found as u32);
        if found == Search::Found { data(node) } else { null_mut() }
    }
}

/// Of elements that compare as equal, the first in order; `restart` continues an enumeration after it.
unsafe extern "win64" fn RtlLookupFirstMatchingElementGenericTableAvl(
    table: *mut Table,
    element: *const c_void,
    restart: *mut *mut Links,
) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes, an element for the
    // match routine, and a variable for the restart key.
    unsafe {
        let (mut node, mut best) = ((*table).root.right, null_mut());
        while !node.is_null() {
            match compare(table, element, data(node)) {
                0 => node = (*node).left,
                1 => node = (*node).right,
                _ => {
                    best = node;
                    node = (*node).left;
                }
            }
        }
        restart.write(best);
        data_or_null(best)
    }
}

unsafe extern "win64" fn RtlDeleteElementGenericTableAvl(table: *mut Table, element: *const c_void) -> u8 {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes, and an element for
    // its compare routine.
    unsafe {
        let (Search::Found, node) = search(table, element) else { return 0 };
        // An enumeration that is at this node continues from the one before.
        if (*table).restart_key == node {
            (*table).restart_key = predecessor(table, node);
        }
        unlink(table, node);
        (*table).deletions = (*table).deletions.wrapping_add(1);
        (*table).ordered_pointer = null_mut();
        (*table).which_ordered_element = 0;
        free(table, node);
        1
    }
}

/// The node before another in order, or null.
///
/// # Safety
/// A node of the table.
unsafe fn predecessor(table: *mut Table, node: *mut Links) -> *mut Links {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut at, mut before) = (first(table), null_mut());
        while at != node {
            before = at;
            at = successor(table, at);
        }
        before
    }
}

unsafe extern "win64" fn RtlEnumerateGenericTableAvl(table: *mut Table, restart: u8) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes; its restart key is
    // null or a node, because a deletion moves it to another node.
    unsafe {
        if restart != 0 {
            (*table).restart_key = null_mut();
        }
        RtlEnumerateGenericTableWithoutSplayingAvl(table, &raw mut (*table).restart_key)
    }
}

unsafe extern "win64" fn RtlEnumerateGenericTableWithoutSplayingAvl(
    table: *mut Table,
    restart: *mut *mut Links,
) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes, and a restart key
    // that is null or that the last call wrote.
    unsafe {
        let key = restart.read();
        let next = if key.is_null() { first(table) } else { successor(table, key) };
        // At the end the key stays, so that elements inserted behind it are still found.
        if !next.is_null() {
            restart.write(next);
        }
        data_or_null(next)
    }
}

/// The element with that index in order.
unsafe extern "win64" fn RtlGetElementGenericTableAvl(table: *mut Table, index: u32) -> *mut c_void {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes.
    unsafe {
        let mut node = first(table);
        for _ in 0..index {
            if node.is_null() {
                break;
            }
            node = successor(table, node);
        }
        data_or_null(node)
    }
}

unsafe extern "win64" fn RtlNumberGenericTableElementsAvl(table: *const Table) -> u32 {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes.
    unsafe { ptr::addr_of!((*table).count).read() }
}

unsafe extern "win64" fn RtlIsGenericTableEmptyAvl(table: *const Table) -> u8 {
    // SAFETY: the page demands an initialized RTL_AVL_TABLE whose accesses the driver serializes.
    u8::from(unsafe { RtlNumberGenericTableElementsAvl(table) } == 0)
}

#[cfg(test)]
mod tests;
