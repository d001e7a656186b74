//! System time and the calendar (`TIME_FIELDS`, wdm.h).

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::export::exports;
use crate::nt::clock::PER_SECOND;

exports! {
    "ntoskrnl.exe";
    RtlTimeToTimeFields: HIGH,
    RtlTimeFieldsToTime: HIGH,
    RtlTimeToSecondsSince1970: HIGH,
    RtlSecondsSince1970ToTime: HIGH,
}

/// `TIME_FIELDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TimeFields {
    year: i16,
    month: i16,
    day: i16,
    hour: i16,
    minute: i16,
    second: i16,
    milliseconds: i16,
    /// 0 is Sunday.
    weekday: i16,
}

const PER_MILLISECOND: u64 = PER_SECOND / 1000;
const PER_DAY: u64 = 86_400 * PER_SECOND;
/// Seconds between 1601-01-01 and 1970-01-01.
const EPOCHS: u64 = 11_644_473_600;
/// The Gregorian calendar repeats every 400 years; 1601 begins such a period.
const DAYS_IN_400_YEARS: u64 = 146_097;

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1601-01-01 to the first of January.
fn days_to_year(year: u64) -> u64 {
    let years = year - 1601;
    years * 365 + years / 4 - years / 100 + years / 400
}

fn fields(time: u64) -> TimeFields {
    let (days, rest) = (time / PER_DAY, time % PER_DAY);
    // At least the years that 400-year periods give; then a few steps.
    let mut year = 1601 + days / DAYS_IN_400_YEARS * 400 + days % DAYS_IN_400_YEARS / 366;
    while days_to_year(year + 1) <= days {
        year += 1;
    }
    let (mut month, mut day) = (1, days - days_to_year(year));
    while day >= days_in_month(year, month) {
        day -= days_in_month(year, month);
        month += 1;
    }
    let milliseconds = rest / PER_MILLISECOND;
    TimeFields {
        year: year as i16,
        month: month as i16,
        day: day as i16 + 1,
        hour: (milliseconds / 3_600_000) as i16,
        minute: (milliseconds / 60_000 % 60) as i16,
        second: (milliseconds / 1000 % 60) as i16,
        milliseconds: (milliseconds % 1000) as i16,
        // 1601-01-01 was a Monday.
        weekday: ((days + 1) % 7) as i16,
    }
}

/// None for fields that name no time; the weekday is not checked.
fn time(fields: TimeFields) -> Option<u64> {
    let within = |value: i16, range: core::ops::RangeInclusive<u64>| {
        u64::try_from(value).ok().filter(|value| range.contains(value))
    };
    let year = within(fields.year, 1601..=30827)?;
    let month = within(fields.month, 1..=12)?;
    let day = within(fields.day, 1..=days_in_month(year, month))?;
    let hour = within(fields.hour, 0..=23)?;
    let minute = within(fields.minute, 0..=59)?;
    let second = within(fields.second, 0..=59)?;
    let milliseconds = within(fields.milliseconds, 0..=999)?;
    let months: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
    let days = days_to_year(year) + months + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * PER_SECOND + milliseconds * PER_MILLISECOND)
}

unsafe extern "win64" fn RtlTimeToTimeFields(time: *const u64, to: *mut TimeFields) {
    // SAFETY: the page demands a LARGE_INTEGER to read and TIME_FIELDS to write.
    unsafe { to.write(fields(time.read())) };
}

unsafe extern "win64" fn RtlTimeFieldsToTime(from: *const TimeFields, to: *mut u64) -> u8 {
    // SAFETY: the page demands TIME_FIELDS to read, which are checked, and a LARGE_INTEGER to write.
    unsafe {
        let Some(time) = time(from.read()) else { return 0 };
        to.write(time);
        1
    }
}

unsafe extern "win64" fn RtlTimeToSecondsSince1970(time: *const u64, seconds: *mut u32) -> u8 {
    // SAFETY: the page demands a LARGE_INTEGER to read and a ULONG to write.
    unsafe {
        let since = (time.read() / PER_SECOND).checked_sub(EPOCHS).and_then(|since| u32::try_from(since).ok());
        let Some(since) = since else { return 0 };
        seconds.write(since);
        1
    }
}

unsafe extern "win64" fn RtlSecondsSince1970ToTime(seconds: u32, time: *mut u64) {
    // SAFETY: the page demands a LARGE_INTEGER to write.
    unsafe { time.write((u64::from(seconds) + EPOCHS) * PER_SECOND) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        let at = |seconds: u32| {
            let mut time = 0;
            // SAFETY: the output is ours.
            unsafe { RtlSecondsSince1970ToTime(seconds, &mut time) };
            fields(time)
        };
        let of = |year, month, day, weekday| TimeFields { year, month, day, weekday, ..TimeFields::default() };
        assert_eq!(fields(0), of(1601, 1, 1, 1));
        assert_eq!(at(0), of(1970, 1, 1, 4));
        // 2000-02-29T12:34:56Z is 951827696 (date -d).
        let leap = TimeFields { hour: 12, minute: 34, second: 56, ..of(2000, 2, 29, 2) };
        assert_eq!(at(951_827_696), leap);
        // 2026-11-23T00:00:00Z is 1795392000, a Monday.
        assert_eq!(at(1_795_392_000), of(2026, 11, 23, 1));
    }

    #[test]
    fn impossible_fields_are_refused() {
        let of = |year, month, day| TimeFields { year, month, day, ..TimeFields::default() };
        assert!(time(of(2023, 2, 29)).is_none() && time(of(2024, 2, 29)).is_some());
        assert!(time(of(1600, 1, 1)).is_none() && time(of(2024, 13, 1)).is_none());
        assert!(time(TimeFields { hour: 24, ..of(2024, 1, 1) }).is_none());
    }

    proptest! {
        #[test]
        fn there_and_back(milliseconds in 0_u64..900_000_000_000_000) {
            let at = milliseconds * PER_MILLISECOND;
            prop_assert_eq!(time(fields(at)), Some(at));
        }
    }
}
