//! How a driver is linked.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    ApiSubset, Config, ConfigError, CpuArchitecture, DriverConfig, IoError,
    config::{cargo_variable, target_is_windows},
    letter_case, tools,
    tree::own,
};

/// Linker arguments for every driver.
const LINK_ARGUMENTS: &[&str] = &[
    "/DRIVER",
    "/NODEFAULTLIB",
    "/SUBSYSTEM:NATIVE,10.0",
    "/NXCOMPAT",
    "/DYNAMICBASE",
    "/OPT:REF,ICF",
    // Makes the kernel refuse the image unless it is signed.
    "/INTEGRITYCHECK",
    // Checksum in the optional header: the kernel checks it for boot drivers, and signing tools expect it.
    "/RELEASE",
    "/MANIFEST:NO",
    // What link.exe does for /DRIVER and lld does not: code and data stay in memory. In lld, P means not paged.
    "/SECTION:.text,ERP",
    "/SECTION:.rdata,RP",
    "/SECTION:.data,RWP",
    "/SECTION:.pdata,RP",
];

/// Libraries that are linked if the kit has them, and not needed otherwise. Microsoft's entry point is one: without it,
/// the crate kmdf-entry takes its place.
const OF_THE_KIT: &[&str] = &["BufferOverflowFastFailK", "hal", "wmilib", "WdfDriverEntry", "arm64rt"];

impl Config {
    /// Configures a driver's build: cfg settings, import libraries and linker arguments.
    ///
    /// For a host that is not Windows (unit tests), only the cfg settings are made.
    ///
    /// # Errors
    /// When llvm-dlltool is missing or fails, or a folder of the WDK is missing.
    pub fn configure_binary_build(&self) -> Result<(), ConfigError> {
        self.configure_link("rustc-cdylib-link-arg")
    }

    /// The same for drivers that are a package's examples, which cargo does not count as its cdylib. The published
    /// crate has no counterpart.
    ///
    /// # Errors
    /// As [`Config::configure_binary_build`].
    pub fn configure_examples_build(&self) -> Result<(), ConfigError> {
        self.configure_link("rustc-link-arg")
    }

    /// Passes every linker argument to cargo with `instruction`.
    fn configure_link(&self, instruction: &str) -> Result<(), ConfigError> {
        self.configure_library_build()?;
        if !target_is_windows()? {
            return Ok(());
        }
        for argument in LINK_ARGUMENTS {
            println!("cargo::{instruction}={argument}");
        }
        println!("cargo::{instruction}=/ENTRY:{}", self.entry_point());
        let folders: Vec<_> = self.library_paths()?.collect();
        let of_the_kit =
            |name: &str| folders.iter().find_map(|folder| letter_case::find(folder, &format!("{name}.lib")));
        for folder in &folders {
            println!("cargo::rustc-link-search={}", folder.display()); // for other crates
        }
        for library in OF_THE_KIT.iter().filter_map(|name| of_the_kit(name)) {
            println!("cargo::{instruction}={}", library.display());
        }
        self.link_import_libraries(instruction, of_the_kit)
    }

    /// Lines to put before bindings so that they link against their library. Empty: the driver's build script does
    /// that.
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

    /// Links the import libraries of the modules in `def/`: the kit's, or one made from the list of exports. Functions
    /// that are not called are not imported.
    fn link_import_libraries(
        &self,
        instruction: &str,
        of_the_kit: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<(), ConfigError> {
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
            let name = list.file_stem().unwrap_or_default().to_string_lossy();
            let library = match of_the_kit(&name) {
                Some(library) => library,
                None => {
                    let library = out.join(format!("{name}.lib"));
                    tools::run(Command::new(&dlltool).args(["-m", machine, "-d"]).arg(&list).arg("-l").arg(&library))?;
                    library
                }
            };
            println!("cargo::{instruction}={}", library.display());
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
        // In no header of any kit either: who calls it declares it (crates/kernel/src/process.rs).
        const IN_NO_KIT: [&str; 1] = ["PsGetProcessInheritedFromUniqueProcessId"];
        let headers: String = ["headers/km", "headers/kmdf"]
            .iter()
            .flat_map(|folder| fs::read_dir(own(folder)).unwrap())
            .map(|header| fs::read_to_string(header.unwrap().path()).unwrap())
            .collect();
        for list in ["ntoskrnl", "ndis"] {
            let list = fs::read_to_string(own(&format!("def/{list}.def"))).unwrap();
            for name in list.lines().filter_map(|line| line.strip_prefix("    ")) {
                let compilers_own = name.starts_with("mem") || ["__chkstk", "strlen"].contains(&name);
                let declared = headers.contains(&format!(" {name}("));
                assert!(compilers_own || declared != IN_NO_KIT.contains(&name), "{name} is in no header");
            }
        }
    }
}
