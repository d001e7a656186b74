//! One element with what is in it.

use super::ReadError;
use std::str::FromStr;

/// An element. Its attributes are not kept, apart from `Name`, which the event log uses.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: Box<str>,
    /// The line on which it begins.
    pub(super) line: u64,
    pub(super) text: String,
    /// The attributes that are kept.
    pub(super) attributes: Vec<(Box<str>, String)>,
    pub(super) children: Vec<Node>,
}

impl Node {
    /// A child by its name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| &*child.name == name)
    }

    /// The text of a child; `None` when it is absent or empty.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim()).filter(|text| !text.is_empty())
    }

    /// The text of a child that may be empty.
    pub(super) fn owned(&self, name: &str) -> String {
        // The spaces at the ends of a name are its own.
        self.child(name).map(|child| child.text.clone()).unwrap_or_default()
    }

    /// A child that must be there.
    pub(super) fn require(&self, name: &str) -> Result<&Self, ReadError> {
        self.child(name)
            .ok_or_else(|| ReadError::at(self.line, format!("<{}> has no <{name}>, which was expected", self.name)))
    }

    /// The text of a child that must be there with one.
    pub(super) fn require_text(&self, name: &str) -> Result<&str, ReadError> {
        let child = self.require(name)?;
        match child.text.trim() {
            "" => Err(ReadError::at(child.line, format!("<{name}> is empty: text was expected"))),
            text => Ok(text),
        }
    }

    /// This element's text as a number.
    pub(super) fn number<T: FromStr>(&self) -> Result<T, ReadError> {
        let text = self.text.trim();
        text.parse().map_err(|_| {
            let most = 8 * size_of::<T>();
            let shown: String = text.chars().take(40).collect();
            let what = format!("<{}> is {shown:?}: a decimal number of at most {most} bits was expected", self.name);
            ReadError::at(self.line, what)
        })
    }

    /// A child as a number; `None` when it is absent or empty.
    pub(super) fn number_of<T: FromStr>(&self, name: &str) -> Result<Option<T>, ReadError> {
        match self.child(name) {
            Some(child) if !child.text.trim().is_empty() => child.number().map(Some),
            _ => Ok(None),
        }
    }

    /// A child that must be a number.
    pub(super) fn require_number<T: FromStr>(&self, name: &str) -> Result<T, ReadError> {
        self.require(name)?.number()
    }

    /// The texts of a child's items.
    pub(super) fn items_of(&self, name: &str) -> Vec<String> {
        let items = self.child(name).map(|child| child.children.as_slice()).unwrap_or_default();
        items.iter().map(|item| item.text.trim().to_owned()).collect()
    }
}
