//! Whose flows they are: kept once for all flows of a process that have it, and counted there.

use alloc::vec::Vec;

use kernel::{
    memory::try_copy,
    shared::{Shared, SharedSet, Wanted},
    status::NtResult,
};

use crate::{SLUICE, flow::Owner, whose::Whose};

/// What is told of a process, and is the same for its flows.
#[derive(Debug)]
pub(crate) struct Identity {
    /// 0 when it is not known.
    pub(crate) process_id: u32,
    /// The application's path as ALE_APP_ID gave it; empty when it did not.
    application: Vec<u8>,
    /// The SIDs of its token and package, one behind the other; empty when they were not told. A thread that
    /// impersonates has others than its process.
    sids: Vec<u8>,
}

/// Every identity that a flow has.
pub(crate) type Identities = SharedSet<Identity>;

impl Identity {
    /// The identity of one flow more. IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    /// STATUS_QUOTA_EXCEEDED when the process has as many flows as it may; STATUS_INSUFFICIENT_RESOURCES.
    pub(crate) fn of(process_id: u32, owner: &Owner<'_>) -> NtResult<Shared<Self>> {
        let application = owner.application.unwrap_or_default();
        let kin = |identity: &Self| identity.process_id == process_id;
        let same = |identity: &Self| {
            kin(identity) && identity.application == application && owner.whose.is_kept_as(&identity.sids)
        };
        let wanted = Wanted {
            // Process ids are multiples of 4.
            hash: process_id / 4,
            same: &same,
            kin: &kin,
            most: SLUICE.limits.flows_per_process(),
        };
        SLUICE
            .identities
            .own(&wanted, || Ok(Self { process_id, application: try_copy(application)?, sids: owner.whose.keep()? }))
    }

    /// As a decision wants it, for a flow over `interface`.
    pub(crate) fn owner(&self, interface: Option<u64>) -> Owner<'_> {
        let known = |bytes| Some(bytes).filter(|bytes: &&[u8]| !bytes.is_empty());
        Owner { application: known(&self.application), whose: Whose::Kept(&self.sids), interface }
    }
}
