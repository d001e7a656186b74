//! A policy that follows its schedules: the driver has no clock, so user mode has to swap the image.

use crate::error::ControlError;
use crate::policy::{LoadReport, Loading, load_at, local_moment};
use crate::program::{missing_interfaces, missing_programs};
use crate::read::read_policy;
use sluice_host::Host;
use sluice_policy::model::{Moment, Policy};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// How long a change of the machine's clock, zone or daylight saving may go unnoticed.
const STEP: Duration = Duration::from_secs(20);

/// The time of the week, and waiting.
pub trait Clock {
    /// The local time.
    fn now(&self) -> Moment;
    /// Waits for about this long.
    fn wait(&mut self, time: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalClock;

impl Clock for LocalClock {
    fn now(&self) -> Moment {
        local_moment()
    }

    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Loads a policy, and loads it again whenever a rule's schedule begins or ends or a missing program appears, until
/// `loaded` says to stop; if neither can happen, it returns after the first load. A later load that fails is reported
/// to `loaded` and retried. The clock is polled instead of sleeping until a computed time, because clocks are set and
/// machines are suspended. The file and its lists are read once: an edited file takes effect by a new `load`.
///
/// # Errors
/// As [`load_with`](crate::load_with), at the first load only. Whatever fails, the policy in force stays in force.
pub fn watch(
    host: &dyn Host,
    file: &Path,
    loading: Loading,
    clock: &mut dyn Clock,
    loaded: &mut dyn FnMut(Result<&LoadReport, &ControlError>) -> ControlFlow<()>,
) -> Result<(), ControlError> {
    let policy = read_policy(file)?;
    let mut first = true;
    loop {
        let now = clock.now();
        let report = match load_at(host, &policy, now, loading) {
            Err(error) if first => return Err(error),
            Err(error) => {
                if loaded(Err(&error)).is_break() {
                    return Ok(());
                }
                clock.wait(STEP);
                continue;
            }
            Ok(report) => report,
        };
        first = false;
        let (programs, interfaces) = (&report.missing_programs, &report.missing_interfaces);
        let settled = report.schedules_change_at.is_none() && programs.is_empty() && interfaces.is_empty();
        if loaded(Ok(&report)).is_break() || settled {
            return Ok(());
        }
        let in_force = active(&policy, now);
        let same = |now| {
            active(&policy, now) == in_force
                && (programs.is_empty() || missing_programs(host, &policy, now) == *programs)
                && (interfaces.is_empty() || missing_interfaces(host, &policy, now) == *interfaces)
        };
        while same(clock.now()) {
            clock.wait(STEP);
        }
    }
}

/// Which rules are active.
fn active(policy: &Policy, at: Moment) -> Vec<bool> {
    policy.rules.iter().map(|rule| rule.active(&policy.schedules, Some(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{file, machine};
    use sluice_protocol::status::PolicyReply;

    /// A clock that advances by each wait, with one jump.
    struct Simulated {
        seconds: u64,
        jump: Option<(u64, u64)>,
    }

    impl Clock for Simulated {
        fn now(&self) -> Moment {
            let minutes = self.seconds / 60 % (7 * 24 * 60);
            Moment { day: (minutes / (24 * 60)) as u8, minute: (minutes % (24 * 60)) as u16 }
        }

        fn wait(&mut self, time: Duration) {
            self.seconds += time.as_secs();
            if let Some((_, to)) = self.jump.take_if(|(from, _)| *from <= self.seconds) {
                self.seconds = to;
            }
        }
    }

    const POLICY: &str = r#"
        [schedule.night]
        hours = "18:00-08:00"
        [[rule]]
        name = "night"
        action = "block"
        local-port = 3389
        schedule = "night"
    "#;

    fn watched(text: &str, mut clock: Simulated, loads: usize) -> Vec<String> {
        let memory = machine();
        let mut seen = Vec::new();
        watch(&memory, file(text).path(), Loading::DEFAULT, &mut clock, &mut |report| {
            seen.push(report.unwrap().schedules_judged_at.clone().unwrap_or_default());
            if seen.len() == loads { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(memory.driver.lock().unwrap().policies.len(), seen.len());
        seen
    }

    #[test]
    fn the_image_is_swapped_when_a_schedule_begins_and_ends() {
        let seen = watched(POLICY, Simulated { seconds: 12 * 3600, jump: None }, 4);
        assert_eq!(seen, ["mon 12:00", "mon 18:00", "tue 08:00", "tue 18:00"]);
    }

    #[test]
    fn a_program_that_is_missing_does_not_end_it() {
        let missing = POLICY.replace("schedule =", "application = 'Q:\\gone.exe'\n        schedule =");
        let seen = watched(&missing, Simulated { seconds: 12 * 3600, jump: None }, 3);
        assert_eq!(seen, ["mon 12:00", "mon 18:00", "tue 08:00"]);
    }

    #[test]
    fn an_interface_that_comes_has_the_policy_loaded_again() {
        let memory = machine();
        let text = "[[rule]]\nname = \"x\"\naction = \"block\"\ninterface = \"alias:VPN\"\n";
        let mut seen = Vec::new();
        let clock = &mut Simulated { seconds: 0, jump: None };
        watch(&memory, file(text).path(), Loading::DEFAULT, clock, &mut |report| {
            seen.push(report.unwrap().missing_interfaces.clone());
            memory.interfaces.borrow_mut().push(("VPN".to_owned(), 53 << 48 | 7));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, [vec!["VPN".to_owned()], Vec::new()]);
    }

    #[test]
    fn what_fails_later_is_told_and_tried_again() {
        let memory = machine();
        let reply = |reply| memory.driver.lock().unwrap().reply = reply;
        let mut seen = Vec::new();
        watch(
            &memory,
            file(POLICY).path(),
            Loading::DEFAULT,
            &mut Simulated { seconds: 12 * 3600, jump: None },
            &mut |report| {
                seen.push(report.map(|report| report.epoch).map_err(ToString::to_string));
                match seen.len() {
                    1 => reply(PolicyReply::refused(1, &"no room")),
                    3 => reply(PolicyReply::accepted(2)),
                    4 => return ControlFlow::Break(()),
                    _ => {}
                }
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        let refused = Err("the driver refused the policy: no room".to_owned());
        assert_eq!(seen[1..], [refused.clone(), refused, Ok(2)]);
    }

    #[test]
    fn a_clock_that_is_set_is_noticed() {
        // At one in the afternoon somebody sets the clock to eleven at night.
        let seen = watched(POLICY, Simulated { seconds: 12 * 3600, jump: Some((13 * 3600, 23 * 3600)) }, 2);
        assert_eq!(seen, ["mon 12:00", "mon 23:00"]);
    }

    #[test]
    fn a_policy_that_never_changes_is_loaded_once() {
        assert_eq!(watched("", Simulated { seconds: 0, jump: None }, 9).len(), 1);
        let disabled = POLICY.replace("action", "enabled = false\naction");
        assert_eq!(watched(&disabled, Simulated { seconds: 0, jump: None }, 9).len(), 1);
    }

    #[test]
    fn what_is_loaded_at_night_is_the_rules_of_the_night() {
        let memory = machine();
        let mut loads = 0;
        watch(
            &memory,
            file(POLICY).path(),
            Loading::DEFAULT,
            &mut Simulated { seconds: 12 * 3600, jump: None },
            &mut |_| {
                loads += 1;
                if loads == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )
        .unwrap();
        let driver = memory.driver.lock().unwrap();
        let entries = |index: usize| {
            let image = sluice_policy::Image::validate(driver.policies[index].as_slice()).unwrap();
            sluice_policy::show(&image).rules[0].entries
        };
        assert_eq!(entries(0), 0);
        assert!(entries(1) > 0);
    }
}
