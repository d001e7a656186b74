//! Lists: the formats blocklists come in, read line by line.
//!
//! Every line is an entry, an exception, a comment, or counted under the reason why it is none of these.
//! [`Collector::read`] ensures that no line is skipped.

mod guess;
mod lines;
mod reason;

use crate::{
    diagnostic::Diagnostic,
    model::{
        AddressSet, NameSet,
        address::{self, AddressCollector, AddressError},
        names::{self, Scope},
    },
};
use reason::Reason;
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

/// The format of a list file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Detected from the first entries.
    Auto,
    /// Addresses, prefixes and ranges, one per line.
    Addresses,
    /// Names, one per line; `*.name` is all below, `.name` both.
    Names,
    /// `0.0.0.0 name name ...` as in /etc/hosts.
    Hosts,
    /// `||name^` lines, `@@||name^` for exceptions.
    Adblock,
    /// `address=/name/...`, `server=/name/`, `local=/name/` lines; `server=/name/SERVER` for exceptions.
    Dnsmasq,
    /// `name CNAME .` lines of a response policy zone; `name CNAME rpz-passthru.` for exceptions.
    Rpz,
    /// The first column of comma-separated values.
    Csv,
}

/// The words for the formats.
pub(crate) const FORMATS: [(&str, Format); 8] = [
    ("auto", Format::Auto),
    ("addresses", Format::Addresses),
    ("names", Format::Names),
    ("hosts", Format::Hosts),
    ("adblock", Format::Adblock),
    ("dnsmasq", Format::Dnsmasq),
    ("rpz", Format::Rpz),
    ("csv", Format::Csv),
];

/// The content of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Addresses.
    Addresses(AddressSet),
    /// Names.
    Names(NameSet),
}

/// A list being read; several files may add to it.
#[derive(Default)]
pub(crate) struct Collector {
    pub(crate) addresses: AddressCollector,
    names: NameSet,
    pub(crate) address_count: usize,
    /// Entries and exceptions.
    pub(crate) entries: usize,
    /// Filters that `$badfilter` cancels.
    withdrawn: HashSet<String>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// What a part of a line turned out to be.
type Read = Result<(), Reason>;

impl Collector {
    /// Reads a file's text.
    pub(crate) fn read(&mut self, path: &Path, text: &str, format: Format, subdomains: Option<bool>) {
        let format = if format == Format::Auto { guess::format(text) } else { format };
        let mut problems: BTreeMap<Reason, (usize, std::ops::Range<usize>)> = BTreeMap::new();
        let (mut first, mut offset) = (true, 0);
        let before = self.entries;
        for whole in text.split_inclusive('\n') {
            let line = whole.trim();
            let start = offset + (whole.len() - whole.trim_start().len());
            offset += whole.len();
            if lines::is_comment(line, format) {
                continue;
            }
            let mut found = Vec::new();
            self.line(line, format, subdomains, first, &mut |reason| found.push(reason));
            first = false;
            for reason in found {
                problems.entry(reason).or_insert((0, start..start + line.len())).0 += 1;
            }
        }
        // A line of a file that is not a list may be from a file not meant to be shown.
        let listed = self.entries > before;
        self.diagnostics.extend(
            problems
                .into_iter()
                .map(|(reason, (count, span))| reason.diagnostic(path, text, span, format, count, listed)),
        );
    }

    /// One line that is not a comment; `say` is called with every reason why a part of it is not an entry, or is read
    /// differently than written.
    fn line(&mut self, line: &str, format: Format, subdomains: Option<bool>, first: bool, say: &mut dyn FnMut(Reason)) {
        let plain = match subdomains {
            Some(true) => Scope::Both,
            Some(false) => Scope::Exact,
            None if format == Format::Hosts => Scope::Exact,
            None => Scope::Both,
        };
        let line = lines::without_trailing_comment(line, format);
        let read = match format {
            Format::Auto => Ok(()),
            Format::Addresses => lines::addresses(self, line, say),
            Format::Names => lines::names(self, line, plain, say),
            Format::Hosts => lines::hosts(self, line, plain, say),
            Format::Adblock => lines::adblock(self, line, plain, say),
            Format::Dnsmasq => lines::dnsmasq(self, line, plain, say),
            Format::Rpz => lines::rpz(self, line, say),
            Format::Csv => lines::csv(self, line, plain, first, say),
        };
        if let Err(reason) = read {
            say(reason);
        }
    }

    /// An address, prefix or range.
    fn address(&mut self, text: &str, say: &mut dyn FnMut(Reason)) -> Read {
        let range = match address::parse(text) {
            Ok(parsed) => {
                if parsed.mapped {
                    say(Reason::Mapped);
                }
                if parsed.port_like {
                    say(Reason::PortLike);
                }
                parsed.range
            }
            // Lists are generated; a network written with host bits set is common and unambiguous there.
            Err(AddressError::HostBits(network, length)) => address::prefix(network, length),
            Err(AddressError::Port) => return Err(Reason::Port),
            Err(AddressError::Zone) => return Err(Reason::Zone),
            Err(_) if names::parse(text).is_some_and(|(name, _)| name.contains('.')) => return Err(Reason::NameHere),
            Err(_) => return Err(Reason::Address),
        };
        self.addresses.add(range);
        self.address_count += 1;
        self.entries += 1;
        Ok(())
    }

    /// A name, blocked or excepted.
    fn name(&mut self, text: &str, plain: Scope, except: bool, say: &mut dyn FnMut(Reason)) -> Read {
        if looks_like_address(text) {
            return Err(Reason::AddressHere);
        }
        let (name, own) = names::parse(text).ok_or(Reason::Name)?;
        if looks_like_address(&name) {
            return Err(Reason::AddressHere);
        }
        let scope = if own == Scope::Exact { plain } else { own };
        if scope != Scope::Exact && !except && sluice_suffixes::is_public_suffix(&name) {
            say(Reason::PublicSuffix);
        }
        match except {
            true => self.names.except(&name, scope),
            false => self.names.push(&name, scope),
        }
        self.entries += 1;
        Ok(())
    }

    /// Cancels a filter, whichever file it is in.
    fn withdraw(&mut self, name: &str) -> Read {
        let (name, _) = names::parse(name).ok_or(Reason::Name)?;
        self.withdrawn.insert(name);
        Ok(())
    }

    /// Whether it holds names.
    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// The names, after exceptions.
    pub(crate) fn take_names(&mut self) -> NameSet {
        let mut names = std::mem::take(&mut self.names);
        names.withdraw(&self.withdrawn);
        names.settle();
        names
    }
}

/// Whether text is an address in any form, or looks like an attempt at one.
fn looks_like_address(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    !matches!(address::parse(text), Err(AddressError::Syntax)) || (text.contains('.') && text.split('.').all(number))
}
