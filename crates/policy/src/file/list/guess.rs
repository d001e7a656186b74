//! Detects a list's format: the one that most of its first entries look like.

use super::{Format, lines};
use crate::model::{
    address::{self, AddressError},
    names,
};

/// How many entries are examined.
const ENTRIES: usize = 200;

/// The format of most of the first entries; in a tie, the one that came first.
pub(super) fn format(text: &str) -> Format {
    if text.trim_start().starts_with("[Adblock") {
        return Format::Adblock;
    }
    let mut votes: Vec<(Format, usize)> = Vec::new();
    let entries = text.lines().map(str::trim).filter(|line| !lines::is_comment(line, Format::Auto));
    for format in entries.take(ENTRIES).map(of_line) {
        match votes.iter_mut().find(|(known, _)| *known == format) {
            Some((_, count)) => *count += 1,
            None => votes.push((format, 1)),
        }
    }
    let most = votes.iter().map(|(_, count)| *count).max().unwrap_or(0);
    votes.iter().find(|(_, count)| *count == most).map_or(Format::Names, |(format, _)| *format)
}

fn of_line(line: &str) -> Format {
    if line.starts_with("||") || line.starts_with("@@") || ["##", "#@#", "#?#"].iter().any(|mark| line.contains(mark)) {
        return Format::Adblock;
    }
    if lines::DNSMASQ.iter().any(|prefix| line.starts_with(prefix)) {
        return Format::Dnsmasq;
    }
    if line.starts_with('$') || line.split_whitespace().any(|word| matches!(word, "CNAME" | "SOA")) {
        return Format::Rpz;
    }
    let plain = lines::without_trailing_comment(line, Format::Hosts);
    let mut words = plain.split_whitespace();
    let (word, next) = (words.next().unwrap_or_default(), words.next());
    if word.split('%').next().is_some_and(|word| word.parse::<std::net::IpAddr>().is_ok()) {
        let hosts = next.is_some_and(|next| names::parse(next).is_some() && next != "-");
        return if hosts { Format::Hosts } else { Format::Addresses };
    }
    if line.contains(',') || line.starts_with('"') {
        return Format::Csv;
    }
    let range = address::parse(word.trim_end_matches(';'));
    if matches!(range, Ok(_) | Err(AddressError::HostBits(..))) { Format::Addresses } else { Format::Names }
}
