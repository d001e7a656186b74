//! Named times of the week.

use super::Policy;
use std::fmt;

/// A minute of the week in the machine's local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// 0 is Monday.
    pub day: u8,
    /// Minutes since midnight.
    pub minute: u16,
}

/// Minutes in a day.
const DAY: u16 = 24 * 60;
/// Minutes in a week.
const WEEK: u16 = 7 * DAY;

impl Moment {
    fn of_week(self) -> u16 {
        u16::from(self.day % 7) * DAY + self.minute % DAY
    }

    /// Reads `mon 08:30`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (day, time) = text.trim().split_once(' ')?;
        let (day, minute) = (day_number(day)?, parse_time(time.trim())?);
        // 24:00 is the beginning of the next day.
        Some(Self { day: (day + u8::from(minute == DAY)) % 7, minute: minute % DAY })
    }

    /// The moment this many minutes later.
    #[must_use]
    pub fn after(self, minutes: u16) -> Self {
        let then = (u32::from(self.of_week()) + u32::from(minutes)) % u32::from(WEEK);
        Self { day: (then / u32::from(DAY)) as u8, minute: (then % u32::from(DAY)) as u16 }
    }
}

impl fmt::Display for Moment {
    /// As `mon 08:30`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:02}:{:02}", DAYS[usize::from(self.day % 7)], self.minute / 60 % 24, self.minute % 60)
    }
}

/// How many minutes after `at` an enabled rule's schedule begins or ends; None if that never happens.
#[must_use]
pub fn next_change(policy: &Policy, at: Moment) -> Option<u16> {
    let enabled = policy.rules.iter().filter(|rule| rule.enabled);
    let mut used: Vec<usize> = enabled.filter_map(|rule| rule.schedule).collect();
    used.sort_unstable();
    used.dedup();
    used.iter().filter_map(|&index| policy.schedules.get(index)?.next_change(at)).min()
}

/// The days and hours in which a rule is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// By day, Monday first: whether the hours begin on that day.
    pub days: [bool; 7],
    /// The first minute of each span and the one after its last; one that ends before it begins extends into the next
    /// day. Empty: all day.
    pub hours: Vec<(u16, u16)>,
}

impl Schedule {
    /// Whether it contains `moment`.
    #[must_use]
    pub fn contains(&self, moment: Moment) -> bool {
        self.spans().any(|(start, end)| {
            let minute = moment.of_week();
            (start..end).contains(&minute) || (start..end).contains(&(minute + WEEK))
        })
    }

    /// How many minutes after `moment` it begins or ends; None if it never does.
    #[must_use]
    pub fn next_change(&self, moment: Moment) -> Option<u16> {
        let now = self.contains(moment);
        let minute = moment.of_week();
        let mut edges: Vec<u16> = self
            .spans()
            .flat_map(|(start, end)| [start, end])
            .map(|edge| (edge + WEEK - minute - 1) % WEEK + 1)
            .collect();
        edges.sort_unstable();
        edges.into_iter().find(|ahead| {
            let then = (minute + ahead) % WEEK;
            self.contains(Moment { day: (then / DAY) as u8, minute: then % DAY }) != now
        })
    }

    fn spans(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        const ALL_DAY: [(u16, u16); 1] = [(0, DAY)];
        let hours = if self.hours.is_empty() { &ALL_DAY[..] } else { &self.hours };
        (0..7).filter(|&day| self.days[usize::from(day)]).flat_map(move |day| {
            hours.iter().map(move |&(start, end)| {
                let base = day * DAY;
                (base + start, base + if end <= start { end + DAY } else { end })
            })
        })
    }
}

/// The names of days, Monday first.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// 0 for `mon` or `Monday`.
#[must_use]
pub fn day_number(text: &str) -> Option<u8> {
    let text = text.trim().to_ascii_lowercase();
    let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    (0..7u8).find(|&day| text == DAYS[usize::from(day)] || text == full[usize::from(day)])
}

/// Reads `mon` or `mon-fri` into days.
#[must_use]
pub fn parse_days(text: &str) -> Option<Vec<u8>> {
    match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (day_number(first)?, day_number(last)?);
            Some((0..=(last + 7 - first) % 7).map(|step| (first + step) % 7).collect())
        }
        None => Some(vec![day_number(text)?]),
    }
}

/// Reads `08:30` into minutes; `24:00` is the end of the day.
#[must_use]
pub fn parse_time(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

/// Reads `08:00-18:00`.
#[must_use]
pub fn parse_hours(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-')?;
    let (start, end) = (parse_time(start.trim())?, parse_time(end.trim())?);
    (start != end && start < DAY).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        Moment::parse(text).unwrap()
    }

    #[test]
    fn nights_run_into_the_next_day_and_week() {
        let mut days = [false; 7];
        for day in parse_days("fri-sun").unwrap() {
            days[usize::from(day)] = true;
        }
        let night = Schedule { name: "night".into(), days, hours: vec![parse_hours("22:00-06:00").unwrap()] };
        for (moment, inside) in [
            ("fri 21:59", false),
            ("fri 22:00", true),
            ("sat 05:59", true),
            ("sat 06:00", false),
            ("mon 05:59", true),
            ("mon 06:00", false),
            ("tue 23:00", false),
        ] {
            assert_eq!(night.contains(at(moment)), inside, "{moment}");
        }
        assert_eq!(night.next_change(at("fri 21:00")), Some(60));
        assert_eq!(night.next_change(at("mon 05:00")), Some(60));
        assert_eq!(night.next_change(at("mon 06:00")), Some(4 * 24 * 60 + 16 * 60));
    }

    #[test]
    fn moments_go_on_and_come_back() {
        assert_eq!(at("sun 24:00"), at("mon 00:00"));
        assert_eq!(at("sun 23:59").after(1), at("mon 00:00"));
        assert_eq!(at("mon 00:00").after(WEEK - 1), at("sun 23:59"));
        for text in ["mon 00:00", "thu 08:05", "sun 23:59"] {
            assert_eq!(at(text).to_string(), text);
        }
    }

    #[test]
    fn a_whole_week_never_changes() {
        let always = Schedule { name: String::new(), days: [true; 7], hours: Vec::new() };
        assert!(always.contains(at("sun 23:59")));
        assert_eq!(always.next_change(at("wed 12:00")), None);
        assert_eq!(parse_time("24:01"), None);
        assert_eq!(parse_days("sat-mon"), Some(vec![5, 6, 0]));
    }
}
