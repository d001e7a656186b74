//! Generates bindings to fwpsk.h and fwpmk.h, on the configuration that `wdk-sys` itself is generated with.

mod ndis;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use bindgen::callbacks::{DeriveTrait, EnumVariantCustomBehavior, EnumVariantValue, ImplementsTrait, ParseCallbacks};
use wdk_build::{ApiSubset, BuilderExt, Config, configure_wdk_library_build_and_then};

/// Headers whose declarations `wdk-sys` has already, in any letter case: the bindings use its types.
const IN_WDK_SYS: &str = r".*[/\\](?i-u:basetsd|guiddef|ntdef|ntddk|ntifs|ntstrsafe|wdm|wdf[a-z]*)\.(?i-u:h)";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    configure_wdk_library_build_and_then(generate)
}

fn generate(config: Config) -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut headers = config.bindgen_header_contents([ApiSubset::Base])?;
    let ndis = readable_ndis(&config, &out)?;
    for header in [ndis.as_path(), "fwpsk.h".as_ref(), "fwpmk.h".as_ref()] {
        headers += &format!("#include \"{}\"\n", header.display());
    }
    let layers = Layers::default();
    let bindings = bindgen::Builder::wdk_default(&config)?
        // The kit's headers leave members out when they are not told for which NDIS a driver is built.
        .clang_arg("--define-macro=NDIS630=1")
        .header_contents("wfp-input.h", &headers)
        .allowlist_function("Fwps.*|FwpmBfeState.*|NdisGetDataBuffer")
        .allowlist_function("FwpmEngine(Open|Close)0|FwpmTransaction(Begin|Commit|Abort)0")
        .allowlist_function("Fwpm(SubLayer|Callout|Filter)(Add0|DeleteByKey0)|FwpmFilterDeleteById0")
        .allowlist_type("FWPS_.*|FWP_.*|FWPM_SERVICE_STATE.*|SOCKADDR_INET|IPPROTO")
        .allowlist_var("FWPS_.*|FWP_.*|FWPM_SESSION_FLAG_DYNAMIC|AF_INET6?|AF_UNSPEC")
        .blocklist_file(IN_WDK_SYS)
        // Written by hand in src/ndis.rs, all that is inside them too.
        .blocklist_type("_?P?NET_BUFFER.*")
        .derive_debug(false)
        .parse_callbacks(Box::new(TypesOfWdkSys))
        .parse_callbacks(Box::new(layers.clone()))
        .generate()?;
    bindings.write_to_file(out.join("bindings.rs"))?;
    fs::write(out.join("layers.rs"), layers.table())?;

    // On other hosts the stand-in for wdk-build names the libraries, some of which it makes.
    if cfg!(windows) {
        for folder in config.library_paths()? {
            println!("cargo::rustc-link-search={}", folder.display());
        }
        println!("cargo::rustc-link-lib=fwpkclnt");
        println!("cargo::rustc-link-lib=ndis");
    }
    Ok(())
}

/// A copy of the kit's ndis.h that clang can read. It is included first: fwpsk.h includes ndis.h by itself in some kits,
/// and finds it done by then.
fn readable_ndis(config: &Config, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let original = config
        .include_paths()?
        .map(|folder| folder.join("ndis.h"))
        .find(|header| header.is_file())
        .ok_or("ndis.h is in none of the kit's folders")?;
    println!("cargo::rerun-if-changed={}", original.display());
    // Comments of some headers are not UTF-8.
    let text = fs::read(&original).map_err(|error| format!("{}: {error}", original.display()))?;
    let copy = out.join("ndis.h");
    fs::write(&copy, ndis::expand_pasted_arguments(&String::from_utf8_lossy(&text)))?;
    Ok(copy)
}

/// Types that `wdk-sys` generated are plain data: they can be copied and have a default.
#[derive(Debug)]
struct TypesOfWdkSys;

impl ParseCallbacks for TypesOfWdkSys {
    fn blocklisted_type_implements_trait(&self, _name: &str, derive: DeriveTrait) -> Option<ImplementsTrait> {
        matches!(derive, DeriveTrait::Copy | DeriveTrait::Default).then_some(ImplementsTrait::Yes)
    }
}

/// Collects the layers and their fields while bindgen reads the enumerations that number them.
#[derive(Clone, Debug, Default)]
struct Layers(Rc<RefCell<Numbers>>);

#[derive(Debug, Default)]
struct Numbers {
    /// FWPS_BUILTIN_LAYERS: a layer's name without FWPS_LAYER_, and its id.
    layers: BTreeMap<String, i64>,
    /// FWPS_FIELDS_<layer>: the layer's name, and its fields in their order.
    fields: BTreeMap<String, Vec<(i64, String)>>,
}

impl ParseCallbacks for Layers {
    fn enum_variant_behavior(
        &self,
        enumeration: Option<&str>,
        variant: &str,
        value: EnumVariantValue,
    ) -> Option<EnumVariantCustomBehavior> {
        let value = match value {
            EnumVariantValue::Signed(value) => value,
            EnumVariantValue::Unsigned(value) => i64::try_from(value).ok()?,
            EnumVariantValue::Boolean(_) => return None,
        };
        let mut numbers = self.0.borrow_mut();
        if let Some(name) = variant.strip_prefix("FWPS_LAYER_") {
            numbers.layers.insert(name.to_owned(), value);
        }
        let layer = enumeration?.rsplit(' ').next()?.strip_prefix("FWPS_FIELDS_")?.trim_end_matches('_');
        let field = variant.strip_prefix("FWPS_FIELD_")?.strip_prefix(layer)?.strip_prefix('_')?;
        let fields = numbers.fields.entry(layer.to_owned()).or_default();
        if field != "MAX" && !fields.iter().any(|(_, known)| known == field) {
            fields.push((value, field.to_owned()));
        }
        None
    }
}

impl Layers {
    /// `LAYERS` as Rust.
    fn table(&self) -> String {
        let numbers = self.0.borrow();
        let mut text = "/// Every layer whose fields the headers number.\npub const LAYERS: &[Layer] = &[\n".to_owned();
        for (layer, fields) in &numbers.fields {
            let Some(id) = numbers.layers.get(layer) else { continue };
            let _ = writeln!(text, "    Layer {{ id: {id}, name: {layer:?}, fields: &[");
            for (index, field) in fields {
                let _ = writeln!(text, "        ({field:?}, {index}),");
            }
            text += "    ] },\n";
        }
        text + "];\n"
    }
}
