//! Whatever is done to an export, no rule made from it permits more than the original rules: fields are added, left
//! out, renamed, reordered and translated, values are replaced, and every flow that an enabled rule of the result
//! permits must be permitted by a rule of the source.
#![cfg(feature = "std")]

use sluice_policy::{
    CompileOptions, Direction, Flow, Image, Verdict, compile,
    import::{Source, import},
    model::{Action, FlowSpec, SidBuf},
    parse, parse_flow,
};
use std::{collections::BTreeMap, path::Path, path::PathBuf};

/// Xorshift: the test must be the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A rule of the source, and what it means.
#[derive(Clone, Debug)]
struct Truth {
    enabled: bool,
    permit: bool,
    inbound: bool,
    protocol: Option<u8>,
    remote: Option<&'static str>,
    port: Option<u16>,
    program: Option<&'static str>,
    service: Option<&'static str>,
    package: Option<&'static str>,
    /// A value that no flow of this test has.
    narrow: Option<Narrow>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Narrow {
    User,
    Interface,
    Profile,
    Security,
    Owner,
    Alias,
}

const PROGRAMS: [&str; 2] = [r"C:\Apps\a.exe", r"C:\Apps\b.exe"];
const SERVICES: [&str; 2] = ["Dnscache", "BITS"];
const PACKAGE: &str = "S-1-15-2-1-2-3-4-5-6-7";
const REMOTES: [&str; 3] = ["203.0.113.0/24", "198.51.100.7", "10.0.0.0/8"];
const ADDRESSES: [&str; 4] = ["203.0.113.9", "198.51.100.7", "10.1.2.3", "192.0.2.1"];

fn truth(random: &mut Random) -> Truth {
    let mut some = |percent| random.chance(percent);
    let (enabled, permit, inbound, any_protocol) = (some(85), some(75), some(50), some(30));
    let (remote, port, program, service, package, narrow) =
        (some(40), some(40), some(40), some(20), some(20), some(25));
    let narrows = [Narrow::User, Narrow::Interface, Narrow::Profile, Narrow::Security, Narrow::Owner, Narrow::Alias];
    Truth {
        enabled,
        permit,
        inbound,
        protocol: (!any_protocol).then(|| *random.pick(&[6, 17])),
        remote: remote.then(|| *random.pick(&REMOTES)),
        port: (port && !any_protocol).then(|| *random.pick(&[80, 443])),
        program: program.then(|| *random.pick(&PROGRAMS)),
        service: service.then(|| *random.pick(&SERVICES)),
        package: package.then_some(PACKAGE),
        narrow: narrow.then(|| *random.pick(&narrows)),
    }
}

impl Truth {
    fn permits(&self, flow: &FlowSpec) -> bool {
        let inside = |prefix: &str, address: &std::net::IpAddr| match prefix.split_once('/') {
            None => prefix.parse::<std::net::IpAddr>().unwrap() == *address,
            Some((network, length)) => {
                let bits = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().to_bits();
                (bits(network) ^ bits(&address.to_string())) >> (32 - length.parse::<u32>().unwrap()) == 0
            }
        };
        let has = |sid: Option<SidBuf>| sid.is_some_and(|sid| flow.users.contains(&sid));
        self.enabled
            && self.permit
            && self.narrow.is_none()
            && self.inbound == (flow.direction == Direction::Inbound)
            && self.protocol.is_none_or(|one| one == flow.protocol)
            && self.remote.is_none_or(|prefix| inside(prefix, &flow.remote.0))
            && self.port.is_none_or(|port| port == if self.inbound { flow.local.1 } else { flow.remote.1 })
            && self.program.is_none_or(|path| flow.application.as_deref() == Some(path))
            && self.service.is_none_or(|name| has(SidBuf::of_service(name)))
            && self.package.is_none_or(|name| has(SidBuf::of_package(name).ok()))
    }

    /// As a row from PowerShell, from which netsh's and the other forms are derived.
    fn windows(&self, name: &str) -> Vec<(String, String)> {
        let word = |asked: bool, word: &str| if asked { word.to_owned() } else { "Any".to_owned() };
        let narrow = |kind, word: &'static str, usual: &'static str| {
            if self.narrow == Some(kind) { word.to_owned() } else { usual.to_owned() }
        };
        let port = self.port.map_or("Any".to_owned(), |port| port.to_string());
        let (local, remote) = if self.inbound { (port, "Any".to_owned()) } else { ("Any".to_owned(), port) };
        let protocol = match self.protocol {
            None => "Any",
            Some(6) => "TCP",
            Some(_) => "UDP",
        };
        [
            ("DisplayName", name.to_owned()),
            ("Enabled", if self.enabled { "True" } else { "False" }.to_owned()),
            ("Direction", if self.inbound { "Inbound" } else { "Outbound" }.to_owned()),
            ("Action", if self.permit { "Allow" } else { "Block" }.to_owned()),
            ("Profile", narrow(Narrow::Profile, "Domain", "Any")),
            ("Protocol", protocol.to_owned()),
            ("LocalPort", local),
            ("RemotePort", remote),
            ("IcmpType", "Any".to_owned()),
            ("LocalAddress", "Any".to_owned()),
            ("RemoteAddress", self.remote.unwrap_or("Any").to_owned()),
            ("Program", self.program.unwrap_or("Any").to_owned()),
            ("Service", self.service.unwrap_or("Any").to_owned()),
            ("Package", word(self.package.is_some(), PACKAGE)),
            ("InterfaceType", narrow(Narrow::Interface, "Wireless", "Any")),
            ("InterfaceAlias", narrow(Narrow::Alias, "Ethernet 2", "Any")),
            ("LocalUser", narrow(Narrow::User, "O:LSD:(A;;CC;;;S-1-5-21-9-9-9-1001)", "Any")),
            ("Owner", narrow(Narrow::Owner, "S-1-5-21-9-9-9-1001", "")),
            ("Authentication", narrow(Narrow::Security, "Required", "NotRequired")),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    /// The parts that Little Snitch can express.
    fn snitch(&self, name: &str) -> Vec<(String, String)> {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\"));
        let mut fields = vec![
            ("action", quoted(if self.permit { "allow" } else { "deny" })),
            ("process", quoted(self.program.unwrap_or("any"))),
            ("direction", quoted(if self.inbound { "incoming" } else { "outgoing" })),
            ("disabled", (!self.enabled).to_string()),
            ("notes", quoted(name)),
        ];
        match self.remote {
            Some(remote) => fields.push(("remote-addresses", quoted(remote))),
            None => fields.push(("remote", quoted("any"))),
        }
        if let Some(port) = self.port {
            fields.push(("ports", quoted(&port.to_string())));
        }
        if let Some(protocol) = self.protocol {
            fields.push(("protocol", quoted(if protocol == 6 { "tcp" } else { "udp" })));
        }
        if self.narrow.is_some() || self.service.is_some() || self.package.is_some() {
            fields.push(("via", quoted("/usr/bin/agent")));
        }
        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The parts that simplewall can express: it treats services and packages as programs, any of which is enough.
    fn simplewall(&self, name: &str) -> Option<Vec<(String, String)>> {
        let subjects = [self.program, self.service, self.package];
        if subjects.iter().flatten().count() > 1 || self.narrow.is_some() {
            return None;
        }
        let sides = match (self.remote, self.port, self.inbound) {
            (Some(remote), Some(port), false) => vec![("rule", format!("{remote}:{port}"))],
            (Some(remote), Some(port), true) => vec![("rule", remote.to_owned()), ("rule_local", port.to_string())],
            (Some(remote), None, _) => vec![("rule", remote.to_owned())],
            (None, Some(port), false) => vec![("rule", port.to_string())],
            (None, Some(port), true) => vec![("rule_local", port.to_string())],
            (None, None, _) => Vec::new(),
        };
        let mut fields = vec![
            ("name", name.to_owned()),
            ("is_enabled", self.enabled.to_string()),
            ("is_block", (!self.permit).to_string()),
            ("dir", u8::from(self.inbound).to_string()),
            ("protocol", self.protocol.unwrap_or(0).to_string()),
        ];
        fields.extend(sides);
        fields.extend(subjects.into_iter().flatten().map(|one| ("apps", one.to_owned())));
        Some(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// A change to the fields of all rules, as in an export from another program or language.
#[derive(Clone, Debug)]
enum Change {
    None,
    Extra(String, String),
    Missing(String),
    Renamed(String, String),
    Translated,
    Value(String, String),
    Twice(String, String),
}

const GERMAN: [(&str, &str); 14] = [
    ("DisplayName", "Anzeigename"),
    ("Rule Name", "Regelname"),
    ("Enabled", "Aktiviert"),
    ("Direction", "Richtung"),
    ("Action", "Aktion"),
    ("Protocol", "Protokoll"),
    ("True", "Wahr"),
    ("Inbound", "Eingehend"),
    ("Outbound", "Ausgehend"),
    ("Allow", "Zulassen"),
    ("Block", "Blockieren"),
    ("Any", "Beliebig"),
    ("In", "Ein"),
    ("Out", "Aus"),
];

fn change(random: &mut Random, keys: &[&str], optional: &[&str]) -> Change {
    let key = (*random.pick(keys)).to_owned();
    let strange = (*random.pick(&["", "?", "Ausgehend", "-1", "4294967296", "any,1", "<x>", "deny"])).to_owned();
    match random.below(8) {
        0 => Change::None,
        1 => Change::Extra((*random.pick(&["Colour", "Condition", "is_new", "x"])).to_owned(), "red".to_owned()),
        // In a format where a field may be absent, its absence means something.
        2 if !optional.contains(&key.as_str()) => Change::Missing(key),
        2 | 3 => Change::Renamed(key, (*random.pick(&["Spalte", "colonne", "field"])).to_owned()),
        4 => Change::Translated,
        5 | 6 => Change::Value(key, strange),
        _ => Change::Twice(key, strange),
    }
}

fn changed(
    random: &mut Random,
    mut fields: Vec<(String, String)>,
    change: &Change,
    quote: bool,
) -> Vec<(String, String)> {
    let quoted = |text: &str| if quote { format!("\"{text}\"") } else { text.to_owned() };
    match change {
        Change::None => {}
        Change::Extra(key, value) => fields.push((key.clone(), quoted(value))),
        Change::Missing(key) => fields.retain(|(one, _)| one != key),
        Change::Renamed(key, name) => {
            fields.iter_mut().filter(|(one, _)| one == key).for_each(|(one, _)| one.clone_from(name));
        }
        Change::Translated => {
            for (key, value) in &mut fields {
                for text in [key, value] {
                    if let Some((_, german)) = GERMAN.iter().find(|(english, _)| english == text) {
                        *text = (*german).to_owned();
                    }
                }
            }
        }
        Change::Value(key, value) => {
            fields.iter_mut().filter(|(one, _)| one == key).for_each(|(_, one)| *one = quoted(value));
        }
        Change::Twice(key, value) => fields.push((key.clone(), quoted(value))),
    }
    for index in (1..fields.len()).rev() {
        fields.swap(index, random.below(index + 1));
    }
    fields
}

/// The text of an export of these rules.
fn export(source: Source, rules: &[Vec<(String, String)>]) -> String {
    let object = |fields: &Vec<(String, String)>| {
        let inner: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", inner.join(","))
    };
    match source {
        Source::WindowsCsv => {
            let row = |cells: Vec<&String>| {
                let cells: Vec<String> =
                    cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
                cells.join(";") + "\r\n"
            };
            let heading = row(rules[0].iter().map(|(key, _)| key).collect());
            let rows = rules.iter().map(|fields| row(fields.iter().map(|(_, value)| value).collect()));
            heading + &rows.collect::<String>()
        }
        Source::WindowsJson => {
            let quoted = |fields: &Vec<(String, String)>| {
                let quote = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
                object(&fields.iter().map(|(key, value)| (key.clone(), quote(value))).collect())
            };
            format!("[{}]", rules.iter().map(quoted).collect::<Vec<_>>().join(","))
        }
        Source::Netsh => {
            let labels = [
                ("DisplayName", "Rule Name"),
                ("LocalAddress", "LocalIP"),
                ("RemoteAddress", "RemoteIP"),
                ("Profile", "Profiles"),
                ("InterfaceType", "InterfaceTypes"),
                ("Authentication", "Security"),
            ];
            let mut text = String::new();
            for fields in rules {
                let name = fields.iter().position(|(key, _)| key == "DisplayName" || key == "Anzeigename");
                let mut fields = fields.clone();
                if let Some(place) = name {
                    let first = fields.remove(place);
                    fields.insert(0, first);
                }
                for (index, (key, value)) in fields.iter().enumerate() {
                    // Fields that its text has no line for.
                    let unsaid = ["Package", "LocalUser", "Owner", "InterfaceAlias", "IcmpType"];
                    let nobody = value == "Any" && matches!(key.as_str(), "Program" | "Service");
                    if unsaid.contains(&key.as_str()) || nobody {
                        continue;
                    }
                    let label = labels.iter().find(|(one, _)| one == key).map_or(key.as_str(), |(_, label)| label);
                    text += &format!("{:<38}{value}\n", format!("{label}:"));
                    if index == 0 {
                        text += "----------------------------------------------------------------------\n";
                    }
                }
                text += "\n";
            }
            text + "Ok.\n"
        }
        Source::LittleSnitch => {
            format!("{{\"name\":\"g\",\"rules\":[{}]}}", rules.iter().map(object).collect::<Vec<_>>().join(","))
        }
        Source::Simplewall => {
            let mut text = "<root version=\"6\"><rules_custom>\n".to_owned();
            for fields in rules {
                let mut seen = Vec::new();
                text += "<item";
                for (key, value) in fields {
                    // XML allows every attribute only once.
                    if !seen.contains(&key) {
                        text += &format!(" {key}=\"{}\"", value.replace('<', "&lt;"));
                        seen.push(key);
                    }
                }
                text += "/>\n";
            }
            text + "</rules_custom></root>\n"
        }
    }
}

/// Flows that distinguish rules.
fn flows() -> Vec<FlowSpec> {
    let mut flows = Vec::new();
    for inbound in [false, true] {
        for protocol in ["tcp", "udp", "gre"] {
            for address in ADDRESSES {
                for port in [80, 443, 5000] {
                    let (local, remote) = if inbound { (port, 50000) } else { (50000, port) };
                    let (local, remote) = (format!("192.0.2.200:{local}"), format!("{address}:{remote}"));
                    let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
                    let flow = parse_flow(protocol, &local, &remote, direction, None, None, None, None).unwrap();
                    for program in [None, Some(PROGRAMS[0]), Some(PROGRAMS[1])] {
                        for who in 0..4 {
                            let mut one = FlowSpec { application: program.map(str::to_owned), ..flow.clone() };
                            one.users = vec![SidBuf::parse("S-1-5-21-1-1-1-1000").unwrap()];
                            one.users.extend((who == 1).then(|| SidBuf::of_service(SERVICES[0]).unwrap()));
                            one.users.extend((who == 2).then(|| SidBuf::of_service(SERVICES[1]).unwrap()));
                            one.users.extend((who == 3).then(|| SidBuf::of_package(PACKAGE).unwrap()));
                            flows.push(one);
                        }
                    }
                }
            }
        }
    }
    flows
}

#[test]
fn no_rule_permits_more_than_its_source() {
    let windows: Vec<&str> =
        "DisplayName Enabled Direction Action Profile Protocol LocalPort RemotePort IcmpType LocalAddress \
        RemoteAddress Program Service Package InterfaceType InterfaceAlias LocalUser Owner Authentication"
            .split_whitespace()
            .collect();
    let snitch =
        ["action", "process", "direction", "disabled", "remote-addresses", "remote", "ports", "protocol", "via"];
    let simplewall = ["name", "is_enabled", "is_block", "dir", "protocol", "rule", "rule_local", "apps"];
    let flows = flows();
    let (mut permitted, mut refused, mut made) = (0u64, 0, 0);
    let sources = [Source::WindowsCsv, Source::WindowsJson, Source::Netsh, Source::LittleSnitch, Source::Simplewall];
    for seed in 1..=400u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let source = sources[seed as usize % sources.len()];
        let mut truths: Vec<Truth> = (0..1 + random.below(4)).map(|_| truth(&mut random)).collect();
        if source == Source::Netsh {
            // A rule that names a program is taken to be of no package, user or adapter: the text cannot show it.
            for one in truths.iter_mut().filter(|one| one.program.is_some()) {
                one.package = None;
                one.narrow = one.narrow.filter(|one| !matches!(one, Narrow::User | Narrow::Owner | Narrow::Alias));
            }
        }
        let of = |truth: &Truth, index: usize| {
            let name = format!("rule {index}");
            match source {
                Source::LittleSnitch => Some(truth.snitch(&name)),
                Source::Simplewall => truth.simplewall(&name),
                _ => Some(truth.windows(&name)),
            }
        };
        let (keys, optional): (&[&str], &[&str]) = match source {
            Source::LittleSnitch => {
                (&snitch, &["direction", "disabled", "ports", "protocol", "via", "remote-addresses"])
            }
            Source::Simplewall => (&simplewall, &simplewall),
            Source::Netsh => (&windows, &["IcmpType", "Service", "Package", "LocalUser", "Owner", "InterfaceAlias"]),
            _ => (&windows, &["IcmpType"]),
        };
        let change = change(&mut random, keys, optional);
        // A value replaced by another known one rightly means something else.
        let told =
            matches!(&change, Change::Value(_, value) | Change::Twice(_, value) if value == "deny" || value.is_empty());
        let order = random.0;
        let rules: Vec<_> = truths.iter().enumerate().filter_map(|(index, truth)| of(truth, index)).collect();
        let rules: Vec<_> = rules
            .into_iter()
            .map(|fields| changed(&mut Random(order | 1), fields, &change, source == Source::LittleSnitch))
            .collect();
        if rules.is_empty() || (told && source == Source::Simplewall) {
            continue;
        }
        let text = export(source, &rules);
        let Ok(imported) = import(source, &text) else {
            refused += 1;
            continue;
        };
        let files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        let mut policy = parse(Path::new("imported.toml"), &imported.toml, &files).unwrap_or_else(|e| panic!("{e}"));
        policy.rules.retain(|rule| rule.action == Action::Permit);
        (policy.defaults.outbound, policy.defaults.inbound) = (Action::Block, Action::Block);
        policy.defaults.essential = false; // what rules permit is looked at
        let identity = |path: &str| -> Result<String, String> { Ok(path.to_owned()) };
        let options = CompileOptions { application: &identity, key: [5; 16], at: None };
        let image = Image::validate(compile(&policy, &options).unwrap()).unwrap();
        made += 1;
        for flow in &flows {
            let decided = flow.with(&identity, |flow: &Flow<'_>| image.decide(flow)).unwrap();
            if decided.verdict == Verdict::Permit {
                permitted += 1;
                let truly = truths.iter().any(|truth| truth.permits(flow));
                assert!(truly, "seed {seed}, {change:?}: {flow}\n{text}\n{}", imported.toml);
            }
        }
    }
    // A test in which little is permitted proves little.
    assert!(permitted > 2000 && made > 150 && refused > 5, "{permitted} permitted, {made} imports, {refused} refused");
}
