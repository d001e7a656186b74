//! ntoskrnl.exe and HAL.dll, one room per prefix.

pub mod clock;
pub mod driver;
pub mod ex;
pub mod io;
pub mod ke;
pub mod log;
pub mod pool;
pub mod rtl;
pub mod string;

use crate::export::Export;

/// The export tables of these rooms.
pub const EXPORTS: &[&[Export]] = &[
    ex::pool::EXPORTS,
    ex::rundown::EXPORTS,
    ke::dispatcher::EXPORTS,
    ke::dpc::EXPORTS,
    ke::irql::EXPORTS,
    ke::spinlock::EXPORTS,
    ke::system::EXPORTS,
    ke::time::EXPORTS,
    ke::time::HAL_EXPORTS,
    ke::timer::EXPORTS,
    rtl::memory::EXPORTS,
    rtl::print::EXPORTS,
    rtl::runtime::EXPORTS,
    rtl::runtime::VARIABLES,
    rtl::string::EXPORTS,
];
