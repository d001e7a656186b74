//! The processor control region, to which `gs` points in kernel mode.
//!
//! Only the fields that x64 driver code reads by inlined accessors are kept (offsets: `_KPCR`, `_KPRCB` and
//! `_KTHREAD` in the public symbols of ntoskrnl, Windows 10 22H2); the rest is zero.

use core::cell::UnsafeCell;
use core::ptr;
use nt_abi::Irql;

/// Offset of `KPCR.Self`.
const SELF: usize = 0x18;
/// Offset of `KPCR.CurrentPrcb`.
const CURRENT_PRCB: usize = 0x20;
/// Offset of `KPCR.Irql`. Real x64 Windows keeps the level in CR8 and this field only mirrors it at times; here it
/// is the level.
pub const IRQL: usize = 0x50;
/// Offset of ntsim's slot, in an unused part of `KPCR` (`PcrAlign1`): the stack pointer at the driver's last call
/// through an import gate.
pub const GATE_RSP: usize = 0x118;
/// Offset of `KPCR.Prcb`.
const PRCB: usize = 0x180;
/// Offset of `KPRCB.CurrentThread`, read as `gs:[188h]`.
const CURRENT_THREAD: usize = PRCB + 0x08;
/// Offset of `KPRCB.Number`, read as `gs:[1a4h]`.
const NUMBER: usize = PRCB + 0x24;
/// Offset of `KTHREAD.ApcState.Process`.
const THREAD_PROCESS: usize = 0xb8;
/// More than any Windows version's `ETHREAD`.
const THREAD_SIZE: usize = 0x1000;

/// A `KPCR` with its `KPRCB`.
#[repr(C, align(64))]
pub struct Kpcr {
    bytes: UnsafeCell<[u8; 0x1000]>,
}

/// A `KTHREAD`, as opaque to a driver as the real one.
#[repr(C, align(64))]
struct Thread {
    bytes: UnsafeCell<[u8; THREAD_SIZE]>,
}

/// A new `KTHREAD` of the process whose `EPROCESS` is at `process`. Never freed: a driver may have kept the address.
pub(crate) fn new_thread(process: u64) -> u64 {
    let thread: &'static Thread = Box::leak(Box::new(Thread { bytes: UnsafeCell::new([0; THREAD_SIZE]) }));
    let address = thread.bytes.get() as u64;
    // SAFETY: inside the new block, to which nothing else points.
    unsafe { ((address as usize + THREAD_PROCESS) as *mut u64).write(process) };
    address
}

impl core::fmt::Debug for Kpcr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Kpcr").field("irql", &self.irql()).field("number", &self.number()).finish_non_exhaustive()
    }
}

impl Kpcr {
    /// A region for one thread. Never freed: driver code may have kept the address.
    pub(super) fn leak_new() -> &'static Self {
        let kpcr: &'static Self = Box::leak(Box::new(Self { bytes: UnsafeCell::new([0; 0x1000]) }));
        let base = ptr::from_ref(kpcr) as u64;
        kpcr.write(SELF, base);
        kpcr.write(CURRENT_PRCB, base + PRCB as u64);
        kpcr.write(CURRENT_THREAD, new_thread(0));
        kpcr
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        debug_assert!(offset.is_multiple_of(align_of::<T>()) && offset + size_of::<T>() <= 0x1000);
        // SAFETY: in bounds, as asserted; every caller passes one of the constants above.
        unsafe { self.bytes.get().cast::<u8>().add(offset).cast() }
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: `at` gives an aligned address inside the region; only integers are read, every value is valid. Only
        // this thread and the driver code it runs write here; volatile, because driver code writes behind our back.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    fn write<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    /// The level.
    #[inline]
    pub fn irql(&self) -> Irql {
        Irql(self.read(IRQL))
    }

    /// Only sets the level: [`super::raise`] and [`super::lower`] enforce the rules.
    #[inline]
    pub(super) fn set_irql(&self, irql: Irql) {
        self.write(IRQL, irql.0);
    }

    /// The processor's number.
    #[inline]
    pub fn number(&self) -> u32 {
        self.read(NUMBER)
    }

    #[inline]
    pub(super) fn set_number(&self, number: u32) {
        self.write(NUMBER, number);
    }

    /// The current `KTHREAD`.
    #[must_use]
    pub fn thread(&self) -> u64 {
        self.read(CURRENT_THREAD)
    }

    /// Makes `thread`, from [`new_thread`], the current `KTHREAD` of this processor.
    pub(crate) fn set_thread(&self, thread: u64) {
        self.write(CURRENT_THREAD, thread);
    }

    /// The `EPROCESS` the current thread runs in.
    #[must_use]
    pub fn process(&self) -> u64 {
        let thread = self.thread() as *const u8;
        // SAFETY: the thread block was leaked by `new_thread` and is THREAD_SIZE bytes.
        unsafe { thread.add(THREAD_PROCESS).cast::<u64>().read_volatile() }
    }

    /// Attaches the current thread to an `EPROCESS`.
    pub(crate) fn set_process(&self, process: u64) {
        let thread = self.thread() as *mut u8;
        // SAFETY: as in `process`.
        unsafe { thread.add(THREAD_PROCESS).cast::<u64>().write_volatile(process) }
    }

    /// The stack pointer at the driver's last call through an import gate: it points at the return address.
    #[must_use]
    pub fn gate_rsp(&self) -> u64 {
        self.read(GATE_RSP)
    }

    pub(super) fn set_gate_rsp(&self, rsp: u64) {
        self.write(GATE_RSP, rsp);
    }
}

/// Points this thread's `gs` at `kpcr`. Nothing else in a Linux process uses `gs`, so it stays loaded between calls.
pub(super) fn load(kpcr: &'static Kpcr) {
    thread_local! {
        static LOADED: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
    }
    const ARCH_SET_GS: libc::c_int = 0x1001;
    let base = ptr::from_ref(kpcr) as u64;
    if LOADED.get() == base {
        return;
    }
    // SAFETY: sets this thread's gs base; no compiled code of this program uses gs.
    let done = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
    assert!(done == 0, "arch_prctl(ARCH_SET_GS): {}", std::io::Error::last_os_error());
    LOADED.set(base);
}
