//! The command and the driver decide alike: random policies, flows and ways to write a program's path. What `explain` says
//! of a flow, `test` holds; and the real driver does it, whether the policy came by `load` or by `compile`.
//!
//! `SLUICE_POLICIES` sets how many policies are tried; a failure names its seed.

#[path = "support/hello.rs"]
mod hello;
mod support;
#[path = "support/wire.rs"]
mod wire;

use hello::{hello, question};
use ntsim::host::nt_path;
use serde_json::Value;
use shim::{flow::Owner, layer::Direction, stack::Verdict};
use sluice_control::{load, load_image};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use support::Rig;
use tempfile::TempDir;
use wire::{Segment, Tcp, Wire, ping, udp};

/// Xorshift: a seed is the same policy everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

const PROGRAMS: [&str; 4] = ["one.exe", "Two.exe", "deep/three.exe", "deep/er/four.exe"];
const REMOTES: [&str; 4] = ["203.0.113.10", "203.0.113.66", "2001:db8:1::10", "2001:db8:1::66"];
/// What flows ask for: two names that rules list and one that none does, and nothing that can be read.
const NAMES: [&str; 4] = ["a.example", "x.b.example", "c.example", "undecidable"];
const PORTS: [u16; 3] = [53, 80, 443];
/// What the token of a Unix user has in ntsim.
const EVERY_USER: [&str; 2] = ["S-1-5-32-545", "S-1-5-11"];

/// A folder of programs on the simulated machine's drive C:.
struct Programs(TempDir);

impl Programs {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for program in PROGRAMS {
            let path = folder.path().join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        Self(folder)
    }

    fn path(&self, program: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(program)
    }

    /// As Windows writes it.
    fn on_drive(&self, program: &str) -> String {
        format!("C:{}", self.path(program).to_str().unwrap().replace('/', "\\"))
    }

    /// The same program in one of the ways in which people write it, or something that is not there.
    fn written(&self, random: &mut Random) -> String {
        let path = self.on_drive(random.pick::<&str>(&PROGRAMS));
        let (folder, name) = path.rsplit_once('\\').unwrap();
        match random.below(9) {
            0 => path.replace('\\', "/"),
            1 => format!("{folder}\\\\{name}"),
            2 => format!("{folder}\\.\\none\\..\\{name}"),
            3 => format!(r"\\?\{path}"),
            4 => format!("{folder}\\*"),
            5 => format!("c{}", &path[1..]),
            6 => r"C:\no\such\program.exe".to_owned(),
            _ => path,
        }
    }
}

fn policy(random: &mut Random, programs: &Programs) -> String {
    let action = |random: &mut Random| *random.pick(&["permit", "block", "drop"]);
    let mut text = format!(
        "[default]\noutbound = \"{}\"\ninbound = \"{}\"\nessential = {}\n[list.bad]\nentries = [\"203.0.113.64/26\", \
         \"2001:db8:1::60-2001:db8:1::6f\"]\n",
        action(random),
        action(random),
        random.chance(80)
    );
    for number in 0..random.below(7) {
        writeln!(text, "[[rule]]\nname = \"rule {number}\"\naction = \"{}\"", action(random)).unwrap();
        let mut key = |key: &str, value: String| writeln!(text, "{key} = {value}").unwrap();
        if random.chance(10) {
            key("enabled", "false".to_owned());
        }
        if random.chance(40) {
            key("direction", format!("{:?}", random.pick(&["outbound", "inbound"])));
        }
        if random.chance(50) {
            let remote =
                *random.pick(&["@bad", "203.0.113.0/24", "2001:db8:1::10", "!203.0.113.10", "ipv6", "@private"]);
            key("remote", format!("{remote:?}"));
        }
        match random.below(8) {
            0 => key("protocol", "\"udp\"".to_owned()),
            1 => key("remote-port", "[53, \"400-500\"]".to_owned()),
            4 | 5 => {
                key("remote-name", format!("{:?}", random.pick(&[".a.example", ".b.example", "*.b.example"])));
                if random.chance(30) {
                    key("when-undecidable", "\"match\"".to_owned());
                }
            }
            2 => key("local-port", "[80, \"!40000\"]".to_owned()),
            3 => key("icmp-type", "[8, 128]".to_owned()),
            _ => {}
        }
        if random.chance(35) {
            key("application", format!("['{}', '{}']", programs.written(random), programs.written(random)));
        }
        if random.chance(25) {
            key("user", format!("{:?}", random.pick(&["S-1-22-1-1000", "SYSTEM", "Users", "Everyone"])));
        }
        if random.chance(15) {
            key("interface", format!("{:?}", random.pick(&["ethernet", "wireless", "luid:0x6008000000000"])));
        }
    }
    text
}

/// A flow as the driver sees it and as the command is told of it.
struct Case {
    program: &'static str,
    uid: Option<u32>,
    direction: Direction,
    remote: &'static str,
    port: u16,
    protocol: &'static str,
    name: &'static str,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        Self {
            program: *random.pick(&PROGRAMS),
            uid: *random.pick(&[None, Some(0), Some(1000), Some(1001)]),
            direction: *random.pick(&[Direction::Outbound, Direction::Outbound, Direction::Inbound]),
            remote: *random.pick(&REMOTES),
            port: *random.pick(&PORTS),
            protocol: *random.pick(&["tcp", "tcp", "udp", "icmp"]),
            name: *random.pick(&NAMES),
        }
    }

    /// What it asks for; only TCP and UDP ask.
    fn name(&self) -> Option<&'static str> {
        (self.protocol != "icmp").then_some(self.name)
    }

    /// What a client of it says first.
    fn first_words(&self) -> &'static [u8] {
        Box::leak(match (self.protocol, self.name) {
            (_, "undecidable") => b"SSH-2.0-client\r\n".to_vec().into_boxed_slice(),
            ("udp", name) => question(1, name).into(),
            (_, name) if self.port == 443 => hello(name, 100).into(),
            (_, name) => format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes().into(),
        })
    }

    /// The verdict on a connection and on what its client says first.
    fn talks(&self, wire: &mut Wire) -> Verdict {
        let (mut tcp, client) = match self.direction {
            Direction::Outbound => (Tcp::new(self.remote, self.port, 50_000), Direction::Outbound),
            Direction::Inbound => (Tcp::new(self.remote, 50_000, self.port), Direction::Inbound),
        };
        let server = client.reverse();
        let steps = [
            (Segment::Syn, client),
            (Segment::SynAck, server),
            (Segment::Ack, client),
            (Segment::Data(self.first_words()), client),
        ];
        for (segment, direction) in steps {
            let packet = tcp.packet(segment, direction);
            match wire.pass(&packet, direction).verdict {
                Verdict::Forward | Verdict::Relayed => {}
                stopped => return stopped,
            }
        }
        Verdict::Forward
    }

    /// What becomes of its first packets on the driver.
    fn happens(&self, rig: &Rig, programs: &Programs) -> &'static str {
        let owner = Owner { pid: 7, app_id: nt_path(&programs.path(self.program)).into(), uid: self.uid };
        let mut wire = Wire::of_owner(&rig.machine, owner);
        let verdict = match (self.protocol, self.direction) {
            ("tcp", _) => self.talks(&mut wire),
            ("udp", direction) => {
                wire.pass(&udp(self.remote, self.port, direction, self.first_words()), direction).verdict
            }
            (_, _) => wire.pass(&ping(self.remote), Direction::Outbound).verdict,
        };
        wire.finish();
        if verdict == Verdict::Forward { "permit" } else { "block" }
    }

    /// Its ends as the command takes them.
    fn ends(&self) -> (String, String) {
        let local = if self.remote.contains(':') { "fd77::2" } else { "10.77.0.2" };
        let end = |address: &str, port: u16| {
            if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
        };
        let ports = match (self.protocol, self.direction) {
            ("tcp", Direction::Outbound) => (50_000, self.port),
            ("tcp", Direction::Inbound) => (self.port, 50_000),
            ("udp", _) => (40_000, self.port),
            _ => (if self.remote.contains(':') { 128 } else { 8 }, 0),
        };
        (end(local, ports.0), end(self.remote, ports.1))
    }

    fn users(&self) -> Vec<String> {
        match self.uid {
            None => Vec::new(),
            Some(0) => vec!["S-1-5-18".to_owned()],
            Some(uid) => {
                let mut all = vec![format!("S-1-22-1-{uid}")];
                all.extend(EVERY_USER.map(str::to_owned));
                all
            }
        }
    }

    fn is_inbound(&self) -> bool {
        self.direction == Direction::Inbound && self.protocol != "icmp"
    }

    fn explained(&self, file: &Path, programs: &Programs) -> Value {
        let (local, remote) = self.ends();
        let mut command = sluice(&["policy", "explain", "--json", file.to_str().unwrap()]);
        command.arg(format!("--{}", self.protocol)).args([local, remote]);
        command.args(["--interface", "luid:0x6008000000000", "--app", &programs.on_drive(self.program)]);
        for user in self.users() {
            command.args(["--user", &user]);
        }
        if self.is_inbound() {
            command.arg("--inbound");
        }
        if let Some(name) = self.name() {
            command.args(["--name", name]);
        }
        serde_json::from_slice(&succeeded(command.output().unwrap()).stdout).unwrap()
    }

    fn expectation(&self, programs: &Programs, verdict: &str, rule: &str) -> String {
        let (local, remote) = self.ends();
        let protocol = if self.protocol == "icmp" && self.remote.contains(':') { "icmpv6" } else { self.protocol };
        let direction = if self.is_inbound() { "inbound" } else { "outbound" };
        let mut text = format!(
            "[[expect]]\nprotocol = {protocol:?}\ndirection = {direction:?}\nlocal = {local:?}\nremote = {remote:?}\n\
             application = '{}'\ninterface = \"luid:0x6008000000000\"\nverdict = {verdict:?}\nrule = {rule:?}\n",
            programs.on_drive(self.program)
        );
        if let Some(name) = self.name() {
            writeln!(text, "remote-name = {name:?}").unwrap();
        }
        if self.uid.is_some() {
            writeln!(text, "user = {:?}", self.users()).unwrap();
        }
        text
    }
}

fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).env_remove("NTSIM_SOCKET");
    command
}

fn succeeded(output: Output) -> Output {
    let printed = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    output
}

#[test]
fn explain_test_check_compile_and_the_driver_decide_alike() {
    let policies = std::env::var("SLUICE_POLICIES").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let (rig, programs, files) = (Rig::install(), Programs::new(), TempDir::new().unwrap());
    let (file, image) = (files.path().join("policy.toml"), files.path().join("image"));
    let mut seen = [0; 3];
    for seed in 1..=policies {
        let random = &mut Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let text = policy(random, &programs);
        fs::write(&file, &text).unwrap();
        succeeded(sluice(&["policy", "check", file.to_str().unwrap()]).output().unwrap());
        let cases: Vec<Case> = (0..12).map(|_| Case::new(random)).collect();
        let (mut said, mut expectations) = (Vec::new(), String::new());
        for case in &cases {
            let explained = case.explained(&file, &programs);
            let decision = &explained["decision"];
            let verdict = decision["verdict"].as_str().unwrap();
            let action = if decision["silent"] == true { "drop" } else { verdict };
            let default = if decision["essential"].is_string() { "essential" } else { "default" };
            let rule = explained["rule"].as_str().unwrap_or(default);
            seen[if rule == default { 0 } else { 1 }] += 1;
            seen[2] += u32::from(verdict == "permit");
            expectations += &case.expectation(&programs, action, rule);
            said.push(verdict.to_owned());
        }
        let happens = || cases.iter().map(|case| case.happens(&rig, &programs).to_owned()).collect::<Vec<_>>();
        load(&rig.host, &file).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        assert_eq!(happens(), said, "explain and the driver, seed {seed}\n{text}{expectations}");

        let drive = r"C:=\Device\HarddiskVolume1";
        let compile = ["policy", "compile", file.to_str().unwrap(), "--drive", drive, "-o", image.to_str().unwrap()];
        succeeded(sluice(&compile).output().unwrap());
        load_image(&rig.host, &fs::read(&image).unwrap()).unwrap();
        assert_eq!(happens(), said, "explain and a compiled image, seed {seed}\n{text}{expectations}");

        fs::write(&file, format!("{text}{expectations}")).unwrap();
        let tested = sluice(&["policy", "test", file.to_str().unwrap()]).output().unwrap();
        let printed = String::from_utf8_lossy(&tested.stdout);
        assert!(tested.status.success(), "explain and test, seed {seed}\n{printed}{text}{expectations}");
    }
    // Policies that decide everything in one way would prove little.
    let [default, rule, permitted] = seen;
    let all = default + rule;
    assert!(default * 5 > all && rule * 5 > all && permitted * 5 > all && permitted * 5 < all * 4, "{seen:?}");
    rig.uninstall();
}
