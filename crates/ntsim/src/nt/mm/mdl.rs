//! Memory descriptor lists.
//!
//! There is one address space and no paging, so describing memory is all there is to it: the system address of a page
//! is the address it has. What the routines check is what the flags of an `MDL` say was done to it (wdm.h; Driver
//! Verifier's parameters 0x70 to 0xB8).

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::cpu::seh::{self, entry::raising, record::Context};
use crate::export::exports;
use crate::nt::pool::Kind;
use crate::nt::rtl::copy;
use crate::nt::violation;
use core::ffi::c_void;
use core::ptr;
use nt_abi::NtStatus;
use nt_abi::ndis::{MDL_MAPPED_TO_SYSTEM_VA, MDL_SOURCE_IS_NONPAGED_POOL, Mdl};

exports! {
    "ntoskrnl.exe";
    IoAllocateMdl: DISPATCH,
    IoFreeMdl: DISPATCH,
    IoBuildPartialMdl: DISPATCH,
    MmBuildMdlForNonPagedPool: DISPATCH,
    MmInitializeMdl: DISPATCH,
    MmSizeOfMdl: HIGH,
    MmProbeAndLockPages: DISPATCH,
    MmUnlockPages: DISPATCH,
    MmMapLockedPages: DISPATCH,
    MmMapLockedPagesSpecifyCache: DISPATCH,
    MmUnmapLockedPages: DISPATCH,
    MmPrepareMdlForReuse: DISPATCH,
    MmProtectMdlSystemAddress: APC,
}

const PAGE: usize = 4096;
const TAG: u32 = u32::from_le_bytes(*b"Mdl ");
/// Offset of `IRP.MdlAddress`.
const IRP_MDL: usize = 0x08;

/// The flags of wdm.h that `ndis::layout` has no use for.
mod flag {
    pub(super) const PAGES_LOCKED: i16 = 0x0002;
    pub(super) const ALLOCATED_FIXED_SIZE: i16 = 0x0008;
    pub(super) const PARTIAL: i16 = 0x0010;
    pub(super) const PARTIAL_HAS_BEEN_MAPPED: i16 = 0x0020;
    pub(super) const WRITE_OPERATION: i16 = 0x0080;
}

/// How many pages `length` bytes at `address` touch.
fn pages(address: usize, length: usize) -> usize {
    ((address & (PAGE - 1)) + length).div_ceil(PAGE)
}

/// Fills in what every new MDL has.
///
/// # Safety
/// `mdl` is writable and big enough for its pages.
unsafe fn initialize(mdl: *mut Mdl, address: *mut u8, length: usize, flags: i16) {
    let offset = address as usize & (PAGE - 1);
    let size = size_for(address as usize, length);
    // SAFETY: the caller's promise.
    unsafe {
        mdl.write(Mdl {
            next: ptr::null_mut(),
            // The field has 16 bits; Windows cuts it off too for a buffer of more than 32 MiB.
            size: size as i16,
            mdl_flags: flags,
            process: ptr::null_mut(),
            mapped_system_va: ptr::null_mut(),
            start_va: address.wrapping_sub(offset).cast(),
            byte_count: length as u32,
            byte_offset: offset as u32,
        });
    }
}

/// Bytes of an MDL for `length` bytes at `address`.
pub(crate) fn size_for(address: usize, length: usize) -> usize {
    size_of::<Mdl>() + pages(address, length) * size_of::<u64>()
}

/// Makes an MDL for memory that is mapped, locked and stays: what the I/O manager gives a driver with a request.
///
/// # Safety
/// `mdl` is writable for [`size_for`] bytes.
pub(crate) unsafe fn describe(mdl: *mut Mdl, address: usize, length: usize) {
    let flags = MDL_MAPPED_TO_SYSTEM_VA | flag::PAGES_LOCKED | MDL_SOURCE_IS_NONPAGED_POOL;
    // SAFETY: the caller's promise.
    unsafe {
        initialize(mdl, address as *mut u8, length, flags);
        (*mdl).mapped_system_va = address as *mut _;
    }
}

/// `secondary` appends to the request's chain instead of replacing it.
unsafe extern "win64" fn IoAllocateMdl(
    address: *mut u8,
    length: u32,
    secondary: u8,
    _charge_quota: u8,
    irp: *mut u8,
) -> *mut Mdl {
    let length = length as usize;
    let size = size_of::<Mdl>() + pages(address as usize, length) * size_of::<u64>();
    let mdl = cpu::with_machine(|machine| {
        // Longer ones than 4 GiB less a page cannot be described.
        if length > u32::MAX as usize - PAGE || machine.low_resources.fails("IoAllocateMdl") {
            return ptr::null_mut();
        }
        machine.pool.allocate(TAG, size, Kind::NonPaged)
    });
    let mdl = mdl.cast::<Mdl>();
    if mdl.is_null() {
        return mdl;
    }
    // SAFETY: a new block of the size for these pages. The page makes the IRP null, which is checked, or an IRP that
    // the driver owns.
    unsafe {
        initialize(mdl, address, length, flag::ALLOCATED_FIXED_SIZE);
        if !irp.is_null() {
            let mut link = irp.add(IRP_MDL).cast::<*mut Mdl>();
            if secondary != 0 {
                while !link.read().is_null() {
                    link = &raw mut (*link.read()).next;
                }
            }
            link.write(mdl);
        }
    }
    mdl
}

unsafe extern "win64" fn IoFreeMdl(mdl: *mut Mdl) {
    // SAFETY: the page demands an MDL of IoAllocateMdl; that it is not locked is checked next, and that it is a pool
    // block when it is freed.
    let flags = unsafe {
        MmPrepareMdlForReuse(mdl);
        (*mdl).mdl_flags
    };
    if flags & flag::PAGES_LOCKED != 0 {
        violation(
            [0xB8, mdl as u64, flags as u16 as u64, 0],
            format!("the MDL at {mdl:p} was freed with its pages locked: MmUnlockPages was not called"),
        );
    }
    cpu::with_machine(|machine| machine.pool.free(mdl.cast(), TAG));
}

/// Undoes a mapping that a partial MDL has got since it was built.
unsafe extern "win64" fn MmPrepareMdlForReuse(mdl: *mut Mdl) {
    // SAFETY: the page demands an MDL that IoBuildPartialMdl built or IoAllocateMdl allocated; one that was not mapped
    // is left alone.
    unsafe {
        if (*mdl).mdl_flags & flag::PARTIAL_HAS_BEEN_MAPPED != 0 {
            unmap(mdl);
        }
    }
}

unsafe extern "win64" fn MmInitializeMdl(mdl: *mut Mdl, address: *mut u8, length: usize) {
    // SAFETY: the page demands nonpaged memory of the size that MmSizeOfMdl returns for these pages.
    unsafe { initialize(mdl, address, length, 0) };
}

extern "win64" fn MmSizeOfMdl(address: usize, length: usize) -> usize {
    size_of::<Mdl>() + pages(address, length) * size_of::<u64>()
}

/// Describes a part of what another MDL describes; a length of 0 means up to its end.
unsafe extern "win64" fn IoBuildPartialMdl(source: *const Mdl, target: *mut Mdl, address: *mut u8, length: u32) {
    // SAFETY: the page demands two MDLs; the range is checked against the source next, and the room of the target.
    let source = unsafe { &*source };
    let begin = source.start_va as usize + source.byte_offset as usize;
    let offset = (address as usize).wrapping_sub(begin);
    let left = (source.byte_count as usize).saturating_sub(offset);
    let length = if length == 0 { left } else { length as usize };
    // SAFETY: `target` is an MDL by the page's contract, with room for the pages (checked below or above).
    let room = (usize::from(unsafe { (*target).size } as u16).saturating_sub(size_of::<Mdl>())) / size_of::<u64>();
    if length > left || pages(address as usize, length) > room {
        cpu::bugcheck(
            crate::cpu::code::TARGET_MDL_TOO_SMALL,
            [target as u64, room as u64, 0, pages(address as usize, length) as u64],
            format!(
                "IoBuildPartialMdl was asked for {length} bytes at {address:p}, which the source MDL ({} bytes at \
                 {begin:#x}) or the target ({room} pages) cannot hold",
                source.byte_count
            ),
        );
    }
    let kept = MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL;
    // SAFETY: `target` is an MDL by the page's contract, with room for the pages (checked below or above).
    unsafe {
        let size = (*target).size;
        let fixed = (*target).mdl_flags & flag::ALLOCATED_FIXED_SIZE;
        initialize(target, address, length, fixed | flag::PARTIAL | source.mdl_flags & kept);
        (*target).size = size;
        (*target).process = source.process;
        if source.mdl_flags & kept != 0 {
            (*target).mapped_system_va = source.mapped_system_va.wrapping_byte_add(offset);
        }
    }
}

unsafe extern "win64" fn MmBuildMdlForNonPagedPool(mdl: *mut Mdl) {
    // SAFETY: the page demands an MDL that describes nonpaged pool; whether it is locked or paged is checked next.
    let (flags, address) =
        unsafe { ((*mdl).mdl_flags, (*mdl).start_va.wrapping_byte_add((*mdl).byte_offset as usize)) };
    if flags & flag::PAGES_LOCKED != 0 {
        violation(
            [0x7F, cpu::irql().0.into(), mdl as u64, flags as u16 as u64],
            format!("MmBuildMdlForNonPagedPool was given the MDL at {mdl:p}, whose pages are locked"),
        );
    }
    if cpu::with_machine(|machine| machine.pool.kind_at(address as u64)) == Some(Kind::Paged) {
        violation(
            [0x7F, cpu::irql().0.into(), mdl as u64, flags as u16 as u64],
            format!("MmBuildMdlForNonPagedPool was given the MDL at {mdl:p}, which describes paged pool"),
        );
    }
    // SAFETY: an MDL, as above.
    unsafe {
        (*mdl).mdl_flags |= MDL_SOURCE_IS_NONPAGED_POOL;
        (*mdl).mapped_system_va = address;
    }
}

raising! {
    /// Raises where the memory cannot be accessed so. `operation` is LOCK_OPERATION: 0 read, 1 write, 2 both.
    fn MmProbeAndLockPages(mdl: *mut Mdl, mode: i8, operation: u32) => probe_and_lock_pages
}

unsafe extern "win64" fn probe_and_lock_pages(mdl: *mut Mdl, _mode: i8, operation: u32, context: *mut Context) {
    // SAFETY: the page demands an MDL of IoAllocateMdl or MmInitializeMdl; its flags are checked next.
    let (flags, begin, length) = unsafe {
        let mdl = &*mdl;
        (mdl.mdl_flags, mdl.start_va as usize + mdl.byte_offset as usize, mdl.byte_count as usize)
    };
    let wrong = flags & (flag::PAGES_LOCKED | MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL | flag::PARTIAL);
    if wrong != 0 {
        violation(
            [0xB0, mdl as u64, flags as u16 as u64, wrong as u16 as u64],
            format!(
                "MmProbeAndLockPages was given the MDL at {mdl:p} with flags {flags:#x}: it is locked or built already"
            ),
        );
    }
    if let Some(at) = copy::first_inaccessible(begin, length, operation != 0) {
        // SAFETY: called by `raising`; nothing here owns anything.
        unsafe {
            seh::raise(context, NtStatus::ACCESS_VIOLATION, 0, &[u64::from(operation != 0), at as u64], || {
                format!("MmProbeAndLockPages: {at:#x} cannot be accessed, and nobody handled the exception")
            });
        }
    }
    let write = if operation == 0 { 0 } else { flag::WRITE_OPERATION };
    // SAFETY: an MDL, as above, whose pages are accessible as asked.
    unsafe { (*mdl).mdl_flags |= flag::PAGES_LOCKED | write };
}

unsafe extern "win64" fn MmUnlockPages(mdl: *mut Mdl) {
    // SAFETY: the page demands an MDL that MmProbeAndLockPages locked; its flags are checked next.
    let flags = unsafe { (*mdl).mdl_flags };
    let (parameter, why) = match flags {
        f if f & flag::PARTIAL != 0 => (0xB4, "which is partial: only the MDL it is a part of can be unlocked"),
        f if f & MDL_SOURCE_IS_NONPAGED_POOL != 0 => (0x7D, "which describes nonpaged pool and is never locked"),
        f if f & flag::PAGES_LOCKED == 0 => (0x7C, "whose pages are not locked"),
        _ => (0, ""),
    };
    if parameter != 0 {
        violation(
            [parameter, mdl as u64, flags as u16 as u64, 0],
            format!("MmUnlockPages was given the MDL at {mdl:p}, {why}"),
        );
    }
    // SAFETY: an MDL, as above, that is locked.
    unsafe {
        if flags & MDL_MAPPED_TO_SYSTEM_VA != 0 {
            unmap(mdl);
        }
        (*mdl).mdl_flags &= !(flag::PAGES_LOCKED | flag::WRITE_OPERATION);
    }
}

/// # Safety
/// `mdl` points to an MDL.
unsafe fn unmap(mdl: *mut Mdl) {
    // SAFETY: the caller's promise.
    unsafe {
        (*mdl).mdl_flags &= !(MDL_MAPPED_TO_SYSTEM_VA | flag::PARTIAL_HAS_BEEN_MAPPED);
        (*mdl).mapped_system_va = ptr::null_mut();
    }
}

unsafe extern "win64" fn MmMapLockedPages(mdl: *mut Mdl, mode: i8) -> *mut c_void {
    // SAFETY: the page demands what MmMapLockedPagesSpecifyCache does.
    unsafe { MmMapLockedPagesSpecifyCache(mdl, mode, 1, ptr::null(), 0, 16) }
}

/// Null when there is no address space left, which only low-resource runs make happen. There is no user-mode address
/// space to map into.
unsafe extern "win64" fn MmMapLockedPagesSpecifyCache(
    mdl: *mut Mdl,
    mode: i8,
    _cache: u32,
    _requested: *const c_void,
    bug_check_on_failure: u32,
    _priority: u32,
) -> *mut c_void {
    const USER_MODE: i8 = 1;
    // SAFETY: the page demands an MDL whose pages are locked or nonpaged; its flags are checked next.
    let flags = unsafe { (*mdl).mdl_flags };
    if bug_check_on_failure != 0 && mode != USER_MODE {
        violation(
            [0x82, mdl as u64, flags as u16 as u64, 0],
            "MmMapLockedPagesSpecifyCache was called with BugCheckOnFailure TRUE, which drivers must not do",
        );
    }
    if mode == USER_MODE {
        violation(
            [0x77, cpu::irql().0.into(), mdl as u64, 1],
            "MmMapLockedPagesSpecifyCache was asked for a user-mode mapping: ntsim has no user-mode address space",
        );
    }
    let mapped = flags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0;
    let locked = flags & (flag::PAGES_LOCKED | flag::PARTIAL) != 0;
    if mapped || !locked {
        let what = if mapped { "mapped already" } else { "not locked" };
        violation(
            [0xB2, mdl as u64, flags as u16 as u64, if mapped { 5 } else { 0x12 }],
            format!("MmMapLockedPagesSpecifyCache was given the MDL at {mdl:p}, whose pages are {what}"),
        );
    }
    if cpu::with_machine(|machine| machine.low_resources.fails("MmMapLockedPagesSpecifyCache")) {
        return ptr::null_mut();
    }
    // SAFETY: an MDL, as above, that is locked and not mapped.
    unsafe {
        let address = (*mdl).start_va.wrapping_byte_add((*mdl).byte_offset as usize);
        let partial = if flags & flag::PARTIAL != 0 { flag::PARTIAL_HAS_BEEN_MAPPED } else { 0 };
        (*mdl).mdl_flags |= MDL_MAPPED_TO_SYSTEM_VA | partial;
        (*mdl).mapped_system_va = address;
        address
    }
}

unsafe extern "win64" fn MmUnmapLockedPages(address: *mut c_void, mdl: *mut Mdl) {
    // SAFETY: the page demands an MDL that is mapped at this address; both are checked next.
    let (flags, mapped) = unsafe { ((*mdl).mdl_flags, (*mdl).mapped_system_va) };
    if flags & MDL_MAPPED_TO_SYSTEM_VA == 0 || mapped != address {
        violation(
            [0x79, cpu::irql().0.into(), address as u64, mdl as u64],
            format!("MmUnmapLockedPages was given {address:p}, which is not where the MDL at {mdl:p} is mapped"),
        );
    }
    // SAFETY: an MDL, as above, that is mapped.
    unsafe { unmap(mdl) };
}

/// Protection of a mapping is accepted and not enforced.
unsafe extern "win64" fn MmProtectMdlSystemAddress(_mdl: *mut Mdl, _protection: u32) -> i32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use nt_abi::Irql;

    fn violates(parameter: u64, f: impl FnOnce()) {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, f).unwrap_err();
        assert_eq!(stopped.parameters[0], parameter, "{stopped}");
    }

    /// An MDL over a buffer of 10000 bytes.
    unsafe fn over(buffer: &mut [u8]) -> *mut Mdl {
        // SAFETY: the buffer outlives the test.
        unsafe { IoAllocateMdl(buffer.as_mut_ptr(), buffer.len() as u32, 0, 0, ptr::null_mut()) }
    }

    #[test]
    fn nonpaged_memory_is_mapped_by_describing_it() {
        let machine = Machine::new();
        let mut buffer = vec![0_u8; 10_000];
        // SAFETY: buffer and MDL are ours.
        cpu::enter(&machine, Irql::DISPATCH, || unsafe {
            let mdl = over(&mut buffer);
            MmBuildMdlForNonPagedPool(mdl);
            assert_eq!((*mdl).mapped_system_va, buffer.as_mut_ptr().cast());
            assert_eq!((*mdl).byte_count, 10_000);
            assert_eq!((*mdl).start_va as usize % PAGE, 0);
            IoFreeMdl(mdl);
        })
        .unwrap();
        assert_eq!(machine.pool.usage().0, 0);
    }

    #[test]
    fn pages_are_locked_mapped_unmapped_and_unlocked() {
        let mut buffer = vec![7_u8; 10_000];
        // SAFETY: buffer and MDL are ours.
        cpu::enter(&Machine::new(), Irql::PASSIVE, || unsafe {
            let mdl = over(&mut buffer);
            MmProbeAndLockPages(mdl, 0, 2);
            let mapped = MmMapLockedPagesSpecifyCache(mdl, 0, 1, ptr::null(), 0, 16);
            assert_eq!(mapped.cast::<u8>().read(), 7);
            MmUnmapLockedPages(mapped, mdl);
            MmUnlockPages(mdl);
            assert_eq!((*mdl).mdl_flags, flag::ALLOCATED_FIXED_SIZE);
            IoFreeMdl(mdl);
        })
        .unwrap();
        assert!(buffer.iter().all(|byte| *byte == 7), "probing for writing changes nothing");
    }

    #[test]
    fn a_partial_mdl_describes_a_part() {
        let mut buffer = vec![0_u8; 10_000];
        // SAFETY: buffer and MDLs are ours.
        cpu::enter(&Machine::new(), Irql::PASSIVE, || unsafe {
            let (whole, part) = (over(&mut buffer), over(&mut buffer));
            MmBuildMdlForNonPagedPool(whole);
            let at = buffer.as_mut_ptr().add(5000);
            IoBuildPartialMdl(whole, part, at, 0);
            assert_eq!(((*part).byte_count, (*part).mapped_system_va), (5000, at.cast()));
            IoBuildPartialMdl(whole, part, at, 20);
            assert_eq!((*part).byte_count, 20);
            IoFreeMdl(part);
            IoFreeMdl(whole);
        })
        .unwrap();
        // SAFETY: as above.
        let beyond = cpu::enter(&Machine::new(), Irql::PASSIVE, || unsafe {
            let (whole, part) = (over(&mut buffer), over(&mut buffer));
            IoBuildPartialMdl(whole, part, buffer.as_mut_ptr().add(5000), 5001);
        });
        assert_eq!(beyond.unwrap_err().code, cpu::code::TARGET_MDL_TOO_SMALL);
    }

    #[test]
    fn chains_hang_on_the_request() {
        let mut irp = [0_u64; 32];
        // SAFETY: all ours.
        cpu::enter(&Machine::new(), Irql::PASSIVE, || unsafe {
            let at = irp.as_mut_ptr().cast();
            let first = IoAllocateMdl(ptr::null_mut(), 10, 0, 0, at);
            let second = IoAllocateMdl(ptr::null_mut(), 10, 1, 0, at);
            assert_eq!((irp[1], (*first).next), (first as u64, second));
        })
        .unwrap();
    }

    #[test]
    fn misuse_stops_the_machine() {
        let mut buffer = [0_u8; 64];
        // SAFETY: buffer and MDLs are ours.
        unsafe {
            violates(0x7C, || MmUnlockPages(over(&mut buffer)));
            violates(0x7D, || {
                let mdl = over(&mut buffer);
                MmBuildMdlForNonPagedPool(mdl);
                MmUnlockPages(mdl);
            });
            violates(0xB0, || {
                let mdl = over(&mut buffer);
                MmProbeAndLockPages(mdl, 0, 0);
                MmProbeAndLockPages(mdl, 0, 0);
            });
            violates(0xB8, || {
                let mdl = over(&mut buffer);
                MmProbeAndLockPages(mdl, 0, 0);
                IoFreeMdl(mdl);
            });
            violates(0xB2, || {
                MmMapLockedPagesSpecifyCache(over(&mut buffer), 0, 1, ptr::null(), 0, 16);
            });
            violates(0x82, || {
                MmMapLockedPagesSpecifyCache(over(&mut buffer), 0, 1, ptr::null(), 1, 16);
            });
            violates(0x79, || MmUnmapLockedPages(buffer.as_mut_ptr().cast(), over(&mut buffer)));
            violates(0x7F, || {
                let paged = cpu::with_machine(|machine| machine.pool.allocate(1, 64, Kind::Paged));
                MmBuildMdlForNonPagedPool(IoAllocateMdl(paged, 64, 0, 0, ptr::null_mut()));
            });
        }
    }

    #[test]
    fn locking_what_is_no_memory_raises_an_exception() {
        // SAFETY: nothing is touched that is not memory: the exception is what is tested.
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || unsafe {
            MmProbeAndLockPages(IoAllocateMdl(0x1000 as *mut u8, 64, 0, 0, ptr::null_mut()), 0, 0);
        });
        assert_eq!(stopped.unwrap_err().code, cpu::code::KMODE_EXCEPTION_NOT_HANDLED);
    }
}
