//! A driver bound to the framework: its globals, its driver object, what it leaves behind.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Framework;
use super::abi::{DRIVER_INIT_NO_DISPATCH_OVERRIDE, DRIVER_INIT_NON_PNP, DriverConfig, DriverGlobals, Handle};
use super::activity::Activity;
use super::driver::service_name;
use super::kernel;
use super::object::{self, Object};
use crate::machine::Machine;

/// One bound driver.
pub(crate) struct Client {
    globals: Box<UnsafeCell<DriverGlobals>>,
    minor: u32,
    name: String,
    /// The `DRIVER_OBJECT`'s address, once known.
    pub(super) driver_object: AtomicUsize,
    driver: Mutex<Option<Arc<Object>>>,
    /// NUL-terminated; stays where it is because the vector is set once.
    registry_path: Mutex<Vec<u16>>,
    tag: AtomicU32,
    /// Deletions that were handed to a worker thread and are not over.
    deferred: AtomicU32,
    deferred_changed: Activity,
    leaks: Mutex<Vec<String>>,
}

// SAFETY: the globals are written at bind and in WdfDriverCreate only, which the driver itself must order before its
// other calls; everybody else only has their address.
unsafe impl Sync for Client {}

impl Client {
    /// The address that the driver passes to every call.
    #[must_use]
    pub(crate) fn globals(&self) -> *const DriverGlobals {
        self.globals.get()
    }

    /// The minor version it was built for.
    #[must_use]
    pub(crate) fn minor(&self) -> u32 {
        self.minor
    }

    /// Its service's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The pool tag of what the framework allocates for it.
    #[must_use]
    pub(crate) fn tag(&self) -> u32 {
        self.tag.load(Ordering::Relaxed)
    }

    /// Its driver object, between `WdfDriverCreate` and unload.
    #[must_use]
    pub(crate) fn driver(&self) -> Option<Arc<Object>> {
        self.driver.lock().clone()
    }

    /// Its registry path, NUL-terminated, for as long as it is bound.
    #[must_use]
    pub(crate) fn registry_path(&self) -> *const u16 {
        self.registry_path.lock().as_ptr()
    }

    /// A deletion is handed to a worker thread.
    pub(crate) fn deferral_begins(&self) {
        self.deferred.fetch_add(1, Ordering::AcqRel);
    }

    /// It is over.
    pub(crate) fn deferral_ends(&self) {
        self.deferred.fetch_sub(1, Ordering::AcqRel);
        self.deferred_changed.notify();
    }

    /// Waits until none is under way.
    pub(crate) fn wait_for_deferred(&self) {
        self.deferred_changed.wait(|| self.deferred.load(Ordering::Acquire) == 0);
    }

    /// Notes something it left behind.
    pub(crate) fn leaked(&self, what: String) {
        self.leaks.lock().push(what);
    }

    /// `WdfDriverCreate` succeeded.
    pub(crate) fn created(
        &self,
        _machine: &Machine,
        driver: &Arc<Object>,
        driver_object: usize,
        registry_path: Vec<u16>,
        config: &DriverConfig,
    ) {
        /// `' kdD'`, the tag of code that gave none.
        const DEFAULT: u32 = u32::from_be_bytes(*b" kdD");
        if config.pool_tag != 0 && config.pool_tag != DEFAULT {
            self.tag.store(config.pool_tag, Ordering::Relaxed);
        }
        let mut registry_path = registry_path;
        registry_path.push(0);
        *self.registry_path.lock() = registry_path;
        self.driver_object.store(driver_object, Ordering::Release);
        *self.driver.lock() = Some(Arc::clone(driver));
        let plain = config.init_flags & (DRIVER_INIT_NON_PNP | DRIVER_INIT_NO_DISPATCH_OVERRIDE) == 0;
        // SAFETY: see `Sync`: the driver is inside WdfDriverCreate.
        let globals = unsafe { &mut *self.globals.get() };
        globals.driver = driver.handle;
        globals.driver_flags |= config.init_flags;
        globals.driver_tag = self.tag();
        // The stub displaces DriverUnload only where the framework has set it.
        globals.displace_driver_unload = u8::from(plain || config.unload.is_some());
    }

    /// Its driver object is deleted.
    pub(crate) fn forget_driver(&self) {
        self.driver.lock().take();
        // SAFETY: see `Sync`: the driver is being unloaded.
        unsafe { (*self.globals.get()).driver = Handle::NULL };
    }
}

impl Framework {
    /// Binds a driver.
    pub(crate) fn add_client(
        &self,
        _machine: &Machine,
        minor: u32,
        driver_object: usize,
        registry_path: &[u16],
    ) -> Arc<Client> {
        let name = service_name(registry_path);
        let mut driver_name = [0; 32];
        for (to, from) in driver_name.iter_mut().take(31).zip(name.bytes()) {
            *to = from;
        }
        let tag = tag_of(&name);
        let globals = DriverGlobals {
            driver: Handle::NULL,
            driver_flags: 0,
            driver_tag: tag,
            driver_name,
            displace_driver_unload: 0,
        };
        let client = Arc::new(Client {
            globals: Box::new(UnsafeCell::new(globals)),
            minor,
            name,
            driver_object: AtomicUsize::new(driver_object),
            driver: Mutex::new(None),
            registry_path: Mutex::new(Vec::new()),
            tag: AtomicU32::new(tag),
            deferred: AtomicU32::new(0),
            deferred_changed: Activity::default(),
            leaks: Mutex::new(Vec::new()),
        });
        self.clients.write().push(Arc::clone(&client));
        client
    }

    /// Unbinds a driver and records what it left.
    pub(crate) fn remove_client(&self, client: &Arc<Client>) {
        self.clients.write().retain(|other| !Arc::ptr_eq(other, client));
        let mut found = core::mem::take(&mut *client.leaks.lock());
        for object in self.handles.values() {
            if Arc::ptr_eq(object.client(), client) {
                found.push(describe(&object));
            }
        }
        self.inits.lock().retain(|handle, init| {
            let others = !Arc::ptr_eq(init.client(), client);
            if !others {
                found.push(format!("WDFDEVICE_INIT {handle:?} was neither used by WdfDeviceCreate nor freed"));
            }
            others
        });
        self.leaks.lock().extend(found.into_iter().map(|leak| (client.name.clone(), leak)));
    }

    pub(crate) fn client(&self, globals: usize) -> Option<Arc<Client>> {
        self.clients.read().iter().find(|client| client.globals() as usize == globals).cloned()
    }

    pub(crate) fn client_of_driver_object(&self, driver_object: usize) -> Option<Arc<Client>> {
        let clients = self.clients.read();
        clients.iter().find(|client| client.driver_object.load(Ordering::Acquire) == driver_object).cloned()
    }
}

fn describe(object: &Object) -> String {
    let types: Vec<String> =
        // SAFETY: the driver's image is still mapped when it unbinds, and its type information with it.
        object.context_types().into_iter().map(|address| unsafe { object::type_name(address) }).collect();
    let contexts = if types.is_empty() { String::new() } else { format!(" with context {}", types.join(", ")) };
    let references = object.references();
    format!("{} {:?}{contexts} is still alive: {references} reference(s) are held on it", object.kind(), object.handle)
}

/// The tag of a driver that names none: the first four characters of its service's name.
fn tag_of(name: &str) -> u32 {
    let mut tag = [b' '; 4];
    for (to, from) in tag.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    if name.is_empty() { kernel::TAG } else { u32::from_le_bytes(tag) }
}
