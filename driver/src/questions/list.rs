//! The open questions, for whoever answers them.

use kernel::{process, time, wdf::Output};
use sluice_policy::{Identities, Verdict};
use sluice_protocol::{
    Event,
    ask::Question as Record,
    event::verdict::{BLOCK, PERMIT},
};
use zerocopy::IntoBytes;

use super::{Questions, table::Question};
use crate::callouts::trim_nul;

impl Questions {
    /// Writes as many questions as fit, from this number on. PASSIVE_LEVEL.
    pub(crate) fn list(&self, first: u64, output: &mut Output<'_>) {
        let mut from = first;
        while output.room() >= size_of::<Record>() {
            let now = time::interrupt_time();
            // The lock is not held while Windows is asked about the process, which it answers at PASSIVE_LEVEL only.
            let found = self.table.lock().next(from).map(|(question, held)| record(question, held, now));
            let Some(mut found) = found else { return };
            if let Some(origin) = process::origin(found.process_id) {
                (found.process_created, found.parent_id) = (origin.created, origin.parent);
            }
            output.push(found.as_bytes());
            from = found.id.saturating_add(1);
        }
    }
}

fn record(question: &Question, held: u32, now: u64) -> Record {
    let mut place = Event::zeroed();
    question.key.write(&mut place);
    let mut record = Record {
        id: question.id,
        asked: question.asked,
        milliseconds: (question.deadline.saturating_sub(now) / 10_000) as u32,
        epoch: question.rule.epoch,
        rule: question.rule.number,
        process_id: question.process_id,
        held,
        protocol: place.protocol,
        ip_version: place.ip_version,
        unanswered: match question.rule.unanswered {
            Verdict::Permit => PERMIT,
            Verdict::Block => BLOCK,
        },
        local_port: place.local_port,
        remote_port: place.remote_port,
        local: place.local,
        remote: place.remote,
        ..Record::zeroed()
    };
    record.set_name(question.name.as_bytes());
    if let Some(identity) = &question.identity {
        let owner = identity.owner();
        record.set_application(trim_nul(owner.application.unwrap_or_default()));
        let mut is_first = true;
        owner.whose.each(&mut |sid| {
            if core::mem::take(&mut is_first) || is_service(sid.0) || is_of_a_package(sid.0) {
                record.add_sid(sid.0);
            }
        });
    }
    record
}

/// Whether a SID is a service's: S-1-5-80 and five more subauthorities.
const fn is_service(sid: &[u8]) -> bool {
    matches!(sid, [1, 6, 0, 0, 0, 0, 0, 5, 80, 0, 0, 0, ..])
}

/// Whether a SID is one package's, and not all packages' (S-1-15-2-1).
const fn is_of_a_package(sid: &[u8]) -> bool {
    matches!(sid, [1, 3..=15, 0, 0, 0, 0, 0, 15, 2, 0, 0, 0, ..])
}
