//! What runs as long as the machine does: it keeps the policy in force up to date, and passes decisions on.
//!
//! One thread does both in turn. It looks at the policy's source, the clock and the machine every few seconds, and waits
//! for decisions in between. Nothing of it decides about traffic: while it does not run, the policy that it last loaded
//! stays in force. It closes the driver's device as soon as the driver is to be unloaded, which would wait for that.

mod upkeep;

pub use upkeep::{Kept, Source};

use crate::error::ControlError;
use crate::events::{EventReader, Item};
use crate::install::stopped;
use sluice_host::{Host, ServiceState, code};
use sluice_policy::model::Moment;
use sluice_protocol::{KEEPER_NAME, SERVICE_NAME};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use upkeep::Upkeep;

/// How long one wait for decisions takes at most: so long may a stop, or an unload of the driver, go unnoticed.
const TICK: Duration = Duration::from_millis(500);

/// What the service does.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// What is kept in force.
    pub source: Source,
    /// How often source, clock and machine are looked at.
    pub every: Duration,
    /// Whether decisions are passed on.
    pub decisions: bool,
    /// Ask for every decision, not only for those that rules and defaults log.
    pub all: bool,
}

/// What the service has to say.
#[derive(Debug)]
pub enum Notice<'a> {
    /// It put a policy in force, because something had changed.
    Kept(&'a Kept),
    /// The policy cannot be kept up to date. Said once; it is tried again.
    Failed(&'a ControlError),
    /// Decisions cannot be read. Said once; it is tried again.
    NotRead(&'a ControlError),
    /// A decision, or that some are missing.
    Item(&'a Item),
}

/// Runs until `stop` is set; then what the driver still holds is passed on. `now` is the local time.
pub fn run(
    host: &dyn Host,
    options: &ServiceOptions,
    now: &dyn Fn() -> Moment,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Notice<'_>),
) {
    let mut upkeep = Upkeep::new(options.source.clone());
    let mut reader: Option<EventReader> = None;
    let mut due = Instant::now();
    let (mut failed, mut not_read) = (String::new(), String::new());
    while !stop.load(Ordering::Relaxed) {
        let loaded = host.service_state(SERVICE_NAME).is_ok_and(|state| state == ServiceState::Running);
        if !loaded {
            reader = None;
        }
        if Instant::now() >= due {
            match upkeep.look(host, now()) {
                None => {}
                Some(Ok(kept)) => {
                    failed.clear();
                    tell(Notice::Kept(&kept));
                }
                Some(Err(error)) => once(&mut failed, error, &mut |error| tell(Notice::Failed(error))),
            }
            due = Instant::now() + options.every;
        }
        let read = match &mut reader {
            _ if !loaded || !options.decisions => {
                std::thread::sleep(TICK.min(options.every));
                continue;
            }
            Some(reader) => reader.read(TICK.min(options.every), &mut |item| passed(item, tell)).map(drop),
            None => EventReader::open(host, options.all).map(|open| reader = Some(open)),
        };
        match read {
            Ok(()) => not_read.clear(),
            Err(error) => {
                reader = None;
                once(&mut not_read, error, &mut |error| tell(Notice::NotRead(error)));
                std::thread::sleep(TICK.min(options.every));
            }
        }
    }
    if let Some(mut reader) = reader {
        // What cannot be read now was not lost by us: the driver holds it for the next reader.
        let _ = reader.drain(&mut |item| passed(item, tell));
    }
}

/// Stops the service and removes it from the machine, if there is one; says whether there was.
///
/// # Errors
/// The machine refused.
pub fn remove(host: &dyn Host) -> Result<bool, ControlError> {
    let failed = || ControlError::step("removing the service that keeps the policy up to date");
    match host.service_state(KEEPER_NAME).map_err(failed())? {
        ServiceState::Absent => return Ok(false),
        ServiceState::Running => {
            host.stop_service(KEEPER_NAME).map_err(failed())?;
            stopped(host, KEEPER_NAME)?;
        }
        ServiceState::StopPending => drop(stopped(host, KEEPER_NAME)?),
        ServiceState::Stopped => {}
    }
    match host.delete_service(KEEPER_NAME) {
        // It goes with the last program that has it open.
        Err(error) if error.code == code::ERROR_SERVICE_MARKED_FOR_DELETE => Ok(true),
        deleted => deleted.map(|()| true).map_err(failed()),
    }
}

fn passed(item: &Item, tell: &mut dyn FnMut(Notice<'_>)) -> ControlFlow<()> {
    tell(Notice::Item(item));
    ControlFlow::Continue(())
}

/// Says an error that is not the one that was said last.
fn once(told: &mut String, error: ControlError, tell: &mut dyn FnMut(&ControlError)) {
    let text = error.to_string();
    if *told != text {
        tell(&error);
        *told = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{file, machine};
    use sluice_protocol::Event;
    use sluice_protocol::event::verdict;
    use zerocopy::IntoBytes;

    /// Runs until so many things were said, and returns them.
    fn said(memory: &crate::testing::Memory, source: Source, count: usize) -> Vec<String> {
        let (stop, mut all) = (AtomicBool::new(false), Vec::new());
        let options = ServiceOptions { source, every: Duration::from_millis(1), decisions: true, all: false };
        let now = || Moment { day: 0, minute: 0 };
        run(memory, &options, &now, &stop, &mut |notice| {
            all.push(match notice {
                Notice::Kept(kept) => format!("kept {:?}", kept.because),
                Notice::Failed(error) => format!("failed: {error}"),
                Notice::NotRead(error) => format!("not read: {error}"),
                Notice::Item(Item::Lost { count }) => format!("lost {count}"),
                Notice::Item(_) => "item".to_owned(),
            });
            stop.store(all.len() == count, Ordering::Relaxed);
        });
        all
    }

    #[test]
    fn what_a_reader_lost_is_passed_on() {
        let memory = machine();
        let event = Event { lost: 5, verdict: verdict::BLOCK, ..Event::zeroed() };
        memory.driver.lock().unwrap().reads.push_back(event.as_bytes().to_vec());
        let policy = file("[default]\n");
        assert_eq!(
            said(&memory, Source::File(policy.path().to_owned()), 3),
            [r#"kept ["the start"]"#, "lost 5", "item"]
        );
    }

    #[test]
    fn without_a_driver_it_waits_and_says_so_once() {
        let memory = crate::testing::Memory::new();
        let policy = file("[default]\n");
        // It would never end if the same were not said once: the second thing to say comes when the driver does.
        let said = said(&memory, Source::File(policy.path().to_owned()), 1);
        assert_eq!(said, ["failed: the driver is not installed"]);
    }
}
