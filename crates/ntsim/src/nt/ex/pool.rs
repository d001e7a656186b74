//! Allocating and freeing pool.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::nt::pool::Kind;
use core::ffi::c_void;
use core::ptr;
use nt_abi::Irql;

exports! {
    "ntoskrnl.exe";
    ExAllocatePool2: DISPATCH,
    ExAllocatePool3: DISPATCH,
    ExAllocatePool: DISPATCH,
    ExAllocatePoolWithTag: DISPATCH,
    ExAllocatePoolWithQuotaTag: DISPATCH,
    ExAllocatePoolWithTagPriority: DISPATCH,
    ExFreePool: DISPATCH,
    ExFreePoolWithTag: DISPATCH,
    ExFreePool2: DISPATCH,
}

/// POOL_FLAGS (wdm.h).
mod flag {
    pub(super) const UNINITIALIZED: u64 = 0x2;
    pub(super) const RAISE_ON_FAILURE: u64 = 0x20;
    pub(super) const NON_PAGED: u64 = 0x40;
    pub(super) const NON_PAGED_EXECUTE: u64 = 0x80;
    pub(super) const PAGED: u64 = 0x100;
    /// The pools; exactly one must be named.
    pub(super) const POOLS: u64 = NON_PAGED | NON_PAGED_EXECUTE | PAGED;
    /// The low half of the flags is required: an unknown one fails; the high half is optional.
    pub(super) const KNOWN: u64 = 0x1ff;
}

/// Fills memory that is not promised to be zeroed, so that a driver that reads it notices.
const UNINITIALIZED_BYTE: u8 = 0xbe;
/// Tag of routines that take none ("None").
const NO_TAG: u32 = u32::from_le_bytes(*b"None");

/// Allocates for the caller of the import; `zero` says whether the contents are promised.
fn allocate(tag: u32, size: usize, kind: Kind, zero: bool, what: &str) -> *mut u8 {
    let caller = cpu::caller();
    let irql = cpu::irql();
    if kind == Kind::Paged && irql > Irql::APC {
        cpu::bugcheck(
            code::BAD_POOL_CALLER,
            [0x8, u64::from(irql.0), 1, size as u64],
            format!("{what} was asked for {size} bytes of paged pool at {irql}; paged pool needs APC_LEVEL at most"),
        );
    }
    cpu::with_machine(|machine| {
        if machine.low_resources.fails(what) {
            return ptr::null_mut();
        }
        let address = machine.pool.allocate_for(caller, tag, size, kind);
        if !zero && !address.is_null() {
            // SAFETY: just allocated with this size.
            unsafe { address.write_bytes(UNINITIALIZED_BYTE, size) };
        }
        address
    })
}

/// STATUS_INSUFFICIENT_RESOURCES raised, where nothing can catch it.
fn raise(what: &str, size: usize) -> ! {
    cpu::bugcheck(
        code::KMODE_EXCEPTION_NOT_HANDLED,
        [0xffff_ffff_c000_009a, 0, 0, 0],
        format!("{what} raised STATUS_INSUFFICIENT_RESOURCES for {size} bytes, as its caller asked"),
    )
}

extern "win64" fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut u8 {
    let kind = match flags & flag::POOLS {
        flag::NON_PAGED => Kind::NonPaged,
        flag::NON_PAGED_EXECUTE => Kind::NonPagedExecute,
        flag::PAGED => Kind::Paged,
        // Not exactly one pool, or a required flag this version does not know, is a failed allocation.
        _ => return ptr::null_mut(),
    };
    if flags & 0xffff_ffff & !flag::KNOWN != 0 {
        return ptr::null_mut();
    }
    if tag == 0 {
        cpu::bugcheck(
            code::BAD_POOL_CALLER,
            [0x9b, u64::from(flags as u32), size as u64, 0],
            "pool was allocated with tag 0",
        );
    }
    let address = allocate(tag, size, kind, flags & flag::UNINITIALIZED == 0, "ExAllocatePool2");
    if address.is_null() && flags & flag::RAISE_ON_FAILURE != 0 {
        raise("ExAllocatePool2", size);
    }
    address
}

/// The extended parameters (priority, secure pool, NUMA node) do not change what the driver gets.
extern "win64" fn ExAllocatePool3(
    flags: u64,
    size: usize,
    tag: u32,
    _parameters: *const c_void,
    _count: u32,
) -> *mut u8 {
    ExAllocatePool2(flags, size, tag)
}

/// A `POOL_TYPE`: bit 0 says paged; 512 says that nonpaged pool is not executable.
fn kind_of(pool_type: u32) -> Kind {
    match (pool_type & 1, pool_type & 0x200) {
        (1, _) => Kind::Paged,
        (_, 0) => Kind::NonPagedExecute,
        _ => Kind::NonPaged,
    }
}

extern "win64" fn ExAllocatePoolWithTag(pool_type: u32, size: usize, tag: u32) -> *mut u8 {
    /// POOL_RAISE_IF_ALLOCATION_FAILURE and POOL_ZERO_ALLOCATION.
    const RAISE: u32 = 0x10;
    const ZERO: u32 = 0x400;
    let zero = pool_type & ZERO != 0;
    let address = allocate(tag, size, kind_of(pool_type), zero, "ExAllocatePoolWithTag");
    if address.is_null() && pool_type & RAISE != 0 {
        raise("ExAllocatePoolWithTag", size);
    }
    address
}

extern "win64" fn ExAllocatePool(pool_type: u32, size: usize) -> *mut u8 {
    ExAllocatePoolWithTag(pool_type, size, NO_TAG)
}

/// Quota is charged to a process and not modelled; POOL_QUOTA_FAIL_INSTEAD_OF_RAISE is 8.
extern "win64" fn ExAllocatePoolWithQuotaTag(pool_type: u32, size: usize, tag: u32) -> *mut u8 {
    let address = allocate(tag, size, kind_of(pool_type), false, "ExAllocatePoolWithQuotaTag");
    if address.is_null() && pool_type & 8 == 0 {
        raise("ExAllocatePoolWithQuotaTag", size);
    }
    address
}

extern "win64" fn ExAllocatePoolWithTagPriority(pool_type: u32, size: usize, tag: u32, _priority: u32) -> *mut u8 {
    ExAllocatePoolWithTag(pool_type, size, tag)
}

fn free(address: *mut u8, tag: u32) {
    cpu::with_machine(|machine| machine.pool.free(address, tag));
}

extern "win64" fn ExFreePool(address: *mut u8) {
    free(address, 0);
}

extern "win64" fn ExFreePoolWithTag(address: *mut u8, tag: u32) {
    free(address, tag);
}

extern "win64" fn ExFreePool2(address: *mut u8, tag: u32, _parameters: *const c_void, _count: u32) {
    free(address, tag);
}
