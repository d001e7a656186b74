//! ClassBench rules: an image and a linear scan.

use crate::{
    data::{self, Random},
    timing::{contender, measure, print},
};
use sluice_policy::{Direction, Flow};
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
};

const KEYS: usize = 1 << 16;

#[derive(Clone, Copy)]
struct Filter {
    source: (u32, u8),
    destination: (u32, u8),
    source_ports: (u16, u16),
    destination_ports: (u16, u16),
    protocol: Option<u8>,
}

#[derive(Clone, Copy)]
struct Header {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
}

pub(crate) fn run() {
    for set in ["acl1", "fw1", "ipc1"] {
        let mut random = Random(4);
        let real = [1, 10].map(|size| data::text(&format!("{set}_{size}k")).map(|text| read(&text)));
        let (small, middle, source) = match real {
            [Some(small), Some(middle)] => (small, middle, "ClassBench"),
            _ => (made(&mut random, 1000), made(&mut random, 10_000), "made"),
        };
        let large = grown(&middle);
        for filters in [&small, &middle, &large] {
            one(set, filters, &mut random, if filters.len() > 20_000 { "grown from 10k" } else { source });
        }
    }
}

fn one(set: &str, filters: &[Filter], random: &mut Random, source: &str) {
    let built = data::build(&toml(filters), "");
    let keys: Vec<Header> = (0..KEYS)
        .map(|_| {
            let filter = filters[random.below(filters.len())];
            let inside = |(value, length): (u32, u8), random: &mut Random| {
                value | random.next() as u32 & u32::MAX.checked_shr(length.into()).unwrap_or(0)
            };
            let port = |(low, high): (u16, u16), random: &mut Random| {
                low + (random.next() % (u64::from(high - low) + 1)) as u16
            };
            Header {
                source: inside(filter.source, random),
                destination: inside(filter.destination, random),
                source_port: port(filter.source_ports, random),
                destination_port: port(filter.destination_ports, random),
                protocol: filter.protocol.unwrap_or(random.next() as u8),
            }
        })
        .collect();
    let image = &built.image;
    let contenders = [
        contender("sluice decide", &keys, move |key: Header| {
            let (local, remote) = (IpAddr::V4(key.source.into()), IpAddr::V4(key.destination.into()));
            let flow =
                Flow::new(Direction::Outbound, key.protocol, local, key.source_port, remote, key.destination_port);
            image.decide(&flow).rule.unwrap_or(u32::MAX)
        }),
        contender("linear scan", &keys, move |key| scan(filters, &key)),
    ];
    for index in (0..KEYS).step_by(if filters.len() > 20_000 { 64 } else { 1 }) {
        assert_eq!((contenders[0].once)(index), (contenders[1].once)(index), "{set}, key {index}");
    }
    let title = format!("{set}, {} rules ({source})", filters.len());
    print(&title, &contenders, &measure(&contenders), &built.summary(filters.len()));
}

fn scan(filters: &[Filter], key: &Header) -> u32 {
    let within = |value: u32, (prefix, length): (u32, u8)| u64::from(value ^ prefix) >> (32 - length) == 0;
    let found = filters.iter().position(|filter| {
        within(key.source, filter.source)
            && within(key.destination, filter.destination)
            && filter.source_ports.0 <= key.source_port
            && key.source_port <= filter.source_ports.1
            && filter.destination_ports.0 <= key.destination_port
            && key.destination_port <= filter.destination_ports.1
            && filter.protocol.is_none_or(|protocol| protocol == key.protocol)
    });
    found.map_or(u32::MAX, |rule| rule as u32)
}

fn read(text: &str) -> Vec<Filter> {
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
            Filter {
                source: prefix(fields[0]),
                destination: prefix(fields[1]),
                source_ports: ports(fields[2]),
                destination_ports: ports(fields[3]),
                protocol: (mask != "0x00").then(|| u8::from_str_radix(&protocol[2..], 16).unwrap()),
            }
        })
        .collect()
}

/// Ten copies in other networks; rules for every network appear once, at the end.
fn grown(filters: &[Filter]) -> Vec<Filter> {
    let mut grown = Vec::new();
    for copy in 0..10u32 {
        let moved =
            |(value, length): (u32, u8)| if length < 8 { (value, length) } else { (value ^ (copy * 23) << 24, length) };
        for filter in filters.iter().filter(|filter| filter.source.1 >= 8 || filter.destination.1 >= 8) {
            grown.push(Filter { source: moved(filter.source), destination: moved(filter.destination), ..*filter });
        }
    }
    grown.extend(filters.iter().filter(|filter| filter.source.1 < 8 && filter.destination.1 < 8));
    grown
}

/// Rules with networks, hosts, ports and wildcards in the proportions of an access list.
fn made(random: &mut Random, count: usize) -> Vec<Filter> {
    (0..count)
        .map(|_| {
            let prefix = |random: &mut Random| {
                let length = [0, 16, 24, 24, 28, 32, 32, 32][random.below(8)];
                let value = (random.below(200) as u32) << 24 | (random.next() as u32 & 0x00ff_3f3f);
                (value & u32::MAX.checked_shl(32 - length).unwrap_or(0), length as u8)
            };
            let (source, destination) = (prefix(random), prefix(random));
            let port = [80, 443, 53, 1024 + random.below(4000) as u16][random.below(4)];
            let range = [(port, port), (0, u16::MAX), (1024, u16::MAX)][random.below(3)];
            Filter {
                source,
                destination,
                source_ports: (0, u16::MAX),
                destination_ports: range,
                protocol: Some([6, 6, 17][random.below(3)]),
            }
        })
        .collect()
}

fn toml(filters: &[Filter]) -> String {
    let mut text = String::new();
    for filter in filters {
        text.push_str("[[rule]]\naction = \"block\"\ndirection = \"outbound\"\n");
        for (key, (value, length)) in [("local", filter.source), ("remote", filter.destination)] {
            writeln!(text, "{key} = \"{}/{length}\"", Ipv4Addr::from_bits(value)).unwrap();
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
