//! Why a line of a list is not an entry, or is matched differently than written.

use super::{FORMATS, Format};
use crate::diagnostic::{Diagnostic, Severity};
use std::path::Path;

/// A reason; one warning each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Not an address.
    Address,
    /// Not a name.
    Name,
    /// An address in a list of names.
    AddressHere,
    /// A name in a list of addresses.
    NameHere,
    /// An address with a port.
    Port,
    /// An address with a zone.
    Zone,
    /// IPv4 in IPv6 form.
    Mapped,
    /// An IPv6 address whose end looks like a port.
    PortLike,
    /// More words than an entry has.
    Words,
    /// An address with something after it.
    More,
    /// A line of a hosts file in a list of names.
    HostsHere,
    /// No address at the beginning of a hosts line.
    NoAddress,
    /// A hosts line that gives a name its own address.
    Mapping,
    /// A word in a hosts file that is not a name.
    NotHost,
    /// A filter that needs the page or the request.
    Page,
    /// A filter with conditions, which are ignored.
    ThirdParty,
    /// A filter with conditions, left out.
    Conditions,
    /// An exception with conditions.
    NarrowException,
    /// A line without a domain.
    Dnsmasq,
    /// A domain that is given its own address.
    Answer,
    /// A pattern for every name, or for names without dots.
    Everything,
    /// A record of a zone that does not trigger on a name, or does not block.
    Rpz,
    /// Neither an address nor a name in the first column.
    Csv,
    /// A whole public suffix.
    PublicSuffix,
}

impl Reason {
    /// Its message: what was found, and what is expected or done.
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Address => ("not an address; left out", "an address, a prefix or a range"),
            Self::Name => ("not a host name; left out", "a name of letters, digits, `-` and `_`"),
            Self::AddressHere => ("an address among names; left out", "a name; put addresses in a separate list"),
            Self::NameHere => ("a name among addresses; left out", "an address; put names in a separate list"),
            Self::Port => ("an address with a port; left out", "an address without a port"),
            Self::Zone => ("an address with a zone; left out", "an address without `%`"),
            Self::Mapped => ("IPv4 in IPv6 form; read as IPv4", "the IPv4 address"),
            Self::PortLike => (
                "an IPv6 address whose end looks like a port; read as part of the address",
                "`[address]:port` for a port",
            ),
            Self::Words => ("an entry with something after it; left out", "one entry per line, comments after `#`"),
            Self::More => ("an address with something after it; the rest is ignored", "comments after `#`"),
            Self::HostsHere => ("a line of a hosts file; left out", "`format = \"hosts\"` for such a file"),
            Self::NoAddress => ("a line that does not begin with an address; left out", "`0.0.0.0 name`"),
            Self::Mapping => (
                "a name with its own address; left out",
                "`0.0.0.0`, `127.0.0.1`, `::` or `::1` before a name to match",
            ),
            Self::NotHost => {
                ("not a host name in a hosts file; left out", "a name without `*` and without a leading dot")
            }
            Self::Page => ("a filter that needs the page or the request; left out", "`||name^`"),
            Self::ThirdParty => (
                "a filter for requests from other sites (`$third-party`); applied to all requests",
                "`||name^` without `$third-party`",
            ),
            Self::Conditions => ("a filter with conditions (`$...`); left out", "`||name^`"),
            Self::NarrowException => ("an exception with conditions; left out", "`@@||name^`"),
            Self::Dnsmasq => ("a line that names no domain; left out", "`address=/name/`"),
            Self::Answer => ("a domain that is given its own address; left out", "`address=/name/` or `/0.0.0.0`"),
            Self::Everything => ("a pattern for every name or for names without dots; left out", "a domain"),
            Self::Rpz => ("a record that does not refuse a name; left out", "`name CNAME .`"),
            Self::Csv => ("neither an address nor a name in the first column; left out", "either"),
            Self::PublicSuffix => (
                "a public suffix; it covers everything registered below it",
                "a name below it, unless all of it is meant",
            ),
        }
    }

    /// The warning for `count` of them, the first at `span`. Only a short excerpt is quoted from a file that is not
    /// `listed`.
    pub(super) fn diagnostic(
        self,
        path: &Path,
        text: &str,
        span: std::ops::Range<usize>,
        format: Format,
        count: usize,
        listed: bool,
    ) -> Diagnostic {
        let (what, expected) = self.text();
        let (found, done) = what.split_once("; ").unwrap_or((what, ""));
        let message = match count {
            1 => format!("{found}: {done}"),
            _ => format!("{count} times {found}, first here: {done}"),
        };
        let format = FORMATS.iter().find(|(_, one)| *one == format).map_or("", |(word, _)| word);
        let key = format!("format = \"{format}\"");
        let found = Diagnostic::new(Severity::Warning, path, text, span).message(message).expected(expected).key(key);
        if listed { found } else { found.shortened() }
    }
}
