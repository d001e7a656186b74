//! How a driver is linked.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    ApiSubset, Config, ConfigError, CpuArchitecture, DriverConfig, IoError,
    config::{cargo_variable, target_is_windows},
    tools,
    tree::{Tree, own},
};

/// Linker arguments that every driver gets.
const LINK_ARGUMENTS: &[&str] = &[
    "/DRIVER",
    "/NODEFAULTLIB",
    "/SUBSYSTEM:NATIVE,10.0",
    "/NXCOMPAT",
    "/DYNAMICBASE",
    "/OPT:REF,ICF",
    // The kernel then refuses the image unless it is signed.
    "/INTEGRITYCHECK",
    // Checksum in the optional header: the kernel checks it for boot drivers and signing tools expect it.
    "/RELEASE",
    "/MANIFEST:NO",
    // What /DRIVER makes link.exe do and lld does not: code and data stay in memory. For lld P means not paged.
    "/SECTION:.text,ERP",
    "/SECTION:.rdata,RP",
    "/SECTION:.data,RWP",
    "/SECTION:.pdata,RP",
];

/// Libraries of a real WDK, beside those of callers such as `wfp-sys`.
const WDK_LIBRARIES: &[&str] = &["BufferOverflowFastFailK", "ntoskrnl", "hal", "wmilib"];

impl Config {
    /// Configures a driver's build: cfg settings, import libraries and linker arguments.
    ///
    /// Built for a host that is not Windows (unit tests) only the cfg settings are made.
    ///
    /// # Errors
    /// When llvm-dlltool is missing or fails, or a folder of the WDK is missing.
    pub fn configure_binary_build(&self) -> Result<(), ConfigError> {
        self.configure_link("rustc-cdylib-link-arg")
    }

    /// The same for drivers that are a package's examples, which cargo does not count as its cdylib. The published crate
    /// has nothing like it.
    ///
    /// # Errors
    /// As [`Config::configure_binary_build`].
    pub fn configure_examples_build(&self) -> Result<(), ConfigError> {
        self.configure_link("rustc-link-arg")
    }

    /// Says every linker argument to cargo with `instruction`.
    fn configure_link(&self, instruction: &str) -> Result<(), ConfigError> {
        self.configure_library_build()?;
        if !target_is_windows()? {
            return Ok(());
        }
        for argument in LINK_ARGUMENTS {
            println!("cargo::{instruction}={argument}");
        }
        println!("cargo::{instruction}=/ENTRY:{}", self.entry_point());
        match &self.tree {
            Tree::Own => self.make_import_libraries(instruction),
            Tree::Wdk { .. } => self.use_wdk_libraries(instruction),
        }
    }

    /// Lines to put before bindings so that they link against their library. None: the driver's build script does it.
    #[must_use]
    pub fn bindgen_library_link_raw_lines(&self, _subset: ApiSubset) -> Option<String> {
        None
    }

    fn entry_point(&self) -> &'static str {
        match self.driver_config {
            DriverConfig::Kmdf(_) | DriverConfig::Umdf(_) => "FxDriverEntry",
            DriverConfig::Wdm => "DriverEntry",
        }
    }

    /// Makes an import library from each list of exports in `def/`. What is not called is not imported.
    fn make_import_libraries(&self, instruction: &str) -> Result<(), ConfigError> {
        let dlltool = tools::find("llvm-dlltool", "LLVM_DLLTOOL")?;
        let machine = match self.architecture {
            CpuArchitecture::Amd64 => "i386:x86-64",
            CpuArchitecture::Arm64 => "arm64",
        };
        let out = PathBuf::from(cargo_variable("OUT_DIR")?);
        let lists = own("def");
        println!("cargo::rerun-if-changed={}", lists.display());
        for list in fs::read_dir(&lists).map_err(|source| IoError::with_path(&lists, source))? {
            let list = list.map_err(|source| IoError::with_path(&lists, source))?.path();
            let library = out.join(list.file_name().unwrap_or_default()).with_extension("lib");
            tools::run(Command::new(&dlltool).args(["-m", machine, "-d"]).arg(&list).arg("-l").arg(&library))?;
            println!("cargo::{instruction}={}", library.display());
        }
        Ok(())
    }

    fn use_wdk_libraries(&self, instruction: &str) -> Result<(), ConfigError> {
        for folder in self.library_paths()? {
            println!("cargo::rustc-link-search={}", folder.display());
            println!("cargo::{instruction}=/LIBPATH:{}", folder.display());
        }
        let framework: &[&str] = match self.driver_config {
            DriverConfig::Kmdf(_) => &["WdfLdr", "WdfDriverEntry"],
            _ => &[],
        };
        let architecture: &[&str] = match self.architecture {
            CpuArchitecture::Amd64 => &[],
            CpuArchitecture::Arm64 => &["arm64rt"],
        };
        for library in WDK_LIBRARIES.iter().chain(framework).chain(architecture) {
            println!("cargo::{instruction}={library}.lib");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name in `def/` that is not the compiler's own must be declared in a header, or nobody could call it; the
    /// list for fwpkclnt.sys is complete on purpose.
    #[test]
    fn exports_are_declared() {
        let headers: String = ["headers/km", "headers/kmdf"]
            .iter()
            .flat_map(|folder| fs::read_dir(own(folder)).unwrap())
            .map(|header| fs::read_to_string(header.unwrap().path()).unwrap())
            .collect();
        for list in ["ntoskrnl", "ndis"] {
            let list = fs::read_to_string(own(&format!("def/{list}.def"))).unwrap();
            for name in list.lines().filter_map(|line| line.strip_prefix("    ")) {
                let compilers_own = name.starts_with("mem") || ["__chkstk", "strlen"].contains(&name);
                assert!(compilers_own || headers.contains(&format!(" {name}(")), "{name} is in no header");
            }
        }
    }
}
