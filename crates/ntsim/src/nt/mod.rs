//! ntoskrnl.exe and HAL.dll, one file per prefix.

pub mod ex;
pub mod io;
pub mod ke;
pub mod pool;
pub mod rtl;
