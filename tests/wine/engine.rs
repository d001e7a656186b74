//! The calls that sluice.exe makes to the Base Filtering Engine, taken down by a fwpuclnt.dll of the tests
//! (`fwpuclnt.c`), have the arguments that ntsim's engine receives for the same verbs.
//!
//! The program loads fwpuclnt.dll from System32 and from nowhere else; here System32 is Wine's prefix, which the test owns.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use ntsim::{host::LocalHost, machine::Machine};
use sluice_control::native::{self, NativeOptions};
use sluice_host::{Host, ServiceConfig, StartType};
use sluice_protocol::{PROTOCOL_VERSION, SERVICE_NAME, Status};
use tempfile::TempDir;
use zerocopy::{FromZeros, IntoBytes};

use super::{WINE, begin, ended, found, products, record::Recorded, sluice, support};

/// Everything that a rule can say and a filter too.
const POLICY: &str = r#"
[default]
outbound = "block"
inbound = "drop"
forward = "block"

[[rule]]
name = "everything"
action = "permit"
strength = "hard"
direction = "outbound"
protocol = ["tcp", "udp"]
remote = ["192.0.2.0/24", "198.51.100.7", "203.0.113.10-203.0.113.12", "2001:db8::/32", "2001:db8:1::5-2001:db8:1::9"]
local = "10.0.0.0/8"
remote-port = [443, "8000-8080"]
application = ['\Device\HarddiskVolume3\Windows\System32\curl.exe', 'System']
user = ["S-1-5-18", "S-1-5-21-1-2-3-1001"]
interface = ["ethernet", "luid:0x6008000000000"]

[[rule]]
name = "a package"
action = "block"
package = "Microsoft.WindowsStore_8wekyb3d8bbwe"

[[rule]]
name = "a service"
action = "block"
service = "Dnscache"
icmp-type = 8

[[rule]]
name = "passed on"
action = "permit"
direction = "forward"
remote = ["192.0.2.0/24", "2001:db8::/32"]
"#;

/// A Wine prefix of its own, with our fwpuclnt.dll in its System32 and our driver in its kernel.
struct Prefix {
    folder: TempDir,
}

impl Prefix {
    fn new() -> Self {
        let prefix = Self { folder: TempDir::new().unwrap() };
        begin(prefix.folder.path());
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wine");
        let library = prefix.at("drive_c/windows/system32/fwpuclnt.dll");
        compile(&tests.join("fwpuclnt.c"), &library, &["-shared", "-O1", "-w", "-ladvapi32"]);
        let status = Status { protocol_version: PROTOCOL_VERSION, ..Status::new_zeroed() };
        let bytes: Vec<String> = status.as_bytes().iter().map(u8::to_string).collect();
        let status = format!("-DSTATUS={}", bytes.join(","));
        let native =
            ["-nostdlib", "-Wl,--subsystem,native", "-Wl,--dynamicbase", "-Wl,-e,DriverEntry", "-lntoskrnl", &status];
        compile(&tests.join("driver.c"), &prefix.at("drive_c/windows/system32/drivers/sluice.sys"), &native);
        prefix
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A program in this prefix.
    fn in_it(&self, mut command: Command) -> Command {
        let file = |name: &str| format!("Z:{}", self.at(name).display()).replace('/', "\\");
        command
            .env("WINEPREFIX", self.folder.path())
            .env("WINEDLLOVERRIDES", "mscoree,mshtml=;fwpuclnt,netsh.exe=n")
            .env("FWPUCLNT_RECORD", file("record.txt"))
            .env("FWPUCLNT_OBJECTS", file("objects.bin"));
        command
    }

    /// A program of Wine's.
    fn windows(&self, arguments: &[&str]) {
        let wine = found(&WINE).expect("Wine");
        let mut command = Command::new(wine);
        command.args(arguments).env("WINEPATH", products().join("wine")).env("WINEDEBUG", "-all").env_remove("DISPLAY");
        let output = self.in_it(command).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn sluice(&self, arguments: &[&str]) -> Output {
        self.in_it(sluice().unwrap()).args(arguments).output().unwrap()
    }

    /// The same, once the driver that was started is there: 3 says that it is not yet.
    fn once_loaded(&self, arguments: &[&str]) -> Output {
        let start = Instant::now();
        loop {
            let output = self.sluice(arguments);
            if output.status.code() != Some(3) || start.elapsed() > Duration::from_secs(30) {
                return output;
            }
        }
    }

    /// What was taken down since the last time.
    fn record(&self) -> String {
        let file = self.at("record.txt");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        text.replace("\r\n", "\n")
    }
}

fn compile(source: &Path, output: &Path, arguments: &[&str]) {
    let mut compiler = Command::new("x86_64-w64-mingw32-gcc");
    let include = ["-I/usr/x86_64-w64-mingw32/include/ddk", "-I/usr/share/mingw-w64/include/ddk"];
    let status = compiler.args(include).arg("-o").arg(output).arg(source).args(arguments).status().unwrap();
    assert!(status.success(), "{}", source.display());
}

/// A record as both sides should have it: the order of deletions is that of an enumeration, which means nothing; when and
/// from where a policy was loaded is each side's own.
fn normal(record: &str) -> Vec<String> {
    let mut lines: Vec<String> = record
        .lines()
        .map(|line| match (line.split_once(" description=["), line.starts_with("FwpmProviderAdd0")) {
            (Some((head, rest)), true) if rest.contains(", loaded ") => {
                format!("{head} {}", rest.split_once(']').expect("its end").1)
            }
            _ => line.replace(r"Z:\", "/").replace('\\', "/"),
        })
        .collect();
    let delete = |line: &String| line.starts_with("FwpmFilterDeleteByKey0");
    for run in lines.chunk_by_mut(|a, b| delete(a) && delete(b)) {
        if run.len() > 1 {
            run.sort_unstable();
        }
    }
    lines
}

#[test]
fn the_calls_of_install_load_native_and_uninstall_are_those_that_ntsim_receives() {
    let Some(_) = sluice() else { return };
    let prefix = Prefix::new();
    let file = prefix.at("policy.toml");
    fs::write(&file, POLICY).unwrap();

    // Without the driver: loaded, replaced, and unloaded.
    let host = Recorded::new(LocalHost::new(Machine::new()));
    let compare = |what: &str, least: usize, filters: &str| {
        let windows = prefix.record();
        let (windows, here) = (normal(&windows), normal(&host.record.take()));
        assert_eq!(windows, here, "{what}");
        assert!(windows.iter().filter(|line| line.starts_with(filters)).count() >= least, "{what}: {windows:#?}");
    };
    let options = NativeOptions { leave_out_blocks: false, test: true };
    for what in ["load --native", "load --native again"] {
        ended(&prefix.sluice(&["load", "--native", &file.display().to_string()]), 0);
        native::load(&host, &file, options).unwrap();
        compare(what, 25, "FwpmFilterAdd0");
    }
    ended(&prefix.sluice(&["unload"]), 0);
    native::unload(&host).unwrap();
    compare("unload", 25, "FwpmFilterDeleteByKey0");

    // `install` refuses a driver without a signature, as Wine asks for one and has no test signing; what it has the Base
    // Filtering Engine do is what `enable` does for a driver that is loaded.
    let image = r"\SystemRoot\System32\drivers\sluice.sys";
    prefix.windows(&["sc", "create", SERVICE_NAME, "type=", "kernel", "start=", "demand", "binPath=", image]);
    prefix.windows(&["sc", "start", SERVICE_NAME]);
    ended(&prefix.once_loaded(&["enable"]), 0);
    host.host.write_driver("sluice.sys", &fs::read(support::driver()).unwrap()).unwrap();
    let config = ServiceConfig {
        name: SERVICE_NAME.to_owned(),
        display_name: SERVICE_NAME.to_owned(),
        driver: image.to_owned(),
        start: StartType::Demand,
    };
    host.host.create_service(&config).unwrap();
    host.host.start_service(SERVICE_NAME).unwrap();
    sluice_control::enable(&host).unwrap();
    compare("install", 20, "FwpmFilterAdd0");

    ended(&prefix.sluice(&["uninstall"]), 0);
    sluice_control::uninstall(&host).unwrap();
    compare("uninstall", 20, "FwpmFilterDeleteByKey0");
}

#[test]
fn a_capture_is_that_of_netsh_from_system32() {
    let Some(_) = sluice() else { return };
    let prefix = Prefix::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wine/netsh.c");
    compile(&source, &prefix.at("drive_c/windows/system32/netsh.exe"), &[]);
    let (out, _) = ended(&prefix.sluice(&["capture", "start", r"C:\a b.cab"]), 0);
    assert!(out.starts_with("Starting capture\n") && out.contains("sluice capture stop"), "{out}");
    ended(&prefix.sluice(&["capture", "stop"]), 0);
    assert_eq!(prefix.record(), "[wfp][capture][start][cab=on][file=C:\\a b.cab]\n[wfp][capture][stop]\n");
    ended(&prefix.sluice(&["capture", "stop"]), 0);
    let (_, error) = ended(&prefix.sluice(&["capture", "stop"]), 1);
    assert!(error.contains("netsh wfp capture: No capture is in progress."), "{error}");

    fs::write(prefix.at("drive_c/there.cab"), "").unwrap();
    let (_, error) = ended(&prefix.sluice(&["capture", "start", r"C:\there.cab"]), 4);
    assert!(error.contains("exists already"), "{error}");
}
