//! Callback objects: named objects through which the system and drivers notify drivers.
//!
//! "ExCreateCallback", "ExRegisterCallback", "ExNotifyCallback", "ExUnregisterCallback" and "Using a System-Defined
//! Callback Object" of the WDK documentation. The system's own objects exist from the start. Of these PowerState is
//! notified when a test lets the machine sleep; the others never are.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu::{self, code};
use crate::export::exports;
use crate::machine::Machine;
use crate::nt::ob::ObjectAttributes;
use crate::verifier::callback::{self, At};
use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use nt_abi::Irql;
use nt_abi::NtStatus;
use nt_abi::UnicodeString;
use parking_lot::Mutex;
use std::sync::Arc;

exports! {
    "ntoskrnl.exe";
    ExCreateCallback: APC,
    ExRegisterCallback: APC,
    ExUnregisterCallback: APC,
    ExNotifyCallback: DISPATCH,
}

/// The callback objects that the system makes.
const SYSTEM: [&str; 3] = [r"\Callback\SetSystemTime", r"\Callback\PowerState", r"\Callback\ProcessorAdd"];

/// `OBJECT_ATTRIBUTES.Attributes`: the object stays when its last reference goes.
const OBJ_PERMANENT: u32 = 0x10;

/// `PCALLBACK_FUNCTION`: the context of the registration, and two arguments of the object's own meaning.
type Function = unsafe extern "win64" fn(*mut c_void, *mut c_void, *mut c_void);

/// A callback object. Drivers know it by its address.
#[derive(Debug)]
struct Object {
    name: String,
    /// Whether it may have more than one registration.
    multiple: bool,
    permanent: bool,
    registrations: Mutex<Vec<Arc<Registration>>>,
}

#[derive(Debug)]
struct Registration {
    function: Function,
    context: u64,
    running: AtomicUsize,
}

/// The callback objects of one machine. They are freed with the machine, because drivers keep their addresses.
#[derive(Debug)]
pub struct Callbacks(Mutex<Vec<Arc<Object>>>);

impl Default for Callbacks {
    fn default() -> Self {
        let system = SYSTEM.map(|name| {
            Arc::new(Object { name: name.to_owned(), multiple: true, permanent: true, registrations: Mutex::default() })
        });
        Self(Mutex::new(system.into()))
    }
}

impl Callbacks {
    /// The object at an address.
    fn at(&self, address: u64) -> Option<Arc<Object>> {
        self.0.lock().iter().find(|object| Arc::as_ptr(object) as u64 == address).map(Arc::clone)
    }

    /// The address of the object with this name, if anybody would be told.
    fn with_listeners(&self, name: &str) -> Option<u64> {
        let objects = self.0.lock();
        let object = objects.iter().find(|object| object.name == name && !object.registrations.lock().is_empty())?;
        Some(Arc::as_ptr(object) as u64)
    }

    /// The registrations of functions within `range`, as text.
    #[must_use]
    pub fn left_by(&self, range: &Range<u64>) -> Vec<String> {
        let objects = self.0.lock();
        let of = |object: &Arc<Object>| {
            let registrations = object.registrations.lock();
            let theirs = registrations.iter().map(|r| r.function as usize as u64).filter(|at| range.contains(at));
            theirs.map(|at| format!("callback routine {} of {}", cpu::frame_of(at), object.name)).collect::<Vec<_>>()
        };
        objects.iter().flat_map(of).collect()
    }
}

/// Tells whoever registered for one of the system's objects. PASSIVE_LEVEL, though the page allows DISPATCH_LEVEL.
pub(crate) fn tell(machine: &Arc<Machine>, name: &str, first: usize, second: usize) {
    if let Some(object) = machine.executive.callbacks.with_listeners(name) {
        // A driver that stops the machine there has stopped it: whoever uses it next is told.
        let _ = cpu::enter(machine, Irql::PASSIVE, || {
            ExNotifyCallback(object, first as *mut c_void, second as *mut c_void)
        });
    }
}

fn object(address: u64, function: &str) -> Arc<Object> {
    cpu::with_machine(|machine| machine.executive.callbacks.at(address)).unwrap_or_else(|| {
        let why = format!("{function} was given {address:#x}, which is not a callback object");
        cpu::bugcheck(code::PAGE_FAULT_IN_NONPAGED_AREA, [address, 0, 0, 0], why)
    })
}

/// An object that is not permanent is deleted with its last reference: then its name can be used again.
unsafe extern "win64" fn ExCreateCallback(
    out: *mut u64,
    attributes: *const ObjectAttributes,
    create: u8,
    allow_multiple: u8,
) -> NtStatus {
    let by = cpu::caller();
    // SAFETY: the page demands OBJECT_ATTRIBUTES with a UNICODE_STRING as name, which is copied; an empty name is
    // refused.
    let (name, flags) = unsafe { (UnicodeString::read((*attributes).name), (*attributes).attributes) };
    if name.is_empty() {
        return NtStatus::UNSUCCESSFUL;
    }
    let found = cpu::with_machine(|machine| {
        let objects = &machine.executive.objects;
        let mut callbacks = machine.executive.callbacks.0.lock();
        let lives = |object: &Object| object.permanent || objects.references(object as *const Object as u64) != 0;
        let known = callbacks.iter().find(|object| object.name.eq_ignore_ascii_case(&name) && lives(object));
        let address = match known {
            Some(object) => Arc::as_ptr(object) as u64,
            None if create == 0 => return Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            None if machine.low_resources.fails("ExCreateCallback") => return Err(NtStatus::INSUFFICIENT_RESOURCES),
            None => {
                let object = Arc::new(Object {
                    name: name.clone(),
                    multiple: allow_multiple != 0,
                    permanent: flags & OBJ_PERMANENT != 0,
                    registrations: Mutex::default(),
                });
                callbacks.push(Arc::clone(&object));
                Arc::as_ptr(&object) as u64
            }
        };
        objects.reference(address, by);
        Ok(address)
    });
    match found {
        Ok(address) => {
            // SAFETY: the page demands a variable for the object's address. The object is freed with the machine, so
            // the address stays valid.
            unsafe { out.write(address) };
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// Null when the object takes only one registration and has it.
extern "win64" fn ExRegisterCallback(address: u64, function: Function, context: u64) -> u64 {
    let object = object(address, "ExRegisterCallback");
    if cpu::with_machine(|machine| machine.low_resources.fails("ExRegisterCallback")) {
        return 0;
    }
    let mut registrations = object.registrations.lock();
    if !object.multiple && !registrations.is_empty() {
        return 0;
    }
    let registration = Arc::new(Registration { function, context, running: AtomicUsize::new(0) });
    let handle = Arc::as_ptr(&registration) as u64;
    registrations.push(registration);
    handle
}

/// Waits until the routine is not running. The routine itself must not call it: it would wait forever.
extern "win64" fn ExUnregisterCallback(handle: u64) {
    let taken = cpu::with_machine(|machine| {
        machine.executive.callbacks.0.lock().iter().find_map(|object| {
            let mut registrations = object.registrations.lock();
            let at = registrations.iter().position(|registration| Arc::as_ptr(registration) as u64 == handle)?;
            Some(registrations.remove(at))
        })
    });
    let Some(registration) = taken else {
        let why = format!("ExUnregisterCallback was given {handle:#x}, which is not a valid registration");
        cpu::bugcheck(code::PAGE_FAULT_IN_NONPAGED_AREA, [handle, 0, 0, 0], why)
    };
    cpu::with_machine(|machine| {
        machine.dispatcher.wait_until(machine, || registration.running.load(Ordering::Acquire) == 0);
    });
}

/// The routines run in the order of their registration, at the caller's IRQL.
extern "win64" fn ExNotifyCallback(address: u64, first: *mut c_void, second: *mut c_void) {
    let object = object(address, "ExNotifyCallback");
    let registrations: Vec<_> = {
        let list = object.registrations.lock();
        list.iter().inspect(|r| _ = r.running.fetch_add(1, Ordering::AcqRel)).map(Arc::clone).collect()
    };
    for registration in &registrations {
        let (function, context) = (registration.function, registration.context as *mut c_void);
        // SAFETY: a PCALLBACK_FUNCTION with the context of its registration (ExRegisterCallback). ExUnregisterCallback
        // waits while it runs, so its driver cannot unload.
        let call = || unsafe { function(context, first, second) };
        callback::call(&At("the callback routine", function as usize as u64), "CallbackFunction", call);
        registration.running.fetch_sub(1, Ordering::AcqRel);
    }
    cpu::with_machine(|machine| machine.dispatcher.notify());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nt::ob::ObfDereferenceObject;
    use nt_abi::OwnedUnicodeString;

    /// Adds the arguments and its IRQL to the list at its context.
    unsafe extern "win64" fn heard(context: *mut c_void, first: *mut c_void, second: *mut c_void) {
        // SAFETY: the tests pass such a list.
        let list = unsafe { &*context.cast::<Mutex<Vec<(usize, usize, Irql)>>>() };
        list.lock().push((first as usize, second as usize, cpu::irql()));
    }

    fn open(name: &str, create: bool, multiple: bool) -> Result<u64, NtStatus> {
        let name = OwnedUnicodeString::new(name);
        let attributes = ObjectAttributes::of(name.as_ptr());
        let mut object = 0;
        // SAFETY: all are ours.
        unsafe { ExCreateCallback(&mut object, &attributes, create.into(), multiple.into()) }.ok().map(|()| object)
    }

    #[test]
    fn routines_are_told_in_order_at_the_level_of_the_notification() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let [a, b] = [const { Mutex::new(Vec::<(usize, usize, Irql)>::new()) }; 2];
            let object = open(r"\Callback\Mine", true, true).unwrap();
            assert_eq!(open(r"\callback\mine", false, false), Ok(object), "one object, whoever opens it");
            let first = ExRegisterCallback(object, heard, &raw const a as u64);
            let second = ExRegisterCallback(object, heard, &raw const b as u64);
            ExNotifyCallback(object, 1 as _, 2 as _);
            ExUnregisterCallback(first);
            cpu::at_irql(Irql::DISPATCH, || ExNotifyCallback(object, 3 as _, 4 as _));
            assert_eq!(*a.lock(), [(1, 2, Irql::PASSIVE)]);
            assert_eq!(*b.lock(), [(1, 2, Irql::PASSIVE), (3, 4, Irql::DISPATCH)]);
            let at = heard as *const () as u64;
            assert_eq!(machine.executive.callbacks.left_by(&(at..at + 1)).len(), 1);
            ExUnregisterCallback(second);
            assert!(machine.executive.callbacks.left_by(&(at..at + 1)).is_empty());
        })
        .unwrap();
    }

    /// A sleep takes all of a timer's time and none of that in which the machine works.
    #[test]
    fn a_sleep_is_told_before_and_after() {
        let machine = Machine::new();
        let list = Mutex::new(Vec::<(usize, usize, Irql)>::new());
        let registration = cpu::enter(&machine, Irql::PASSIVE, || {
            let object = open(r"\Callback\PowerState", false, true).unwrap();
            ExRegisterCallback(object, heard, &raw const list as u64)
        })
        .unwrap();
        let (system, worked) = (machine.clock.system_time(), machine.clock.unbiased_interrupt_time());
        machine.sleep(std::time::Duration::from_secs(3600));
        // PO_CB_SYSTEM_STATE_LOCK, about to leave S0 and back in it.
        assert_eq!(*list.lock(), [(3, 0, Irql::PASSIVE), (3, 1, Irql::PASSIVE)]);
        let hour = 3600 * crate::nt::clock::PER_SECOND;
        assert!(machine.clock.system_time() - system >= hour && machine.clock.interrupt_time() >= hour);
        assert!(machine.clock.unbiased_interrupt_time() - worked < hour);
        cpu::enter(&machine, Irql::PASSIVE, || ExUnregisterCallback(registration)).unwrap();
        machine.sleep(std::time::Duration::from_secs(1));
        assert_eq!(list.lock().len(), 2);
    }

    #[test]
    fn an_object_of_one_registration_refuses_the_second() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let object = open(r"\Callback\Single", true, false).unwrap();
            let first = ExRegisterCallback(object, heard, 0);
            assert_ne!(first, 0);
            assert_eq!(ExRegisterCallback(object, heard, 0), 0);
            ExUnregisterCallback(first);
            let again = ExRegisterCallback(object, heard, 0);
            assert_ne!(again, 0);
            ExUnregisterCallback(again);
        })
        .unwrap();
    }

    #[test]
    fn the_systems_objects_are_there_and_others_only_when_created() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            for name in SYSTEM {
                assert!(open(name, false, false).is_ok(), "{name}");
            }
            assert_eq!(open(r"\Callback\Nobodys", false, true), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
            assert_eq!(open("", true, true), Err(NtStatus::UNSUCCESSFUL));
            let object = open(r"\Callback\Brief", true, true).unwrap();
            ObfDereferenceObject(object);
            assert_eq!(open(r"\Callback\Brief", false, true), Err(NtStatus::OBJECT_NAME_NOT_FOUND), "it was freed");
        })
        .unwrap();
    }

    #[test]
    fn a_registration_ends_once() {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let object = open(r"\Callback\PowerState", false, true).unwrap();
            let handle = ExRegisterCallback(object, heard, 0);
            ExUnregisterCallback(handle);
            ExUnregisterCallback(handle);
        })
        .unwrap_err();
        assert!(stopped.to_string().contains("not a valid registration"), "{stopped}");
    }
}
