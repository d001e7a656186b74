//! Who owns a flow and over which interface it goes: kept once for all flows of a process that agree in it, and counted
//! there.

use alloc::vec::Vec;

use kernel::{
    memory::try_copy,
    shared::{Shared, SharedSet, Wanted},
    status::NtResult,
};

use crate::{SLUICE, flow::Owner, whose::Whose};

/// What the layers report about a process; for all its flows over one interface the same.
#[derive(Debug)]
pub(crate) struct Identity {
    /// 0 when not known.
    pub(crate) process_id: u32,
    /// The application's path as ALE_APP_ID gave it; empty when it gave none.
    application: Vec<u8>,
    /// The SIDs of its token and package, one after the other; empty when not reported. A thread that impersonates has
    /// other SIDs than its process.
    sids: Vec<u8>,
    /// The local interface's LUID.
    interface: Option<u64>,
}

/// Every identity that some flow has.
pub(crate) type Identities = SharedSet<Identity>;

impl Identity {
    /// The identity for one more flow. IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    /// STATUS_QUOTA_EXCEEDED when the process has as many flows as allowed; STATUS_INSUFFICIENT_RESOURCES.
    pub(crate) fn of(process_id: u32, owner: &Owner<'_>) -> NtResult<Shared<Self>> {
        let application = owner.application.unwrap_or_default();
        let kin = |identity: &Self| identity.process_id == process_id;
        let same = |identity: &Self| {
            kin(identity)
                && identity.interface == owner.interface
                && identity.application == application
                && owner.whose.is_kept_as(&identity.sids)
        };
        let wanted = Wanted {
            // Process ids are multiples of 4.
            hash: process_id / 4,
            same: &same,
            kin: &kin,
            most: SLUICE.limits.flows_per_process(),
        };
        SLUICE.identities.own(&wanted, || {
            let (application, sids) = (try_copy(application)?, owner.whose.keep()?);
            Ok(Self { process_id, application, sids, interface: owner.interface })
        })
    }

    /// The owner in the form a decision takes.
    pub(crate) fn owner(&self) -> Owner<'_> {
        let known = |bytes| Some(bytes).filter(|bytes: &&[u8]| !bytes.is_empty());
        Owner { application: known(&self.application), whose: Whose::Kept(&self.sids), interface: self.interface }
    }
}
