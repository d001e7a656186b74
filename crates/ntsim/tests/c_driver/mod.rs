//! Builds a driver written in C with clang and lld, as `./dev test` installs them: what no Rust driver has, such as
//! `__try`, or the inline half of wdm.h.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Compiles `source`, a path below this crate's tests, with these options and links it against ntoskrnl.exe, of which it
/// imports these routines. `folder` takes the products.
pub(crate) fn build(folder: &Path, source: &str, options: &[&str], imports: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
    let definitions = format!("LIBRARY ntoskrnl.exe\nEXPORTS\n{}\n", imports.join("\n"));
    std::fs::write(folder.join("ntoskrnl.def"), definitions).unwrap();
    run(folder, "llvm-dlltool-22", &["-m", "i386:x86-64", "-d", "ntoskrnl.def", "-l", "ntoskrnl.lib"]);
    let common = ["-fms-extensions", "-O2", "-c", "-o", "driver.obj", source.to_str().unwrap()];
    run(folder, "clang-22", &[options, &common].concat());
    let entry = ["/driver", "/subsystem:native", "/entry:DriverEntry", "/nodefaultlib", "/out:driver.sys"];
    run(folder, "lld-link-22", &[&entry[..], &["driver.obj", "ntoskrnl.lib"]].concat());
    folder.join("driver.sys")
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `./dev test` installs clang, lld and llvm 22"));
    assert!(output.status.success(), "{program} {arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
