//! Checks of objects that are added.

use super::objects::{DisplayData, Filter, FilterContext, Lifetime, Objects, SessionId};
use crate::error::{BfeError, BfeResult, FWP_PROVIDER_CONTEXT_NOT_FOUND};
use crate::names::Named;
use nt_abi::NtStatus;
use nt_abi::fwp::consts;
use sluice_host::Guid;

/// Fails with a reason.
pub(super) fn refuse<T>(status: NtStatus, what: impl Into<String>) -> BfeResult<T> {
    Err(BfeError::new(status, what))
}

pub(super) fn display(display: &DisplayData, of: &str) -> BfeResult<()> {
    match display.name {
        Some(_) => Ok(()),
        None => refuse(NtStatus::FWP_NULL_DISPLAY_NAME, format!("{of} has no displayData.name")),
    }
}

/// Refuses unknown flags.
pub(super) fn flags(flags: u32, known: u32, of: &str) -> BfeResult<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => refuse(NtStatus::FWP_INVALID_FLAGS, format!("{of} has flags {unknown:#x}, which cannot be set")),
    }
}

/// The lifetime of an object added by a session.
pub(super) fn lifetime(persistent: bool, session: SessionId, dynamic: bool, of: &str) -> BfeResult<Lifetime> {
    match (persistent, dynamic) {
        (true, true) => {
            refuse(NtStatus::FWP_DYNAMIC_SESSION_IN_PROGRESS, format!("{of} is persistent but its session is dynamic"))
        }
        (true, false) => Ok(Lifetime::Persistent),
        (false, true) => Ok(Lifetime::Dynamic(session)),
        (false, false) => Ok(Lifetime::Static),
    }
}

/// An object may refer only to objects that live as long as it does.
pub(super) fn outlives(of: &str, by: Lifetime, to: &str, target: Lifetime) -> BfeResult<()> {
    let rank = |lifetime: Lifetime| match lifetime {
        Lifetime::Dynamic(_) => 0,
        Lifetime::Static => 1,
        Lifetime::Persistent | Lifetime::BootTime => 2,
        Lifetime::BuiltIn => 3,
    };
    match (by, target) {
        (Lifetime::Dynamic(mine), Lifetime::Dynamic(theirs)) if mine != theirs => refuse(
            NtStatus::FWP_WRONG_SESSION,
            format!("{of} refers to {to}, which belongs to another dynamic session"),
        ),
        _ if rank(target) < rank(by) => {
            refuse(NtStatus::FWP_LIFETIME_MISMATCH, format!("{of} refers to {to}, which has a shorter lifetime"))
        }
        _ => Ok(()),
    }
}

/// Only its own session may change a dynamic object, and no session a built-in one.
pub(super) fn deletable(of: &str, lifetime: Lifetime, session: SessionId) -> BfeResult<()> {
    match lifetime {
        Lifetime::BuiltIn => refuse(NtStatus::FWP_BUILTIN_OBJECT, format!("{of} is built in")),
        Lifetime::Dynamic(owner) if owner != session => {
            refuse(NtStatus::FWP_WRONG_SESSION, format!("{of} belongs to another dynamic session"))
        }
        _ => Ok(()),
    }
}

/// An object's provider must exist and live as long as the object.
pub(super) fn provider(objects: &Objects, of: &str, lifetime: Lifetime, key: Option<Guid>) -> BfeResult<()> {
    let Some(key) = key else { return Ok(()) };
    let to = format!("provider {}", Named(key));
    match objects.providers.get(&key) {
        Some(stored) => outlives(of, lifetime, &to, stored.lifetime),
        None => refuse(NtStatus::FWP_PROVIDER_NOT_FOUND, format!("{of} names {to}, which does not exist")),
    }
}

/// The rules for a filter's flags (FWPM_FILTER0 documentation).
pub(super) fn filter_flags(filter: &Filter) -> BfeResult<()> {
    const KNOWN: u32 = consts::FWPM_FILTER_FLAG_PERSISTENT
        | consts::FWPM_FILTER_FLAG_BOOTTIME
        | consts::FWPM_FILTER_FLAG_HAS_PROVIDER_CONTEXT
        | consts::FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT
        | consts::FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED
        // "Available only in Windows 8": a hint to look the filter up by index; nothing depends on it.
        | consts::FWPM_FILTER_FLAG_INDEXED
        | consts::FWPM_FILTER_FLAG_HAS_SECURITY_REALM_PROVIDER_CONTEXT
        | consts::FWPM_FILTER_FLAG_SYSTEMOS_ONLY
        | consts::FWPM_FILTER_FLAG_GAMEOS_ONLY
        | consts::FWPM_FILTER_FLAG_SILENT_MODE
        | consts::FWPM_FILTER_FLAG_IPSEC_NO_ACQUIRE_INITIATE;
    flags(filter.flags, KNOWN, "filter")?;
    let both = consts::FWPM_FILTER_FLAG_PERSISTENT | consts::FWPM_FILTER_FLAG_BOOTTIME;
    if filter.flags & both == both {
        return refuse(NtStatus::FWP_INVALID_FLAGS, "filter is both persistent and boot-time");
    }
    let may_be_unregistered =
        matches!(filter.action, consts::FWP_ACTION_CALLOUT_TERMINATING | consts::FWP_ACTION_CALLOUT_UNKNOWN);
    if filter.flags & consts::FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED != 0 && !may_be_unregistered {
        let what = "PERMIT_IF_CALLOUT_UNREGISTERED needs a terminating or unknown callout action";
        return refuse(NtStatus::FWP_INVALID_FLAGS, what);
    }
    Ok(())
}

/// Refuses an action that a filter cannot have.
pub(super) fn filter_action(action: u32) -> BfeResult<bool> {
    match action {
        consts::FWP_ACTION_PERMIT | consts::FWP_ACTION_BLOCK => Ok(false),
        consts::FWP_ACTION_CALLOUT_TERMINATING
        | consts::FWP_ACTION_CALLOUT_INSPECTION
        | consts::FWP_ACTION_CALLOUT_UNKNOWN => Ok(true),
        other => refuse(NtStatus::FWP_INVALID_ACTION_TYPE, format!("action type {other:#x}")),
    }
}

/// The provider context of a filter.
pub(super) fn filter_context(objects: &Objects, filter: &Filter, lifetime: Lifetime) -> BfeResult<()> {
    let FilterContext::Provider(key) = filter.context else { return Ok(()) };
    let to = format!("provider context {}", Named(key));
    match objects.contexts.get(&key) {
        Some(stored) => outlives("filter", lifetime, &to, stored.lifetime),
        None => refuse(FWP_PROVIDER_CONTEXT_NOT_FOUND, format!("filter names {to}, which does not exist")),
    }
}
