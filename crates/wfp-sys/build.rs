//! Generates bindings to fwpsk.h and fwpmk.h, on the configuration that `wdk-sys` itself is generated with.

use std::{env, error::Error, path::PathBuf};

use bindgen::callbacks::{DeriveTrait, ImplementsTrait, ParseCallbacks};
use wdk_build::{ApiSubset, BuilderExt, Config, configure_wdk_library_build_and_then};

/// Headers whose declarations `wdk-sys` has already: the bindings use its types.
const IN_WDK_SYS: &str = r".*[/\\](basetsd|guiddef|ntdef|ntddk|ntifs|ntstrsafe|wdm|wdf[a-z]*)\.h";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WDKContentRoot");
    configure_wdk_library_build_and_then(generate)
}

fn generate(config: Config) -> Result<(), Box<dyn Error>> {
    let mut headers = config.bindgen_header_contents([ApiSubset::Base])?;
    for header in ["ndis.h", "fwpsk.h", "fwpmk.h"] {
        headers += &format!("#include <{header}>\n");
    }
    let bindings = bindgen::Builder::wdk_default(&config)?
        // The kit's headers leave members out when they are not told for which NDIS a driver is built.
        .clang_arg("--define-macro=NDIS630=1")
        .header_contents("wfp-input.h", &headers)
        .allowlist_function("Fwps.*|FwpmBfeState.*|NdisGetDataBuffer")
        .allowlist_type("FWPS_.*|FWP_.*|FWPM_SERVICE_STATE.*|SOCKADDR_INET|IPPROTO")
        .allowlist_var("FWPS_.*|FWP_.*|AF_INET6?|AF_UNSPEC")
        .blocklist_file(IN_WDK_SYS)
        // Written by hand in src/ndis.rs.
        .blocklist_type("_?P?NET_BUFFER(_LIST)?")
        .derive_debug(false)
        .parse_callbacks(Box::new(TypesOfWdkSys))
        .generate()?;
    bindings.write_to_file(PathBuf::from(env::var("OUT_DIR")?).join("bindings.rs"))?;

    // The stand-in for wdk-build makes import libraries itself; a real kit has them, and nobody else names them.
    let real_wdk = cfg!(windows) || env::var_os("WDKContentRoot").is_some_and(|root| !root.is_empty());
    if real_wdk {
        println!("cargo::rustc-link-lib=fwpkclnt");
        println!("cargo::rustc-link-lib=ndis");
    }
    Ok(())
}

/// Types that `wdk-sys` generated are plain data: they can be copied and have a default.
#[derive(Debug)]
struct TypesOfWdkSys;

impl ParseCallbacks for TypesOfWdkSys {
    fn blocklisted_type_implements_trait(&self, _name: &str, derive: DeriveTrait) -> Option<ImplementsTrait> {
        matches!(derive, DeriveTrait::Copy | DeriveTrait::Default).then_some(ImplementsTrait::Yes)
    }
}
