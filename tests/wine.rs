//! The cross-built sluice.exe under Wine: what it does without a driver.
//!
//! `./dev test` builds it and Wine's missing library, and installs Wine. Elsewhere these tests say what is missing and
//! pass; with `CI` set they fail instead.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "wine/engine.rs"]
mod engine;
#[path = "wine/record.rs"]
mod record;
#[path = "wine/same.rs"]
mod same;
mod support;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// Where Debian and other distributions put Wine.
const WINE: [&str; 4] = ["/usr/lib/wine/wine64", "/usr/bin/wine64", "/usr/bin/wine", "/usr/local/bin/wine"];

/// And its server, which a prefix's programs share.
const SERVER: [&str; 4] =
    ["/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver", "/usr/bin/wineserver", "/usr/local/bin/wineserver"];

/// Where one of these is.
fn found(places: &[&'static str]) -> Option<&'static Path> {
    places.iter().copied().map(Path::new).find(|path| path.is_file())
}

/// Makes a prefix, and has its server and services stay for a while after each program instead of starting again for the
/// next. They are started with no output of the test's own: who waits for the end of a program's output would wait for
/// theirs.
fn begin(prefix: &Path) {
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("WINEPREFIX", prefix).env("WINEDEBUG", "-all").env_remove("DISPLAY");
        command.env("WINEDLLOVERRIDES", "mscoree,mshtml=");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("Wine runs");
    };
    if let Some(server) = found(&SERVER) {
        run(server, &["-p15"]);
    }
    // Windows 7 is what Wine is by default, and too old for sluice.exe.
    let wine = found(&WINE).expect("Wine");
    run(wine, &["reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]);
}

fn products() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sluice")
}

/// A command that runs sluice.exe, or `None` if that is not possible.
fn sluice() -> Option<Command> {
    wine(&products().join("x86_64/sluice.exe"))
}

/// A command that runs a Windows program, or `None` if that is not possible.
fn wine(exe: &Path) -> Option<Command> {
    static PREFIX: OnceLock<TempDir> = OnceLock::new();
    let wine = found(&WINE);
    let (Some(wine), true) = (wine, exe.is_file()) else {
        let missing = if wine.is_none() { "Wine".to_owned() } else { exe.display().to_string() };
        assert!(env::var_os("CI").is_none(), "{missing} is missing: run `./dev test`, which provides it");
        eprintln!("skipped: {missing} is missing");
        return None;
    };
    // Wine refuses a prefix in a folder of another user, and makes one on first use.
    let prefix = PREFIX.get_or_init(|| {
        let folder = TempDir::new().expect("a folder for Wine");
        begin(folder.path());
        folder
    });
    let mut command = Command::new(wine);
    command
        .arg(exe)
        .env("WINEPREFIX", prefix.path())
        .env("WINEPATH", products().join("wine"))
        .env("WINEDEBUG", "-all")
        .env("WINEDLLOVERRIDES", "mscoree,mshtml=")
        .env_remove("DISPLAY");
    Some(command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

fn ended(output: &Output, status: i32) -> (String, String) {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{out}{error}");
    (out, error)
}

#[test]
fn sluice_exe_runs_without_a_driver() {
    let Some(mut command) = sluice() else { return };
    let (out, _) = ended(&command.arg("--help").output().unwrap(), 0);
    assert!(out.contains("Usage: sluice"), "{out}");
    assert!(!out.contains("--machine"), "Windows acts on itself: {out}");

    let files = TempDir::new().unwrap();
    let policy = files.path().join("policy.toml");
    let good = "[default]\noutbound = \"permit\"\n[[rule]]\nname = \"no curl\"\naction = \"block\"\n\
                application = 'C:\\Windows\\System32\\curl.exe'\n";
    std::fs::write(&policy, good).unwrap();
    let mut command = sluice().unwrap();
    let (out, _) = ended(&command.args(["load", "--check"]).arg(&policy).output().unwrap(), 0);
    assert!(out.starts_with("valid: ") && out.contains(" with 1 rules, "), "{out}");

    std::fs::write(&policy, "[default]\noutbound = \"allow\"\n").unwrap();
    let mut command = sluice().unwrap();
    let (_, error) = ended(&command.args(["load", "--check"]).arg(&policy).output().unwrap(), 4);
    assert!(error.contains("policy.toml:2:12"), "{error}");
    assert!(error.contains("expected `permit`, `block` or `drop`"), "{error}");
}

/// What sluice.exe may import at load time: libraries that Windows never searches for beside a program. These are the
/// KnownDLLs with their own imports (bcryptprimitives.dll through rpcrt4.dll), and the names of API sets.
const KNOWN: [&str; 8] = [
    "advapi32.dll",
    "api-ms-win-core-synch-l1-2-0.dll",
    "bcryptprimitives.dll",
    "kernel32.dll",
    "msvcrt.dll",
    "ntdll.dll",
    "user32.dll",
    "ws2_32.dll",
];

/// What it loads at run time, or would with another build's imports.
const PLANTED: [&str; 6] = ["fwpuclnt.dll", "wintrust.dll", "crypt32.dll", "userenv.dll", "bcrypt.dll", "version.dll"];

/// A library that leaves a file beside itself when loaded.
const MARK: &str = r#"
#include <windows.h>
#include <string.h>
BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, LPVOID reserved) {
    if (reason == DLL_PROCESS_ATTACH) {
        char path[MAX_PATH];
        GetModuleFileNameA(self, path, sizeof path - 8);
        strcat(path, ".loaded");
        CloseHandle(CreateFileA(path, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL));
    }
    return TRUE;
}
__declspec(dllexport) void FwpmFreeMemory0(void **memory) { (void)memory; }
"#;

/// Imports a library as sluice.exe once did.
const VICTIM: &str = "
void FwpmFreeMemory0(void **memory);
int main(void) { void *memory = 0; FwpmFreeMemory0(&memory); return 0; }
";

fn compile(folder: &Path, source: &str, arguments: &[&str]) {
    std::fs::write(folder.join("source.c"), source).unwrap();
    let mut compiler = Command::new("x86_64-w64-mingw32-gcc");
    let status = compiler.current_dir(folder).arg("source.c").args(arguments).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

fn loaded(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".loaded")).collect()
}

#[test]
fn a_library_beside_the_program_is_not_loaded() {
    let Some(command) = sluice() else { return };
    let listing = Command::new("x86_64-w64-mingw32-objdump").arg("-p").args(command.get_args()).output().unwrap();
    for line in text(&listing.stdout).lines().filter_map(|line| line.trim().strip_prefix("DLL Name: ")) {
        assert!(KNOWN.contains(&line.to_lowercase().as_str()), "{line} could be planted beside sluice.exe");
    }

    let folder = TempDir::new().unwrap();
    for library in PLANTED {
        compile(folder.path(), MARK, &["-shared", "-o", library]);
    }
    // The file appears when a library is searched for in the default order.
    compile(folder.path(), VICTIM, &["-o", "victim.exe", "-lfwpuclnt"]);
    std::fs::copy(products().join("x86_64/sluice.exe"), folder.path().join("sluice.exe")).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = wine(&folder.path().join(program)).unwrap();
        command.args(arguments).current_dir(folder.path()).output().unwrap()
    };
    run("victim.exe", &[]);
    assert_eq!(loaded(folder.path()), ["fwpuclnt.dll.loaded"], "the test can fail");
    std::fs::remove_file(folder.path().join("fwpuclnt.dll.loaded")).unwrap();

    let driver = folder.path().join("sluice.sys");
    std::fs::copy(products().join("x86_64/sluice.sys"), &driver).unwrap();
    for arguments in [&["status"][..], &["install", "--dry-run"], &["uninstall"], &["events"]] {
        let output = run("sluice.exe", arguments);
        assert_ne!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert_eq!(loaded(folder.path()), [""; 0], "{arguments:?}");
    }
}

/// A bundle is the same bytes wherever it is made, and a secret key is not the folder's.
#[test]
fn bundles_are_those_of_linux() {
    let Some(_) = sluice() else { return };
    let files = TempDir::new().unwrap();
    std::fs::write(files.path().join("p.toml"), "[default]\noutbound = \"block\"\n").unwrap();
    let windows = |status, arguments: &[&str]| {
        ended(&sluice().unwrap().args(arguments).current_dir(files.path()).output().unwrap(), status)
    };
    windows(0, &["bundle", "keygen", "f.key"]);
    let secret = std::fs::read(files.path().join("f.key")).unwrap();
    assert!(windows(1, &["bundle", "keygen", "f.key"]).1.contains("nothing was written"));
    assert_eq!(std::fs::read(files.path().join("f.key")).unwrap(), secret);
    {
        // Wine shows others' rights by the descriptor that was asked for: nobody else has any.
        use std::os::unix::fs::PermissionsExt;
        let mode = |name: &str| std::fs::metadata(files.path().join(name)).unwrap().permissions().mode();
        assert_eq!((mode("f.key") & 0o007, mode("f.pub") & 0o004), (0, 0o004));
    }
    let make = |output| ["bundle", "make", "p.toml", "--version", "3", "--key", "f.key", "-o", output];
    windows(0, &make("windows.bundle"));
    let linux =
        Command::new(env!("CARGO_BIN_EXE_sluice")).args(make("linux.bundle")).current_dir(files.path()).output();
    ended(&linux.unwrap(), 0);
    let read = |name: &str| std::fs::read(files.path().join(name)).unwrap();
    assert!(read("windows.bundle") == read("linux.bundle"), "they differ");
    windows(0, &["bundle", "verify", "linux.bundle", "--key", "f.pub"]);
}

/// Wine's Service Control Manager starts it, it says in its file that there is no driver, and it goes away.
#[test]
fn the_service_is_installed_runs_and_is_removed() {
    let Some(_) = sluice() else { return };
    // Of its own: other tests uninstall, which removes the service, too.
    let prefix = TempDir::new().unwrap();
    begin(prefix.path());
    let system = prefix.path().join("drive_c/windows/system32");
    let run = |status, arguments: &[&str]| {
        let output = sluice().unwrap().args(arguments).env("WINEPREFIX", prefix.path()).output();
        ended(&output.unwrap(), status).0
    };
    // A service does not get WINEPATH.
    for entry in std::fs::read_dir(products().join("wine")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "dll") {
            std::fs::copy(&path, system.join(path.file_name().unwrap())).unwrap();
        }
    }
    let out = run(0, &["service", "install", "--every", "1"]);
    assert!(out.contains(r"from C:\Program Files\Sluicegate\sluice.exe"), "{out}");
    let file = system.join("LogFiles/Sluicegate/decisions.jsonl");
    let start = std::time::Instant::now();
    let said = loop {
        let said = std::fs::read_to_string(&file).unwrap_or_default();
        if said.contains("the driver is not installed") {
            break said;
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "it has said nothing: {said:?}");
        // Wine ends its services with the last program; this one has them started again.
        run(0, &["--help"]);
    };
    assert!(said.lines().all(|line| line.starts_with(r#"{"type":"trouble","time":""#)), "{said}");
    assert!(run(0, &["service", "remove"]).contains("removed"));
}
