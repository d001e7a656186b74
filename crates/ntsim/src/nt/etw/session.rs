//! Trace sessions: who listens to a provider, and what it has recorded.
//!
//! A session is the counterpart of `StartTrace` and `EnableTraceEx2` (evntrace.h). Its buffers are as large as need be,
//! so that none of its events is lost.

use super::decode::{self, Value};
use crate::cpu::{self, Bugcheck};
use crate::machine::Machine;
use nt_abi::Irql;
use parking_lot::Mutex;
use sluice_host::Guid;
use std::sync::Arc;

/// Which events of a provider a session wants: the arguments of `EnableTraceEx2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Events of this level and of the more severe, smaller ones; 0 for every level.
    pub level: u8,
    /// Events with any of these keywords; 0 for every event.
    pub any: u64,
    /// Of these, events that have all of these keywords.
    pub all: u64,
}

impl Asked {
    /// Every event.
    pub const EVERYTHING: Self = Self { level: 0, any: 0, all: 0 };

    /// Events that have any of these keywords.
    #[must_use]
    pub const fn keywords(any: u64) -> Self {
        Self { level: 0, any, all: 0 }
    }

    /// Whether it wants an event. One without keywords it always wants.
    #[must_use]
    pub const fn takes(&self, level: u8, keyword: u64) -> bool {
        let by_level = self.level == 0 || level <= self.level;
        let by_keyword = keyword == 0 || self.any == 0 || keyword & self.any != 0 && keyword & self.all == self.all;
        by_level && by_keyword
    }

    /// What a provider is told that two sessions listen to.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let both = |a: u64, b: u64| if a == 0 || b == 0 { 0 } else { a | b };
        let level = if self.level == 0 || other.level == 0 { 0 } else { self.level.max(other.level) };
        Self { level, any: both(self.any, other.any), all: self.all & other.all }
    }
}

/// One event as a session has recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The provider's name, from its traits.
    pub provider: String,
    /// The event's name, from its metadata; empty for an event without.
    pub event: String,
    /// `EVENT_DESCRIPTOR.Channel`: 11 for TraceLogging.
    pub channel: u8,
    /// `EVENT_DESCRIPTOR.Level`.
    pub level: u8,
    /// `EVENT_DESCRIPTOR.Keyword`.
    pub keyword: u64,
    /// The level at which it was written.
    pub irql: Irql,
    /// The fields by name, in the event's order. For an event without metadata there is one without a name: its bytes.
    pub fields: Vec<(String, Value)>,
    /// Why no tool could decode the event, if so; `fields` has those before the fault.
    pub fault: Option<String>,
}

impl Record {
    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The names of the fields.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// One session that listens to one provider.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) provider: Guid,
    pub(super) asked: Asked,
    records: Mutex<Vec<Record>>,
}

/// An event as a provider hands it over.
pub(super) struct Written<'a> {
    pub(super) channel: u8,
    pub(super) level: u8,
    pub(super) keyword: u64,
    /// The provider's traits, as it has set them or attached them to the event.
    pub(super) traits: Option<&'a [u8]>,
    pub(super) metadata: Option<&'a [u8]>,
    pub(super) data: &'a [u8],
}

impl Listener {
    pub(super) fn record(&self, written: &Written<'_>) {
        let mut record = Record {
            provider: String::new(),
            event: String::new(),
            channel: written.channel,
            level: written.level,
            keyword: written.keyword,
            irql: cpu::irql(),
            fields: Vec::new(),
            fault: None,
        };
        record.fault = decode::event(written, &mut record).err();
        self.records.lock().push(record);
    }
}

/// A session that listens to one provider until it is stopped.
#[derive(Debug)]
pub struct Session {
    machine: Arc<Machine>,
    listener: Arc<Listener>,
}

impl Session {
    /// Begins to listen to a provider, which may register later. A provider that is registered is told before this
    /// returns. To be called outside the machine.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn start(machine: &Arc<Machine>, provider: u128, asked: Asked) -> Result<Self, Bugcheck> {
        let listener = Arc::new(Listener { provider: Guid(provider), asked, records: Mutex::default() });
        let session = Self { machine: Arc::clone(machine), listener };
        let tracing = &machine.executive.tracing;
        tracing.state.write().listeners.push(Arc::clone(&session.listener));
        session.tell()?;
        Ok(session)
    }

    /// What has been recorded since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Record> {
        core::mem::take(&mut *self.listener.records.lock())
    }

    /// Stops listening, and gives what was recorded since the last [`Session::take`].
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn stop(self) -> Result<Vec<Record>, Bugcheck> {
        let tracing = &self.machine.executive.tracing;
        tracing.state.write().listeners.retain(|other| !Arc::ptr_eq(other, &self.listener));
        self.tell()?;
        Ok(self.take())
    }

    /// Tells the provider, as a system thread does.
    fn tell(&self) -> Result<(), Bugcheck> {
        let provider = self.listener.provider;
        cpu::enter(&self.machine, Irql::PASSIVE, || super::tell(|registered| registered.id == provider))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_takes_what_it_asked_for() {
        let asked = Asked { level: 4, any: 0b011, all: 0b001 };
        assert!(asked.takes(4, 0b001) && asked.takes(1, 0b101) && asked.takes(4, 0));
        assert!(!asked.takes(5, 0b001) && !asked.takes(4, 0b010) && !asked.takes(4, 0b100));
        assert!(Asked::EVERYTHING.takes(255, 1 << 63));
    }

    #[test]
    fn a_provider_is_told_what_any_session_wants() {
        let few = Asked { level: 2, any: 1, all: 3 };
        assert_eq!(few.joined(&Asked { level: 4, any: 2, all: 2 }), Asked { level: 4, any: 3, all: 2 });
        assert_eq!(few.joined(&Asked::EVERYTHING), Asked::EVERYTHING);
    }
}
