//! Name lists of one rule, suffix match: an image, and a hashbrown set queried label by label.

use crate::{
    data::{self, Random},
    timing::{contender, measure, print},
};
use hashbrown::HashSet;
use sluice_policy::{Direction, Flow, Name};
use std::net::{IpAddr, Ipv4Addr};

const KEYS: usize = 1 << 16;

pub(crate) fn run() {
    let mut random = Random(3);
    let mut all = real();
    let source = if all.is_empty() { "made" } else { "real, made above 535k" };
    let base = all.len();
    let mut known: std::collections::HashSet<String> = all.iter().cloned().collect();
    while all.len() < 1_000_000 {
        let name = if base > 0 {
            // Names like the real ones, with random letters.
            let model = all[random.below(base)].clone();
            let (first, rest) = model.split_once('.').unwrap_or((&model, "test"));
            format!("{}{}.{rest}", &first[..first.len().min(40)], random.below(9999))
        } else {
            let word = |random: &mut Random| -> String {
                (0..4 + random.below(9)).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
            };
            let tld = ["com", "net", "org", "info", "ru", "de"][random.below(6)];
            if random.below(3) == 0 {
                format!("{}.{}.{tld}", word(&mut random), word(&mut random))
            } else {
                format!("{}.{tld}", word(&mut random))
            }
        };
        if known.insert(name.clone()) {
            all.push(name);
        }
    }
    drop(known);
    for index in (1..all.len()).rev() {
        all.swap(index, random.below(index + 1));
    }
    for count in [1000, 100_000, 1_000_000] {
        let listed = &all[..count];
        let built = data::build(POLICY, &(listed.join("\n") + "\n"));
        let set: HashSet<Box<[u8]>> = listed.iter().map(|name| name.as_bytes().into()).collect();
        let hits: Vec<String> = (0..KEYS)
            .map(|_| {
                let name = &listed[random.below(count)];
                if random.below(4) == 0 { format!("www.{name}") } else { name.clone() }
            })
            .collect();
        let misses: Vec<String> = (0..KEYS)
            .map(|_| {
                let name = &listed[random.below(count)];
                let (first, rest) = name.split_once('.').unwrap_or((name, "test"));
                format!("{first}-{}.{rest}", random.below(1000))
            })
            .collect();
        for (what, texts) in [("hit", &hits), ("miss", &misses)] {
            // Contiguous in memory: a name that is looked up was just read, it is not somewhere among a million others.
            let text = texts.concat();
            let mut rest = text.as_bytes();
            let keys: Vec<&[u8]> = texts.iter().map(|name| rest.split_off(..name.len()).unwrap_or_default()).collect();
            let image = &built.image;
            let (local, remote) = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
            let set = &set;
            let contenders = [
                contender("sluice set", &keys, move |key| u32::from(image.name_class(key) == 0)),
                contender("sluice decide", &keys, move |key| {
                    let flow = Flow::new(Direction::Outbound, 6, local, 50000, remote, 443);
                    image.decide(&flow.with_name(Name::Known(key))).rule.unwrap_or(1)
                }),
                contender("hashbrown by label", &keys, move |key| {
                    let mut name = key;
                    loop {
                        if set.contains(name) {
                            return 0;
                        }
                        match name.iter().position(|byte| *byte == b'.') {
                            Some(dot) => name = &name[dot + 1..],
                            None => return 1,
                        }
                    }
                }),
            ];
            for (index, text) in texts.iter().enumerate() {
                let found = contenders.each_ref().map(|one| (one.once)(index));
                assert!(found.iter().all(|one| *one == found[0]), "{text}");
            }
            let title = format!("names, {count} ({source}), {what}");
            print(&title, &contenders, &measure(&contenders), &built.summary(count));
        }
    }
}

fn real() -> Vec<String> {
    let files = ["ads-nl.txt.bak", "phishing-nl", "tracking-nl", "basic-nl", "scam-nl"];
    let texts = files.iter().filter_map(|name| data::text(&format!("blp_{name}.txt")));
    let mut names: Vec<String> = texts
        .flat_map(|text| text.lines().map(|line| line.trim().to_ascii_lowercase()).collect::<Vec<_>>())
        .filter(|name| {
            !name.is_empty()
                && name.len() <= 253
                && name.contains('.')
                && name.split('.').all(|label| {
                    (1..=63).contains(&label.len())
                        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                })
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

const POLICY: &str =
    "[list.all]\nfile = \"list\"\nformat = \"names\"\n[[rule]]\naction = \"block\"\nremote-name = \"@all\"\n";
