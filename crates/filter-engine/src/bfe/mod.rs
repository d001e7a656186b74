//! The Base Filtering Engine: the store of management objects, its sessions and transactions.
//!
//! One session at a time may change the store; it does so on a copy, which becomes the store when the transaction
//! commits. A change outside a transaction is a transaction of its own. On commit the callouts of new filters are
//! notified (notifyFn may refuse), the engine's snapshot is replaced, and the callouts of deleted filters are notified.

mod boot;
mod check;
mod objects;
mod session;
mod transaction;
mod weight;

pub use objects::{
    Callout, DisplayData, Filter, FilterContext, Lifetime, Objects, Provider, ProviderContext, SessionId, Stored,
    StoredCallout, StoredFilter, Sublayer,
};
pub use session::{Session, SessionInfo, SessionOptions};

use crate::names;
use nt_abi::fwp::consts::FWPM_SUBLAYER_FLAG_PERSISTENT;
use parking_lot::{Condvar, Mutex};
use sluice_host::Guid;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use transaction::Holder;

/// The engine's store, and the session that changes it.
#[derive(Debug)]
pub struct Bfe {
    state: Mutex<State>,
    released: Condvar,
    next_filter: AtomicU64,
    next_order: AtomicU64,
    next_session: AtomicU64,
    /// Whether it runs: until it does, only boot-time filters are enforced.
    running: AtomicBool,
}

#[derive(Debug)]
struct State {
    objects: Objects,
    sessions: BTreeMap<SessionId, SessionInfo>,
    /// The session that holds the store for writing.
    holder: Option<Holder>,
}

impl Default for Bfe {
    fn default() -> Self {
        let built_in = names::builtin_sublayers().iter().map(|sublayer| {
            let object = Sublayer {
                key: sublayer.key,
                display: DisplayData::new(sublayer.name, ""),
                flags: FWPM_SUBLAYER_FLAG_PERSISTENT,
                provider: None,
                data: Vec::new(),
                weight: sublayer.weight,
            };
            (sublayer.key, Stored { object, lifetime: Lifetime::BuiltIn, order: 0 })
        });
        let objects = Objects { sublayers: Arc::new(built_in.collect()), ..Objects::default() };
        Self {
            state: Mutex::new(State { objects, sessions: BTreeMap::new(), holder: None }),
            released: Condvar::new(),
            // Run-time ids are not reused while the machine runs; on live machines they are far from zero too.
            next_filter: AtomicU64::new(0x1_0001),
            next_order: AtomicU64::new(1),
            next_session: AtomicU64::new(1),
            running: AtomicBool::new(true),
        }
    }
}

impl Bfe {
    /// The committed objects.
    #[must_use]
    pub fn objects(&self) -> Objects {
        self.state.lock().objects.clone()
    }

    /// Whether BFE runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// The open sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.state.lock().sessions.values().cloned().collect()
    }

    fn new_filter_id(&self) -> u64 {
        self.next_filter.fetch_add(1, Ordering::Relaxed)
    }

    fn new_order(&self) -> u64 {
        self.next_order.fetch_add(1, Ordering::Relaxed)
    }

    /// A key for an object without one: unique on this machine, and the same in every run.
    fn make_key(&self, id: u64) -> Guid {
        let mut mix = id.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut half = || {
            mix = (mix ^ mix >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mix = (mix ^ mix >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            mix ^= mix >> 31;
            u128::from(mix)
        };
        // Version 4, variant 1.
        let bits = half() << 64 | half();
        Guid(bits & !(0xF << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62)
    }
}
