//! Parses a line of each format.

use super::{Collector, Format, Read, Reason, looks_like_address};
use crate::{file::names_of_hosts, model::names::Scope};

/// The starts of dnsmasq's lines about domains.
pub(super) const DNSMASQ: [&str; 3] = ["address=/", "server=/", "local=/"];

/// Whether a line is blank or a comment, in any format.
pub(super) fn is_comment(line: &str, format: Format) -> bool {
    let page_filter = ["##", "#@#", "#?#", "#$#"].iter().any(|mark| line.starts_with(mark));
    line.is_empty()
        || line.starts_with([';', '!'])
        || line.starts_with("//")
        || (line.starts_with('#') && !(format == Format::Adblock && page_filter))
        || (format == Format::Adblock && line.starts_with('['))
}

/// A line up to a trailing comment. A sign that may be part of an entry must follow a blank.
pub(super) fn without_trailing_comment(line: &str, format: Format) -> &str {
    if matches!(format, Format::Adblock | Format::Csv | Format::Dnsmasq) {
        let cut = line.find(" #").or_else(|| line.find("\t#"));
        return cut.map_or(line, |at| &line[..at]).trim_end();
    }
    let plain = line.find(['#', ';']).unwrap_or(line.len());
    let blank = [" //", "\t//", " !", "\t!"].iter().filter_map(|sign| line.find(sign)).min().unwrap_or(line.len());
    line[..plain.min(blank)].trim_end()
}

pub(super) fn addresses(list: &mut Collector, line: &str, say: &mut dyn FnMut(Reason)) -> Read {
    // `10.0.0.1 - 10.0.0.9` is one entry.
    if line.contains(" - ") || !line.contains(char::is_whitespace) {
        return list.address(line, say);
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    list.address(first, say).map_err(|_| Reason::Address)?;
    say(Reason::More);
    Ok(())
}

pub(super) fn names(list: &mut Collector, line: &str, plain: Scope, say: &mut dyn FnMut(Reason)) -> Read {
    let mut words = line.split_whitespace();
    let (Some(first), next) = (words.next(), words.next()) else { return Ok(()) };
    match next {
        None => list.name(first, plain, false, say),
        Some(_) if looks_like_address(first) => Err(Reason::HostsHere),
        Some(_) => Err(Reason::Words),
    }
}

pub(super) fn hosts(list: &mut Collector, line: &str, plain: Scope, say: &mut dyn FnMut(Reason)) -> Read {
    let mut words = line.split_whitespace();
    let Some(address) = words.next() else { return Ok(()) };
    // Windows writes link-local addresses with their zone.
    let bare = address.split('%').next().unwrap_or_default();
    let Ok(address) = bare.parse::<std::net::IpAddr>() else { return Err(Reason::NoAddress) };
    let address = address.to_canonical();
    let nowhere = address.is_unspecified() || address.is_loopback();
    let mut any = false;
    for name in words {
        any = true;
        if names_of_hosts::LOCAL.contains(&name) {
            continue;
        }
        if name.starts_with(['.', '*']) {
            say(Reason::NotHost);
        } else if !nowhere {
            say(Reason::Mapping);
        } else if let Err(reason) = list.name(name, plain, false, say) {
            say(if reason == Reason::Name { Reason::NotHost } else { reason });
        }
    }
    if any { Ok(()) } else { Err(Reason::NotHost) }
}

pub(super) fn adblock(list: &mut Collector, line: &str, plain: Scope, say: &mut dyn FnMut(Reason)) -> Read {
    let (except, line) = match line.strip_prefix("@@") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let body = line.strip_prefix("||").ok_or(Reason::Page)?;
    let (name, rest) = body.split_once('^').filter(|(name, _)| !name.contains('/')).ok_or(Reason::Page)?;
    let options = match rest.trim_start_matches('|') {
        "" => "",
        rest => rest.strip_prefix('$').ok_or(Reason::Page)?,
    };
    let (mut third_party, mut withdrawn) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "all" | "important" | "document" | "doc" => {}
            "third-party" | "3p" => third_party = true,
            "badfilter" => withdrawn = true,
            _ if except => return Err(Reason::NarrowException),
            _ => return Err(Reason::Conditions),
        }
    }
    match (withdrawn, except, third_party) {
        (true, false, _) => list.withdraw(name),
        // Cancelling an exception would make an exception to an exception.
        (true, true, _) | (_, true, true) => Err(Reason::NarrowException),
        (false, ..) => {
            list.name(name, plain, except, say)?;
            if third_party {
                say(Reason::ThirdParty);
            }
            Ok(())
        }
    }
}

pub(super) fn dnsmasq(list: &mut Collector, line: &str, plain: Scope, say: &mut dyn FnMut(Reason)) -> Read {
    let prefix = DNSMASQ.iter().find(|prefix| line.starts_with(**prefix)).ok_or(Reason::Dnsmasq)?;
    let (names, target) = line[prefix.len()..].rsplit_once('/').ok_or(Reason::Dnsmasq)?;
    let nowhere = |target: &str| {
        target.is_empty()
            || target == "#"
            || target
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_unspecified() || address.to_canonical().is_loopback())
    };
    // A domain that is forwarded to a server, including the standard ones (`#`), is an exception.
    let except = *prefix != "address=/" && !target.is_empty();
    for name in names.split('/') {
        let read = match name {
            "" | "#" => Err(Reason::Everything),
            _ if *prefix == "address=/" && !nowhere(target) => Err(Reason::Answer),
            name => list.name(name, plain, except, say),
        };
        if let Err(reason) = read {
            say(reason);
        }
    }
    Ok(())
}

pub(super) fn rpz(list: &mut Collector, line: &str, say: &mut dyn FnMut(Reason)) -> Read {
    let words: Vec<&str> = line.split_whitespace().collect();
    let record = words.iter().position(|word| word.eq_ignore_ascii_case("CNAME"));
    let (Some(at), Some(owner)) = (record, words.first()) else {
        // What a zone contains besides its records.
        let frame = |word: &&str| ["SOA", "NS"].iter().any(|kind| word.eq_ignore_ascii_case(kind));
        let rest_of_soa = words.iter().all(|word| word.bytes().all(|byte| b"()0123456789".contains(&byte)));
        return if line.starts_with('$') || words.iter().any(frame) || rest_of_soa { Ok(()) } else { Err(Reason::Rpz) };
    };
    // A time to live and the class may come in between.
    let plain = |word: &&str| word.eq_ignore_ascii_case("IN") || word.bytes().all(|byte| byte.is_ascii_digit());
    let [target] = words[at + 1..] else { return Err(Reason::Rpz) };
    if at == 0 || !words[1..at].iter().all(plain) {
        return Err(Reason::Rpz);
    }
    let triggers = ["rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname"];
    if triggers.iter().any(|label| owner.to_ascii_lowercase().contains(label)) {
        return Err(Reason::Rpz);
    }
    let except = match target.to_ascii_lowercase().as_str() {
        "." | "*." | "rpz-drop." | "rpz-drop" => false,
        "rpz-passthru." | "rpz-passthru" => true,
        _ => return Err(Reason::Rpz),
    };
    // In a zone a name means itself, and `*.name` the names below it.
    list.name(owner, Scope::Exact, except, say)
}

pub(super) fn csv(list: &mut Collector, line: &str, plain: Scope, first: bool, say: &mut dyn FnMut(Reason)) -> Read {
    let column = first_column(line);
    // A header is not an entry.
    if first && !column.contains(['.', ':']) {
        return Ok(());
    }
    let read =
        if looks_like_address(column) { list.address(column, say) } else { list.name(column, plain, false, say) };
    read.map_err(|reason| if matches!(reason, Reason::Name | Reason::Address) { Reason::Csv } else { reason })
}

/// The first column of a line of comma-separated values, without quotes.
fn first_column(line: &str) -> &str {
    let line = line.trim_start();
    match line.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default().trim(),
        None => line.split([',', ';', '\t']).next().unwrap_or_default().trim(),
    }
}
