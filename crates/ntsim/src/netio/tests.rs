//! A provider and a client attach and detach.

use super::nmr::table::{Characteristics, Instance};
use super::*;
use crate::machine::Machine;
use core::ptr;
use nt_abi::Irql;
use parking_lot::Mutex;

const NPI: [u8; 16] = [7; 16];
const OTHER_NPI: [u8; 16] = [8; 16];
/// The provider refuses a client with this context.
const UNWANTED: u64 = 666;
/// A client with this context detaches later.
const SLOW: u64 = 200;

/// The calls of the modules, in order. The context of a registration points to it.
type Log = Mutex<Vec<String>>;

fn log(context: u64) -> &'static Log {
    // SAFETY: the tests leak their logs.
    unsafe { &*(context as *const Log) }
}

fn new_log() -> u64 {
    ptr::from_ref::<Log>(Box::leak(Box::default())) as u64
}

#[repr(C)]
struct BindingContext {
    log: u64,
    name: u64,
    binding: u64,
}

fn context(log: u64, name: u64, binding: u64) -> u64 {
    ptr::from_mut(Box::leak(Box::new(BindingContext { log, name, binding }))) as u64
}

fn at(context: u64) -> &'static BindingContext {
    // SAFETY: made by `context`, never freed.
    unsafe { &*(context as *const BindingContext) }
}

unsafe extern "win64" fn client_attach(binding: u64, registration: u64, _provider: *const Instance) -> NtStatus {
    let name = if log(registration).lock().contains(&"unwanted".to_owned()) { UNWANTED } else { SLOW };
    let own = context(registration, name, binding);
    let (mut theirs, mut dispatch) = (0, ptr::null());
    // SAFETY: the outputs are ours.
    let status = unsafe { NmrClientAttachProvider(binding, own, ptr::null(), &mut theirs, &mut dispatch) };
    log(registration).lock().push(format!("client attached: {status:?} dispatch {}", dispatch as usize));
    status
}

unsafe extern "win64" fn provider_attach(
    binding: u64,
    registration: u64,
    client: *const Instance,
    client_context: u64,
    _dispatch: *const c_void,
    own: *mut u64,
    dispatch: *mut *const c_void,
) -> NtStatus {
    // SAFETY: the client's instance, and the outputs.
    unsafe {
        assert_eq!(*(*client).npi, NPI);
        if at(client_context).name == UNWANTED {
            return NtStatus::NOT_SUPPORTED;
        }
        own.write(context(registration, 100, binding));
        dispatch.write(ptr::without_provenance(42));
    }
    NtStatus::SUCCESS
}

unsafe extern "win64" fn provider_detach(context: u64) -> NtStatus {
    log(at(context).log).lock().push("provider detaches".to_owned());
    NtStatus::SUCCESS
}

unsafe extern "win64" fn client_detach(context: u64) -> NtStatus {
    log(at(context).log).lock().push(format!("client detaches {:#x}", at(context).binding));
    NtStatus::PENDING
}

unsafe extern "win64" fn cleanup(context: u64) {
    log(at(context).log).lock().push(format!("cleanup {}", at(context).name));
}

fn characteristics(attach: u64, detach: u64, npi: &'static [u8; 16]) -> &'static Characteristics {
    Box::leak(Box::new(Characteristics {
        version: 0,
        length: size_of::<Characteristics>() as u16,
        attach,
        detach,
        cleanup: cleanup as *const () as u64,
        instance: Instance {
            version: 0,
            size: size_of::<Instance>() as u16,
            npi,
            module: ptr::null(),
            number: 0,
            specific: ptr::null(),
        },
    }))
}

fn provider(registration: u64, npi: &'static [u8; 16]) -> u64 {
    let (attach, detach) = (provider_attach as *const () as u64, provider_detach as *const () as u64);
    let mut handle = 0;
    // SAFETY: the structure is leaked.
    let status = unsafe { NmrRegisterProvider(characteristics(attach, detach, npi), registration, &mut handle) };
    assert_eq!(status, NtStatus::SUCCESS);
    handle
}

fn client(registration: u64) -> u64 {
    let (attach, detach) = (client_attach as *const () as u64, client_detach as *const () as u64);
    let mut handle = 0;
    // SAFETY: the structure is leaked.
    let status = unsafe { NmrRegisterClient(characteristics(attach, detach, &NPI), registration, &mut handle) };
    assert_eq!(status, NtStatus::SUCCESS);
    handle
}

#[test]
fn whoever_comes_second_is_brought_together_with_the_first_and_both_part_cleanly() {
    for provider_first in [true, false] {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let heard = new_log();
            let (offering, asking) = if provider_first {
                let offering = provider(heard, &NPI);
                (offering, client(heard))
            } else {
                let asking = client(heard);
                (provider(heard, &NPI), asking)
            };
            assert_eq!(machine.nmr.left_by(&(0..u64::MAX)).len(), 2);
            assert_eq!(*log(heard).lock(), ["client attached: STATUS_SUCCESS (0x00000000) dispatch 42"]);
            log(heard).lock().clear();
            assert_eq!(NmrDeregisterProvider(offering), NtStatus::PENDING);
            let binding = {
                let lines = log(heard).lock();
                assert_eq!(lines[0], "provider detaches");
                assert_eq!(lines.len(), 2, "the client has not detached, so nothing is cleaned up");
                u64::from_str_radix(lines[1].strip_prefix("client detaches 0x").unwrap(), 16).unwrap()
            };
            assert!(!machine.nmr.is_alone(offering));
            NmrClientDetachProviderComplete(binding);
            assert_eq!(log(heard).lock()[2..], ["cleanup 200", "cleanup 100"]);
            assert_eq!(NmrWaitForProviderDeregisterComplete(offering), NtStatus::SUCCESS);
            assert_eq!(NmrDeregisterClient(asking), NtStatus::PENDING);
            assert_eq!(NmrWaitForClientDeregisterComplete(asking), NtStatus::SUCCESS);
            assert!(machine.nmr.left_by(&(0..u64::MAX)).is_empty());
        })
        .unwrap();
    }
}

#[test]
fn a_provider_of_another_interface_is_not_offered_and_one_may_refuse() {
    let machine = Machine::new();
    cpu::enter(&machine, Irql::PASSIVE, || {
        let heard = new_log();
        log(heard).lock().push("unwanted".to_owned());
        let other = provider(heard, &OTHER_NPI);
        let asking = client(heard);
        assert_eq!(log(heard).lock().len(), 1, "no provider was called");
        let offering = provider(heard, &NPI);
        assert!(log(heard).lock()[1].starts_with("client attached: STATUS_NOT_SUPPORTED"));
        for handle in [other, offering] {
            assert_eq!(NmrDeregisterProvider(handle), NtStatus::PENDING);
            assert_eq!(NmrWaitForProviderDeregisterComplete(handle), NtStatus::SUCCESS);
        }
        assert_eq!(log(heard).lock().len(), 2, "nothing was bound, so nothing is detached");
        NmrDeregisterClient(asking);
        NmrWaitForClientDeregisterComplete(asking);
    })
    .unwrap();
}

#[test]
fn a_handle_is_deregistered_once_and_by_its_own_kind() {
    for wrong in [NmrDeregisterClient as extern "win64" fn(u64) -> NtStatus, NmrWaitForProviderDeregisterComplete] {
        let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || wrong(provider(new_log(), &NPI))).unwrap_err();
        assert!(stopped.to_string().contains("not a valid NMR handle"), "{stopped}");
    }
}
