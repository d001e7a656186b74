//! Set-up information files: `inf/sluice.inx` is filled in to become the package's `sluice.inf`, and [`rules`] checks
//! the result by the documented rules of Microsoft's InfVerif.

pub mod rules;

use std::fmt;

/// The architectures of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86_64
    X64,
    /// aarch64
    Arm64,
}

impl Architecture {
    /// The decoration of section names in INF files: `NTamd64`.
    #[must_use]
    pub fn decoration(self) -> &'static str {
        match self {
            Self::X64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The date of a package, by which Windows ranks drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// In the Gregorian calendar.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// Why an INF cannot be made or read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InfError {
    /// The source lacks a placeholder.
    #[error("the source has no placeholder {0:?}")]
    NothingToFill(&'static str),
    /// A line that is not valid in an INF.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Fills in what stampinf fills in on Windows: architecture, date and version (`1.2.3` becomes `1.2.3.0`). Lines end
/// with CR LF.
///
/// # Errors
/// When the source has no placeholder for one of them.
pub fn stamp(source: &str, architecture: Architecture, day: Day, version: &str) -> Result<String, InfError> {
    const ARCHITECTURE: &str = "$ARCH$";
    const DRIVER_VERSION: &str = "DriverVer";
    if !source.contains(ARCHITECTURE) {
        return Err(InfError::NothingToFill(ARCHITECTURE));
    }
    let mut stamped = String::new();
    let mut versions = 0;
    for line in source.lines() {
        match line.split_once('=') {
            Some((name, "")) if name.trim_end() == DRIVER_VERSION => {
                let Day { year, month, day } = day;
                stamped.push_str(&format!("{name}= {month:02}/{day:02}/{year},{version}.0"));
                versions += 1;
            }
            _ => stamped.push_str(&line.replace(ARCHITECTURE, architecture.decoration())),
        }
        stamped.push_str("\r\n");
    }
    if versions == 1 { Ok(stamped) } else { Err(InfError::NothingToFill(DRIVER_VERSION)) }
}

/// A parsed file. Names are compared ignoring case.
#[derive(Debug)]
pub struct Inf {
    sections: Vec<Section>,
}

/// A section: the lines under one name.
#[derive(Debug)]
pub struct Section {
    /// The name, without brackets.
    pub name: String,
    /// In file order.
    pub lines: Vec<Line>,
}

/// `key = value, value` or `value, value`.
#[derive(Debug)]
pub struct Line {
    /// The part before `=`.
    pub key: Option<String>,
    /// The values between the commas, without quotes. Tokens such as `%Name%` are not expanded.
    pub values: Vec<String>,
}

impl Inf {
    /// Parses a file's text. Lines continued with `\` are refused: nothing here needs them.
    ///
    /// # Errors
    /// The first line that is not a section, an entry or a comment.
    pub fn read(text: &str) -> Result<Self, InfError> {
        let mut sections: Vec<Section> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let wrong = |why| InfError::Line { line: number + 1, why };
            let line = without_comment(line).ok_or(wrong("a quotation mark is not closed"))?.trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or(wrong("a section's name is not closed"))?.trim();
                if sections.iter().any(|section| section.name.eq_ignore_ascii_case(name)) {
                    return Err(wrong("the section already exists"));
                }
                sections.push(Section { name: name.to_owned(), lines: Vec::new() });
                continue;
            }
            if line.ends_with('\\') {
                return Err(wrong("continued lines are not supported"));
            }
            let section = sections.last_mut().ok_or(wrong("it is before the first section"))?;
            let (key, values) = match line.split_once('=') {
                Some((key, values)) => (Some(key.trim().to_owned()), values),
                None => (None, line),
            };
            section.lines.push(Line { key, values: values_of(values) });
        }
        Ok(Self { sections })
    }

    /// Every section.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section of that name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name.eq_ignore_ascii_case(name))
    }

    /// A value with its `%tokens%` replaced from `[Strings]`; numbers are ids of folders and stay.
    ///
    /// # Errors
    /// The first token that is not in `[Strings]`.
    pub fn expand(&self, value: &str) -> Result<String, String> {
        let mut out = String::new();
        // Alternately outside and inside percent signs.
        for (index, part) in value.split('%').enumerate() {
            match index % 2 {
                0 => out.push_str(part),
                _ if part.is_empty() => out.push('%'),
                _ if part.bytes().all(|byte| byte.is_ascii_digit()) => out.push_str(&format!("%{part}%")),
                _ => {
                    let strings = self.section("Strings").ok_or(part)?;
                    out.push_str(strings.first(part).ok_or(part)?);
                }
            }
        }
        Ok(out)
    }
}

impl Section {
    /// Every line with that key.
    pub fn all<'a, 'b>(&'a self, key: &'b str) -> impl Iterator<Item = &'a Line> + use<'a, 'b> {
        self.lines.iter().filter(move |line| line.key.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(key)))
    }

    /// The first value of the first line with that key.
    #[must_use]
    pub fn first(&self, key: &str) -> Option<&str> {
        self.all(key).next().map(|line| line.values[0].as_str())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// The line up to a semicolon outside quotation marks, or `None` if these are not closed.
fn without_comment(line: &str) -> Option<&str> {
    let mut quoted = false;
    for (at, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ';' if !quoted => return Some(&line[..at]),
            _ => {}
        }
    }
    (!quoted).then_some(line)
}

/// At least one value, possibly empty.
fn values_of(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match (character, values.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => values.push(String::new()),
            (other, Some(value)) => value.push(other),
            (_, None) => {}
        }
    }
    values.iter().map(|value| value.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_values_quotes_and_comments_are_read() {
        let inf = Inf::read("; c\r\n[A]\r\nk = \"a;b, c\" , d ; rest\r\nplain,,x\r\n[ b ]\r\n").unwrap();
        let a = inf.section("a").unwrap();
        assert_eq!(a.lines[0].values, ["a;b, c", "d"]);
        assert_eq!(
            (a.lines[1].key.as_deref(), &a.lines[1].values[..]),
            (None, &["plain", "", "x"].map(String::from)[..])
        );
        assert!(inf.section("B").unwrap().lines.is_empty());
    }

    #[test]
    fn what_is_no_inf_is_refused_with_its_line() {
        for (text, line) in [("k = v", 1), ("[a]\n[b", 2), ("[a]\nk = \"v", 2), ("[a]\n[A]", 2), ("[a]\nk = v, \\", 2)]
        {
            assert!(matches!(Inf::read(text), Err(InfError::Line { line: found, .. }) if found == line), "{text:?}");
        }
    }

    #[test]
    fn tokens_are_expanded_but_not_folders() {
        let inf = Inf::read("[Strings]\nName = \"x y\"").unwrap();
        assert_eq!(inf.expand(r"%13%\%name%.%%").unwrap(), r"%13%\x y.%");
        assert_eq!(inf.expand("%Other%").unwrap_err(), "Other");
    }

    #[test]
    fn a_source_is_stamped_once() {
        let day = Day { year: 2026, month: 3, day: 9 };
        let stamped = stamp("[x.NT$ARCH$]\nDriverVer   =\n", Architecture::Arm64, day, "1.2.3").unwrap();
        assert_eq!(stamped, "[x.NTarm64]\r\nDriverVer   = 03/09/2026,1.2.3.0\r\n");
        let again = stamp(&stamped, Architecture::Arm64, day, "1.2.3");
        assert_eq!(again.unwrap_err(), InfError::NothingToFill("$ARCH$"));
    }
}
