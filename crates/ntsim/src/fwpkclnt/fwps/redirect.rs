//! Redirect handles, and whether a connection was redirected.

use crate::cpu::{self, code};
use crate::export::exports;
use crate::fwpkclnt::redirect::NOT_REDIRECTED;
use nt_abi::NtStatus;
use nt_abi::fwp::RawGuid;
use sluice_host::Guid;

// IRQLs: the reference pages.
exports! {
    "fwpkclnt.sys";
    FwpsRedirectHandleCreate0: PASSIVE,
    FwpsRedirectHandleDestroy0: PASSIVE,
    FwpsQueryConnectionRedirectState0: DISPATCH,
}

/// Stops the machine for an invalid handle.
fn stranger(function: &str, what: &str, handle: u64) -> ! {
    cpu::bugcheck(
        code::PAGE_FAULT_IN_NONPAGED_AREA,
        [handle, 0, 0, 0],
        format!("{function} was given {handle:#x}, which is not a valid {what}"),
    )
}

/// The page names no status except success. Null pointers are refused as everywhere in fwpkclnt.sys, flags because they
/// are reserved.
#[allow(non_snake_case, reason = "the export's name")]
unsafe extern "win64" fn FwpsRedirectHandleCreate0(provider: *const RawGuid, flags: u32, out: *mut u64) -> NtStatus {
    // SAFETY: the page demands a GUID; null is checked, and the GUID is copied.
    let Some(provider) = (unsafe { provider.as_ref() }) else { return NtStatus::FWP_NULL_POINTER };
    if out.is_null() {
        return NtStatus::FWP_NULL_POINTER;
    }
    if flags != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    if crate::fwpkclnt::scarce("FwpsRedirectHandleCreate0") {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let handle = cpu::with_machine(|machine| machine.wfp.redirects.create(Guid::from(*provider)));
    // SAFETY: checked for null; the page makes `redirectHandle` the driver's variable for the result. The driver frees
    // it with FwpsRedirectHandleDestroy0.
    unsafe { out.write(handle) };
    NtStatus::SUCCESS
}

#[allow(non_snake_case, reason = "the export's name")]
extern "win64" fn FwpsRedirectHandleDestroy0(handle: u64) {
    if !cpu::with_machine(|machine| machine.wfp.redirects.destroy(handle)) {
        stranger("FwpsRedirectHandleDestroy0", "redirect handle", handle);
    }
}

/// The stack makes no redirect records, so a driver can only pass null for them, and the connection is not redirected.
/// The context is then null.
#[allow(non_snake_case, reason = "the export's name")]
unsafe extern "win64" fn FwpsQueryConnectionRedirectState0(records: u64, handle: u64, context: *mut u64) -> u32 {
    if !cpu::with_machine(|machine| machine.wfp.redirects.exists(handle)) {
        stranger("FwpsQueryConnectionRedirectState0", "redirect handle", handle);
    }
    if records != 0 {
        stranger("FwpsQueryConnectionRedirectState0", "handle of redirect records", records);
    }
    // SAFETY: the page makes `redirectContext` optional: null, which is checked, or a variable to write.
    if let Some(context) = unsafe { context.as_mut() } {
        *context = 0;
    }
    NOT_REDIRECTED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ptr;
    use nt_abi::Irql;

    fn create(machine: &Machine) -> u64 {
        let (mut handle, before) = (0, machine.wfp.redirects.count());
        let provider = RawGuid::from(Guid(7));
        // SAFETY: both are ours.
        assert_eq!(unsafe { FwpsRedirectHandleCreate0(&provider, 0, &mut handle) }, NtStatus::SUCCESS);
        assert_eq!(machine.wfp.redirects.count(), before + 1);
        handle
    }

    #[test]
    fn a_handle_lives_until_it_is_destroyed_and_is_missed_until_then() {
        let machine = Machine::new();
        cpu::enter(&machine, Irql::PASSIVE, || {
            let handle = create(&machine);
            assert!(machine.wfp.leaks().contains(&("redirect handles", 1)));
            let mut context = 1;
            // SAFETY: the context is ours.
            assert_eq!(unsafe { FwpsQueryConnectionRedirectState0(0, handle, &mut context) }, NOT_REDIRECTED);
            assert_eq!(context, 0);
            FwpsRedirectHandleDestroy0(handle);
            assert!(machine.wfp.leaks().is_empty());
        })
        .unwrap();
        let stopped = cpu::enter(&machine, Irql::PASSIVE, || {
            let handle = create(&machine);
            FwpsRedirectHandleDestroy0(handle);
            FwpsRedirectHandleDestroy0(handle);
        });
        assert!(stopped.unwrap_err().to_string().contains("redirect handle"));
    }

    #[test]
    fn a_handle_needs_a_provider_a_place_and_no_flags() {
        cpu::enter(&Machine::new(), Irql::PASSIVE, || {
            let (mut handle, provider) = (0, RawGuid::from(Guid(7)));
            // SAFETY: null, or ours.
            unsafe {
                let none = FwpsRedirectHandleCreate0(ptr::null(), 0, &mut handle);
                assert_eq!(none, NtStatus::FWP_NULL_POINTER);
                let nowhere = FwpsRedirectHandleCreate0(&provider, 0, ptr::null_mut());
                assert_eq!(nowhere, NtStatus::FWP_NULL_POINTER);
                assert_eq!(FwpsRedirectHandleCreate0(&provider, 1, &mut handle), NtStatus::INVALID_PARAMETER);
            }
        })
        .unwrap();
    }
}
