//! Switches the filters off and on, without uninstalling anything.
//!
//! Off means that Windows does not ask the driver: its filters are removed, in one transaction. Callouts, sublayer,
//! provider, driver, service and the policy in force stay, also over a restart, so on is one transaction, too.

use crate::device::Control;
use crate::error::ControlError;
use crate::objects::{self, Fail};
use serde::Serialize;
use sluice_host::{Host, ServiceState};
use sluice_protocol::SERVICE_NAME;

/// What [`enable`] or [`disable`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchReport {
    /// Whether anything had to be done.
    pub changed: bool,
    /// How many filters there are now.
    pub filters: usize,
}

/// Removes the filters, so that nothing is decided here until [`enable`].
///
/// # Errors
/// The driver is not installed, or the filter engine refused: nothing has changed.
pub fn disable(host: &dyn Host) -> Result<SwitchReport, ControlError> {
    let service = host.service_state(SERVICE_NAME).map_err(ControlError::step("querying the service"))?;
    if service == ServiceState::Absent {
        return Err(ControlError::NotInstalled);
    }
    let removed = objects::remove_filters(host).map_err(ControlError::step("removing the filters"))?;
    Ok(SwitchReport { changed: removed > 0, filters: 0 })
}

/// Adds the filters that are missing, and repairs what is not as `install` adds it.
///
/// # Errors
/// The driver is not installed or not loaded: without it filters would permit or block everything, as declared, and decide
/// nothing. Or the filter engine refused: nothing has changed.
pub fn enable(host: &dyn Host) -> Result<SwitchReport, ControlError> {
    drop(Control::open(host)?);
    let failed = || ControlError::step("adding the filters");
    let fail = Fail::declared(host).map_err(failed())?;
    let looked = host.open_engine().and_then(|mut engine| objects::inspect(&mut *engine, &fail)).map_err(failed())?;
    if looked.complete() {
        return Ok(SwitchReport { changed: false, filters: looked.filters.len() });
    }
    let filters = objects::write(host, &fail).map_err(failed())?;
    Ok(SwitchReport { changed: true, filters: filters.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, installed};
    use crate::{doctor, status};

    #[test]
    fn off_and_on_leave_everything_as_it_was() {
        let memory = installed();
        let before = memory.objects.borrow().clone();
        let filters = before.filters.len();
        assert_eq!(enable(&memory).unwrap(), SwitchReport { changed: false, filters });
        assert_eq!(disable(&memory).unwrap(), SwitchReport { changed: true, filters: 0 });
        assert_eq!(disable(&memory).unwrap(), SwitchReport { changed: false, filters: 0 });
        {
            let off = memory.objects.borrow();
            assert_eq!((off.callouts.len(), off.sublayers.len()), (before.callouts.len(), before.sublayers.len()));
        }
        assert!(status(&memory).unwrap().disabled);
        let said = doctor(&memory).unwrap().findings;
        assert!(said.iter().any(|one| one.mend == "sluice enable"), "{said:?}");
        assert_eq!(enable(&memory).unwrap(), SwitchReport { changed: true, filters });
        assert_eq!(*memory.objects.borrow(), before);
        assert!(!status(&memory).unwrap().disabled);
    }

    #[test]
    fn what_fails_changes_nothing() {
        let memory = installed();
        let before = memory.objects.borrow().clone();
        let calls = memory.calls.borrow().len();
        disable(&memory).unwrap();
        let steps = memory.calls.borrow().len() - calls;
        enable(&memory).unwrap();
        for step in 0..steps {
            memory.fail_at.set(Some(memory.calls.borrow().len() + step));
            assert!(disable(&memory).is_err(), "step {step}");
            assert_eq!(*memory.objects.borrow(), before, "step {step}");
        }
        memory.fail_at.set(None);
        memory.service.borrow_mut().as_mut().unwrap().1 = ServiceState::Stopped;
        assert!(matches!(enable(&memory), Err(ControlError::NotLoaded)));
        assert!(matches!(disable(&Memory::new()), Err(ControlError::NotInstalled)));
    }
}
