//! ClassBench filter sets: for every header of a trace the image gives the first rule that a scan finds.
//!
//! `SLUICE_DATA` names a folder with the sets (`acl1_1k`, `acl1_1k_trace`, ...); without it only the small set made
//! here is tried. A trace's last column is the rule that its header was generated from: it matches, but need not be the
//! first.
#![cfg(feature = "std")]

use sluice_policy::{CompileOptions, Direction, Flow, Image, Reference, compile, parse};
use std::{
    collections::BTreeMap,
    fmt::Write,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// A filter of a set: source is local, destination remote.
struct Filter {
    source: (u32, u8),
    destination: (u32, u8),
    source_ports: (u16, u16),
    destination_ports: (u16, u16),
    protocol: Option<u8>,
}

fn filters(text: &str) -> Vec<Filter> {
    let prefix = |text: &str| {
        let (address, length) = text.split_once('/').unwrap();
        let length: u8 = length.parse().unwrap();
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        (address.parse::<Ipv4Addr>().unwrap().to_bits() & mask, length)
    };
    let ports = |text: &str| {
        let (low, high) = text.split_once(" : ").unwrap();
        (low.trim().parse().unwrap(), high.trim().parse().unwrap())
    };
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.trim_start_matches('@').split('\t').collect();
            let (protocol, mask) = fields[4].split_once('/').unwrap();
            let protocol = u8::from_str_radix(&protocol[2..], 16).unwrap();
            Filter {
                source: prefix(fields[0]),
                destination: prefix(fields[1]),
                source_ports: ports(fields[2]),
                destination_ports: ports(fields[3]),
                protocol: (mask != "0x00").then_some(protocol),
            }
        })
        .collect()
}

/// An IPv4 number as IPv6: the first half in the 32 bits after 2001:db8, the rest spread so that prefixes extend beyond
/// the upper half.
fn widen(value: u32) -> u128 {
    let (high, low) = (u128::from(value >> 12), u128::from(value & 0xfff));
    0x2001_0db8 << 96 | high << 72 | low << 52
}

fn widen_length(length: u8) -> u8 {
    if length == 0 {
        0
    } else if length <= 20 {
        36 + length
    } else {
        44 + length
    }
}

fn toml(filters: &[Filter], v6: bool) -> String {
    let mut text = String::new();
    let prefix = |(value, length): (u32, u8)| {
        if v6 {
            format!("{}/{}", Ipv6Addr::from_bits(widen(value)), widen_length(length))
        } else {
            format!("{}/{length}", Ipv4Addr::from_bits(value))
        }
    };
    for (index, filter) in filters.iter().enumerate() {
        writeln!(text, "[[rule]]\naction = \"{}\"", if index % 2 == 0 { "permit" } else { "block" }).unwrap();
        for (key, value) in [("local", filter.source), ("remote", filter.destination)] {
            if value.1 > 0 {
                writeln!(text, "{key} = \"{}\"", prefix(value)).unwrap();
            } else {
                writeln!(text, "{key} = \"{}\"", if v6 { "ipv6" } else { "ipv4" }).unwrap();
            }
        }
        match filter.protocol {
            Some(protocol) => writeln!(text, "protocol = {protocol}").unwrap(),
            None => writeln!(text, "protocol = \"any\"").unwrap(),
        }
        for (key, (low, high)) in [("local-port", filter.source_ports), ("remote-port", filter.destination_ports)] {
            if (low, high) != (0, u16::MAX) {
                writeln!(text, "{key} = \"{low}-{high}\"").unwrap();
            }
        }
    }
    text
}

fn matches(filter: &Filter, header: &Header) -> bool {
    let within = |value: u32, (prefix, length): (u32, u8)| u64::from(value ^ prefix) >> (32 - length) == 0;
    within(header.source, filter.source)
        && within(header.destination, filter.destination)
        && (filter.source_ports.0..=filter.source_ports.1).contains(&header.source_port)
        && (filter.destination_ports.0..=filter.destination_ports.1).contains(&header.destination_port)
        && filter.protocol.is_none_or(|protocol| protocol == header.protocol)
}

struct Header {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    drawn_from: usize,
}

fn headers(text: &str) -> Vec<Header> {
    text.lines()
        .map(|line| {
            let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
            Header {
                source: fields[0] as u32,
                destination: fields[1] as u32,
                source_port: fields[2] as u16,
                destination_port: fields[3] as u16,
                protocol: fields[4] as u8,
                drawn_from: fields[fields.len() - 1] as usize,
            }
        })
        .collect()
}

/// Output shown by `--nocapture`.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn check(name: &str, filters: &[Filter], headers: &[Header]) {
    for v6 in [false, true] {
        let text = toml(filters, v6);
        let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        let policy = parse(Path::new("classbench.toml"), &text, &files).unwrap_or_else(|errors| panic!("{errors}"));
        let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [1; 16], at: None };
        let started = std::time::Instant::now();
        let bytes = compile(&policy, &options).unwrap();
        let (took, size) = (started.elapsed(), bytes.len());
        let image = Image::validate(bytes).unwrap();
        say(&format!(
            "{name} v6={v6}: {} rules, {} B a rule, compiled in {took:?}",
            filters.len(),
            size / filters.len()
        ));
        let reference = Reference::new(&policy, &options);
        for (index, header) in headers.iter().enumerate() {
            let address = |value: u32| -> IpAddr {
                if v6 { IpAddr::V6(Ipv6Addr::from_bits(widen(value))) } else { IpAddr::V4(value.into()) }
            };
            let flow = Flow::new(
                if index % 2 == 0 { Direction::Outbound } else { Direction::Inbound },
                header.protocol,
                address(header.source),
                header.source_port,
                address(header.destination),
                header.destination_port,
            );
            let first = filters.iter().position(|filter| matches(filter, header)).map(|rule| rule as u32);
            let found = image.decide(&flow);
            assert_eq!(found.rule, first, "{name}, header {index}, v6 {v6}");
            assert!(matches(&filters[header.drawn_from], header) && first.unwrap() as usize <= header.drawn_from);
            if index % 97 == 0 {
                assert_eq!(reference.decide(&flow), found);
            }
        }
    }
}

#[test]
fn real_sets() {
    let Some(folder) = std::env::var_os("SLUICE_DATA").map(PathBuf::from) else {
        say("skipped: SLUICE_DATA does not name a folder with ClassBench sets");
        return;
    };
    for name in ["acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k", "ipc1_10k"] {
        let read = |name: String| std::fs::read_to_string(folder.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let filters = filters(&read(name.to_owned()));
        // Scanning ten thousand rules for each of ninety thousand headers is for optimized builds.
        let every = if cfg!(debug_assertions) && filters.len() > 5000 { 16 } else { 1 };
        let headers: Vec<Header> = headers(&read(format!("{name}_trace"))).into_iter().step_by(every).collect();
        check(name, &filters, &headers);
    }
}

#[test]
fn a_small_made_set() {
    // Nested prefixes, overlapping port ranges, wildcards in the middle: cases that make classifiers fail.
    let mut state = 7u64;
    let mut next = move |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut filters = Vec::new();
    for _ in 0..600 {
        let mut prefix = || {
            let length = [0, 8, 16, 24, 28, 32][next(6) as usize];
            let value = 0x0a00_0000 | (next(4) << 16 | next(8) << 8 | next(64)) as u32;
            (value & u32::MAX.checked_shl(32 - length).unwrap_or(0), length as u8)
        };
        let (source, destination) = (prefix(), prefix());
        let mut ports = || match next(4) {
            0 => (0, u16::MAX),
            1 => (1024, u16::MAX),
            2 => (80, 80),
            _ => (next(3000) as u16, 3000 + next(3000) as u16),
        };
        let (source_ports, destination_ports) = (ports(), ports());
        let protocol = [Some(6), Some(17), None][next(3) as usize];
        let ported = protocol.is_some();
        let any = (0, u16::MAX);
        filters.push(Filter {
            source,
            destination,
            source_ports: if ported { source_ports } else { any },
            destination_ports: if ported { destination_ports } else { any },
            protocol,
        });
    }
    let mut headers = Vec::new();
    for index in 0..6000 {
        let filter = &filters[index % filters.len()];
        let inside = |(value, length): (u32, u8), random: u64| {
            value | (random as u32) & u32::MAX.checked_shr(u32::from(length)).unwrap_or(0)
        };
        headers.push(Header {
            source: inside(filter.source, next(1 << 33)),
            destination: inside(filter.destination, next(1 << 33)),
            source_port: [filter.source_ports.0, filter.source_ports.1][next(2) as usize],
            destination_port: [filter.destination_ports.0, filter.destination_ports.1][next(2) as usize],
            protocol: filter.protocol.unwrap_or(47),
            drawn_from: index % filters.len(),
        });
    }
    check("made", &filters, &headers);
}
