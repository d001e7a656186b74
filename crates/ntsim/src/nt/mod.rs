//! ntoskrnl.exe and HAL.dll, one room per prefix.

pub mod clock;
pub mod cm;
pub mod driver;
pub mod errorlog;
pub mod etw;
pub mod ex;
pub mod io;
pub mod ke;
pub mod log;
pub mod mm;
pub mod ob;
pub mod pool;
pub mod ps;
pub mod rtl;
pub mod work;

use crate::cpu::{self, code};
use crate::export::Export;
use core::ops::Range;

/// The export tables of these rooms.
pub const EXPORTS: &[&[Export]] = &[
    cm::query::EXPORTS,
    cm::zw::EXPORTS,
    errorlog::EXPORTS,
    etw::EXPORTS,
    etw::wpp::EXPORTS,
    etw::wpp::RECORDER,
    ex::callback::EXPORTS,
    ex::interlocked::EXPORTS,
    ex::lookaside::EXPORTS,
    ex::mutex::EXPORTS,
    ex::pool::EXPORTS,
    ex::pushlock::EXPORTS,
    ex::resource::EXPORTS,
    ex::rundown::EXPORTS,
    ex::slist::EXPORTS,
    ex::uuid::EXPORTS,
    io::disk::EXPORTS,
    io::reinit::EXPORTS,
    io::wdm::cancel::EXPORTS,
    io::wdm::complete::EXPORTS,
    io::wdm::device::EXPORTS,
    ke::apc::EXPORTS,
    ke::dispatcher::EXPORTS,
    ke::dpc::EXPORTS,
    ke::irql::EXPORTS,
    ke::spinlock::EXPORTS,
    ke::stack::EXPORTS,
    ke::system::EXPORTS,
    ke::time::EXPORTS,
    ke::time::HAL_EXPORTS,
    ke::timer::EXPORTS,
    mm::mdl::EXPORTS,
    mm::system::EXPORTS,
    mm::system::VARIABLES,
    ob::EXPORTS,
    ob::namespace::EXPORTS,
    ob::VARIABLES,
    ps::notify::EXPORTS,
    ps::process::EXPORTS,
    ps::query::EXPORTS,
    ps::thread::EXPORTS,
    rtl::avl::EXPORTS,
    rtl::calendar::EXPORTS,
    rtl::convert::EXPORTS,
    rtl::copy::EXPORTS,
    rtl::exception::EXPORTS,
    rtl::memory::EXPORTS,
    rtl::print::EXPORTS,
    rtl::random::EXPORTS,
    rtl::runtime::EXPORTS,
    rtl::runtime::VARIABLES,
    rtl::string::EXPORTS,
    work::EXPORTS,
];

/// What the executive of one machine keeps beside driver memory.
#[derive(Debug, Default)]
pub struct Executive {
    /// Objects by address, and handles.
    pub objects: ob::Objects,
    /// Processes and threads.
    pub processes: ps::process::Processes,
    /// The registry.
    pub registry: cm::Registry,
    /// The system event log.
    pub events: errorlog::EventLog,
    /// ETW and WMI registrations, and the sessions that listen.
    pub tracing: etw::Tracing,
    /// What boot drivers have called when Windows has booted.
    pub boot_routines: io::reinit::BootRoutines,
    /// Queued work items.
    pub work: work::WorkQueue,
    /// Callback objects.
    pub callbacks: ex::callback::Callbacks,
    /// Lookaside lists.
    pub lookasides: ex::lookaside::Lookasides,
    /// ERESOURCEs.
    pub resources: ex::resource::Resources,
}

impl Executive {
    /// What code within `range`, a driver's image, set up and did not undo, as text.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        [
            self.objects.left_by(range),
            self.processes.routines_left_in(range),
            self.tracing.left_by(range),
            self.callbacks.left_by(range),
            self.lookasides.left_by(range),
            self.resources.left_by(range),
        ]
        .concat()
    }
}

/// Stops the machine for what Driver Verifier calls a violation. The first parameter says which ("Bug Check 0xC4:
/// DRIVER_VERIFIER_DETECTED_VIOLATION").
pub(crate) fn violation(parameters: [u64; 4], why: impl Into<String>) -> ! {
    cpu::bugcheck(code::DRIVER_VERIFIER_DETECTED_VIOLATION, parameters, why)
}
