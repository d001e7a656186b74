//! How a callout answers, within its rights.
//!
//! Source: "Filter Arbitration" and the documentation of FWPS_CLASSIFY_OUT0 and of classifyFn.

/// What a callout wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No opinion: the next filter decides.
    Continue,
    /// Permit. Soft: a filter of lesser weight in another sublayer may still block. Hard: it may not, except by a veto.
    Permit {
        /// Clears the right to override.
        hard: bool,
    },
    /// Block. Soft: a filter of lesser weight in another sublayer may still permit. Hard: it may not.
    Block {
        /// Clears the right to override.
        hard: bool,
    },
}

/// What became of an [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written as requested.
    Written,
    /// A block written over an earlier filter's permit without the right to write: the documented veto.
    Veto,
    /// Not written: an earlier filter decided and kept the right.
    NoRight,
}

/// The action and the right to write it, as FWPS_CLASSIFY_OUT0 holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) action: Action,
    pub(super) may_write: bool,
}

/// FWP_ACTION_TYPE: the values that a callout can find on entry or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Permit,
    Block,
    Continue,
    /// FWP_ACTION_NONE and all others: nobody has decided.
    Undecided,
}

/// Applies `answer` to `state`. Never writes without the right, except the veto; never gives a right back.
pub(super) const fn apply(state: State, answer: Answer) -> (State, Outcome) {
    match answer {
        Answer::Continue if state.may_write => (State { action: Action::Continue, ..state }, Outcome::Written),
        Answer::Continue => (state, Outcome::Written),
        Answer::Permit { hard } if state.may_write => {
            (State { action: Action::Permit, may_write: !hard }, Outcome::Written)
        }
        Answer::Block { hard } if state.may_write => {
            (State { action: Action::Block, may_write: !hard }, Outcome::Written)
        }
        Answer::Block { .. } if matches!(state.action, Action::Permit) => {
            (State { action: Action::Block, ..state }, Outcome::Veto)
        }
        Answer::Permit { .. } | Answer::Block { .. } => (state, Outcome::NoRight),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 4] = [Action::Permit, Action::Block, Action::Continue, Action::Undecided];

    #[test]
    fn with_the_right_every_answer_is_written_and_hard_takes_the_right_away() {
        for action in ACTIONS {
            let state = State { action, may_write: true };
            for (answer, action, may_write) in [
                (Answer::Permit { hard: false }, Action::Permit, true),
                (Answer::Permit { hard: true }, Action::Permit, false),
                (Answer::Block { hard: false }, Action::Block, true),
                (Answer::Block { hard: true }, Action::Block, false),
                (Answer::Continue, Action::Continue, true),
            ] {
                assert_eq!(apply(state, answer), (State { action, may_write }, Outcome::Written));
            }
        }
    }

    #[test]
    fn without_the_right_only_a_block_over_a_permit_is_written() {
        for action in ACTIONS {
            for hard in [false, true] {
                let state = State { action, may_write: false };
                assert_eq!(apply(state, Answer::Permit { hard }), (state, Outcome::NoRight));
                assert_eq!(apply(state, Answer::Continue), (state, Outcome::Written));
                let blocked = apply(state, Answer::Block { hard });
                if action == Action::Permit {
                    assert_eq!(blocked, (State { action: Action::Block, may_write: false }, Outcome::Veto));
                } else {
                    assert_eq!(blocked, (state, Outcome::NoRight));
                }
            }
        }
    }
}
