//! One rule of an export: every field is taken by name, and fields that were not taken are reported.
//!
//! A reader accesses the fields of a [`Record`] only through the [`Draft`] that [`File::rules`] lends it. When it is
//! done, the remaining fields and everything it reported as lost become a note with their place, and the rules made
//! from the record are written disabled.

use super::emit::{File, Rule};
use std::fmt::Display;

/// One rule, program or other item of an export, as names and values.
#[derive(Debug)]
pub(super) struct Record<V> {
    place: String,
    fields: Vec<(String, V)>,
}

impl<V> Record<V> {
    /// An item at `place`, which is how notes refer to it.
    pub(super) fn new(place: String) -> Self {
        Self { place, fields: Vec::new() }
    }

    /// Adds a field; names may repeat.
    pub(super) fn push(&mut self, name: impl Into<String>, value: V) {
        self.fields.push((name.into(), value));
    }

    /// Whether there is no field.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The last value of a field, to add to it.
    pub(super) fn last_mut(&mut self, name: &str) -> Option<&mut V> {
        self.fields.iter_mut().rev().find(|(one, _)| one == name).map(|(_, value)| value)
    }

    /// Whether a field of this name exists, read or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(one, _)| one.eq_ignore_ascii_case(name))
    }
}

/// A record being read.
#[derive(Debug)]
pub(super) struct Draft<V> {
    record: Record<V>,
    lost: Vec<String>,
    wider: Vec<String>,
    remarks: Vec<String>,
}

impl<V: Display> Draft<V> {
    /// Takes a field. The case of ASCII names is ignored.
    pub(super) fn take(&mut self, name: &str) -> Option<V> {
        let place = self.record.fields.iter().position(|(one, _)| one.eq_ignore_ascii_case(name))?;
        Some(self.record.fields.remove(place).1)
    }

    /// Takes fields that do not affect what a rule matches.
    pub(super) fn pass_over(&mut self, names: &[&str]) {
        for name in names {
            while self.take(name).is_some() {}
        }
    }

    /// Whether the field has not been taken.
    pub(super) fn has(&self, name: &str) -> bool {
        self.record.has(name)
    }

    /// Whether a field has a value, even "any".
    pub(super) fn tells(&self, name: &str) -> bool {
        let blank = |value: &V| matches!(value.to_string().trim(), "" | "null");
        self.record.fields.iter().any(|(one, value)| one.eq_ignore_ascii_case(name) && !blank(value))
    }

    /// Whether there are fields that nobody has taken yet.
    pub(super) fn leaves_something(&self) -> bool {
        !self.record.fields.is_empty()
    }

    /// Something could not be carried over and may have narrowed the rule, or is an unknown value: the rule is
    /// disabled.
    pub(super) fn lost(&mut self, what: impl Into<String>) {
        self.lost.push(what.into());
    }

    /// A value that is not understood: the rule is disabled.
    pub(super) fn unknown(&mut self, field: &str, value: impl Display) {
        self.lost(format!("{field} `{value}`"));
    }

    /// The export does not show a condition that may have narrowed the rule: disabled if it permits.
    pub(super) fn wider(&mut self, what: impl Into<String>) {
        self.wider.push(what.into());
    }

    /// A remark that changes nothing.
    pub(super) fn remark(&mut self, what: impl Into<String>) {
        self.remarks.push(what.into());
    }
}

impl File {
    /// Makes rules from a record with `read`. What `read` leaves or loses is noted, and disables them all.
    pub(super) fn rules<V: Display>(&mut self, record: Record<V>, read: impl FnOnce(&mut Draft<V>) -> Vec<Rule>) {
        let mut draft = Draft { record, lost: Vec::new(), wider: Vec::new(), remarks: Vec::new() };
        let mut rules = read(&mut draft);
        let place = std::mem::take(&mut draft.record.place);
        for (name, value) in std::mem::take(&mut draft.record.fields) {
            // A value that is empty or means "any" narrows nothing.
            let text = value.to_string();
            if !matches!(text.trim(), "" | "null") && !text.trim().eq_ignore_ascii_case("any") {
                draft.lost.push(format!("the unknown field `{name}` with `{text}`"));
            }
        }
        let title = match rules.first() {
            Some(rule) if !rule.name.is_empty() => format!("{place}: rule `{}`", rule.name),
            Some(_) => format!("{place}: the rule"),
            None => place,
        };
        for remark in draft.remarks {
            self.note(format!("{title}: {remark}"));
        }
        if !draft.lost.is_empty() {
            let what = draft.lost.join(", ");
            match rules.is_empty() {
                true => self.note(format!("{title}: {what}; it was skipped")),
                false => self.note(format!("{title}: {what} cannot be carried over; the rule is disabled")),
            }
            rules.iter_mut().for_each(|rule| rule.enabled = false);
        }
        if !draft.wider.is_empty() && !rules.is_empty() && !self.complete {
            self.wider(draft.wider.join(", "), title, rules.iter().any(|rule| !rule.block));
            rules.iter_mut().filter(|rule| !rule.block).for_each(|rule| rule.enabled = false);
        }
        for rule in rules {
            self.push(rule);
        }
    }
}
