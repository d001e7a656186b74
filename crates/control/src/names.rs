//! Names of addresses that the driver has learned from answers of DNS.

use crate::device::Control;
use crate::error::ControlError;
use serde::Serialize;
use sluice_host::Host;
use std::net::{IpAddr, Ipv6Addr};

/// A name of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LearnedName {
    /// The address.
    pub address: IpAddr,
    /// The name.
    pub name: String,
    /// For how many seconds more it is known.
    pub seconds: u32,
}

/// All of them, by address and name.
///
/// # Errors
/// The driver is not loaded, or refused.
pub fn names(host: &dyn Host) -> Result<Vec<LearnedName>, ControlError> {
    let (control, _) = Control::open(host)?;
    let records = control.names()?;
    let mut names: Vec<LearnedName> = records
        .iter()
        .map(|record| LearnedName {
            address: Ipv6Addr::from(record.address).to_canonical(),
            name: String::from_utf8_lossy(record.name()).into_owned(),
            seconds: record.seconds,
        })
        .collect();
    names.sort_by(|one, other| (one.address, &one.name).cmp(&(other.address, &other.name)));
    Ok(names)
}

/// Makes the driver forget all of them.
///
/// # Errors
/// The driver is not loaded, or refused.
pub fn forget_names(host: &dyn Host) -> Result<(), ControlError> {
    Control::open(host)?.0.forget_names()
}
