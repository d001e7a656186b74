//! The driver's decisions as they are made.
//!
//! A read on the device waits in the driver until there is an event (an inverted call), so following is free while
//! nothing happens. Every reader gets every event that it wants, from the oldest that the driver holds, in the order of
//! time. What the driver holds is bounded: a reader that is too slow loses the oldest, and an [`Item::Lost`] in their
//! place says how many.

mod filter;
mod line;

pub use filter::EventFilter;
pub use line::EventLine;
pub(crate) use line::{address, protocol, timestamp};

use crate::device::Control;
use crate::error::ControlError;
use crate::status;
use jiff::Timestamp;
use serde::Serialize;
use sluice_host::Host;
use sluice_policy::Image;
use sluice_protocol::Event;
use sluice_protocol::event::verdict;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use zerocopy::FromBytes;

/// How many events one read can return.
const BATCH: usize = 256;
/// The longest that one read waits when no end is given; then it is repeated.
const LONG_WAIT: Duration = Duration::from_secs(3600);

/// What is read, and when to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventOptions {
    /// Wait for events to come; without it only what the ring holds is read.
    pub follow: bool,
    /// Stop after this many events. Implies waiting for them.
    pub count: Option<u64>,
    /// Stop after this time.
    pub timeout: Option<Duration>,
    /// Ask for every decision while this reads, not only for those that rules and defaults log.
    pub all: bool,
    /// Only those that come from now on, and not what the driver holds.
    pub new: bool,
    /// Which events to pass on.
    pub filter: EventFilter,
}

/// What the sink receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Item {
    /// A decision.
    Event(Box<EventLine>),
    /// When the driver was loaded, the policy that was kept for it was not put in force.
    NotRestored {
        /// When, UTC.
        time: Timestamp,
        /// Why not, as `sluice status` says it.
        why: String,
    },
    /// This reader lost this many events here, because it was slower than they came.
    Lost {
        /// How many.
        count: u64,
    },
    /// This many decisions from the source of the next one were not recorded, because it had used up its budget.
    Unrecorded {
        /// How many.
        count: u64,
    },
}

/// The time now, as events have it.
#[must_use]
pub fn utc_now() -> String {
    Timestamp::now().to_string()
}

/// Reads events and passes them to `sink` in order until `options` or the sink stop it. Returns how many.
///
/// # Errors
/// The driver is not loaded, or a read failed or returned something other than events.
pub fn events(
    host: &dyn Host,
    options: &EventOptions,
    sink: &mut dyn FnMut(&Item) -> ControlFlow<()>,
) -> Result<u64, ControlError> {
    let mut reader = EventReader::open(host, options.all)?;
    reader.want(&options.filter)?;
    if options.new {
        reader.drain(&mut |_| ControlFlow::Continue(()))?;
        reader.stream.seen = 0;
    }
    reader.stream.wanted = options.count.unwrap_or(u64::MAX);
    let waits = options.follow || options.count.is_some() || options.timeout.is_some();
    let start = Instant::now();
    while reader.stream.seen < reader.stream.wanted {
        let left = options.timeout.map_or(LONG_WAIT, |timeout| timeout.saturating_sub(start.elapsed()));
        let Batch { records, flow } = if waits { reader.read(left, sink)? } else { reader.take(sink)? };
        let over = !waits || options.timeout.is_some_and(|timeout| start.elapsed() >= timeout);
        if flow.is_break() || (records == 0 && over) {
            break;
        }
    }
    Ok(reader.stream.seen)
}

/// A reader of events: one open handle, with its own place in what the driver holds.
pub struct EventReader {
    device: Control,
    stream: EventStream,
    buffer: Vec<u8>,
    /// The generation for whose rules the driver was asked, if it was.
    asked: Option<u32>,
}

/// What one read brought.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// How many records.
    pub records: usize,
    /// Whether to go on.
    pub flow: ControlFlow<()>,
}

impl EventReader {
    /// Opens the device. `all`: every decision makes an event, as long as this reader is open.
    ///
    /// # Errors
    /// The driver is not loaded, or too many readers ask for every decision.
    pub fn open(host: &dyn Host, all: bool) -> Result<Self, ControlError> {
        let (device, _) = Control::open(host)?;
        if all {
            device.record_all()?;
        }
        Ok(Self {
            device,
            stream: EventStream::new(u64::MAX),
            buffer: vec![0; BATCH * size_of::<Event>()],
            asked: None,
        })
    }

    /// From now on reads only events that pass `filter`; the driver does not wake this reader for others, or once after a new
    /// policy.
    ///
    /// # Errors
    /// A request failed.
    pub fn want(&mut self, filter: &EventFilter) -> Result<(), ControlError> {
        self.stream.filter = filter.clone();
        self.stream.latest = self.device.status()?.epoch;
        self.ask_for_wanted()
    }

    /// Tells the driver what is wanted under the latest policy that is known.
    fn ask_for_wanted(&mut self) -> Result<(), ControlError> {
        let epoch = self.stream.latest;
        if self.stream.filter.rule.is_some() {
            self.stream.names.learn(&self.device, epoch)?;
        }
        let names = self.stream.names.0.get(&epoch).and_then(|names| names.as_deref());
        self.device.filter_events(&self.stream.filter.for_driver(epoch, names))?;
        self.asked = Some(epoch);
        Ok(())
    }

    /// Reads once, waiting so long for events.
    ///
    /// # Errors
    /// The read failed or returned something other than events.
    pub fn read(
        &mut self,
        wait: Duration,
        sink: &mut dyn FnMut(&Item) -> ControlFlow<()>,
    ) -> Result<Batch, ControlError> {
        let read = self.device.read(&mut self.buffer, wait)?;
        self.pass_on(read, sink)
    }

    /// Takes what there is, without waiting.
    ///
    /// # Errors
    /// As [`EventReader::read`].
    pub fn take(&mut self, sink: &mut dyn FnMut(&Item) -> ControlFlow<()>) -> Result<Batch, ControlError> {
        let read = self.device.take_events(&mut self.buffer)?;
        self.pass_on(read, sink)
    }

    fn pass_on(&mut self, read: usize, sink: &mut dyn FnMut(&Item) -> ControlFlow<()>) -> Result<Batch, ControlError> {
        let names = |names: &mut RuleNames, epoch: u32| names.learn(&self.device, epoch);
        let flow = self.stream.take(self.buffer.get(..read).unwrap_or_default(), names, sink)?;
        if self.stream.filter.rule.is_some() && self.asked.is_some_and(|asked| asked < self.stream.latest) {
            self.ask_for_wanted()?;
        }
        Ok(Batch { records: read / size_of::<Event>(), flow })
    }

    /// Takes all there is, without waiting.
    ///
    /// # Errors
    /// As [`EventReader::read`].
    pub fn drain(&mut self, sink: &mut dyn FnMut(&Item) -> ControlFlow<()>) -> Result<(), ControlError> {
        while let Batch { records: 1.., flow: ControlFlow::Continue(()) } = self.take(sink)? {}
        Ok(())
    }
}

/// How many policies' names a reader remembers.
const REMEMBERED: usize = 16;

/// The rule names of the policies that decided, by generation; none of those that the driver does not have any more.
#[derive(Default)]
pub(crate) struct RuleNames(BTreeMap<u32, Option<Vec<String>>>);

impl RuleNames {
    /// Reads the names of a generation, once as long as few others are asked for: of the policy in force, or of one before it.
    pub(crate) fn learn(&mut self, device: &Control, epoch: u32) -> Result<(), ControlError> {
        /// How often to retry after a swap.
        const TRIES: usize = 4;
        while self.0.len() >= REMEMBERED {
            self.0.pop_first();
        }
        for _ in 0..TRIES {
            let before = device.status()?.epoch;
            let names = if before == epoch {
                let image = device.policy()?.and_then(|bytes| Image::validate(bytes).ok());
                image.map(|image| {
                    let name = |rule| image.rule_name(rule).unwrap_or_default().to_owned();
                    (0..image.rule_count()).map(name).collect()
                })
            } else {
                device.rule_names(epoch)?
            };
            // After a swap in between, the policy may have been another one, and its names are among those of the past.
            if device.status()?.epoch == before {
                self.0.insert(epoch, names);
                return Ok(());
            }
        }
        self.0.insert(epoch, None);
        Ok(())
    }

    /// The name of the rule that decided.
    pub(crate) fn name(&self, line: &EventLine) -> Option<String> {
        self.of(line.epoch, line.rule?)
    }

    /// The name of a rule.
    pub(crate) fn of(&self, epoch: u32, rule: u32) -> Option<String> {
        self.0.get(&epoch)?.as_ref()?.get(rule as usize).cloned()
    }
}

/// The position in a stream of events.
struct EventStream {
    seen: u64,
    wanted: u64,
    filter: EventFilter,
    names: RuleNames,
    /// The latest generation whose decision was read.
    latest: u32,
}

impl EventStream {
    fn new(wanted: u64) -> Self {
        Self { seen: 0, wanted, filter: EventFilter::default(), names: RuleNames::default(), latest: 0 }
    }

    /// What is missing before `event`, if anything.
    fn absent(event: &Event) -> impl Iterator<Item = Item> + use<> {
        let (lost, unrecorded) = (event.lost.into(), event.unrecorded.into());
        let items = [(lost, Item::Lost { count: lost }), (unrecorded, Item::Unrecorded { count: unrecorded })];
        items.into_iter().filter(|(count, _)| *count > 0).map(|(_, item)| item)
    }

    fn take(
        &mut self,
        bytes: &[u8],
        learn: impl Fn(&mut RuleNames, u32) -> Result<(), ControlError>,
        sink: &mut dyn FnMut(&Item) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ControlError> {
        let (records, rest) = bytes.as_chunks::<{ size_of::<Event>() }>();
        if !rest.is_empty() {
            let what = format!("{} bytes are not a whole number of {}-byte events", bytes.len(), size_of::<Event>());
            return Err(ControlError::Answer { request: "a read", what });
        }
        for record in records {
            let Ok(event) = Event::read_from_bytes(record) else { continue };
            for item in Self::absent(&event) {
                if sink(&item).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if event.verdict == verdict::NONE {
                continue;
            }
            if event.verdict == verdict::NOT_RESTORED {
                let (time, why) = (timestamp(event.time), status::at_start(event.rule, event.flow as u32));
                self.seen += 1;
                if sink(&Item::NotRestored { time, why }).is_break() || self.seen == self.wanted {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
            self.latest = self.latest.max(event.epoch);
            let mut line = EventLine::from(&event);
            if line.rule.is_some() && !self.names.0.contains_key(&event.epoch) {
                learn(&mut self.names, event.epoch)?;
            }
            line.rule_name = self.names.name(&line);
            if !self.filter.passes(&line) {
                continue;
            }
            self.seen += 1;
            if sink(&Item::Event(Box::new(line))).is_break() || self.seen == self.wanted {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use super::line::tests::sample;
    use super::*;
    use crate::testing::{Memory, installed};
    use zerocopy::IntoBytes;

    #[test]
    fn what_is_missing_is_reported_in_its_place() {
        let end = Event { verdict: verdict::NONE, lost: 3, ..Event::zeroed() };
        let records: Vec<u8> = [
            Event { sequence: 1, lost: 5, ..sample() },
            Event { sequence: 2, ..sample() },
            Event { sequence: 7, lost: 4, unrecorded: 9, ..sample() },
            end,
        ]
        .iter()
        .flat_map(|event| event.as_bytes().to_vec())
        .collect();
        let mut items = Vec::new();
        let mut stream = EventStream::new(u64::MAX);
        let flow = stream.take(&records, |_, _| Ok(()), &mut |item| {
            items.push(match item {
                Item::Event(line) => ("event", line.sequence),
                Item::Lost { count } => ("lost", *count),
                Item::Unrecorded { count } => ("unrecorded", *count),
                Item::NotRestored { .. } => ("not restored", 0),
            });
            ControlFlow::Continue(())
        });
        assert!(flow.unwrap().is_continue());
        let expected =
            [("lost", 5), ("event", 1), ("event", 2), ("lost", 4), ("unrecorded", 9), ("event", 7), ("lost", 3)];
        assert_eq!(items, expected);
        assert_eq!(stream.seen, 3);
    }

    #[test]
    fn half_a_record_is_an_error() {
        let mut stream = EventStream::new(1);
        let error = stream.take(&[0; 300], |_, _| Ok(()), &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the driver's answer to a read is not valid: 300 bytes are not a whole number of 256-byte events"
        );
    }

    /// A machine whose driver returns these events, one per read.
    fn machine(sequences: impl IntoIterator<Item = u64>) -> Memory {
        let memory = installed();
        memory.driver.lock().unwrap().reads =
            sequences.into_iter().map(|sequence| Event { sequence, ..sample() }.as_bytes().to_vec()).collect();
        memory
    }

    #[test]
    fn without_options_what_is_there_is_read_and_no_more() {
        let memory = machine(1..=3);
        let start = Instant::now();
        assert_eq!(events(&memory, &EventOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap(), 3);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn rules_have_the_names_of_the_policy_that_decided() {
        let memory = machine(1..=2);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let policy = r#"
            [default]
            outbound = "permit"
            inbound = "permit"
            [[rule]]
            name = "no bell"
            action = "block"
            remote-port = 7
        "#;
        std::io::Write::write_all(&mut file, policy.as_bytes()).unwrap();
        crate::load(&memory, file.path()).unwrap();
        {
            let mut driver = memory.driver.lock().unwrap();
            driver.status.epoch = 2;
            driver.status.policy_bytes = driver.policies[0].len() as u64;
            let of = |epoch| Event { sequence: 1, epoch, rule: 0, ..sample() }.as_bytes().to_vec();
            driver.past = Some((1, [&3_u32.to_le_bytes()[..], b"old"].concat()));
            driver.reads = [of(1), of(2), of(0)].into();
        }
        let mut lines = Vec::new();
        let mut sink = |item: &Item| {
            lines.extend(match item {
                Item::Event(line) => Some(line.to_string()),
                _ => None,
            });
            ControlFlow::Continue(())
        };
        events(&memory, &EventOptions::default(), &mut sink).unwrap();
        assert!(lines[0].contains(r#" rule "old" filter "#), "of a policy that is not in force any more: {}", lines[0]);
        assert!(lines[1].contains(r#" rule "no bell" filter "#), "{}", lines[1]);
        assert!(lines[2].contains(" rule 0 of generation 0 filter "), "of one that is gone: {}", lines[2]);
    }

    #[test]
    fn a_count_stops_there_and_a_timeout_ends_the_wait() {
        let memory = machine(1..=3);
        let options = EventOptions { count: Some(2), ..EventOptions::default() };
        assert_eq!(events(&memory, &options, &mut |_| ControlFlow::Continue(())).unwrap(), 2);
        let options = EventOptions {
            count: Some(2),
            timeout: Some(Duration::from_millis(60)),
            follow: true,
            ..EventOptions::default()
        };
        let start = Instant::now();
        assert_eq!(events(&memory, &options, &mut |_| ControlFlow::Continue(())).unwrap(), 1);
        assert!(start.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn the_sink_can_stop() {
        let memory = machine(1..=3);
        let options = EventOptions { follow: true, ..EventOptions::default() };
        assert_eq!(events(&memory, &options, &mut |_| ControlFlow::Break(())).unwrap(), 1);
    }

    #[test]
    fn without_a_driver_it_says_which_step_is_missing() {
        let memory = Memory::new();
        let mut sink = |_: &Item| ControlFlow::Continue(());
        let error = events(&memory, &EventOptions::default(), &mut sink).unwrap_err();
        assert!(matches!(error, ControlError::NotInstalled));
        let memory = machine([]);
        memory.stop_service("Sluice").unwrap();
        let error = events(&memory, &EventOptions::default(), &mut sink).unwrap_err();
        assert!(matches!(error, ControlError::NotLoaded), "{error}");
    }

    #[test]
    fn a_reader_sees_what_its_filter_passes_and_counts_that() {
        let memory = machine([]);
        let events_of = |filter: EventFilter| {
            let permit = Event { verdict: verdict::PERMIT, rule: sluice_protocol::event::RULE_DEFAULT, ..sample() };
            memory.driver.lock().unwrap().reads =
                [sample(), permit, sample()].iter().map(|event| event.as_bytes().to_vec()).collect();
            let options = EventOptions { filter, ..EventOptions::default() };
            events(&memory, &options, &mut |_| ControlFlow::Continue(())).unwrap()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(events_of(EventFilter::default()), 3);
        assert_eq!(events_of(EventFilter { verdict: some("block"), ..EventFilter::default() }), 2);
        assert_eq!(events_of(EventFilter { rule: some("default"), ..EventFilter::default() }), 1);
        assert_eq!(events_of(EventFilter { application: some("CURL"), ..EventFilter::default() }), 3);
        assert_eq!(events_of(EventFilter { application: some("wget"), ..EventFilter::default() }), 0);
        let both = EventFilter { verdict: some("permit"), rule: some("no such"), ..EventFilter::default() };
        assert_eq!(events_of(both), 0);
    }
}
