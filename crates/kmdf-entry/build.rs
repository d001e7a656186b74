//! Finds out whether the WDK's own entry point library is linked, by the rule of wdk-build: it is linked if the kit has
//! it.

use std::{error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rustc-check-cfg=cfg(wdf_driver_entry_lib)");
    wdk_build::configure_wdk_library_build_and_then(|config| -> Result<(), Box<dyn Error>> {
        for folder in config.library_paths()? {
            for file in fs::read_dir(folder)? {
                if file?.file_name().eq_ignore_ascii_case("WdfDriverEntry.lib") {
                    println!("cargo::rustc-cfg=wdf_driver_entry_lib");
                }
            }
        }
        Ok(())
    })
}
