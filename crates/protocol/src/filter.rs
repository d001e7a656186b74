//! Which events a reader wants.

use crate::event::{Event, verdict};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most characters of an application's path that a filter looks for.
pub const LONGEST: usize = 112;

/// The input of [`crate::ioctl::FILTER_EVENTS`]: 128 bytes, little-endian. A reader gets the events that meet every
/// condition, and all that are no decisions. Zeros are no condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Filter {
    /// The verdicts that are wanted: the bit of each value of [`crate::event::verdict`]; 0 is all.
    pub verdicts: u8,
    /// The directions, likewise ([`crate::event::direction`]).
    pub directions: u8,
    /// [`by_rule`].
    pub by_rule: u8,
    /// How many of [`Filter::application`]'s bytes are used.
    pub application_bytes: u8,
    /// The generation whose rule it is, with [`by_rule::OF_GENERATION`].
    pub epoch: u32,
    /// What decided: a value of [`Event::rule`].
    pub rule: u32,
    /// Zero.
    pub reserved: u32,
    /// What the application's path contains, each UTF-16 unit as [`fold`] makes it.
    pub application: [u8; LONGEST],
}

const _: () = assert!(size_of::<Filter>() == 128);

/// Values of [`Filter::by_rule`].
pub mod by_rule {
    /// Whatever decided.
    pub const ANY: u8 = 0;
    /// [`super::Filter::rule`] of the policy of generation [`super::Filter::epoch`]; and every decision of other
    /// generations, in which that number is another rule or none.
    pub const OF_GENERATION: u8 = 1;
}

/// A UTF-16 unit as filters compare it: letters' case does not count, and beyond ASCII all are alike. So two texts that are
/// the same but for case are alike, and few others.
#[must_use]
pub const fn fold(unit: u16) -> u8 {
    match unit {
        // KELVIN SIGN: its lower case is k.
        0x212A => b'k',
        0..0x80 => (unit as u8).to_ascii_lowercase(),
        _ => 0x80,
    }
}

/// Whose lower case has more units than it: LATIN CAPITAL LETTER I WITH DOT ABOVE, alone.
const GROWS: u16 = 0x130;

impl Filter {
    /// Every event.
    pub const ALL: Self = Self {
        verdicts: 0,
        directions: 0,
        by_rule: by_rule::ANY,
        application_bytes: 0,
        epoch: 0,
        rule: 0,
        reserved: 0,
        application: [0; LONGEST],
    };

    /// Demands that the application's path contains a text, whose case does not count: `text` is its lower case in UTF-16.
    /// Of one that is longer than [`LONGEST`] its beginning counts.
    #[must_use]
    pub fn with_application(mut self, text: impl Iterator<Item = u16>) -> Self {
        self.application_bytes = 0;
        for (place, unit) in self.application.iter_mut().zip(text) {
            *place = fold(unit);
            self.application_bytes = self.application_bytes.saturating_add(1);
        }
        self
    }

    /// Whether it is one: everything in range.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.by_rule <= by_rule::OF_GENERATION && usize::from(self.application_bytes) <= LONGEST && self.reserved == 0
    }

    /// Whether the reader wants an event. An event that it does not want is never given to it; of those that are, a few may
    /// be more than asked for: of another generation, or of a path that is alike only in what [`fold`] leaves.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let among =
            |wanted: u8, value: u8| wanted == 0 || 1_u8.checked_shl(value.into()).is_none_or(|bit| wanted & bit != 0);
        if !matches!(event.verdict, verdict::PERMIT | verdict::BLOCK) {
            return true;
        }
        (self.by_rule == by_rule::ANY || event.epoch != self.epoch || event.rule == self.rule)
            && among(self.verdicts, event.verdict)
            && among(self.directions, event.direction)
            && self.wants_application(event.application())
    }

    fn wants_application(&self, path: &[u8]) -> bool {
        let text = self.application.get(..usize::from(self.application_bytes)).unwrap_or_default();
        if text.is_empty() {
            return true;
        }
        let (units, _) = path.as_chunks::<2>();
        let unit = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes);
        units.iter().any(|bytes| unit(bytes) == GROWS)
            || units.windows(text.len()).any(|part| part.iter().zip(text).all(|(a, b)| fold(unit(a)) == *b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::direction;
    use proptest::prelude::*;

    fn event(path: &str) -> Event {
        let mut event =
            Event { epoch: 3, rule: 5, verdict: verdict::BLOCK, direction: direction::INBOUND, ..Event::zeroed() };
        event.set_application(&path.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
        event
    }

    fn looking_for(text: &str) -> Filter {
        Filter::ALL.with_application(text.to_lowercase().encode_utf16())
    }

    #[test]
    fn each_condition_holds_by_itself() {
        let of = |by_rule, epoch, rule| Filter { by_rule, epoch, rule, ..Filter::ALL };
        for (filter, wanted) in [
            (Filter::ALL, true),
            (Filter { verdicts: 1 << verdict::BLOCK, ..Filter::ALL }, true),
            (Filter { verdicts: 1 << verdict::PERMIT, ..Filter::ALL }, false),
            (Filter { directions: 1 << direction::INBOUND | 1 << direction::FORWARD, ..Filter::ALL }, true),
            (Filter { directions: 1 << direction::OUTBOUND, ..Filter::ALL }, false),
            (of(by_rule::OF_GENERATION, 3, 5), true),
            (of(by_rule::OF_GENERATION, 3, 4), false),
            (of(by_rule::OF_GENERATION, 2, 4), true),
            (looking_for("CURL"), true),
            (looking_for("wget"), false),
        ] {
            assert!(filter.is_valid());
            assert_eq!(filter.wants(&event(r"\device\Curl.exe")), wanted, "{filter:?}");
        }
        assert!(!looking_for("curl").wants(&event("")), "no path contains nothing");
    }

    #[test]
    fn what_is_no_decision_is_wanted_always() {
        let nothing = Filter { verdicts: 1 << verdict::PERMIT, ..looking_for("x") };
        for verdict in [verdict::NONE, verdict::NOT_RESTORED] {
            assert!(nothing.wants(&Event { verdict, ..Event::zeroed() }));
        }
    }

    #[test]
    fn what_is_out_of_range_is_no_filter() {
        assert!(!Filter { by_rule: 2, ..Filter::ALL }.is_valid());
        assert!(!Filter { application_bytes: 113, ..Filter::ALL }.is_valid());
        assert!(!Filter { reserved: 1, ..Filter::ALL }.is_valid());
    }

    proptest! {
        /// Whoever looks for a text in the whole Unicode way, as `sluice events` does, loses nothing by a filter.
        #[test]
        fn no_path_is_missed_that_contains_the_text(
            before in r"[a-zA-Z0-9\\\u{c4}\u{e4}\u{130}\u{212a}\u{3a3}\u{1f600}]{0,12}",
            text in r"[a-zA-Z\u{c4}\u{e4}\u{130}\u{212a}\u{3a3}\u{10400}]{1,8}",
            after in r"[a-zA-Z0-9.]{0,12}",
            upper: bool,
        ) {
            let shown = if upper { text.to_uppercase() } else { text.clone() };
            let path = format!("{before}{shown}{after}");
            prop_assume!(path.to_lowercase().contains(&text.to_lowercase()));
            prop_assert!(looking_for(&text).wants(&event(&path)));
        }
    }
}
