//! The files that a command reads and writes: nothing waits for a pipe or reads a device, an output never takes the
//! place of an input or of what is not a file.
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::{FileTypeExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
};

const POLICY: &str = r#"
[list.bad]
file = "bad.txt"

[[rule]]
name = "bad"
action = "block"
remote = "@bad"
"#;
const KEY: &str = "000102030405060708090a0b0c0d0e0f";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.toml"), POLICY).unwrap();
    fs::write(folder.path().join("bad.txt"), "192.0.2.1\n").unwrap();
    folder
}

fn sluice(folder: &Path, arguments: &[&str], stdin: Stdio) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("NTSIM_SOCKET")
        .stdin(stdin)
        .output()
        .unwrap()
}

fn ends(folder: &Path, status: i32, arguments: &[&str]) -> (Vec<u8>, String) {
    let output = sluice(folder, arguments, Stdio::null());
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
    (output.stdout, error)
}

fn compile(folder: &Path, status: i32, image: &str) -> (Vec<u8>, String) {
    ends(folder, status, &["policy", "compile", "policy.toml", "--key", KEY, "-o", image])
}

#[test]
fn an_image_goes_to_standard_output_and_its_report_beside_it() {
    let folder = folder();
    let (report, _) = compile(folder.path(), 0, "image");
    assert!(String::from_utf8(report).unwrap().starts_with("compiled"));
    let image = fs::read(folder.path().join("image")).unwrap();
    for name in ["-", "/dev/stdout"] {
        let (out, error) = compile(folder.path(), 0, name);
        assert!(out == image, "{name}");
        assert!(error.contains("compiled: ") && error.contains("1 rules"), "{error}");
    }
    assert!(!folder.path().join("-").exists());
}

#[test]
fn what_is_no_file_is_written_into_and_stays() {
    let folder = folder();
    compile(folder.path(), 0, "/dev/null");
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    fs::write(folder.path().join("real"), "old").unwrap();
    symlink("real", folder.path().join("link")).unwrap();
    compile(folder.path(), 0, "link");
    assert!(fs::symlink_metadata(folder.path().join("link")).unwrap().is_symlink());
    assert_ne!(fs::read(folder.path().join("real")).unwrap(), b"old");
}

#[test]
fn no_output_goes_over_an_input() {
    let folder = folder();
    symlink("bad.txt", folder.path().join("link")).unwrap();
    for name in ["policy.toml", "./policy.toml", "bad.txt", "link"] {
        let (_, error) = compile(folder.path(), 1, name);
        assert!(error.contains("is read as"), "{error}");
        assert!(error.contains("nothing was written"), "{error}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("policy.toml")).unwrap(), POLICY);
    assert_eq!(fs::read_to_string(folder.path().join("bad.txt")).unwrap(), "192.0.2.1\n");
}

#[test]
fn what_is_no_file_is_not_read() {
    let folder = folder();
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    for (path, what) in [("pipe", "a pipe"), ("/dev/zero", "a device"), (".", "a directory")] {
        for arguments in [
            &["policy", "check", path][..],
            &["policy", "compile", path, "-o", "image"],
            &["policy", "show", path],
            &["policy", "diff", "policy.toml", path],
            &["policy", "test", path],
            &["policy", "import", path],
            &["policy", "explain", path, "--tcp", "192.0.2.1:1", "192.0.2.2:2"],
            &["load", "--check", path],
        ] {
            let (_, error) = ends(folder.path(), 4, arguments);
            assert!(error.contains(&format!("it is {what}, not a regular file")), "{arguments:?}: {error}");
        }
    }
    fs::remove_file(folder.path().join("bad.txt")).unwrap();
    symlink("pipe", folder.path().join("bad.txt")).unwrap();
    let (_, error) = ends(folder.path(), 4, &["policy", "check", "policy.toml"]);
    assert!(error.contains("`bad.txt` cannot be read: it is a pipe, not a regular file"), "{error}");
}

#[test]
fn a_file_without_end_is_not_read_to_the_end() {
    let folder = folder();
    // Sparse: as long as it says, and nothing on the disk.
    fs::File::create(folder.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
    for arguments in [&["policy", "check", "huge"][..], &["policy", "show", "huge"], &["policy", "import", "huge"]] {
        let (_, error) = ends(folder.path(), 4, arguments);
        assert!(error.contains("it is longer than the"), "{error}");
    }
}

#[test]
fn standard_input_is_read_on_purpose() {
    let folder = folder();
    let policy = fs::File::open(folder.path().join("policy.toml")).unwrap();
    let output = sluice(folder.path(), &["policy", "check", "-"], policy.into());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let endless = fs::File::open("/dev/zero").unwrap();
    let output = sluice(folder.path(), &["policy", "check", "-"], endless.into());
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8(output.stderr).unwrap().contains("it is longer than the 64 MiB that are read"));
}
