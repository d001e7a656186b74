//! Whom a machine trusts: the key whose bundles alone are put in force.
//!
//! The key is a value in the driver's service, where only administrators and SYSTEM can write, and this program is what
//! refuses; the driver does not read it. So it holds against everybody who may not write there, and against an
//! administrator's scripts and mistakes; not against an administrator who means to get round it.

use crate::error::ControlError;
use serde::Serialize;
use sluice_bundle::PublicKey;
use sluice_host::{Host, HostError, HostResult, Parameter, ServiceState, code};
use sluice_protocol::SERVICE_NAME;
use sluice_protocol::parameter::TRUSTED_KEY;

/// Whom a machine trusted and trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustReport {
    /// The key before.
    pub before: Option<String>,
    /// The key now.
    pub now: Option<String>,
}

/// The key that the machine trusts; `None` if it takes what any administrator loads.
///
/// # Errors
/// The machine refused the query, or the value is no key: then nobody is trusted, and nothing is loaded.
pub fn trusted(host: &dyn Host) -> Result<Option<PublicKey>, ControlError> {
    let failed = || ControlError::step("asking which key this machine trusts");
    let wrong = |what: String| {
        let what = format!("{TRUSTED_KEY} of the service: {what}; `sluice trust` sets it anew");
        failed()(HostError::with_message("RegGetValueW", code::ERROR_INVALID_DATA, what))
    };
    match host.service_parameter(SERVICE_NAME, TRUSTED_KEY).map_err(failed())? {
        None => Ok(None),
        Some(Parameter::Text(text)) => text.parse().map(Some).map_err(|error| wrong(format!("{error}"))),
        Some(Parameter::Number(number)) => Err(wrong(format!("{number} is no key"))),
    }
}

/// Has the machine trust this key, or nobody in particular. What is in force stays in force.
///
/// # Errors
/// The driver is not installed, or the machine refused.
pub fn trust(host: &dyn Host, key: Option<&PublicKey>) -> Result<TrustReport, ControlError> {
    let failed = || ControlError::step("setting the trusted key");
    if host.service_state(SERVICE_NAME).map_err(failed())? == ServiceState::Absent {
        return Err(ControlError::NotInstalled);
    }
    // A value that is none is what this mends.
    let before = trusted(host).ok().flatten().map(|key| key.to_string());
    set(host, key).map_err(failed())?;
    Ok(TrustReport { before, now: key.map(ToString::to_string) })
}

/// Whether what `signer` has signed, or nobody, may be put in force.
///
/// # Errors
/// It may not.
pub(crate) fn admits(host: &dyn Host, signer: Option<&PublicKey>) -> Result<(), ControlError> {
    match trusted(host)? {
        Some(trusted) if signer != Some(&trusted) => {
            Err(ControlError::Untrusted { trusted: Box::new(trusted), signer: signer.copied().map(Box::new) })
        }
        _ => Ok(()),
    }
}

pub(crate) fn set(host: &dyn Host, key: Option<&PublicKey>) -> HostResult<()> {
    let value = key.map(|key| Parameter::Text(key.to_string()));
    host.set_service_parameter(SERVICE_NAME, TRUSTED_KEY, value.as_ref())
}
