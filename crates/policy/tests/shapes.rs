//! Rule sets that are hard to classify: nested, crossing, alike, of many kinds at once. The image stays close to the
//! size of its rules, compiles fast, and decides as the language says.
#![cfg(feature = "std")]

use sluice_policy::{AppId, CompileOptions, Direction, Flow, Image, Reference, compile, image::MOST_STEPS, parse};
use std::{collections::BTreeMap, fmt::Write, net::IpAddr, path::Path, path::PathBuf};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % u64::from(limit)) as u32
    }
}

/// The conditions of a set's rules, one text each; every second rule permits.
type Rules = Vec<String>;

fn v4(value: u32, length: u32) -> String {
    format!("{}/{length}", std::net::Ipv4Addr::from(value & u32::MAX.checked_shl(32 - length).unwrap_or(0)))
}

/// Every length with every length: rules that are nested on both sides.
fn nested() -> Rules {
    let pairs = (0..=32).flat_map(|a| (0..=32).map(move |b| (32 - a, 32 - b)));
    pairs.map(|(a, b)| format!("remote = \"{}\"\nlocal = \"{}\"", v4(0x0a01_0203, a), v4(0xc0a8_0101, b))).collect()
}

/// Networks of random lengths on both sides, mostly wide.
fn crossing(random: &mut Random) -> Rules {
    let mut side = || v4(random.below(1 << 12) << 20 | random.below(1 << 12), 4 + random.below(10));
    (0..1500).map(|_| format!("remote = \"{}\"\nlocal = \"{}\"", side(), side())).collect()
}

/// Only ports, one rule for each, and ranges across them.
fn ports(random: &mut Random) -> Rules {
    let one = |port: u32| format!("protocol = \"tcp\"\nremote-port = {port}");
    let mut range = || {
        let low = random.below(60000);
        format!("protocol = \"udp\"\nlocal-port = \"{low}-{}\"", low + random.below(5000))
    };
    let mut rules: Rules = (0..3000).map(|index| one(index * 7 % 40000)).collect();
    rules.extend((0..400).map(|_| range()));
    rules
}

/// Rules that differ only in their action.
fn alike() -> Rules {
    vec!["remote = \"10.0.0.0/8\"\nprotocol = \"tcp\"".to_owned(); 2000]
}

/// One program each, some with addresses, some with ports, some with neither.
fn programs(random: &mut Random) -> Rules {
    let mut rule = |index: u32| {
        let mut text = format!("application = 'C:\\\\dir{}\\\\p{index}.exe'", index % 40);
        if index.is_multiple_of(3) {
            write!(text, "\nremote = \"{}\"", v4(random.below(1 << 16) << 16, 8 + random.below(9))).unwrap();
        }
        if index.is_multiple_of(5) {
            write!(text, "\nprotocol = \"tcp\"\nremote-port = {}", random.below(2000)).unwrap();
        }
        if index.is_multiple_of(50) {
            text = format!("application = 'C:\\\\dir{}\\\\*'", index % 40);
        }
        text.replace("\\\\", "\\")
    };
    (0..1500).map(&mut rule).collect()
}

/// Overlapping sets of many networks on both sides.
fn sets(random: &mut Random) -> Rules {
    let mut set = || {
        let words: Vec<String> =
            (0..20).map(|_| v4(random.below(1 << 8) << 24 | random.below(4) << 22, 8 + random.below(4))).collect();
        format!("{words:?}")
    };
    (0..300).map(|_| format!("remote = {}\nlocal = {}", set(), set())).collect()
}

fn text(rules: &Rules) -> String {
    let mut text = String::new();
    for (index, rule) in rules.iter().enumerate() {
        let action = ["permit", "block"][index % 2];
        writeln!(text, "[[rule]]\naction = \"{action}\"\n{rule}").unwrap();
    }
    text
}

/// Compiles a set, decides random flows near its rules, and returns its bytes per rule and the most steps of a decision.
fn check(name: &str, rules: &Rules, random: &mut Random) -> (usize, u32) {
    let text = text(rules);
    let policy = parse(Path::new(name), &text, &BTreeMap::<PathBuf, Vec<u8>>::new()).unwrap();
    let application = |path: &str| Ok(path.replace("C:", r"\device\v1"));
    let options = CompileOptions { application: &application, key: [3; 16], at: None };
    let image = Image::validate(compile(&policy, &options).unwrap()).unwrap();
    let reference = Reference::new(&policy, &options);
    let (mut by_rule, mut slowest) = (0, 0);
    for index in 0..3000u32 {
        let mut address = |near: u32| IpAddr::V4((near ^ random.below(1 << 16) << random.below(17)).into());
        let (remote, local) = (address(0x0a01_0203), address(0xc0a8_0101));
        let program: Vec<u8> = format!(r"\device\v1\dir{}\p{}.exe", index % 40, random.below(1500))
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let protocol = [6, 17][random.below(2) as usize];
        let direction = [Direction::Outbound, Direction::Inbound][random.below(2) as usize];
        let (local_port, remote_port) = (random.below(65536) as u16, random.below(40000) as u16);
        let mut flow = Flow::new(direction, protocol, local, local_port, remote, remote_port);
        if index.is_multiple_of(2) {
            flow = flow.with_application(AppId(&program));
        }
        let (decision, steps) = image.decide_counting(&flow);
        assert_eq!(decision, reference.decide(&flow), "{name}: {flow:?}");
        assert!(steps <= image.most_steps().into(), "{name}: {flow:?} took {steps} steps of {}", image.most_steps());
        slowest = slowest.max(steps);
        by_rule += u32::from(decision.rule.is_some());
    }
    assert!(by_rule > 100, "{name}: only {by_rule} flows were decided by a rule");
    eprintln!("{name}: {slowest} steps seen, at most {}", image.most_steps());
    (image.as_bytes().len() / rules.len(), image.most_steps())
}

#[test]
fn whatever_their_shape_rules_are_told_apart_in_little_room() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (name, rules, most) in [
        ("nested", nested(), 60),
        ("crossing", crossing(&mut random), 70),
        ("ports", ports(&mut random), 130),
        ("alike", alike(), 50),
        ("programs", programs(&mut random), 210),
        ("sets", sets(&mut random), 1300),
    ] {
        let (bytes, steps) = check(name, &rules, &mut random);
        assert!(bytes <= most, "{name}: {bytes} bytes for each of {} rules", rules.len());
        assert!(steps < MOST_STEPS / 10, "{name}: a decision can take {steps} steps");
    }
}

/// Rules that nothing tells apart have to be compared one after the other: a policy of too many is refused, and says
/// which they are.
#[test]
fn too_many_rules_that_are_alike_are_refused_by_name() {
    let compiled = |count: usize| {
        let rule = |number: usize| {
            let ports = "[[rule]]\naction = \"block\"\nprotocol = [6, 17]\nremote-port = [1, 60000]\nlocal-port";
            format!("{ports} = [{}, 60000]\nname = \"alike {number}\"\n", 1 + number % 2 * 4)
        };
        let text: String = (0..count).map(rule).collect();
        let policy = parse(Path::new("alike"), &text, &BTreeMap::<PathBuf, Vec<u8>>::new()).unwrap();
        compile(&policy, &CompileOptions { application: &|path| Ok(path.to_owned()), key: [3; 16], at: None })
    };
    let image = Image::validate(compiled(20_000).unwrap()).unwrap();
    assert!((100_000..=MOST_STEPS).contains(&image.most_steps()), "{}", image.most_steps());
    let refused = compiled(40_000).unwrap_err().to_string();
    for word in ["steps", &MOST_STEPS.to_string(), "rules from `alike 0` to `alike 39999` are alike"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
}
