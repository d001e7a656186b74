//! Finds out whether the WDK's own entry point library will be linked.

use std::env;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(wdf_driver_entry_lib)");
    println!("cargo::rerun-if-env-changed=WDKContentRoot");
    let real_wdk = cfg!(windows) || env::var_os("WDKContentRoot").is_some_and(|root| !root.is_empty());
    if real_wdk {
        println!("cargo::rustc-cfg=wdf_driver_entry_lib");
    }
}
