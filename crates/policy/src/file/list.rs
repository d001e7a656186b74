//! Lists: the formats blocklists come in, read line by line.

use super::names_of_hosts;
use crate::{
    diagnostic::{Diagnostic, Severity},
    model::{
        AddressSet, NameSet,
        address::{self, AddressCollector, AddressError},
        names::{self, Scope},
    },
};
use std::path::Path;

/// How a list file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Told from the first line that says something.
    Auto,
    /// Addresses, prefixes and ranges, one a line, comments behind `#` or `;`.
    Addresses,
    /// Names, one a line; `*.name` is all below, `.name` both.
    Names,
    /// `0.0.0.0 name name ...` as in /etc/hosts.
    Hosts,
    /// `||name^` lines.
    Adblock,
    /// `address=/name/...`, `server=/name/...`, `local=/name/...` lines.
    Dnsmasq,
    /// The first column of comma-separated values.
    Csv,
}

/// The words for the formats.
pub(crate) const FORMATS: [(&str, Format); 7] = [
    ("auto", Format::Auto),
    ("addresses", Format::Addresses),
    ("names", Format::Names),
    ("hosts", Format::Hosts),
    ("adblock", Format::Adblock),
    ("dnsmasq", Format::Dnsmasq),
    ("csv", Format::Csv),
];

/// What a list holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Addresses.
    Addresses(AddressSet),
    /// Names.
    Names(NameSet),
}

/// A list while it is read; several files may add to it.
#[derive(Default)]
pub(crate) struct Collector {
    pub(crate) addresses: AddressCollector,
    pub(crate) names: NameSet,
    pub(crate) address_count: usize,
    pub(crate) lines: usize,
    wrong: usize,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// How many lines of one list are reported in full.
const REPORTED: usize = 5;

impl Collector {
    /// Reads a file's text.
    pub(crate) fn read(&mut self, path: &Path, text: &str, format: Format, subdomains: Option<bool>) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let format = if format == Format::Auto { detect(text) } else { format };
        let (before, shown) = (self.wrong, self.diagnostics.len());
        let mut first = true;
        let mut offset = 0;
        for whole in text.split_inclusive('\n') {
            let line = whole.trim();
            if let Err(problem) = self.line(line, format, subdomains, first) {
                self.wrong += 1;
                if self.diagnostics.len() - shown < REPORTED {
                    let start = offset + (whole.len() - whole.trim_start().len());
                    self.diagnostics.push(problem.diagnostic(path, text, start..start + line.len(), format));
                }
            }
            first &= line.is_empty() || line.starts_with('#');
            offset += whole.len();
        }
        let hidden = self.wrong - before - (self.diagnostics.len() - shown);
        if let Some(last) = self.diagnostics.last_mut().filter(|_| hidden > 0) {
            last.help = Some(format!("{hidden} more lines of this file were left out for such reasons"));
        }
    }

    fn line(&mut self, line: &str, format: Format, subdomains: Option<bool>, first: bool) -> Result<(), Problem> {
        match format {
            Format::Auto => Ok(()),
            Format::Addresses => match first_word(line, &['#', ';']) {
                Some(text) => self.address(text),
                None => Ok(()),
            },
            Format::Names => match first_word(line, &['#']) {
                Some(text) => self.name(text, scope(subdomains, Scope::Both)),
                None => Ok(()),
            },
            Format::Hosts => self.hosts(line, scope(subdomains, Scope::Exact)),
            Format::Adblock => self.adblock(line, scope(subdomains, Scope::Both)),
            Format::Dnsmasq => self.dnsmasq(line, scope(subdomains, Scope::Both)),
            Format::Csv => self.csv(line, subdomains, first),
        }
    }

    fn address(&mut self, text: &str) -> Result<(), Problem> {
        let range = match address::parse_range(text) {
            Ok(range) => range,
            // Lists are generated; a network written with one of its hosts is common and unambiguous there.
            Err(AddressError::HostBits(network, length)) => address::prefix(network, length),
            Err(_) => return Err(Problem::Address),
        };
        self.addresses.add(range);
        self.address_count += 1;
        self.lines += 1;
        Ok(())
    }

    fn name(&mut self, text: &str, plain: Scope) -> Result<(), Problem> {
        let (name, scope) = names::parse(text).ok_or(Problem::Name)?;
        self.names.push(&name, if scope == Scope::Exact { plain } else { scope });
        self.lines += 1;
        Ok(())
    }

    fn hosts(&mut self, line: &str, plain: Scope) -> Result<(), Problem> {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else { return Ok(()) };
        // Windows writes link-local addresses with their zone.
        let bare = address.split('%').next().unwrap_or_default();
        if bare.parse::<std::net::IpAddr>().is_err() {
            return Err(Problem::Hosts);
        }
        for name in words.filter(|name| !names_of_hosts::LOCAL.contains(name)) {
            self.name(name, plain)?;
        }
        Ok(())
    }

    fn adblock(&mut self, line: &str, plain: Scope) -> Result<(), Problem> {
        if line.is_empty() || line.starts_with(['!', '[', '#']) {
            return Ok(());
        }
        let body = line.strip_prefix("||").ok_or(Problem::Adblock)?;
        let (name, rest) = body.split_once('^').ok_or(Problem::Adblock)?;
        // Options narrow a rule to kinds of requests, which a network filter cannot see; only those that keep it whole pass.
        if !matches!(rest, "" | "|" | "$all" | "$important" | "$document" | "$third-party" | "$3p") {
            return Err(Problem::Adblock);
        }
        self.name(name, plain)
    }

    fn dnsmasq(&mut self, line: &str, plain: Scope) -> Result<(), Problem> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let known = ["address=/", "server=/", "local=/"];
        let body = known.iter().find_map(|prefix| line.strip_prefix(prefix)).ok_or(Problem::Dnsmasq)?;
        let (names, _) = body.rsplit_once('/').ok_or(Problem::Dnsmasq)?;
        for name in names.split('/') {
            self.name(name, plain)?;
        }
        Ok(())
    }

    fn csv(&mut self, line: &str, subdomains: Option<bool>, first: bool) -> Result<(), Problem> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let column = csv_first(line);
        // A heading is not an entry.
        if first && !column.contains(['.', ':']) {
            return Ok(());
        }
        let read = match self.address(column) {
            Err(_) => self.name(column, scope(subdomains, Scope::Both)),
            done => done,
        };
        if first && read.is_err() {
            return Ok(());
        }
        read.map_err(|_| Problem::Csv)
    }
}

/// The first column of a line of comma-separated values, quotes taken off.
fn csv_first(line: &str) -> &str {
    let line = line.trim_start();
    match line.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default().trim(),
        None => line.split([',', ';', '\t']).next().unwrap_or_default().trim(),
    }
}

fn scope(subdomains: Option<bool>, usual: Scope) -> Scope {
    match subdomains {
        Some(true) => Scope::Both,
        Some(false) => Scope::Exact,
        None => usual,
    }
}

/// A line's first word before any comment.
fn first_word<'l>(line: &'l str, comment: &[char]) -> Option<&'l str> {
    let line = line.split(comment).next().unwrap_or_default().trim();
    // `10.0.0.1 - 10.0.0.9` is one entry.
    if line.contains(" - ") { Some(line) } else { line.split_whitespace().next() }
}

/// The format of the first line that is not a comment.
fn detect(text: &str) -> Format {
    for line in text.lines().map(str::trim) {
        if line.starts_with("[Adblock") || line.starts_with('!') || line.starts_with("||") {
            return Format::Adblock;
        }
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if ["address=/", "server=/", "local=/"].iter().any(|prefix| line.starts_with(prefix)) {
            return Format::Dnsmasq;
        }
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (word, next) = (words.next().unwrap_or_default(), words.next());
        if word.split('%').next().is_some_and(|word| word.parse::<std::net::IpAddr>().is_ok()) {
            let hosts = next.is_some_and(|next| names::normalize(next).is_some() && next != "-");
            return if hosts { Format::Hosts } else { Format::Addresses };
        }
        if line.contains(',') || line.starts_with('"') {
            return Format::Csv;
        }
        let range = address::parse_range(word.trim_end_matches(';'));
        let is_range = matches!(range, Ok(_) | Err(AddressError::HostBits(..)));
        return if is_range { Format::Addresses } else { Format::Names };
    }
    Format::Names
}

/// Why a line was left out.
#[derive(Clone, Copy, Debug)]
enum Problem {
    Address,
    Name,
    Hosts,
    Adblock,
    Dnsmasq,
    Csv,
}

impl Problem {
    fn diagnostic(self, path: &Path, text: &str, span: std::ops::Range<usize>, format: Format) -> Diagnostic {
        let (message, expected) = match self {
            Self::Address => ("this line is not an address", "an address, a prefix or a range"),
            Self::Name => ("this line is not a host name", "a name of letters, digits, `-` and `_`"),
            Self::Hosts => ("this line does not begin with an address", "`0.0.0.0 name`"),
            Self::Adblock => ("this filter cannot be decided by name", "`||name^`"),
            Self::Dnsmasq => ("this line names no domain", "`address=/name/`"),
            Self::Csv => ("the first column holds neither an address nor a name", "either"),
        };
        let format = FORMATS.iter().find(|(_, one)| *one == format).map_or("", |(word, _)| word);
        let key = format!("format = \"{format}\"");
        Diagnostic::new(Severity::Warning, path, text, span).message(message).expected(expected).key(key)
    }
}
