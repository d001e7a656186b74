//! What decides a flow, as people say it.

use crate::{essential::Essential, flow::Decision};
use std::fmt;

/// What decides a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// The rule of this name.
    Rule(String),
    /// No rule matches, and the flow is [`crate::essential`]; for what reason, where that is known.
    Essential(Option<Essential>),
    /// No rule matches: the direction's default.
    Default,
}

impl Decider {
    /// What a policy writes for it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "default" => Self::Default,
            "essential" => Self::Essential(None),
            name => Self::Rule(name.to_owned()),
        }
    }

    /// What came to this decision; `rule` is the name of its rule.
    #[must_use]
    pub fn of(decision: &Decision, rule: Option<&str>) -> Self {
        match (decision.rule, decision.essential) {
            (Some(number), _) => Self::Rule(rule.map_or_else(|| number.to_string(), str::to_owned)),
            (None, Some(reason)) => Self::Essential(Some(reason)),
            (None, None) => Self::Default,
        }
    }

    /// Whether an expectation of this one is met by `found`.
    #[must_use]
    pub fn is_met_by(&self, found: &Self) -> bool {
        matches!((self, found), (Self::Essential(None), Self::Essential(_))) || self == found
    }
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule `{name}`"),
            Self::Essential(Some(reason)) => write!(f, "essential: {}", reason.name()),
            Self::Essential(None) => f.write_str("essential traffic"),
            Self::Default => f.write_str("the default"),
        }
    }
}
