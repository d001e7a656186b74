//! The Kernel-Mode Driver Framework behind WDFLDR.SYS: KMDF 1.9 to 1.33 for drivers without plug and play.
//!
//! The path of a call: [`bind`] hands a driver the [`table`]; an entry of it is an `extern "win64"` function in the
//! room of its object ([`device`], [`queue`], [`request`], ...), which looks the handle up ([`handle`]), does its work
//! on the object ([`object`]) and calls the driver back through [`callback`]. A rule broken anywhere is a
//! [`violation::Violation`], returned to the entry point and turned into bugcheck 0x10D only there.
//!
//! Requests come from the I/O manager through [`device`], wait in a [`queue`], belong to the driver while it works on
//! them and end in [`request`]. Everything that the framework defers runs on system worker threads or as DPCs
//! ([`kernel`]).
//!
//! Absent: plug and play and power, I/O targets, DMA, USB, WMI, interrupts, class extensions. Their slots in the table
//! hold stubs that name the function when it is called.

mod abi;
mod activity;
pub mod bind;
mod callback;
mod client;
mod collection;
mod ddi;
#[cfg(test)]
mod deferred_tests;
mod device;
mod dpc;
mod driver;
mod file;
mod handle;
mod kernel;
mod lock;
mod memory;
mod object;
mod queue;
mod registry;
mod request;
mod status;
mod string;
mod table;
#[cfg(test)]
mod testing;
mod timer;
#[cfg(test)]
mod value_tests;
mod verifier;
mod violation;
mod wheel;
mod workitem;

use core::fmt;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use abi::Handle;
use handle::HandleTable;
use object::Object;

pub use crate::nt::cm::Value as RegistryValue;
pub use bind::EXPORTS;
pub(crate) use client::Client;

/// The framework's state on one machine.
pub struct Framework {
    pub(crate) handles: HandleTable<Arc<Object>>,
    contexts: ContextMap,
    inits: Mutex<HashMap<Handle, device::Init>>,
    clients: RwLock<Vec<Arc<Client>>>,
    /// What unloaded drivers left behind, by service.
    leaks: Mutex<Vec<(String, String)>>,
    workers: kernel::Workers,
    wheel: wheel::Wheel,
}

impl fmt::Debug for Framework {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framework").field("objects", &self.handles.values()).finish_non_exhaustive()
    }
}

impl Default for Framework {
    fn default() -> Self {
        Self::new()
    }
}

impl Framework {
    /// An empty framework.
    #[must_use]
    pub fn new() -> Self {
        // Not a secret: it only has to make handles of different machines differ.
        let key = u64::from_le_bytes(*b"KMDF1.33") ^ (std::process::id() as u64) << 20;
        Self {
            handles: HandleTable::new(key),
            contexts: ContextMap::default(),
            inits: Mutex::new(HashMap::new()),
            clients: RwLock::new(Vec::new()),
            leaks: Mutex::new(Vec::new()),
            workers: kernel::Workers::default(),
            wheel: wheel::Wheel::default(),
        }
    }

    /// Whether a driver is bound to the framework.
    #[must_use]
    pub fn is_client(&self, driver: &str) -> bool {
        self.clients.read().iter().any(|client| client.name().eq_ignore_ascii_case(driver))
    }

    /// What a driver left behind when it was unloaded, one sentence each: objects still alive, requests it still
    /// owned. Each is told once.
    #[must_use]
    pub fn take_leaks(&self, driver: &str) -> Vec<String> {
        let mut leaks = self.leaks.lock();
        let (of_driver, others) =
            core::mem::take(&mut *leaks).into_iter().partition(|(name, _)| name.eq_ignore_ascii_case(driver));
        *leaks = others;
        let of_driver: Vec<(String, String)> = of_driver;
        of_driver.into_iter().map(|(_, leak)| leak).collect()
    }
}

/// Which object a context belongs to, by the context's address.
#[derive(Default)]
struct ContextMap {
    objects: RwLock<HashMap<usize, Weak<Object>>>,
}

impl ContextMap {
    fn insert(&self, address: usize, object: &Arc<Object>) {
        self.objects.write().insert(address, Arc::downgrade(object));
    }

    fn get(&self, address: usize) -> Option<Arc<Object>> {
        self.objects.read().get(&address)?.upgrade()
    }

    fn remove(&self, address: usize) {
        if address != 0 {
            self.objects.write().remove(&address);
        }
    }
}
