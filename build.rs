//! Resources of sluice.exe: the version and the manifest. Nothing happens for other targets.

use std::env;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=resources/sluice.manifest");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS")? != "windows" {
        return Ok(());
    }
    let mut resource = winresource::WindowsResource::new();
    resource
        .set_manifest_file("resources/sluice.manifest")
        .set("FileDescription", &env::var("CARGO_PKG_DESCRIPTION")?)
        .set("ProductName", "Sluicegate")
        .set("OriginalFilename", "sluice.exe")
        .set("InternalName", "sluice")
        .set("LegalCopyright", &format!("Licensed under {}", env::var("CARGO_PKG_LICENSE")?));
    resource.compile()?;
    Ok(())
}
