//! Address sets of one rule: an image, prefix-trie, and binary search over merged ranges.

use crate::{
    data::{self, Random},
    timing::{contender, measure, print},
};
use prefix_trie::PrefixSet;
use sluice_policy::{Direction, Flow};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const KEYS: usize = 1 << 16;

/// A million prefixes: announced ones in random order, then hosts.
fn prefixes4(random: &mut Random) -> (Vec<(u32, u8)>, &'static str) {
    let real: Option<Vec<(u32, u8)>> = data::text("asn4.cidr").map(|text| {
        let parse = |line: &str| {
            let (address, rest) = line.split_once('/')?;
            let (length, system) = rest.split_once(' ')?;
            // Half of the autonomous systems: the whole table merges to almost nothing.
            (system.trim().parse::<u32>().ok()? % 2 == 0)
                .then_some((address.parse::<Ipv4Addr>().ok()?.to_bits(), length.parse().ok()?))
        };
        text.lines().filter_map(parse).collect()
    });
    let source = if real.is_some() { "real" } else { "made" };
    let mut all = real.unwrap_or_default();
    shuffle(&mut all, random);
    while all.len() < 1_000_000 {
        // Scattered single addresses, as in block lists.
        all.push((random.next() as u32, 32));
    }
    (all, source)
}

fn range4(&(value, length): &(u32, u8)) -> (u32, u32) {
    (value, value | u32::MAX.checked_shr(length.into()).unwrap_or(0))
}

fn text4(prefixes: &[(u32, u8)]) -> String {
    prefixes.iter().map(|(value, length)| format!("{}/{length}\n", Ipv4Addr::from_bits(*value))).collect()
}

/// Random addresses of random prefixes.
fn keys4(prefixes: &[(u32, u8)], random: &mut Random) -> Vec<u32> {
    let key = |_| {
        let (low, high) = range4(&prefixes[random.below(prefixes.len())]);
        low | random.next() as u32 & (high - low)
    };
    (0..KEYS).map(key).collect()
}

pub(crate) fn v4() {
    let mut random = Random(1);
    let (all, source) = prefixes4(&mut random);
    for count in [1, 1000, 100_000, 1_000_000] {
        let prefixes = &all[..count];
        let built = data::build(POLICY, &text4(prefixes));
        let keys = keys4(prefixes, &mut random);
        let trie: PrefixSet<(u32, u8)> = prefixes.iter().copied().collect();
        let ranges = merged(prefixes.iter().map(range4));
        let (image, ranges) = (&built.image, &ranges[..]);
        let local = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
        let contenders = [
            contender("sluice set", &keys, move |key| {
                u32::from(image.remote_class(IpAddr::V4(Ipv4Addr::from_bits(key))) == 0)
            }),
            contender("sluice decide", &keys, move |key| {
                let flow = Flow::new(Direction::Outbound, 6, local, 50000, IpAddr::V4(Ipv4Addr::from_bits(key)), 443);
                image.decide(&flow).rule.unwrap_or(1)
            }),
            contender("prefix-trie", &keys, |key| u32::from(trie.get_lpm(&(key, 32)).is_none())),
            contender("binary search", &keys, move |key| {
                let after = ranges.partition_point(|range| range.1 < key);
                u32::from(ranges.get(after).is_none_or(|range| range.0 > key))
            }),
        ];
        let title = format!("IPv4 set, {count} prefixes ({source})");
        run(&title, &contenders, count, &built);
    }
}

/// Five overlapping lists, each used by one rule: the first that has the address decides.
pub(crate) fn lists() {
    const LISTS: usize = 5;
    let mut random = Random(1);
    let (all, source) = prefixes4(&mut random);
    for count in [1000, 100_000, 1_000_000] {
        // Each prefix in one list, and some in a second.
        let lists: [Vec<(u32, u8)>; LISTS] = std::array::from_fn(|list| {
            let of_list =
                |(index, prefix): (usize, &(u32, u8))| (index % LISTS == list || index % 7 == list).then_some(*prefix);
            all[..count].iter().enumerate().filter_map(of_list).collect()
        });
        let mut text = String::new();
        for list in 0..LISTS {
            text.push_str(&format!("[list.l{list}]\nfile = \"l{list}\"\nformat = \"addresses\"\n"));
        }
        for list in 0..LISTS {
            text.push_str(&format!("[[rule]]\naction = \"block\"\nremote = \"@l{list}\"\n"));
        }
        let files = lists.iter().enumerate().map(|(list, of)| (format!("l{list}").into(), text4(of).into_bytes()));
        let built = data::build_with(&text, files.collect());
        let keys = keys4(&all[..count], &mut random);
        let tries = lists.each_ref().map(|list| list.iter().copied().collect::<PrefixSet<(u32, u8)>>());
        let ranges = lists.each_ref().map(|list| merged(list.iter().map(range4)));
        let (image, ranges, tries) = (&built.image, &ranges, &tries);
        let local = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
        let decide = move |key| {
            let flow = Flow::new(Direction::Outbound, 6, local, 50000, IpAddr::V4(Ipv4Addr::from_bits(key)), 443);
            image.decide(&flow).rule.unwrap_or(u32::MAX)
        };
        // The rule of each class.
        let class = move |key| image.remote_class(IpAddr::V4(Ipv4Addr::from_bits(key)));
        let mut rules = [u32::MAX; 1 << LISTS];
        keys.iter().for_each(|key| rules[class(*key) as usize] = decide(*key));
        let rules = &rules;
        let contenders = [
            contender("sluice set", &keys, move |key| rules[class(key) as usize]),
            contender("sluice decide", &keys, decide),
            contender("prefix-trie", &keys, move |key| {
                let found = tries.iter().position(|trie| trie.get_lpm(&(key, 32)).is_some());
                found.map_or(u32::MAX, |list| list as u32)
            }),
            contender("binary search", &keys, move |key| {
                let found = ranges.iter().position(|ranges| {
                    let after = ranges.partition_point(|range| range.1 < key);
                    ranges.get(after).is_some_and(|range| range.0 <= key)
                });
                found.map_or(u32::MAX, |list| list as u32)
            }),
        ];
        agree(&contenders);
        let title = format!("{LISTS} IPv4 lists, {count} prefixes ({source})");
        print(&title, &contenders, &measure(&contenders), &built.summary(count));
    }
}

pub(crate) fn v6() {
    let mut random = Random(2);
    let real = data::text("asn6.cidr").map(|text| {
        let parse = |line: &str| {
            let (address, rest) = line.split_once('/')?;
            let (length, system) = rest.split_once(' ')?;
            // Half of the systems are listed, as above; the rest of the million are in the networks of the other half.
            let even = system.trim().parse::<u32>().ok()? % 2 == 0;
            Some(((address.parse::<Ipv6Addr>().ok()?.to_bits(), length.parse().ok()?), even))
        };
        text.lines().filter_map(parse).collect::<Vec<_>>()
    });
    let source = if real.is_some() { "real" } else { "made" };
    let all = real.unwrap_or_else(|| {
        let made =
            |index: u32| (((0x2000 << 112 | u128::from(random.next()) << 72) >> 80 << 80, 48), index.is_multiple_of(2));
        (0..168_000).map(made).collect()
    });
    let (mut all, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, even)| *even);
    shuffle(&mut all, &mut random);
    let mut all: Vec<(u128, u8)> = all.into_iter().map(|(prefix, _)| prefix).collect();
    let base = all.len();
    while all.len() < 1_000_000 {
        // Customers' networks and single hosts below announced prefixes.
        let (value, length) = others[random.below(others.len())].0;
        let rest = u128::from(random.next()) << 64 | u128::from(random.next());
        let longer = [48, 56, 64, 128][random.below(4)].max(length);
        let value = value | rest & u128::MAX.checked_shr(length.into()).unwrap_or(0);
        all.push((value & !u128::MAX.checked_shr(longer.into()).unwrap_or(0), longer));
    }
    for count in [1, 5, 1000, base, 1_000_000] {
        // All of the rest or none of it: its first ones alone would have another distribution.
        let prefixes = if count > base { &all[..] } else { &all[..count] };
        let list: String =
            prefixes.iter().map(|(value, length)| format!("{}/{length}\n", Ipv6Addr::from_bits(*value))).collect();
        compare6(&format!("IPv6 set, {count} prefixes ({source})"), prefixes, &data::build(POLICY, &list), &mut random);
    }
    // As many overlapping sets as lists people subscribe to.
    let rules: String = (0..8)
        .map(|set| {
            let chosen = all[..base].iter().enumerate().filter(|(index, _)| index % 8 == set || index % 16 == set);
            let words: String =
                chosen.map(|(_, (value, length))| format!("\"{}/{length}\", ", Ipv6Addr::from_bits(*value))).collect();
            format!("[[rule]]\naction = \"block\"\nremote = [{words}]\n")
        })
        .collect();
    compare6(
        &format!("IPv6, 8 sets of {base} prefixes ({source})"),
        &all[..base],
        &data::build(&rules, ""),
        &mut random,
    );
}

fn compare6(title: &str, prefixes: &[(u128, u8)], built: &data::Built, random: &mut Random) {
    let count = prefixes.len();
    let keys: Vec<u128> = (0..KEYS)
        .map(|_| {
            let (value, length) = prefixes[random.below(count)];
            let rest = u128::from(random.next()) << 64 | u128::from(random.next());
            value | rest & u128::MAX.checked_shr(length.into()).unwrap_or(0)
        })
        .collect();
    let trie: PrefixSet<(u128, u8)> = prefixes.iter().copied().collect();
    let ranges = merged(
        prefixes.iter().map(|(value, length)| (*value, value | u128::MAX.checked_shr((*length).into()).unwrap_or(0))),
    );
    let (image, ranges) = (&built.image, &ranges[..]);
    let local = IpAddr::V6("2001:db8::5".parse().unwrap());
    let contenders = [
        contender("sluice set", &keys, move |key| {
            u32::from(image.remote_class(IpAddr::V6(Ipv6Addr::from_bits(key))) == 0)
        }),
        contender("sluice decide", &keys, move |key| {
            let flow = Flow::new(Direction::Outbound, 6, local, 50000, IpAddr::V6(Ipv6Addr::from_bits(key)), 443);
            u32::from(image.decide(&flow).rule.is_none())
        }),
        contender("prefix-trie", &keys, |key| u32::from(trie.get_lpm(&(key, 128)).is_none())),
        contender("binary search", &keys, move |key| {
            let after = ranges.partition_point(|range| range.1 < key);
            u32::from(ranges.get(after).is_none_or(|range| range.0 > key))
        }),
    ];
    run(title, &contenders, count, built);
}

/// A condition of this many prefixes or fewer is not a set: its rule has a box for each.
const FEW: usize = 4;

/// Measures; the first contender is the set alone.
fn run(title: &str, contenders: &[crate::timing::Contender<'_>], count: usize, built: &data::Built) {
    let contenders = if count > FEW { contenders } else { &contenders[1..] };
    agree(contenders);
    print(title, contenders, &measure(contenders), &built.summary(count));
}

const POLICY: &str =
    "[list.all]\nfile = \"list\"\nformat = \"addresses\"\n[[rule]]\naction = \"block\"\nremote = \"@all\"\n";

fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for index in (1..all.len()).rev() {
        all.swap(index, random.below(index + 1));
    }
}

fn merged<A: Copy + Ord>(ranges: impl Iterator<Item = (A, A)>) -> Vec<(A, A)> {
    let mut sorted: Vec<(A, A)> = ranges.collect();
    sorted.sort_unstable();
    let mut merged: Vec<(A, A)> = Vec::new();
    for (low, high) in sorted {
        match merged.last_mut() {
            Some(last) if low <= last.1 => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    merged
}

/// Only contenders with equal results are compared.
fn agree(contenders: &[crate::timing::Contender<'_>]) {
    for index in 0..KEYS {
        let first = (contenders[0].once)(index);
        assert!(contenders.iter().all(|one| (one.once)(index) == first), "key {index}");
    }
}
