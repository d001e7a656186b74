//! Which decisions a reader wants, in words and as the driver takes it.

use super::EventLine;
use sluice_protocol::event::{RULE_DEFAULT, RULE_ESSENTIAL, direction, verdict};
use sluice_protocol::filter::{Filter, by_rule};

/// Which decisions a reader wants: those that meet every condition given. What is no decision is passed on always.
///
/// The driver is asked for them ([`sluice_protocol::ioctl::FILTER_EVENTS`]), so that a reader does not wake for others.
/// It may give a few more, which are left out here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// `permit` or `block`.
    pub verdict: Option<String>,
    /// The deciding rule's name, or `default`, or `essential`.
    pub rule: Option<String>,
    /// A part of the application's path; letters' case does not count.
    pub application: Option<String>,
    /// `out`, `in` or `forward`.
    pub direction: Option<String>,
}

/// No rule has this number.
const NO_RULE: u32 = RULE_ESSENTIAL - 1;

impl EventFilter {
    /// Whether an event meets every condition.
    pub(super) fn passes(&self, line: &EventLine) -> bool {
        let decider = match (&line.rule_name, line.rule, line.essential) {
            (Some(name), ..) => name,
            (None, Some(_), _) => "",
            (None, None, Some(_)) => "essential",
            (None, None, None) => "default",
        };
        let holds = |wanted: &Option<String>, holds: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(holds);
        holds(&self.verdict, &|verdict| verdict == line.verdict)
            && holds(&self.direction, &|direction| direction == line.direction)
            && holds(&self.rule, &|rule| rule == decider)
            && holds(&self.application, &|part| {
                let path = line.application.as_deref().unwrap_or_default();
                path.to_lowercase().contains(&part.to_lowercase())
            })
    }

    /// What the driver is asked for while the policy of generation `epoch` decides, whose rules have these names: at least
    /// what [`EventFilter::passes`].
    pub(super) fn for_driver(&self, epoch: u32, names: Option<&[String]>) -> Filter {
        let application = self.application.as_deref().unwrap_or_default().to_lowercase();
        let mut filter = Filter::ALL.with_application(application.encode_utf16());
        filter.verdicts = match self.verdict.as_deref() {
            Some("permit") => 1 << verdict::PERMIT,
            Some("block") => 1 << verdict::BLOCK,
            _ => 0,
        };
        filter.directions = match self.direction.as_deref() {
            Some("out") => 1 << direction::OUTBOUND,
            Some("in") => 1 << direction::INBOUND,
            Some("forward") => 1 << direction::FORWARD,
            Some("listen") => 1 << direction::LISTEN,
            Some("bind") => 1 << direction::BIND,
            _ => 0,
        };
        let Some(rule) = &self.rule else { return filter };
        let special = match rule.as_str() {
            "default" => Some(RULE_DEFAULT),
            "essential" => Some(RULE_ESSENTIAL),
            "" => return filter,
            _ => None,
        };
        // Of names that are not known, or that stand for several, any rule may be meant.
        let Some(names) = names else { return filter };
        let mut named = (0..).zip(names).filter(|(_, name)| *name == rule).map(|(number, _)| number).chain(special);
        let (first, second) = (named.next(), named.next());
        if second.is_none() {
            (filter.by_rule, filter.epoch, filter.rule) = (by_rule::OF_GENERATION, epoch, first.unwrap_or(NO_RULE));
        }
        filter
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::sample;
    use super::*;
    use sluice_protocol::Event;

    #[test]
    fn the_driver_is_asked_for_what_passes() {
        let names = ["a", "twice", "default", "twice"].map(str::to_owned);
        let some = |text: &str| Some(text.to_owned());
        let of_rule = |rule: &str| EventFilter { rule: some(rule), ..EventFilter::default() };
        let filters = [
            EventFilter::default(),
            EventFilter { verdict: some("permit"), ..EventFilter::default() },
            EventFilter { direction: some("in"), ..EventFilter::default() },
            EventFilter { direction: some("bind"), ..EventFilter::default() },
            EventFilter { application: some("CURL.exe"), ..EventFilter::default() },
            of_rule("a"),
            of_rule("twice"),
            of_rule("default"),
            of_rule("essential"),
            of_rule("absent"),
            of_rule(""),
        ];
        let mut refused = 0;
        for filter in &filters {
            for (rule, epoch) in
                [0, 1, 2, 3, RULE_DEFAULT, RULE_ESSENTIAL].into_iter().flat_map(|rule| [(rule, 2), (rule, 3)])
            {
                for (verdict, direction) in [(verdict::PERMIT, direction::INBOUND), (verdict::BLOCK, direction::BIND)] {
                    let event = Event { rule, epoch, verdict, direction, ..sample() };
                    let mut line = EventLine::from(&event);
                    line.rule_name = line.rule.filter(|_| epoch == 2).map(|rule| names[rule as usize].clone());
                    let wanted = filter.for_driver(2, Some(&names));
                    assert!(wanted.is_valid());
                    assert!(wanted.wants(&event) || !filter.passes(&line), "{filter:?} {event:?}");
                    assert!(filter.for_driver(2, None).wants(&event) || !filter.passes(&line), "{filter:?}");
                    refused += usize::from(!wanted.wants(&event));
                }
            }
        }
        // Half of them by verdict and by direction; all but one of this generation by a rule, and all by one that is absent.
        assert_eq!(refused, 12 + 12 + 12 + 10 + 10 + 12);
    }

    #[test]
    fn a_rule_is_meant_in_the_policy_that_has_its_name() {
        let filter = EventFilter { rule: Some("b".to_owned()), ..EventFilter::default() };
        let names = ["a", "b"].map(str::to_owned);
        let of = |rule, epoch| Event { rule, epoch, ..sample() };
        let wanted = filter.for_driver(2, Some(&names));
        assert!(wanted.wants(&of(1, 2)) && !wanted.wants(&of(0, 2)));
        assert!(wanted.wants(&of(0, 3)), "whose rule that is the driver does not know");
    }
}
