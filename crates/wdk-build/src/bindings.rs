//! Sets bindgen up as `wdk-sys` and `wfp-sys` expect.

use std::borrow::Borrow;

use bindgen::{
    Builder, EnumVariation, Formatter, RustEdition, RustTarget,
    callbacks::{ItemInfo, ItemKind, ParseCallbacks},
};

use crate::{Config, ConfigError, config::target_is_windows, tree::Tree};

/// Minor version of the Rust that bindings are written for: the newest that bindgen knows and every supported
/// toolchain understands.
const RUST_MINOR: u64 = 91;

/// Flags to read Microsoft's headers, with their extensions and without their warnings.
const CLANG_FLAGS: &[&str] = &[
    // size_t in signatures becomes usize only when clang does not know the function itself
    "-fno-builtin",
    "-fms-compatibility",
    "-fms-extensions",
    "-fdelayed-template-parsing",
    "-Wno-nonportable-include-path",
    "-Wno-pragma-pack",
    "-Wno-ignored-attributes",
    "-Wno-ignored-pragma-intrinsic",
    "-Wno-visibility",
    "-Wno-switch",
    "-Wno-comment",
    "-Wno-deprecated-declarations",
    "-Wno-invalid-token-paste",
    "-Wno-microsoft",
];

/// Items of a real WDK that bindgen cannot express (bit fields with odd alignment, unnamed structures).
const INEXPRESSIBLE: &[&str] = &[
    ".*MCG_CAP(?:__bindgen.*)?",
    ".*WHEA_XPF_MCA_SECTION",
    ".*WHEA_ARM_BUS_ERROR(?:__bindgen.*)?",
    ".*WHEA_ARM_PROCESSOR_ERROR",
    ".*WHEA_ARM_CACHE_ERROR",
    ".*ADDRESS0_OWNERSHIP_ACQUIRE",
    ".*USBDEVICE_ABORTIO",
    ".*USBDEVICE_STARTIO",
    ".*USBDEVICE_TREE_PURGEIO",
];

/// Allocators of a real WDK that ExAllocatePool2 has replaced.
const DEPRECATED: &[&str] =
    &["ExAllocatePool", "ExAllocatePoolWithTag", "ExAllocatePoolWithQuotaTag", "ExAllocatePoolWithTagPriority"];

/// A bindgen builder set up for the WDK.
pub trait BuilderExt {
    /// The builder that `wdk-sys` and `wfp-sys` extend.
    ///
    /// # Errors
    /// When the headers are missing.
    fn wdk_default(config: impl Borrow<Config>) -> Result<Builder, ConfigError>;
}

impl BuilderExt for Builder {
    fn wdk_default(config: impl Borrow<Config>) -> Result<Builder, ConfigError> {
        let config = config.borrow();
        let rust = RustTarget::stable(RUST_MINOR, 0).map_err(|error| ConfigError::Bindgen(error.to_string()))?;
        let mut builder = Self::default()
            .use_core()
            .derive_default(true)
            .generate_cstr(true)
            .detect_include_paths(false)
            .must_use_type("NTSTATUS")
            .must_use_type("HRESULT")
            .default_enum_style(EnumVariation::ModuleConsts)
            .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
            .parse_callbacks(Box::new(FunctionTable(config.compute_wdffunctions_symbol_name())))
            .formatter(Formatter::Prettyplease)
            .rust_target(rust)
            .rust_edition(RustEdition::Edition2024)
            .clang_args(CLANG_FLAGS)
            .clang_args(config.include_paths()?.map(|folder| format!("--include-directory={}", folder.display())))
            .clang_args(config.preprocessor_definitions().map(|(name, value)| match value {
                Some(value) => format!("--define-macro={name}={value}"),
                None => format!("--define-macro={name}"),
            }));
        if !target_is_windows()? {
            // Unit tests on the host: the layout is still Windows'.
            builder = builder.clang_arg("--target=x86_64-pc-windows-msvc");
        }
        if matches!(config.tree, Tree::Wdk { .. }) {
            builder = builder.opaque_type("_KGDTENTRY64").opaque_type("_KIDTENTRY64").no_default(".*tagMONITORINFOEXA");
            for item in INEXPRESSIBLE.iter().chain(DEPRECATED) {
                builder = builder.blocklist_item(*item);
            }
        }
        Ok(builder)
    }
}

/// Renames the framework's function table, whose C name carries the version, to `WdfFunctions`.
#[derive(Debug)]
struct FunctionTable(Option<String>);

impl ParseCallbacks for FunctionTable {
    fn generated_name_override(&self, item: ItemInfo<'_>) -> Option<String> {
        (matches!(item.kind, ItemKind::Var) && self.0.as_deref() == Some(item.name)).then(|| "WdfFunctions".to_owned())
    }
}
