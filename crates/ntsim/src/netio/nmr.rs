//! Modules and the bindings between them.
//!
//! No lock is held while a module is called: the call's target is copied out of the table first.

use crate::cpu;
use crate::verifier::callback::{self, At};
use core::ffi::c_void;
use core::mem::transmute;
use core::ops::Range;
use nt_abi::NtStatus;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The structures that drivers pass (netioddk.h).
#[allow(dead_code, reason = "the NMR only passes some fields on")]
pub(super) mod table {
    /// `NPI_REGISTRATION_INSTANCE`.
    #[repr(C)]
    pub(in crate::netio) struct Instance {
        pub(in crate::netio) version: u16,
        pub(in crate::netio) size: u16,
        pub(in crate::netio) npi: *const [u8; 16],
        pub(in crate::netio) module: *const core::ffi::c_void,
        pub(in crate::netio) number: u32,
        pub(in crate::netio) specific: *const core::ffi::c_void,
    }

    /// `NPI_PROVIDER_CHARACTERISTICS` and `NPI_CLIENT_CHARACTERISTICS`: the same layout with other callbacks.
    #[repr(C)]
    pub(in crate::netio) struct Characteristics {
        pub(in crate::netio) version: u16,
        pub(in crate::netio) length: u16,
        /// ProviderAttachClient or ClientAttachProvider.
        pub(in crate::netio) attach: u64,
        /// ProviderDetachClient or ClientDetachProvider.
        pub(in crate::netio) detach: u64,
        /// ProviderCleanupBindingContext or ClientCleanupBindingContext, or null.
        pub(in crate::netio) cleanup: u64,
        pub(in crate::netio) instance: Instance,
    }

    const _: () = assert!(size_of::<Instance>() == 0x28 && size_of::<Characteristics>() == 0x48);
}

type ClientAttach = unsafe extern "win64" fn(u64, u64, *const table::Instance) -> NtStatus;
type ProviderAttach = unsafe extern "win64" fn(
    u64,
    u64,
    *const table::Instance,
    u64,
    *const c_void,
    *mut u64,
    *mut *const c_void,
) -> NtStatus;
type Detach = unsafe extern "win64" fn(u64) -> NtStatus;
type Cleanup = unsafe extern "win64" fn(u64);

/// Which of the two a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Provider,
    Client,
}

/// A registered module.
#[derive(Clone, Debug)]
pub(super) struct Module {
    side: Side,
    npi: [u8; 16],
    context: u64,
    attach: u64,
    detach: u64,
    cleanup: u64,
    instance: u64,
    leaving: bool,
    by: u64,
}

impl Module {
    /// # Safety
    /// `from` and what it points to stay in place while the module is registered.
    pub(super) unsafe fn read(side: Side, from: *const table::Characteristics, context: u64, by: u64) -> Self {
        // SAFETY: the caller's promise.
        let from = unsafe { &*from };
        Self {
            side,
            // SAFETY: NPI_REGISTRATION_INSTANCE demands a pointer to the NPI's GUID, which stays in place while the
            // module is registered; it is copied.
            npi: unsafe { *from.instance.npi },
            context,
            attach: from.attach,
            detach: from.detach,
            cleanup: from.cleanup,
            instance: &raw const from.instance as u64,
            leaving: false,
            by,
        }
    }
}

/// The state of one end of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    /// Offered to the client; the provider has not agreed yet.
    Asked,
    Attached,
    Detaching,
    Detached,
}

#[derive(Clone, Debug)]
struct Binding {
    /// The handles of the provider and the client.
    modules: [u64; 2],
    contexts: [u64; 2],
    bonds: [Bond; 2],
}

/// The NMR of one machine.
#[derive(Debug, Default)]
pub struct Registrar(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    modules: BTreeMap<u64, Module>,
    bindings: BTreeMap<u64, Binding>,
}

impl Table {
    fn new_handle(&mut self) -> u64 {
        self.last += 8;
        0x6_0000_0000 + self.last
    }
}

impl Registrar {
    pub(super) fn add(&self, module: Module) -> u64 {
        let mut table = self.0.lock();
        let handle = table.new_handle();
        table.modules.insert(handle, module);
        handle
    }

    pub(super) fn is_leaving(&self, side: Side, handle: u64) -> bool {
        self.0.lock().modules.get(&handle).is_some_and(|module| module.side == side && module.leaving)
    }

    pub(super) fn is_alone(&self, handle: u64) -> bool {
        !self.0.lock().bindings.values().any(|binding| binding.modules.contains(&handle))
    }

    pub(super) fn forget(&self, handle: u64) {
        self.0.lock().modules.remove(&handle);
    }

    /// The modules that code within `range` registered, as text.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let table = self.0.lock();
        let theirs = table.modules.values().filter(|module| range.contains(&module.by));
        theirs.map(|module| format!("NMR {:?} registered by {}", module.side, cpu::frame_of(module.by))).collect()
    }

    /// Opens a binding between two modules.
    fn bind(&self, provider: u64, client: u64) -> u64 {
        let mut table = self.0.lock();
        let handle = table.new_handle();
        let binding = Binding { modules: [provider, client], contexts: [0; 2], bonds: [Bond::Asked; 2] };
        table.bindings.insert(handle, binding);
        handle
    }

    /// The two modules of a binding.
    fn modules(&self, binding: u64) -> Option<[Module; 2]> {
        let table = self.0.lock();
        let [provider, client] = table.bindings.get(&binding)?.modules;
        Some([table.modules.get(&provider)?.clone(), table.modules.get(&client)?.clone()])
    }
}

/// Offers every provider of the interface to a new client, or a new provider to every client.
pub(super) fn introduce(handle: u64) {
    let pairs: Vec<(u64, u64)> = cpu::with_machine(|machine| {
        let table = machine.nmr.0.lock();
        let Some(new) = table.modules.get(&handle) else { return Vec::new() };
        let others = table.modules.iter().filter(|(_, m)| m.side != new.side && m.npi == new.npi && !m.leaving);
        let pair = |other: &u64| if new.side == Side::Provider { (handle, *other) } else { (*other, handle) };
        others.map(|(other, _)| pair(other)).collect()
    });
    for (provider, client) in pairs {
        let binding = cpu::with_machine(|machine| machine.nmr.bind(provider, client));
        if let Some([provider, client]) = cpu::with_machine(|machine| machine.nmr.modules(binding)) {
            // SAFETY: `ClientAttachProvider` of NPI_CLIENT_CHARACTERISTICS is a function of this type; a wrong address
            // faults and stops the machine.
            let attach: ClientAttach = unsafe { transmute::<u64, ClientAttach>(client.attach) };
            let _answer = callback::call(&At("ClientAttachProvider", client.attach), "ClientAttachProvider", || {
                // SAFETY: the client's own context, and the provider's registration instance, which its page keeps in
                // place until the provider's deregistration completes; that waits for its bindings.
                unsafe { attach(binding, client.context, provider.instance as *const _) }
            });
        }
        // Whatever the client returned, it is attached if the provider agreed.
        cpu::with_machine(|machine| {
            machine.nmr.0.lock().bindings.retain(|handle, it| *handle != binding || it.bonds[0] != Bond::Asked);
        });
    }
}

/// NmrClientAttachProvider: calls the provider. None when `binding` is not one that is being offered to a client.
///
/// # Safety
/// `provider_context` and `provider_dispatch` are writable.
pub(super) unsafe fn attach(
    binding: u64,
    client_context: u64,
    client_dispatch: *const c_void,
    provider_context: *mut u64,
    provider_dispatch: *mut *const c_void,
) -> Option<NtStatus> {
    let [provider, client] = cpu::with_machine(|machine| {
        let offered = machine.nmr.0.lock().bindings.get(&binding).is_some_and(|it| it.bonds[0] == Bond::Asked);
        if offered { machine.nmr.modules(binding) } else { None }
    })?;
    // SAFETY: `ProviderAttachClient` of NPI_PROVIDER_CHARACTERISTICS is a function of this type; a wrong address faults
    // and stops the machine.
    let ask: ProviderAttach = unsafe { transmute::<u64, ProviderAttach>(provider.attach) };
    let status = callback::call(&At("ProviderAttachClient", provider.attach), "ProviderAttachClient", || {
        let instance = client.instance as *const table::Instance;
        // SAFETY: contexts, dispatch table and instances are what the two modules passed for this call; the outputs are
        // the client's, writable by this function's contract.
        unsafe {
            ask(
                binding,
                provider.context,
                instance,
                client_context,
                client_dispatch,
                provider_context,
                provider_dispatch,
            )
        }
    });
    if status.is_success() {
        // SAFETY: writable by this function's contract, so readable; the provider has agreed and so written it.
        let context = unsafe { provider_context.read() };
        cpu::with_machine(|machine| {
            if let Some(it) = machine.nmr.0.lock().bindings.get_mut(&binding) {
                it.contexts = [context, client_context];
                it.bonds = [Bond::Attached; 2];
            }
        });
    }
    Some(status)
}

/// Begins the deregistration of a module: detaches both ends of each of its bindings. False when the handle is not
/// valid or the module is already being deregistered.
pub(super) fn part(side: Side, handle: u64) -> bool {
    let bindings: Option<Vec<u64>> = cpu::with_machine(|machine| {
        let mut table = machine.nmr.0.lock();
        let module = table.modules.get_mut(&handle).filter(|module| module.side == side && !module.leaving)?;
        module.leaving = true;
        let attached = table.bindings.iter_mut().filter(|(_, it)| it.modules.contains(&handle));
        Some(
            attached
                .filter(|(_, it)| it.bonds == [Bond::Attached; 2])
                .map(|(binding, it)| {
                    it.bonds = [Bond::Detaching; 2];
                    *binding
                })
                .collect(),
        )
    });
    let Some(bindings) = bindings else { return false };
    for binding in bindings {
        for side in [Side::Provider, Side::Client] {
            detach(side, binding);
        }
    }
    true
}

/// Detaches one end of a binding.
fn detach(side: Side, binding: u64) {
    let index = side as usize;
    let found = cpu::with_machine(|machine| {
        let modules = machine.nmr.modules(binding)?;
        let context = machine.nmr.0.lock().bindings.get(&binding)?.contexts[index];
        Some((modules[index].detach, context))
    });
    let Some((routine, context)) = found else { return };
    // SAFETY: the detach routine of the module's characteristics is a function of this type; a wrong address faults and
    // stops the machine.
    let call: Detach = unsafe { transmute::<u64, Detach>(routine) };
    // SAFETY: the binding context that the module returned when it was attached; it is cleaned up only after this end
    // has detached.
    let call = || unsafe { call(context) };
    let status = callback::call(&At("the detach routine of an NMR module", routine), "Detach", call);
    if status != NtStatus::PENDING {
        detached(side, binding);
    }
}

/// One end has detached; when both have, their contexts are cleaned up and the binding is removed. False when this end
/// was not detaching.
pub(super) fn detached(side: Side, binding: u64) -> bool {
    let Some(over) = cpu::with_machine(|machine| {
        let mut table = machine.nmr.0.lock();
        let it = table.bindings.get_mut(&binding)?;
        if it.bonds[side as usize] != Bond::Detaching {
            return None;
        }
        it.bonds[side as usize] = Bond::Detached;
        Some((it.bonds == [Bond::Detached; 2]).then(|| it.clone()))
    }) else {
        return false;
    };
    let Some(binding_over) = over else { return true };
    let modules = cpu::with_machine(|machine| machine.nmr.modules(binding));
    // The client's context first, in the order of the provider's page.
    for index in [Side::Client as usize, Side::Provider as usize] {
        let Some(routine) = modules.as_ref().map(|modules| modules[index].cleanup).filter(|at| *at != 0) else {
            continue;
        };
        // SAFETY: the cleanup routine of the module's characteristics is a function of this type; a wrong address
        // faults and stops the machine.
        let call: Cleanup = unsafe { transmute::<u64, Cleanup>(routine) };
        let context = binding_over.contexts[index];
        // SAFETY: the binding context that the module returned when it was attached; both ends have detached, and the
        // binding is out of the table, so this is the last use.
        let call = || unsafe { call(context) };
        callback::call(&At("the cleanup routine of an NMR module", routine), "CleanupBindingContext", call);
    }
    cpu::with_machine(|machine| {
        machine.nmr.0.lock().bindings.remove(&binding);
        machine.dispatcher.notify();
    });
    true
}
