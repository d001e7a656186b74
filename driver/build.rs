//! Configures the linker for a driver and gives the image its version resource.

use std::{env, error::Error, ffi::OsString, fs, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    // As text: an error returned from main is printed in its Debug form.
    wdk_build::configure_wdk_binary_build().map_err(|error| error.to_string())?;
    if env::var("CARGO_CFG_TARGET_OS")? == "windows" {
        // A hash of the image in place of the time stamp: the same sources give the same bytes.
        println!("cargo::rustc-cdylib-link-arg=/Brepro");
        // Compatible with shadow stacks: the code returns only to its caller.
        if env::var("CARGO_CFG_TARGET_ARCH")? == "x86_64" {
            println!("cargo::rustc-cdylib-link-arg=/CETCOMPAT");
        }
        link_version_resource()?;
    }
    Ok(())
}

const SCRIPT: &str = "version.rc";
const RESOURCE: &str = "version.res";

/// Compiles a version resource from the package's manifest. Explorer, the service manager and crash dumps show it.
fn link_version_resource() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join(SCRIPT), version_script()?)?;

    let compiler = resource_compiler();
    let mut command = Command::new(&compiler);
    if !cfg!(windows) {
        command.arg("/no-preprocess"); // llvm-rc would look for a clang without a version in its name
    }
    // File names only: a Unix path begins like an option, and /check/version.rc would be read as /c with a code page.
    let status =
        command.current_dir(&out).args(["/nologo", "/fo", RESOURCE, SCRIPT]).status().map_err(|error| {
            format!("cannot run the resource compiler {compiler:?} (set LLVM_RC to another): {error}")
        })?;
    if !status.success() {
        return Err(format!("{command:?} ended with {status}").into());
    }
    println!("cargo::rustc-cdylib-link-arg={}", out.join(RESOURCE).display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    Ok(())
}

fn resource_compiler() -> OsString {
    println!("cargo::rerun-if-env-changed=LLVM_RC");
    env::var_os("LLVM_RC").unwrap_or_else(|| if cfg!(windows) { "rc.exe" } else { "llvm-rc-22" }.into())
}

/// The resource script, with numeric constants: it is compiled without headers.
fn version_script() -> Result<String, Box<dyn Error>> {
    let version = env::var("CARGO_PKG_VERSION")?;
    let description = env::var("CARGO_PKG_DESCRIPTION")?;
    let number = |part: &str| env::var(format!("CARGO_PKG_VERSION_{part}"));
    let (major, minor, patch) = (number("MAJOR")?, number("MINOR")?, number("PATCH")?);
    Ok(format!(
        r#"1 VERSIONINFO
FILEVERSION {major},{minor},{patch},0
PRODUCTVERSION {major},{minor},{patch},0
FILEFLAGSMASK 0x3fL
FILEFLAGS 0L
FILEOS 0x40004L      // VOS_NT_WINDOWS32
FILETYPE 3L          // VFT_DRV
FILESUBTYPE 6L       // VFT2_DRV_NETWORK
BEGIN
    BLOCK "StringFileInfo"
    BEGIN
        BLOCK "040904b0"
        BEGIN
            VALUE "CompanyName", "Sluicegate"
            VALUE "FileDescription", "{description}"
            VALUE "FileVersion", "{version}"
            VALUE "InternalName", "sluice.sys"
            VALUE "LegalCopyright", "Licensed under MIT or Apache-2.0"
            VALUE "OriginalFilename", "sluice.sys"
            VALUE "ProductName", "Sluicegate"
            VALUE "ProductVersion", "{version}"
        END
    END
    BLOCK "VarFileInfo"
    BEGIN
        VALUE "Translation", 0x409, 1200
    END
END
"#
    ))
}
