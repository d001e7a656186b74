//! The driver builds against a Windows Driver Kit.
//!
//! The kits are made here, with the peculiarities of real ones: file names in other letter cases than in the includes,
//! backslashes, CR LF, bytes that are not UTF-8, an ndis.h that only Microsoft's preprocessor reads, network buffers
//! for which bindgen computes wrong sizes, and none of the names that only this project's headers have; one with
//! libraries and one without. Most of the text is from this crate's own headers; the files in this folder were written
//! for this test.
//!
//! The build uses the target folder of the driver's release build, so that the crates it needs are compiled once. The
//! next build of the driver itself rebuilds a few crates.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

const X64: &str = "x86_64-pc-windows-msvc";
const ARM64: &str = "aarch64-pc-windows-msvc";

/// The crate's folder.
const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The files that a kit has besides those of this crate's `headers`.
const VERSION: &str = "10.0.19041.0";

#[test]
fn a_kit_without_libraries() {
    let _alone = alone();
    let kit = Kit::lay("headers-only", Shape::Old);
    kit.cargo(&["build", "--target", X64]);
    let image = fs::read(driver_target().join(X64).join("release/sluice.dll")).unwrap();
    assert!(contains(&image, b"WdfVersionBind\0"), "the entry point is from kmdf-entry");
    // Checking the driver compiles the headers, with a result that depends on the architecture.
    kit.cargo(&["check", "--target", ARM64]);
}

#[test]
fn a_kit_with_libraries() {
    let _alone = alone();
    let kit = Kit::lay("libraries", Shape::New);
    kit.make_libraries();
    kit.cargo(&["build", "--target", X64]);
    let image = fs::read(driver_target().join(X64).join("release/sluice.dll")).unwrap();
    assert!(contains(&image, b"WdfVersionBindClass\0"), "the entry point is from the kit");
    assert!(!contains(&image, b"WdfVersionBind\0"), "and it is the only one");
}

/// How the kits' headers differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Like 10.0.19041: all of NDIS in ndis.h, fewer fields and flags of the Filtering Platform.
    Old,
    /// Like 10.0.20348 and later: NDIS split into several headers.
    New,
}

struct Kit {
    root: PathBuf,
}

impl Kit {
    fn lay(name: &str, shape: Shape) -> Self {
        let kit = Self { root: Path::new(env!("CARGO_TARGET_TMPDIR")).join("kit").join(name) };
        let _ = fs::remove_dir_all(&kit.root);
        let include = format!("Include/{VERSION}");
        for file in files(&Path::new(HERE).join("headers/km")) {
            let (name, text) = named(&file);
            let text = match name.as_str() {
                "ndis.h" => continue,
                "ntdef.h" => text + &own("slist.h"),
                "wdm.h" => text.replace("#include \"ntdef.h\"\n", "#include <ntdef.h>\n#include \"KitSpecs.h\"\n"),
                "fwptypes.h" | "fwpsk_fields.h" if shape == Shape::Old => without_what_came_later(&text),
                _ => text,
            };
            let folder = if ["ntdef.h", "ws2def.h", "fwptypes.h"].contains(&name.as_str()) { "shared" } else { "km" };
            kit.write(&format!("{include}/{folder}/{}", capitalized(&name)), &text);
        }
        kit.write(&format!("{include}/shared/kitspecs.h"), &own("specs.h"));
        kit.write(&format!("{include}/km/crt/excpt.h"), "");
        match shape {
            Shape::Old => {
                let all =
                    own("ndis.h").replace("#include <ndis\\nbl.h>\n", &own("nbl.h").replace("#pragma once\n", ""));
                kit.write(&format!("{include}/km/ndis.h"), &all);
            }
            Shape::New => {
                kit.write(&format!("{include}/km/Ndis.h"), &own("ndis.h"));
                kit.write(&format!("{include}/km/NDIS/NBL.h"), &own("nbl.h"));
            }
        }
        for file in files(&Path::new(HERE).join("headers/kmdf")) {
            let (name, text) = named(&file);
            kit.write(&format!("Include/wdf/kmdf/1.15/{}", capitalized(&name)), &text);
        }
        kit
    }

    /// Writes a header as in a kit: with `#include` in another letter case than the file's, CR LF, and a byte that is
    /// not UTF-8.
    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let lines = text.lines().map(|line| match line.strip_prefix("#include \"") {
            Some(name) => format!("#include \"{}\r\n", name.to_uppercase()),
            None => format!("{line}\r\n"),
        });
        let mut bytes = b"/* \xa9 */\r\n".to_vec();
        bytes.extend(lines.flat_map(String::into_bytes));
        fs::write(path, bytes).unwrap();
    }

    /// Makes the libraries that a kit has for x64: its own entry point, and import libraries from this crate's lists.
    fn make_libraries(&self) {
        let modules = self.root.join(format!("Lib/{VERSION}/KM/x64"));
        let framework = self.root.join("Lib/wdf/kmdf/x64/1.15");
        for folder in [&modules, &framework] {
            fs::create_dir_all(folder).unwrap();
        }
        let list = self.root.join("list.def");
        for file in files(&Path::new(HERE).join("def")) {
            let (name, mut exports) = named(&file);
            let folder = if name == "wdfldr.def" { &framework } else { &modules };
            if name == "wdfldr.def" {
                exports += "    WdfVersionBindClass\n";
            }
            fs::write(&list, exports).unwrap();
            let library = folder.join(capitalized(&name)).with_extension("Lib");
            run(Command::new("llvm-dlltool-22").args(["-m", "i386:x86-64", "-d"]).arg(&list).arg("-l").arg(&library));
        }
        let (source, object) = (Path::new(HERE).join("tests/kit/entry.c"), self.root.join("entry.obj"));
        run(Command::new("clang-cl-22").args(["--target=x86_64-pc-windows-msvc", "/c", "/GS-", "-o"]).args([
            object.as_os_str(),
            "--".as_ref(),
            source.as_os_str(),
        ]));
        let mut out = std::ffi::OsString::from("/out:");
        out.push(framework.join("WDFDriverEntry.lib"));
        run(Command::new("llvm-lib-22").arg(out).arg(&object));
    }

    /// `cargo` for the driver, against this kit.
    fn cargo(&self, arguments: &[&str]) {
        let mut cargo = toolchain();
        cargo.args(arguments).args(["--release", "--package", "sluice-driver", "--config", ".cargo/linux.toml"]);
        cargo.current_dir(Path::new(HERE).join("../../driver")).arg("--target-dir").arg(driver_target());
        cargo.env_remove("CARGO_TARGET_DIR").env_remove("Version_Number").env("WDKContentRoot", &self.root);
        run(&mut cargo);
    }
}

/// There is only one target folder: another kit's image could be mistaken for this one's.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cargo that builds for Windows, as crates/xtask/src/toolchain.rs chooses it.
fn toolchain() -> Command {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
    let library = Path::new(String::from_utf8(sysroot).unwrap().trim()).join("lib/rustlib").join(X64).join("lib");
    let choice = env::var("SLUICE_TOOLCHAIN").unwrap_or_default();
    if choice != "debian" && library.is_dir() {
        return Command::new(env!("CARGO"));
    }
    let mut cargo = Command::new("/usr/bin/cargo");
    for variable in ["CARGO", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
        cargo.env_remove(variable);
    }
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    cargo.arg("-Zbuild-std=core,alloc,compiler_builtins");
    cargo
}

fn driver_target() -> PathBuf {
    Path::new(HERE).join("../../driver/target")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A file's name in lower case, and its text.
fn named(file: &Path) -> (String, String) {
    let name = file.file_name().unwrap().to_str().unwrap().to_lowercase();
    (name, fs::read_to_string(file).unwrap())
}

fn own(name: &str) -> String {
    named(&Path::new(HERE).join("tests/kit").join(name)).1
}

fn capitalized(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

/// The Filtering Platform as the first kit with ExAllocatePool2 declares it.
fn without_what_came_later(header: &str) -> String {
    let later = ["_PACKAGE_FAMILY_NAME", "_ALLOW_URO", "_RESERVED"];
    header
        .lines()
        .filter(|line| !later.iter().any(|name| line.contains(name)))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
