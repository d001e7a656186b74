//! The image decides as the language says: random policies and flows, biased to the edges of rules, are decided by the
//! image and by trying the rules one after the other. `SLUICE_CASES` sets how many flows are decided.
#![cfg(feature = "std")]

use sluice_policy::{
    AppId, CompileOptions, Decision, Direction, Flow, Headers, Identities, Image, Name, Reference, Sid, compile,
    model::Moment, model::SidBuf, parse,
};
use std::{collections::BTreeMap, fmt::Write, net::IpAddr, path::Path, path::PathBuf};

/// Xorshift: the tests must be the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

const NAMES: [&str; 10] = [
    "example.com",
    "a.example.com",
    "b.a.example.com",
    "example.org",
    "www.example.org",
    "org",
    "xn--bcher-kva.test",
    "averyveryverylonglabelindeed.test",
    "seven77.test",
    "x.seven77.test",
];
const PROGRAMS: [&str; 8] = [
    r"C:\a.exe",
    r"C:\tools\a.exe",
    r"C:\tools\b.exe",
    r"C:\tools\deep\c.exe",
    r"C:\tools\*",
    r"C:\tools\deep\*",
    r"C:\*",
    r"D:\other.exe",
];
const USERS: [&str; 4] = ["S-1-5-18", "S-1-5-21-1-2-3-1000", "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002"];
const SERVICES: [&str; 2] = ["Dnscache", "BITS"];
const PACKAGES: [&str; 2] = ["Microsoft.WindowsStore_8wekyb3d8bbwe", "S-1-15-2-1"];
const INTERFACES: [&str; 6] = ["ethernet", "wireless", "mobile", "vpn", "luid:0x6008001000000", "type:53"];

/// What a token has besides its user.
#[derive(Debug)]
struct Token(Vec<SidBuf>);

impl Identities for Token {
    fn each(&self, visit: &mut dyn FnMut(Sid<'_>)) {
        self.0.iter().for_each(|sid| visit(Sid(sid.bytes())));
    }
}

fn nt_path(path: &str) -> Result<String, String> {
    let (drive, rest) = path.split_once(':').ok_or("no drive")?;
    Ok(format!(r"\Device\HarddiskVolume{}{rest}", drive.len() + usize::from(drive == "D")))
}

/// The parts of flows: the edges of the rules.
#[derive(Default)]
struct Edges {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

struct Generator {
    random: Random,
    edges: Edges,
    lists: BTreeMap<PathBuf, Vec<u8>>,
    text: String,
}

impl Generator {
    fn prefix(&mut self) -> String {
        let v6 = self.random.chance(35);
        // Few base addresses, so that rules overlap.
        let near = u128::from(self.random.next() & self.random.next() & 0xf0f);
        let (value, bits) = if v6 {
            (0x2001_0db8_0000_0000_0000_0000_0000_0000 | near << (self.random.below(15) * 8), 128)
        } else {
            (u128::from(0x0a00_0000u32) | near << (self.random.below(3) * 8), 32)
        };
        let value = if v6 { value } else { value & 0xffff_ffff };
        let length = match self.random.below(5) {
            0 => bits,
            1 => self.random.below(bits as usize + 1) as u32,
            _ => bits - self.random.below(bits as usize / 2) as u32,
        };
        let rest = u128::MAX.checked_shr(128 - bits + length).unwrap_or(0);
        let (low, high) = (value & !rest, value | rest);
        let address =
            |value: u128| -> IpAddr { if v6 { IpAddr::V6(value.into()) } else { IpAddr::V4((value as u32).into()) } };
        for edge in [low, high, low.wrapping_sub(1), high.wrapping_add(1)] {
            self.edges.addresses.push(address(edge));
        }
        if self.random.chance(15) && low < high {
            return format!("{}-{}", address(low), address(high - 1));
        }
        format!("{}/{length}", address(low))
    }

    fn addresses(&mut self) -> String {
        let mut words: Vec<String> = Vec::new();
        let count = match self.random.below(8) {
            0 => 1 + self.random.below(40),
            1..=2 => 1 + self.random.below(6),
            _ => 1,
        };
        for _ in 0..count {
            let word = match self.random.below(12) {
                0 if !self.lists.is_empty() => format!("@list{}", self.random.below(self.lists.len())),
                1 => self.random.pick(&["@private", "@loopback", "ipv4", "ipv6", "@multicast"]).to_string(),
                _ => self.prefix(),
            };
            words.push(word);
        }
        if self.random.chance(10) {
            words.push(format!("!{}", self.prefix()));
        }
        format!("{words:?}")
    }

    fn ports(&mut self) -> String {
        let mut words = Vec::new();
        for _ in 0..*self.random.pick(&[1, 1, 1, 2, 5]) {
            let low = *self.random.pick(&[0u16, 22, 53, 80, 443, 1023, 1024, 8080, 50000, 65535]);
            let high = if self.random.chance(40) { low.saturating_add(self.random.below(3000) as u16) } else { low };
            self.edges.ports.extend([low, high, low.wrapping_sub(1), high.wrapping_add(1)]);
            words.push(format!("{low}-{high}"));
        }
        format!("{words:?}")
    }

    fn several(&mut self, from: &[&str]) -> String {
        let count = 1 + self.random.below(3);
        let words: Vec<&str> = (0..count).map(|_| *self.random.pick(from)).collect();
        format!("{words:?}")
    }

    fn names(&mut self) -> String {
        if self.random.chance(20) {
            return "\"@names\"".to_owned();
        }
        let count = 1 + self.random.below(3);
        let words: Vec<String> =
            (0..count).map(|_| format!("{}{}", self.random.pick(&["", "*.", "."]), self.random.pick(&NAMES))).collect();
        format!("{words:?}")
    }

    fn policy(&mut self) -> String {
        for number in 0..self.random.below(4) {
            let mut text = String::new();
            for _ in 0..self.random.below(60) {
                let entry = self.prefix();
                writeln!(text, "{entry} # entry").unwrap();
            }
            self.lists.insert(PathBuf::from(format!("list{number}")), text.into_bytes());
        }
        let action = |random: &mut Random| *random.pick(&["permit", "block", "drop"]);
        let mut text = "[default]\n".to_owned();
        for direction in Direction::ALL {
            writeln!(text, "{} = \"{}\"", direction.word(), action(&mut self.random)).unwrap();
        }
        if self.random.chance(40) {
            writeln!(text, "embedded-ipv4 = true").unwrap();
        }
        if self.random.chance(30) {
            writeln!(text, "log = true\nessential = {}", self.random.chance(50)).unwrap();
        }
        for number in 0..self.lists.len() {
            writeln!(text, "[list.list{number}]\nfile = \"list{number}\"\nformat = \"addresses\"\nmay-be-empty = true")
                .unwrap();
        }
        let entries =
            r#"["||example.com^", "@@||a.example.com^", "||b.a.example.com^", "||*.test^", "@@||x.seven77.test^"]"#;
        writeln!(text, "[list.names]\nformat = \"adblock\"\nentries = {entries}").unwrap();
        writeln!(text, "[schedule.office]\ndays = \"mon-fri\"\nhours = \"08:00-18:00\"").unwrap();
        let rules = match self.random.below(6) {
            0 => self.random.below(200),
            1 => self.random.below(4),
            _ => self.random.below(40),
        };
        for _ in 0..rules {
            self.text.clear();
            self.rule();
            text.push_str(&self.text);
        }
        text
    }

    fn rule(&mut self) {
        let asks = self.random.chance(15);
        let action = if asks { "ask" } else { self.random.pick(&["permit", "block", "drop"]) };
        let mut text = format!("[[rule]]\naction = \"{action}\"\n");
        let mut key = |name: &str, value: String| writeln!(text, "{name} = {value}").unwrap();
        if asks {
            key("direction", "\"outbound\"".to_owned());
            if self.random.chance(50) {
                key("when-unanswered", format!("{:?}", self.random.pick(&["permit", "block"])));
            }
            if self.random.chance(50) {
                key("answer-within", format!("\"{}s\"", 1 + self.random.below(240)));
            }
        } else if self.random.chance(20) {
            key("strength", format!("{:?}", self.random.pick(&["hard", "soft"])));
        }
        if self.random.chance(20) {
            key("log", "true".to_owned());
        }
        if self.random.chance(5) {
            key("enabled", "false".to_owned());
        }
        if self.random.chance(8) {
            key("schedule", "\"office\"".to_owned());
        }
        let forward = !asks && self.random.chance(20);
        let local = !asks && !forward && self.random.chance(25);
        if forward {
            key("direction", "\"forward\"".to_owned());
        } else if local {
            key("direction", format!("{:?}", self.random.pick(&["listen", "bind"])));
        } else if !asks && self.random.chance(50) {
            key("direction", format!("{:?}", self.random.pick(&["outbound", "inbound", "both"])));
        }
        let before = text.len();
        let mut key = |name: &str, value: String| writeln!(text, "{name} = {value}").unwrap();
        if !local && self.random.chance(60) {
            key("remote", self.addresses());
        }
        if self.random.chance(25) {
            key("local", self.addresses());
        }
        if self.random.chance(40) {
            if self.random.chance(40) {
                key("protocol", format!("{:?}", self.random.pick(&["tcp", "udp", "any"])));
            }
            if !local && self.random.chance(70) {
                key("remote-port", self.ports());
            }
            if self.random.chance(40) {
                key("local-port", self.ports());
            }
        } else if !local && self.random.chance(15) {
            key("icmp-type", format!("{}", self.random.below(20)));
        } else if self.random.chance(20) {
            key("protocol", self.random.pick(&["\"tcp\"", "[1, 58]", "47", "[\"tcp\", \"udp\"]"]).to_string());
        }
        if forward {
            let asks = ["protocol", "port", "icmp"].iter().any(|word| text[before..].contains(word));
            if asks && !text[before..].contains("\"any\"") && self.random.chance(50) {
                text.push_str("when-undecidable = \"match\"\n");
            }
            self.text = text;
            return;
        }
        if self.random.chance(20) {
            let programs: Vec<&str> = PROGRAMS.to_vec();
            key("application", self.several(&programs));
        }
        let kinds = [("user", &USERS[..]), ("group", &USERS[2..]), ("service", &SERVICES), ("package", &PACKAGES)];
        for (kind, from) in kinds {
            if self.random.chance(7) {
                key(kind, self.several(from));
            }
        }
        if !local && self.random.chance(10) {
            key("interface", self.several(&INTERFACES));
        }
        if !local && self.random.chance(20) {
            key("remote-name", self.names());
            if self.random.chance(30) {
                key("when-undecidable", format!("{:?}", self.random.pick(&["skip", "match"])));
            }
        }
        self.text = text;
    }

    fn address(&mut self, v4: bool) -> IpAddr {
        for _ in 0..8 {
            if !self.edges.addresses.is_empty() && self.random.chance(90) {
                let address = *self.random.pick(&self.edges.addresses);
                if address.is_ipv4() == v4 {
                    return address;
                }
            }
        }
        if v4 {
            IpAddr::V4((self.random.next() as u32).into())
        } else {
            IpAddr::V6((u128::from(self.random.next()) << 64 | u128::from(self.random.next())).into())
        }
    }

    /// An IPv6 address that has an IPv4 one inside, or almost.
    fn embedding(&mut self) -> IpAddr {
        let inside = match self.address(true) {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(_) => 0,
        };
        let noise = u128::from(self.random.next());
        let bits = match self.random.below(4) {
            0 => 0x0064_ff9b << 96 | inside,
            1 => 0x2002 << 112 | inside << 80 | noise,
            2 => 0x2001 << 112 | noise << 32 | (inside ^ 0xffff_ffff),
            _ => 0x0064_ff9b << 96 | 1 << 80 | inside,
        };
        IpAddr::V6(bits.into())
    }

    fn port(&mut self) -> u16 {
        if self.edges.ports.is_empty() || self.random.chance(10) {
            return self.random.next() as u16;
        }
        *self.random.pick(&self.edges.ports)
    }
}

fn cases() -> usize {
    std::env::var("SLUICE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000)
}

fn same(image: Decision, reference: Decision) -> bool {
    image == reference
}

#[test]
fn image_and_language_agree() {
    let flows_each = 400;
    let wide: Vec<Vec<u8>> = [
        r"\device\harddiskvolume1\a.exe",
        r"\device\harddiskvolume1\tools\a.exe",
        r"\device\harddiskvolume1\tools\b.exe",
        r"\device\harddiskvolume1\tools\deep\c.exe",
        r"\device\harddiskvolume1\tools\deep\other.exe",
        r"\device\harddiskvolume1\tools",
        r"\device\harddiskvolume2\other.exe",
        r"\device\harddiskvolume2\none.exe",
        "",
    ]
    .iter()
    .map(|path| path.encode_utf16().flat_map(u16::to_le_bytes).collect())
    .collect();
    let users: Vec<SidBuf> = USERS.iter().map(|text| SidBuf::parse(text).unwrap()).collect();
    let (mut compiled, mut decided, mut by_rule, mut essential, mut waited, mut slow) = (0, 0, 0, 0, 0, 0);
    for seed in 1..=(cases() / flows_each) as u64 {
        let mut generator = Generator {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            edges: Edges::default(),
            lists: BTreeMap::new(),
            text: String::new(),
        };
        let text = generator.policy();
        let policy = match parse(Path::new("random.toml"), &text, &generator.lists) {
            Ok(policy) => policy,
            // Exceptions can leave a condition empty, which is an error by design.
            Err(errors) => {
                assert!(
                    errors.diagnostics.iter().all(|one| one.message.starts_with("nothing is left")
                        || one.severity == sluice_policy::Severity::Warning
                        || one.message.contains("protocols do not all have")
                        || one.message.contains("only TCP listens")),
                    "seed {seed}: {errors}\n{text}"
                );
                continue;
            }
        };
        let at = generator
            .random
            .chance(50)
            .then(|| Moment::parse(["mon 09:00", "sun 09:00"][generator.random.below(2)]).unwrap());
        let key = std::array::from_fn(|_| generator.random.next() as u8);
        let options = CompileOptions { application: &nt_path, key, at };
        let reference = Reference::new(&policy, &options);
        let image = Image::validate(compile(&policy, &options).unwrap_or_else(|e| panic!("{e}")))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        compiled += 1;
        let most_steps = image.most_steps().into();
        for _ in 0..flows_each {
            let v4 = generator.random.chance(60);
            let direction = *generator.random.pick(&Direction::ALL);
            let protocol = *generator.random.pick(&[6u8, 6, 17, 1, 58, 47, 2]);
            let mut flow = Flow::new(
                direction,
                protocol,
                generator.address(v4),
                generator.port(),
                generator.address(v4),
                generator.port(),
            );
            if !v4 && generator.random.chance(40) {
                flow.remote = generator.embedding();
            }
            if direction.is_local() {
                flow = Flow::of_endpoint(direction, protocol, flow.local, flow.local_port)
                    .with_port_chosen(generator.random.chance(30));
            }
            if direction == Direction::Forward {
                let headers = [Headers::Whole, Headers::Whole, Headers::NoPorts, Headers::NoProtocol];
                flow = flow.with_headers(*generator.random.pick(&headers));
            }
            if matches!(protocol, 1 | 58) {
                flow.local_port = (generator.random.below(22) + 126 * generator.random.below(2)) as u16;
            }
            if generator.random.chance(5) {
                (flow.local_port, flow.remote_port) = *generator.random.pick(&[(68, 67), (546, 547)]);
            }
            if generator.random.chance(20) {
                flow = flow.with_loopback(generator.random.chance(50));
            }
            if generator.random.chance(70) {
                flow = flow.with_application(AppId(&wide[generator.random.below(wide.len())]));
            }
            if generator.random.chance(50) {
                flow = flow.with_user(Sid(generator.random.pick(&users).bytes()));
            }
            let mut others = users.clone();
            others.extend(SERVICES.iter().map(|name| SidBuf::of_service(name).unwrap()));
            others.extend(PACKAGES.iter().map(|name| SidBuf::of_package(name).unwrap()));
            others.retain(|_| generator.random.chance(30));
            let token = Token(others);
            if generator.random.chance(70) {
                flow = flow.with_others(&token);
            }
            if generator.random.chance(50) {
                flow = flow.with_interface(*generator.random.pick(&[
                    6 << 48 | 0x800_1000_0000u64,
                    71 << 48,
                    243 << 48 | 1,
                    53 << 48,
                    1,
                ]));
            }
            let name =
                format!("{}{}", generator.random.pick(&["", "", "www.", "x", "A."]), generator.random.pick(&NAMES));
            flow = flow.with_name(match generator.random.below(4) {
                0 => Name::Unknown,
                1 => Name::Undecidable,
                _ => Name::Known(name.as_bytes()),
            });
            let ((found, steps), expected) = (image.decide_counting(&flow), reference.decide(&flow));
            assert!(steps <= most_steps, "seed {seed}\n{text}\n{flow:?}\n{steps} steps, at most {most_steps}");
            slow = slow.max(steps);
            decided += 1;
            by_rule += u64::from(found.rule.is_some());
            essential += u64::from(found.essential.is_some());
            waited += u64::from(found.needs_name);
            assert!(same(found, expected), "seed {seed}\n{text}\n{flow:?}\nimage {found:?}\nlanguage {expected:?}");
        }
    } // A test that decides little proves little.
    let counts = format!(
        "{compiled} policies, {decided} flows, {by_rule} by a rule, {essential} essential, {waited} waited for a name, {slow} steps"
    );
    assert!(
        compiled * 3 > cases() / flows_each * 2
            && by_rule * 4 > decided
            && essential * 50 > decided
            && waited * 500 > decided
            && slow > 20,
        "{counts}"
    );
}
