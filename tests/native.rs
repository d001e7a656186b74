//! `load --native`: filters without the driver decide as the policy says.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::{net::IpAddr, path::Path, sync::Arc};

use filter_engine::{Classify, LayerData, Outcome, security::Sid, token::Token};
use nt_abi::{
    Irql,
    fwp::{
        FwpsIncomingMetadataValues0,
        value::{Blob, Incoming},
    },
};
use ntsim::{
    cpu,
    host::{LocalHost, nt_path},
    machine::Machine,
};
use proptest::{
    prelude::*,
    sample::{select, subsequence},
};
use shim::stack::Verdict as Answered;
use sluice_control::native::{self, NativeOptions};
use sluice_host::Host;
use sluice_policy::{
    AppId, CompileOptions, Direction, Flow, Identities, Name, Policy, Reference, Verdict, model::SidBuf,
};
use wire::Wire;

const OPTIONS: NativeOptions = NativeOptions { leave_out_blocks: false, test: true };

/// What rules and traffic are made of: few values, so that they meet; of networks also the first address behind them.
const ADDRESSES: [&str; 11] = [
    "192.0.2.1",
    "192.0.2.77",
    "192.0.3.0",
    "198.51.100.7",
    "198.51.100.8",
    "255.255.255.255",
    "2001:db8::1",
    "2001:db8::ff",
    "2001:db8:0:1::",
    "fe80::1",
    "ff02::1",
];
const SETS: [&str; 8] = [
    "\"192.0.2.0/24\"",
    "\"192.0.2.77\"",
    "\"192.0.2.1-198.51.100.7\"",
    "\"0.0.0.0/0\"",
    "\"2001:db8::/64\", \"192.0.2.1\"",
    "\"2001:db8::1-fe80::1\"",
    "\"::/0\"",
    "\"ff00::/8\", \"255.255.255.255\"",
];
const PORTS: [u16; 11] = [0, 3, 8, 11, 53, 67, 68, 134, 443, 547, 8080];
const PORT_SETS: [&str; 6] = ["53", "\"0-1023\"", "[443, \"8000-9000\"]", "67", "\"!443\"", "\"0-65535\""];
const PROTOCOLS: [(&str, u8); 6] = [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("igmp", 2), ("gre", 47)];
const PROGRAMS: [&str; 2] = ["/usr/bin/env", "/usr/bin/tail"];
const USERS: [&str; 5] = ["S-1-5-18", "S-1-5-19", "S-1-5-21-1-2-3-1001", "S-1-1-0", "S-1-5-32-544"];
const PACKAGES: [&str; 2] = ["S-1-15-2-1-2-3-4-5-6-7", "S-1-15-2-7-6-5-4-3-2-1"];
/// Ethernet and loopback.
const INTERFACES: [u64; 2] = [6 << 48 | 0x8000 << 24, 24 << 48];

/// A line of a rule, or none.
fn line(key: &'static str, values: Vec<String>) -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(String::new()), 1 => select(values).prop_map(move |value| format!("{key} = {value}\n"))]
}

fn quoted(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| format!("\"{one}\"")).collect()
}

fn listed(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| format!("[{one}]")).collect()
}

/// A rule that is not forwarded; with `names`, perhaps one that no filter expresses.
fn rule(names: bool) -> impl Strategy<Value = String> {
    let words = |all: [(&str, u8); 6]| all.map(|(word, _)| format!("\"{word}\"")).to_vec();
    let kind = prop_oneof![
        Just("action = \"block\"\n"),
        Just("action = \"drop\"\n"),
        Just("action = \"permit\"\n"),
        Just("action = \"permit\"\nstrength = \"hard\"\n"),
    ];
    let fields = (
        line("direction", quoted(&["outbound", "inbound", "both"])),
        line("protocol", [words(PROTOCOLS), vec!["\"any\"".into(), "[\"tcp\", 47]".into()]].concat()),
        line("remote", listed(&SETS)),
        line("local", listed(&SETS)),
        prop_oneof![
            line("remote-port", PORT_SETS.map(str::to_owned).to_vec()),
            line("local-port", PORT_SETS.map(str::to_owned).to_vec()),
            line("icmp-type", vec!["8".into(), "\"0-20\"".into(), "134".into()]),
        ],
        line("application", quoted(&PROGRAMS)),
        prop_oneof![
            line("user", quoted(&USERS)),
            line("group", vec![format!("[{}]", quoted(&USERS[..3]).join(", "))]),
            line("package", quoted(&PACKAGES)),
        ],
        line("interface", vec!["\"ethernet\"".into(), "\"loopback\"".into(), "\"type:71\"".into()]),
    );
    (kind, fields, prop::bool::weighted(if names { 0.4 } else { 0.0 })).prop_map(|(kind, f, named)| {
        let permits = kind.contains("permit");
        let name = if named && permits { "remote-name = \"example.com\"\n" } else { "" };
        // An ICMP key names its protocol, and ports want one with ports.
        let protocol = if f.4.is_empty() { f.1 } else { String::new() };
        let protocol = if named && permits { String::new() } else { protocol };
        let ports = if named && permits { String::new() } else { f.4 };
        format!("[[rule]]\n{kind}{}{protocol}{}{}{ports}{}{}{}{name}\n", f.0, f.2, f.3, f.5, f.6, f.7)
    })
}

/// A rule about packets that are passed on.
fn forward() -> impl Strategy<Value = String> {
    let fields = (line("remote", listed(&SETS)), line("local", listed(&SETS)));
    (select(vec!["permit", "block"]), fields).prop_map(|(action, (remote, local))| {
        format!("[[rule]]\naction = \"{action}\"\ndirection = \"forward\"\n{remote}{local}\n")
    })
}

fn policy(names: bool) -> impl Strategy<Value = String> {
    let default = || select(vec!["permit", "block", "drop"]);
    let rules = prop::collection::vec(prop_oneof![4 => rule(names).boxed(), 1 => forward().boxed()], 0..6);
    (default(), default(), select(vec!["permit", "block"]), any::<bool>(), rules).prop_map(
        |(outbound, inbound, forward, essential, rules)| {
            let head = format!("outbound = \"{outbound}\"\ninbound = \"{inbound}\"\nforward = \"{forward}\"\n");
            format!("[default]\n{head}essential = {essential}\n\n{}", rules.concat())
        },
    )
}

/// Traffic at one of the layers, of which everything is known.
#[derive(Clone, Debug)]
struct Traffic {
    direction: Direction,
    protocol: u8,
    local: IpAddr,
    remote: IpAddr,
    local_port: u16,
    remote_port: u16,
    program: &'static str,
    sids: Vec<&'static str>,
    package: Option<&'static str>,
    interface: u64,
    loopback: bool,
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let directions = select(Direction::ALL.into_iter().filter(|one| !one.is_local()).collect::<Vec<_>>());
    let ends = any::<bool>().prop_flat_map(|v6| {
        let of = |v6: bool| -> Vec<IpAddr> {
            ADDRESSES.iter().map(|one| one.parse().unwrap()).filter(|one: &IpAddr| one.is_ipv6() == v6).collect()
        };
        (select(of(v6)), select(of(v6)))
    });
    let ports = (select(PORTS.to_vec()), select(PORTS.to_vec()));
    let owner = (
        select(PROGRAMS.to_vec()),
        subsequence(USERS.to_vec(), 1..USERS.len()),
        prop::option::of(select(PACKAGES.to_vec())),
    );
    let rest = (select(INTERFACES.to_vec()), any::<bool>(), select(PROTOCOLS.map(|(_, number)| number).to_vec()));
    (directions, ends, ports, owner, rest).prop_map(
        |(direction, (local, remote), (local_port, remote_port), owner, (interface, loopback, protocol))| {
            let (program, sids, package) = owner;
            Traffic {
                direction,
                protocol,
                local,
                remote,
                local_port,
                remote_port,
                program,
                sids,
                package,
                interface,
                loopback,
            }
        },
    )
}

#[derive(Debug)]
struct Owner(Vec<SidBuf>);

impl Identities for Owner {
    fn each(&self, visit: &mut dyn FnMut(sluice_policy::Sid<'_>)) {
        self.0.iter().for_each(|sid| visit(sluice_policy::Sid(sid.bytes())));
    }
}

/// A policy, read, and the filters of it on a machine without the driver.
struct Setup {
    host: LocalHost,
    policy: Policy,
    left_out: usize,
}

impl Setup {
    fn load(text: &str) -> Self {
        let host = LocalHost::new(Machine::new());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.toml");
        std::fs::write(&file, text).unwrap();
        let report = native::load(&host, &file, OPTIONS).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let policy = sluice_control::read_policy(&file).unwrap();
        Self { host, policy, left_out: report.left_out.len() }
    }

    /// What the matcher decides.
    fn decided(&self, traffic: &Traffic, name: Name<'_>) -> sluice_policy::Decision {
        let application = |path: &str| self.host.app_id(path).map_err(|error| error.to_string());
        let reference =
            Reference::new(&self.policy, &CompileOptions { application: &application, key: [0; 16], at: None });
        let Traffic { direction, protocol, local, remote, local_port, remote_port, .. } = *traffic;
        let mut flow = Flow::new(direction, protocol, local, local_port, remote, remote_port);
        let program: Vec<u8> = nt_path(Path::new(traffic.program)).encode_utf16().flat_map(u16::to_le_bytes).collect();
        let sids = traffic.sids.iter().chain(&traffic.package).map(|sid| SidBuf::parse(sid).unwrap());
        let owner = Owner(sids.collect());
        if direction == Direction::Forward {
            // Nothing but addresses is asked about there.
            return reference.decide(&flow);
        }
        flow = flow.with_application(AppId(&program)).with_others(&owner).with_name(name);
        reference.decide(&flow.with_interface(traffic.interface).with_loopback(traffic.loopback))
    }

    /// What the filter engine decides.
    fn classified(&self, traffic: &Traffic) -> Outcome {
        let machine = self.host.machine();
        let engine = &machine.wfp.engine;
        let name = match traffic.direction {
            Direction::Outbound => "ALE_AUTH_CONNECT",
            Direction::Inbound => "ALE_AUTH_RECV_ACCEPT",
            Direction::Forward => "IPFORWARD",
            Direction::Listen | Direction::Bind => unreachable!("no filter is made of these"),
        };
        let version = if traffic.local.is_ipv4() { "V4" } else { "V6" };
        let layer = engine.layers().by_name(&format!("{name}_{version}")).expect("a layer");
        let mut values = Incoming::new(layer.fields.len());
        let at = |field: &str| layer.field_index(field);
        for (fields, address) in [
            (["IP_LOCAL_ADDRESS", "IP_SOURCE_ADDRESS"], traffic.local),
            (["IP_REMOTE_ADDRESS", "IP_DESTINATION_ADDRESS"], traffic.remote),
        ] {
            let index = fields.iter().find_map(|field| at(field)).expect("an address");
            match address {
                IpAddr::V4(address) => values.u32(index, address.to_bits()),
                IpAddr::V6(address) => values.bytes16(index, address.octets()),
            }
        }
        values.u64(at("IP_LOCAL_INTERFACE").expect("a field"), traffic.interface);
        values.u32(at("FLAGS").expect("a field"), u32::from(traffic.loopback));
        if traffic.direction != Direction::Forward {
            let index = |field: &str| at(field).expect("a field");
            values.u8(index("IP_PROTOCOL"), traffic.protocol);
            values.u16(index("IP_LOCAL_PORT"), traffic.local_port);
            values.u16(index("IP_REMOTE_PORT"), traffic.remote_port);
            values.blob(index("ALE_APP_ID"), Arc::new(Blob::app_id(&nt_path(Path::new(traffic.program)))));
            let sids = traffic.sids.iter().map(|sid| Sid::from_text(sid).unwrap()).collect();
            values.token(index("ALE_USER_ID"), Arc::new(Token { sids }.to_blob()));
            let package = traffic.package.map_or_else(Sid::null, |sid| Sid::from_text(sid).unwrap());
            values.sid(index("ALE_PACKAGE_ID"), package.bytes().into());
        }
        let metadata = FwpsIncomingMetadataValues0::default();
        let classify = Classify {
            layer: layer.id,
            values: values.values(),
            metadata: &metadata,
            layer_data: LayerData::None,
            flow: None,
            request: None,
        };
        cpu::enter(machine, Irql::PASSIVE, || engine.classify(&classify)).expect("the machine runs")
    }
}

const fn blocks(outcome: &Outcome) -> bool {
    matches!(outcome.verdict, filter_engine::Verdict::Block)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever all of a policy can be said in filters, they decide as the policy does, hard where it is hard.
    #[test]
    fn filters_decide_as_the_policy(text in policy(false), all in prop::collection::vec(traffic(), 48)) {
        let setup = Setup::load(&text);
        prop_assert_eq!(setup.left_out, 0);
        for traffic in &all {
            let (decision, outcome) = (setup.decided(traffic, Name::Unknown), setup.classified(traffic));
            prop_assert!(outcome.decided, "{}\n{:?}", text, traffic);
            let is = (blocks(&outcome), outcome.hard);
            prop_assert_eq!(is, (decision.verdict == Verdict::Block, decision.hard), "{}\n{:?}\n{:?}", text, traffic, decision);
        }
    }

    /// Where a rule that permits is left out, nothing passes that the policy would block, whatever name is asked for.
    #[test]
    fn what_is_left_out_opens_nothing(text in policy(true), all in prop::collection::vec(traffic(), 48)) {
        let setup = Setup::load(&text);
        for traffic in all.iter().filter(|traffic| !blocks(&setup.classified(traffic))) {
            for name in [Name::Undecidable, Name::Known(b"example.com"), Name::Known(b"example.net")] {
                let decision = setup.decided(traffic, name);
                prop_assert_eq!(decision.verdict, Verdict::Permit, "{}\n{:?}\n{:?}", text, traffic, name);
            }
        }
    }
}

#[test]
fn connections_are_refused_without_a_driver() {
    let setup = Setup::load(
        "[default]\noutbound = \"permit\"\ninbound = \"block\"\n[[rule]]\naction = \"block\"\nremote = [\"203.0.113.66\", \
         \"2001:db8:1::66\"]\n",
    );
    let mut wire = Wire::new(setup.host.machine());
    for (blocked, permitted) in [("203.0.113.66", "203.0.113.10"), ("2001:db8:1::66", "2001:db8:1::10")] {
        assert_eq!(wire.connect(blocked, 443).0, Answered::Refuse, "{blocked}");
        wire.establish(permitted, 443);
    }
    wire.finish();
    assert!(native::unload(&setup.host).unwrap().is_some());
    let mut wire = Wire::new(setup.host.machine());
    wire.establish("203.0.113.66", 443);
    wire.finish();
}

const OFFICE: &str = r#"
[default]
outbound = "permit"
inbound = "block"

[[rule]]
name = "here"
action = "permit"
remote = "127.0.0.1"
remote-port = PORT

[[rule]]
name = "named"
action = "permit"
remote-name = "example.com"
"#;

#[test]
fn the_command_loads_shows_and_unloads_filters() {
    let served = served::served();
    let policy = served.file("office.toml", &OFFICE.replace("PORT", "443"));
    let report = served.json(0, &["load", "--native", &policy]);
    assert_eq!(report["left_out"][0]["rule"], "named");
    let status = served.json(0, &["status"]);
    assert_eq!(status["native"]["filters"], report["filters"]);
    assert_eq!(status["native"]["changed"], serde_json::json!([]));
    let text = served.run(0, &["status"]).out;
    assert!(text.contains("filters decide without the driver") && text.contains("office.toml, loaded"), "{text}");
    let doctor = served.run(0, &["doctor"]).out;
    assert!(doctor.contains("filters decide without the driver"), "{doctor}");
    let shown = served.run(0, &["filters", "remoteport=443", "remoteaddr=127.0.0.1", "protocol=tcp"]).out;
    assert!(shown.contains("rule `here`"), "{shown}");

    let wrong = served.file("wrong.toml", "[[rule]]\naction = \"block\"\nremote-name = \"example.com\"\n");
    let refused = served.run(4, &["load", "--native", &wrong]);
    assert!(refused.error.contains("wrong.toml:1") && refused.error.contains("asks for a name"), "{}", refused.error);
    served.run(0, &["load", "--native", "--leave-out-blocks", &wrong]);
    let driver = support::driver();
    let beside = served.run(1, &["install", driver.to_str().unwrap()]);
    assert!(beside.error.contains("lets everything pass"), "{}", beside.error);
    served.run(0, &["unload"]);
    served.run(0, &["unload"]);
    served.is_clean();

    served.run(0, &["load", "--native", &policy]);
    served.run(0, &["uninstall"]);
    assert!(served.json(3, &["status"]).get("native").is_none());
    served.is_clean();
}

#[test]
fn a_drop_is_joined_to_its_filter_and_the_rule_with_its_line() {
    let served = served::served();
    let text = "[default]\noutbound = \"permit\"\n\n[[rule]]\nname = \"quarantine\"\naction = \"block\"\nremote = \"203.0.113.66\"\n";
    let policy = served.file("policy.toml", text);
    served.run(0, &["load", "--native", &policy]);
    let mut wire = Wire::new(&served.machine);
    assert_eq!(wire.connect("203.0.113.66", 443).0, Answered::Refuse);
    wire.finish();
    let event = served.json(0, &["netevents", "remoteaddr=203.0.113.66", "--policy", &policy]);
    assert_eq!(
        (&event["filter"]["name"], &event["rule"]["line"]),
        (&"Sluicegate native, rule `quarantine`".into(), &4.into())
    );
    assert_eq!(event["filter"]["description"], format!("{policy}:4"));

    // A sublayer above theirs wins over them, too.
    let mut engine = served.host.open_engine().unwrap();
    let key = sluice_host::Guid(7);
    engine
        .add_sublayer(&sluice_host::Sublayer {
            key,
            name: "rival".into(),
            description: String::new(),
            persistent: false,
            provider: None,
            weight: u16::MAX,
        })
        .unwrap();
    let mut filter = native::translate(
        &sluice_control::read_policy(Path::new(&policy)).unwrap(),
        &CompileOptions { application: &|path: &str| Ok(path.to_owned()), key: [0; 16], at: None },
    )
    .filters
    .remove(0);
    (filter.key, filter.flags, filter.provider, filter.sublayer) = (None, 0, None, key);
    engine.add_filter(&filter).unwrap();
    drop(engine);
    let warnings = served.json(0, &["doctor"])["warnings"].to_string();
    assert!(warnings.contains("rival") && warnings.contains("is evaluated before ours"), "{warnings}");
}

#[test]
fn verify_connects_to_what_is_allowed_and_to_nothing_else() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    let served = served::served();
    let policy = served.file("office.toml", &OFFICE.replace("PORT", &remote.port().to_string()));
    served.run(0, &["load", "--native", &policy]);

    let refused = served.run(2, &["verify", &policy]).error;
    assert!(refused.contains("no connection is allowed"), "{refused}");
    let listed = served.json(0, &["verify", &policy, "--dry-run", "--to", "192.0.2.1:443"]);
    assert_eq!(listed["endpoints"][1]["remote"], remote.to_string());
    assert_eq!((&listed["endpoints"][0]["allowed"], &listed["endpoints"][1]["allowed"]), (&true.into(), &false.into()));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody connected");

    let verified = served.json(0, &["verify", &policy, "--allow", "127.0.0.0/8"]);
    let [one] = verified["verified"].as_array().unwrap().as_slice() else { panic!("{verified}") };
    assert_eq!((&one["happened"], &one["judgement"]), (&"connected".into(), &"as_expected".into()));
    assert!(one["by"].as_str().unwrap().contains("here"), "{one}");
    assert!(listener.accept().is_ok());

    // This connection is not decided by the simulated machine, so a policy that blocks it is not what happens.
    let blocks =
        served.file("blocks.toml", "[[rule]]\nname = \"none\"\naction = \"block\"\nremote = \"127.0.0.0/8\"\n");
    let text = served.run(1, &["verify", &blocks, "--to", &remote.to_string()]).out;
    assert!(text.contains("otherwise") && text.contains("0 of 1 as expected"), "{text}");
}
