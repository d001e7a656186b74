//! What one look at the driver finds.

use sluice_control::device::Control;
use sluice_control::{ControlError, EventLine, EventReader, FlowLine, Item};
use sluice_host::Host;
use sluice_protocol::status::Counter;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// One look.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// When, since the first.
    pub(super) at: Duration,
    /// The driver's counters by name.
    pub(super) counters: BTreeMap<&'static str, u64>,
    /// How many rules the policy in force has, and its generation; 0 without one.
    pub(super) policy: (u32, u32),
    /// The flows that live now.
    pub(super) flows: Vec<FlowLine>,
    /// The decisions since the last look.
    pub(super) events: Vec<EventLine>,
    /// Decisions since the last look that are not among them.
    pub(super) unseen: u64,
}

/// Who looks. While it is there, every decision makes an event.
pub(super) struct Sampler<'h> {
    host: &'h dyn Host,
    device: Control,
    reader: EventReader,
    start: Instant,
}

impl<'h> Sampler<'h> {
    /// Begins with what is decided from now on.
    pub(super) fn open(host: &'h dyn Host) -> Result<Self, ControlError> {
        let (device, _) = Control::open(host)?;
        let mut reader = EventReader::open(host, true)?;
        reader.drain(&mut |_| ControlFlow::Continue(()))?;
        Ok(Self { host, device, reader, start: Instant::now() })
    }

    pub(super) fn look(&mut self) -> Result<Sample, ControlError> {
        let status = self.device.status()?;
        let mut sample = Sample {
            at: self.start.elapsed(),
            counters: Counter::ALL.iter().map(|&(counter, name)| (name, status.counters.get(counter))).collect(),
            policy: (status.rules, status.epoch),
            flows: sluice_control::flows(self.host)?,
            ..Sample::default()
        };
        let Sample { events, unseen, .. } = &mut sample;
        self.reader.drain(&mut |item| {
            match item {
                Item::Event(line) => events.push((**line).clone()),
                Item::Lost { count } | Item::Unrecorded { count } => *unseen += count,
                Item::NotRestored { .. } => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(sample)
    }
}
