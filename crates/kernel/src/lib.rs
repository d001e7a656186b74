//! The one safe layer between the driver's logic and the Windows kernel.
//!
//! Everything here that touches `wdk-sys` or `wfp-sys` is private to this crate; the driver sees types that cannot be
//! misused without `unsafe`, which the driver forbids.
//!
//! * [`wdf`]: the control device, its queues and requests, DPCs.
//! * [`wfp`]: callouts, what a classify carries and how it is answered, flow contexts.
//! * [`swap`]: a value that is read on every packet and replaced occasionally; readers never wait.
//! * [`rings`]: a bounded queue for each processor, read as one.
//! * [`shared`]: values that many owners share.
//! * [`stage`]: work that goes on from call to call, in one word.
//! * [`irql`]: running at DISPATCH_LEVEL, where nobody suspends a thread.
//! * [`etw`]: events for Event Tracing for Windows.
//! * [`file`]: reading a file of the system's disk.
//! * [`process`]: what is known of a process by its number, and when it ends.
//! * [`spin`], [`status`], [`memory`], [`time`], [`processor`]: locks, NTSTATUS, fallible allocation, clocks.
//!
//! # In another driver
//! The crate brings its own panic handler, global allocator and, where no kit supplies one, KMDF entry point, so a
//! driver that uses it supplies none. It needs `wdk-sys` with its requirements (a kit and the published `wdk-build` on
//! Windows; this project's stand-in for `wdk-build` elsewhere), KMDF 1.15 in the driver's `metadata.wdk`, and Windows
//! 10 2004 or later. It contains only what sluice.sys calls, and grows with it.
//!
//! # IRQL
//! Every function states the highest IRQL at which it may be called. Everything that a callout's classify may use can
//! be called at DISPATCH_LEVEL.
//!
//! # Lifetime of the driver
//! State lives in statics that are never dropped, because WFP and WDF call back through plain function pointers. This
//! is sound because of the order in [`wdf::Driver`]'s contract: callouts are unregistered and the device is deleted
//! before the image is unloaded, and both wait for running callbacks.
#![no_std]

extern crate alloc;

#[cfg(not(test))]
extern crate kmdf_entry as _;
#[cfg(not(test))]
extern crate wdk_panic as _;

/// The pool behind `alloc`. Its allocations have the pool's alignment of 16 bytes, and no more.
#[cfg(not(test))]
#[global_allocator]
static POOL: wdk_alloc::WdkAllocator = wdk_alloc::WdkAllocator;

#[cfg(test)]
mod doubles;
pub mod etw;
pub mod file;
pub mod irql;
pub mod memory;
pub mod process;
pub mod processor;
pub mod rings;
pub mod shared;
pub mod spin;
pub mod stage;
pub mod status;
pub mod swap;
pub mod text;
pub mod time;
pub mod wdf;
pub mod wfp;

pub use status::NtStatus;

/// The types that [`driver!`] needs in the driver's crate.
#[doc(hidden)]
pub mod raw {
    pub use wdk_sys::{NTSTATUS, PCUNICODE_STRING, PDRIVER_OBJECT, WDFDRIVER};
}
